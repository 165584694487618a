"""Reliance: nobody keeps their own medium, who looks gains, who does not is warned of."""

from pathlib import Path
from typing import Any

import pytest
from helpers import conversation, mixed_samples, tiny_reader

from omnitune.evaluation import reliance as module
from omnitune.evaluation.reliance import (
    gains,
    ignored,
    in_words,
    make_trials,
    reliance,
    shown,
    standing_for,
    swapped,
)
from omnitune.evaluation.scoring import Prediction, Question
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Sample

TASKS = {"image": "image_qa", "audio": "transcription"}


def pictures(modality: str, count: int, questions: int = 2, answer: str = "{}") -> list[Sample]:
    """Singles of several media with several questions each; the answer names the medium."""
    return [
        single
        for n in range(count)
        for single in conversation(
            f"{modality}{n}",
            *(text for k in range(questions) for text in (f"which, {k}?", answer.format(n))),
            media=(Media(modality, Path(f"{n}.file")),),
            task=TASKS[modality],
            independent_turns=True,
        ).split_turns()
    ]


class Silent:
    """Stands for a reader: everything fits."""

    def __init__(self, *modalities: str) -> None:
        self.modalities = dict.fromkeys(modalities)

    def item(self, sample: Sample) -> None:
        return None


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Answers that name the medium that is shown, while ``looks`` is true; else always "0"."""
    state = {"looks": True}

    def answer(model: object, reader: object, asked: list[Question], on_progress: Any) -> Any:
        on_progress(len(asked))
        return [Prediction(q.id, q.task, q.kind, q.reference, _seen(q)) for q in asked]

    def _seen(question: Question) -> str:
        media = [p for m in question.messages for p in m.parts if isinstance(p, Media)]
        return media[0].path.stem if media and state["looks"] else "0"

    monkeypatch.setattr(module, "answer", answer)
    return state


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 17])
def test_nobody_keeps_their_own(count: int, seed: int) -> None:
    singles = pictures("image", count)
    other = swapped("image", singles, seed)
    media = {medium for single in singles for medium in single.media}
    assert other.keys() == set(other.values()) == media
    assert all(key != value for key, value in other.items())
    assert other == swapped("image", singles, seed)
    for single in singles:
        assert shown(single, other).media == (other[single.media[0]],)
        assert shown(single, dict.fromkeys(other)).media == ()
        texts = [[m.text for m in s.messages] for s in (single, shown(single, other))]
        assert texts[0] == texts[1]


def albums(count: int, size: int) -> list[Sample]:
    """Samples of several pictures each, of which no two show the same."""
    return [
        conversation(
            f"s{n}",
            "which?",
            str(n),
            media=tuple(Media("image", Path(f"{n}-{k}.png")) for k in range(size)),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "size"), [(20, 2), (30, 3), (2, 2)])
def test_no_sample_keeps_a_picture_of_its_own(count: int, size: int, seed: int) -> None:
    """Where some cannot be helped, they are not asked."""
    samples = [*albums(count, size), conversation("one", "?", "x", media=albums(1, 1)[0].media)]
    other = swapped("image", samples, seed)
    assert set(other.values()) == other.keys()
    reader: Any = Silent("image")
    for trial in make_trials(reader, samples, 99, seed):
        assert len(trial.own) >= count / 2
        for own, swap, none in zip(trial.own, trial.swapped, trial.none, strict=True):
            assert len(swap.media) == len(own.media)
            assert not set(swap.media) & set(own.media)
            assert none.media == ()


def test_the_pictures_of_one_sample_alone_cannot_be_swapped() -> None:
    assert swapped("image", albums(1, 2), 0) == {}


def test_other_seeds_swap_otherwise() -> None:
    singles = pictures("image", 17)
    assert swapped("image", singles, 0) != swapped("image", singles, 1)


def test_only_the_modality_in_question_is_swapped() -> None:
    both = [
        conversation(f"b{n}", "is it?", "yes", media=(Media("image", path), Media("audio", path)))
        for n, path in enumerate(map(Path, "abc"))
    ]
    other = swapped("audio", both, 0)
    for sample in both:
        assert shown(sample, other).media[0] == sample.media[0]
        assert shown(sample, other).media[1] != sample.media[1]


def test_who_looks_gains_and_who_does_not_is_warned_of(
    model: OmniModel, looking: dict[str, bool]
) -> None:
    reader: Any = Silent("image", "audio")
    trials = make_trials(reader, pictures("image", 20) + pictures("audio", 20), 30)
    assert [(t.modality, t.task, t.questions) for t in trials] == [
        ("image", "image_qa", 30),
        ("audio", "transcription", 30),
    ]
    done: list[int] = []
    found = reliance(model, reader, trials, done.append)
    assert sum(done) == 3 * 60
    assert (found["image"]["own"], found["image"]["swapped"]) == (1, 0)
    assert (found["audio"]["own"], found["audio"]["swapped"]) == (0, 1)
    assert (found["image"]["measure"], found["audio"]["measure"]) == ("exact_match", "wer")
    assert gains(found) == {"image_reliance": 1, "audio_reliance": 1}
    assert found["image"]["none"] < 0.2
    assert ignored(found) == []
    looking["looks"] = False
    blind = reliance(model, reader, trials)
    assert gains(blind) == {"image_reliance": 0, "audio_reliance": 0}
    one, other = ignored(blind)
    assert "ignoring the image" in one
    assert in_words(blind["image"]) in one
    assert "ignoring the audio" in other


def test_few_questions_are_no_reason_to_warn(model: OmniModel, looking: dict[str, bool]) -> None:
    looking["looks"] = False
    reader: Any = Silent("image")
    assert ignored(reliance(model, reader, make_trials(reader, pictures("image", 9), 50))) == []


def test_task_that_stands_for_a_modality() -> None:
    image, both = (
        (Media("image", Path("a")),),
        (Media("image", Path("a")), Media("audio", Path("a"))),
    )
    samples = [
        conversation("b", "q?", "a", media=both),
        conversation("c", "q?", "a", media=image, task="caption"),
        conversation("t", "q?", "a"),
    ]
    assert standing_for("image", samples) == "caption"
    assert standing_for("audio", samples) == "image_audio_qa"
    assert standing_for("image", [*samples, conversation("i", "q?", "a", media=image)]) == (
        "image_qa"
    )
    assert standing_for("image", samples[2:]) is None


def test_answers_in_sentences_are_judged_by_their_loss(model: OmniModel, tmp_path: Path) -> None:
    _, first, _, _, last = mixed_samples(tmp_path)
    image, other = first.media[0], last.media[0]
    long = "the sky is the air above us, and the river is quiet."
    singles = [
        conversation(f"s{n}", "describe it.", long, media=(medium,), task="caption")
        for n, medium in enumerate((image, other))
    ]
    reader = tiny_reader(model)
    [trial] = make_trials(reader, singles, 9)
    assert trial.measure == "loss"
    entry = reliance(model, reader, [trial])["image"]
    # Both references being the same, what the swap takes from one it gives to the other.
    assert entry["own"] == pytest.approx(entry["swapped"], rel=1e-4)
    assert entry["none"] != pytest.approx(entry["own"], rel=1e-4)
    assert entry["gain"] == pytest.approx(entry["swapped"] - entry["own"])


def test_questions_that_do_not_fit_with_other_media_are_left_out(
    model: OmniModel, tmp_path: Path
) -> None:
    _, _, short, long, _ = mixed_samples(tmp_path)
    wordy = conversation("wordy", "what is said? " * 9, "the river.", media=short.media)
    brief = conversation("brief", "what?", "the river.", media=long.media)
    assert len(make_trials(tiny_reader(model), [wordy, brief], 9)[0].own) == 2
    longest = max(len(tiny_reader(model).item(s).rendered.tokens) for s in (wordy, brief))
    [trial] = make_trials(tiny_reader(model, max_tokens=longest), [wordy, brief], 9)
    assert trial.own == [brief]
    assert trial.swapped[0].media == short.media


def test_one_medium_alone_cannot_be_swapped() -> None:
    reader: Any = Silent("image", "audio")
    assert make_trials(reader, pictures("image", 1), 9) == []
    assert make_trials(reader, [conversation("t", "q?", "a")], 9) == []
