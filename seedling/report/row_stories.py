"""What the report can tell of any row: where it came from, what became of it, and examples of each kind of mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.dataset.generation import MANIFEST, columns_of, payloads, read, read_manifest, read_rejected
from seedling.files.reading import read_frame
from seedling.media.personal_data import as_shown
from seedling.report.pages import shown

MOST_ROWS = 6_000  # on the page; `seedling why` knows them all
MOST_EXAMPLES = 240
OF_A_CELL = 8
SIDE = 72  # pixels of an example
FROM_VALIDATE = ("p_label_error", "suggested_label", "original_label", "text")
LONGEST = 120  # characters of a text
RECORD = ("id", "origin", "split", "fold", "label", "label_source", "parent_ids", "group")


def stories(workspace: Path) -> dict[str, Any]:
    """{"rows": id → what is known of it, "left_out": how many rows are not among them}; those that were judged come first, then by stage.

    Of a row: o origin, s split, f fold, l label, b by whom, g group, p parents, c the stage that brought it, r why it was
    rejected and where, w the probability that its label is wrong, u the suggested one, v the label as it was given, k round → pseudo-label,
    a the answer, y the answer's confidence, t its text, cut, x copies of it: origin and why each was rejected.
    """
    root, found = workspace / "generations", dict[str, dict[str, Any]]()
    predictions = read_frame(workspace / "reports" / "predictions.parquet")
    judged = set(predictions["id"])
    folders = [root / one for one in ("validate", "augment", "synthesize")]
    every = sum(read_manifest(one)["rows"]["in"] for one in folders if (one / MANIFEST).is_file())
    for folder in folders:
        for one in _told(folder, judged) if (folder / MANIFEST).is_file() else ():
            if len(found) >= MOST_ROWS:
                break
            row = one.pop("id")
            if found.setdefault(row, one) is not one and "o" in one:  # a copy, rejected as one
                found[row].setdefault("x", []).append([one["o"], one.get("r", "")])
    for folder in sorted((root / "pseudo_label").glob("[0-9]*")):
        labels = read(folder, ["id", "label", "weight"])
        for row, label in zip(labels["id"], labels["label"], strict=True):
            if row in found:
                found[row].setdefault("k", {})[folder.name] = label
    for row, said, shares in zip(
        predictions["id"], predictions["predicted"], predictions["probabilities"], strict=True
    ):
        if row in found:
            found[row] |= {"a": said, "y": round(float(np.max(shares)), 3)}
    return {"rows": found, "left_out": every - len(found) if len(found) >= MOST_ROWS else 0}


def _told(folder: Path, first: set[str]) -> Iterator[dict[str, Any]]:
    there = columns_of(folder)
    wanted = [one for one in (*RECORD, *FROM_VALIDATE) if one in there]
    kept = read(folder, wanted)
    kept = kept.assign(reason=None, first=~kept["id"].isin(first)).sort_values(["first", "id"], kind="stable")
    rejected = read_rejected(folder).reindex(columns=[*wanted, "reason"])
    letters = {
        "origin": "o",
        "split": "s",
        "label": "l",
        "label_source": "b",
        "suggested_label": "u",
        "original_label": "v",
    }
    for frame in (kept.head(MOST_ROWS), rejected.head(MOST_ROWS)):
        for row in frame.to_dict("records"):
            one: dict[str, Any] = {"id": row["id"], "c": folder.name}
            one |= {letter: row[name] for name, letter in letters.items() if isinstance(row.get(name), str)}
            if isinstance(row.get("text"), str):
                text = as_shown(row["text"])
                one["t"] = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
            if isinstance(row.get("fold"), int | float) and row["fold"] == row["fold"]:
                one["f"] = int(row["fold"])
            if isinstance(row.get("p_label_error"), float) and row["p_label_error"] == row["p_label_error"]:
                one["w"] = round(row["p_label_error"], 3)
            if row["parent_ids"] is not None and len(row["parent_ids"]):
                one["p"] = list(row["parent_ids"])
            if isinstance(row.get("group"), str) and row["group"] != row["id"]:
                one["g"] = row["group"]
            if isinstance(row["reason"], str):
                one["r"] = f"{row['reason']} ({folder.name})"
            yield one


def examples(workspace: Path, classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By cell, `truth-said` in class numbers, some rows of the confusion table, the surest first, as they are shown; mistakes before what is
    right, as many of each cell as there is room for.
    """
    frame = read_frame(workspace / "reports" / "predictions.parquet")
    number = {name: place for place, name in enumerate(classes)}
    frame = frame.assign(confidence=[float(np.max(one)) for one in frame["probabilities"]])
    frame = frame.sort_values(["confidence", "id"], ascending=[False, True])
    wrong = frame[frame["label"] != frame["predicted"]]
    right = frame[frame["label"] == frame["predicted"]]
    cells = wrong.groupby(["label", "predicted"], sort=False).head(OF_A_CELL).head(MOST_EXAMPLES)
    room = max(0, MOST_EXAMPLES - len(cells)) // max(1, len(classes))
    chosen = pd.concat([cells, right.groupby("label", sort=False).head(min(OF_A_CELL, room))])
    content: Mapping[str, bytes | str] = dict(payloads([workspace / "generations" / "scrape"], chosen["id"]))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in chosen.to_dict("records"):
        cell = f"{number[row['label']]}-{number[row['predicted']]}"
        told = {"id": row["id"], "sure": round(row["confidence"], 3), **shown(content[row["id"]], SIDE)}
        found.setdefault(cell, []).append(told)
    return found
