"""Learners as torch modules: each says what its own `logits` say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from seedling.errors import InputError
from seedling.models.fine_tuned import FineTuned
from seedling.models.heads import ABSENT, Head
from seedling.models.instance_based import NEIGHBORS, NearestNeighbors, SupportVectorMachine
from seedling.models.losses import Adjusted
from seedling.models.network import Network
from seedling.models.portable_features import Embedding, unit_rows
from seedling.models.trees import LEAF, depth_of, leaf_shares
from seedling.stats.statistics import SMALLEST

STEEPNESS = 2.0  # of what stands for a vote where gradients are wanted


class Classes(nn.Module):
    """Scores of the classes that a learner saw, at their places among all; the others get the smallest there is."""

    place: torch.Tensor
    absent: torch.Tensor

    def __init__(self, present: Any, classes: int) -> None:
        super().__init__()
        place = torch.zeros((len(present), classes))
        place[torch.arange(len(present)), torch.as_tensor(np.asarray(present, dtype=np.int64))] = 1.0
        self.register_buffer("place", place)
        self.register_buffer("absent", ABSENT * (1 - place.sum(dim=0)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(n, n_present) → (n, n_classes)."""
        return scores @ self.place + self.absent


class Linear(nn.Module):
    """Logits by one product."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __init__(self, coefficients: Any, intercepts: Any, present: Any, classes: int) -> None:
        super().__init__()
        weights, bias = np.asarray(coefficients, dtype=np.float64), np.asarray(intercepts, dtype=np.float64)
        if len(weights) == 1 and len(present) == 2:
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        self.register_buffer("weights", torch.from_numpy(weights.T.astype(np.float32)))
        self.register_buffer("bias", torch.from_numpy(bias.astype(np.float32)))
        self.classes = Classes(present, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        result: torch.Tensor = self.classes(features @ self.weights + self.bias)
        return result


class Constant(nn.Module):
    """A learner that saw one class."""

    def __init__(self, present: Any, classes: int) -> None:
        super().__init__()
        self.classes = Classes(present, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        result: torch.Tensor = self.classes(0.0 * features[:, :1])
        return result


class Machine(nn.Module):
    """A support vector machine, one against one: each pair's decision, and what classes win of them."""

    decisions: torch.Tensor
    intercepts: torch.Tensor
    sides: torch.Tensor
    vectors: torch.Tensor | None

    def __init__(self, machine: SupportVectorMachine, smooth: bool) -> None:
        super().__init__()
        known = machine.arrays
        self.smooth, self.gamma = smooth, float(known["gamma"][0])
        many = len(known["classes"])
        pairs = [(one, other) for one in range(many) for other in range(one + 1, many)]
        decisions, vectors = _by_pair(known["coefficients"], known["counts"], pairs), machine.kept
        if self.gamma == 0:  # linear: the vectors are summed up beforehand
            decisions, vectors = np.asarray(sparse.csr_matrix(vectors).T @ decisions), None
        sides = np.zeros((len(pairs), many), np.float32)
        sides[np.arange(len(pairs)), [one for one, _ in pairs]] = 1
        sides[np.arange(len(pairs)), [other for _, other in pairs]] = -1
        self.register_buffer("decisions", torch.from_numpy(decisions.astype(np.float32)))
        self.register_buffer("intercepts", torch.from_numpy(np.asarray(known["intercepts"], dtype=np.float32)))
        self.register_buffer("sides", torch.from_numpy(sides))
        self.register_buffer("vectors", None if vectors is None else torch.from_numpy(np.asarray(vectors, np.float32)))
        self.classes = Classes(known["classes"], machine.classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        shown = features
        if self.vectors is not None:
            lengths = (features**2).sum(dim=1, keepdim=True) + (self.vectors**2).sum(dim=1)
            shown = torch.exp(-self.gamma * (lengths - 2 * features @ self.vectors.T).clamp(min=0))
        decision = shown @ self.decisions + self.intercepts
        sums = decision @ self.sides
        if (
            self.sides.shape[1] == 2
        ):  # of two classes a positive decision speaks for the second, of more for the first of a pair
            scores = sums / -2
        else:
            won = torch.sigmoid(STEEPNESS * decision) if self.smooth else (decision >= 0).float()
            votes = won @ self.sides.clamp(min=0) + (1 - won) @ (-self.sides).clamp(min=0)
            scores = votes + sums / (3 * (sums.abs() + 1))
        result: torch.Tensor = self.classes(scores)
        return result


def _by_pair(coefficients: Any, counts: Any, pairs: Sequence[tuple[int, int]]) -> Any:
    """(n_vectors, n_pairs): what each vector adds to each pair's decision."""
    ends = np.cumsum(counts)
    found = np.zeros((int(ends[-1]), len(pairs)))
    for place, (one, other) in enumerate(pairs):
        mine, its = (slice(ends[each] - counts[each], ends[each]) for each in (one, other))
        found[mine, place] = coefficients[other - 1, mine]
        found[its, place] = coefficients[one, its]
    return found


class Neighbors(nn.Module):
    """The nearest training rows' summed opinions."""

    rows: torch.Tensor
    labels: torch.Tensor
    prior: torch.Tensor

    def __init__(self, learner: NearestNeighbors) -> None:
        super().__init__()
        kept, labels = learner.kept, learner.arrays["labels"]
        rows = kept.toarray() if sparse.issparse(kept) else kept
        self.many = min(NEIGHBORS, len(rows))
        self.register_buffer("rows", torch.from_numpy(np.asarray(rows, np.float32).T.copy()))
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.float32)))
        self.register_buffer("prior", torch.from_numpy((labels.sum(axis=0) / labels.sum()).astype(np.float32)))
        self.width = float(learner.arrays["width"][0])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        near, place = torch.topk(unit_rows(features) @ self.rows, self.many, dim=1)
        closeness = torch.exp(-(2 - 2 * near).clamp(min=0) / self.width**2)
        opinion = (closeness[..., None] * self.labels[place]).sum(dim=1)
        return torch.log((opinion + 0.1 * self.prior).clamp(min=SMALLEST))


class Trees(nn.Module):
    """Decision trees, walked through level by level; a leaf leads to itself."""

    feature: torch.Tensor
    threshold: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    value: torch.Tensor
    tree: torch.Tensor
    start: torch.Tensor

    def __init__(self, arrays: Mapping[str, Any], classes: int) -> None:
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
        first = np.repeat(starts[:-1], np.diff(starts))
        nodes = {
            "feature": np.maximum(arrays["feature"], 0).astype(np.int64),
            "threshold": _not_above(arrays["threshold"]),
            "left": arrays["left"].astype(np.int64) - first,
            "right": arrays["right"].astype(np.int64) - first,
            "value": values.astype(np.float32),
        }
        most, self.depth = int(np.diff(starts).max()), depth_of(arrays)
        for name, each in nodes.items():
            trees = [each[one:end] for one, end in pairwise(starts)]
            padded = [np.pad(one, [(0, most - len(one)), *[(0, 0)] * (one.ndim - 1)]) for one in trees]
            self.register_buffer(name, torch.from_numpy(np.stack(padded)))
        self.register_buffer("tree", torch.arange(len(starts) - 1)[None])
        start = arrays["baseline"].reshape(1, -1) if self.boosted else np.zeros((1, 1))
        self.register_buffer("start", torch.from_numpy(start.astype(np.float32)))
        self.classes = Classes(arrays["classes"], classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        node = (0 * features[:, :1]).long() + torch.zeros_like(self.tree)
        for _ in range(self.depth):
            seen = torch.gather(features, 1, self.feature[self.tree, node])
            less = seen <= self.threshold[self.tree, node]
            node = torch.where(less, self.left[self.tree, node], self.right[self.tree, node])
        values = self.value[self.tree, node]
        if not self.boosted:
            shares = values.mean(dim=1)
        else:
            scores = self.start + values.sum(dim=1)
            if scores.shape[1] == 1:
                scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
            shares = torch.softmax(scores, dim=1)
        result: torch.Tensor = self.classes(torch.log(shares.clamp(min=1e-3)))
        return result


def _not_above(thresholds: Any) -> Any:
    """float32, rounded down: a float32 is at most the one where it is at most the other."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)


class Pixels(nn.Module):
    """The network, from pixels on."""

    def __init__(self, learner: Network) -> None:
        super().__init__()
        if learner.net is None:
            raise InputError("The network was not trained.")
        self.net = learner.net.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, n_classes)."""
        return torch.as_tensor(self.net(images.float().permute(0, 3, 1, 2) / 127.5 - 1))


class Tuned(nn.Module):
    """The tuned encoder, beside what the other heads see."""

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

    def forward(self, ready: Mapping[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        """(n, n_classes)."""
        made = unit_rows(self.embedding(ready) - self.center)
        result: torch.Tensor = self.linear(torch.cat([made, features], dim=1))
        return result


class Lessened(nn.Module):
    """Logits without the training classes' shares."""

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
    """The module of a learner. Raises InputError for one that has none."""
    if isinstance(learner, Adjusted):
        return Lessened(as_module(learner.learner, classes, smooth), learner.log_shares)
    if isinstance(learner, Network):
        return Pixels(learner)
    if isinstance(learner, FineTuned):
        return Tuned(learner, smooth)
    if isinstance(learner, NearestNeighbors):
        return Neighbors(learner)
    if isinstance(learner, SupportVectorMachine):
        present = learner.arrays["classes"]
        return Constant(present, classes) if len(present) == 1 else Machine(learner, smooth)
    if isinstance(learner, Head):
        arrays = learner.arrays
        if len(arrays["classes"]) == 1:
            return Constant(arrays["classes"], classes)
        if learner.name == "logistic_regression":
            return Linear(arrays["weights"].T, arrays["intercepts"], arrays["classes"], classes)
        return Trees(arrays, classes)
    raise InputError(f"{learner.name} has no graph.")
