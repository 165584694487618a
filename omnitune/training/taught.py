"""Which data taught a run, and which did not: by source, at its end.

The losses of training choose a few records of each source. The finished model is then asked their
questions, so that what is said of a record is of the model that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.loader import SampleReader
from omnitune.data.reading import split_of
from omnitune.data.samples import Samples
from omnitune.evaluation.metrics import metric_of
from omnitune.evaluation.scoring import answer, questions_of, token_totals
from omnitune.models.omni import OmniModel
from omnitune.sample import Sample
from omnitune.training.record_losses import FIRST, LAST, SEEN, RecordLosses
from omnitune.training.run_hash import file_of

ASKED_AGAIN = 16  # records of a source, of each kind of list
NAMED = 8  # records in a list
AT_A_TIME = 8  # records whose media are in memory together
QUESTIONS = 8  # of a record, at most


def what_taught(
    model: OmniModel,
    reader: SampleReader,
    samples: Mapping[str, Samples],
    losses: RecordLosses,
) -> dict[str, Any]:
    """By source, what ``results.json`` holds under ``taught``.

    Returns:
        ``start`` and ``end``: mean training loss in the first and the last tenth of the run in
        which the source was seen; ``records``, ``followed``, ``seen`` and ``seen_twice``: how many;
        ``not_falling``: of those seen twice; ``hardest`` and ``never_learnt``: lists of records.
    """
    training = {source: split_of(found, "train") for source, found in samples.items()}
    chosen = {source: _chosen(losses, source) for source in training if losses.course(source)}
    model.eval()
    found = {}
    total = sum(len(places) for places, _ in chosen.values())
    with progress_bar("asking training records again", total) as advance:
        for source, (places, stayed) in chosen.items():
            entries: list[dict[str, Any]] = []
            for first in range(0, len(places), AT_A_TIME):
                some = places[first : first + AT_A_TIME]
                asked = (training[source], some, losses.of(source), losses.stride)
                entries += _ask_again(model, reader, *asked)
                advance(len(some))
            found[source] = _summary(losses, source) | _lists(entries, stayed, losses, source)
    return found


def _summary(losses: RecordLosses, source: str) -> dict[str, Any]:
    course, table_RC = losses.course(source), losses.of(source)
    return {
        "start": course[0][1],
        "end": course[-1][1],
        "records": losses.sizes[source],
        "followed": len(table_RC),
        "seen": int((table_RC[:, SEEN] > 0).sum()),
        "seen_twice": int((table_RC[:, SEEN] > 1).sum()),
        "not_falling": len(losses.not_falling(source)),
    }


def _lists(
    entries: list[dict[str, Any]], stayed: set[int], losses: RecordLosses, source: str
) -> dict[str, Any]:
    usual = losses.course(source)[-1][1]
    worst = sorted(entries, key=lambda entry: -entry["loss"])
    unlearnt = [entry for entry in worst if entry["place"] in stayed and _is_wrong(entry, usual)]
    return {"hardest": worst[:NAMED], "never_learnt": unlearnt[:NAMED]}


def _chosen(losses: RecordLosses, source: str) -> tuple[list[int], set[int]]:
    """Places of the records to ask again, and of those whose loss did not fall."""
    stayed = losses.not_falling(source)
    last_N = losses.of(source)[stayed // losses.stride, LAST]
    worst = stayed[np.argsort(-last_N, kind="stable")[:ASKED_AGAIN]].tolist()
    places = dict.fromkeys([*losses.hardest(source, ASKED_AGAIN), *worst])
    return list(places), set(stayed.tolist())


def _is_wrong(entry: Mapping[str, Any], usual: float) -> bool:
    """Wrong still; where no answer was generated, harder than the source is at the end."""
    if entry["right"] is not None:
        return not entry["right"]
    return bool(entry["loss"] > usual)


def _ask_again(
    model: OmniModel,
    reader: SampleReader,
    training: Samples,
    places: Sequence[int],
    table_RC: np.ndarray,
    stride: int,
) -> list[dict[str, Any]]:
    """Training records under the finished model: losses, and answers to their hardest questions."""
    records = [training[place] for place in places]
    singles = [record.split_turns()[:QUESTIONS] for record in records]
    items = [reader.item(single) for found in singles for single in found]
    totals = iter(token_totals(model, items))
    entries, hardest = [], []
    for place, record, own in zip(places, records, singles, strict=True):
        of_own = [next(totals) for _ in own]
        means = [nll / max(1, count) for nll, _, count in of_own]
        hardest.append(own[means.index(max(means))])
        row_C = table_RC[place // stride]
        entries.append(
            {
                "place": place,
                "record": record.number + 1,
                "id": record.id,
                "file": file_of(training, place),
                "seen": int(row_C[SEEN]),
                "first": float(row_C[FIRST]),
                "last": float(row_C[LAST]),
                "loss": sum(n for n, _, _ in of_own) / max(1, sum(n for _, _, n in of_own)),
            }
        )
    answers = _answers(model, reader, hardest)
    return [entry | answered for entry, answered in zip(entries, answers, strict=True)]


def _answers(
    model: OmniModel, reader: SampleReader, singles: Sequence[Sample]
) -> list[dict[str, Any]]:
    """Of each sample the last question with its media, its reference and the model's answer."""
    questions = [questions_of(single)[-1] for single in singles]
    generated = [q for q in questions if metric_of(q.task).generated]
    given = iter(answer(model, reader, generated) if generated else [])
    found = []
    for single, question in zip(singles, questions, strict=True):
        metric = metric_of(question.task)
        said = next(given).answer if metric.generated else None
        found.append(
            {
                "task": question.task,
                "kind": question.kind,
                "question": question.messages[-1].text.strip() if question.messages else "",
                "reference": question.reference,
                "media": [[medium.modality, str(medium.path)] for medium in single.media],
                "answer": said,
                "right": None if said is None else bool(metric.is_right(said, question.truth)),
            }
        )
    return found
