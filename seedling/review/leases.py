"""Leases: which reviewer has which rows on the screen, and what the page showed about them.

A lease ends with an answer, or if it is not renewed. Leases are kept in a file, so that a reviewer returns to the same
rows after the server was stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from seedling.files.writing import write_json
from seedling.records.record import RecordPart
from seedling.review.records import Purpose, Question

LEASE_SECONDS = 600.0


class Lease(RecordPart):
    """A row that was sent to a reviewer's page, with what is stored beside the answer.

    lease_id: shared by the rows of one screen; mode: of the page; question: the same, or `label` for a row of the mode
    verify that is asked without a suggestion; until: seconds since 1970.
    """

    row_id: str
    lease_id: str
    reviewer: str
    mode: Question
    question: Question
    purpose: Purpose
    order: str
    position: int
    asked_label: str | None
    suggestion: str | None
    suggestion_shown: bool
    previous_label: str | None
    previous_source: str | None
    round: int | None
    until: float


LEASES: TypeAdapter[list[Lease]] = TypeAdapter(list[Lease])


class LeaseBook:
    """All leases, in the order in which they were given."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._leases: dict[tuple[str, str], Lease] = {}  # by reviewer and row id
        self._holders: dict[str, str] = {}  # row id → the reviewer who got the row last
        for lease in self._read():
            self._leases[lease.reviewer, lease.row_id] = lease
            self._holders[lease.row_id] = lease.reviewer

    def _read(self) -> list[Lease]:
        try:
            return LEASES.validate_python(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, ValidationError):  # no leases, or a file of another version
            return []

    def now(self) -> float:
        """The time in seconds since 1970."""
        return self._clock()

    def until(self) -> float:
        """The end of a lease that starts now."""
        return self._clock() + LEASE_SECONDS

    def of(self, reviewer: str, row_id: str) -> Lease | None:
        """The reviewer's lease on the row, even if it has expired."""
        return self._leases.get((reviewer, row_id))

    def is_held_by_another(self, reviewer: str, row_id: str) -> bool:
        """Whether another reviewer has the row on the screen."""
        holder = self._holders.get(row_id)
        if holder is None or holder == reviewer:
            return False
        lease = self._leases.get((holder, row_id))
        return lease is not None and lease.until > self._clock()

    @property
    def row_ids(self) -> list[str]:
        """The ids of all leased rows."""
        return list(self._holders)

    def held_by(self, reviewer: str) -> Iterator[Lease]:
        """The reviewer's leases, the oldest first, except those that another reviewer got after they expired."""
        return (
            lease
            for lease in list(self._leases.values())
            if lease.reviewer == reviewer and self._holders.get(lease.row_id) == reviewer
        )

    def give(self, leases: Sequence[Lease]) -> None:
        """Add leases, or renew those with the same reviewer and row; they become the latest ones, in their order."""
        for lease in leases:
            self._leases.pop((lease.reviewer, lease.row_id), None)
            self._leases[lease.reviewer, lease.row_id] = lease
            self._holders[lease.row_id] = lease.reviewer
        self.save()

    def change_classes(self, present_label: Callable[[str | None], str | None]) -> None:
        """Give the classes of the leases their present names, and end the leases that ask about a split class."""
        for (reviewer, row_id), lease in list(self._leases.items()):
            asked_label = present_label(lease.asked_label)
            if asked_label is None and lease.asked_label is not None:
                self.end(reviewer, [row_id])
                continue
            names = {name: present_label(getattr(lease, name)) for name in ("suggestion", "previous_label")}
            self._leases[reviewer, row_id] = lease.model_copy(update={"asked_label": asked_label, **names})
        self.save()

    def end(self, reviewer: str, row_ids: Sequence[str]) -> None:
        """Remove the reviewer's leases on the rows."""
        for row_id in row_ids:
            self._leases.pop((reviewer, row_id), None)
            if self._holders.get(row_id) == reviewer:
                del self._holders[row_id]

    def save(self) -> None:
        """Write the file. A disk that is full loses the return to the same rows, but no answer."""
        try:
            write_json(self._path, [lease.model_dump(mode="json") for lease in self._leases.values()])
        except OSError:
            return
