"""The chat: sessions, the prompt with its commands, and single answers for scripts."""

import io
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import tiny_model, tiny_renderer, tiny_tokenizer, write_image, write_wave

from omnitune import cli
from omnitune.data.loader import SampleReader
from omnitune.data.taught import Taught
from omnitune.data.template import CONTROL_TOKENS
from omnitune.generation import generate
from omnitune.models.loading import save_omni
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Message, Text, UserError
from omnitune.serving import session as session_module
from omnitune.serving.options import MAX_NEW_TOKENS
from omnitune.serving.session import ChatSession
from omnitune.serving.terminal import chat
from omnitune.serving.terminal.prompt import Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return tiny_model()


@pytest.fixture
def session(model: OmniModel) -> ChatSession:
    return ChatSession(model, tiny_renderer(), max_new_tokens=16)


@pytest.fixture(scope="module")
def ckpt_dir(tmp_path_factory: pytest.TempPathFactory, model: OmniModel) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_omni(folder / "omni.pt", model, tiny_renderer())
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the model say a given text, then press Ctrl-C if asked to."""

    def say(text: str, interrupt: bool = False) -> None:
        tokens = tiny_tokenizer().encode(text, add_special_tokens=False).ids

        def stream(*_: object) -> Iterator[list[tuple[int, int]]]:
            yield from ([(0, token)] for token in tokens)
            if interrupt:
                raise KeyboardInterrupt

        monkeypatch.setattr(session_module, "stream", stream)

    return say


@pytest.fixture
def converse(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[str, str]]:
    """Pipes lines into the prompt; returns standard output and standard error."""

    def run(lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        assert Terminal(session, "model").run() == 0
        return capsys.readouterr()

    return run


def ask(session: ChatSession, text: str) -> str:
    return "".join(session.ask(text))


# Sessions


def test_streamed_is_what_generate_says(
    session: ChatSession, model: OmniModel, tmp_path: Path
) -> None:
    image, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "a.wav")
    session.attach(image, "image")
    session.attach(wave, "audio")
    streamed = ask(session, "what is the sky?")
    parts = (Media("image", image), Media("audio", wave), Text("what is the sky?"))
    reader = SampleReader(session.renderer, model.modalities)
    prompt = reader.prompt("whole", [Message("user", parts)])
    [tokens] = generate(model, [prompt], session.renderer.ends, session.room)
    assert session.answer_tokens == tokens
    assert streamed == session.renderer.decode(tokens) == session.messages[1].text
    assert streamed


@pytest.mark.parametrize("text", ["naïve café", "これは🌍です", "a  b", "two\n\nlines"])
def test_characters_of_several_tokens_arrive_whole(
    session: ChatSession, scripted: Callable[..., None], text: str
) -> None:
    scripted(text)
    pieces = list(session.ask("hello"))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_turns_build_on_each_other(
    session: ChatSession, model: OmniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.png")
    session.attach(path, "image")
    answer = ask(session, "what is this?")
    path.unlink()  # what was attached stays, and is not encoded again
    monkeypatch.setattr(model, "encode", None)
    ask(session, "and what color?")
    assert [m.role for m in session.messages] == ["user", "assistant"] * 2
    assert session.messages[1].text == answer
    after_history = session.answer_tokens
    session.reset()
    assert not session.messages
    ask(session, "and what color?")
    assert session.answer_tokens != after_history


def test_reset_forgets_what_is_attached(session: ChatSession, tmp_path: Path) -> None:
    session.attach(write_image(tmp_path / "a.png"), "image")
    session.reset()
    assert not session.pending


def test_media_stand_as_in_training_data(model: OmniModel, tmp_path: Path) -> None:
    session = ChatSession(model, tiny_renderer(), 16, Taught({"image": 2}))
    session.attach(write_wave(tmp_path / "a.wav"), "audio")
    session.attach(write_image(tmp_path / "a.png"), "image")
    session.attach(write_image(tmp_path / "b.png", seed=1), "image")
    ask(session, "")
    parts = session.messages[0].parts
    assert [part.path.name for part in parts] == ["a.png", "b.png", "a.wav"]


def test_special_tokens_typed_are_plain_text(session: ChatSession) -> None:
    typed = "<|end|><|assistant|><|image|><image>"
    item = session._prompt(Message("user", (Text(typed),)))
    names = (*CONTROL_TOKENS, "<|image|>", "<|audio|>")
    ids = {session.renderer.id_of(name) for name in names}
    special = [token for token in item.rendered.tokens if token in ids]
    names = [session.renderer.tokenizer.id_to_token(token) for token in special]
    assert names == ["<|user|>", "<|end|>", "<|assistant|>"]
    ask(session, typed)
    assert session.messages[0].text == typed


def test_bytes_that_are_no_text_are_replaced(session: ChatSession) -> None:
    ask(session, "caf\udce9")
    assert session.messages[0].text == "caf?"


def test_ctrl_c_keeps_what_was_said(session: ChatSession, scripted: Callable[..., None]) -> None:
    scripted("the sky is", interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        ask(session, "what is the sky?")
    assert [m.text for m in session.messages] == ["what is the sky?", "the sky is"]
    scripted("above us")
    assert ask(session, "go on") == "above us"
    assert len(session.messages) == 4


def test_ctrl_c_before_the_first_word_changes_nothing(
    session: ChatSession, scripted: Callable[..., None], tmp_path: Path
) -> None:
    session.attach(write_image(tmp_path / "a.png"), "image")
    scripted("", interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        ask(session, "what is this?")
    assert not session.messages
    assert len(session.pending) == 1


def test_closing_the_answer_keeps_what_was_said(
    session: ChatSession, scripted: Callable[..., None]
) -> None:
    scripted("the sky is above us")
    answer = session.ask("what is the sky?")
    said = next(answer)
    answer.close()
    assert session.messages[1].text == said


def test_context_is_checked_before_the_model_runs(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask(session, "hello")
    session.attach(write_image(tmp_path / "a.png"), "image")
    before = list(session.messages)
    monkeypatch.setattr(session_module, "stream", None)
    with pytest.raises(UserError, match=r"holds \d+ tokens, the limit is 240 .* /reset"):
        session.ask("1" * 300)
    assert session.messages == before
    assert len(session.pending) == 1


def test_room_for_the_answer_is_at_most_half(model: OmniModel) -> None:
    session = ChatSession(model, tiny_renderer(), max_new_tokens=10**9)
    assert (session.room, session.limit) == (128, 128)


def test_nothing_to_answer(session: ChatSession) -> None:
    with pytest.raises(UserError, match="nothing to answer"):
        session.ask("  ")


def test_any_rate_and_channels(session: ChatSession, tmp_path: Path) -> None:
    path = write_wave(tmp_path / "cd quality.wav", rate=44_100, channels=2)
    assert session.attach(path, "audio") == 7  # 0.5 s at 12.5 tokens a second, rounded up
    ask(session, "")
    assert len(session.messages) == 2


# What the model was not taught


def asked_alone(session: ChatSession, text: str) -> list[int]:
    """The prompt of the next turn."""
    return session._prompt(Message("user", (*session.pending, Text(text)))).rendered.tokens


def test_a_second_picture_begins_a_new_conversation(session: ChatSession, tmp_path: Path) -> None:
    first, second = write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", seed=1)
    session.attach(second, "image")
    assert session.notice == ""
    alone = ask(session, "what is this?")
    session.reset()
    session.attach(first, "image")
    ask(session, "what is this?")
    ask(session, "and what color?")
    session.attach(second, "image")
    assert session.notice == "a new conversation: this model was taught with one image at a time"
    assert session.pending == (Media("image", second),)
    assert session.messages == []
    session.reset()
    session.attach(first, "image")
    ask(session, "what is this?")
    session.attach(second, "image")
    assert ask(session, "what is this?") == alone
    assert len(session.messages) == 2


def test_the_newest_of_two_waiting_pictures_counts(session: ChatSession, tmp_path: Path) -> None:
    session.attach(write_image(tmp_path / "a.png"), "image")
    session.attach(write_image(tmp_path / "b.png", seed=1), "image")
    assert session.notice == "in place of a.png: this model was taught with one image at a time"
    assert session.pending == (Media("image", tmp_path / "b.png"),)


def test_as_many_pictures_as_were_taught(model: OmniModel, tmp_path: Path) -> None:
    taught = Taught({"image": 2, "audio": 0}, media_after_text=True)
    session = ChatSession(model, tiny_renderer(), 16, taught)
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(4)]
    for path in paths[:2]:
        session.attach(path, "image")
        ask(session, "what is this?")
        assert session.notice == ""
    session.attach(paths[2], "image")
    assert session.notice == "a new conversation: this model was taught with 2 pictures at a time"
    session.attach(paths[3], "image")
    assert session.notice == ""
    session.attach(paths[0], "image")
    assert [medium.path.name for medium in session.pending] == ["3.png", "0.png"]
    session.attach(write_wave(tmp_path / "a.wav"), "audio")
    assert session.notice == "this model was taught with no audio: its answers are guesses"


def test_two_pictures_at_a_time_stay_together(model: OmniModel, tmp_path: Path) -> None:
    """Where they were taught in the first turn only, the earlier one comes along in front."""
    session = ChatSession(model, tiny_renderer(), 16, Taught({"image": 3}))
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    session.attach(paths[0], "image")
    ask(session, "what is this?")
    for path in paths[1:]:
        session.attach(path, "image")
    ask(session, "which of them?")
    assert [part.path for part in session.messages[2].parts[:-1]] == paths


def test_a_refused_second_picture_changes_nothing(session: ChatSession, tmp_path: Path) -> None:
    session.attach(write_image(tmp_path / "a.png"), "image")
    ask(session, "what is this?")
    with pytest.raises(UserError):
        session.attach(tmp_path / "none.png", "image")
    assert len(session.messages) == 2
    assert session.notice == ""


def test_talk_before_a_picture_is_not_read_with_it(session: ChatSession, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    session.attach(path, "image")
    alone = asked_alone(session, "what is this?")
    answer = ask(session, "what is this?")
    followed = asked_alone(session, "and now?")
    session.reset()
    ask(session, "hello")
    ask(session, "how are you?")
    session.attach(path, "image")
    assert session.notice == (
        "the model reads the conversation from this image on: "
        "it was not taught with an image after other turns"
    )
    assert asked_alone(session, "what is this?") == alone
    assert ask(session, "what is this?") == answer
    assert asked_alone(session, "and now?") == followed
    assert [m.text for m in session.messages[::2]] == ["hello", "how are you?", "what is this?"]


@pytest.mark.parametrize("together", [True, False])
def test_a_picture_moves_along_to_a_later_question_in_sound(
    model: OmniModel, tmp_path: Path, together: bool
) -> None:
    session = ChatSession(model, tiny_renderer(), 16, Taught(media_together=together))
    image, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "q.wav")
    session.attach(wave, "audio")
    if together:
        session.attach(image, "image")
    alone = asked_alone(session, "")
    answer = ask(session, "")
    session.reset()
    session.attach(image, "image")
    ask(session, "what is this?")
    session.attach(wave, "audio")
    moved = ", with a.png (/reset before it leaves that out)" * together
    assert session.notice.startswith(f"the model reads the conversation from this audio on{moved}:")
    assert asked_alone(session, "") == alone
    assert ask(session, "") == answer
    session.attach(image, "image")
    assert ("a new conversation" in session.notice) is together


def test_talk_before_a_picture_is_read_by_who_was_taught_so(
    model: OmniModel, tmp_path: Path
) -> None:
    session = ChatSession(model, tiny_renderer(), 16, Taught(media_after_text=True))
    talk = asked_alone(session, "hello")
    ask(session, "hello")
    session.attach(write_image(tmp_path / "a.png"), "image")
    assert session.notice == ""
    assert asked_alone(session, "what is this?")[: len(talk)] == talk


def _nan_wave(folder: Path) -> Path:
    soundfile.write(folder / "nan.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    return folder / "nan.wav"


def _text_file(folder: Path) -> Path:
    (folder / "text.png").write_text("no picture")
    return folder / "text.png"


@pytest.mark.parametrize(
    ("modality", "make", "words"),
    [
        ("image", lambda folder: folder / "none.png", "no such"),
        ("image", _text_file, "not an image"),
        ("image", lambda folder: folder, "folder"),
        ("image", lambda folder: folder / ("x" * 300), "x"),
        ("audio", lambda folder: folder / "none.wav", "no such"),
        ("audio", lambda folder: folder, "folder"),
        ("audio", lambda folder: folder / ("x" * 300), "cannot be read"),
        ("audio", lambda folder: write_image(folder / "a.png"), "not a sound"),
        ("audio", _nan_wave, "NaN"),
        ("smell", lambda folder: folder, "no encoder for smell"),
    ],
)
def test_bad_files_are_refused_at_once(
    session: ChatSession,
    tmp_path: Path,
    modality: str,
    make: Callable[[Path], Path],
    words: str,
) -> None:
    session.attach(write_image(tmp_path / "good.png"), "image")
    with pytest.raises(UserError, match=words):
        session.attach(make(tmp_path), modality)
    assert [media.path.name for media in session.pending] == ["good.png"]


# The prompt


def test_piped_conversation(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    path = write_image(tmp_path / "with blank.png")
    out, err = converse(f"hello\n\n/image {path}\nwhat is this?\n/reset\n/audio none.wav\nhello")
    assert not out.startswith("you>")
    assert out.count("model> ") == 3
    assert "with blank.png, 4 tokens" in out
    assert err == "none.wav: no such sound file\n"
    assert len(session.messages) == 2


def test_an_empty_line_sends_what_is_attached(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    path = write_wave(tmp_path / "q.wav")
    converse(f"/audio '{path}'\n\n")
    assert session.messages[0].parts == (Media("audio", path),)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/imgae x.png", "/imgae is not a command; did you mean /image?"),
        ("/exit", "/exit is not a command; did you mean /quit?"),
        ("/home/me/x.png", "/home/me/x.png is not a command; /help lists the commands"),
        ("/image", "/image needs a file: /image PATH"),
        (
            "/image a.png b.png",
            "a.png b.png: no such file; if these are several, give each its own /image PATH",
        ),
    ],
)
def test_wrong_commands(
    converse: Callable[[str], tuple[str, str]], line: str, sentence: str
) -> None:
    out, err = converse(f"{line}\nhello\n/quit\nhello\n")
    assert err == sentence + "\n"
    assert out.count("model> ") == 1


def test_help_names_every_command(converse: Callable[[str], tuple[str, str]]) -> None:
    out, _ = converse("/help\n")
    assert [line.split()[0] for line in out.splitlines()] == [
        "/image",
        "/audio",
        "/record",
        "/system",
        "/retry",
        "/save",
        "/load",
        "/time",
        "/reset",
        "/help",
        "/quit",
    ]


def test_too_long_is_told_and_the_conversation_goes_on(
    converse: Callable[[str], tuple[str, str]],
) -> None:
    out, err = converse(f"{'1' * 300}\nhello\n")
    assert "the limit is 240" in err
    assert out.count("model> ") == 1


def test_ctrl_c_stops_the_answer_only(
    converse: Callable[[str], tuple[str, str]],
    scripted: Callable[..., None],
    session: ChatSession,
) -> None:
    scripted("the sky", interrupt=True)
    out, err = converse("what is the sky?\nhello\n")
    assert out == "model> the sky\n(stopped)\n" * 2
    assert not err
    assert len(session.messages) == 4


def test_answers_do_not_steer_the_terminal(
    converse: Callable[[str], tuple[str, str]], scripted: Callable[..., None]
) -> None:
    scripted("red\x1b[K\x07\nblue")
    out, _ = converse("hello\n")
    assert out == "model> red[K\nblue\n"


def test_a_closed_input_is_told(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert run_main("--ckpt_dir", ckpt_dir) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_an_endless_line_is_refused(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/zero", encoding="utf-8") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        assert run_main("--ckpt_dir", ckpt_dir) == 2
    assert "a line of more than 1,048,576 characters" in capsys.readouterr().err


def test_ascii_input_is_read_as_utf8(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = io.TextIOWrapper(io.BytesIO("/é\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", lines)
    assert run_main("--ckpt_dir", ckpt_dir) == 0
    assert capsys.readouterr().err == "/é is not a command; /help lists the commands\n"


def test_json_is_whole_where_output_is_ascii(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    options = ("--ckpt_dir", ckpt_dir, "--max-new-tokens", 4, "--json")
    assert run_main(*options, "--prompt", "naïve 🌍") == 0
    sys.stdout.flush()
    assert json.loads(written.getvalue())["prompt"] == "naïve 🌍"


def test_typed_conversation_greets_and_leaves_politely(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["hello"])

    def typed(prompt: str) -> str:
        print(prompt, end="")
        for line in lines:
            return line
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("omnitune.serving.terminal.keyboard._readline", lambda: None)
    assert Terminal(session, "checkpoints/mine").run() == 0
    out = capsys.readouterr().out
    assert out.startswith("checkpoints/mine: reads text, image, audio.\n")
    assert "you> model> " in out
    assert out.endswith("Goodbye.\n")


def test_completion(session: ChatSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Terminal(session, "model").completions
    (tmp_path / "my pictures").mkdir()
    for name in ("my cat.png", "dog.png", ".hidden"):
        (tmp_path / name).touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert completions("/im") == ["/image "]
    assert completions("/q") == ["/quit"]
    assert completions("hello") == completions("") == completions("/reset m") == []
    assert completions("/image my") == ["/image my cat.png", "/image my pictures/"]
    assert completions("/image ~") == ["/image ~/"]
    assert completions("/image ~/my c") == ["/image ~/my cat.png"]
    assert completions(f"/audio {tmp_path}/d") == [f"/audio {tmp_path}/dog.png"]
    assert completions("/image .h") == ["/image .hidden"]
    assert completions("/image nowhere/") == []


def test_home_folder_quotes_and_escaped_blanks(
    converse: Callable[[str], tuple[str, str]],
    session: ChatSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_image(tmp_path / "my cat.png")
    escaped = str(path).replace(" ", "\\ ")
    uri = path.as_uri()
    out, _ = converse(f'/image ~/my cat.png\n/image "{path}"\n/image {escaped}\n/image {uri}\n')
    assert out.count("my cat.png, 4 tokens") == 4
    assert session.pending == (Media("image", path),)


# Paths among the lines


def test_a_path_alone_attaches_its_file(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    image, wave = write_image(tmp_path / "my cat.png"), write_wave(tmp_path / "q.wav")
    out, err = converse(f"'{image}' {wave}\n")
    assert "(took my cat.png as an image file, 4 tokens, goes with your next line" in out
    assert "(took q.wav as an audio file, 7 tokens" in out
    assert "model> " not in out
    assert err == ""
    assert session.pending == (Media("image", image), Media("audio", wave))


def test_two_pictures_dropped_together(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    paths = [write_image(tmp_path / name) for name in ("a.png", "b.png")]
    out, _ = converse(f"{paths[0]} {paths[1]}\n")
    assert "(in place of a.png: this model was taught with one image at a time)\n" in out
    assert session.pending == (Media("image", paths[1]),)


def test_a_new_conversation_is_told(
    converse: Callable[[str], tuple[str, str]], tmp_path: Path
) -> None:
    paths = [write_image(tmp_path / name) for name in ("a.png", "b.png")]
    out, _ = converse(f"/image {paths[0]}\n\n/image {paths[1]}\n\nhello\n")
    told = "(a new conversation: this model was taught with one image at a time)\n"
    assert out.count(told) == 1
    out, _ = converse(f"/reset\nhello\n{paths[0]}\nwhat is this?\n")
    assert out.count("(the model reads the conversation from this image on: it was not") == 1


def test_a_file_that_is_no_medium_stays_text(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("words")
    out, err = converse(f"{tmp_path}/notes.txt\n")
    assert out.startswith("(notes.txt is no file that the model reads; sent as text)\nmodel> ")
    assert err == ""
    assert session.messages[0].text == f"{tmp_path}/notes.txt"


def test_a_sentence_with_a_file_in_it_is_text_with_a_hint(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "photo.png")
    asked = f"what is in {image}?"
    out, _ = converse(f"{asked}\n{image}\n{asked}\n{asked}\n")
    hint = f"(the model is not shown photo.png; /image {image} does)\n"
    assert out.count(hint) == 1  # the other times it is shown
    assert out.startswith(hint)
    assert session.messages[0].text == asked
    assert out.count("model> ") == 3


def test_a_pipe_is_not_waited_for(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    out, _ = converse(f"{tmp_path}/./pipe.png\nis it pipe.png?\n")
    assert out.count("model> ") == 1
    assert not session.pending


def test_control_characters_do_not_steer_the_terminal(
    converse: Callable[[str], tuple[str, str]], session: ChatSession, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "a\x1b[2J.png")
    out, err = converse(f"{image}\n/\x1b[2Jx\n/image \x1b]0;x\x07.png\n\x1b[A\0\n")
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert session.messages[0].text == "\x1b[A\0"


# Scripts


def run_main(*arguments: object) -> int:
    return cli.main(["chat", *(str(argument) for argument in arguments)])


def test_answers_once(ckpt_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--ckpt_dir", ckpt_dir, "--max-new-tokens", 8, "--prompt", "what is the sky?")
    assert run_main(*options) == 0
    plain = capsys.readouterr().out
    assert run_main(*options, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["prompt", "image", "audio", "answer", "tokens", "seconds"]
    assert plain == result["answer"] + "\n"
    assert result["prompt"] == "what is the sky?"
    assert result["image"] is result["audio"] is None
    assert 0 < result["tokens"] <= 8
    assert result["seconds"] >= 0  # to the millisecond


def test_several_files_of_a_kind(
    tmp_path: Path, model: OmniModel, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", model, tiny_renderer(), media_per_sample={"image": 2})
    paths = [str(write_image(tmp_path / f"{n}.png", seed=n)) for n in range(2)]
    options = ("--image", paths[0], "--image", paths[1], "--json", "--max-new-tokens", 4)
    assert run_main("--ckpt-dir", tmp_path, *options, "--prompt", "which?") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["image"], result["audio"]) == (paths, None)
    assert "notice" not in result


@pytest.mark.parametrize("prompt", [("--prompt", ""), ()])
def test_a_spoken_question_needs_no_prompt(
    ckpt_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, prompt: tuple[str, ...]
) -> None:
    image, wave = write_image(tmp_path / "a.png"), write_wave(tmp_path / "q.wav")
    options = ("--image", image, "--audio", wave, "--json", "--max-new-tokens", 4)
    assert run_main("--ckpt-dir", ckpt_dir, *options, *prompt) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompt"], result["image"], result["audio"]) == ("", str(image), str(wave))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompt", " "), "nothing to answer"),
        (("--prompt", "1" * 300), "the limit is 128"),
        (("--prompt", "x", "--image", "none.png"), "none.png: no such image file"),
        (("--audio", str(Path(__file__))), "is not a sound file"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    ckpt_dir: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert run_main("--ckpt_dir", ckpt_dir, *options) == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err
    assert err.count("\n") == 1
    assert run_main("--ckpt_dir", ckpt_dir, *options, "--json") == 2
    out, err = capsys.readouterr()
    assert err == f"error: {json.loads(out)['error']}\n"


def test_a_missing_model_names_the_command_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main("--ckpt_dir", tmp_path, "--prompt", "hello") == 2
    assert "sft_omni.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompted", "x"), "--prompted: unknown option; did you mean --prompt?"),
        (("--max_new_tokens", "0"), "--max-new-tokens: must be at least 1, found 0"),
        (("--max-new-tokens", "many"), "--max-new-tokens: must be a whole number, found 'many'"),
        (("--max-new-tokens", "9" * 9_999), "--max-new-tokens: must be a whole number, found '99"),
        (("--prompt",), "--prompt: a value is missing"),
        (("--image", ""), "--image: a value is missing"),
        (("hello",), "'hello' is not an option"),
    ],
)
def test_wrong_flags(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert cli.main(["chat", *options, "--json"]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert err == f"error: {json.loads(out)['error']}\n"


def test_options_are_text_where_text_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(chat, "chat", lambda **options: given.update(options) or 0)
    assert run_main("--prompt", "1", "--image=~/a.png", "--ckpt_dir", "2026") == 0
    assert given == {
        "ckpt_dir": Path("2026"),
        "prompt": "1",
        "as_json": False,
        "max_new_tokens": MAX_NEW_TOKENS,
        "system": "",
        "temperature": 0.0,
        "timings": False,
        "pictures": "auto",
        "image": [Path("~/a.png").expanduser()],
        "audio": [],
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none", "no such folder; make a model with"),
        (lambda folder: write_image(folder / "a.png"), "a.png: is not a checkpoint"),
        (lambda folder: _file(folder, "run.json", '{"config": {"thinker_ckpt": ""}}'), "--resume"),
        (lambda folder: _file(folder, "omni.pt", ""), "omni.pt: is not a checkpoint that can"),
        (lambda folder: Path("/dev/null"), "is neither a folder nor a file"),
    ],
)
def test_no_model_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path], words: str
) -> None:
    assert run_main("--ckpt_dir", make(tmp_path), "--prompt", "hello") == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def test_what_was_never_taught_is_told(
    tmp_path: Path, model: OmniModel, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", model, tiny_renderer(), media_per_sample={"audio": 0})
    wave = write_wave(tmp_path / "a.wav")
    options = ("--ckpt_dir", tmp_path, "--audio", wave, "--max-new-tokens", 4)
    told = "this model was taught with no audio: its answers are guesses"
    assert run_main(*options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["notice"] == told
    assert run_main(*options) == 0
    assert capsys.readouterr().err == f"({told})\n"


def test_undecodable_bytes_and_narrow_output(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    lines = io.BytesIO(b"caf\xe9 \xf0\x9f\nhello\n/image caf\xe9.png\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines, encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run_main("--ckpt_dir", ckpt_dir, "--max-new-tokens", 4) == 0
    sys.stdout.flush()
    assert written.getvalue().count(b"model> ") == 2


@pytest.mark.parametrize("status", [0, 2])
def test_infer_chat_hands_its_status_on(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    given: list[list[str]] = []

    def fake(arguments: list[str]) -> int:
        given.append(arguments)
        return status

    monkeypatch.setattr("omnitune.cli.main", fake)
    monkeypatch.setattr(sys, "argv", ["infer_chat.py", "--prompt", "hello"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(os.fspath(ROOT / "infer_chat.py"), run_name="__main__")
    assert stopped.value.code == status
    assert given == [["chat", "--prompt", "hello"]]
