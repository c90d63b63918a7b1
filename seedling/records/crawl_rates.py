"""The rates at which a web source was requested in its last visit, in .seedling/web/<source>.pace.json."""

from __future__ import annotations

from seedling.records.record import Record, RecordPart


class CrawlRatePoint(RecordPart):
    """The state of a host's rate limiter at one time.

    visit: the number of the visit; seconds: since its start; rate: target, in requests per second; low, high: bounds of
    the host's limit, None while they are unknown; answers, refusals: responses so far.
    """

    visit: int
    host: str
    seconds: float
    rate: float
    low: float | None
    high: float | None
    answers: int
    refusals: int


class CrawlRates(Record):
    """A source's rates. ceiling: the maximum rate by params.yaml, in requests per second; points: in order of time."""

    source: str
    ceiling: float
    points: tuple[CrawlRatePoint, ...]
