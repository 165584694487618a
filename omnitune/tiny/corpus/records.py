"""Planning the records of the corpus, and the pictures and utterances they need."""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitune.tiny.corpus.basics import Dice, Question, spoken_words, stable_number
from omnitune.tiny.corpus.conversations import sample_conversation, shared_kinds
from omnitune.tiny.corpus.drills import drills
from omnitune.tiny.corpus.questions import describe, questions, statement, yes_or_no
from omnitune.tiny.corpus.scenes import (
    COPIES,
    HELD_OUT,
    Digits,
    Picture,
    Recipe,
    Scene,
    Sheet,
    Word,
    caption,
    sample_picture,
    sample_told,
)
from omnitune.tiny.corpus.speech import (
    TEST_VOICES,
    TRAIN_VOICES,
    Utterance,
    accent_group,
    sample_utterance,
)
from omnitune.tiny.corpus.words import Sentence, sample_sentence

Record = dict[str, Any]
QA_SHARE = 0.25  # of the held-out utterances
# Of each picture: a run draws a few of them each time, so that they are not learnt by heart.
TRAINING_QUESTIONS = {Scene: 20, Digits: 8, Word: 8}
STATEMENTS = {Scene: 4, Digits: 1, Word: 4}
TOLD_DRILLS = 3  # of each sort
TRANSCRIBE = ("write down what you hear.", "what is said?", "write the words you hear.")
# Of what is not a scene of an unseen pair. Sums are learnt slowly, those of three digits the
# slowest, so more is told of them than pictures show. Two scenes of three have many of one colour
# or of one shape: three or four alike are seldom else, and what is seldom is not learnt.
TOLD = tuple(
    Recipe((0.42, 0.53, 0.05), lengths=(2, 3, 3, 3), copies=copies)
    for copies in (COPIES, (0.85, 0.1), (0.1, 0.85))
)
IS_TRUE = "is this true?"
FILLED = 0.85  # of the cells of a sheet of digits
FEWEST_ON_A_SHEET = 4


@dataclass(frozen=True)
class PictureJob:
    """A picture to draw; `path` is relative to the corpus folder."""

    path: PurePosixPath
    picture: Picture | Sheet
    seed: int
    glyphs: NDArray[np.uint8] | None


@dataclass(frozen=True)
class SpeechJob:
    """An utterance to speak; `path` is relative to the corpus folder."""

    path: PurePosixPath
    utterance: Utterance


@dataclass
class Plan:
    """The records of each JSON file, and the media that they name."""

    text: list[Record] = field(default_factory=list)
    told: list[Record] = field(default_factory=list)
    images: list[Record] = field(default_factory=list)
    audio: list[Record] = field(default_factory=list)
    sheets: list[Record] = field(default_factory=list)
    pictures: list[PictureJob] = field(default_factory=list)
    speech: list[SpeechJob] = field(default_factory=list)


@functools.lru_cache(maxsize=1)
def handwriting() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns scikit-learn's digit pictures, uint8 [1797, 8, 8] (0-16), and their values."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images.astype(np.uint8), data.target.astype(np.int64)


@functools.lru_cache(maxsize=4)
def digit_pictures(split: str) -> tuple[tuple[int, ...], ...]:
    """Returns the numbers of the digit pictures that a split may show, for each digit 0-9.

    Whatever the corpus, 75 % of the pictures are for training, 10 % for validation
    and the rest for testing.
    """
    _, targets = handwriting()
    order = list(range(len(targets)))
    random.Random("digit pictures").shuffle(order)
    first, second = len(order) * 75 // 100, len(order) * 85 // 100
    parts = {"train": order[:first], "validation": order[first:second], "test": order[second:]}
    return tuple(tuple(i for i in parts[split] if targets[i] == digit) for digit in range(10))


def picture_job(
    path: PurePosixPath, picture: Picture | Sheet, split: str, rng: random.Random
) -> tuple[PictureJob, Record]:
    """Returns the job that draws a picture, and the fields its record has about it."""
    shown = picture.digits if isinstance(picture, Sheet) else picture
    fields: Record = {"caption": caption(shown)}
    glyphs = None
    if isinstance(shown, Digits):
        chosen = [rng.choice(digit_pictures(split)[value]) for value in shown.values]
        glyphs = handwriting()[0][chosen]
        fields["digits"] = chosen
    return PictureJob(path, picture, rng.getrandbits(32), glyphs), fields


def _rng(seed: int, *names: object) -> Dice:
    return Dice(stable_number("/".join(map(str, (seed, *names)))))


def plan_text(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` different conversations of a split."""
    rng = _rng(seed, "text", split)
    kinds = shared_kinds(count, split)
    rng.shuffle(kinds)
    seen: set[str] = set()
    for index, kind in enumerate(kinds):
        messages = sample_conversation(rng, split, kind)
        while str(messages) in seen:
            messages = sample_conversation(rng, split, kind)
        seen.add(str(messages))
        name = f"text-{split}-{index:05d}"
        plan.text.append({"id": name, "messages": messages, "kind": kind, "split": split})


def plan_told(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` pictures that are only told, with as many questions as a picture of training.

    What is asked of pictures is reasoned about in words here, where it costs no picture.
    """
    rng = _rng(seed, "told", split)
    for index in range(count):
        picture = sample_told(rng, split, rng.choice(TOLD))
        asked = questions(picture, rng, TRAINING_QUESTIONS[type(picture)])
        asked += _is_true(picture, rng)
        asked += drills(picture, rng, TOLD_DRILLS)
        if isinstance(picture, Scene):
            asked += [describe(picture)] * picture.unseen  # the others' pictures teach it
        plan.told.append(
            {
                "id": f"told-{split}-{index:05d}",
                "caption": caption(picture),
                "qa": [question.as_record() for question in asked],
                "split": split,
            }
        )


def _is_true(picture: Picture, rng: Dice) -> Iterator[Question]:
    """Statements in print, half of them true; the one truth about a word may so be there twice."""
    for _ in range(STATEMENTS[type(picture)]):
        said, truth = statement(picture, rng)
        yield Question(f"{said}. {IS_TRUE}", yes_or_no(truth), "statement")


def _image_questions(picture: Picture, rng: Dice, split: str, more: Dice) -> list[Question]:
    focus: frozenset[tuple[str, str]] = frozenset()
    if split == "test_composition" and isinstance(picture, Scene):
        focus = HELD_OUT
    asked = questions(
        picture, rng, TRAINING_QUESTIONS[type(picture)] if split == "train" else 4, focus
    )
    if split == "train":  # sums are learnt slowly, so they are practised on what is seen too
        asked += drills(picture, rng, 0)
        asked += _is_true(picture, more)
    return [*asked, describe(picture)]


def plan_images(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` pictures of a split, each with its questions."""
    rng, more = _rng(seed, "images", split), _rng(seed, "statements", split)
    for index in range(count):
        name = f"image-{split}-{index:05d}"
        path = PurePosixPath("images/pictures") / f"{name}.png"
        picture = _family_picture(rng, split, index)
        job, fields = picture_job(path, picture, split, rng)
        asked = [question.as_record() for question in _image_questions(picture, rng, split, more)]
        image = str(path.relative_to("images"))
        plan.images.append({"id": name, "image": image, **fields, "qa": asked, "split": split})
        plan.pictures.append(job)


def plan_sheets(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` pictures full of handwriting, for the eye alone.

    Nothing but how digits look is to be learnt from them: they are more than any question is
    about, so that none shows a row that another split owns.
    """
    rng = _rng(seed, "sheets", split)
    for index in range(count):
        sheet = Sheet(())
        while len(sheet.values) < FEWEST_ON_A_SHEET:
            written = (rng.randrange(10) if rng.random() < FILLED else None for _ in range(9))
            sheet = Sheet(tuple(written))
        name = f"sheet-{split}-{index:05d}"
        path = PurePosixPath("images/pictures") / f"{name}.png"
        job, fields = picture_job(path, sheet, split, rng)
        asked = [describe(sheet.digits).as_record()]
        image = str(path.relative_to("images"))
        plan.sheets.append({"id": name, "image": image, **fields, "qa": asked, "split": split})
        plan.pictures.append(job)


def _family_picture(rng: random.Random, split: str, index: int) -> Picture:
    """Draws a picture; the first three of a split are a scene, digits and a word."""
    forced = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    if index < len(forced):
        return sample_picture(rng, split, Recipe(forced[index]))
    return sample_picture(rng, split)


def _transcribe(sentence: Sentence, rng: random.Random, voice: str) -> Record:
    return {
        "question": rng.choice(TRANSCRIBE),
        "answer": sentence.text,
        "task": "transcription",
        "kind": f"{accent_group(voice)}_accent",
    }


def _fact_question(facts: Sequence[Question], rng: random.Random) -> Record:
    fact = rng.choice(facts)
    kind = f"audio_{fact.kind}"
    return {"question": fact.question, "answer": fact.answer, "task": "qa", "kind": kind}


def _utterance_questions(sentence: Sentence, rng: random.Random, voice: str) -> list[Record]:
    """The request to write it down, and a question about every fact."""
    facts = [_fact_question([fact], rng) for fact in sentence.facts]
    return [_transcribe(sentence, rng, voice), *facts]


def plan_speech(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` spoken sentences of a split, no sentence twice."""
    rng = _rng(seed, "speech", split)
    voices = TEST_VOICES if split == "test_voices" else TRAIN_VOICES
    owner = "test" if split == "test_voices" else split
    every = round(1 / QA_SHARE)
    seen: set[str] = set()
    for index in range(count):
        sentence = sample_sentence(rng, owner)
        while sentence.text in seen:
            sentence = sample_sentence(rng, owner)
        seen.add(sentence.text)
        name = f"speech-{split}-{index:05d}"
        path = PurePosixPath("audio/clips") / f"{name}.wav"
        utterance = sample_utterance(rng, sentence.text, voices)
        if split == "train":
            fields: Record = {"qa": _utterance_questions(sentence, rng, utterance.voice)}
        elif index % every == 1:
            fields = _fact_question(sentence.facts, rng)
        else:
            fields = _transcribe(sentence, rng, utterance.voice)
        record = {
            "id": name,
            "audio": str(path.relative_to("audio")),
            "transcript": sentence.text,
            "voice": utterance.voice,
            **fields,
            "split": split,
        }
        plan.audio.append(record)
        plan.speech.append(SpeechJob(path, utterance))


def plan_pairs(plan: Plan, seed: int, split: str, count: int) -> None:
    """Adds `count` spoken questions about pictures and `count` spoken statements."""
    for folder, records in (("images", plan.images), ("audio", plan.audio)):
        rng = _rng(seed, "pairs", folder, split)
        for index in range(count):
            picture = _family_picture(rng, split, index)
            if folder == "images":
                kind = "spoken_question"
                asked = rng.choice(questions(picture, rng))
                said, question, answer = asked.question, "", asked.answer
            else:
                kind = "spoken_statement"
                said, truth = statement(picture, rng)
                question, answer = IS_TRUE, yes_or_no(truth)
            name = f"{kind.replace('_', '-')}-{split}-{index:05d}"
            image = PurePosixPath("pictures") / f"{name}.png"
            audio = PurePosixPath("spoken") / f"{name}.wav"
            job, fields = picture_job(folder / image, picture, split, rng)
            utterance = sample_utterance(rng, spoken_text(said), TRAIN_VOICES)
            transcript = spoken_words(said)
            about: Record = {"question": question, "answer": answer, "task": "qa", "kind": kind}
            if split == "train":
                about = {"qa": [_heard(transcript, rng), about]}
            records.append(
                {
                    "id": name,
                    "image": str(image),
                    "audio": str(audio),
                    **fields,
                    "transcript": transcript,
                    "voice": utterance.voice,
                    **about,
                    "split": split,
                }
            )
            plan.pictures.append(job)
            plan.speech.append(SpeechJob(folder / audio, utterance))


def _heard(transcript: str, rng: random.Random) -> Record:
    """The request to write down what is said about a picture.

    The answer alone, a word, teaches little of which words were heard.
    """
    return {"question": rng.choice(TRANSCRIBE), "answer": transcript, "kind": "transcript"}


def spoken_text(text: str) -> str:
    """Returns what to give the synthesiser: plain words, and the question mark if any."""
    return spoken_words(text) + ("?" if text.endswith("?") else "")
