"""The rows that reviewers can be asked about, with what the last run knows about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.dataset.class_indices import index_by_class
from seedling.dataset.generation import read_columns, read_manifest
from seedling.dataset.schema import REVIEW_SOURCE
from seedling.files.reading import reading
from seedling.records.decision import DecisionRecord
from seedling.records.model import ModelRecord
from seedling.review.decisions import ClassMap
from seedling.workspace import DECISION, MANIFEST, MODEL, OUT_OF_FOLD, POOL_PREDICTIONS, Workspace

REVIEWED_SPLITS = ("train", "validation", "test", "pool")
COLUMNS = ("id", "split", "label", "label_source", "group", "origin", "license", "attribution")
VALIDATE_COLUMNS = ("p_label_error", "original_label")
ID_BYTES = "S32"
MAX_SINGLE_PRECISION_VALUES = 20_000_000  # more probabilities are kept in half precision: two bytes each


class ArrowStrings(Sequence["str | None"]):
    """A list of texts in Arrow's memory layout: 4 bytes for each, and each different text once.

    Python's strings have 60 bytes each.
    """

    def __init__(self, values: pa.Array[Any] | pa.ChunkedArray[Any]) -> None:
        encoded: Any = pc.dictionary_encode(values)
        self._values: Any = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[str | None]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._values[index].to_pylist()
        return self._values[int(index)].as_py()

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._values.to_pylist())

    def take(self, positions: NDArray[np.intp]) -> list[str | None]:
        """The texts at these positions."""
        texts: list[str | None] = self._values.take(pa.array(positions, pa.int64())).to_pylist()
        return texts

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(n,): whether there is a text."""
        return np.asarray(self._values.is_valid().to_numpy(zero_copy_only=False), dtype=bool)

    @property
    def categories(self) -> list[str]:
        """The different texts, in the order of their first appearance."""
        return [text for text in self._values.dictionary.to_pylist() if text is not None]

    @property
    def codes(self) -> NDArray[np.int32]:
        """(n,): the number of each text among the categories; -1 for none."""
        return np.asarray(self._values.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)

    def replaced(self, new: Callable[[str], str | None]) -> ArrowStrings:
        """The list with new(text) for each text. The function is called once for each different text."""
        replacements: Any = pa.array([new(text) for text in self._values.dictionary.to_pylist()], pa.string())
        return ArrowStrings(replacements.take(self._values.indices))


def _id_bytes(ids: pa.Array[Any] | pa.ChunkedArray[Any]) -> NDArray[np.bytes_]:
    """(n,): the ids in ID_BYTES bytes each."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    parts = [np.array(pc.cast(chunk, pa.binary()).to_numpy(zero_copy_only=False), dtype=ID_BYTES) for chunk in chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=ID_BYTES)


class RowIds(Sequence[str]):
    """The ids of rows, 32 bytes each, with the position of an id."""

    def __init__(self, ids: pa.Array[Any] | pa.ChunkedArray[Any]) -> None:
        self._ids = _id_bytes(ids)
        self._order = np.argsort(self._ids, kind="stable")  # searchsorted would copy a smaller type on each call

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [row_id.decode() for row_id in self._ids[index].tolist()]
        return self._ids[index].decode()

    def positions(self, row_ids: Sequence[str]) -> NDArray[np.intp]:
        """The positions of these ids, -1 for those that are not among the rows."""
        keys = np.array([row_id.encode("ascii", "replace") for row_id in row_ids], dtype=ID_BYTES)
        if not len(keys) or not len(self._ids):
            return np.full(len(keys), -1, dtype=np.intp)
        nearest = np.minimum(np.searchsorted(self._ids, keys, sorter=self._order), len(self._ids) - 1)
        positions = self._order[nearest]
        return np.where(self._ids[positions] == keys, positions, -1)

    def position(self, row_id: str) -> int | None:
        """The position of the id; None if it is not among the rows."""
        position = int(self.positions([row_id])[0])
        return None if position < 0 else position

    def with_prefix(self, prefix: str) -> list[str]:
        """The ids that begin with these digits, without repetition."""
        low, high = np.array([text.encode("ascii", "replace") for text in (prefix, prefix + "~")], dtype=ID_BYTES)
        first = np.searchsorted(self._ids, low, sorter=self._order)
        last = np.searchsorted(self._ids, high, side="right", sorter=self._order)
        row_ids = {row_id.decode() for row_id in self._ids[self._order[first:last]].tolist()}
        return sorted(row_id for row_id in row_ids if row_id.startswith(prefix))


@dataclass(frozen=True)
class ReviewRows:
    """The rows of a workspace that can be reviewed: n rows.

    splits: train, validation, test or pool. labels: as in the data, without reviews, under the present names of
    the classes; None in the pool. probabilities: (n, n_classes), rows sum to 1, NaN where no model has predicted; out
    of fold for labeled rows. p_label_error: (n,), NaN if unknown. groups: (n,), equal for near-duplicates. round: of
    the model, None without one.
    """

    ids: RowIds
    splits: ArrowStrings
    labels: ArrowStrings
    label_sources: ArrowStrings
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating[Any]]
    p_label_error: NDArray[np.float32]
    groups: NDArray[np.integer[Any]]
    origins: ArrowStrings
    licenses: ArrowStrings
    attributions: ArrowStrings
    modality: str
    round: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def is_in(self, *splits: str) -> NDArray[np.bool_]:
        """(n,): whether the row is in one of these splits."""
        categories = self.splits.categories
        return np.isin(self.splits.codes, [number for number, name in enumerate(categories) if name in splits])


def read_review_rows(workspace: Path, class_map: ClassMap, further_classes: Sequence[str] = ()) -> ReviewRows:
    """Read the rows of validate, or of scrape if validate has not run, and the predictions of the accepted model.

    further_classes: classes that need not have a row yet. Raises MissingGeneration before the first scrape.
    """
    paths = Workspace(workspace)
    folder = paths.generation("validate")
    is_validated = (folder / MANIFEST).is_file()
    if not is_validated:
        folder = paths.generation("scrape")
    manifest = read_manifest(folder)
    table = _read(folder, [part.file for part in manifest.parts], VALIDATE_COLUMNS if is_validated else ())
    if not is_validated:  # scrape keeps copies
        _, first_positions = np.unique(_id_bytes(table["id"]), return_index=True)
        table = table.take(pa.array(np.sort(first_positions), pa.int64()))
    labels = _data_labels(table, class_map)
    data_classes = [*manifest.classes, *labels.categories]
    present = (class_map.present_label(label) for label in data_classes)
    added = [*(class_map.present_label(label) for label in further_classes), *class_map.added()]
    classes = tuple(sorted({label for label in (*present, *added) if label is not None}))
    ids = RowIds(table["id"])
    splits = ArrowStrings(table["split"])
    round_number = accepted_round(workspace)
    probabilities = _probabilities(workspace, ids, classes, class_map, round_number)
    errors = table["p_label_error"].to_numpy() if is_validated else np.full(len(ids), np.nan)
    return ReviewRows(
        ids=ids,
        splits=splits,
        labels=labels,
        label_sources=ArrowStrings(table["label_source"]),
        classes=classes,
        probabilities=probabilities,
        p_label_error=np.asarray(errors, dtype=np.float32),
        groups=_group_numbers(table),
        origins=ArrowStrings(table["origin"]),
        licenses=ArrowStrings(table["license"]),
        attributions=ArrowStrings(table["attribution"]),
        modality=manifest.modality,
        round=round_number,
    )


def _read(folder: Path, files: Sequence[str], further_columns: Sequence[str]) -> pa.Table:
    tables = []
    for file in files:
        table = read_columns(folder / file, [*COLUMNS, *further_columns])
        splits: Any = pa.array(REVIEWED_SPLITS)
        tables.append(table.filter(pc.is_in(table["split"], splits)))
    return pa.concat_tables(tables)


def _data_labels(table: pa.Table, class_map: ClassMap) -> ArrowStrings:
    """The labels as in the data: those that reviews replaced are restored."""
    labels: Any = table["label"]
    if "original_label" in table.column_names:
        sources: Any = pc.coalesce(table["label_source"], pa.scalar(""))
        is_reviewed: Any = pc.equal(sources, pa.scalar(REVIEW_SOURCE))
        labels = pc.if_else(is_reviewed, table["original_label"], labels)
    return ArrowStrings(labels).replaced(class_map.present_label)


def _group_numbers(table: pa.Table) -> NDArray[np.int32]:
    """(n,): equal numbers for equal groups; before validate, each row is its own group."""
    return ArrowStrings(pc.coalesce(table["group"], table["id"])).codes


def accepted_round(workspace: Path) -> int | None:
    """The round of the model in use; None if no model was trained."""
    paths = Workspace(workspace)
    rounds = sorted(int(record.parent.name) for record in paths.models.glob(f"[0-9]*/{MODEL}"))
    return DecisionRecord.read(paths.model(rounds[-1]) / DECISION).accepted_round if rounds else None


def _probabilities(
    workspace: Path, ids: RowIds, classes: Sequence[str], class_map: ClassMap, round_number: int | None
) -> NDArray[np.floating[Any]]:
    many = len(ids) * len(classes) > MAX_SINGLE_PRECISION_VALUES
    probabilities = np.full((len(ids), len(classes)), np.nan, dtype=np.float16 if many else np.float32)
    if round_number is None:
        return probabilities
    paths = Workspace(workspace)
    folder = paths.model(round_number)
    model_classes = ModelRecord.read(folder / MODEL).classes
    to_present = class_matrix(model_classes, classes, class_map)
    for file in (paths.predictions_file, folder / POOL_PREDICTIONS, folder / OUT_OF_FOLD):
        if not file.is_file():
            continue
        for row_ids, values in _predictions(file, len(model_classes)):
            positions = ids.positions(row_ids)
            matched = positions >= 0
            present = values[matched] @ to_present
            sums = present.sum(axis=1, keepdims=True)
            probabilities[positions[matched]] = np.where(sums > 0, present / np.maximum(sums, 1e-12), np.nan)
    return probabilities


def class_matrix(model_classes: Sequence[str], classes: Sequence[str], class_map: ClassMap) -> NDArray[np.float32]:
    """(n_model_classes, n_classes): 1 where a class of the model has this present name."""
    class_to_index: Mapping[str, int] = index_by_class(classes)
    matrix = np.zeros((len(model_classes), len(classes)), dtype=np.float32)
    for index, name in enumerate(model_classes):
        present = class_map.present_label(name)
        if present is not None and present in class_to_index:
            matrix[index, class_to_index[present]] = 1.0
    return matrix


def _predictions(file: Path, n_classes: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield ids and probabilities (k, n_classes) of the final model in blocks.

    The pool has the predictions of all fold models in one list, of which the last is that of the final model.
    """
    with reading(file):
        for batch in pq.ParquetFile(file).iter_batches(columns=["id", "probabilities"], batch_size=16_384):
            lists: Any = batch["probabilities"]
            lengths: Any = pc.list_value_length(lists).fill_null(0)
            keep: Any = pc.greater_equal(lengths, pa.scalar(n_classes))
            lists, row_ids = lists.filter(keep), batch["id"].filter(keep)
            if not len(lists):
                continue
            values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
            width = len(values) // len(lists)
            strings: list[Any] = row_ids.to_pylist()
            yield strings, values.reshape(len(lists), width)[:, -n_classes:]
