"""Rows with the probabilities that a model predicts for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.dataset.class_indices import class_indices
from seedling.stats.statistics import Floats, Ints


@dataclass(frozen=True)
class Scored:
    """Rows and their probabilities: the input of metrics and plots."""

    frame: pd.DataFrame  # id, origin, label, group
    probabilities: Floats
    classes: list[str]

    @property
    def truth(self) -> Ints:
        """(n_rows,) class indices."""
        return class_indices(self.frame["label"], self.classes)

    @property
    def groups(self) -> NDArray[np.str_]:
        """(n_rows,) near-duplicate groups."""
        groups: NDArray[np.str_] = self.frame["group"].to_numpy(dtype=str)
        return groups

    @property
    def predicted(self) -> Ints:
        """(n_rows,): index of the class with the highest probability."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n_rows,): whether the predicted class is the label."""
        return np.asarray(self.predicted == self.truth)

    @property
    def confidence(self) -> Floats:
        """(n_rows,): probability of the predicted class."""
        return self.probabilities.max(axis=1) if len(self.frame) else np.zeros(0)
