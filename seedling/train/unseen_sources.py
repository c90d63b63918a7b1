"""Rows of a source that no model learnt from: each site, file or folder in turn is left out of training, and a quick learner is asked about its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import source_of
from seedling.parallel.executor import in_threads
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, around_mean, by_group, paired_difference, wilson
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import Judged
from seedling.train.cross_validation import TrainingData
from seedling.train.tally import Candidate

LEARNER = "logistic_regression"
MOST_SOURCES = 20
SECONDS = {
    "quick": 5.0,
    "normal": 20.0,
    "thorough": 300.0,
}  # of one core, predicted: fewer sources where it would take longer
FEWEST = 5  # judged rows of a source that say anything
DRAWS = 2_000


def unseen_sources(
    bench: TrainingData, judged: Judged, origins: Sequence[str | None], facts: WorkspaceConfig
) -> dict[str, Any] | None:
    """How a quick learner does on a source that it did not learn from, beside the same rows where only their fold was left out. None for fewer
    than two sources whose classes others have too.

    origins: of the labeled rows. {"sources", "rows", "accuracy": on rows of unseen sources, "difference": from seen ones (training rows are
    not as many: the source's are gone, another fold's are there), "hardest": the worst of so many}. Intervals are over sources, that of the
    hardest is Wilson's.
    """
    rows, folds = bench.rows, bench.rows.folds
    labels, fold = rows.targets[rows.labeled].argmax(axis=1), rows.fold[rows.labeled]
    source, group = np.array([source_of(one) for one in origins]), rows.group[rows.labeled]
    judges = np.zeros(len(labels), dtype=bool)
    judges[judged.place] = True

    def split(name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows that may teach (no copy of the source's among them), and its judged rows whose class those have."""
        taught = np.flatnonzero((source != name) & ~np.isin(group, group[source == name]))
        return taught, np.flatnonzero((source == name) & judges & np.isin(labels, labels[taught]))

    able = [one for one in map(str, np.unique(source)) if len(split(one)[1]) >= FEWEST]
    models = predicted_seconds(Candidate(LEARNER, ("collected",)), bench) / (len(folds) + 1)
    many = min(MOST_SOURCES, int(SECONDS[facts.effort] / max(models, 1e-9)) - len(folds), len(able))
    tried = sorted(sorted(able, key=lambda one: derived_seed(facts.seed, "unseen", one))[: max(many, 0)])
    if len(folds) < 2 or len(tried) < 2:
        return None

    def away(name: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        taught, asked = split(name)
        return asked, bench.said_by(LEARNER, taught, asked).argmax(axis=1) == labels[asked]

    def at_home(held: int) -> NDArray[np.bool_]:
        asked = np.flatnonzero(fold == held)
        right = np.zeros(len(labels), dtype=bool)
        right[asked] = bench.said_by(LEARNER, np.flatnonzero(fold != held), asked).argmax(axis=1) == labels[asked]
        return right

    found = in_threads(away, tried)
    home = np.any(in_threads(at_home, folds), axis=0)
    place = np.concatenate([asked for asked, _ in found])
    right = np.concatenate([one for _, one in found])
    return _compared(home[place], right, source[place], facts)


def _compared(
    home: NDArray[np.bool_], away: NDArray[np.bool_], source: NDArray[np.str_], facts: WorkspaceConfig
) -> dict[str, Any]:
    """What of the same rows was right where their source was seen and where it was not. All: (n_rows,)."""
    before, hits = home.astype(np.float64), away.astype(np.float64)
    rng = np.random.default_rng(derived_seed(facts.seed, "unseen sources"))
    difference = paired_difference(before, hits, source, larger_is_better=True, draws=DRAWS, rng=rng)
    low, high = around_mean(by_group(np.ones(len(hits)), source), by_group(hits, source), 0.95)
    of_rows = wilson(int(hits.sum()), len(hits))  # sources that are all alike prove no more than their rows do
    accuracy = Estimate(of_rows.value, max(0.0, min(low, of_rows.low)), min(1.0, max(high, of_rows.high)))
    names = sorted({*source.tolist()})
    worst = min(names, key=lambda one: (float(hits[source == one].mean()), one))
    right, many = int(hits[source == worst].sum()), int((source == worst).sum())
    return {
        "sources": len(names),
        "rows": len(hits),
        "accuracy": accuracy.rounded(),
        "difference": difference.rounded(),
        "hardest": {"source": worst, "accuracy": wilson(right, many).rounded(), "rows": many},
    }
