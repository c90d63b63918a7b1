"""Row histories for the report: the facts about each row, and example rows per cell of the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

import numpy as np
import pandas as pd

from seedling.dataset.class_indices import index_by_class
from seedling.dataset.generation import columns_of, payloads, read, read_manifest, read_rejected
from seedling.files.reading import row_dicts
from seedling.media.personal_data import as_shown
from seedling.report.pages import Preview, preview
from seedling.workspace import MANIFEST

MAX_ROWS = 6_000  # on the page; `seedling why` finds all rows
MAX_EXAMPLES = 240
MAX_EXAMPLES_PER_CELL = 8
SIDE_PIXELS = 72
MAX_TEXT_CHARACTERS = 120
COLUMNS = ("id", "origin", "split", "fold", "label", "label_source", "parent_ids", "group")
VALIDATE_COLUMNS = ("p_label_error", "suggested_label", "original_label", "text")
KEY_OF_COLUMN: Mapping[str, Literal["o", "s", "l", "b", "u", "v"]] = {
    "origin": "o",
    "split": "s",
    "label": "l",
    "label_source": "b",
    "suggested_label": "u",
    "original_label": "v",
}


class RowFacts(TypedDict, total=False):
    """The facts about a row, as the page's script reads them. The keys are short, since the page has many rows.

    o origin, s split, f fold, l label, b label source, g group, p parent ids, c stage that brought the row, r reason
    and stage of its rejection, w probability of a label error, u suggested label, v original label, k pseudo-label by
    round, a predicted label, y confidence, t shortened text, x copies: origin and reason of the rejection of each.
    """

    o: str
    s: str
    f: int
    l: str  # noqa: E741
    b: str
    g: str
    p: list[str]
    c: Required[str]
    r: str
    w: float
    u: str
    v: str
    k: dict[str, str]
    a: str
    y: float
    t: str
    x: list[tuple[str, str]]


class Stories(TypedDict):
    """Facts by row id, and the number of rows that are not included."""

    rows: dict[str, RowFacts]
    left_out: int


class Example(Preview):
    """A row of a cell of the confusion matrix, as the page's script reads it, with its text or image."""

    id: Required[str]
    confidence: Required[float]


def stories(generations: Path, predictions: pd.DataFrame, max_rows: int = MAX_ROWS) -> Stories:
    """The facts about at most `max_rows` rows. Rows with a prediction come first, then the others by stage."""
    rows = dict[str, RowFacts]()
    predicted_ids = set(predictions["id"])
    folders = [
        folder
        for stage in ("validate", "augment", "synthesize")
        if ((folder := generations / stage) / MANIFEST).is_file()
    ]
    total = sum(read_manifest(folder).rows.rows_in for folder in folders)
    for folder in folders:
        for row_id, facts in _read_facts(folder, predicted_ids, max_rows):
            if len(rows) >= max_rows:
                break
            if rows.setdefault(row_id, facts) is not facts and "o" in facts:  # a rejected copy
                rows[row_id].setdefault("x", []).append((facts["o"], facts.get("r", "")))
    for folder in sorted((generations / "pseudo_label").glob("[0-9]*")):
        labels = read(folder, ["id", "label", "weight"])
        for row_id, label in zip(labels["id"], labels["label"], strict=True):
            if row_id in rows:
                rows[row_id].setdefault("k", {})[folder.name] = label
    for row_id, predicted, probabilities in zip(
        predictions["id"], predictions["predicted"], predictions["probabilities"], strict=True
    ):
        if row_id in rows:
            rows[row_id]["a"], rows[row_id]["y"] = predicted, round(float(np.max(probabilities)), 3)
    return {"rows": rows, "left_out": total - len(rows) if len(rows) >= max_rows else 0}


def _read_facts(folder: Path, first: set[str], max_rows: int) -> Iterator[tuple[str, RowFacts]]:
    """Id of and facts about the rows of a stage, kept rows before rejected ones, those with an id in `first` first."""
    available = columns_of(folder)
    columns = [name for name in (*COLUMNS, *VALIDATE_COLUMNS) if name in available]
    kept = read(folder, columns)
    kept = kept.assign(reason=None, first=~kept["id"].isin(first)).sort_values(["first", "id"], kind="stable")
    rejected = read_rejected(folder).reindex(columns=[*columns, "reason"])
    for frame in (kept.head(max_rows), rejected.head(max_rows)):
        for row in row_dicts(frame):
            yield row["id"], _facts(row, folder.name)


def _facts(row: Mapping[str, Any], stage: str) -> RowFacts:
    facts: RowFacts = {"c": stage}
    for name, key in KEY_OF_COLUMN.items():
        if isinstance(row.get(name), str):
            facts[key] = row[name]
    if isinstance(row.get("text"), str):
        text = as_shown(row["text"])
        facts["t"] = text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"
    if isinstance(row.get("fold"), int | float) and row["fold"] == row["fold"]:
        facts["f"] = int(row["fold"])
    if isinstance(row.get("p_label_error"), float) and row["p_label_error"] == row["p_label_error"]:
        facts["w"] = round(row["p_label_error"], 3)
    if row["parent_ids"] is not None and len(row["parent_ids"]):
        facts["p"] = list(row["parent_ids"])
    if isinstance(row.get("group"), str) and row["group"] != row["id"]:
        facts["g"] = row["group"]
    if isinstance(row["reason"], str):
        facts["r"] = f"{row['reason']} ({stage})"
    return facts


def examples(generations: Path, predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[Example]]:
    """Previews of rows by cell of the confusion matrix, `truth-predicted` in class indices.

    The most confident rows come first. Errors take precedence over right rows, which share the remaining places.
    """
    label_to_index = index_by_class(classes)
    confidence = [float(np.max(probabilities)) for probabilities in predictions["probabilities"]]
    frame = predictions.assign(confidence=confidence).sort_values(["confidence", "id"], ascending=[False, True])
    wrong = frame[frame["label"] != frame["predicted"]]
    right = frame[frame["label"] == frame["predicted"]]
    cells = wrong.groupby(["label", "predicted"], sort=False).head(MAX_EXAMPLES_PER_CELL).head(MAX_EXAMPLES)
    per_class = min(MAX_EXAMPLES_PER_CELL, max(0, MAX_EXAMPLES - len(cells)) // max(1, len(classes)))
    chosen = pd.concat([cells, right.groupby("label", sort=False).head(per_class)])
    content: Mapping[str, bytes | str] = dict(payloads([generations / "scrape"], chosen["id"]))
    by_cell: dict[str, list[Example]] = {}
    for row in chosen.to_dict("records"):
        cell = f"{label_to_index[row['label']]}-{label_to_index[row['predicted']]}"
        example: Example = {"id": row["id"], "confidence": round(row["confidence"], 3)}
        by_cell.setdefault(cell, []).append({**example, **preview(content[row["id"]], SIDE_PIXELS)})
    return by_cell
