"""The outcome of the last push to DVC's remote, in .seedling/push.json."""

from __future__ import annotations

from seedling.records.record import Record


class PushRecord(Record):
    """A push. message: one sentence for the user; time: its end; fingerprint: a hash of what was to be pushed."""

    complete: bool
    message: str
    time: str
    fingerprint: str
