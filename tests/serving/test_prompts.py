"""A conversation is shown to the model in the form that its training had."""

from pathlib import Path

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave

from omnitune.data.taught import Taught
from omnitune.models.omni import OmniModel
from omnitune.sample import Message, Text, UserError
from omnitune.serving.encoded_media import EncodedMedia, GivenMedium, TooLargeError
from omnitune.serving.prompts import ContextError, PromptMaker, Turn, as_taught
from omnitune.serving.session import ChatSession


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture
def picture(tmp_path: Path) -> GivenMedium:
    path = write_image(tmp_path / "a.png")
    return GivenMedium("image", path.read_bytes(), "image 1")


@pytest.fixture
def sound(tmp_path: Path) -> GivenMedium:
    return GivenMedium("audio", write_wave(tmp_path / "a.wav"), "a.wav")


def user(text: str, *media: GivenMedium) -> Turn:
    return Turn("user", text, media)


def test_a_medium_too_many_begins_anew(picture: GivenMedium) -> None:
    turns = [user("one", picture), Turn("assistant", "yes"), user("two", picture)]
    assert as_taught(turns, Taught()) == [turns[2]]
    assert as_taught(turns, Taught({"image": 2}, media_after_text=True)) == turns
    with pytest.raises(UserError, match="taught with 1 at a time"):
        as_taught([user("both", picture, picture)], Taught())


def test_the_system_turn_stays(picture: GivenMedium) -> None:
    system = Turn("system", "be brief")
    turns = [system, user("one", picture), Turn("assistant", "yes"), user("two", picture)]
    assert as_taught(turns, Taught()) == [system, turns[3]]


def test_media_move_along(picture: GivenMedium, sound: GivenMedium) -> None:
    turns = [user("one", sound), Turn("assistant", "yes"), user("two", picture)]
    assert as_taught(turns, Taught()) == [user("two", picture, sound)]
    assert as_taught(turns, Taught(media_together=False)) == [user("two", picture)]


def test_it_reads_what_the_terminal_reads(
    model: OmniModel, picture: GivenMedium, sound: GivenMedium, tmp_path: Path
) -> None:
    path = tmp_path / "b.png"
    path.write_bytes(picture.content)
    session = ChatSession(model, tiny_renderer(), 5)
    maker = PromptMaker(model, tiny_renderer())
    talk: list[Turn] = []
    for text, given in (
        ("hello", []),
        ("what is it?", [sound]),
        ("and this?", [picture]),
        ("why?", []),
        ("once more", [picture]),
    ):
        for medium in given:
            session.attach(sound.content if medium is sound else path, medium.modality)
        talk.append(user(text, *given))
        prompt = session._prompt(Message("user", (*session.pending, Text(text))))
        assert maker.prompt(talk).rendered.tokens == prompt.rendered.tokens
        answer = "".join(session.ask(text))
        talk.append(Turn("assistant", answer))


def test_encoded_once(model: OmniModel, picture: GivenMedium, tmp_path: Path) -> None:
    media = EncodedMedia(model)
    maker = PromptMaker(model, tiny_renderer(), media)
    calls: list[int] = []
    handle = model.encoders["image"].register_forward_hook(lambda *_: calls.append(1))
    path = write_image(tmp_path / "other_name.png")
    try:
        first = [user("one", picture)]
        maker.prompt(first)
        maker.prompt([*first, Turn("assistant", "yes"), user("and?")])
        maker.prompt([user("one", GivenMedium("image", path, "the same bytes in a file"))])
    finally:
        handle.remove()
    assert len(calls) == 1
    assert (media.hits, media.misses) == (2, 1)


def test_the_oldest_rows_make_room(model: OmniModel, tmp_path: Path) -> None:
    given = [
        GivenMedium("image", write_image(tmp_path / f"{n}.png", seed=n).read_bytes(), "")
        for n in range(4)
    ]
    size = EncodedMedia(model).rows(given[0]).nbytes
    media = EncodedMedia(model, kept_bytes=2 * size)
    for medium in (*given, given[3], given[0]):
        media.rows(medium)
    assert (media.hits, media.misses) == (1, 5)


def test_limits(model: OmniModel, picture: GivenMedium, sound: GivenMedium) -> None:
    small = EncodedMedia(model, {"pixels": 1000, "seconds": 0.1})
    for medium, unit in ((picture, "pixels"), (sound, "seconds")):
        with pytest.raises(TooLargeError, match=unit):
            small.rows(medium)
    maker = PromptMaker(model, tiny_renderer(), most_turns=2, most_media=0)
    with pytest.raises(TooLargeError, match="3 messages"):
        maker.prompt([user("a"), Turn("assistant", "b"), user("c")])
    with pytest.raises(TooLargeError, match="1 media"):
        maker.prompt([user("a", picture)])
    with pytest.raises(ContextError, match="leave out earlier turns"):
        PromptMaker(model, tiny_renderer()).prompt([user("the sky " * 300)])


@pytest.mark.parametrize(
    "turns", [[], [user("")], [Turn("system", "x")], [user("a"), Turn("assistant", "b")]]
)
def test_nothing_to_answer(model: OmniModel, turns: list[Turn]) -> None:
    with pytest.raises(UserError):
        PromptMaker(model, tiny_renderer()).prompt(turns)


def test_what_is_wrong_is_told_by_the_label(model: OmniModel) -> None:
    with pytest.raises(UserError, match=r"^the picture: is not an image") as error:
        EncodedMedia(model).rows(GivenMedium("image", b"no picture", "the picture"))
    assert "omnitune-" not in str(error.value)


def test_a_text_that_cannot_fit_is_not_cut_into_tokens(
    model: OmniModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = PromptMaker(model, tiny_renderer())
    monkeypatch.setattr(maker.renderer, "render_prompt", lambda *_: pytest.fail("was rendered"))
    with pytest.raises(ContextError, match=r"holds at least .* tokens"):
        maker.prompt([user("the sky " * 100_000)])
