"""How much hangs on the luck of the draw: cross-validation again with the rows dealt into other folds, by learners that take seconds."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from seedling.config.params import WorkspaceConfig
from seedling.parallel.executor import in_threads
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, Floats, wilson
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import Judged
from seedling.train.cross_validation import TrainingData
from seedling.train.tally import Candidate

LEARNERS = ("logistic_regression", "svm")
REPEATS = {"quick": 2, "normal": 5, "thorough": 10}
SECONDS = {
    "quick": 5.0,
    "normal": 20.0,
    "thorough": 600.0,
}  # of one core, predicted: what takes longer is repeated less
FEWEST = 2  # repeats that say anything


def repeated(bench: TrainingData, judged: Judged, facts: WorkspaceConfig) -> dict[str, Any] | None:
    """Accuracy on the judged rows in every fold of several dealings, near-duplicates together; None where it would take too long, or rows are
    too few to be dealt again.

    {"repeats", "folds", "rows"; "splits": by the better learner, the least, the quartiles' and the most accurate fold; "learners": each with
    its "accuracy"; "difference": of the second less the first, and "agree": the share of dealings in which the same one is ahead as in the mean}. Intervals
    take into account that training sets overlap (Nadeau and Bengio 2003).
    """
    rows = bench.rows
    folds, seconds = len(rows.folds), sum(predicted_seconds(Candidate(one, ("collected",)), bench) for one in LEARNERS)
    repeats = min(REPEATS[facts.effort], int(SECONDS[facts.effort] / max(seconds, 1e-9)))
    if folds < 2 or repeats < FEWEST or len(judged.place) == 0:
        return None
    labels = rows.targets[rows.labeled].argmax(axis=1)
    dealt = [
        _dealt(labels, rows.group[rows.labeled], folds, derived_seed(facts.seed, "dealt", one))
        for one in range(repeats)
    ]
    if any(one is None for one in dealt):
        return None
    judges = np.zeros(len(labels), dtype=bool)
    judges[judged.place] = True
    right = np.zeros((len(LEARNERS), repeats, folds))
    asked = np.zeros((repeats, folds))

    def judge(task: tuple[int, int, int]) -> None:
        learner, repeat, fold = task
        held: NDArray[np.bool_] = dealt[repeat] == fold  # type: ignore[assignment]
        tested = np.flatnonzero(held & judges)
        if len(tested):
            said = bench.said_by(LEARNERS[learner], np.flatnonzero(~held), tested).argmax(axis=1)
            right[task] = (said == labels[tested]).mean()
        asked[repeat, fold] = len(tested)

    in_threads(judge, list(product(range(len(LEARNERS)), range(repeats), range(folds))))
    if (asked == 0).any():
        return None
    better = int(right.mean(axis=(1, 2)).argmax())
    by_repeat = right[1].mean(axis=1) - right[0].mean(axis=1)
    agree = float((np.sign(by_repeat) == np.sign(by_repeat.mean())).mean())
    quantiles = np.quantile(right[better], [0, 0.25, 0.5, 0.75, 1])
    return {
        "repeats": repeats,
        "folds": folds,
        "rows": len(judged.place),
        "splits": {"learner": LEARNERS[better], "accuracy": [round(float(one), 6) for one in quantiles]},
        "learners": [
            {
                "learner": name,
                "accuracy": _no_surer(corrected(right[place].ravel(), folds, (0.0, 1.0)), len(judged.place)),
            }
            for place, name in enumerate(LEARNERS)
        ],
        "difference": corrected((right[1] - right[0]).ravel(), folds, (-1.0, 1.0)).rounded(),
        "agree": round(agree, 6),
    }


def _dealt(labels: NDArray[np.intp], groups: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.intp] | None:
    """(n_rows,): each row's fold, classes spread evenly as far as groups allow; None where there are fewer groups than folds, or no
    class has as many rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < folds or np.bincount(labels).max() < folds:
        return None
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    result = np.zeros(len(labels), dtype=np.intp)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The least populated class"
        )  # it is learnt where it is, and missed where it is not
        for fold, (_, held) in enumerate(dealer.split(np.zeros((len(labels), 1)), labels, groups)):
            result[held] = fold
    return result


def _no_surer(found: Estimate, rows: int) -> dict[str, float]:
    """The interval, no narrower than Wilson's of so many rows: splits that are all alike prove no more than their rows do."""
    own = wilson(round(found.value * rows), rows)
    return Estimate(found.value, min(found.low, own.low), max(found.high, own.high)).rounded()


def corrected(found: Floats, folds: int, within: tuple[float, float], confidence: float = 0.95) -> Estimate:
    """The mean over all splits with the interval of the corrected resampled t-test: variance × (1/splits + test rows/training rows)."""
    splits, mean = len(found), float(found.mean())
    variance = float(found.var(ddof=1)) * (1 / splits + 1 / (folds - 1))
    reach = float(stats.t.ppf((1 + confidence) / 2, splits - 1)) * variance**0.5
    return Estimate(mean, max(within[0], mean - reach), min(within[1], mean + reach))
