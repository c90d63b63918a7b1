"""The messages that a spider's process writes to standard output, one JSON object per line."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from seedling.records.record import RecordPart


class HostRate(RecordPart):
    """The state of a host's rate limiter: requests per second, bounds of the host's limit, and responses so far."""

    rate: float
    low: float | None
    high: float | None
    answers: int
    refusals: int


class SpiderProgress(RecordPart):
    """Items so far. total: None if it is unknown; host: that with most answers, None before the first answer."""

    done: int
    total: int | None
    host: HostRate | None


class SpiderEnd(RecordPart):
    """The end of a visit.

    closed: Scrapy's reason; counts: reason → pages or numbers without an item that are not errors; failed: the number
    of temporary failures.
    """

    closed: str
    counts: dict[str, int]
    failed: int


MESSAGES: TypeAdapter[SpiderProgress | SpiderEnd] = TypeAdapter(SpiderProgress | SpiderEnd)


def send(message: SpiderProgress | SpiderEnd) -> None:
    """Write the message to standard output."""
    print(json.dumps(message.model_dump(mode="json")), flush=True)


def receive(line: str) -> SpiderProgress | SpiderEnd | None:
    """Return the message in a line of a spider's output; None for another line."""
    return MESSAGES.validate_json(line) if line.startswith("{") else None
