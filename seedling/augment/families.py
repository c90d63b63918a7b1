"""Children by parents: what goes to the process that makes them, and what comes back. It imports nothing that learns: such a process starts quickly."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from seedling.augment.catalog import CannotChange
from seedling.augment.makers import Made, Maker, Resources, Step, maker_of
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import Row, identities
from seedling.media import images
from seedling.models.device import keep_freed_memory
from seedling.stats.randomness import derived_seed

AT_ONCE, MEGAPIXELS_AT_ONCE = 64, 8.0  # children, and what they hold, that one process makes before it hands them over
Parent = tuple[str, Any, Mapping[Hashable, Any], range]  # id, payload, columns, and its children's numbers


@dataclass(frozen=True)
class Families:
    """Makes all children of some parents. It may be sent to another process. Raises InputError for a policy that cannot be built."""

    steps: Sequence[Step]
    params: AugmentParams
    facts: WorkspaceConfig
    resources: Resources

    def __post_init__(self) -> None:
        keep_freed_memory()
        object.__setattr__(self, "_maker", maker_of(self.steps, self.facts, self.resources))

    def __reduce__(self) -> Any:  # transforms are built where they are used
        return Families, (self.steps, self.params, self.facts, self.resources)

    def __call__(self, parents: Sequence[Parent]) -> list[tuple[Row, str, str | None]]:
        """Every child, in its parents' order, the hash of its content alone, and why it cannot be. parents: see Parent."""
        return [child for parent in parents for child in self._family(*parent)]

    def _family(
        self, parent: str, payload: Any, known: Mapping[Hashable, Any], numbers: range
    ) -> Iterator[tuple[Row, str, str | None]]:
        maker: Maker = self._maker  # type: ignore[attr-defined]  # set once, in __post_init__
        read = maker.read(payload)
        for number in numbers:
            try:
                made, reason = maker.make(read, derived_seed(self.facts.seed, "augment", parent, number)), None
            except CannotChange as error:
                made, reason = Made(payload, None, f"{parent} {number}".encode()), error.reason
            yield (*row_of(parent, known, made, self.params), reason)


def pieces_of(parents: Iterable[Parent]) -> Iterator[list[Parent]]:
    """Parents in pieces of so many children, or megapixels, at most; the first are small, so that it is soon known how long they take."""
    piece, children, held, most = list[Parent](), 0, 0.0, 1
    for name, payload, known, numbers in parents:
        size = images.megapixels(payload) if isinstance(payload, bytes) else 0.0
        for number in numbers:
            if piece and (children >= most or held + size > MEGAPIXELS_AT_ONCE):
                yield piece
                piece, children, held, most = [], 0, 0.0, min(2 * most, AT_ONCE)
            if piece and piece[-1][0] == name:
                piece[-1] = (name, payload, known, range(piece[-1][3].start, number + 1))
            else:
                piece.append((name, payload, known, range(number, number + 1)))
            children, held = children + 1, held + size
    if piece:
        yield piece


def row_of(parent: str, known: Mapping[Hashable, Any], made: Made, params: AugmentParams) -> tuple[Row, str]:
    """A child as the record has it: all but its content is its parent's; and the hash of its content alone."""
    alone, whole = identities(made.content, [parent], made.recipe)
    row = Row(
        id=whole,
        split="train",
        fold=None if pd.isna(known["fold"]) else int(known["fold"]),
        label=known["label"],
        label_source=known["label_source"],
        weight=float(known["weight"]) * params.weight,
        parent_ids=[parent],
        recipe=made.recipe,
        origin=known["origin"],
        license=known["license"],
        attribution=known["attribution"],
        group=known["group"],
        payload=made.payload,
    )
    return row, alone
