"""Data of the plots: CSV files for DVC's templates, the report and other tools."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from seedling.config.params import EvaluateParams
from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.evaluate.metrics import calibration_bins
from seedling.evaluate.scope import risk_coverage_curve
from seedling.evaluate.scored import Scored
from seedling.files.reading import reading
from seedling.records.evaluation import EvaluationRecord, ExtrapolatedCurveRecord
from seedling.workspace import CALIBRATION, CONFUSION, LEARNING_CURVE, LOSSES, RECALL, RISK_COVERAGE, ROUNDS


def write_plots(folder: Path, scored: Scored, evaluation: EvaluationRecord, params: EvaluateParams) -> None:
    """Writes confusion, calibration, rounds, recall, risk-coverage and learning curve; only the header if no data."""
    classes = scored.classes
    predictions = [classes[index] for index in scored.predicted]
    pairs = [
        {"label": label, "predicted": predicted}
        for label, predicted in zip(scored.frame["label"], predictions, strict=True)
    ]
    _write_csv(folder / CONFUSION, pairs, ["label", "predicted"])
    bins = calibration_bins(scored.probabilities, scored.truth, params.calibration_bins)
    _write_csv(folder / CALIBRATION, bins, ["confidence", "accuracy", "rows"])
    rounds = [
        {"round": result.round, "accuracy": result.accuracy.value} for result in evaluation.rounds if result.accuracy
    ]
    _write_csv(folder / ROUNDS, rounds, ["round", "accuracy"])
    recalls = [
        {"class": result.name, "recall": result.recall.value} for result in evaluation.per_class if result.recall
    ]
    _write_csv(folder / RECALL, recalls, ["class", "recall"])
    curve = risk_coverage_curve(scored.confidence, scored.right)
    _write_csv(folder / RISK_COVERAGE, curve, ["coverage", "error", "confidence"])
    points = [] if evaluation.learning_curve is None else list(_learning_curve_points(evaluation.learning_curve))
    _write_csv(folder / LEARNING_CURVE, points, ["labels", "accuracy", "low", "high", "of"])


def _learning_curve_points(learning_curve: ExtrapolatedCurveRecord) -> Iterator[dict[str, object]]:
    for kind, points in (("measured", learning_curve.points), ("expected", learning_curve.expected)):
        for point in points:
            accuracy = point.accuracy
            ends = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
            yield {"labels": point.labels, **ends, "of": kind}


def write_losses(path: Path, model: Path) -> None:
    """Writes the mean training loss per step over the fits of the learner with the most steps.

    Writes only the header if no learner has steps.

    DVC draws one line per revision: a file with one series per fit would become a zigzag through all of them.
    """
    losses = read_losses(model)
    losses = losses.assign(learner=losses["model"].str.replace(r" (fold|final).*", "", regex=True))
    last_steps = losses.groupby("learner")["step"].max()
    longest = losses[losses["learner"] == last_steps.idxmax()] if len(last_steps) else losses
    by_step = longest.groupby("step")["loss"].agg(["mean", "count"])
    complete = by_step[by_step["count"] == by_step["count"].max()]  # fits may stop early
    rows = [{"step": int(step), "loss": f"{loss:.5f}"} for step, loss in complete["mean"].items()]
    _write_csv(path, rows, ["step", "loss"])


def read_losses(model: Path) -> pd.DataFrame:
    """The training losses in `losses.csv` of a round: model, step, loss. No rows if no model is trained in steps."""
    path = model / LOSSES
    if not path.is_file():
        return pd.DataFrame(
            {"model": pd.Series(dtype=str), "step": pd.Series(dtype=int), "loss": pd.Series(dtype=float)}
        )
    with reading(path):
        return pd.read_csv(path)


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: spreadsheet_cell(value) for name, value in row.items()} for row in rows)
