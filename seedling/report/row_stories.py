"""Row histories for the report: the facts about each row, and example rows per cell of the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.dataset.class_indices import index_by_class
from seedling.dataset.generation import columns_of, payloads, read, read_manifest, read_rejected
from seedling.files.reading import read_frame
from seedling.media.personal_data import as_shown
from seedling.report.pages import preview
from seedling.workspace import MANIFEST, Workspace

MAX_ROWS = 6_000  # on the page; `seedling why` finds all rows
MAX_EXAMPLES = 240
MAX_EXAMPLES_PER_CELL = 8
SIDE_PIXELS = 72
MAX_TEXT_CHARACTERS = 120
COLUMNS = ("id", "origin", "split", "fold", "label", "label_source", "parent_ids", "group")
VALIDATE_COLUMNS = ("p_label_error", "suggested_label", "original_label", "text")
KEY_OF_COLUMN = {
    "origin": "o",
    "split": "s",
    "label": "l",
    "label_source": "b",
    "suggested_label": "u",
    "original_label": "v",
}


def stories(workspace: Path, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """{"rows": facts by row id, "left_out": number of rows that are not included}.

    Rows with a prediction come first, then the others by stage. Keys of a row: o origin, s split, f fold, l label,
    b label source, g group, p parent ids, c stage that brought the row, r reason and stage of its rejection,
    w probability of a label error, u suggested label, v original label, k pseudo-label by round, a predicted label,
    y confidence, t shortened text, x copies: origin and reason of the rejection of each.
    """
    root, rows = Workspace(workspace).generations, dict[str, dict[str, Any]]()
    predictions = read_frame(Workspace(workspace).predictions_file)
    predicted_ids = set(predictions["id"])
    folders = [
        folder for stage in ("validate", "augment", "synthesize") if ((folder := root / stage) / MANIFEST).is_file()
    ]
    total = sum(read_manifest(folder)["rows"]["in"] for folder in folders)
    for folder in folders:
        for facts in _read_facts(folder, predicted_ids, max_rows):
            if len(rows) >= max_rows:
                break
            row_id = facts.pop("id")
            if rows.setdefault(row_id, facts) is not facts and "o" in facts:  # a rejected copy
                rows[row_id].setdefault("x", []).append([facts["o"], facts.get("r", "")])
    for folder in sorted((root / "pseudo_label").glob("[0-9]*")):
        labels = read(folder, ["id", "label", "weight"])
        for row_id, label in zip(labels["id"], labels["label"], strict=True):
            if row_id in rows:
                rows[row_id].setdefault("k", {})[folder.name] = label
    for row_id, predicted, probabilities in zip(
        predictions["id"], predictions["predicted"], predictions["probabilities"], strict=True
    ):
        if row_id in rows:
            rows[row_id] |= {"a": predicted, "y": round(float(np.max(probabilities)), 3)}
    return {"rows": rows, "left_out": total - len(rows) if len(rows) >= max_rows else 0}


def _read_facts(folder: Path, first: set[str], max_rows: int) -> Iterator[dict[str, Any]]:
    """The facts about the rows of a stage, kept rows before rejected ones, those with an id in `first` first."""
    available = columns_of(folder)
    columns = [name for name in (*COLUMNS, *VALIDATE_COLUMNS) if name in available]
    kept = read(folder, columns)
    kept = kept.assign(reason=None, first=~kept["id"].isin(first)).sort_values(["first", "id"], kind="stable")
    rejected = read_rejected(folder).reindex(columns=[*columns, "reason"])
    for frame in (kept.head(max_rows), rejected.head(max_rows)):
        for row in frame.to_dict("records"):
            yield _facts(row, folder.name)


def _facts(row: Mapping[str, Any], stage: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": row["id"], "c": stage}
    facts |= {key: row[name] for name, key in KEY_OF_COLUMN.items() if isinstance(row.get(name), str)}
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


def examples(workspace: Path, classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Previews of rows by cell of the confusion matrix, `truth-predicted` in class indices.

    The most confident rows come first. Errors take precedence over right rows, which share the remaining places.
    """
    frame = read_frame(Workspace(workspace).predictions_file)
    label_to_index = index_by_class(classes)
    frame = frame.assign(confidence=[float(np.max(probabilities)) for probabilities in frame["probabilities"]])
    frame = frame.sort_values(["confidence", "id"], ascending=[False, True])
    wrong = frame[frame["label"] != frame["predicted"]]
    right = frame[frame["label"] == frame["predicted"]]
    cells = wrong.groupby(["label", "predicted"], sort=False).head(MAX_EXAMPLES_PER_CELL).head(MAX_EXAMPLES)
    per_class = min(MAX_EXAMPLES_PER_CELL, max(0, MAX_EXAMPLES - len(cells)) // max(1, len(classes)))
    chosen = pd.concat([cells, right.groupby("label", sort=False).head(per_class)])
    content: Mapping[str, bytes | str] = dict(payloads([Workspace(workspace).generation("scrape")], chosen["id"]))
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for row in chosen.to_dict("records"):
        cell = f"{label_to_index[row['label']]}-{label_to_index[row['predicted']]}"
        example = {
            "id": row["id"],
            "confidence": round(row["confidence"], 3),
            **preview(content[row["id"]], SIDE_PIXELS),
        }
        by_cell.setdefault(cell, []).append(example)
    return by_cell
