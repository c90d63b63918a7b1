"""Check labels and rows by the features that train uses: likely label errors and their repair, and outliers."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.class_indices import class_indices
from seedling.dataset.generation import PayloadReader
from seedling.dataset.schema import REVIEW_SOURCE
from seedling.features.classical import FeatureMaker, Inputs
from seedling.features.distances import distances
from seedling.label_quality.label_issues import CannotEvaluateLabels, LabelIssues, find_label_issues
from seedling.models.model import single_threaded
from seedling.progress import Progress
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import ClassLabelIssues, LabelIssueEstimate, LabelPair, NotEstimated, ReviewTime
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Ints
from seedling.validate.checks import CheckedRow, LabelIssue
from seedling.validate.quality_flags import Limit, beyond

MAX_POOL_ROWS = 10_000  # pool rows that are checked, drawn at random by their ids
REVIEW_MINUTES = (5, 10, 30, 60, 120, 240)  # review times for which the report states the share of wrong labels found
MIN_ROWS_PER_CLASS = 5  # mean labeled rows: with fewer, wrong labels and weak models cannot be told apart
MAX_ISSUE_SHARE = 0.5  # of a class's rows; above it, the class is not repaired automatically
MAX_PAIRS = 8  # most common label pairs in the manifest
MIN_LABEL_WEIGHT = 0.01  # of a label issue with the policy down-weight
OUTLIER_LIMIT = Limit("distance", above=True, absolute=np.inf, logarithmic=True)


def check_labels(
    checked_rows: list[CheckedRow],
    classes: list[str],
    maker: FeatureMaker,
    collected: Path,
    params: ValidateParams,
    config: WorkspaceConfig,
    progress: Progress,
) -> LabelIssueEstimate | NotEstimated:
    """Find outliers and label issues, note them in the rows, and apply the policy `label_issues`.

    checked_rows: with splits and folds. Returns the summary for the manifest's notes.
    """
    if params.label_issues == "ignore":
        return NotEstimated(not_estimated="`validate.label_issues` is `ignore`")
    kept = [checked for checked in checked_rows if checked.reason is None]
    training = [checked for checked in kept if checked.row.split == "train" and checked.row.label]
    pool = [checked for checked in kept if checked.row.split == "pool"]
    if len(pool) > MAX_POOL_ROWS:
        order = {id(checked): derived_seed(config.seed, "checked pool", checked.row.id) for checked in pool}
        pool = heapq.nsmallest(MAX_POOL_ROWS, pool, key=lambda checked: (order[id(checked)], checked.row.id))
    rows = [*training, *pool]
    progress("compute features", 0, None)
    ids = [checked.row.id for checked in rows]
    inputs = maker.of_rows(ids, PayloadReader.of(collected), fit=True, progress=progress)
    progress("check labels", 0, None)
    with single_threaded():
        _flag_outliers(rows, inputs, len(training))
        return _check_training_labels(training, inputs, classes, params)


def _flag_outliers(rows: list[CheckedRow], inputs: Inputs, labeled: int) -> None:
    """Set each row's distance to the nearest labeled row, and the code `outlier`.

    labeled: number of labeled rows; they come first.
    """
    groups = np.unique([str(checked.row.group) for checked in rows], return_inverse=True)[1]
    if len(np.unique(groups)) < 3 or labeled == 0 or not _finite(inputs):
        return
    to_nearest, to_labeled = distances(inputs.features, groups, labeled)
    for checked, distance in zip(rows, to_labeled, strict=True):
        checked.signals = {**checked.signals, "nearest_labeled": float(distance)}
    for checked, is_outlier in zip(rows, beyond(to_nearest, OUTLIER_LIMIT), strict=True):
        if is_outlier:
            checked.quality_codes.append("outlier")


def _finite(inputs: Inputs) -> bool:
    values = getattr(inputs.features, "data", inputs.features)
    return bool(np.isfinite(np.asarray(values)).all())


def _check_training_labels(
    training: list[CheckedRow], inputs: Inputs, classes: list[str], params: ValidateParams
) -> LabelIssueEstimate | NotEstimated:
    row_numbers = np.array(
        [number for number, checked in enumerate(training) if checked.row.fold is not None], dtype=np.intp
    )
    evaluated = [training[number] for number in row_numbers]
    labels = class_indices((checked.row.label for checked in evaluated), classes)
    try:
        if len(evaluated) < MIN_ROWS_PER_CLASS * len(classes):
            raise CannotEvaluateLabels(f"there are fewer than {MIN_ROWS_PER_CLASS} labeled rows per class")
        fold = np.array([checked.row.fold for checked in evaluated], dtype=np.int64)
        weights = np.array([checked.row.weight for checked in evaluated], dtype=np.float64)
        issues = find_label_issues(inputs.take(row_numbers), labels, fold, weights, len(classes))
        is_reviewed = np.array([checked.row.label_source == REVIEW_SOURCE for checked in evaluated], dtype=bool)
        issues = replace(issues, flagged=issues.flagged & ~is_reviewed)  # a person has confirmed these labels
    except CannotEvaluateLabels as error:
        return NotEstimated(not_estimated=str(error))
    _note_label_issues(evaluated, issues, classes)
    left = classes_to_review(issues.flagged, labels, classes)
    repaired = repair(evaluated, issues, params.label_issues, set(left))
    low, high = issues.between
    return LabelIssueEstimate(
        labels=int((~np.isnan(issues.p_label_error)).sum()),
        expected=round(issues.expected, 3),
        between=(round(low, 3), round(high, 3)),
        flagged=int(issues.flagged.sum()),
        policy=params.label_issues,
        repaired=repaired,
        unrepaired_classes=tuple(left),
        by_class=tuple(_class_summary(issues, labels == index, label) for index, label in enumerate(classes)),
        pairs=_label_pairs(evaluated, issues, classes),
        items_per_minute=params.items_per_minute,
        budget=budget(issues, params.items_per_minute),
    )


def _note_label_issues(evaluated: list[CheckedRow], issues: LabelIssues, classes: list[str]) -> None:
    for checked, p_label_error, suggested_label, flagged in zip(
        evaluated, issues.p_label_error, issues.suggested_label, issues.flagged, strict=True
    ):
        if not np.isnan(p_label_error):
            checked.label_issue = LabelIssue(float(p_label_error), classes[suggested_label], bool(flagged))


def classes_to_review(flagged: NDArray[np.bool_], labels: Ints, classes: Sequence[str]) -> list[str]:
    """The classes with label issues in more than half of their rows, which a person must review.

    flagged, labels: (n_rows,), whether the label is an issue, and its class number.
    """
    return [
        name
        for class_index, name in enumerate(classes)
        if (labels == class_index).any() and flagged[labels == class_index].mean() > MAX_ISSUE_SHARE
    ]


def _class_summary(issues: LabelIssues, in_class: NDArray[np.bool_], label: str) -> ClassLabelIssues:
    return ClassLabelIssues(
        label=label,
        rows=int(in_class.sum()),
        expected=round(float(np.nansum(issues.p_label_error[in_class])), 3),
        flagged=int(issues.flagged[in_class].sum()),
    )


def _label_pairs(evaluated: list[CheckedRow], issues: LabelIssues, classes: list[str]) -> tuple[LabelPair, ...]:
    """The most common pairs of original and suggested label among the label issues."""
    counts = Counter(
        (str(checked.original_label or checked.row.label), classes[suggested_label])
        for checked, suggested_label, flagged in zip(evaluated, issues.suggested_label, issues.flagged, strict=True)
        if flagged
    )
    most_common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_PAIRS]
    return tuple(
        LabelPair(original_label=original, suggested_label=suggested, rows=rows)
        for (original, suggested), rows in most_common
    )


def budget(issues: LabelIssues, items_per_minute: float) -> tuple[ReviewTime, ...]:
    """The share of wrong labels that a person finds in each of `REVIEW_MINUTES`, in descending order of p_label_error.

    The list ends with the first review time that covers all rows.
    """
    evaluated = int((~np.isnan(issues.p_label_error)).sum())
    entries = []
    for minutes in REVIEW_MINUTES:
        rows = min(evaluated, int(minutes * items_per_minute))
        entries.append(ReviewTime(minutes=minutes, rows=rows, share=EstimateRecord.of(issues.share_found(rows))))
        if rows == evaluated:
            break
    return tuple(entries)


def repair(evaluated: list[CheckedRow], issues: LabelIssues, policy: str, excluded_labels: set[str]) -> int:
    """Apply the policy to the label issues. Returns the number of changed rows, which keep their `original_label`."""
    actions: dict[str, Callable[[CheckedRow, LabelIssue], None]] = {
        "drop": _drop,
        "relabel": _relabel,
        "down-weight": _down_weight,
    }
    if policy not in actions:
        return 0
    flagged: Ints = np.flatnonzero(issues.flagged)
    repaired = 0
    for checked in (evaluated[number] for number in flagged):
        if checked.row.label not in excluded_labels and checked.label_issue is not None:
            checked.original_label = checked.row.label
            actions[policy](checked, checked.label_issue)
            repaired += 1
    return repaired


def _drop(checked: CheckedRow, _: LabelIssue) -> None:
    checked.reason = "label_issue"


def _relabel(checked: CheckedRow, issue: LabelIssue) -> None:
    # The label no longer comes from a person. Models are trained on such rows but not evaluated on them, because the
    # labels agree with the models by construction.
    checked.row = replace(checked.row, label=issue.suggested_label, label_source="repaired")


def _down_weight(checked: CheckedRow, issue: LabelIssue) -> None:
    weight = checked.row.weight * max(1 - issue.p_label_error, MIN_LABEL_WEIGHT)
    checked.row = replace(checked.row, weight=weight)
