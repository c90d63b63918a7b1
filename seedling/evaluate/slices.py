"""Where the model is worse than elsewhere: accuracy on parts of the rows, by what was measured in them and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from seedling.config.params import EvaluateParams
from seedling.stats.statistics import rows_for_interval, share

USUAL = ("brightness", "contrast", "blur", "width", "aspect", "words", "language", "markup", "license", "attribution")
LEAST = 10  # rows of a slice
MOST = 10  # values of a column that are slices of their own
SURE = 0.05  # chance of calling any slice worse where none is


def slices(
    rows: pd.DataFrame, right: NDArray[np.bool_], groups: NDArray[np.str_], params: EvaluateParams
) -> list[dict[str, Any]]:
    """Of each slice its column, value, rows, accuracy with its interval, and whether it is surely worse than the rest: by Fisher's exact
    test, one-sided, with Holm's correction (1979) over all slices.

    rows: columns to cut by, numbers into thirds; right: (n_rows,); groups: (n_rows,).
    """
    found, chances = [], []
    for column in dict.fromkeys(USUAL if params.slices is None else params.slices):
        if column not in rows:
            continue
        parts = [one for one in _parts(rows[column]) if one[1].sum() >= LEAST]
        for value, mine in parts if len(parts) > 1 else ():
            table = [_counts(right[part], groups[part]) for part in (mine, ~mine)]
            chances.append(float(fisher_exact(table, alternative="less").pvalue))
            accuracy = share(right[mine], groups[mine], params.confidence).rounded()
            found.append({"column": column, "value": value, "rows": int(mine.sum()), "accuracy": accuracy})
    return [{**one, "worse": worse} for one, worse in zip(found, holm(chances, SURE), strict=True)]


def _counts(right: NDArray[np.bool_], groups: NDArray[np.str_]) -> list[int]:
    """Right and wrong rows, near-duplicates as the rows that they are worth."""
    if not len(right):
        return [0, 0]
    rows, shares = rows_for_interval(right.astype(float), groups), float(right.mean())
    return [round(rows * shares), round(rows * (1 - shares))]


def _parts(values: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The column's values, or thirds of its numbers, in words, each with its rows."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > MOST:
        low, high = np.nanquantile(values, [1 / 3, 2 / 3])
        yield f"up to {low:.3g}", (values <= low).to_numpy()
        if high > low:
            yield f"{low:.3g} to {high:.3g}", ((values > low) & (values <= high)).to_numpy()
        yield f"over {high:.3g}", (values > high).to_numpy()
        return
    for value in values.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:MOST]:
        yield f"{value:.4g}" if isinstance(value, float) else str(value), (values == value).to_numpy()


def holm(chances: Sequence[float], level: float) -> list[bool]:
    """Which of the hypotheses fall, so that the chance that a true one does is at most `level`."""
    fall = [False] * len(chances)
    for place, one in enumerate(np.argsort(chances, kind="stable")):
        if chances[one] > level / (len(chances) - place):
            break
        fall[one] = True
    return fall
