"""Class imbalance and doubtful labels: weights, adjusted logits, and the losses of learners that follow a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seedling.stats.statistics import SMALLEST, Floats

if TYPE_CHECKING:
    import torch

    from seedling.features.classical import Inputs

CONSISTENCY = "consistency"  # plain, and unlabeled rows beside it
MIXIN = "mixin"  # plain, and another dataset's rows beside it, under a head of their own
MIXIN_SHARE = 0.5  # what those count, beside our own rows
NETWORK_LOSSES = ("focal", "symmetric", "second_head")
FOCUS = 2.0  # gamma of the focal loss
REVERSE = 0.5  # share of reverse cross-entropy in the symmetric one


def class_shares(targets: Floats, weights: Floats) -> Floats:
    """(n_classes,), sums to 1: the classes' shares of the training weight; one that is absent counts as a half row."""
    counts = np.maximum((targets * weights[:, None]).sum(axis=0), 0.5 * weights.mean())
    result: Floats = counts / counts.sum()
    return result


def balanced(targets: Floats, weights: Floats) -> Floats:
    """(n_rows,): weights under which every class that there is counts alike, with the same sum as before."""
    counts = (targets * weights[:, None]).sum(axis=0)
    present = counts > 0
    factor = np.where(present, counts.sum() / max(1, int(present.sum())) / np.maximum(counts, SMALLEST), 0.0)
    result: Floats = weights * (targets @ factor)
    return result


class Adjusted:
    """A learner whose logits lose the logarithm of the training classes' shares (Menon et al. 2021): each class as if it
    had been equally frequent.
    """

    def __init__(self, learner: Any, log_shares: Floats) -> None:
        self.learner, self.log_shares = learner, log_shares
        self.name, self.classes = learner.name, learner.classes

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """As the learner does, and then the shares of what it saw."""
        self.learner.fit(inputs, targets, weights)
        self.log_shares = np.log(class_shares(targets, weights))

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""
        result: Floats = self.learner.logits(inputs) - self.log_shares
        return result

    def dropout_std(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): the learner's own, zeros where it has no Monte Carlo dropout."""
        own = getattr(self.learner, "dropout_std", None)
        return np.zeros(len(inputs)) if own is None else np.asarray(own(inputs, seed), dtype=np.float64)


def losses_of_rows(name: str, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(n_rows,): cross-entropy, or focal (Lin et al. 2017), or symmetric cross-entropy (Wang et al. 2019).

    logits, wanted: (n_rows, n_classes); wanted rows sum to 1.
    """
    import torch

    log_shares = torch.log_softmax(logits, dim=1)
    entropy = -(wanted * log_shares).sum(dim=1)
    if name == "focal":
        return -(wanted * (1 - log_shares.exp()) ** FOCUS * log_shares).sum(dim=1)
    if name == "symmetric":
        reverse = -(log_shares.exp() * torch.log(wanted.clamp(min=1e-4))).sum(dim=1)
        return (1 - REVERSE) * entropy + REVERSE * reverse
    return entropy
