"""The commands of the prompt, and files in the middle of what is typed."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_wave

from omnitune.sample import Media, UserError
from omnitune.serving.session import ChatSession
from omnitune.serving.streams import printable
from omnitune.serving.terminal.prompt import Terminal

Converse = Callable[..., tuple[str, str]]


def answers(out: str) -> list[str]:
    return [line.removeprefix("model> ") for line in out.split("\n") if line.startswith("model> ")]


# Files in a line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("'{folder}/my cat.png' what is this?", "what is this?"),
        ('"{folder}/my cat.png" what\'s this?', "what's this?"),
        ("{folder}/my\\ cat.png what is this?", "what is this?"),
        ("file://{folder}/my%20cat.png what is this?", "what is this?"),
        ("what's this? '{folder}/my cat.png'", "what's this?"),
        ("describe it {folder}/my\\ cat.png ", "describe it"),
    ],
)
def test_a_dropped_file_goes_with_the_words_beside_it(
    converse: Converse, session: ChatSession, tmp_path: Path, line: str, words: str
) -> None:
    path = write_image(tmp_path / "my cat.png")
    out, err = converse(line.replace("{folder}", str(tmp_path)))
    assert out.startswith("(took my cat.png, 4 tokens)\nmodel> ")
    assert not err
    [shown, text] = session.messages[0].parts
    assert shown == Media("image", path)
    assert session.messages[0].text == text.text == words


def test_files_of_two_kinds_in_front_of_and_behind_the_words(
    converse: Converse, session: ChatSession, tmp_path: Path
) -> None:
    image, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "q.wav")
    converse(f"{wave} what is this? {image}")
    assert session.messages[0].parts[:-1] == (Media("image", image), Media("audio", wave))
    assert session.messages[0].text == "what is this?"


@pytest.mark.parametrize("line", ["{folder}/notes.txt is mine", "is it 'a.png", "what is none.png"])
def test_other_words_stay(
    converse: Converse, session: ChatSession, tmp_path: Path, line: str
) -> None:
    (tmp_path / "notes.txt").write_text("words")
    line = line.replace("{folder}", str(tmp_path))
    _, err = converse(f"so {line}")
    assert session.messages[0].text == f"so {line}"
    assert not err


# A system text


@pytest.mark.parametrize(
    ("taught", "told"),
    [
        (True, ""),
        (
            False,
            "(this model was taught without a system text: it may ignore it, or answer worse)\n",
        ),
        (None, "(whether this model was taught with a system text is not known)\n"),
    ],
)
def test_a_system_text_is_read_first_and_stays(
    converse: Converse, session: ChatSession, taught: bool | None, told: str
) -> None:
    session.taught = replace(session.taught, system_text=taught)
    out, _ = converse(
        "hello", "/reset", "/system be brief", "hello", "/reset", "hello", "/system -"
    )
    assert f"(system text: be brief)\n{told}model> " in out
    assert out.endswith("(no system text; /system TEXT gives one)\n")
    plain, first, second = answers(out)
    assert first == second != plain


def test_a_system_text_stands_in_front_of_every_turn(session: ChatSession) -> None:
    session.system = "be brief"
    prompts = []
    for text in ("one", "two"):
        prompts.append(session._prompt(session._turn(text)).rendered.tokens)
        list(session.ask(text))
    system = session.renderer.id_of("<|system|>")
    assert [prompt.count(system) for prompt in prompts] == [1, 1]
    assert [prompt[0] for prompt in prompts] == [system, system]


# The last question again


def test_retry_asks_anew(converse: Converse, session: ChatSession, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    out, err = converse("hello", f"{image} what is this?", "/retry", "/system be brief", "/retry")
    assert not err
    _, first, again, other = answers(out)
    assert first == again != other
    assert out.count("(these are the likeliest words, as before; /retry 0.7 draws others)") == 1
    assert [message.text for message in session.messages[::2]] == ["hello", "what is this?"]
    assert session.messages[3].text == other
    assert Media("image", image) in session.messages[2].parts


def test_earlier_answers_are_saved_as_the_page_saves_them(
    converse: Converse, talk: Terminal, tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    out, _ = converse("hello", "/retry 5", "/retry 5", f"/save {file}")
    [turn] = json.loads(file.read_text())["turns"]
    assert (turn["version"], turn["versions"][2]) == (2, None)
    said = [one["answers"][0]["text"] for one in (*turn["versions"][:2], turn)]
    assert [printable(text) for text in said] == answers(out)
    converse(f"/load {file}", "/retry 5", f"/save {file}")
    [turn] = json.loads(file.read_text())["turns"]
    assert (turn["version"], len(turn["versions"])) == (3, 4)
    assert turn["versions"][2]["answers"][0]["text"] == said[2]
    turn |= {"versions": "x", "version": "y"}
    file.write_text(json.dumps({"format": "omnitune conversation 1", "turns": [turn]}))
    _, err = converse(f"/load {file}", "/retry 5", f"/save {file}")
    assert not err
    assert len(json.loads(file.read_text())["turns"][0]["versions"]) == 2


def test_retry_draws_where_it_is_hot(converse: Converse, session: ChatSession) -> None:
    out, _ = converse("hello", *["/retry 5"] * 4)
    assert len(set(answers(out))) > 2
    assert session.temperature == 0
    assert len(session.messages) == 2


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["/retry"], "there is no question yet that could be asked again"),
        (["hello", "/reset", "/retry"], "there is no question yet that could be asked again"),
        (["hello", "/retry hot"], "/retry hot: expected a temperature, such as 0.7"),
        (["hello", "{image}", "/retry"], "a.png waits for its question; send that first"),
    ],
)
def test_retry_without_a_question(
    converse: Converse, tmp_path: Path, lines: list[str], sentence: str
) -> None:
    image = str(write_image(tmp_path / "a.png"))
    _, err = converse(*(line.replace("{image}", image) for line in lines))
    assert err == sentence + "\n"


def test_retry_that_does_not_fit_changes_nothing(session: ChatSession) -> None:
    list(session.ask("hello"))
    before = list(session.messages)
    session.system = "1" * 300
    with pytest.raises(UserError, match="the limit is"):
        session.retry()
    assert session.messages == before
    session.system = ""
    assert "".join(session.retry()) == before[1].text


# Files of conversations


def is_opened_by_the_page(turn: dict[str, Any]) -> bool:
    """What `open` in app.js asks for."""
    return all(
        medium["kind"] in ("image", "audio")
        and isinstance(medium["name"], str)
        and medium["uri"].startswith(f"data:{medium['kind']}/")
        for medium in turn["media"]
    ) and all({"model", "title", "text", "state"} <= set(one) for one in turn["answers"])


def test_a_conversation_is_saved_and_goes_on(
    converse: Converse, talk: Terminal, tmp_path: Path
) -> None:
    image, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "q.wav")
    file = tmp_path / "talk"
    out, _ = converse(f"{image} what is this?", "/system be brief", f"{wave}", "", f"/save {file}")
    assert out.endswith(f"(saved 2 turns in {file}.json)\n")
    image.unlink()  # the conversation holds it
    values = json.loads((tmp_path / "talk.json").read_text())
    assert values["format"] == "omnitune conversation 1"
    assert values["settings"]["system"] == "be brief"
    assert [turn["text"] for turn in values["turns"]] == ["what is this?", ""]
    assert [[m["name"] for m in turn["media"]] for turn in values["turns"]] == [
        ["a.png"],
        ["q.wav"],
    ]
    assert all(map(is_opened_by_the_page, values["turns"]))
    saved = [turn["answers"][0]["text"] for turn in values["turns"]]
    assert list(map(printable, saved)) == answers(out)
    first, _ = converse("and now?")
    loaded, err = converse("/system -", "/reset", f"/load {file}.json", "and now?")
    assert not err
    assert "(a.png)\nyou> what is this?\nmodel> " in loaded
    assert "(loaded 2 turns from talk.json)\n(system text: be brief)\n" in loaded
    assert answers(loaded)[-1] == answers(first)[-1]
    assert len(talk.transcript.turns) == 3


def test_a_new_conversation_for_the_model_is_none_for_the_file(
    converse: Converse, session: ChatSession, tmp_path: Path
) -> None:
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(2)]
    file = tmp_path / "talk.json"
    converse(*(f"{path} what is this?" for path in paths), "/retry", f"/save {file}")
    assert len(session.messages) == 2
    turns = json.loads(file.read_text())["turns"]
    assert [[medium["name"] for medium in turn["media"]] for turn in turns] == [
        ["0.png"],
        ["1.png"],
    ]


def test_a_file_attached_twice_is_saved_once(converse: Converse, tmp_path: Path) -> None:
    image, file = write_image(tmp_path / "a.png"), tmp_path / "talk.json"
    converse(str(image), str(image), "what is this?", f"/save {file}", f"/save {file}")
    assert len(json.loads(file.read_text())["turns"][0]["media"]) == 1


def page_file(folder: Path, **changes: Any) -> Path:
    """A conversation as the page saves it, of two models beside each other."""
    medium = {"kind": "image", "name": "../x.png", "type": "image/png", "uri": "data:image/png,"}
    said = [{"model": name, "title": name, "text": f"of {name}"} for name in ("other", "mine")]
    turn = {"text": "hi", "media": [], "reference": "ho", "answers": said} | changes
    values = {"format": "omnitune conversation 1", "settings": {"top_p": 1}, "turns": [turn]}
    path = folder / "page.json"
    path.write_text(json.dumps(values).replace('"MEDIUM"', json.dumps(medium)))
    return path


def test_a_conversation_of_the_page_is_loaded(
    converse: Converse, session: ChatSession, talk: Terminal, tmp_path: Path
) -> None:
    out, err = converse(f"/load {page_file(tmp_path)}")
    assert out == "you> hi\nmodel> of mine\n(loaded 1 turn from page.json)\n"
    assert not err
    assert [message.text for message in talk.session.messages] == ["hi", "of mine"]
    assert talk.transcript.turns[0]["reference"] == "ho"


def test_halves_of_characters_and_names_of_dots_end_no_chat(
    converse: Converse, session: ChatSession, tmp_path: Path
) -> None:
    wave = {"kind": "audio", "name": "..", "type": "audio/wav"}
    content = write_wave(tmp_path / "q.wav").read_bytes()
    wave["uri"] = f"data:audio/wav;base64,{base64.b64encode(content).decode()}"
    said = [{"model": "mine", "title": "mine", "text": "\udc80"}]
    path = page_file(tmp_path, text="\udc80", media=[wave], answers=said)
    out, err = converse(f"/load {path}", "and now?")
    assert not err
    assert len(answers(out)) == 2


def test_save_makes_no_folder(converse: Converse, tmp_path: Path) -> None:
    _, err = converse("hello", f"/save {tmp_path}/none/a.json")
    assert "there is no folder" in err
    assert not (tmp_path / "none").exists()


def test_names_of_media_stay_in_their_folder(
    converse: Converse, talk: Terminal, tmp_path: Path
) -> None:
    _, err = converse(f"/load {page_file(tmp_path, media=['MEDIUM'])}")
    # The user knows no other place of it than the file.
    assert f"{tmp_path}/page.json: turn 1: x.png: is not an image" in err
    assert not list(tmp_path.parent.glob("x.png"))
    assert talk.session.messages == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answers": "none"}, 'turn 1: "answers" is no list of objects'),
        ({"media": [{"kind": "image"}]}, 'turn 1: a medium lacks "kind" or "name"'),
        (
            {"media": [{"kind": "image", "name": "a", "uri": 1}]},
            'turn 1: the "uri" of a is no text',
        ),
        ({"text": 7}, 'turn 1: "text" is no text'),
        (
            {"media": [{"kind": "image", "name": "a.png", "uri": "data:image/png;base64,?"}]},
            'turn 1: the "uri" of a.png holds no content',
        ),
        ({"text": "1" * 400}, "turn 1: the conversation holds"),
    ],
)
def test_damaged_conversations_are_refused(
    converse: Converse, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    _, err = converse("hello", f"/load {page_file(tmp_path, **changes)}")
    assert words in err
    assert err.count("\n") == 1


def test_what_the_model_does_not_read_is_left_out(converse: Converse, tmp_path: Path) -> None:
    smell = {"kind": "smell", "name": "rose", "uri": "data:smell/rose,"}
    out, err = converse(f"/load {page_file(tmp_path, media=[smell])}")
    assert "; rose is left out: this model reads no smell)" in out
    assert not err
    kept_elsewhere = {"kind": "image", "name": "a.png", "id": "7"}
    out, err = converse(f"/load {page_file(tmp_path, media=[kept_elsewhere])}")
    assert "; a.png is left out: the file does not hold it)" in out
    assert not err
    out, _ = converse(f"/load {page_file(tmp_path, answers=[])}")
    assert out == "(loaded 0 turns from page.json; 1 without an answer left out)\n"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "no JSON", '{"format": "omnitune", "turns": 1}']
)
def test_other_files_are_neither_read_nor_written_over(
    converse: Converse, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    _, err = converse(f"/load {path}", "hello", f"/save {path}", f"/load {tmp_path}/none.json")
    first, second, third = err.splitlines()
    assert first.startswith(f"{path}: ")
    assert second == f"{path}: is there already and holds no conversation; give another name"
    assert third.endswith("none.json: no such file; expected a conversation that was saved")
    assert path.read_text() == content


def test_save_without_a_name_or_a_turn(
    converse: Converse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = converse("/save", "hello", "/save", "/load")
    assert err == "there is nothing to save yet\n/load needs a file: /load FILE\n"
    assert len(list(tmp_path.glob("conversation-*.json"))) == 1


# Times and pictures


def test_times_are_told_when_asked_for(converse: Converse) -> None:
    out, _ = converse("hello", "/time", "hello", "/time", "hello")
    assert out.count(" tokens, the first after ") == 1
    assert "(times are told after each answer)" in out


def test_piped_output_gets_no_pictures(converse: Converse, tmp_path: Path) -> None:
    out, _ = converse(str(write_image(tmp_path / "a.png")), str(write_wave(tmp_path / "a.wav")))
    assert len(out.splitlines()) == 2


def test_pictures_that_are_asked_for_are_shown(
    session: ChatSession, converse: Converse, talk: Terminal, tmp_path: Path
) -> None:
    talk.view.way = "kitty"
    out, _ = converse(str(write_image(tmp_path / "a.png")))
    assert out.count("\x1b_Ga=T") == 1
