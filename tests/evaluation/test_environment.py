"""Facts about machine and versions, and the command line."""

import sys

import pytest

from omnitune.evaluation.environment import command, environment


def test_facts_are_words() -> None:
    facts = environment()
    assert {"Python", "torch", "transformers", "omnitune", "cores", "threads"} <= facts.keys()
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    assert int(facts["cores"]) >= 1


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/somewhere/bin/omnitune", "omnitune"),
        ("folder/sft_omni.py", "python sft_omni.py"),
        ("/somewhere/omnitune/cli.py", "python -m omnitune.cli"),
    ],
)
def test_command_can_be_typed_again(
    program: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--output-dir", "a b"])
    assert command() == f"{shown} --output-dir 'a b'"
