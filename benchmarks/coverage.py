"""Do the intervals cover? Simulated test splits of which the truth is known: how often each 95 % interval holds it.

    python benchmarks/coverage.py [--draws 1000]

Four classes of 50, 30, 15 and 5 % of the rows lie about four points in space; the model says their right probabilities, or sharper
ones. Or there are 3, 10, 30 or 50 classes, and the model is right nearly always, or often, as it says. The truth is the metric on two million rows. A draw is a test split; where it is grouped, one to three rows are the same. The
paired difference is between that model and one that sees blurred rows, on the same split.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from record import Found, write

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
class FitContext:
    """Rows of a split, how sharp the model is (1: calibrated), whether rows come in groups; classes: 0 are the four about their points, else so
    many whose probabilities the model knows, right nearly always where `sharp` is large.
    """

    rows: int
    temperature: float = 1.0
    grouped: bool = False
    classes: int = 0
    sharp: float = 0.0

    def __str__(self) -> str:
        if self.classes:
            return f"{self.rows} rows, {self.classes} classes, {'surely right' if self.sharp > 5 else 'often right'}"
        kind = "calibrated" if self.temperature == 1 else "too sure"
        return f"{self.rows} rows{', grouped' if self.grouped else ''}, {kind}"

    @property
    def population(self) -> FitContext:
        """What it is drawn from, two million rows of it."""
        return FitContext(2_000_000 // max(1, self.classes // 4), self.temperature, False, self.classes, self.sharp)


SETTINGS = [
    FitContext(100),
    FitContext(300),
    FitContext(300, 0.6),
    FitContext(1000, 0.6),
    FitContext(300, 0.6, grouped=True),
    FitContext(1000, 0.6, grouped=True),
    FitContext(30, classes=3, sharp=15),
    FitContext(100, classes=3, sharp=15),
    FitContext(100, classes=10, sharp=10),
    FitContext(200, classes=50, sharp=10),
    FitContext(200, classes=50, sharp=5),
    FitContext(60, classes=30, sharp=5),
]


def split(setting: FitContext, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Probabilities, those of the model that sees blurred rows, the truth, and groups."""
    rows = setting.rows
    if setting.classes:
        logits = setting.sharp * rng.normal(size=(rows, setting.classes))
        both = [softmax(logits), softmax(logits + setting.sharp / 4 * rng.normal(size=logits.shape))]
        truth = np.minimum((both[0].cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1), setting.classes - 1)
        return *both, truth, np.arange(rows).astype(str)
    truth = rng.choice(len(SHARES), size=rows, p=SHARES)
    seen = CENTERS[truth] + rng.normal(size=(rows, 3))

    def said(points: np.ndarray) -> np.ndarray:
        return softmax((np.log(SHARES) - ((points[:, None] - CENTERS) ** 2).sum(axis=2) / 2) / setting.temperature)

    both = [said(seen), said(seen + BLUR * rng.normal(size=seen.shape))]
    groups = np.arange(rows)
    if setting.grouped:
        groups = np.repeat(groups, rng.integers(1, 4, size=rows))[:rows]
        truth, both = truth[groups], [one[groups] for one in both]
    return *both, truth, groups.astype(str)


def differences(probabilities: np.ndarray, blurred: np.ndarray, truth: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """A row's score under either model, by metric."""
    both = (blurred, probabilities)
    return {
        "accuracy, paired difference": tuple((one.argmax(axis=1) == truth).astype(float) for one in both),
        "log_loss, paired difference": tuple(log_loss_of_rows(one, truth) for one in both),
    }


def truths(population: FitContext) -> dict[str, float]:
    """Each metric on very many rows."""
    probabilities, blurred, truth, groups = split(population, np.random.default_rng(0))
    few = EvaluateParams(bootstrap_draws=200)
    found = {name: one["value"] for name, one in with_intervals(probabilities, truth, groups, few, 0).items() if one}
    return found | {
        name: float((new - old).mean()) for name, (old, new) in differences(probabilities, blurred, truth).items()
    }


def covered(setting: FitContext, seed: int, known: dict[str, float]) -> dict[str, bool]:
    """Of one split: whether each interval holds the truth."""
    probabilities, blurred, truth, groups = split(setting, np.random.default_rng([1, seed]))
    found = with_intervals(probabilities, truth, groups, PARAMS, seed)
    result = {name: one["low"] <= known[name] <= one["high"] for name, one in found.items() if one}
    for name, (old, new) in differences(probabilities, blurred, truth).items():
        wrong = difference_if_wrong(blurred, probabilities, log_losses) if name.startswith("log_loss") else 1.0
        one = paired_difference(
            old, new, groups, larger_is_better=True, draws=1000, rng=np.random.default_rng(seed), wrong=wrong
        )
        result[name] = one.low <= known[name] <= one.high
    return result


def main() -> None:
    """Runs the draws and writes results/coverage.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--draws", type=int, default=1000)
    draws: int = parser.parse_args().draws
    command, found = f"python benchmarks/coverage.py --draws {draws}", list[Found]()
    known = {one: truths(one) for one in dict.fromkeys(setting.population for setting in SETTINGS)}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as processes:
        for setting in SETTINGS:
            of_all = [known[setting.population]] * draws
            kept = list(processes.map(covered, [setting] * draws, range(draws), of_all, chunksize=25))
            for name in kept[0]:
                one = wilson(sum(draw[name] for draw in kept), draws)
                words = name.replace("_", " ")
                found.append(
                    Found(str(setting), "Seedling", words, one.value, one.low, one.high, "share", draws, command)
                )
    write("coverage", found)


if __name__ == "__main__":
    main()
