"""The columns that a stage's gate sees: those of its generation, and those that are computed if a gate names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from seedling.dataset.generation import columns_of, has_payloads, payloads
from seedling.features.image_cache import ImageCache
from seedling.files.reading import read_frame
from seedling.gates.on_disk import GatedRows, StoredRows, database, rows_selected
from seedling.media import images
from seedling.media import quality_metrics as metrics
from seedling.records.gate import RELATIVE
from seedling.workspace import MANIFEST, OUT_OF_FOLD, PREDICTIONS

LISTS = ("parent_ids", "label_probs", "pseudo_label_by_fold", "pseudo_weight_by_fold", "quality")
LABEL_COLUMNS = ("class_share", "rows_per_parent")
PREDICTION_STAGES = {"train", "evaluate"}
STAGES_WITH_SAME_IDS = {"train", "evaluate", "pseudo_label"}  # their rows have the ids of validate's
METRICS = (*metrics.IMAGE, *metrics.TEXT, "nearest_labeled")

NEAR_HELD_OUT = """
    SELECT row_index FROM rows JOIN (
        SELECT "group", first(split ORDER BY row_index) AS held_out FROM rows
        WHERE split IN ('test', 'validation') GROUP BY "group"
    ) USING ("group")
    WHERE split IS DISTINCT FROM held_out
"""
MADE_FROM_HELD_OUT = """
    SELECT DISTINCT row_index FROM (
        SELECT row_index, id AS origin_id FROM rows
        UNION ALL SELECT row_index, unnest(parent_ids) AS origin_id FROM rows
    )
    WHERE origin_id IN (SELECT id FROM validated WHERE split IN ('test', 'validation'))
"""
ROWS_PER_PARENT = (
    "SELECT count(parent_ids[1]) OVER (PARTITION BY parent_ids[1]) AS row_count FROM rows ORDER BY row_index"
)
LABEL_FLIPPED = """
    SELECT row_index FROM rows
    JOIN (SELECT id, first(label ORDER BY row_index) AS old_label FROM previous GROUP BY id) USING (id)
    WHERE label <> old_label
"""


@dataclass(frozen=True)
class GateInput:
    """A generation, and the files from which its computed columns are made.

    validated: validate's generation, None for scrape and validate; collected: the generation with the payloads that
    this one does not hold; last: the generation that this one replaces; memory: what `save_for_comparison` wrote for
    the last generation that passed, used if that generation is no longer on disk; feature_cache: the folder with what
    scrape measured on each image, None to measure all images.
    """

    folder: Path
    validated: Path | None = None
    collected: Path | None = None
    last: Path | None = None
    memory: Path | None = None
    max_megapixels: float = 64.0
    feature_cache: Path | None = None

    @cached_property
    def rows(self) -> GatedRows:
        """The rows with the columns of the generation."""
        return _stored_rows(StoredRows.generation(self.folder), tuple(columns_of(self.folder)))

    @cached_property
    def before(self) -> GatedRows | None:
        """The previous generation's rows, from disk or from `memory`; None if there is neither.

        A generation of images on disk may lack metrics that `memory` has. Then `memory` is used if it has as many rows.
        """
        on_disk = GateInput(self.last).rows if self.last is not None and (self.last / MANIFEST).is_file() else None
        if self.memory is None or not self.memory.is_file():
            return on_disk
        stored = StoredRows.file(self.memory)
        saved = _stored_rows(stored, tuple(stored.schema.names))
        if on_disk is None:
            return saved
        saved_metrics, metrics_on_disk = ({*METRICS} & {*rows.columns} for rows in (saved, on_disk))
        lacks_metrics = "text" not in on_disk.columns and len(saved_metrics) > len(metrics_on_disk)
        return saved if lacks_metrics and len(saved) == len(on_disk) else on_disk

    def leaks(self) -> Any:
        """(n_rows,): whether a row leaks held-out information.

        For validate: whether its near-duplicate group has a held-out row in another split than the row; the group's
        first held-out row defines that split. For later stages: whether the row, or one of its parents, is held out.
        """
        if self.validated is None:
            with database(rows=self.rows.stored) as connection:
                return rows_selected(connection, NEAR_HELD_OUT, len(self.rows))
        with database(rows=self.rows.stored, validated=StoredRows.generation(self.validated)) as connection:
            return rows_selected(connection, MADE_FROM_HELD_OUT, len(self.rows))

    def class_share(self) -> Any:
        """(n_rows,): the share of labeled rows with the row's label; NaN for unlabeled rows."""
        labels = self.rows.read(["label"])["label"]
        return labels.map(labels.value_counts(normalize=True)).astype(float)

    def rows_per_parent(self) -> Any:
        """(n_rows,): the number of rows with the same first parent; 0 for rows without a parent."""
        with database(rows=self.rows.stored) as connection:
            return connection.execute(ROWS_PER_PARENT).fetchnumpy()["row_count"].astype(float)

    def rows_change(self) -> Any:
        """The number of rows divided by the number in the previous generation."""
        return 1.0 if self.before is None or not len(self.before) else len(self.rows) / len(self.before)

    def class_share_change(self) -> Any:
        """(n_rows,): the absolute change in the share of the row's label."""
        if self.before is None:
            return 0.0
        labels = self.rows.read(["label"])["label"]
        old_shares = self.before.read(["label"])["label"].value_counts(normalize=True)
        old = labels.map(old_shares).fillna(0.0).astype(float)
        return (labels.map(labels.value_counts(normalize=True)).astype(float) - old).abs().fillna(0.0)

    def label_flipped(self) -> Any:
        """(n_rows,): whether the label has changed; False if the row had no label or has none now."""
        if self.before is None:
            return False
        with database(rows=self.rows.stored, previous=self.before.stored) as connection:
            return rows_selected(connection, LABEL_FLIPPED, len(self.rows))

    def drift_p_value(self, measured: GatedRows) -> float:
        """The smallest p-value of two-sample Kolmogorov-Smirnov tests, one per metric, with Bonferroni's correction.

        It is min(1, m min_j p_j) for m metrics: without drift, it is below a limit with at most that probability.
        """
        from scipy.stats import ks_2samp

        before = self.before
        if before is not None and self.last is not None and "text" in before.columns:
            before = with_metrics(GateInput(self.last), {*metrics.TEXT})
        if before is None:
            return 1.0
        dtypes, old_dtypes = (
            {name: rows.empty[name].dtype for name in METRICS if name in rows.columns} for rows in (measured, before)
        )
        numeric = [
            name
            for name, dtype in dtypes.items()
            if is_numeric_dtype(dtype) and name in old_dtypes and is_numeric_dtype(old_dtypes[name])
        ]
        pairs = [[rows.read([name])[name].dropna() for rows in (measured, before)] for name in numeric]
        p_values = [float(ks_2samp(new, old).pvalue) for new, old in pairs if len(new) and len(old)]
        return min(1.0, min(p_values) * len(p_values)) if p_values else 1.0


def _stored_rows(stored: StoredRows, columns: tuple[str, ...]) -> GatedRows:
    return GatedRows(stored, columns, pd.DataFrame(index=pd.RangeIndex(sum(stored.counts))))


def gated_rows(stage: str, gate_input: GateInput, columns: Collection[str] = ()) -> GatedRows:
    """The rows of the stage's generation. columns: the names in the gate; those that it does not hold are computed."""
    kind, folder, validated = stage.partition("@")[0], gate_input.folder, gate_input.validated
    if kind in PREDICTION_STAGES:
        rows = GatedRows.of(_predictions(kind, folder))
        return rows if validated is None else _with_validated(rows, validated, columns)
    rows = with_metrics(gate_input, {*METRICS} if "drift_p_value" in columns else {*columns})
    computed: dict[str, Any] = {}
    if kind != "scrape":
        leak_column = "near_duplicate_held_out_elsewhere" if validated is None else "made_from_held_out_row"
        computed[leak_column] = gate_input.leaks()
    for name, compute in _computed_columns(gate_input, rows).items():
        if name in columns:
            computed[name] = compute()
    frame = pd.concat([rows.computed, pd.DataFrame(computed, index=rows.computed.index)], axis=1)
    rows = replace(rows, read_columns=tuple(name for name in rows.read_columns if name not in LISTS), computed=frame)
    if validated is None or kind not in STAGES_WITH_SAME_IDS:
        return rows
    return _with_validated(rows, validated, columns)


def _with_validated(rows: GatedRows, validated: Path, columns: Collection[str]) -> GatedRows:
    """Add the columns that only validate's generation has, by id; NaN for ids that it does not have."""
    names = [
        name for name in columns_of(validated) if name not in LISTS and name in columns and name not in rows.columns
    ]
    if not names:
        return rows
    sources = {"validated": StoredRows.generation(validated)} | ({"rows": rows.stored} if rows.stored.files else {})
    with database(**sources) as connection:
        if not rows.stored.files:
            connection.register("rows", rows.computed[["id"]].assign(row_index=rows.computed.index))
        table = connection.table("validated").project(", ".join(f'"{name}"' for name in ("id", *names)))
        joined = table.join(connection.table("rows").project("id, row_index"), "id")
        values = joined.df().set_index("row_index")[names]
    return replace(rows, computed=pd.concat([rows.computed, values.reindex(rows.computed.index)], axis=1))


def _computed_columns(gate_input: GateInput, rows: GatedRows) -> Mapping[str, Callable[[], Any]]:
    return {
        "class_share": gate_input.class_share,
        "rows_per_parent": gate_input.rows_per_parent,
        "rows_change": gate_input.rows_change,
        "class_share_change": gate_input.class_share_change,
        "label_flipped": gate_input.label_flipped,
        "drift_p_value": lambda: gate_input.drift_p_value(rows),
    }


def save_for_comparison(rows: GatedRows, columns: Collection[str], path: Path) -> None:
    """Write the values that the next generation is compared with: the labels, and the metrics if the gate tests drift.

    Writes nothing if the gate compares nothing. The file outlives the generation, which `dvc repro` deletes before it
    makes the next one.

    columns: the names in the gate.
    """
    if {*columns} & {*RELATIVE}:
        saved = {"id", "label", *(METRICS if "drift_p_value" in columns else ())}
        rows.write([name for name in rows.columns if name in saved], path)


def _predictions(kind: str, folder: Path) -> pd.DataFrame:
    frame = read_frame(folder / (OUT_OF_FOLD if kind == "train" else PREDICTIONS))
    probabilities = np.stack(frame["probabilities"].tolist()) if len(frame) else np.zeros((0, 1))
    confidence = probabilities.max(axis=1) if len(frame) else []
    frame = frame.drop(columns="probabilities").assign(confidence=confidence)
    if kind == "evaluate":
        frame["correct"] = (frame["label"] == frame["predicted"]).astype(float) if len(frame) else []
    return frame


def with_metrics(gate_input: GateInput, columns: Collection[str]) -> GatedRows:
    """The rows with the quality metrics in `columns` that the generation does not hold, computed from the payloads.

    The payloads come from the generation, or else from `collected`.
    """
    rows = gate_input.rows
    names = metrics.TEXT if "text" in rows.columns else metrics.IMAGE
    missing = [name for name in names if name in columns and name not in rows.columns]
    if not missing:
        return rows
    if "text" in rows.columns:
        values: dict[str, list[Any]] = {name: [] for name in missing}
        measure = metrics.lengths if {*missing} <= {"characters", "words"} else metrics.text_metrics
        for part in rows.parts(["text"]):
            for text in part["text"]:
                measured = measure(text)
                for name in missing:
                    values[name].append(measured[name])
        return replace(rows, computed=pd.DataFrame(values, index=rows.computed.index))
    holds_images = has_payloads(gate_input.folder)
    ids = rows.read(["id"])["id"]
    folder = gate_input.folder if holds_images or gate_input.collected is None else gate_input.collected
    cached = {} if gate_input.feature_cache is None else ImageCache(gate_input.feature_cache).signals(ids.tolist())
    encoded = payloads([folder], set(ids) - set(cached))
    metrics_by_id = {row_id: signals.metrics for row_id, signals in cached.items()}
    metrics_by_id.update(_image_metrics(encoded, gate_input.max_megapixels))
    frame = pd.DataFrame([metrics_by_id[row_id] for row_id in ids], index=rows.computed.index, columns=missing)
    return replace(rows, computed=frame)


def _image_metrics(
    encoded: Iterable[tuple[str, bytes | str]], max_megapixels: float
) -> Iterable[tuple[str, dict[str, float]]]:
    """Id and metrics of each image; no metrics if it cannot be decoded.

    scrape keeps such rows, and validate rejects them with a reason.
    """
    for row_id, payload in encoded:
        try:
            pixels = images.decode(bytes(payload), max_megapixels)  # type: ignore[arg-type]
            yield row_id, metrics.image_metrics(pixels)
        except images.Undecodable:
            yield row_id, {}


def available_columns(stage: str, folder: Path, validated: Path | None) -> list[str]:
    """The columns that the stage's gate may name besides those that were read."""
    kind = stage.partition("@")[0]
    from_validate: list[str] = []
    if validated is not None and kind in STAGES_WITH_SAME_IDS:
        from_validate = [name for name in columns_of(validated) if name not in LISTS]
    if not (folder / MANIFEST).is_file() or kind in PREDICTION_STAGES:
        return from_validate
    stored = columns_of(folder)
    measurable = metrics.TEXT if "text" in stored else metrics.IMAGE
    usable = [name for name in stored if name not in LISTS]
    return list(dict.fromkeys([*usable, *measurable, *LABEL_COLUMNS, *RELATIVE, *from_validate]))
