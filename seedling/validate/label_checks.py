"""Labels and rows judged by the features that train will use: doubtful labels and what is done about them, rows far from all others."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import payloads
from seedling.features.classical import FeatureMaker, Inputs
from seedling.features.distances import distances
from seedling.label_quality.label_issues import CannotJudge, Doubt, doubt
from seedling.models.model import single_threaded
from seedling.progress import Progress
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Ints
from seedling.validate.checks import CheckedRow
from seedling.validate.quality_flags import Limit, beyond

POOL_ROWS = 10_000  # of the pool, drawn by their names, are looked at
MINUTES = (5, 10, 30, 60, 120, 240)  # of a person's time for which the report says what they buy
LEAST_A_CLASS = 5  # labeled rows in the mean: with fewer, wrong labels and weak models cannot be told apart
TOO_MANY = 0.5  # share of a class's rows: beyond, a person must look before anything is changed
FAR = Limit("distance", above=True, sure=np.inf, logarithmic=True)


def judge(
    looked: list[CheckedRow],
    classes: list[str],
    maker: FeatureMaker,
    collected: Path,
    params: ValidateParams,
    facts: WorkspaceConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Writes what is found into the rows, carries out `label_issues`, and gives what there is to say of doubtful labels.

    looked: split and dealt to folds.
    """
    if params.label_issues == "ignore":
        return {"cannot_judge": "`validate.label_issues` is `ignore`"}
    training = [one for one in looked if one.reason is None and one.row.split == "train" and one.row.label]
    pool = [one for one in looked if one.reason is None and one.row.split == "pool"]
    if len(pool) > POOL_ROWS:
        name = {id(one): derived_seed(facts.seed, "judged pool", one.row.id) for one in pool}
        pool = heapq.nsmallest(POOL_ROWS, pool, key=lambda one: (name[id(one)], one.row.id))
    rows = [*training, *pool]
    progress("compute features", 0, None)
    inputs = maker.of_rows([one.row.id for one in rows], partial(payloads, [collected]), fit=True, progress=progress)
    progress("judge labels", 0, None)
    with single_threaded():
        _judge_distances(rows, inputs, len(training))
        return _judge_labels(training, inputs, classes, params)


def _judge_distances(rows: list[CheckedRow], inputs: Inputs, labeled: int) -> None:
    groups = np.unique([str(one.row.group) for one in rows], return_inverse=True)[1]
    if len(np.unique(groups)) < 3 or labeled == 0 or not _finite(inputs):
        return
    own, nearest = distances(inputs.features, groups, labeled)
    for one, value in zip(rows, nearest, strict=True):
        one.signals = {**one.signals, "nearest_labeled": float(value)}
    for one, out in zip(rows, beyond(own, FAR), strict=True):
        if out:
            one.codes.append("outlier")


def _finite(inputs: Inputs) -> bool:
    values = getattr(inputs.features, "data", inputs.features)
    return bool(np.isfinite(np.asarray(values)).all())


def _judge_labels(
    training: list[CheckedRow], inputs: Inputs, classes: list[str], params: ValidateParams
) -> dict[str, Any]:
    place = np.array([number for number, one in enumerate(training) if one.row.fold is not None], dtype=np.intp)
    judged = [training[number] for number in place]
    number = {label: at for at, label in enumerate(classes)}
    given = np.array([number[str(one.row.label)] for one in judged], dtype=np.int64)
    try:
        if len(judged) < LEAST_A_CLASS * len(classes):
            raise CannotJudge(f"there are fewer than {LEAST_A_CLASS} labeled rows a class")
        fold = np.array([one.row.fold for one in judged], dtype=np.int64)
        weights = np.array([one.row.weight for one in judged], dtype=np.float64)
        found = doubt(inputs.take(place), given, fold, weights, len(classes))
    except CannotJudge as error:
        return {"cannot_judge": str(error)}
    for one, p_label_error, suggested, flagged in zip(
        judged, found.p_label_error, found.suggested, found.flagged, strict=True
    ):
        if not np.isnan(p_label_error):
            one.doubt = {
                "p_label_error": float(p_label_error),
                "suggested_label": classes[suggested],
                "is_label_issue": bool(flagged),
            }
    left = left_to_people(found.flagged, given, classes)
    repaired = repair(judged, found, params.label_issues, set(left))
    return {
        "judged": int((~np.isnan(found.p_label_error)).sum()),
        "expected": round(found.expected, 3),
        "between": [round(one, 3) for one in found.between],
        "flagged": int(found.flagged.sum()),
        "policy": params.label_issues,
        "repaired": repaired,
        "left_to_people": left,
        "by_class": [_of_class(found, given == number[label], label) for label in classes],
        "pairs": _pairs(judged, found, classes),
        "items_per_minute": params.items_per_minute,
        "budget": budget(found, params.items_per_minute),
    }


def left_to_people(flagged: NDArray[np.bool_], given: Ints, classes: Sequence[str]) -> list[str]:
    """The classes more than half of whose labels are called doubtful. flagged, given: (n_rows,), whether, and the number of the class."""
    return [
        name
        for number, name in enumerate(classes)
        if (given == number).any() and flagged[given == number].mean() > TOO_MANY
    ]


def _of_class(found: Doubt, mine: NDArray[np.bool_], label: str) -> dict[str, Any]:
    expected = round(float(np.nansum(found.p_label_error[mine])), 3)
    return {"class": label, "rows": int(mine.sum()), "expected": expected, "flagged": int(found.flagged[mine].sum())}


def _pairs(judged: list[CheckedRow], found: Doubt, classes: list[str]) -> list[dict[str, Any]]:
    """The commonest mistakes among doubtful rows: which label was given where another is suggested."""
    counts = Counter(
        (str(one.given or one.row.label), classes[suggested])
        for one, suggested, flagged in zip(judged, found.suggested, found.flagged, strict=True)
        if flagged
    )
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:8]
    return [
        {"original_label": given, "suggested_label": suggested, "rows": rows} for (given, suggested), rows in ordered
    ]


def budget(found: Doubt, items_per_minute: float) -> list[dict[str, Any]]:
    """What so many minutes of a person's time would find, the most doubtful rows first, until all are looked at."""
    known = int((~np.isnan(found.p_label_error)).sum())
    told = []
    for minutes in MINUTES:
        rows = min(known, int(minutes * items_per_minute))
        told.append({"minutes": minutes, "rows": rows, "share": found.share_found(rows).rounded()})
        if rows == known:
            break
    return told


def repair(judged: list[CheckedRow], found: Doubt, policy: str, left_alone: set[str]) -> int:
    """Carries out the policy on the doubtful rows; gives how many rows were changed. Each keeps what it was told: `given`."""
    act: dict[str, Callable[[CheckedRow], None]] = {"drop": _drop, "relabel": _relabel, "down-weight": _down_weight}
    if policy not in act:
        return 0
    doubtful: Ints = np.flatnonzero(found.flagged)
    chosen = [judged[at] for at in doubtful if judged[at].row.label not in left_alone]
    for one in chosen:
        one.given = one.row.label
        act[policy](one)
    return len(chosen)


def _drop(one: CheckedRow) -> None:
    one.reason = "label_issue"


def _relabel(one: CheckedRow) -> None:
    # No longer what a person said: such rows are learnt from, but judge nothing, as they agree with the models by construction.
    one.row = replace(one.row, label=one.doubt["suggested_label"], label_source="repaired")


def _down_weight(one: CheckedRow) -> None:
    one.row = replace(one.row, weight=one.row.weight * max(1 - one.doubt["p_label_error"], 0.01))
