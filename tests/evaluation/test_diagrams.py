"""Which diagrams a run has, and the points on their lines."""

from made_up import entry, rich_entry

from omnitune.evaluation.diagrams import curves_of, diagrams_of


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
