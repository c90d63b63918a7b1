"""Values with an interval, as parts of records: rounded once, when the part is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from seedling.records.record import RecordPart

if TYPE_CHECKING:
    from seedling.stats.statistics import Difference, Estimate

DIGITS = 6


class EstimateRecord(RecordPart):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate, digits: int = DIGITS) -> Self:
        """Round the estimate to this many decimal places. Further digits are noise and differ between processors."""
        return cls(**estimate.rounded(digits))


class DifferenceRecord(RecordPart):
    """The difference new - old on the same rows, its interval, and the bootstrap probability that new is worse."""

    value: float
    low: float
    high: float
    probability_worse: float

    @classmethod
    def of(cls, difference: Difference, digits: int = DIGITS) -> Self:
        """Round the difference to this many decimal places. Further digits are noise and differ between processors."""
        return cls(**difference.rounded(digits))
