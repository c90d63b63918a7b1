"""The result of training one candidate without one fold, and the file that keeps it for the next run after a kill."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from seedling.stats.statistics import Floats

LOSSES_PREFIX = "losses "  # of an array's name in the file, followed by the model's name


@dataclass(frozen=True)
class FailedFold:
    """The training of a fold's models failed."""

    reason: str


@dataclass(frozen=True)
class FoldResult:
    """Predictions of rows that a fold's models did not learn from: logits, and dropout standard deviations.

    labeled, labeled_std: (n_held_out, n_classes) and (n_held_out,); validation: (n_validation, n_classes); pool,
    pool_std: (n_pool, n_classes) and (n_pool,), in single precision; seconds: of the training and the predictions, 0 if
    a killed run has computed them; losses: (n_steps, 2) step and loss by model, for models trained by gradient descent.
    """

    labeled: Floats
    labeled_std: Floats
    validation: Floats
    pool: NDArray[np.float32]
    pool_std: NDArray[np.float32]
    seconds: float
    losses: dict[str, NDArray[np.float64]]

    @property
    def is_finite(self) -> bool:
        """Whether no prediction is NaN or infinite."""
        predictions = (self.labeled, self.labeled_std, self.validation, self.pool, self.pool_std)
        return all(bool(np.isfinite(values).all()) for values in predictions)

    def save(self, path: Path) -> None:
        """Write the file. It is renamed into place, so that a kill leaves no partial file."""
        arrays = {name: values for name, values in vars(self).items() if name != "losses"}
        arrays |= {f"{LOSSES_PREFIX}{model}": values for model, values in self.losses.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".part.npz")
        np.savez(partial_path, **arrays)
        partial_path.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file; None if there is none or it is damaged."""
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
            losses = {
                name.removeprefix(LOSSES_PREFIX): arrays.pop(name)
                for name in [*arrays]
                if name.startswith(LOSSES_PREFIX)
            }
            return replace(cls(**arrays, losses=losses), seconds=0.0)
        except (OSError, ValueError, TypeError, zipfile.BadZipFile):
            return None
