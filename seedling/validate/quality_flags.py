"""Which rows have quality issues beside the others: each signal against limits that are absolute, and against the data's own spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.stats.statistics import Floats

USUAL = 0.2  # share of the rows: what is so common is these data's nature, not a defect
FENCE = 3.0  # interquartile ranges beyond the quartiles: Tukey's (1977) far out
FOURFOLD = float(np.log(4))
LANGUAGE = 0.6  # share of the texts whose language is known: below, the collection has no main language


@dataclass(frozen=True, slots=True)
class Limit:
    """A reason code's signal: rows beyond `sure` have it, and those beyond `suspect` that are far out among the others.

    above: whether large values are bad; logarithmic: whether ratios count, not differences; suspect: None for any value
    that is far out; least: how far beyond the quartile a value must be, however alike the others are.
    """

    signal: str
    above: bool
    sure: float
    suspect: float | None = None
    logarithmic: bool = False
    least: float = 0.0


LIMITS: Mapping[str, Limit] = {
    "dark": Limit("brightness", above=False, sure=15, suspect=60),
    "bright": Limit("brightness", above=True, sure=245, suspect=215),
    "low_contrast": Limit("contrast", above=False, sure=20, suspect=60),
    "blurred": Limit("blur", above=True, sure=0.75, suspect=0.5),
    "low_information": Limit("entropy", above=False, sure=1.0, suspect=4.0),
    "odd_size": Limit("pixels", above=False, sure=-np.inf, logarithmic=True, least=FOURFOLD),
    "odd_aspect": Limit("aspect", above=True, sure=8, suspect=2, logarithmic=True),
    "very_short": Limit("characters", above=False, sure=-np.inf, logarithmic=True, least=FOURFOLD),
    "very_long": Limit("characters", above=True, sure=np.inf, logarithmic=True, least=FOURFOLD),
    "few_letters": Limit("non_letters", above=True, sure=0.7, suspect=0.4),
    "mojibake": Limit("mojibake", above=True, sure=0.05, suspect=0.01),
}
MARKS = {
    **{"markup": "markup", "personal_data": "personal_data"},
    **{"rotated_by_exif": "rotated_by_exif", "location_metadata": "location_metadata"},
}
"""Codes that a signal says by itself: yes or no."""
NEVER_USUAL = frozenset({"location_metadata"})  # where a photograph was taken is worth a word however many say it


def quality(signals: pd.DataFrame) -> tuple[list[list[str]], dict[str, int]]:
    """Each row's reason codes, and of the codes that are too common to be a defect how many rows they would have had.

    signals: one row a row, the columns of seedling/media/quality_metrics.py; those that are not there give no code.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    usual: dict[str, int] = {}
    for code, values in _marked(signals).items():
        if len(values) and values.mean() > USUAL and code not in NEVER_USUAL:
            usual[code] = int(values.sum())
        else:
            found[code] = values
    codes = [[code for code in found if found[code][row]] for row in range(len(signals))]
    return codes, usual


def _marked(signals: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    known = signals
    if "width" in signals:
        sides = signals[["width", "height"]].to_numpy(dtype=np.float64)
        longer = sides.max(axis=1) / np.maximum(sides.min(axis=1), 1)
        known = signals.assign(pixels=sides.prod(axis=1), aspect=longer)
    marked = {
        code: beyond(known[limit.signal].to_numpy(dtype=np.float64), limit)
        for code, limit in LIMITS.items()
        if limit.signal in known
    }
    marked |= {code: known[name].to_numpy(dtype=bool) for code, name in MARKS.items() if name in known}
    if "language" in known:
        marked["other_language"] = other_language(known["language"])
    return marked


def beyond(values: Floats, limit: Limit) -> NDArray[np.bool_]:
    """(n_rows,): which are beyond the limit; a value that is no number is not."""
    sign = 1.0 if limit.above else -1.0
    scale = np.log(np.maximum(values, 1e-9)) if limit.logarithmic else values
    finite = scale[np.isfinite(scale)]
    if len(finite) == 0:
        return np.zeros(len(values), dtype=bool)
    low, high = np.quantile(finite, [0.25, 0.75])
    fence = (high if limit.above else low) + sign * max(FENCE * (high - low), limit.least)
    far_out = sign * (scale - fence) > 0
    if limit.suspect is not None:
        far_out &= sign * (values - limit.suspect) > 0
    result: NDArray[np.bool_] = far_out | (sign * (values - limit.sure) > 0)
    return result


def other_language(languages: pd.Series[Any]) -> NDArray[np.bool_]:
    """(n_rows,): texts in another language than the main one, where there is a main one."""
    counts = languages.value_counts()
    if len(counts) < 2 or counts.iloc[0] < LANGUAGE * counts.sum():
        return np.zeros(len(languages), dtype=bool)
    result: NDArray[np.bool_] = (languages.notna() & (languages != counts.index[0])).to_numpy(dtype=bool)
    return result
