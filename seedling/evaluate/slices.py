"""Accuracy by slice: on parts of the rows, by measured columns and by origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from seedling.config.params import EvaluateParams
from seedling.records.evaluation import SliceRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.statistics import rows_for_interval, share

DEFAULT_COLUMNS = (
    "brightness",
    "contrast",
    "blur",
    "width",
    "aspect",
    "words",
    "language",
    "markup",
    "license",
    "attribution",
)
MIN_ROWS_PER_SLICE = 10
MAX_SLICES_PER_COLUMN = 10
FAMILYWISE_ERROR_RATE = 0.05  # chance of marking any slice as worse if none is


def slices(
    rows: pd.DataFrame, right: NDArray[np.bool_], groups: NDArray[np.str_], params: EvaluateParams
) -> list[SliceRecord]:
    """The accuracy of each slice, and whether it is significantly worse.

    A slice is worse than the other rows by a one-sided Fisher's exact test with Holm's correction (1979) over all
    slices.

    rows: the columns to slice by, numbers are cut into thirds; right: (n_rows,); groups: (n_rows,).
    """
    masks: list[tuple[str, str, NDArray[np.bool_]]] = []
    for column in dict.fromkeys(DEFAULT_COLUMNS if params.slices is None else params.slices):
        if column not in rows:
            continue
        parts = [(value, mask) for value, mask in _parts(rows[column]) if mask.sum() >= MIN_ROWS_PER_SLICE]
        for value, mask in parts if len(parts) > 1 else ():
            masks.append((column, value, mask))
    p_values = [_p_worse(mask, right, groups) for _, _, mask in masks]
    return [
        SliceRecord(
            column=column,
            value=value,
            rows=int(mask.sum()),
            accuracy=EstimateRecord.of(share(right[mask], groups[mask], params.confidence)),
            worse=is_worse,
        )
        for (column, value, mask), is_worse in zip(masks, holm(p_values, FAMILYWISE_ERROR_RATE), strict=True)
    ]


def _p_worse(mask: NDArray[np.bool_], right: NDArray[np.bool_], groups: NDArray[np.str_]) -> float:
    """The p-value of Fisher's exact test that the rows of the mask are right less often than the others."""
    table = np.array([_counts(right[part], groups[part]) for part in (mask, ~mask)])
    return float(fisher_exact(table, alternative="less").pvalue)


def _counts(right: NDArray[np.bool_], groups: NDArray[np.str_]) -> list[int]:
    """Numbers of right and wrong rows, scaled to the effective number of rows: near-duplicates are not independent."""
    if not len(right):
        return [0, 0]
    effective, accuracy = rows_for_interval(right.astype(float), groups), float(right.mean())
    return [round(effective * accuracy), round(effective * (1 - accuracy))]


def _parts(values: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each value of the column, or each third of its numbers, as text, with the mask of its rows."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number and values.nunique() > MAX_SLICES_PER_COLUMN:
        low, high = np.nanquantile(values, [1 / 3, 2 / 3])
        yield f"up to {low:.3g}", (values <= low).to_numpy()
        if high > low:
            yield f"{low:.3g} to {high:.3g}", ((values > low) & (values <= high)).to_numpy()
        yield f"over {high:.3g}", (values > high).to_numpy()
        return
    by_frequency = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    for value in by_frequency.index[:MAX_SLICES_PER_COLUMN]:
        yield f"{value:.4g}" if isinstance(value, float) else str(value), (values == value).to_numpy()


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which null hypotheses Holm's procedure rejects; the familywise error rate is at most `level`.

    With the p-values in ascending order, p_(k) is rejected while p_(k) <= level / (n - k + 1).
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
