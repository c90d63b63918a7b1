"""Facts of the report's first screen that are computed when the page is written."""

from __future__ import annotations

from evaluation_records import estimate

from seedling.records.evaluation import ClassResultRecord
from seedling.report.pages import never_predicted
from seedling.report.report import weakest


def result(name: str, rows: int, recall: float | None, precision: float | None) -> ClassResultRecord:
    """A class in the results of evaluate."""
    estimates = [None if share is None else estimate(share) for share in (recall, precision)]
    return ClassResultRecord(name=name, rows=rows, recall=estimates[0], precision=estimates[1])


CLASSES = [
    result("never", 10, 0.0, None),
    result("bad", 10, 0.0, 0.0),
    result("weak", 10, 0.4, 0.5),
    result("good", 10, 1.0, 0.9),
    result("untested", 0, None, None),
]


def test_a_class_that_is_never_predicted_is_named_apart_from_the_weakest() -> None:
    """A class without evaluation rows is neither; it is never evaluated."""
    assert never_predicted(CLASSES) == ["never"]
    assert [entry.name for entry in weakest(CLASSES)] == ["bad", "weak"]
