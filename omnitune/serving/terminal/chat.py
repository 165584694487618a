"""The ``chat`` command: a prompt, or a single answer for scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from omnitune.config.settings import load_config
from omnitune.data.taught import Taught
from omnitune.media.registry import MEDIA
from omnitune.models.loading import load_omni
from omnitune.sample import UserError
from omnitune.serving.folder import greeting, require_model
from omnitune.serving.options import MAX_NEW_TOKENS, Pictures, chat_config
from omnitune.serving.session import ChatSession, named_in_errors
from omnitune.serving.streams import as_json_line, leave_when_killed, tell
from omnitune.serving.terminal.prompt import Terminal, told_timing


def chat(
    ckpt_dir: Path,
    prompt: str | None = None,
    as_json: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    system: str = "",
    temperature: float = 0.0,
    timings: bool = False,
    pictures: Pictures = "auto",
    **media: Sequence[Path] | None,
) -> int:
    """Opens the prompt, or answers once if there is a text or a medium; returns the exit status.

    Args:
        as_json: print one line with ``prompt``, for each kind of medium that the model reads a
            path, a list of several or null, ``answer``, ``tokens`` (of the answer), ``seconds``
            (reading media and answering), and ``notice`` if there is one (``ChatSession.notice``).
        system: text in front of the conversation.
        temperature: 0 takes the most likely token each time.
        timings: tell how long an answer took.
        pictures: how a terminal shows them.
        **media: files by modality (``image=[...]``).

    Raises:
        UserError: there is no model, nothing to answer, or a file cannot be used.
    """
    given = {name: files for name, files in media.items() if files}
    if prompt is None and not given and not as_json:
        leave_when_killed()
        session = _open_session(ckpt_dir, max_new_tokens)
        session.system, session.temperature = system, temperature
        talk = Terminal(session, str(ckpt_dir), pictures, timings)
        talk.about = greeting(ckpt_dir) if talk.typed else ()
        return talk.run()
    if not given and not (prompt or "").strip():
        flags = " or ".join(f"--{name}" for name in MEDIA)
        raise UserError(f"there is nothing to answer; give a --prompt with words, or {flags}")
    for name, path in _each(given):  # a missing file is told before a large model is loaded
        with named_in_errors(path):
            MEDIA[name].check(path)
    session = _open_session(ckpt_dir, max_new_tokens)
    session.system, session.temperature = system, temperature
    _answer_once(session, prompt or "", given, as_json)
    if timings:
        tell(f"({told_timing(session)})")
    return 0


def main(arguments: list[str]) -> int:
    """The ``chat`` subcommand; returns the exit status.

    Raises:
        UserError: of the options or of :func:`chat`; with ``--json`` it is on standard output too.
    """
    try:
        return chat(**dict(load_config(chat_config(), None, arguments)))
    except UserError as error:
        if "--json" in arguments:
            print(as_json_line({"error": str(error)}), flush=True)
        raise


def _open_session(ckpt_dir: Path, max_new_tokens: int) -> ChatSession:
    require_model(ckpt_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, renderer, values = load_omni(ckpt_dir, device)
    return ChatSession(model, renderer, max_new_tokens, Taught.of(values))


def _answer_once(
    session: ChatSession, prompt: str, media: Mapping[str, Sequence[Path]], as_json: bool
) -> None:
    start = time.perf_counter()
    notices = []
    for name, path in _each(media):
        session.attach(path, name)
        notices += [session.notice] * bool(session.notice)
    for piece in session.ask(prompt):
        if not as_json:
            print(piece, end="", flush=True)
    if not as_json:
        print(flush=True)
        for notice in notices:
            tell(f"({notice})")
        return
    result = {
        "prompt": prompt,
        **{name: _as_given(media.get(name, ())) for name in session.model.modalities},
        "answer": session.messages[-1].text,
        "tokens": len(session.answer_tokens),
        "seconds": round(time.perf_counter() - start, 3),
        **({"notice": "; ".join(notices)} if notices else {}),
    }
    print(as_json_line(result))


def _each(media: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, paths in media.items() for path in paths)


def _as_given(paths: Sequence[Path]) -> str | list[str] | None:
    """None, one path, or several."""
    written = [str(path) for path in paths]
    return written if len(written) > 1 else next(iter(written), None)
