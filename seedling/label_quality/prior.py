"""The prior of the share of wrong labels, the same for every label noise model.

s ~ Beta(1, 1 / MEAN_NOISE_RATE - 1),   so that its mean is MEAN_NOISE_RATE.
"""

from __future__ import annotations

import numpy as np

from seedling.stats.statistics import Floats

MEAN_NOISE_RATE = 1 / 10  # prior mean of the share of wrong labels


def log_prior(noise_rates: Floats) -> Floats:
    """Log p(s) for each share of wrong labels s below 1, up to a constant: (1 / MEAN_NOISE_RATE - 2) log(1 - s)."""
    return np.asarray((1 / MEAN_NOISE_RATE - 2) * np.log1p(-noise_rates))
