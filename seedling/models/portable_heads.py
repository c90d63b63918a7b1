"""Learners as torch modules, which return the same logits as the learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from seedling.errors import InputError
from seedling.features.encoder import unit_rows
from seedling.features.sparsity import is_sparse
from seedling.models.fine_tuned import FineTuned
from seedling.models.heads import ABSENT, LINEAR, Head
from seedling.models.instance_based import NEIGHBORS, NearestNeighbors, SupportVectorMachine
from seedling.models.losses import Adjusted
from seedling.models.network import Network
from seedling.models.portable_features import Embedding
from seedling.models.trees import LEAF, depth_of, leaf_shares
from seedling.stats.statistics import SMALLEST

VOTE_STEEPNESS = 2.0  # of the sigmoid that replaces a vote when gradients are needed


class ClassPlacement(nn.Module):
    """Places the scores of the classes that a learner was trained on among all classes; the others get `ABSENT`."""

    placement: torch.Tensor
    absent: torch.Tensor

    def __init__(self, present: Any, classes: int) -> None:
        super().__init__()
        placement = torch.zeros((len(present), classes))
        placement[torch.arange(len(present)), torch.as_tensor(np.asarray(present, dtype=np.int64))] = 1.0
        self.register_buffer("placement", placement)
        self.register_buffer("absent", ABSENT * (1 - placement.sum(dim=0)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(n, n_present) → (n, n_classes)."""
        return scores @ self.placement + self.absent


class Linear(nn.Module):
    """Logits of a linear learner."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __init__(self, coefficients: Any, intercepts: Any, present: Any, classes: int) -> None:
        super().__init__()
        weights, bias = np.asarray(coefficients, dtype=np.float64), np.asarray(intercepts, dtype=np.float64)
        if len(weights) == 1 and len(present) == 2:
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        self.register_buffer("weights", torch.from_numpy(weights.T.astype(np.float32)))
        self.register_buffer("bias", torch.from_numpy(bias.astype(np.float32)))
        self.classes = ClassPlacement(present, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        result: torch.Tensor = self.classes(features @ self.weights + self.bias)
        return result


class Constant(nn.Module):
    """A learner that was trained on a single class."""

    def __init__(self, present: Any, classes: int) -> None:
        super().__init__()
        self.classes = ClassPlacement(present, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        result: torch.Tensor = self.classes(0.0 * features[:, :1])
        return result


class SupportVectorModule(nn.Module):
    """A one-vs-one support vector machine: the decision per pair, and the votes of the classes."""

    decisions: torch.Tensor
    intercepts: torch.Tensor
    sides: torch.Tensor
    vectors: torch.Tensor | None

    def __init__(self, machine: SupportVectorMachine, smooth: bool) -> None:
        super().__init__()
        arrays = machine.arrays
        self.smooth, self.gamma = smooth, float(arrays["gamma"][0])
        n_classes = len(arrays["classes"])
        pairs = [(first, second) for first in range(n_classes) for second in range(first + 1, n_classes)]
        decisions, vectors = _pair_decisions(arrays["coefficients"], arrays["counts"], pairs), machine.kept
        if self.gamma == 0:  # linear: the vectors are summed beforehand
            decisions, vectors = np.asarray(sparse.csr_matrix(vectors).T @ decisions), None
        sides = np.zeros((len(pairs), n_classes), np.float32)
        sides[np.arange(len(pairs)), [first for first, _ in pairs]] = 1
        sides[np.arange(len(pairs)), [second for _, second in pairs]] = -1
        self.register_buffer("decisions", torch.from_numpy(decisions.astype(np.float32)))
        self.register_buffer("intercepts", torch.from_numpy(np.asarray(arrays["intercepts"], dtype=np.float32)))
        self.register_buffer("sides", torch.from_numpy(sides))
        self.register_buffer("vectors", None if vectors is None else torch.from_numpy(np.asarray(vectors, np.float32)))
        self.classes = ClassPlacement(arrays["classes"], machine.classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        kernel = features
        if self.vectors is not None:
            squared_norms = (features**2).sum(dim=1, keepdim=True) + (self.vectors**2).sum(dim=1)
            kernel = torch.exp(-self.gamma * (squared_norms - 2 * features @ self.vectors.T).clamp(min=0))
        decision = kernel @ self.decisions + self.intercepts
        sums = decision @ self.sides
        if self.sides.shape[1] == 2:
            # A positive decision is for the second class; with more classes, for the first of the pair.
            scores = sums / -2
        else:
            wins = torch.sigmoid(VOTE_STEEPNESS * decision) if self.smooth else (decision >= 0).float()
            votes = wins @ self.sides.clamp(min=0) + (1 - wins) @ (-self.sides).clamp(min=0)
            scores = votes + sums / (3 * (sums.abs() + 1))
        result: torch.Tensor = self.classes(scores)
        return result


def _pair_decisions(coefficients: Any, counts: Any, pairs: Sequence[tuple[int, int]]) -> Any:
    """(n_vectors, n_pairs): the coefficient of each vector in the decision of each pair."""
    ends = np.cumsum(counts)
    decisions = np.zeros((int(ends[-1]), len(pairs)))
    for pair_index, (first, second) in enumerate(pairs):
        first_vectors, second_vectors = (
            slice(ends[class_index] - counts[class_index], ends[class_index]) for class_index in (first, second)
        )
        decisions[first_vectors, pair_index] = coefficients[second - 1, first_vectors]
        decisions[second_vectors, pair_index] = coefficients[first, second_vectors]
    return decisions


class Neighbors(nn.Module):
    """The summed labels of the nearest training rows."""

    rows: torch.Tensor
    labels: torch.Tensor
    prior: torch.Tensor

    def __init__(self, learner: NearestNeighbors) -> None:
        super().__init__()
        train_rows, labels = learner.kept, learner.arrays["labels"]
        rows = train_rows.toarray() if is_sparse(train_rows) else train_rows
        self.n_neighbors = min(NEIGHBORS, len(rows))
        self.register_buffer("rows", torch.from_numpy(np.asarray(rows, np.float32).T.copy()))
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.float32)))
        self.register_buffer("prior", torch.from_numpy((labels.sum(axis=0) / labels.sum()).astype(np.float32)))
        self.width = float(learner.arrays["width"][0])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        similarities, neighbors = torch.topk(unit_rows(features) @ self.rows, self.n_neighbors, dim=1)
        closeness = torch.exp(-(2 - 2 * similarities).clamp(min=0) / self.width**2)
        label_sums = (closeness[..., None] * self.labels[neighbors]).sum(dim=1)
        return torch.log((label_sums + 0.1 * self.prior).clamp(min=SMALLEST))


class Trees(nn.Module):
    """Decision trees, traversed level by level; a leaf points to itself."""

    feature: torch.Tensor
    threshold: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    value: torch.Tensor
    tree: torch.Tensor
    start: torch.Tensor

    def __init__(self, arrays: Mapping[str, NDArray[Any]], classes: int) -> None:
        super().__init__()
        self.boosted = "baseline" in arrays
        starts, leaf = arrays["tree_start"], arrays["feature"] == LEAF
        present = arrays["baseline" if self.boosted else "classes"]
        values = np.zeros((len(leaf), len(present)))
        if self.boosted:
            output = np.repeat(np.arange(len(starts) - 1) % len(present), np.diff(starts))
            values[np.arange(len(leaf)), output] = arrays["value"]
        else:
            values = leaf_shares(arrays)
            values[leaf] /= values[leaf].sum(axis=1, keepdims=True)
        first_nodes = np.repeat(starts[:-1], np.diff(starts))
        nodes = {
            "feature": np.maximum(arrays["feature"], 0).astype(np.int64),
            "threshold": _rounded_down(arrays["threshold"]),
            "left": arrays["left"].astype(np.int64) - first_nodes,
            "right": arrays["right"].astype(np.int64) - first_nodes,
            "value": values.astype(np.float32),
        }
        max_nodes, self.depth = int(np.diff(starts).max()), depth_of(arrays)
        for name, node_values in nodes.items():
            trees = [node_values[begin:end] for begin, end in pairwise(starts)]
            padded = [np.pad(tree, [(0, max_nodes - len(tree)), *[(0, 0)] * (tree.ndim - 1)]) for tree in trees]
            self.register_buffer(name, torch.from_numpy(np.stack(padded)))
        self.register_buffer("tree", torch.arange(len(starts) - 1)[None])
        start = arrays["baseline"].reshape(1, -1) if self.boosted else np.zeros((1, 1))
        self.register_buffer("start", torch.from_numpy(start.astype(np.float32)))
        self.classes = ClassPlacement(arrays["classes"], classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        node = (0 * features[:, :1]).long() + torch.zeros_like(self.tree)
        for _ in range(self.depth):
            values_at_nodes = torch.gather(features, 1, self.feature[self.tree, node])
            goes_left = values_at_nodes <= self.threshold[self.tree, node]
            node = torch.where(goes_left, self.left[self.tree, node], self.right[self.tree, node])
        values = self.value[self.tree, node]
        if not self.boosted:
            probabilities = values.mean(dim=1)
        else:
            scores = self.start + values.sum(dim=1)
            if scores.shape[1] == 1:
                scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
            probabilities = torch.softmax(scores, dim=1)
        result: torch.Tensor = self.classes(torch.log(probabilities.clamp(min=1e-3)))
        return result


def _rounded_down(thresholds: Any) -> Any:
    """float32, rounded down, so that x ≤ threshold has the same result for every float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)


class NetworkModule(nn.Module):
    """The residual network, from pixels to logits."""

    def __init__(self, learner: Network) -> None:
        super().__init__()
        if learner.net is None:
            raise InputError("The network was not trained.")
        self.net = learner.net.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, n_classes)."""
        return torch.as_tensor(self.net(images.float().permute(0, 3, 1, 2) / 127.5 - 1))


class FineTunedModule(nn.Module):
    """The fine-tuned encoder with the features that the other heads use."""

    center: torch.Tensor

    def __init__(self, learner: FineTuned, smooth: bool) -> None:
        super().__init__()
        if learner._tuned is None:
            raise InputError("The encoder was not tuned.")
        self.embedding, head = Embedding(learner._tuned, smooth), learner._head
        self.register_buffer("center", head["center"])
        self.linear = Linear(
            head["coefficients"].numpy(), head["intercept"].numpy(), head["classes"].numpy(), learner.classes
        )

    def forward(self, model_inputs: Mapping[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        """(n, n_classes)."""
        tuned = unit_rows(self.embedding(model_inputs) - self.center)
        result: torch.Tensor = self.linear(torch.cat([tuned, features], dim=1))
        return result


class LogitAdjusted(nn.Module):
    """Logits minus the logarithms of the training classes' shares."""

    log_shares: torch.Tensor

    def __init__(self, learner: nn.Module, log_shares: Any) -> None:
        super().__init__()
        self.learner = learner
        self.register_buffer("log_shares", torch.from_numpy(np.asarray(log_shares, dtype=np.float32)))

    def forward(self, *inputs: Any) -> torch.Tensor:
        """(n, n_classes)."""
        result: torch.Tensor = self.learner(*inputs) - self.log_shares
        return result


def as_module(learner: Any, classes: int, smooth: bool) -> nn.Module:
    """Return the torch module of a learner. Raises InputError if the learner has none."""
    if isinstance(learner, Adjusted):
        return LogitAdjusted(as_module(learner.learner, classes, smooth), learner.log_shares)
    if isinstance(learner, Network):
        return NetworkModule(learner)
    if isinstance(learner, FineTuned):
        return FineTunedModule(learner, smooth)
    if isinstance(learner, NearestNeighbors):
        return Neighbors(learner)
    if isinstance(learner, SupportVectorMachine):
        present = learner.arrays["classes"]
        return Constant(present, classes) if len(present) == 1 else SupportVectorModule(learner, smooth)
    if isinstance(learner, Head):
        arrays = learner.arrays
        if len(arrays["classes"]) == 1:
            return Constant(arrays["classes"], classes)
        if learner.name in LINEAR:
            return Linear(arrays["weights"].T, arrays["intercepts"], arrays["classes"], classes)
        return Trees(arrays, classes)
    raise InputError(f"Learner '{learner.name}' cannot be converted to a torch module.")
