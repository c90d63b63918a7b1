"""Measure the coverage of the report's 95 % intervals on simulated test splits with known truth.

    python benchmarks/coverage.py [--draws 1000]

Either four classes with 50, 30, 15 and 5 % of the rows lie around four points in space, and the model predicts the
correct probabilities or is overconfident. Or there are 3, 10, 30 or 50 classes, and a calibrated model is nearly
always or often right. The true value is the metric on two million rows. A draw is a test split. In grouped splits,
one to three rows are identical. The paired difference is between the model and a model that gets blurred rows, on the
same split.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from record import Measurement, write

from seedling.config.params import EvaluateParams
from seedling.evaluate.metrics import with_intervals
from seedling.stats.statistics import (
    difference_if_wrong,
    log_loss_of_rows,
    log_losses,
    paired_difference,
    softmax,
    wilson,
)

SHARES = np.array([0.5, 0.3, 0.15, 0.05])
CENTERS = np.array([[1.8, 0, 0], [0, 1.8, 0], [0, 0, 1.8], [1.2, 1.2, 1.2]])
PARAMS = EvaluateParams(bootstrap_draws=1000)
BLUR = 0.5


@dataclass(frozen=True)
class SplitSetting:
    """A simulated test split.

    rows: number of rows. temperature: 1 for a calibrated model, below 1 for an overconfident one. grouped: rows come
    in groups. classes: 0 for the four classes around points, else the number of classes. sharp: how often the model is
    right with `classes` above 0; large values mean nearly always.
    """

    rows: int
    temperature: float = 1.0
    grouped: bool = False
    classes: int = 0
    sharp: float = 0.0

    def __str__(self) -> str:
        if self.classes:
            accuracy = "nearly always right" if self.sharp > 5 else "often right"
            return f"{self.rows} rows, {self.classes} classes, {accuracy}"
        kind = "calibrated" if self.temperature == 1 else "too sure"
        return f"{self.rows} rows{', grouped' if self.grouped else ''}, {kind}"

    @property
    def population(self) -> SplitSetting:
        """The population of this split: two million rows."""
        return SplitSetting(2_000_000 // max(1, self.classes // 4), self.temperature, False, self.classes, self.sharp)


SETTINGS = [
    SplitSetting(100),
    SplitSetting(300),
    SplitSetting(300, 0.6),
    SplitSetting(1000, 0.6),
    SplitSetting(300, 0.6, grouped=True),
    SplitSetting(1000, 0.6, grouped=True),
    SplitSetting(30, classes=3, sharp=15),
    SplitSetting(100, classes=3, sharp=15),
    SplitSetting(100, classes=10, sharp=10),
    SplitSetting(200, classes=50, sharp=10),
    SplitSetting(200, classes=50, sharp=5),
    SplitSetting(60, classes=30, sharp=5),
]


def split(setting: SplitSetting, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return the probabilities of both models (clear and blurred rows), the truth and the groups."""
    rows = setting.rows
    if setting.classes:
        logits = setting.sharp * rng.normal(size=(rows, setting.classes))
        both = [softmax(logits), softmax(logits + setting.sharp / 4 * rng.normal(size=logits.shape))]
        truth = np.minimum((both[0].cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1), setting.classes - 1)
        return *both, truth, np.arange(rows).astype(str)
    truth = rng.choice(len(SHARES), size=rows, p=SHARES)
    seen = CENTERS[truth] + rng.normal(size=(rows, 3))

    def predict(points: np.ndarray) -> np.ndarray:
        return softmax((np.log(SHARES) - ((points[:, None] - CENTERS) ** 2).sum(axis=2) / 2) / setting.temperature)

    both = [predict(seen), predict(seen + BLUR * rng.normal(size=seen.shape))]
    groups = np.arange(rows)
    if setting.grouped:
        groups = np.repeat(groups, rng.integers(1, 4, size=rows))[:rows]
        truth, both = truth[groups], [probabilities[groups] for probabilities in both]
    return *both, truth, groups.astype(str)


def differences(probabilities: np.ndarray, blurred: np.ndarray, truth: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """Return the score per row of either model, by metric."""
    both = (blurred, probabilities)
    return {
        "accuracy, paired difference": tuple(
            (probabilities_of_model.argmax(axis=1) == truth).astype(float) for probabilities_of_model in both
        ),
        "log_loss, paired difference": tuple(
            log_loss_of_rows(probabilities_of_model, truth) for probabilities_of_model in both
        ),
    }


def truths(population: SplitSetting) -> dict[str, float]:
    """Return each metric on the complete population."""
    probabilities, blurred, truth, groups = split(population, np.random.default_rng(0))
    params = EvaluateParams(bootstrap_draws=200)
    values = {
        name: interval.value
        for name, interval in with_intervals(probabilities, truth, groups, params, 0).items()
        if interval
    }
    return values | {
        name: float((new - old).mean()) for name, (old, new) in differences(probabilities, blurred, truth).items()
    }


def covered(setting: SplitSetting, seed: int, true_values: dict[str, float]) -> dict[str, bool]:
    """Return, for one split, whether each interval contains the true value."""
    probabilities, blurred, truth, groups = split(setting, np.random.default_rng([1, seed]))
    intervals = with_intervals(probabilities, truth, groups, PARAMS, seed)
    result = {
        name: interval.low <= true_values[name] <= interval.high for name, interval in intervals.items() if interval
    }
    for name, (old, new) in differences(probabilities, blurred, truth).items():
        wrong = difference_if_wrong(blurred, probabilities, log_losses) if name.startswith("log_loss") else 1.0
        interval = paired_difference(
            old, new, groups, larger_is_better=True, draws=1000, rng=np.random.default_rng(seed), wrong=wrong
        )
        result[name] = interval.low <= true_values[name] <= interval.high
    return result


def main() -> None:
    """Run the draws and write results/coverage.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--draws", type=int, default=1000)
    draws: int = parser.parse_args().draws
    command, measurements = f"python benchmarks/coverage.py --draws {draws}", list[Measurement]()
    true_values = {
        population: truths(population) for population in dict.fromkeys(setting.population for setting in SETTINGS)
    }
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as processes:
        for setting in SETTINGS:
            true_values_of_draws = [true_values[setting.population]] * draws
            covered_of_draws = list(
                processes.map(covered, [setting] * draws, range(draws), true_values_of_draws, chunksize=25)
            )
            for name in covered_of_draws[0]:
                interval = wilson(sum(draw[name] for draw in covered_of_draws), draws)
                metric_name = name.replace("_", " ")
                measurements.append(
                    Measurement(
                        str(setting),
                        "Seedling",
                        metric_name,
                        interval.value,
                        interval.low,
                        interval.high,
                        "share",
                        draws,
                        command,
                    )
                )
    write("coverage", measurements)


if __name__ == "__main__":
    main()
