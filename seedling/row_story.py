"""`seedling why ID`: a row's whole story, from where it came to which models learned from it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.config.params import load
from seedling.dataset.generation import MANIFEST, read, read_rejected, stage_of
from seedling.errors import InputError
from seedling.files.reading import read_frame, read_json
from seedling.pipeline import row_stages
from seedling.scrape.crawl_store import CrawlStore
from seedling.terminal.console import PrintableConsole

ENOUGH = 10  # rows shown where a question fits several


def show_story(workspace: Path, asked: str) -> None:
    """Prints the story of the row, or the list of those that the question fits."""
    load(workspace)
    console = PrintableConsole()
    chapters = {stage: frame for stage, frame in _generations(workspace) if len(frame)}
    if not chapters:
        raise InputError(f"{workspace} holds no generation yet: `seedling run` makes them.")
    everything = pd.concat(chapters.values(), ignore_index=True)
    fits = everything["id"].str.startswith(asked)
    if not fits.any():
        fits = _fits(everything["origin"], asked)
    if not fits.any() and "text" in everything:
        fits = _fits(everything["text"], asked)
    own = fits & (everything["parent_ids"].map(len) == 0)  # rows that were made share their parent's origin
    found = everything.loc[own if own.any() else fits, "id"].unique().tolist()
    if not found:
        raise InputError(f"No row's id begins with '{asked}', and no row's origin or text contains it.")
    if len(found) > 1:
        console.print(f"{len(found)} rows fit; name one of them:")
        for one in found[:ENOUGH]:
            console.print(
                f"  {one}  {everything.loc[everything['id'] == one, 'origin'].iloc[0]}", highlight=False, soft_wrap=True
            )
        return
    for line in story(workspace, found[0], chapters):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _fits(column: pd.Series, asked: str) -> pd.Series:
    """The rows where the column is the question, else those where it contains it, however accents are composed and blanks are repeated."""
    names, name = column.fillna("").map(_composed), _composed(asked)
    return names == name if (names == name).any() else names.str.contains(name, regex=False)


def _composed(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _generations(workspace: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Stage → its kept and rejected rows (`reason` empty for kept ones)."""
    root = workspace / "generations"
    folders = [root / name for name in row_stages()]
    for folder in [*folders, *sorted((root / "pseudo_label").glob("[0-9]*"))]:
        if (folder / MANIFEST).is_file():
            kept = read(folder).assign(reason=None)
            yield (
                stage_of(folder),
                pd.concat([kept, read_rejected(folder).reindex(columns=kept.columns)], ignore_index=True),
            )
    quarantined = sorted((workspace / "quarantine").glob("*"))
    for folder in quarantined:
        if (folder / MANIFEST).is_file() and list(folder.glob("part-*.parquet")):
            yield f"quarantine/{folder.name}", read(folder).assign(reason="in quarantine")


def story(workspace: Path, row: str, chapters: dict[str, pd.DataFrame]) -> Iterator[str]:
    """The lines of a row's story."""
    yield f"row {row}"
    yield from _fetched(workspace, row, chapters)
    for stage, frame in chapters.items():
        for one in frame[frame["id"] == row].to_dict("records"):
            yield f"  {stage}: {_told(one)}"
    for stage, frame in chapters.items():
        children = frame[[row in parents for parents in frame["parent_ids"]]]
        if len(children):
            kept = int(children["reason"].isna().sum())
            yield f"  {stage}: {len(children)} rows were made from it, {kept} kept: {', '.join(children['id'].head(3))} …"
    yield from _gates_of(workspace, row)
    yield from _predicted(workspace, row, chapters)


def _told(one: dict[str, Any]) -> str:
    parts = []
    if isinstance(one["reason"], str):
        parts.append(f"REJECTED: {one['reason']}")
    if isinstance(one["origin"], str):
        parts.append(f"from {one['origin']}")
    parts.append(f"split {one['split']}" + ("" if pd.isna(one["fold"]) else f", fold {int(one['fold'])}"))
    if isinstance(one["label"], str):
        parts.append(
            f"label '{one['label']}' by {one['label_source']}, weight {one['weight']:g}, confidence {one['confidence']:.3f}"
        )
    if isinstance(one.get("votes"), Sequence | np.ndarray) and len(one["votes"]):
        parts.append(f"votes {', '.join(one['votes'])}")
    if len(one["parent_ids"]):
        parts.append(f"parents {', '.join(one['parent_ids'])}")
    if isinstance(one["recipe"], str):
        parts.append(f"recipe {one['recipe']}")
    if isinstance(one["group"], str) and one["group"] != one["id"]:
        parts.append(f"group {one['group']}")
    if isinstance(one.get("p_label_error"), float) and not pd.isna(one["p_label_error"]):
        parts.append(f"label wrong with probability {one['p_label_error']:.3f}, '{one['suggested_label']}' suggested")
    if isinstance(one.get("original_label"), str):
        parts.append(f"label was given as '{one['original_label']}'")
    if isinstance(one.get("quality"), Sequence | np.ndarray) and len(one["quality"]):
        parts.append(f"quality {', '.join(one['quality'])}")
    parts += [f"{name} {one[name]}" for name in ("license", "attribution") if isinstance(one[name], str)]
    return "; ".join(parts)


def _fetched(workspace: Path, row: str, chapters: dict[str, pd.DataFrame]) -> Iterator[str]:
    """When it was last asked for on the web."""
    frame = chapters.get("scrape")
    origins = [] if frame is None else frame.loc[frame["id"] == row, "origin"].dropna().tolist()
    for path in sorted((workspace / ".seedling" / "web").glob("*.sqlite")):
        with CrawlStore(path) as store:
            for origin in origins:
                asked = store.fetched(origin) or store.fetched(origin.partition("#")[0])
                if asked is not None:
                    yield f"  fetched {datetime.fromtimestamp(asked, UTC).isoformat(timespec='seconds')} ({path.stem})"


def _gates_of(workspace: Path, row: str) -> Iterator[str]:

    for path in sorted(workspace.glob("**/gate.json")):
        for check in read_json(path):
            if row in check["rows"]:
                yield f"  gate of {path.parent.relative_to(workspace)}: not met: {check['expectation']} ({check['observed']})"


def _predicted(workspace: Path, row: str, chapters: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Which models learned from it, and what was predicted for it by models that did not."""
    for model in sorted((workspace / "models").glob("[0-9]*")):
        path = model / "out_of_fold.parquet"
        if not path.is_file():
            continue
        frame = read_frame(path)
        for one in frame[frame["id"] == row].to_dict("records"):
            learned = (
                "held out from all models"
                if pd.isna(one["fold"])
                else f"all models but fold {int(one['fold'])}'s learned from it"
            )
            yield f"  models/{model.name}: {learned}; the others give '{one['label']}' {_chance(one, frame):.3f}"
        pseudo = chapters.get(f"pseudo_label@{model.name}")
        used = pseudo is not None and bool(
            ((pseudo["id"] == row) & (pseudo["weight"] > 0) & pseudo["reason"].isna()).any()
        )
        if used:
            yield f"  models/{model.name}: learned from its pseudo-label"
    path = workspace / "reports" / "predictions.parquet"
    if path.is_file():
        frame = read_frame(path)
        for one in frame[frame["id"] == row].to_dict("records"):
            yield f"  evaluate: label '{one['label']}', predicted '{one['predicted']}' by models/{one['round']}"


def _chance(one: dict[str, Any], frame: pd.DataFrame) -> float:
    """The out-of-fold probability of the row's own label; the classes are the sorted labels."""
    classes = sorted(frame["label"].unique())
    return float(one["probabilities"][classes.index(one["label"])])
