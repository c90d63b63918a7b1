"""Class imbalance and label noise: weights, logit adjustment, and the losses of gradient-trained learners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seedling.stats.statistics import SMALLEST, Floats

if TYPE_CHECKING:
    import torch

    from seedling.features.classical import Inputs

CONSISTENCY = "consistency"  # plain loss plus consistency on unlabeled rows
MIXIN = "mixin"  # plain loss plus another dataset's rows with a separate head
MIXIN_SHARE = 0.5  # the weight of the other dataset's loss
NETWORK_LOSSES = ("focal", "symmetric", "second_head")
FOCAL_GAMMA = 2.0  # exponent of the focal loss
REVERSE_SHARE = 0.5  # of reverse cross-entropy in symmetric cross-entropy


def class_shares(targets: Floats, weights: Floats) -> Floats:
    """(n_classes,), sums to 1: the classes' shares of the training weight; an absent class counts as half a row."""
    counts = np.maximum((targets * weights[:, None]).sum(axis=0), 0.5 * weights.mean())
    result: Floats = counts / counts.sum()
    return result


def balanced(targets: Floats, weights: Floats) -> Floats:
    """(n_rows,): weights that give every present class the same total weight; their sum does not change."""
    counts = (targets * weights[:, None]).sum(axis=0)
    present = counts > 0
    factor = np.where(present, counts.sum() / max(1, int(present.sum())) / np.maximum(counts, SMALLEST), 0.0)
    result: Floats = weights * (targets @ factor)
    return result


class Adjusted:
    """A learner with logit adjustment (Menon et al. 2021): logits − log(class shares of the training rows).

    This corrects for class imbalance, as if all classes were equally frequent.
    """

    def __init__(self, learner: Any, log_shares: Floats) -> None:
        self.learner, self.log_shares = learner, log_shares
        self.name, self.classes = learner.name, learner.classes

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fit the learner, then compute the class shares of its training rows."""
        self.learner.fit(inputs, targets, weights)
        self.log_shares = np.log(class_shares(targets, weights))

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""
        result: Floats = self.learner.logits(inputs) - self.log_shares
        return result

    def dropout_std(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): the standard deviation that the learner returns; zeros if it has no Monte Carlo dropout."""
        dropout_std = getattr(self.learner, "dropout_std", None)
        return np.zeros(len(inputs)) if dropout_std is None else np.asarray(dropout_std(inputs, seed), dtype=np.float64)


def losses_of_rows(name: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(n_rows,): cross-entropy, focal loss (Lin et al. 2017) or symmetric cross-entropy (Wang et al. 2019).

    With targets y and probabilities p: −Σ y log p; −Σ y (1 − p)^γ log p; (1 − r)(−Σ y log p) + r (−Σ p log y).
    logits, targets: (n_rows, n_classes); targets' rows sum to 1.
    """
    import torch

    log_probabilities = torch.log_softmax(logits, dim=1)
    cross_entropy = -(targets * log_probabilities).sum(dim=1)
    if name == "focal":
        return -(targets * (1 - log_probabilities.exp()) ** FOCAL_GAMMA * log_probabilities).sum(dim=1)
    if name == "symmetric":
        reverse_cross_entropy = -(log_probabilities.exp() * torch.log(targets.clamp(min=1e-4))).sum(dim=1)
        return (1 - REVERSE_SHARE) * cross_entropy + REVERSE_SHARE * reverse_cross_entropy
    return cross_entropy
