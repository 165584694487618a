"""Tags: they say where in a user turn the media of a record stand."""

from pathlib import Path
from typing import Any

import pytest
from helpers import read_records as read

from omnitune.sample import Described, Media, Message, Text, UserError
from omnitune.sources import SOURCES

PICTURE = {"image": "a.png"}


def shown(message: Message) -> list[str]:
    """A message's parts: text as it is, a medium as its file's name in brackets."""
    return [p.text if isinstance(p, Text) else f"[{p.path.name}]" for p in message.parts]


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]


def test_default_place_is_the_first_user_turn_after_a_system_turn(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "look."}, *turns("a?", "b", "c?", "d")]
    sample = read(tmp_path, "image_text", {"image": "a.png", "messages": messages})[0]
    assert [shown(m) for m in sample.messages[:2]] == [["look."], ["[a.png]", "a?"]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("<image> then <audio> now", ["[a.png]", " then ", "[b.wav]", " now"]),
        ("<audio><image>", ["[b.wav]", "[a.png]"]),
        ("see <image>", ["[b.wav]", "see ", "[a.png]"]),
        ("say \\<image> of <image>", ["[b.wav]", "say \\<image> of ", "[a.png]"]),
        ("a < b, <b> or <images>?", ["[a.png]", "[b.wav]", "a < b, <b> or <images>?"]),
    ],
)
def test_tags_say_where_media_stand(tmp_path: Path, question: str, expected: list[str]) -> None:
    record = {"image": "a.png", "audio": "b.wav", "question": question, "answer": r"\<image> ok"}
    sample = read(tmp_path, "image_audio_text", record)[0]
    assert shown(sample.messages[0]) == [text.replace("\\", "") for text in expected]
    assert shown(sample.messages[1]) == ["<image> ok"]


def test_tag_in_a_later_turn(tmp_path: Path) -> None:
    messages = turns("wait.", "ok", "now <image>?", "yes")
    sample = read(tmp_path, "image_text", {"image": "a.png", "messages": messages})[0]
    assert shown(sample.messages[0]) == ["wait."]
    assert shown(sample.messages[2]) == ["now ", "[a.png]", "?"]


QUESTIONS = ("<image>\nwhat?", "where in <image> is it?", "why?", "how so? <image>")


@pytest.mark.parametrize("described", [False, True])
def test_a_tag_in_each_question_means_the_same_picture(tmp_path: Path, described: bool) -> None:
    """As converters of conversations write it; each question shows it where its tag stands."""
    subject = {"caption": "a ring"} if described else {"image": "a.png"}
    qa = [{"question": q, "answer": str(n)} for n, q in enumerate(QUESTIONS)]
    sample = read(tmp_path, "described" if described else "image_text", subject | {"qa": qa})[0]
    name = "a ring. " if described else "[a.png]"
    alone = [
        [name, "\nwhat?"],
        ["where in ", name, " is it?"],
        [name, "why?"],
        ["how so? ", name],
    ]
    assert [shown(s.messages[0]) for s in sample.split_turns()] == alone
    assert [shown(s.messages[0]) for s in sample.select_turns([1, 3]).split_turns()] == [
        alone[1],
        alone[3],
    ]
    assert len(sample.context_parts) == 1
    for order in ([0, 1, 2, 3], [1, 3], [3, 0, 2], [2, 1]):
        asked = [m for m in sample.select_turns(order).messages if m.role == "user"]
        assert shown(asked[0]) == alone[order[0]]
        assert not [p for m in asked[1:] for p in m.parts if isinstance(p, Media | Described)]
        assert [m.text.strip() for m in asked[1:]] == [
            QUESTIONS[n].replace("<image>", "").strip() for n in order[1:]
        ]


def test_a_picture_opens_independent_questions_though_the_tag_stands_in_a_later_one(
    tmp_path: Path,
) -> None:
    qa = [{"question": "what?", "answer": "x"}, {"question": "and <image>?", "answer": "y"}]
    sample = read(tmp_path, "image_text", {"image": "a.png", "qa": qa})[0]
    assert shown(sample.messages[0]) == ["[a.png]", "what?"]
    assert shown(sample.split_turns()[1].messages[0]) == ["and ", "[a.png]", "?"]


def asks(question: str) -> dict[str, str]:
    return {"question": question, "answer": "x"}


TAGGED: list[tuple[str, dict[str, Any], str]] = [
    ("image_text", PICTURE | asks("<image> and <image>?"), '"question" holds <image> once more'),
    ("image_text", PICTURE | asks("<audio>?"), 'holds <audio>, but the record has no "audio"'),
    ("image_text", PICTURE | asks("<IMAGE>?"), "holds <IMAGE> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<image 1>?"), "holds <image 1> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<image/>?"), "holds <image/> (did you mean <image>?)"),
    (
        "image_text",
        PICTURE | asks("<image_placeholder>?"),
        "holds <image_placeholder> (did you mean <image>?)",
    ),
    ("image_text", PICTURE | asks("<|image_pad|>?"), "holds <|image_pad|> (did you mean <image>?)"),
    ("image_text", PICTURE | asks("<|image_1|>?"), "holds <|image_1|> (did you mean <image>?)"),
    (
        "image_text",
        PICTURE | asks("a?") | {"answer": "<image>"},
        '"answer" holds <image>, but tags',
    ),
    ("image_text", PICTURE | asks("a?") | {"caption": "<image> b"}, '"caption" holds <image>'),
    ("text_only", asks("<image>?"), '"question" holds <image>, but the record has no "image"'),
    ("text_only", asks("a?") | {"answer": "an <audio>"}, '"answer" holds <audio>, but tags'),
    ("described", {"caption": "a ring"} | asks("<audio>?"), '"question" holds <audio>'),
    ("described", {"caption": "a ring"} | asks("<image> <image>"), "holds <image> once more"),
    ("text_only", {"messages": turns("a", "b", "<image>", "c")}, 'message 3: "content" holds <im'),
    (
        "image_text",
        PICTURE | {"messages": turns("<image> a", "b", "<image> c", "d")},
        'message 3: "content" holds <image> once more',
    ),
    (
        "image_text",
        PICTURE | {"messages": [{"role": "system", "content": "<image>"}, *turns("a", "b")]},
        'message 1: "content" holds <image>, but tags stand in what the user says',
    ),
    (
        "image_text",
        PICTURE | {"qa": [asks("<image>a"), asks("<image><image>")]},
        'pair 2: "question" holds <image> once more',
    ),
]


@pytest.mark.parametrize(("source", "record", "words"), TAGGED)
def test_a_tag_that_does_not_fit_the_media_is_refused(
    tmp_path: Path, source: str, record: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, source, record)
    assert str(error.value).startswith(f"{tmp_path / SOURCES[source].file}: record 1: ")
    assert words in str(error.value)
    assert "take it off, or write" in str(error.value)
