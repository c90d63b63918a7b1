"""Rows of classes that nobody named: each class in turn is taken for unknown, and a quick learner of the others is asked how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from seedling.config.params import WorkspaceConfig
from seedling.parallel.executor import in_threads
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, softmax
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import Judged
from seedling.train.cross_validation import TrainingData
from seedling.train.tally import Candidate

LEARNER = "logistic_regression"
MOST_CLASSES = 20
SECONDS = {
    "quick": 5.0,
    "normal": 20.0,
    "thorough": 300.0,
}  # of one core, predicted: fewer classes where it would take longer
FEWEST = 3  # rows of a class, and rows of the others, that say anything


def unknown_classes(
    bench: TrainingData, judged: Judged, classes: Sequence[str], facts: WorkspaceConfig
) -> dict[str, Any] | None:
    """How well confidence tells a class that was left out of training from rows of the others that were held out: AUROC, the mean over such
    classes with Student's interval, and the class that is told least. None for fewer than three such classes.

    What out-of-scope rows would show, as far as the labeled rows can (Hendrycks and Gimpel 2017 score by confidence too).
    """
    from sklearn.metrics import roc_auc_score

    rows, folds = bench.rows, bench.rows.folds
    labels, fold = rows.targets[rows.labeled].argmax(axis=1), rows.fold[rows.labeled]
    judges = np.zeros(len(labels), dtype=bool)
    judges[judged.place] = True
    able = [one for one in range(len(classes)) if (judges & (labels == one)).sum() >= FEWEST]
    a_model = predicted_seconds(Candidate(LEARNER, ("collected",)), bench) / (len(folds) + 1)
    many = min(MOST_CLASSES, int(SECONDS[facts.effort] / max(a_model, 1e-9)), len(able))
    tried = sorted(sorted(able, key=lambda one: derived_seed(facts.seed, "unknown", classes[one]))[:many])
    if len(folds) < 2 or len(tried) < 3:
        return None

    def judge(place: int) -> float | None:
        left_out, held = tried[place], folds[place % len(folds)]
        others = labels != left_out
        taught, inside = np.flatnonzero(others & (fold != held)), np.flatnonzero(others & (fold == held) & judges)
        if len(inside) < FEWEST or len(np.unique(labels[taught])) < 2:
            return None
        outside = np.flatnonzero(~others & judges)
        asked = np.concatenate([inside, outside])
        sure = softmax(bench.said_by(LEARNER, taught, asked)).max(axis=1)
        return float(roc_auc_score(np.arange(len(asked)) < len(inside), sure))

    found = in_threads(judge, list(range(len(tried))))
    known = [(one, classes[tried[place]]) for place, one in enumerate(found) if one is not None]
    if len(known) < 3:
        return None
    values = np.array([one for one, _ in known])
    reach = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    hardest = min(known)
    return {
        "classes": len(values),
        "auroc": Estimate(mean, max(0.0, mean - reach), min(1.0, mean + reach)).rounded(),
        "hardest": {"class": hardest[1], "auroc": round(hardest[0], 6)},
    }
