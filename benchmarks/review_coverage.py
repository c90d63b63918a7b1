"""Measure how often the interval of the label error rate contains the true rate, over simulated reviewers.

    python benchmarks/review_coverage.py [--reviewers 1000] [--jobs 2]

Each reviewer checks other data: 3,000 labeled rows and 3,000 rows with only a pseudo-label, of five classes. The shares
of wrong labels and of wrong pseudo-labels are drawn between 1 and 20 %, or fixed. Of 2,000 answers, a tenth are random
rows without a suggestion, 60 repeat one of these, and the others are rows that the queue selected, first those with a
wrong label, with the suggestion shown. The answers are read as a review log is, and the interval is that of the report.
A reviewer errs on any row with the same probability, independently each time, unless stated otherwise.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from record import Measurement, write

from seedling.review.log import ReviewerFile
from seedling.review.records import Answer, Purpose
from seedling.review.statistics import error_rate
from seedling.review.tally import LABEL_KINDS, LabelKind, ReviewTally
from seedling.stats.statistics import wilson

CLASSES, ROWS, ANSWERS, RANDOM, SECOND = 5, 3_000, 2_000, 200, 60


@dataclass(frozen=True)
class ReviewerKind:
    """How a simulated reviewer answers.

    wrong: the probability of a wrong answer; accepts: of accepting a suggestion unseen; repeats_mistakes: wrong about
    the same rows each time; confusable: a wrong label is always the next class, and so is a wrong answer; second: the
    probability of a wrong answer of a second reviewer, who gets the rows that are otherwise repeated.
    """

    name: str
    wrong: float = 0.0
    accepts: float = 0.0
    repeats_mistakes: bool = False
    confusable: bool = False
    second: float | None = None
    second_looks: int = SECOND


KINDS = (
    ReviewerKind("never wrong"),
    ReviewerKind("wrong 2 % of the time", 0.02),
    ReviewerKind("wrong 5 % of the time", 0.05),
    ReviewerKind("wrong 10 % of the time", 0.10),
    ReviewerKind("accepts half of all suggestions unseen", accepts=0.5),
    ReviewerKind("wrong 5 % of the time, accepts half of all suggestions unseen", 0.05, 0.5),
    ReviewerKind("wrong 5 % of the time, always the same two classes", 0.05, confusable=True),
    ReviewerKind("two reviewers, wrong 2 and 8 % of the time", 0.02, second=0.08),
    ReviewerKind("wrong 5 % of the time, no row answered twice", 0.05, second_looks=0),
    ReviewerKind("wrong 5 % of the time, with the same mistake each time", 0.05, repeats_mistakes=True),
)
FIXED_RATES = (0.02, 0.05, 0.10)  # for the reviewers that are wrong 0 or 5 % of the time


@dataclass
class SimulatedLog:
    """The data of one reviewer, and the answers so far. truth, label: (n_rows,) class indices."""

    kind: ReviewerKind
    rng: np.random.Generator
    rates: tuple[float, float]
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.truth = self.rng.integers(CLASSES, size=2 * ROWS)
        is_wrong = np.zeros(2 * ROWS, dtype=bool)
        for start, rate in zip((0, ROWS), self.rates, strict=True):
            is_wrong[start + self.rng.permutation(ROWS)[: round(rate * ROWS)]] = True
        self.label = np.where(is_wrong, self.other_class(self.truth), self.truth)
        self.is_wrong = is_wrong
        self.mistakes = self.rng.random(2 * ROWS) < self.kind.wrong

    def other_class(self, truth: np.ndarray) -> np.ndarray:
        """A wrong class of each row."""
        steps = np.ones(len(truth), dtype=int) if self.kind.confusable else self.rng.integers(1, CLASSES, len(truth))
        return np.asarray((truth + steps) % CLASSES)

    def answer(self, rows: np.ndarray, purpose: Purpose, *, reviewer: str = "anna", is_shown: bool = False) -> None:
        """Add answers about these rows; labels of rows below ROWS are those of the data, others are suggestions."""
        wrong = self.kind.wrong if reviewer == "anna" else self.kind.second or 0.0
        errs = self.mistakes[rows] if self.kind.repeats_mistakes else self.rng.random(len(rows)) < wrong
        labels = np.where(errs, self.other_class(self.truth[rows]), self.truth[rows])
        if is_shown:
            labels = np.where(self.rng.random(len(rows)) < self.kind.accepts, self.label[rows], labels)
        lines = self.answers.setdefault(reviewer, [])
        number = sum(len(lines) for lines in self.answers.values())
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            number += 1
            lines.append(
                Answer(
                    id=uuid.UUID(int=number).hex,
                    reviewer=reviewer,
                    row_id=uuid.UUID(int=row).hex,
                    question="label",
                    answer="label",
                    label=str(label),
                    previous_label=str(self.label[row]) if row < ROWS else None,
                    suggestion=str(self.label[row]),
                    suggestion_shown=is_shown,
                    purpose=purpose,
                    written_at=f"{number:09d}",
                )
            )


def simulate(kind: ReviewerKind, rate: float | None, seed: int) -> dict[LabelKind, tuple[float, ...]]:
    """Simulate one reviewer: for the interval and for Wilson's, whether it contains the rate, and its width."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(0.01, 0.2, 2)
    log = SimulatedLog(kind, rng, (drawn[0], drawn[1]) if rate is None else (rate, rate))
    sample = [start + rng.permutation(ROWS)[: RANDOM // 2] for start in (0, ROWS)]
    random_rows = np.concatenate(sample)
    by_second = random_rows[: RANDOM // 4] if kind.second is not None else random_rows[:0]
    queue = np.concatenate([np.flatnonzero(log.is_wrong), rng.permutation(2 * ROWS)])
    log.answer(np.unique(queue[: ANSWERS - RANDOM - kind.second_looks]), "queue", is_shown=True)
    log.answer(np.setdiff1d(random_rows, by_second), "random")
    log.answer(by_second, "random", reviewer="ben")
    again = rng.permutation(random_rows)[: kind.second_looks]
    if kind.second is None:
        log.answer(again, "repeat")
    else:
        is_by_second = np.isin(again, by_second)
        log.answer(again[~is_by_second], "overlap", reviewer="ben")
        log.answer(again[is_by_second], "overlap")
    tally = ReviewTally({name: ReviewerFile(lines=list(lines)) for name, lines in log.answers.items()})
    results: dict[LabelKind, tuple[float, ...]] = {}
    for kind_of_label, start in zip(LABEL_KINDS, (0, ROWS), strict=True):
        truth = float(log.is_wrong[start : start + ROWS].mean())
        estimate = error_rate(tally, kind_of_label, CLASSES, ROWS)
        if estimate is None:
            raise ValueError("a simulated reviewer has random rows")
        results[kind_of_label] = tuple(
            value
            for interval in (estimate.estimate, estimate.contradicted)
            for value in (interval.low <= truth <= interval.high, interval.high - interval.low)
        )
    return results


def measure(kind: ReviewerKind, rate: float | None, reviewers: int, pool: ProcessPoolExecutor) -> list[Measurement]:
    """The coverage and the mean width of the intervals over simulated reviewers."""
    command = f"python benchmarks/review_coverage.py --reviewers {reviewers}"
    first_seed = reviewers * settings().index((kind, rate))
    seeds = range(first_seed, first_seed + reviewers)
    results = list(pool.map(partial(simulate, kind, rate), seeds, chunksize=25))
    shares = "1 to 20 %" if rate is None else f"{100 * rate:.0f} %"
    measurements = []
    for labels in LABEL_KINDS if rate is None else LABEL_KINDS[:1]:
        setting = f"{kind.name}; {shares} of the {labels.replace('_', '-')} wrong"
        columns = list(zip(*(result[labels] for result in results), strict=True))
        for system, covers, widths in (
            ("Seedling", columns[0], columns[1]),
            ("share of contradicted labels, Wilson", columns[2], columns[3]),
        ):
            covered = wilson(int(sum(covers)), reviewers)
            values = (covered.value, covered.low, covered.high)
            measurements.append(Measurement(setting, system, "coverage", *values, "share", reviewers, command))
            width = float(np.mean(widths))
            error = 1.96 * float(np.std(widths)) / reviewers**0.5
            values = (width, width - error, width + error)
            measurements.append(Measurement(setting, system, "mean width", *values, "share", reviewers, command))
    print(setting, [(entry.metric, round(entry.value, 3)) for entry in measurements], flush=True)
    return measurements


def settings() -> Sequence[tuple[ReviewerKind, float | None]]:
    """Every kind with rates that are drawn, and two kinds with fixed ones."""
    return [(kind, None) for kind in KINDS] + [(kind, rate) for kind in (KINDS[0], KINDS[2]) for rate in FIXED_RATES]


def main() -> None:
    """Simulate all kinds of reviewers and write results/review_coverage.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviewers", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        measurements = [entry for setting in settings() for entry in measure(*setting, arguments.reviewers, pool)]
    write("review_coverage", measurements)


if __name__ == "__main__":
    main()
