"""Flag quality issues: each metric is compared with absolute limits and with the distribution of the other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.stats.statistics import Floats

MAX_ISSUE_SHARE = 0.2  # of the rows; a more common property is normal for these data, not a defect
FENCE_IQRS = 3.0  # interquartile ranges beyond the quartiles: "far out" by Tukey (1977)
LOG_FACTOR_FOUR = float(np.log(4))
MIN_MAIN_LANGUAGE_SHARE = 0.6  # of the texts with a known language; below it, the collection has no main language


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of one quality issue.

    A row has the issue if its value is beyond `absolute`, or if it is beyond `suspect` and an outlier among the other
    rows.

    signal: the metric; above: whether large values are bad; suspect: None for any outlier; logarithmic: whether ratios
    of values count, not differences; min_fence: minimum distance of an outlier from the quartile, however similar the
    others are.
    """

    signal: str
    above: bool
    absolute: float
    suspect: float | None = None
    logarithmic: bool = False
    min_fence: float = 0.0


LIMITS: Mapping[str, Limit] = {
    "dark": Limit("brightness", above=False, absolute=15, suspect=60),
    "bright": Limit("brightness", above=True, absolute=245, suspect=215),
    "low_contrast": Limit("contrast", above=False, absolute=20, suspect=60),
    "blurred": Limit("blur", above=True, absolute=0.75, suspect=0.5),
    "low_information": Limit("entropy", above=False, absolute=1.0, suspect=4.0),
    "odd_size": Limit("pixels", above=False, absolute=-np.inf, logarithmic=True, min_fence=LOG_FACTOR_FOUR),
    "odd_aspect": Limit("aspect", above=True, absolute=8, suspect=2, logarithmic=True),
    "very_short": Limit("characters", above=False, absolute=-np.inf, logarithmic=True, min_fence=LOG_FACTOR_FOUR),
    "very_long": Limit("characters", above=True, absolute=np.inf, logarithmic=True, min_fence=LOG_FACTOR_FOUR),
    "few_letters": Limit("non_letters", above=True, absolute=0.7, suspect=0.4),
    "mojibake": Limit("mojibake", above=True, absolute=0.05, suspect=0.01),
}
FLAGS = ("markup", "personal_data", "rotated_by_exif", "location_metadata")
"""Boolean signals that are reason codes themselves."""
NEVER_USUAL = frozenset({"location_metadata"})  # reported however many images have it, because it is personal data


def quality(signals: pd.DataFrame) -> tuple[list[list[str]], dict[str, int]]:
    """Return each row's reason codes, and the codes that are too common to be defects with their numbers of rows.

    signals: one line per row with the columns of seedling/media/quality_metrics.py; absent columns give no codes.
    """
    rows_by_code: dict[str, NDArray[np.bool_]] = {}
    usual: dict[str, int] = {}
    for code, has_code in _rows_with_code(signals).items():
        if len(has_code) and has_code.mean() > MAX_ISSUE_SHARE and code not in NEVER_USUAL:
            usual[code] = int(has_code.sum())
        else:
            rows_by_code[code] = has_code
    codes = [[code for code, has_code in rows_by_code.items() if has_code[row]] for row in range(len(signals))]
    return codes, usual


def _rows_with_code(signals: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Code → (n_rows,), whether the row has it."""
    metrics = signals
    if "width" in signals:
        sides = signals[["width", "height"]].to_numpy(dtype=np.float64)
        aspect = sides.max(axis=1) / np.maximum(sides.min(axis=1), 1)
        metrics = signals.assign(pixels=sides.prod(axis=1), aspect=aspect)
    rows_by_code = {
        code: beyond(metrics[limit.signal].to_numpy(dtype=np.float64), limit)
        for code, limit in LIMITS.items()
        if limit.signal in metrics
    }
    rows_by_code |= {name: metrics[name].to_numpy(dtype=bool) for name in FLAGS if name in metrics}
    if "language" in metrics:
        rows_by_code["other_language"] = other_language(metrics["language"])
    return rows_by_code


def beyond(values: Floats, limit: Limit) -> NDArray[np.bool_]:
    """(n_rows,): whether the value is beyond the limit; false for NaN.

    With large values bad, quartiles q1 and q3, and x the value or its logarithm, a row is an outlier if
    x > q3 + max(FENCE_IQRS (q3 - q1), min_fence).
    """
    sign = 1.0 if limit.above else -1.0
    scale = np.log(np.maximum(values, 1e-9)) if limit.logarithmic else values
    finite = scale[np.isfinite(scale)]
    if len(finite) == 0:
        return np.zeros(len(values), dtype=bool)
    low, high = np.quantile(finite, [0.25, 0.75])
    fence = (high if limit.above else low) + sign * max(FENCE_IQRS * (high - low), limit.min_fence)
    is_outlier = sign * (scale - fence) > 0
    if limit.suspect is not None:
        is_outlier &= sign * (values - limit.suspect) > 0
    result: NDArray[np.bool_] = is_outlier | (sign * (values - limit.absolute) > 0)
    return result


def other_language(languages: pd.Series[Any]) -> NDArray[np.bool_]:
    """(n_rows,): whether the text is in another language than the main one; false if there is no main language."""
    counts = languages.value_counts()
    if len(counts) < 2 or counts.iloc[0] < MIN_MAIN_LANGUAGE_SHARE * counts.sum():
        return np.zeros(len(languages), dtype=bool)
    result: NDArray[np.bool_] = (languages.notna() & (languages != counts.index[0])).to_numpy(dtype=bool)
    return result
