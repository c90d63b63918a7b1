"""Rows with what a model says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.stats.statistics import Floats, Ints


@dataclass(frozen=True)
class Scored:
    """Rows with their probabilities: what metrics and plots are made of."""

    frame: pd.DataFrame  # id, origin, label, group
    probabilities: Floats
    classes: list[str]

    @property
    def truth(self) -> Ints:
        """(n_rows,) class numbers."""
        number = {label: place for place, label in enumerate(self.classes)}
        return np.array([number[label] for label in self.frame["label"]], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """(n_rows,) near-duplicate groups."""
        groups: NDArray[np.str_] = self.frame["group"].to_numpy(dtype=str)
        return groups

    @property
    def said(self) -> Ints:
        """(n_rows,): the likeliest class."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n_rows,): whether it is the right one."""
        return np.asarray(self.said == self.truth)

    @property
    def confidence(self) -> Floats:
        """(n_rows,): the likeliest class's probability."""
        return self.probabilities.max(axis=1) if len(self.frame) else np.zeros(0)
