"""Augmented rows by batches of parents: what a worker process receives, and what it returns.

This module imports nothing that trains models, so that a worker process starts quickly.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pandas as pd

from seedling.augment.catalog import CannotChange
from seedling.augment.makers import Augmented, Maker, Resources, Step, maker_of
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import Row, identities
from seedling.media import images
from seedling.models.device import keep_freed_memory
from seedling.parallel.pool import LOCAL_SECONDS
from seedling.stats.randomness import derived_seed


@dataclass(frozen=True, slots=True)
class InheritedColumns:
    """The columns that an augmented row has from its parent. fold: None for a row that every fold model sees."""

    fold: int | None
    label: str
    label_source: str
    weight: float
    origin: str | None
    license: str | None
    attribution: str | None
    group: str

    @classmethod
    def of(cls, columns: Mapping[Hashable, Any]) -> InheritedColumns:
        """Take them from a row of validate's output."""
        values = {field.name: columns[field.name] for field in fields(cls)}
        fold = None if pd.isna(columns["fold"]) else int(columns["fold"])
        return cls(**{**values, "fold": fold, "weight": float(columns["weight"])})


class Parent(NamedTuple):
    """A row with the numbers of its augmented rows."""

    row_id: str
    payload: bytes | str
    columns: InheritedColumns
    numbers: range


@dataclass(frozen=True)
class Batching:
    """How the work is divided; the rows do not depend on it.

    max_rows, max_megapixels: that one process augments before it returns them; local_seconds, processes: as for
    `in_processes`.
    """

    max_rows: int = 64
    max_megapixels: float = 8.0
    local_seconds: float = LOCAL_SECONDS
    processes: int | None = None


@dataclass(frozen=True)
class AugmentBatch:
    """Augment a batch of parents. Picklable, for worker processes. Raises InputError if the policy cannot be built."""

    steps: Sequence[Step]
    params: AugmentParams
    config: WorkspaceConfig
    resources: Resources

    def __post_init__(self) -> None:
        keep_freed_memory()
        object.__setattr__(self, "_maker", maker_of(self.steps, self.config, self.resources))

    def __reduce__(self) -> Any:  # transforms are not picklable: each process builds its own
        return AugmentBatch, (self.steps, self.params, self.config, self.resources)

    def __call__(self, parents: Sequence[Parent]) -> list[tuple[Row, str, str | None]]:
        """Return each augmented row in the order of the parents, its content id, and the reason to reject it."""
        return [augmented for parent in parents for augmented in self._augment_parent(parent)]

    def _augment_parent(self, parent: Parent) -> Iterator[tuple[Row, str, str | None]]:
        maker: Maker = self._maker  # type: ignore[attr-defined]  # set once, in __post_init__
        decoded = maker.read(parent.payload)
        for number in parent.numbers:
            try:
                seed = derived_seed(self.config.seed, "augment", parent.row_id, number)
                augmented, reason = maker.make(decoded, seed), None
            except CannotChange as error:
                augmented = Augmented(parent.payload, None, f"{parent.row_id} {number}".encode())
                reason = error.reason
            yield (*row_of(parent.row_id, parent.columns, augmented, self.params), reason)


def batches_of(parents: Iterable[Parent], batching: Batching) -> Iterator[list[Parent]]:
    """Yield parents in batches limited by rows and megapixels; a parent with many augmented rows may be divided.

    Batch sizes double from 1 row on, so that the time per row is known early.
    """
    batch, n_rows, megapixels, max_rows = list[Parent](), 0, 0.0, 1
    for parent in parents:
        size = images.megapixels(parent.payload) if isinstance(parent.payload, bytes) else 0.0
        for number in parent.numbers:
            if batch and (n_rows >= max_rows or megapixels + size > batching.max_megapixels):
                yield batch
                batch, n_rows, megapixels, max_rows = [], 0, 0.0, min(2 * max_rows, batching.max_rows)
            if batch and batch[-1].row_id == parent.row_id:
                batch[-1] = parent._replace(numbers=range(batch[-1].numbers.start, number + 1))
            else:
                batch.append(parent._replace(numbers=range(number, number + 1)))
            n_rows, megapixels = n_rows + 1, megapixels + size
    if batch:
        yield batch


def row_of(parent_id: str, columns: InheritedColumns, augmented: Augmented, params: AugmentParams) -> tuple[Row, str]:
    """Return the augmented row and its content id. All columns but the content are the parent's."""
    content_id, row_id = identities(augmented.content, [parent_id], augmented.recipe)
    row = Row(
        id=row_id,
        split="train",
        fold=columns.fold,
        label=columns.label,
        label_source=columns.label_source,
        weight=columns.weight * params.weight,
        parent_ids=[parent_id],
        recipe=augmented.recipe,
        origin=columns.origin,
        license=columns.license,
        attribution=columns.attribution,
        group=columns.group,
        payload=augmented.payload,
    )
    return row, content_id
