"""Where the model may be used: what it does when it is not sure, and with rows that are none of its classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import EvaluateParams
from seedling.evaluate.intervals import area
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, share, wilson

WANTED = (0.01, 0.02, 0.05, 0.1)  # shares of errors among what is answered
POINTS = 60  # of the curve
AUROC_DRAWS = 1_000  # each sorts all rows


def risk_coverage_curve(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Coverage, and the share of errors among what is answered, as the least confidence rises. (n_rows,) each."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    last = np.flatnonzero(np.append(np.diff(confidence[order]) < 0, True)) if len(order) else np.zeros(0, dtype=int)
    chosen = last[np.unique(np.linspace(0, len(last) - 1, POINTS).round().astype(int))] if len(last) else last
    return [
        {
            "coverage": round(float((one + 1) / len(order)), 6),
            "error": round(float(wrong[one] / (one + 1)), 6),
            "confidence": round(float(confidence[order[one]]), 6),
        }
        for one in chosen
    ]


def limit_for(confidence: Floats, right: NDArray[np.bool_], wanted: float) -> float | None:
    """The least confidence from which on at most `wanted` of these rows are wrong; 0 where that is so of all of them, None where it is so of
    none, or there is no row.
    """
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) < 0, True)  # rows that are equally sure are answered together
    able = np.flatnonzero((errors <= wanted) & last) if len(order) else np.zeros(0, dtype=int)
    if not len(able):
        return None
    return 0.0 if able[-1] == len(order) - 1 else float(confidence[order[able[-1]]])


def operating_points(
    chosen_on: tuple[Floats, NDArray[np.bool_]],
    judged_on: tuple[Floats, NDArray[np.bool_], NDArray[np.str_]],
    params: EvaluateParams,
) -> list[dict[str, Any]]:
    """For each wanted share of errors the limit, chosen on cross-validated rows, and what it does on the judged ones: the share that is
    answered, and the errors among those, with intervals.

    chosen_on: confidence and whether right, (n_rows,); judged_on: likewise of other rows, with their groups.
    """
    confidence, right, groups = judged_on
    found = []
    for wanted in WANTED:
        limit = limit_for(*chosen_on, wanted)
        sure = confidence >= limit if limit is not None else np.zeros(len(confidence), dtype=bool)
        found.append(
            {
                "max_error_rate": wanted,
                "threshold": None if limit is None else round(limit, 6),
                "coverage": share(sure, groups, params.confidence).rounded() if len(sure) else None,
                "errors": share(~right[sure], groups[sure], params.confidence).rounded() if sure.any() else None,
            }
        )
    return found


def out_of_scope(
    inside: Floats, outside: Floats, below: float, params: EvaluateParams, seed: int, nothing: int | None = None
) -> dict[str, Any] | None:
    """How well confidence tells rows of the classes from others: AUROC, and the share of the others that is answered all the same. None
    without rows of both kinds. inside, outside: (n_rows, n_classes) probabilities; below: the limit under which the model abstains; nothing: the
    number of the class for what is none of the others, which is no answer here.
    """
    if not (len(inside) and len(outside)):
        return None
    inside, outside = (_of_the_classes(one, nothing) for one in (inside, outside))
    auroc = area(
        inside,
        outside,
        draws=min(params.bootstrap_draws, AUROC_DRAWS),
        confidence=params.confidence,
        rng=generator(seed, "evaluate", "auroc"),
    )
    return {
        "rows": len(outside),
        "auroc": auroc.rounded(),
        "coverage": wilson(int((outside >= below).sum()), len(outside), params.confidence).rounded(),
    }


def _of_the_classes(probabilities: Floats, nothing: int | None) -> Floats:
    """(n_rows,): how sure the model is of one of the classes; of a row that it takes for nothing, how sure it would be of another."""
    others = probabilities if nothing is None else np.delete(probabilities, nothing, axis=1)
    taken = np.zeros(len(probabilities), dtype=bool) if nothing is None else probabilities.argmax(axis=1) == nothing
    surest: Floats = others.max(axis=1)
    return np.where(taken, np.minimum(surest, 0.5 / probabilities.shape[1]), surest).astype(np.float64)
