"""Row histories in the report, and example rows per cell of the confusion matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.report.row_stories import examples, stories


def row(text: str, split: str, label: str | None, **more: Any) -> Row:
    """A row whose label, if any, is human."""
    source = "human" if label else None
    return Row(
        identify(text.encode()), split, label=label, label_source=source, origin=f"t.csv#{text}", payload=text, **more
    )


TAUGHT, TESTED, SURE, POOL = (
    row("taught", "train", "a", fold=2),
    row("tested", "test", "a"),
    row("sure", "test", "b"),
    row("pool", "pool", None),
)
CHILD = replace(row("child", "train", "a"), parent_ids=[TAUGHT.id])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Four rows, a rejected copy, an augmented row, a pool row labeled in round 1, and two predictions, one of them
    wrong.
    """
    root = tmp_path / "generations"
    for stage, kept in (
        ("scrape", [TAUGHT, TESTED, SURE, POOL]),
        ("validate", [TAUGHT, TESTED, SURE, POOL]),
        ("augment", [CHILD]),
        ("pseudo_label/1", [replace(POOL, label="b")]),
    ):
        extra = [pa.field("p_label_error", pa.float32())] if stage == "validate" else []
        with GenerationWriter(root / stage, stage=stage.replace("/", "@"), modality="text", extra=extra) as writer:
            for row in kept:
                extra_values = {"p_label_error": 0.25 if row is TAUGHT else None} if extra else {}
                writer.keep(replace(row, extra=extra_values))
            if stage == "validate":
                writer.reject(
                    replace(TESTED, split="train", origin="t.csv#copy", extra={"p_label_error": None}),
                    "exact_duplicate",
                )
            writer.close(rows_in=len(kept) + (stage == "validate"), classes=["a", "b"])
    prediction_columns = {
        "id": [TESTED.id, SURE.id],
        "label": ["a", "b"],
        "predicted": ["b", "b"],
        "probabilities": [[0.3, 0.7], [0.1, 0.9]],
    }
    (tmp_path / "reports").mkdir()
    pd.DataFrame(prediction_columns).to_parquet(tmp_path / "reports" / "predictions.parquet")
    return tmp_path


def predictions(workspace: Path) -> pd.DataFrame:
    """The predictions as evaluate writes them."""
    return pd.read_parquet(workspace / "reports" / "predictions.parquet")


def test_a_row_history_has_its_provenance_and_its_use(workspace: Path) -> None:
    """Origin, split, fold, label, label error probability, parents, pseudo-label, prediction, and the rejected copy."""
    histories = stories(workspace / "generations", predictions(workspace))
    assert histories["left_out"] == 0
    rows = histories["rows"]
    assert rows[TAUGHT.id] == {
        "c": "validate",
        "o": "t.csv#taught",
        "s": "train",
        "f": 2,
        "l": "a",
        "b": "human",
        "t": "taught",
        "w": 0.25,
    }
    assert (rows[TESTED.id]["a"], rows[TESTED.id]["y"]) == ("b", 0.7)
    assert rows[TESTED.id]["x"] == [("t.csv#copy", "exact_duplicate (validate)")]
    assert rows[POOL.id]["k"] == {"1": "b"}
    assert (rows[CHILD.id]["p"], rows[CHILD.id]["c"]) == ([TAUGHT.id], "augment")


def test_rows_with_a_prediction_come_first_if_the_number_is_limited(workspace: Path) -> None:
    """Of six rows, the two with a prediction are included; the others are counted."""
    included = stories(workspace / "generations", predictions(workspace), max_rows=2)
    assert set(included["rows"]) == {TESTED.id, SURE.id}
    assert included["left_out"] == 4


def test_examples_are_grouped_by_cell_of_the_confusion_matrix(workspace: Path) -> None:
    """The row of a predicted as b, and the row of b predicted correctly."""
    examples_by_cell = examples(workspace / "generations", predictions(workspace), ["a", "b"])
    assert {cell: [example["id"] for example in rows] for cell, rows in examples_by_cell.items()} == {
        "0-1": [TESTED.id],
        "1-1": [SURE.id],
    }
    assert (examples_by_cell["0-1"][0]["text"], examples_by_cell["0-1"][0]["confidence"]) == ("tested", 0.7)
