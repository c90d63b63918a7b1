"""`evaluate`: metrics, the count of test-set evaluations, and results without a test split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seedling.config.params import EvaluateParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.evaluate.metrics import calibration_bins, majority_baseline, per_class, with_intervals
from seedling.evaluate.plots import write_losses
from seedling.evaluate.robustness import IMAGE_CHANGES, robustness
from seedling.models.heads import Head
from seedling.models.model import TrainedModel
from seedling.models.saving import make_features
from seedling.progress import silent
from seedling.records.crawl_rates import CrawlRatePoint
from seedling.records.evaluation import MajorityBaselineRecord, OperatingPointRecord
from seedling.records.test_evaluations import (
    bring_log_up_to_date,
    log_test_evaluation,
    read_test_evaluations,
)
from seedling.report.charts import crawl_rate
from seedling.report.data_page import intended_class
from seedling.report.report import merge_thresholds
from seedling.workspace import TEST_EVALUATIONS, Workspace

PARAMS = EvaluateParams(bootstrap_draws=300)


def test_metrics_of_rows_that_are_all_correct() -> None:
    """Accuracy is 1, and twenty rows do not prove more than Wilson's .839; log-loss is -log 0.9; the calibration error is
    about 0.1, and twenty rows of that confidence could be so by chance.
    """
    chances, truth = np.tile([0.9, 0.1], (20, 1)), np.zeros(20, dtype=np.int64)
    intervals_by_metric = with_intervals(chances, truth, np.arange(20).astype(str), PARAMS, 0)
    accuracy, log_loss, error = (
        intervals_by_metric["accuracy"],
        intervals_by_metric["log_loss"],
        intervals_by_metric["calibration_error"],
    )
    assert accuracy is not None and log_loss is not None and error is not None
    assert accuracy.model_dump() == {"value": 1.0, "low": pytest.approx(0.8389, abs=1e-4), "high": 1.0}
    assert log_loss.value == pytest.approx(0.105361, abs=1e-6)
    assert error.value == pytest.approx(0.1, abs=0.01)
    assert error.low < 0.03


def test_recall_and_precision_per_class_match_a_hand_calculation() -> None:
    """Two of three rows of a are predicted as a; b is predicted twice and correct once; c is neither true nor
    predicted.
    """
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    a, b, c = per_class(predicted, truth, ["a", "b", "c"])
    assert a.recall is not None and a.precision is not None
    assert b.recall is not None and b.precision is not None
    assert (a.recall.value, a.precision.value) == (round(2 / 3, 6), 1.0)
    assert (b.recall.value, b.precision.value) == (1.0, 0.5)
    assert (c.rows, c.recall, c.precision) == (0, None, None)


def test_calibration_bins_hold_all_rows() -> None:
    """Two bins are used, with three rows and one."""
    chances = np.array([[0.95, 0.05], [0.92, 0.08], [0.98, 0.02], [0.55, 0.45]])
    bins = calibration_bins(chances, np.array([0, 0, 1, 0]), 10)
    assert [bin_["rows"] for bin_ in bins] == [1, 3]
    assert bins[1]["accuracy"] == round(2 / 3, 6)


def test_a_class_that_may_be_a_typing_error_is_reported() -> None:
    """`shiping` (1 row) with `shipping` (37), and `1.0` with `1`, but not `class 1` with `class 2`, two large classes,
    or short names.
    """
    rows = {
        "shiping": 1,
        "shipping": 37,
        "class 1": 1,
        "class 2": 90,
        "sea": 1,
        "seal": 40,
        "walking": 30,
        "talking": 37,
        "1": 20,
        "1.0": 20,
    }
    intended = {label: intended_class(label, rows) for label in rows}
    assert {label for label, other in intended.items() if other} == {"shiping", "1", "1.0"}
    assert intended["1.0"] == "1"
    assert intended["shiping"] == "shipping"


def test_evaluations_are_counted_by_model_and_test_split(tmp_path: Path) -> None:
    """The same model twice is one evaluation; another test split starts a new count."""
    for test, model in (("t1", "m1"), ("t1", "m1"), ("t1", "m2"), ("t2", "m3")):
        log_test_evaluation(tmp_path, test, model, ["log_loss", "accuracy"])
    logs = [read_test_evaluations(tmp_path, name, has_results=False) for name in ("t1", "t2", "t3")]
    assert [len(log.models) for log in logs] == [2, 1, 0]
    assert [log.incomplete_since for log in logs] == [None, None, None]
    (entry,) = logs[1].models
    assert (entry.metrics, entry.model, entry.test) == (("accuracy", "log_loss"), "m3", "t2")
    assert entry.who
    recorded = [json.loads(line) for line in (tmp_path / TEST_EVALUATIONS).read_text().splitlines()]
    assert {(entry["test"], entry["model"]) for entry in recorded} == {("t1", "m1"), ("t1", "m2"), ("t2", "m3")}


def test_a_lost_log_is_not_counted_as_zero(tmp_path: Path) -> None:
    """Results without a log count as an unknown number of evaluations; a new log records this from then on."""
    assert read_test_evaluations(tmp_path, "t1", has_results=True).incomplete_since == ""
    log_test_evaluation(tmp_path, "t1", "m2", ["accuracy"], has_earlier_results=True)
    log = read_test_evaluations(tmp_path, "t1", has_results=True)
    assert len(log.models) == 1
    assert log.incomplete_since == log.models[0].time


def test_an_older_copy_of_the_log_loses_no_line(tmp_path: Path) -> None:
    """Neither a checkout of an older commit nor the loss of .seedling removes an evaluation."""
    log_test_evaluation(tmp_path, "t1", "m1", ["accuracy"])
    older = (tmp_path / TEST_EVALUATIONS).read_bytes()
    log_test_evaluation(tmp_path, "t1", "m2", ["accuracy"])
    (tmp_path / TEST_EVALUATIONS).write_bytes(older)
    assert len(read_test_evaluations(tmp_path, "t1", has_results=True).models) == 2
    assert bring_log_up_to_date(tmp_path)
    shutil.rmtree(tmp_path / ".seedling")
    assert len(read_test_evaluations(tmp_path, "t1", has_results=True).models) == 2
    assert not bring_log_up_to_date(tmp_path)


def test_the_log_of_an_earlier_version_is_migrated(tmp_path: Path) -> None:
    """Lines of .seedling/looks.jsonl are in the tracked log after the upgrade."""
    former = Workspace(tmp_path).former_test_evaluations
    former.parent.mkdir()
    former.write_text(
        '{"metrics": ["accuracy"], "model": "m1", "test": "t1", "time": "2026-01-01T00:00:00+00:00", "who": "a"}\n'
    )
    assert bring_log_up_to_date(tmp_path)
    assert (tmp_path / TEST_EVALUATIONS).read_text() == former.read_text()


def test_a_damaged_line_of_the_log_is_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error names the file and the line; a conflict marker of git raises an error that names the fix."""
    log_test_evaluation(tmp_path, "t1", "m1", ["accuracy"])
    shutil.rmtree(tmp_path / ".seedling")
    log = tmp_path / TEST_EVALUATIONS
    whole = log.read_text()
    log.write_text(whole + '{"metrics": ["acc')
    assert len(read_test_evaluations(tmp_path, "t1", has_results=True).models) == 1
    assert "test_evaluations.jsonl: line 2 is damaged" in capsys.readouterr().err
    log.write_text(f"<<<<<<< HEAD\n{whole}=======\n>>>>>>> other\n")
    with pytest.raises(InputError, match=r"line 1 is a conflict marker of git: run `seedling resolve`"):
        read_test_evaluations(tmp_path, "t1", has_results=True)


def test_error_limits_with_the_same_threshold_share_a_table_row() -> None:
    """1 and 2 % are kept without abstaining, 5 % cannot be kept: two rows of the table, not three."""
    points = [
        OperatingPointRecord(max_error_rate=max_error_rate, threshold=threshold, coverage=None, errors=None)
        for max_error_rate, threshold in ((0.01, 0.0), (0.02, 0.0), (0.05, None))
    ]
    assert [(result.threshold, result.allowed) for result in merge_thresholds(points)] == [
        (0.0, (0.01, 0.02)),
        (None, (0.05,)),
    ]


def test_texts_with_typing_errors_are_evaluated_again() -> None:
    """Typing errors lower the accuracy of a model of two words; the same rows give the same result."""
    words = ["rain", "sunny"] * 20
    texts = [f"{word} today number {index}" for index, word in enumerate(words)]
    truth = np.array([0, 1] * 20)
    maker = make_features(None, None, WorkspaceConfig(modality="text"))
    head = Head("logistic_regression", 0, 2)
    head.fit(maker.fit_transform(texts), np.eye(2)[truth], np.ones(40))
    model = TrainedModel(["a", "b"], maker, [[head]], [1.0], 1.0, [1.0], 0.0)
    rows = {str(index): text for index, text in enumerate(texts)}
    truth_by_id = {row_id: int(truth[int(row_id)]) for row_id in rows}
    groups = {row_id: row_id for row_id in rows}
    settings: dict[str, Any] = {"modality": "text", "seed": 0, "progress": silent}
    first, again = (robustness(model, rows.items, truth_by_id, groups, PARAMS, **settings) for _ in range(2))
    assert first is not None
    assert first == again
    predicted = {row_id: int(model.predict([text]).argmax()) for row_id, text in rows.items()}
    assert robustness(model, rows.items, truth_by_id, groups, PARAMS, **settings, predicted=predicted) == first
    all_wrong = {row_id: 1 - index for row_id, index in predicted.items()}
    worse = robustness(model, rows.items, truth_by_id, groups, PARAMS, **settings, predicted=all_wrong)
    assert worse is not None and worse.accuracy == 0.0  # known predictions of unchanged texts are not computed again
    by_change = {corruption.change: corruption for corruption in first.changes}
    assert first.accuracy == by_change["without capitals"].accuracy == 1.0
    assert by_change["the first half alone"].difference.value == 0.0
    assert robustness(model, rows.items, {}, {}, PARAMS, **settings) is None


@pytest.mark.parametrize("change", IMAGE_CHANGES)
def test_a_corrupted_image_keeps_its_size(change: str) -> None:
    """Each corruption keeps height, width and type, also of an image of one pixel."""
    source = np.random.default_rng(0)
    for shape in ((1, 1, 3), (9, 40, 3)):
        pixels = source.integers(0, 256, size=shape).astype(np.uint8)
        changed = IMAGE_CHANGES[change](pixels, np.random.default_rng(0))
        assert (changed.shape, changed.dtype) == (shape, np.uint8)


@pytest.mark.slow
def test_the_request_rate_is_plotted_with_the_answers() -> None:
    """Ten answers per second for five seconds, one refusal; the plot has a text description, and three points give no
    plot.
    """
    points = [
        CrawlRatePoint(
            visit=1,
            host="a.example",
            seconds=float(second),
            rate=11.0,
            low=9.0,
            high=12.0,
            answers=10 * second,
            refusals=1,
        )
        for second in range(1, 6)
    ]
    drawing = crawl_rate(points)
    assert drawing is not None
    assert "a.example: 10 responses per second, 1 of 51 requests refused" in drawing
    assert crawl_rate(points[:3]) is None


def test_the_loss_plot_of_dvc_has_one_curve(tmp_path: Path) -> None:
    """The mean over the fits of the learner with the most steps, while all of them train: (4 + 2) / 2 and (1 + 2) / 2."""
    lines = [
        *("network plain final half 0,1,9", "network plain fold 1 half 0,1,9"),
        *("network consistency final half 0,10,4", "network consistency final half 0,20,1"),
        *("network consistency fold 1 half 0,10,2", "network consistency fold 1 half 0,20,2"),
        "network consistency final half 0,30,5",
    ]
    (tmp_path / "losses.csv").write_text("\n".join(["model,step,loss", *lines]) + "\n", encoding="utf-8")
    write_losses(tmp_path / "plot.csv", tmp_path)
    assert (tmp_path / "plot.csv").read_text(encoding="utf-8") == "step,loss\n10,3.00000\n20,1.50000\n"


def test_the_loss_plot_is_empty_if_no_learner_trains_by_steps(tmp_path: Path) -> None:
    """It has a header alone, which DVC skips."""
    write_losses(tmp_path / "plot.csv", tmp_path)
    assert (tmp_path / "plot.csv").read_text(encoding="utf-8") == "step,loss\n"


def test_the_majority_baseline_predicts_the_class_with_most_training_labels() -> None:
    """On the evaluation rows, where another class may be the most frequent one."""
    truth = pd.Series(["ham", "spam", "spam", "spam"])
    assert majority_baseline({"ham": 60, "spam": 55}, truth) == MajorityBaselineRecord(name="ham", accuracy=0.25)
    assert majority_baseline({"ham": 60, "spam": 60}, truth) == MajorityBaselineRecord(name="spam", accuracy=0.75)
    assert majority_baseline({"ham": 60}, truth[:0]) is None
    assert majority_baseline({"ham": 0}, truth) is None
