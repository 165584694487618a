"""Talk before a picture: what is asked, what the model reads, what is printed."""

import json
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_renderer

from benchmarks import small_talk
from omnitune.models.loading import save_omni
from omnitune.serving import session as session_module
from omnitune.serving.session import ChatSession


@pytest.fixture(scope="module")
def captions(home: Path) -> Path:
    """The data folder with captions for its pictures, and a model beside it."""
    path = home / "data" / "images" / "image_qa.json"
    records = json.loads(path.read_text())
    qa = [{"question": "describe the picture.", "answer": "noise.", "kind": "caption"}]
    path.write_text(
        json.dumps([{"image": r["image"], "split": r["split"], "qa": qa} for r in records])
    )
    save_omni(home / "omni.pt", tiny_model(), tiny_renderer())
    return home


def test_talk_is_read_only_where_it_is_asked_for(
    captions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read: list[tuple[int, bool]] = []
    prompt = ChatSession._prompt

    def spy(session: ChatSession, user: object) -> object:
        item = prompt(session, user)  # type: ignore[arg-type]
        read.append((len(item.rendered.tokens), bool(item.media)))
        return item

    monkeypatch.setattr(ChatSession, "_prompt", spy)
    monkeypatch.setattr(session_module, "stream", lambda *_: iter([[(0, 40)]]))  # a short answer
    path = tmp_path / "found.json"
    options = ["--ckpt_dir", str(captions), "--data", str(captions / "data")]
    assert small_talk.main([*options, "--json", str(path)]) == 0
    lengths = [length for length, shown in read if shown]
    assert len(lengths) == 2 * 3 * 2  # two pictures are held out
    assert len(set(lengths[:6])) == 1
    assert lengths[6] == lengths[0] < lengths[8] < lengths[10]
    found = json.loads(path.read_text())["small_talk"]
    assert list(found["in the chat"]) == [f"after {n} turns of talk" for n in range(3)]
    assert "2 pictures described exactly right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "tset"], "no captions in the split 'tset'; there are: test, train"),
        (["--pictures", "0"], "--pictures 0: expected at least 1"),
        (["--data", "nowhere"], "nowhere: no such data folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    captions: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    start = ["--ckpt_dir", str(captions), "--data", str(captions / "data")]
    assert small_talk.main([*start, *options]) == 2
    assert said in capsys.readouterr().err
