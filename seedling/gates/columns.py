"""What a stage's gate sees: the columns of its generation, and those that are made where a gate names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from seedling.dataset.generation import MANIFEST, columns_of, payloads, stream
from seedling.files.reading import read_frame
from seedling.gates.on_disk import GatedRows, Stored, database, marked
from seedling.media import images
from seedling.media import quality_metrics as signals

LISTS = ("parent_ids", "label_probs", "pseudo_label_by_fold", "pseudo_weight_by_fold", "quality")
OF_LABELS = ("class_share", "rows_per_parent")
RELATIVE = ("rows_change", "class_share_change", "label_flipped", "drift_p_value")
"""Columns that compare with the generation that stands, the last one that passed: they say nothing where there is none."""
OF_SAME_IDS = {"train", "evaluate", "pseudo_label"}  # stages whose rows are validate's
MEASURED = (*signals.IMAGE, *signals.TEXT, "nearest_labeled")

NEAR_HELD_OUT = """
    SELECT place FROM rows JOIN (
        SELECT "group", first(split ORDER BY place) AS held FROM rows WHERE split IN ('test', 'validation') GROUP BY "group"
    ) USING ("group")
    WHERE split IS DISTINCT FROM held
"""
MADE_FROM_HELD_OUT = """
    SELECT DISTINCT place
    FROM (SELECT place, id AS one FROM rows UNION ALL SELECT place, unnest(parent_ids) AS one FROM rows)
    WHERE one IN (SELECT id FROM validated WHERE split IN ('test', 'validation'))
"""
CHILDREN = "SELECT count(parent_ids[1]) OVER (PARTITION BY parent_ids[1]) AS many FROM rows ORDER BY place"
FLIPPED = """
    SELECT place FROM rows JOIN (SELECT id, first(label ORDER BY place) AS known FROM before GROUP BY id) USING (id)
    WHERE label <> known
"""


@dataclass(frozen=True)
class Made:
    """A generation, and where lies what its further columns are made from.

    validated: None for scrape and validate, which come before it; collected: where payloads lie that the generation does not
    hold; last: the generation that this one would follow; memory: what was remembered of one that passed (`remember`), for where
    it no longer stands.
    """

    folder: Path
    validated: Path | None = None
    collected: Path | None = None
    last: Path | None = None
    memory: Path | None = None
    max_megapixels: float = 64.0

    @cached_property
    def rows(self) -> GatedRows:
        """Its rows, with what it holds itself."""
        stored = Stored.generation(self.folder)
        return GatedRows(stored, tuple(columns_of(self.folder)), pd.DataFrame(index=pd.RangeIndex(sum(stored.counts))))

    @cached_property
    def before(self) -> GatedRows | None:
        """What stood before: the generation itself, but for images that it has no measures of and memory has; None where there is neither."""
        standing = Made(self.last).rows if self.last is not None and (self.last / MANIFEST).is_file() else None
        if self.memory is None or not self.memory.is_file():
            return standing
        stored = Stored.file(self.memory)
        known = GatedRows(stored, tuple(stored.schema.names), pd.DataFrame(index=pd.RangeIndex(sum(stored.counts))))
        if standing is None:
            return known
        measured = [{*MEASURED} & {*one.columns} for one in (known, standing)]
        blind = "text" not in standing.columns and len(measured[0]) > len(measured[1])
        return known if blind and len(known) == len(standing) else standing

    def leaks(self) -> Any:
        """validate: whether the group of near-duplicates has a held-out row in another split; the first one's split counts. Else:
        whether the row, or one that it was made from, is held out.
        """
        if self.validated is None:
            with database(rows=self.rows.stored) as base:
                return marked(base, NEAR_HELD_OUT, len(self.rows))
        with database(rows=self.rows.stored, validated=Stored.generation(self.validated)) as base:
            return marked(base, MADE_FROM_HELD_OUT, len(self.rows))

    def class_share(self) -> Any:
        """Of each row the share that its label has among the labeled rows; NaN of unlabeled ones."""
        labels = self.rows.read(["label"])["label"]
        return labels.map(labels.value_counts(normalize=True)).astype(float)

    def rows_per_parent(self) -> Any:
        """How many rows have the same first parent; 0 of rows without one."""
        with database(rows=self.rows.stored) as base:
            return base.execute(CHILDREN).fetchnumpy()["many"].astype(float)

    def rows_change(self) -> Any:
        """How many rows there are, over how many there were."""
        return 1.0 if self.before is None or not len(self.before) else len(self.rows) / len(self.before)

    def class_share_change(self) -> Any:
        """How far the share of each row's label has moved."""
        if self.before is None:
            return 0.0
        labels = self.rows.read(["label"])["label"]
        then = labels.map(self.before.read(["label"])["label"].value_counts(normalize=True)).fillna(0.0)
        return (labels.map(labels.value_counts(normalize=True)).astype(float) - then.astype(float)).abs().fillna(0.0)

    def label_flipped(self) -> Any:
        """Whether a row had another label; False where it had none or has none now."""
        if self.before is None:
            return False
        with database(rows=self.rows.stored, before=self.before.stored) as base:
            return marked(base, FLIPPED, len(self.rows))

    def drift_p_value(self, measured: GatedRows) -> float:
        """The smallest p-value of a two-sample Kolmogorov-Smirnov test over the numbers that were measured, times how many
        there are (Bonferroni): without drift it is below a limit with at most that probability.
        """
        from scipy.stats import ks_2samp

        before = self.before
        if before is not None and self.last is not None and "text" in before.columns:
            before = with_measures(Made(self.last), {*signals.TEXT})
        if before is None:
            return 1.0
        kinds = [
            {name: one.empty[name].dtype for name in MEASURED if name in one.columns} for one in (measured, before)
        ]
        numbers = [name for name in kinds[0] if all(name in one and is_numeric_dtype(one[name]) for one in kinds)]
        pairs = [[one.read([name])[name].dropna() for one in (measured, before)] for name in numbers]
        found = [float(ks_2samp(now, then).pvalue) for now, then in pairs if len(now) and len(then)]
        return min(1.0, min(found) * len(found)) if found else 1.0


def gated_rows(
    stage: str,
    folder: Path,
    *,
    validated: Path | None = None,
    collected: Path | None = None,
    last: Path | None = None,
    memory: Path | None = None,
    wanted: Collection[str] = (),
    max_megapixels: float = 64.0,
) -> GatedRows:
    """The rows of the stage in `folder`, with the columns of `wanted`, which the gate names, that are to be made."""
    kind = stage.partition("@")[0]
    if kind in {"train", "evaluate"}:
        rows = GatedRows.of(_predictions(kind, folder))
        return rows if validated is None else _with_validated(rows, validated, wanted)
    made = Made(folder, validated, collected, last, memory, max_megapixels)
    drift = "drift_p_value" in wanted
    rows = with_measures(made, {*MEASURED} if drift else {*wanted})
    columns: dict[str, Any] = {}
    if kind != "scrape":
        columns["near_duplicate_held_out_elsewhere" if validated is None else "made_from_held_out_row"] = made.leaks()
    for name, make in _makers(made, rows).items():
        if name in wanted:
            columns[name] = make()
    frame = pd.concat([rows.made, pd.DataFrame(columns, index=rows.made.index)], axis=1)
    rows = replace(rows, shown=tuple(name for name in rows.shown if name not in LISTS), made=frame)
    return _with_validated(rows, validated, wanted) if validated is not None and kind in OF_SAME_IDS else rows


def _with_validated(rows: GatedRows, validated: Path, wanted: Collection[str]) -> GatedRows:
    """The rows, with those columns of `wanted` that they have not themselves, as validate has them of the same ids; NaN of ids that
    it has not.
    """
    known = [
        name for name in columns_of(validated) if name not in LISTS and name in wanted and name not in rows.columns
    ]
    if not known:
        return rows
    sources = {"validated": Stored.generation(validated)} | ({"rows": rows.stored} if rows.stored.files else {})
    with database(**sources) as base:
        if not rows.stored.files:
            base.register("rows", rows.made[["id"]].assign(place=rows.made.index))
        found = base.table("validated").project(", ".join(f'"{name}"' for name in ("id", *known)))
        values = found.join(base.table("rows").project("id, place"), "id").df().set_index("place")[known]
    return replace(rows, made=pd.concat([rows.made, values.reindex(rows.made.index)], axis=1))


def _makers(made: Made, rows: GatedRows) -> Mapping[str, Callable[[], Any]]:
    return {
        "class_share": made.class_share,
        "rows_per_parent": made.rows_per_parent,
        "rows_change": made.rows_change,
        "class_share_change": made.class_share_change,
        "label_flipped": made.label_flipped,
        "drift_p_value": lambda: made.drift_p_value(rows),
    }


def remember(rows: GatedRows, wanted: Collection[str], path: Path) -> None:
    """Writes what a later generation is compared with: labels, and what was measured where drift is asked for; nothing where the gate
    compares nothing. It outlives the generation, which `dvc repro` takes away before it makes the next.
    """
    if {*wanted} & {*RELATIVE}:
        kept = {"id", "label", *(MEASURED if "drift_p_value" in wanted else ())}
        rows.write([name for name in rows.columns if name in kept], path)


def _predictions(kind: str, folder: Path) -> pd.DataFrame:
    frame = read_frame(folder / ("out_of_fold.parquet" if kind == "train" else "predictions.parquet"))
    chances = np.stack(frame["probabilities"].to_numpy()) if len(frame) else np.zeros((0, 1))
    best = chances.max(axis=1) if len(frame) else []
    frame = frame.drop(columns="probabilities").assign(confidence=best)
    if kind == "evaluate":
        frame["correct"] = (frame["label"] == frame["predicted"]).astype(float) if len(frame) else []
    return frame


def with_measures(made: Made, wanted: Collection[str]) -> GatedRows:
    """The rows, with those numbers of `wanted` that can be measured in them and that the generation does not hold: payloads are
    its own, or else those collected.
    """
    rows = made.rows
    measures = signals.TEXT if "text" in rows.columns else signals.IMAGE
    missing = [name for name in measures if name in wanted and name not in rows.columns]
    if not missing:
        return rows
    if "text" in rows.columns:
        found: dict[str, list[Any]] = {name: [] for name in missing}
        measure = signals.lengths if {*missing} <= {"characters", "words"} else signals.of_text
        for part in rows.parts(["text"]):
            for text in part["text"]:
                said = measure(text)
                for name in missing:
                    found[name].append(said[name])
        return replace(rows, made=pd.DataFrame(found, index=rows.made.index))
    holds = any(row.payload is not None for row in stream(made.folder))
    ids = rows.read(["id"])["id"]
    where = made.folder if holds or made.collected is None else made.collected
    image_arrays = dict(_of_images(payloads([where], set(ids)), made.max_megapixels))
    values = pd.DataFrame([image_arrays[one] for one in ids], index=rows.made.index, columns=missing)
    return replace(rows, made=values)


def _of_images(
    encoded: Iterable[tuple[str, bytes | str]], max_megapixels: float
) -> Iterable[tuple[str, dict[str, float]]]:
    """Nothing of a file that is no image: scrape passes it on, and validate says why it cannot be used."""
    for one, payload in encoded:
        try:
            yield one, signals.of_image(images.decode(bytes(payload), max_megapixels))  # type: ignore[arg-type]
        except images.Undecodable:
            yield one, {}


def offered(stage: str, folder: Path, validated: Path | None) -> list[str]:
    """The columns that the stage's gate may name beyond those that were read."""
    same = stage.partition("@")[0] in OF_SAME_IDS
    known = [name for name in columns_of(validated) if name not in LISTS] if validated is not None and same else []
    if not (folder / MANIFEST).is_file() or stage.partition("@")[0] in {"train", "evaluate"}:
        return known
    there = columns_of(folder)
    measured = signals.TEXT if "text" in there else signals.IMAGE
    own = [name for name in there if name not in LISTS]
    return list(dict.fromkeys([*own, *measured, *OF_LABELS, *RELATIVE, *known]))
