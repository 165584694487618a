"""The notebook in examples/ runs as it stands, with another model than the demo's."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave
from nbclient import NotebookClient

from omnitune import load_model
from omnitune.models.loading import save_omni

NOTEBOOK = Path(__file__).parents[2] / "examples" / "talk_to_a_model.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: Any) -> str:
    """What a cell has printed or shown, as text."""
    texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "".join(texts)


def test_the_repository_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(max_positions=512), tiny_renderer())
    image, audio = write_image(tmp_path / "a.png"), write_wave(tmp_path / "a.wav")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = code_cells(notebook)
    [places] = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    given = {"ckpt_dir": tmp_path, "image": image, "audio": audio}
    lines = ["from pathlib import Path", *(f"{k} = Path({str(v)!r})" for k, v in given.items())]
    assert {line.split(" = ")[0] for line in places.source.splitlines()} > given.keys()
    places.source = "\n".join(lines)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    model = load_model(tmp_path, "cpu")
    by_call = {cell.source: said(cell) for cell in cells}
    [hello] = [text for call, text in by_call.items() if 'chat("hello"' in call]
    assert hello == repr(model.chat("hello", max_new_tokens=32))
    transcripts = [text for call, text in by_call.items() if "model.transcribe(" in call]
    assert transcripts == [repr(model.transcribe(audio, max_new_tokens=64))] * 2
    [scores] = [text for call, text in by_call.items() if "results.json" in call]
    assert "has no scores" in scores
    [mistake] = [text for call, text in by_call.items() if "UserError" in call]
    assert "no such image file" in mistake
    shown = [out.get("data", {}) for cell in cells for out in cell.outputs]
    assert any("image/png" in data for data in shown)
    assert any("<audio" in data.get("text/html", "") for data in shown)
