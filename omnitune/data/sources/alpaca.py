"""Instructions with answers, as Alpaca, Dolly and LLaMA-Factory write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import ASSISTANT, SYSTEM, USER, Reader
from omnitune.data.sources.parts import (
    ForeignDialect,
    as_text,
    beside,
    first_filled,
    is_blank,
    kept,
)
from omnitune.data.sources.swift import HISTORY, add_history
from omnitune.data.sources.writing import Speech, tagged
from omnitune.media.registry import MEDIA

INSTRUCTION, INPUTS, OUTPUTS = "instruction", ("input", "context"), ("output", "response")


class AlpacaDialect(ForeignDialect):
    """An instruction, an input that it is about, and an output."""

    name = "alpaca"
    title = "Alpaca instructions"
    reads = (INSTRUCTION, *INPUTS, *OUTPUTS, SYSTEM, HISTORY)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have an instruction and an output."""
        return all(
            INSTRUCTION in record and any(key in record for key in OUTPUTS) for record in records
        )

    def native(self, record: Values, origin: Origin) -> Values:
        """Instruction and input on lines of their own are the question."""
        reader = Reader(record, origin)
        add_history(reader, record)
        lines = [record.get(INSTRUCTION), record.get(first_filled(record, INPUTS))]
        for key, line in zip((INSTRUCTION, INPUTS[0]), lines, strict=True):
            if not is_blank(line) and not isinstance(as_text(line), str):
                raise origin.wrong(f'"{key}" is {as_found(line)}, expected text')
        asked = "\n".join(as_text(line) for line in lines if not is_blank(line))
        output = first_filled(record, OUTPUTS)
        if not output:
            raise origin.wrong(f'"{OUTPUTS[0]}" is missing or empty, expected the answer')
        reader.add(USER, asked, [INSTRUCTION])
        reader.add(ASSISTANT, record[output], [output])
        return {**kept(record), **reader.native()}

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """The last question as instruction, earlier turns as history."""
        speech = Speech(record, self.title)
        speech.all_learnt()
        system, turns = speech.apart()
        texts = [tagged(turn) for turn in turns]
        *history, (asked, answer) = zip(texts[::2], texts[1::2], strict=True)
        found: Values = {INSTRUCTION: asked, INPUTS[0]: "", OUTPUTS[0]: answer}
        found |= {HISTORY: [list(pair) for pair in history]} if history else {}
        found |= {SYSTEM: system} if system else {}
        found |= {beside(MEDIA[kind]): paths for kind, paths in speech.media.items()}
        return {**speech.kept, **found}
