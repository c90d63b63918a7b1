"""`seedling why ID`: prints the history of a row, from its origin to the models that were trained on it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.config.params import load
from seedling.dataset.generation import read, read_rejected, stage_of
from seedling.errors import InputError
from seedling.files.reading import read_frame, row_dicts
from seedling.models.model import read_record
from seedling.pipeline import row_stages
from seedling.records.gate import GateResult
from seedling.scrape.crawl_store import CrawlStore
from seedling.terminal.console import PrintableConsole
from seedling.workspace import CRAWL_STORES, GATE, MANIFEST, OUT_OF_FOLD, PARTS, QUARANTINE, Workspace

MAX_LISTED_ROWS = 10
MIN_P_LABEL_ERROR = 0.0005  # is not rounded to 0.000


def show_story(workspace: Path, query: str) -> None:
    """Prints the history of the row that matches the query, or the list of matches if there are several."""
    load(workspace)
    console = PrintableConsole()
    frames = {stage: frame for stage, frame in _generations(workspace) if len(frame)}
    if not frames:
        raise InputError(f"{workspace} contains no rows yet: run `seedling run` first.")
    rows = pd.concat(frames.values(), ignore_index=True)
    matches = rows["id"].str.startswith(query)
    if not matches.any():
        matches = _matches(rows["origin"], query)
    if not matches.any() and "text" in rows:
        matches = _matches(rows["text"], query)
    collected = matches & (rows["parent_ids"].map(len) == 0)  # augmented rows share the origin of their parent
    ids = rows.loc[collected if collected.any() else matches, "id"].unique().tolist()
    if not ids:
        raise InputError(f"No row has an id that starts with '{query}', or an origin or text that contains it.")
    if len(ids) > 1:
        console.print(f"{len(ids)} rows match; name one of them:")
        for row_id in ids[:MAX_LISTED_ROWS]:
            origin = rows.loc[rows["id"] == row_id, "origin"].iloc[0]
            console.print(f"  {row_id}  {origin}", highlight=False, soft_wrap=True)
        return
    for line in story(workspace, ids[0], frames):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _matches(column: pd.Series, query: str) -> pd.Series:
    """The rows whose value equals the query, or, if there are none, contains it.

    Composed and decomposed accents are the same, and so are one and several blanks.
    """
    values, normalized = column.fillna("").map(_normalized), _normalized(query)
    return values == normalized if (values == normalized).any() else values.str.contains(normalized, regex=False)


def _normalized(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _generations(workspace: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Stage and its kept and rejected rows (`reason` is empty for kept ones)."""
    root = Workspace(workspace).generations
    folders = [root / name for name in row_stages()]
    for folder in [*folders, *sorted((root / "pseudo_label").glob("[0-9]*"))]:
        if (folder / MANIFEST).is_file():
            kept = read(folder).assign(reason=None)
            yield (
                stage_of(folder),
                pd.concat([kept, read_rejected(folder).reindex(columns=kept.columns)], ignore_index=True),
            )
    for folder in sorted(Workspace(workspace).quarantine.glob("*")):
        if (folder / MANIFEST).is_file() and list(folder.glob(PARTS)):
            yield f"{QUARANTINE}/{folder.name}", read(folder).assign(reason="in quarantine")


def story(workspace: Path, row_id: str, frames: dict[str, pd.DataFrame]) -> Iterator[str]:
    """The lines of a row's history. frames: kept and rejected rows by stage."""
    yield f"row {row_id}"
    yield from _fetched(workspace, row_id, frames)
    for stage, frame in frames.items():
        for record in row_dicts(frame[frame["id"] == row_id]):
            yield f"  {stage}: {_describe(record)}"
    for stage, frame in frames.items():
        derived = frame[[row_id in parents for parents in frame["parent_ids"]]]
        if len(derived):
            kept = int(derived["reason"].isna().sum())
            examples = ", ".join(derived["id"].head(3))
            yield f"  {stage}: {len(derived)} rows were made from it, {kept} kept: {examples} …"
    yield from _failed_checks(workspace, row_id)
    yield from _models(workspace, row_id, frames)


def _describe(record: dict[str, Any]) -> str:
    parts = []
    if isinstance(record["reason"], str):
        parts.append(f"REJECTED: {record['reason']}")
    if isinstance(record["origin"], str):
        parts.append(f"from {record['origin']}")
    parts.append(f"split {record['split']}" + ("" if pd.isna(record["fold"]) else f", fold {int(record['fold'])}"))
    if isinstance(record["label"], str):
        label = f"label '{record['label']}' by {record['label_source']}"
        parts.append(f"{label}, weight {record['weight']:g}, confidence {record['confidence']:.3f}")
    if isinstance(record.get("votes"), Sequence | np.ndarray) and len(record["votes"]):
        parts.append(f"votes {', '.join(record['votes'])}")
    if len(record["parent_ids"]):
        parts.append(f"parents {', '.join(record['parent_ids'])}")
    if isinstance(record["recipe"], str):
        parts.append(f"recipe {record['recipe']}")
    if isinstance(record["group"], str) and record["group"] != record["id"]:
        parts.append(f"group {record['group']}")
    parts += _describe_quality(record)
    parts += [f"{name} {record[name]}" for name in ("license", "attribution") if isinstance(record[name], str)]
    return "; ".join(parts)


def _describe_quality(record: dict[str, Any]) -> Iterator[str]:
    """What validate measured: the probability of a label error, the original label and quality flags."""
    p_label_error = record.get("p_label_error")
    if isinstance(p_label_error, float) and not pd.isna(p_label_error) and p_label_error >= MIN_P_LABEL_ERROR:
        suggested = f", suggested label '{record['suggested_label']}'"
        yield f"label error with probability {p_label_error:.3f}{suggested}"
    if isinstance(record.get("original_label"), str):
        yield f"original label '{record['original_label']}'"
    if isinstance(record.get("quality"), Sequence | np.ndarray) and len(record["quality"]):
        yield f"quality {', '.join(record['quality'])}"


def _fetched(workspace: Path, row_id: str, frames: dict[str, pd.DataFrame]) -> Iterator[str]:
    """When the row was last fetched from the web."""
    frame = frames.get("scrape")
    origins = [] if frame is None else frame.loc[frame["id"] == row_id, "origin"].dropna().tolist()
    for path in sorted(Workspace(workspace).crawl_stores.glob(CRAWL_STORES)):
        with CrawlStore(path) as store:
            for origin in origins:
                fetched = store.fetched(origin) or store.fetched(origin.partition("#")[0])
                if fetched is not None:
                    time = datetime.fromtimestamp(fetched, UTC).isoformat(timespec="seconds")
                    yield f"  fetched {time} ({path.stem})"


def _failed_checks(workspace: Path, row_id: str) -> Iterator[str]:
    """The checks of quality gates that list the row."""
    for path in sorted(workspace.glob(f"**/{GATE}")):
        for check in GateResult.read(path).checks:
            if row_id in check.rows:
                stage = path.parent.relative_to(workspace)
                yield f"  gate of {stage}: failed: {check.expectation} ({check.observed})"


def _models(workspace: Path, row_id: str, frames: dict[str, pd.DataFrame]) -> Iterator[str]:
    """The models that were trained on the row, and the predictions of the others."""
    for model in sorted(Workspace(workspace).models.glob("[0-9]*")):
        path = model / OUT_OF_FOLD
        if not path.is_file():
            continue
        frame = read_frame(path)
        for record in row_dicts(frame[frame["id"] == row_id]):
            yield f"  models/{model.name}: {_out_of_fold_sentence(record, read_record(model).classes)}"
        pseudo_labeled = frames.get(f"pseudo_label@{model.name}")
        if pseudo_labeled is not None:
            is_used = (pseudo_labeled["weight"] > 0) & pseudo_labeled["reason"].isna()
            if bool(((pseudo_labeled["id"] == row_id) & is_used).any()):
                yield f"  models/{model.name}: learned from its pseudo-label"
    path = Workspace(workspace).predictions_file
    if path.is_file():
        frame = read_frame(path)
        for record in row_dicts(frame[frame["id"] == row_id]):
            predicted = f"predicted '{record['predicted']}' by models/{record['round']}"
            yield f"  evaluate: label '{record['label']}', {predicted}"


def _out_of_fold_sentence(record: dict[str, Any], classes: Sequence[str]) -> str:
    """Which models were trained on the row, and the probability that the others give its label.

    record: from out_of_fold.parquet; classes: of the model, in the order of its probabilities.
    """
    label = record["label"]
    if record["split"] == "train" and pd.isna(record["fold"]):
        # The file holds the row's own label in place of a prediction: it is no evidence about the label.
        return (
            f"all models learned from it, so none gives '{label}' an out-of-fold probability: the class '{label}' has "
            "no labeled row outside its group of near-duplicates"
        )
    learned = (
        "held out from all models"
        if pd.isna(record["fold"])
        else f"all models but fold {int(record['fold'])}'s learned from it"
    )
    if label not in classes:
        return f"{learned}; they have no class '{label}', so none gives it a probability"
    return f"{learned}; the others give '{label}' {record['probabilities'][classes.index(label)]:.3f}"
