"""evaluate: metrics, the count of looks, and what is said without a test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.evaluate.looks import count_looks, log_look
from tasks.evaluate.metrics import calibration_bins, per_class, with_intervals
from tasks.params import EvaluateParams

PARAMS = EvaluateParams(bootstrap_draws=300)


def test_metrics_of_rows_that_are_all_right() -> None:
    """Accuracy and F1 are 1 with no width; log-loss is -log 0.9; the calibration error is 0.1."""
    chances, truth = np.tile([0.9, 0.1], (20, 1)), np.zeros(20, dtype=np.int64)
    found = with_intervals(chances, truth, np.arange(20).astype(str), PARAMS, 0)
    assert found["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["log_loss"]["value"] == pytest.approx(0.105361, abs=1e-6)
    assert found["calibration_error"]["value"] == pytest.approx(0.1)


def test_per_class_shares_by_hand() -> None:
    """Of three a's two are found; b is said twice and right once; nobody is or is called c."""
    truth, said = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    a, b, c = per_class(said, truth, ["a", "b", "c"])
    assert (a["recall"]["value"], a["precision"]["value"]) == (round(2 / 3, 6), 1.0)
    assert (b["recall"]["value"], b["precision"]["value"]) == (1.0, 0.5)
    assert (c["rows"], c["recall"], c["precision"]) == (0, None, None)


def test_calibration_bins_hold_all_rows() -> None:
    """Two bins are used, and count three and one."""
    chances = np.array([[0.95, 0.05], [0.92, 0.08], [0.98, 0.02], [0.55, 0.45]])
    bins = calibration_bins(chances, np.array([0, 0, 1, 0]), 10)
    assert [one["rows"] for one in bins] == [1, 3]
    assert bins[1]["accuracy"] == round(2 / 3, 6)


def test_looks_are_counted_a_model_and_a_test_split(tmp_path: Path) -> None:
    """The same model twice is one look; another test split starts a new count."""
    log = tmp_path / "deep" / "looks.jsonl"
    assert count_looks(log, "t1") == 0
    for test, model in (("t1", "m1"), ("t1", "m1"), ("t1", "m2"), ("t2", "m3")):
        log_look(log, test, model)
    assert (count_looks(log, "t1"), count_looks(log, "t2"), count_looks(log, "t3")) == (2, 1, 0)
    assert len(log.read_text().splitlines()) == 4
