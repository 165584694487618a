"""One sample as the model sees it: every token is shown once, and told from the others."""

from itertools import groupby
from pathlib import Path

import pytest
from helpers import ENCODERS, conversation, read_records, tiny_renderer, write_image, write_wave
from hypothesis import given, settings
from hypothesis import strategies as st

from omnitune.data.audit.sample_view import (
    CONTROL,
    PLACEHOLDER,
    TEXT,
    find_sample,
    forms_of,
    pieces_of,
    view_form,
    view_sample,
    word_renderer,
)
from omnitune.data.audit.truncation import ReadLimits
from omnitune.encoders.registry import build_encoder
from omnitune.sample import Media, UserError

RENDERER = tiny_renderer()


@pytest.fixture
def reading() -> ReadLimits:
    encoders = {name: build_encoder(name, config) for name, config in ENCODERS.items()}
    return ReadLimits(tiny_renderer(), encoders, 1024)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=30), min_size=2, max_size=2))
def test_the_pieces_are_the_tokens(texts: list[str]) -> None:
    renderer = RENDERER
    sample = conversation("c", *(f"a{text}" for text in texts))
    rendered = renderer.render(sample.messages)
    pieces = list(pieces_of(rendered, renderer))
    assert sum(piece.count for piece in pieces) == len(rendered.tokens)
    assert sum(piece.count for piece in pieces if piece.trained) == sum(rendered.supervised)
    runs = groupby(pieces, lambda piece: piece.kind)
    shown = ["".join(piece.text for piece in run) for kind, run in runs if kind == TEXT]
    texts = [renderer.encode(message.text) for message in sample.messages]
    assert shown == [renderer.tokenizer.decode(list(tokens)) for tokens in texts]


def test_a_letter_of_several_tokens_is_whole() -> None:
    renderer = tiny_renderer()
    pieces = pieces_of(renderer.render(conversation("c", "a ☃", "é").messages), renderer)
    texts = [piece.text for piece in pieces if piece.kind == TEXT]
    assert "�" not in "".join(texts)
    assert any("☃" in text for text in texts)


def test_kinds(tmp_path: Path, reading: ReadLimits) -> None:
    write_image(tmp_path / "images.png")
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png")
    record = {"image": "a.png", "question": "red?", "answer": "no <|end|>"}
    view = view_sample(read_records(tmp_path, "image_text", record), 0, reading)
    [form] = view.forms
    roles = [(piece.kind, piece.trained) for piece in form.pieces]
    assert [kind for kind, _ in roles].count(PLACEHOLDER) == 1
    [medium] = [piece for piece in form.pieces if piece.kind == PLACEHOLDER]
    assert medium.count == view.media[0].slots == 4
    # Letters of a control token that somebody writes are text.
    assert [piece.text for piece in form.pieces if piece.kind == CONTROL] == [
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
        "<|end|>",
    ]
    assert roles[-1] == (CONTROL, True)
    assert form.ends == (True,)
    assert form.trained == sum(piece.count for piece in form.pieces if piece.trained)
    assert "record 1" in view.place


def test_what_is_context_only_is_not_trained(tmp_path: Path, reading: ReadLimits) -> None:
    turns = [("user", 1), ("assistant", 0), ("user", 1), ("assistant", 1)]
    messages = [
        {"role": role, "content": f"words {n}"} | ({"weight": w} if role == "assistant" else {})
        for n, (role, w) in enumerate(turns)
    ]
    view = view_sample(read_records(tmp_path, "text_only", {"messages": messages}), 0, reading)
    [form] = view.forms
    trained = "".join(piece.text for piece in form.pieces if piece.trained)
    assert "3" in trained
    assert "1" not in trained
    assert form.ends == (True,)


def test_every_form_of_independent_questions_is_shown(tmp_path: Path, reading: ReadLimits) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png")
    qa = [{"question": f"{n}?", "answer": str(n)} for n in range(3)]
    one = {"image": "a.png", "qa": qa}
    samples = read_records(tmp_path, "image_text", one, one | {"image": ["a.png", "b.png"]})
    assert len(view_sample(samples, 0, reading).forms) == 4
    # Of several pictures each question is asked alone.
    assert [title for title, _ in forms_of(samples[1])] == [
        f"question {n} of 3, alone" for n in (1, 2, 3)
    ]


def test_without_a_model_words_stand_for_tokens(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_wave(tmp_path / "audio" / "a.wav")
    record = {"audio": "a.wav", "question": "what is it?", "answer": "a short noise"}
    view = view_sample(read_records(tmp_path, "audio_text", record), 0, None, ["words"])
    [form] = view.forms
    assert (form.trained, form.ends, view.media[0].slots) == (4, (True,), None)
    assert view.notes == ("words",)
    texts = [piece.text.strip() for piece in form.pieces if piece.kind == TEXT]
    assert texts == ["what", "is", "it?", "a", "short", "noise"]


def test_media_that_cannot_be_used_are_told(tmp_path: Path, reading: ReadLimits) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    record = {"image": "a.png", "question": "red?", "answer": "no"}
    samples = read_records(tmp_path, "image_text", record)
    view = view_sample(samples, 0, reading)
    assert "a.png" in view.media[0].problem
    write_image(tmp_path / "images" / "a.png")
    deaf = ReadLimits(word_renderer([]), {}, 1024)
    assert "no encoder" in view_sample(samples, 0, deaf).notes[0]


def test_a_sample_above_the_limit_is_told(tmp_path: Path) -> None:
    samples = read_records(tmp_path, "text_only", {"question": "x " * 50, "answer": "y"})
    view = view_sample(samples, 0, ReadLimits(tiny_renderer(), {}, 16))
    assert "more than max_tokens (16)" in view.notes[0]


def test_an_end_that_is_not_trained_is_seen() -> None:
    renderer = tiny_renderer()
    renderer.ends = frozenset()
    form = view_form("x", conversation("c", "a", "b"), renderer, [])
    assert form.ends == (False,)


def test_samples_are_found_by_number_and_id(tmp_path: Path) -> None:
    turn = {"question": "a", "answer": "b"}
    read_records(tmp_path, "text_only", turn | {"id": "x/y"}, turn | {"id": "007"}, turn)
    (tmp_path / "audio").mkdir()
    write_wave(tmp_path / "audio" / "a.wav")
    names = ["text_only/1", "007", "text_only/007"]
    found = [find_sample(tmp_path, name) for name in names]
    assert [number for _, number in found] == [1, 1, 1]
    assert [find_sample(tmp_path, name)[1] for name in ("2", "text_only/2", "x/y")] == [2, 2, 0]
    for name in ("3", "text_only/3", "nobody"):
        with pytest.raises(UserError, match=r"holds no sample.*text_only \(0 to 2\)"):
            find_sample(tmp_path, name)
    read_records(tmp_path, "audio_text", turn | {"audio": "a.wav", "id": "007"})
    for name in ("0", "007"):
        with pytest.raises(UserError, match="say which one: "):
            find_sample(tmp_path, name)


def test_media_of_a_sample_are_its_own(tmp_path: Path, reading: ReadLimits) -> None:
    path = write_image(tmp_path / "a.png")
    sample = conversation("c", "a", "b", media=(Media("image", path),))
    assert [title for title, _ in forms_of(sample)] == ["the whole sample"]
