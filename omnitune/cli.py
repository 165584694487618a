"""The subcommands: nothing but wiring."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback

from omnitune import __version__
from omnitune.commands.looking import (
    compare,
    convert,
    evaluate,
    export,
    inspect,
    replay,
    report,
    validate,
)
from omnitune.commands.making import consolidate, corpus, fine_tune, parts, plan, pretrain, sft
from omnitune.commands.talking import answer, serve, web
from omnitune.commands.wiring import Command, about
from omnitune.config.help import aligned, asks_for_help
from omnitune.config.parallel import (
    OfFirstRank,
    own_rank,
    rank_prefix,
    record_failure,
    world_size,
)
from omnitune.config.settings import nearest
from omnitune.distributed.telling import is_first_to_tell
from omnitune.sample import UserError
from omnitune.serving.streams import CUT_OFF, drop_output, tell, tolerate_any_bytes
from omnitune.tiny import sources as sources  # the corpus's own are known to every command
from omnitune.training import stopping

RESUMABLE = ("pretrain", "sft")
# torch tells of memory that the system does not give in its own way.
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")


def main(arguments: list[str] | None = None) -> int:
    """Runs a subcommand; returns the exit status.

    2 is a mistake in the input, 1 a fault of omnitune's own. ``training/stopping.py`` has those of
    commands that were stopped.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    stopping.begin()
    if world_size() > 1:
        # Once a rank, torch would tell that a step used all weights, which a mixed batch may not.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it reads this when it is imported
    runs = name in RESUMABLE and not asks_for_help(arguments)
    # A polite kill is a Ctrl-C: what was trained is saved first.
    signal.signal(signal.SIGTERM, stopping.stop_now)
    if runs:
        signal.signal(signal.SIGUSR1, stopping.stop_now)
    if runs and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, stopping.stop_now)
    tolerate_any_bytes()
    hint = "; the same command with --resume goes on from here" if runs else ""
    again = "; the same command goes on from here" if name in ("answer", "validate") else hint
    try:
        status = _run(name, arguments[1:])
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can still be told
        return status
    except KeyboardInterrupt as error:
        return _stopped(error, again)
    except BrokenPipeError:
        drop_output()
        if hint:
            tell(f"error: the output was closed, so the run was stopped{hint}")
        return CUT_OFF
    except Exception as error:
        if stopped := stopping.stopped():
            return _stopped(stopped, hint)
        if isinstance(error, OSError) and error.filename is None:  # of writing
            drop_output()
        reason = str(error) if isinstance(error, OfFirstRank) else explain(error)
        record_failure(reason)
        told = isinstance(error, OfFirstRank)  # by that rank
        if not told and is_first_to_tell(error, reason):
            tell(f"{rank_prefix()}error: {reason}")
        return 2 if isinstance(error, UserError | OSError) else 1


def _stopped(error: KeyboardInterrupt, hint: str) -> int:
    """Says that the command was stopped; returns its exit status."""
    if world_size() > 1:
        stopping.ignore_echoes()
    if not isinstance(error, stopping.StoppedError):
        error = stopping.StoppedError("Ctrl-C", stopping.STATUS[signal.SIGINT])
    told = f"stopped ({error.why}){hint}"
    record_failure(told)
    if own_rank() == 0:  # all of a run's processes stop together
        tell(f"\n{told}")
    return error.status


def explain(error: Exception) -> str:
    """What to tell the user of an error; a fault of ours leaves its traceback in a file."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    lacking = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    if lacking or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "there is not enough memory; take a smaller batch_size with more "
            f"gradient_accumulation, or activation_checkpointing ({error})"
        )
    with tempfile.NamedTemporaryFile(
        "w", prefix="omnitune-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"something that omnitune did not expect: {what[:500]}\n"
        f"This may be a fault of omnitune. Where it happened is written in {file.name}"
    )


def _run(name: str, arguments: list[str]) -> int:
    """Runs a subcommand, or prints its help if that is asked for."""
    commands = {command.__name__: command for group in GROUPS.values() for command in group}
    if name == "--version":
        print(f"omnitune {__version__}")
        return 0
    if asks_for_help([name]):
        print(overview())
        return 0
    if name not in commands:
        close = nearest(name, commands)
        hint = f"; did you mean {close}?" if close else ""
        raise UserError(f"omnitune {name}: no such command{hint}\n\n{overview()}")
    return commands[name](arguments)


def overview() -> str:
    """The subcommands by what one does with them."""
    groups = [
        f"{title}:\n" + aligned(((c.__name__, about(c)) for c in commands), left=14)
        for title, commands in GROUPS.items()
    ]
    usage = "usage: omnitune COMMAND [options]"
    return "\n\n".join([usage, *groups, "omnitune COMMAND --help lists the command's options."])


def chat(arguments: list[str]) -> int:
    """Talks to a model at a prompt, or answers once."""
    if asks_for_help(arguments):
        from omnitune.serving.options import chat_help

        print(chat_help())
        return 0
    from omnitune.serving.terminal.chat import main as chat_main

    return chat_main(arguments)


GROUPS: dict[str, tuple[Command, ...]] = {
    "Get data and parts": (corpus, convert, parts),
    "Train": (pretrain, plan, sft, consolidate),
    "Score": (evaluate,),
    "Look": (validate, inspect, replay, report, compare),
    "Export": (export,),
    "Talk": (chat, web, serve, answer),
}

__all__ = ["fine_tune", "main"]

if __name__ == "__main__":
    sys.exit(main())
