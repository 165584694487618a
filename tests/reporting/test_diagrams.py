"""Which diagrams a run has, and the points on their lines."""

import pytest
from made_up import entry, rich_entry, start_entry

from omnitune.reporting.diagrams import curves_of, diagrams_of


def test_an_old_run_has_the_main_diagrams() -> None:
    found = diagrams_of([entry(10, False), entry(20, True)])
    assert [d.key for d in found] == ["loss", "text_acc", "image_qa_acc", "audio_wer"]
    assert all(d.marks == () for d in found)
    assert diagrams_of([{}, {"step": 1, "validation": None}]) == []


def test_a_run_that_tells_more_has_more() -> None:
    found = {d.key: d for d in diagrams_of([rich_entry(10), rich_entry(20), rich_entry(30, 2)])}
    lines = {key: [c.label for c in d.curves] for key, d in found.items()}
    assert lines["sources"] == ["text_only"]
    assert lines["tasks"] == ["text", "image_qa"]
    assert lines["reliance"] == ["image", "audio"]
    assert lines["guard"] == ["now", "starting thinker"]
    assert lines["weights"] == ["text_only", "image_text"]
    assert found["rate"].curves[0].values == [1e-4, 5e-5, 1e-3 / 30]
    assert found["reliance"].curves[1].values == [1.2, 1.2, 1.2]
    assert all(d.marks == (20.0,) for d in found.values())


@pytest.mark.parametrize("epoch_ended", [True, False])
def test_held_out_lines_begin_before_the_first_step(epoch_ended: bool) -> None:
    start = start_entry() | {"epoch_ended": epoch_ended}
    lines = [start, *(entry(step, step == 20) for step in (10, 20, 30))]
    (probe, epoch, train) = curves_of(lines, "loss")
    assert (probe.steps, epoch.steps) == ([0.0, 10.0, 30.0], [0.0, 20.0])
    assert (probe.values[0], epoch.values[0]) == (8.0, 8.0)
    assert train.steps == [10.0, 20.0, 30.0]


def test_the_start_makes_no_line_of_its_own() -> None:
    start = start_entry()
    (probe, _) = curves_of([start, entry(10, False)], "loss")
    assert (probe.role, probe.steps) == ("probe", [0.0, 10.0])
    (epoch, _) = curves_of([start, entry(10, True)], "loss")
    assert (epoch.role, epoch.steps) == ("epoch", [0.0, 10.0])
    # Checks between epochs that leave a task out have no line for it.
    lines = [start, entry(10, False, without="audio_wer"), entry(20, True)]
    assert [(c.role, c.steps) for c in curves_of(lines, "audio_wer")] == [("epoch", [0.0, 20.0])]
    assert [(c.role, c.steps) for c in curves_of([start], "loss")] == [("epoch", [0.0])]


def test_the_start_is_no_training() -> None:
    """Its line may hold counts of nothing, and another phase or none."""
    nothing = {"loss": 0.0, "learning_rate": 0.0, "sources": {"text_only": {"loss": 0.0}}}
    start = start_entry() | {"train": nothing}
    found = {d.key: d for d in diagrams_of([start, rich_entry(10), rich_entry(20)])}
    assert found["loss"].marks == ()
    for key in ("sources", "rate"):
        assert found[key].curves[0].steps == [10.0, 20.0]
    assert found["loss"].curves[-1].steps == [10.0, 20.0]


def test_language_is_that_of_the_start_before_the_first_step() -> None:
    found = {d.key: d for d in diagrams_of([rich_entry(10), rich_entry(20)])}
    (now, start) = found["guard"].curves
    assert (now.steps, now.values) == ([0.0, 10.0, 20.0], [0.6, 0.65, 0.65])
    assert start.values == [0.6, 0.6, 0.6]
    assert "validation" in found["guard"].title


def test_legend_says_how_many_questions_a_check_has() -> None:
    (diagram, *_) = diagrams_of([entry(10, False)], probe_questions=16)
    words = dict(diagram.legend)
    assert words["probe"] == "quick checks on 16 questions of each task"
    assert words["epoch"] == "validation after each epoch"
    (diagram, *_) = diagrams_of([start_entry()])
    words = dict(diagram.legend)
    assert words["probe"] == "quick checks on few questions"
    assert "before the first step" in words["epoch"]


def test_points_without_a_number_are_left_out() -> None:
    lines = [entry(10, True), entry(20, True), entry(30, True)]
    lines[1]["validation"]["loss"] = float("nan")
    lines[2]["validation"]["intervals"] = {"loss": [0.1, 0.2]}
    (held, train) = curves_of(lines, "loss")
    assert (held.role, train.role) == ("epoch", "train")
    assert held.steps == [10.0, 30.0]
    assert held.intervals == [None, (0.1, 0.2)]
    assert train.steps == [10.0, 20.0, 30.0]


def test_training_means_of_a_step_or_two_are_no_points() -> None:
    lines = [entry(step, step in (21, 42)) for step in (10, 20, 21, 30, 40, 42)]
    (probe, epoch, train) = curves_of(lines, "loss")
    assert (probe.steps, epoch.steps) == ([10.0, 20.0, 30.0, 40.0], [21.0, 42.0])
    assert train.steps == [10.0, 20.0, 30.0, 40.0]
