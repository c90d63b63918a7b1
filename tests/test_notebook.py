"""examples/notebook.ipynb runs from its first to its last cell in a Jupyter kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
CELL_TIMEOUT_SECONDS = 900


def printed_by(cell: Any) -> str:
    """What an executed cell printed, and the text of its value."""
    parts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
    return "\n".join(parts)


def cell_with(notebook: Any, code: str) -> str:
    """What the first cell with that code printed."""
    return next(
        printed_by(cell) for cell in notebook["cells"] if cell["cell_type"] == "code" and code in cell["source"]
    )


@pytest.mark.slow
def test_the_notebook_runs_and_finds_the_wrong_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted wrong label comes first, and three questions and most digits outside the table are answered right."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_SECONDS,
        startup_timeout=CELL_TIMEOUT_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    issues = cell_with(notebook, "label_issues").splitlines()
    assert "weather" in issues[1] and "flight" in issues[1]
    answers = cell_with(notebook, "predictions = ").splitlines()[1:]
    assert [
        label for line, label in zip(answers, ("flight", "weather", "hotel"), strict=True) if label not in line
    ] == []
    assert float(cell_with(notebook, 'texts.metrics["accuracy"]').splitlines()[-1]) > 0.8
    assert float(cell_with(notebook, "== answers")) > 0.6


def test_the_notebook_is_committed_without_outputs() -> None:
    """They hold paths and times of one machine."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["outputs"]] == []
