"""The visit to the web sources that the next run continues or makes again, in .seedling/visit.json."""

from __future__ import annotations

from typing import Literal

from seedling.records.record import Record

VisitState = Literal["unfinished", "refused"]


class OpenVisit(Record):
    """A visit. as_of: its name; state: `unfinished` if it was interrupted, `refused` if its rows failed the gate."""

    as_of: str
    state: VisitState
