"""Unseen sources: leave out each site, file or folder in turn and measure accuracy on its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import source_of
from seedling.parallel.executor import in_threads
from seedling.records.candidates import HardestSourceRecord, UnseenSourcesRecord
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, around_mean, by_group, paired_difference, wilson
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import EvaluationRows
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData

LEARNER = "logistic_regression"
MAX_SOURCES = 20
BUDGET_SECONDS = {"quick": 5.0, "normal": 20.0, "thorough": 300.0}  # of one core, predicted; it limits the sources
MIN_ROWS_PER_SOURCE = 5  # evaluation rows
BOOTSTRAP_SAMPLES = 2_000


def unseen_sources(
    data: TrainingData, evaluation_rows: EvaluationRows, origins: Sequence[str | None], config: WorkspaceConfig
) -> UnseenSourcesRecord | None:
    """A quick learner's accuracy on sources that are left out of training, compared with leaving out only the fold.

    None for fewer than two sources whose classes occur in other sources. The two training sets differ in size.
    Intervals are over sources, that of the hardest source is a Wilson interval.

    origins: (n_labeled,).
    """
    rows, folds = data.rows, data.rows.folds
    labels, fold = rows.targets[rows.labeled].argmax(axis=1), rows.fold[rows.labeled]
    source, group = np.array([source_of(origin) for origin in origins]), rows.group[rows.labeled]
    is_evaluated = np.zeros(len(labels), dtype=bool)
    is_evaluated[evaluation_rows.labeled_index] = True

    def split(name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Training rows without the source and its near-duplicates; the source's evaluation rows of their classes."""
        train_rows = np.flatnonzero((source != name) & ~np.isin(group, group[source == name]))
        test_rows = np.flatnonzero((source == name) & is_evaluated & np.isin(labels, labels[train_rows]))
        return train_rows, test_rows

    eligible = [name for name in map(str, np.unique(source)) if len(split(name)[1]) >= MIN_ROWS_PER_SOURCE]
    seconds_per_model = predicted_seconds(Candidate(LEARNER, ("collected",)), data) / (len(folds) + 1)
    n_models = int(BUDGET_SECONDS[config.effort] / max(seconds_per_model, 1e-9))
    n_tried = max(min(MAX_SOURCES, n_models - len(folds), len(eligible)), 0)
    tried = sorted(sorted(eligible, key=lambda name: derived_seed(config.seed, "unseen", name))[:n_tried])
    if len(folds) < 2 or len(tried) < 2:
        return None

    def correct_if_unseen(name: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        train_rows, test_rows = split(name)
        predicted = data.fit_predict(LEARNER, train_rows, test_rows).argmax(axis=1)
        return test_rows, predicted == labels[test_rows]

    def correct_if_seen(held_out_fold: int) -> NDArray[np.bool_]:
        train_rows, test_rows = np.flatnonzero(fold != held_out_fold), np.flatnonzero(fold == held_out_fold)
        correct = np.zeros(len(labels), dtype=bool)
        correct[test_rows] = data.fit_predict(LEARNER, train_rows, test_rows).argmax(axis=1) == labels[test_rows]
        return correct

    unseen_results = in_threads(correct_if_unseen, tried)
    seen = np.any(in_threads(correct_if_seen, folds), axis=0)
    test_rows = np.concatenate([positions for positions, _ in unseen_results])
    unseen = np.concatenate([correct for _, correct in unseen_results])
    return _summary(seen[test_rows], unseen, source[test_rows], config)


def _summary(
    seen: NDArray[np.bool_], unseen: NDArray[np.bool_], source: NDArray[np.str_], config: WorkspaceConfig
) -> UnseenSourcesRecord:
    """See `unseen_sources`.

    seen, unseen: (n_rows,), whether the same rows are predicted correctly with and without their source in training;
    source: (n_rows,).
    """
    before, after = seen.astype(np.float64), unseen.astype(np.float64)
    rng = np.random.default_rng(derived_seed(config.seed, "unseen sources"))
    difference = paired_difference(before, after, source, larger_is_better=True, draws=BOOTSTRAP_SAMPLES, rng=rng)
    low, high = around_mean(by_group(np.ones(len(after)), source), by_group(after, source), 0.95)
    of_rows = wilson(int(after.sum()), len(after))  # sources that are all alike prove no more than their rows do
    accuracy = Estimate(of_rows.value, max(0.0, min(low, of_rows.low)), min(1.0, max(high, of_rows.high)))
    names = sorted({*source.tolist()})
    hardest = min(names, key=lambda name: (float(after[source == name].mean()), name))
    n_correct, n_rows = int(after[source == hardest].sum()), int((source == hardest).sum())
    return UnseenSourcesRecord(
        sources=len(names),
        rows=len(after),
        accuracy=EstimateRecord.of(accuracy),
        difference=DifferenceRecord.of(difference),
        hardest=HardestSourceRecord(source=hardest, accuracy=EstimateRecord.of(wilson(n_correct, n_rows)), rows=n_rows),
    )
