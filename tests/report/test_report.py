"""Facts of the report's first screen that are computed when the page is written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from evaluation_records import estimate
from manifests import write_manifest

from seedling.records.evaluation import ClassResultRecord
from seedling.records.manifest import LabelCount
from seedling.report.pages import never_predicted
from seedling.report.report import majority_baseline, weakest
from seedling.report.results import Baseline


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


def test_the_baseline_predicts_the_class_with_most_training_labels(tmp_path: Path) -> None:
    """On the evaluation rows, where another class may be the most frequent one."""
    counts = [
        LabelCount(split="train", label="ham", label_source="human", rows=60),
        LabelCount(split="train", label="spam", label_source="human", rows=50),
        LabelCount(split="train", label="spam", label_source="weak:rule", rows=5),
        LabelCount(split="test", label="spam", label_source="human", rows=500),
        LabelCount(split="pool", label=None, label_source=None, rows=900),
    ]
    write_manifest(tmp_path, "validate", counts=counts)
    assert majority_baseline(tmp_path, pd.Series(["ham", "spam", "spam", "spam"])) == Baseline("ham", 0.25)
    assert majority_baseline(tmp_path, pd.Series([], dtype=str)) is None
