"""The rows that a stage's gate sees: its generation without pictures, and the columns that gates ask for beyond it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks import images, signals
from tasks.generation import MANIFEST, columns_of, payloads, read, stream

NEEDED = ("id", "split", "label", "group")  # what the columns of leaks, shares and comparisons are made from
LISTS = ("parents", "label_probs", "lineage_labels", "lineage_weights", "health")
OF_LABELS = ("class_share", "rows_a_parent")
RELATIVE = ("rows_change", "class_share_change", "label_flipped", "drift_p_value")
"""Columns that compare with the generation that stands, the last one that passed: they say nothing where there is none."""


def gated_rows(
    stage: str,
    folder: Path,
    *,
    validated: Path | None = None,
    collected: Path | None = None,
    last: Path | None = None,
    wanted: Collection[str] = (),
    everything: bool = True,
    max_megapixels: float = 64.0,
) -> pd.DataFrame:
    """The rows of the stage in `folder`.

    validated: None for scrape and validate, which come before it; collected: where payloads lie that the generation does not
    hold; last: what was remembered of the generation that this one would follow (`remembered`), or that generation; wanted: the columns
    that the gate names; everything: whether all that the generation has is wanted too, or only what those are made from is read.
    What takes time is made only where it is named.
    """
    kind = stage.partition("@")[0]
    if kind in {"train", "evaluate"}:
        return _predictions(kind, folder)
    named = set(wanted)
    drift = "drift_p_value" in named
    frame = _measured(
        folder, collected, named, everything=drift, only=None if everything else named, max_megapixels=max_megapixels
    )
    if kind != "scrape":
        _add_leaks(frame, kind, folder if validated is None else validated)
    if "class_share" in named:
        frame["class_share"] = class_shares(frame)
    if "rows_a_parent" in named:
        first = frame["parents"].map(lambda parents: parents[0] if len(parents) else None)
        frame["rows_a_parent"] = first.map(first.value_counts()).fillna(0)
    if named & set(RELATIVE):
        before = None if last is None else before_of(last, drift=drift)
        for name in sorted(named & set(RELATIVE)):
            frame[name] = COMPARED[name](frame, before)
    unseen = {*LISTS} if everything else {*frame.columns} - {"id", *named}
    return frame.drop(columns=[name for name in frame if name in unseen])


def before_of(last: Path, *, drift: bool) -> pd.DataFrame | None:
    """What stood before: what was remembered, or else the generation with what it holds itself; None where there is neither.

    drift: whether texts are to be measured; pictures are not, as those of that time may be gone.
    """
    if last.is_file():
        return pd.read_parquet(last)
    if not (last / MANIFEST).is_file():
        return None
    return _measured(last, None, set(), everything=drift and "text" in columns_of(last), only=None)


def remembered(folder: Path, collected: Path | None, wanted: Collection[str]) -> pd.DataFrame | None:
    """What a later generation is compared with, of one that passed: labels and what was measured; None where the gate compares
    nothing. It outlives the generation, which `dvc repro` takes away before it makes the next.
    """
    if not {*wanted} & set(RELATIVE):
        return None
    frame = _measured(folder, collected, set(), everything="drift_p_value" in wanted, only=set())
    return frame[
        [name for name in frame if name in {"id", "label", "nearest_labelled", *signals.PICTURE, *signals.TEXT}]
    ]


def _predictions(kind: str, folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / ("out_of_fold.parquet" if kind == "train" else "predictions.parquet"))
    chances = np.stack(frame["probabilities"].to_numpy()) if len(frame) else np.zeros((0, 1))
    best = chances.max(axis=1) if len(frame) else []
    frame = frame.drop(columns="probabilities").assign(confidence=best)
    if kind == "evaluate":
        frame["right"] = (frame["label"] == frame["predicted"]).astype(float) if len(frame) else []
    return frame


def _add_leaks(frame: pd.DataFrame, kind: str, where_held_out: Path) -> None:
    held_out = read(where_held_out, ["id", "split", "group"], splits=["test", "validation"])
    if kind == "validate":
        where = frame["group"].map(held_out.drop_duplicates("group").set_index("group")["split"])
        frame["near_duplicate_held_out_elsewhere"] = where.notna() & (where != frame["split"])
        return
    kept_out = set(held_out["id"])
    frame["made_from_held_out_row"] = [
        one in kept_out or any(parent in kept_out for parent in parents)
        for one, parents in zip(frame["id"], frame["parents"], strict=True)
    ]


def _measured(
    folder: Path,
    collected: Path | None,
    wanted: set[str],
    *,
    everything: bool,
    only: set[str] | None,
    max_megapixels: float = 64.0,
) -> pd.DataFrame:
    """The generation, with what can be measured in each row where that is wanted and is not in it: payloads are its own, or
    else those collected. only: the columns that are read beside `NEEDED`; None: all.
    """
    there = columns_of(folder)
    of_texts = {"text"} if only is not None and (everything or only & {*signals.TEXT, "text"}) else set()
    measures = {*signals.PICTURE, *signals.TEXT, "nearest_labelled"} if everything else set()
    of_parents = {"parents"} if only is not None and only & {"made_from_held_out_row", "rows_a_parent"} else set()
    beside = {*NEEDED, *of_texts, *of_parents, *measures}
    chosen = None if only is None else [name for name in there if name in beside | only]
    frame = read(folder, chosen)
    if "text" in frame:
        frame["characters"] = frame["text"].str.len()
        frame["words"] = frame["text"].str.split().str.len()
    measured = signals.TEXT if "text" in there else signals.PICTURE
    missing = set(measured) - set(frame.columns)
    if not (missing & set(wanted) or (everything and missing)):
        return frame
    if "text" in frame:
        found = dict(zip(frame["id"], map(signals.of_text, frame["text"]), strict=True))
    else:
        holds = any(row.payload is not None for row in stream(folder))
        pictures = payloads([folder if holds or collected is None else collected], set(frame["id"]))
        found = {one: _of_picture(bytes(payload), max_megapixels) for one, payload in pictures}  # type: ignore[arg-type]
    values = pd.DataFrame([found[one] for one in frame["id"]], index=frame.index, columns=list(measured))
    return pd.concat([frame.drop(columns=[name for name in measured if name in frame]), values], axis=1)


def _of_picture(encoded: bytes, max_megapixels: float) -> dict[str, float]:
    """Nothing of a file that is no picture: scrape passes it on, and validate says why it cannot be used."""
    try:
        return signals.of_picture(images.decode(encoded, max_megapixels))
    except images.Undecodable:
        return {}


def class_shares(frame: pd.DataFrame) -> Any:
    """Of each row the share that its label has among the labelled rows; NaN of unlabelled ones."""
    return frame["label"].map(frame["label"].value_counts(normalize=True)).astype(float)


def _rows_change(frame: pd.DataFrame, before: pd.DataFrame | None) -> Any:
    return 1.0 if before is None or before.empty else len(frame) / len(before)


def _class_share_change(frame: pd.DataFrame, before: pd.DataFrame | None) -> Any:
    if before is None:
        return 0.0
    shares = before["label"].value_counts(normalize=True)
    return (class_shares(frame) - frame["label"].map(shares).fillna(0.0).astype(float)).abs().fillna(0.0)


def _label_flipped(frame: pd.DataFrame, before: pd.DataFrame | None) -> Any:
    if before is None:
        return False
    known = frame["id"].map(before.drop_duplicates("id").set_index("id")["label"])
    return known.notna() & frame["label"].notna() & (known != frame["label"])


def _drift_p_value(frame: pd.DataFrame, before: pd.DataFrame | None) -> Any:
    """The smallest p-value of a two-sample Kolmogorov-Smirnov test over the numbers that were measured, times how many
    there are (Bonferroni): without drift it is below a limit with at most that probability.
    """
    from scipy.stats import ks_2samp

    names = [*signals.PICTURE, *signals.TEXT, "nearest_labelled"]
    numbers = [
        name
        for name in names
        if before is not None and name in frame and name in before and pd.api.types.is_numeric_dtype(frame[name])
    ]
    pairs = [(frame[name].dropna(), before[name].dropna()) for name in numbers] if before is not None else []
    found = [float(ks_2samp(now, then).pvalue) for now, then in pairs if len(now) and len(then)]
    return min(1.0, min(found) * len(found)) if found else 1.0


COMPARED: dict[str, Callable[[pd.DataFrame, pd.DataFrame | None], Any]] = {
    "rows_change": _rows_change,
    "class_share_change": _class_share_change,
    "label_flipped": _label_flipped,
    "drift_p_value": _drift_p_value,
}


def offered(stage: str, folder: Path) -> list[str]:
    """The columns that the stage's gate may name beyond those that were read."""
    if not (folder / MANIFEST).is_file() or stage.partition("@")[0] in {"train", "evaluate"}:
        return []
    there = columns_of(folder)
    measured = signals.TEXT if "text" in there else signals.PICTURE
    return [*(name for name in there if name not in LISTS), *measured, *OF_LABELS, *RELATIVE]
