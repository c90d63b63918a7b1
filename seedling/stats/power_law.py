"""The power law of learning curves: error ∝ labels^-b (Hestness et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from seedling.stats.statistics import Floats

MIN_EXPONENT, MAX_EXPONENT = 0.05, 1.0  # plausible values of b


def power_law_exponent(labels: ArrayLike, errors: Floats) -> Floats:
    """(...): the exponent b that fits the error rates best, between MIN_EXPONENT and MAX_EXPONENT.

    With x = log(labels) and y = log(error), b is the least-squares slope -sum((x - mean(x)) y) / sum((x - mean(x))^2).

    labels: (n_points,), numbers of labels, or their ratios; errors: (..., n_points), greater than 0.
    """
    log_labels = np.log(np.asarray(labels, dtype=np.float64))
    centered = log_labels - log_labels.mean()
    slope = (np.log(errors) * centered).sum(axis=-1) / (centered**2).sum()
    exponent: Floats = np.clip(-slope, MIN_EXPONENT, MAX_EXPONENT)
    return exponent
