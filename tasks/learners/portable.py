"""The whole model as one torch module: what is exported as ONNX, and what gradients are taken of.

Says what the model says, from pixels that were brought to their size, from token numbers, or from counted words on.
What is left outside is what no such graph has: decoding, resizing, splitting texts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn.functional import pad

from tasks import images
from tasks.errors import InputError
from tasks.learners.encoded_features import SURFACE, EncodedFeatures
from tasks.learners.features import (
    BINS,
    CELL,
    COLOUR_BINS,
    THUMBNAIL,
    FeatureMaker,
    PictureFeatures,
    TextFeatures,
)
from tasks.learners.fine_tuned import FineTuned
from tasks.learners.heads import ABSENT, Head
from tasks.learners.kept_rows import NEIGHBOURS, NearestNeighbours, SupportVectorMachine
from tasks.learners.losses import Adjusted
from tasks.learners.model import TrainedModel
from tasks.learners.network import Network
from tasks.statistics import SMALLEST

COLOUR_SIDE = 64  # of the picture that colours are counted on, beside an encoder
STEEPNESS = 2.0  # of what stands for a vote where gradients are wanted
TAKES = {"network": "small", "fine_tuned": "ready"}  # what a learner is asked with; the others: features
FIXED = 12  # bits after the point of the colour conversion's numbers
GAMMA_BITS = 3
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)
GREY_OF_RGB = (9798, 19235, 3735)  # of 2¹⁵


class Lab(nn.Module):
    """RGB → LAB of 8 bits in whole numbers, as OpenCV calculates it; smooth: the formula itself."""

    light: torch.Tensor
    root: torch.Tensor
    xyz: torch.Tensor

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        level = np.arange(256) / 255
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        steps = np.arange(256 * 3 // 2 << GAMMA_BITS, dtype=np.float32) / np.float32(
            255 << GAMMA_BITS
        )  # as OpenCV has it
        root = np.where(steps < 216 / 24389, steps * 841 / 108 + 16 / 116, np.cbrt(steps))
        xyz = np.array(XYZ_OF_RGB) / np.array(WHITE)[:, None]
        self.register_buffer("light", torch.from_numpy(np.rint((255 << GAMMA_BITS) * light).astype(np.int64)))
        self.register_buffer("root", torch.from_numpy(np.rint((1 << FIXED + GAMMA_BITS) * root).astype(np.int64)))
        self.register_buffer("xyz", torch.from_numpy(np.rint((1 << FIXED) * xyz).astype(np.int64)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3), 0 to 255, whole numbers unless smooth → the same shape, 0 to 255, float32."""
        if self.smooth:
            return self._formula(pictures)
        linear = self.light[pictures.long()]
        # Sums, not a product of matrices, which runtimes have for floats alone.
        axes = [(linear * weights).sum(dim=-1) for weights in self.xyz]
        x, y, z = (self.root[_descaled(axis, FIXED)] for axis in axes)
        bits = FIXED + GAMMA_BITS
        lightness = _descaled(296 * y - ((16 * 255 << bits) + 50) // 100, bits)
        both = (_descaled(500 * (x - y) + (128 << bits), bits), _descaled(200 * (y - z) + (128 << bits), bits))
        return torch.stack([lightness, *both], dim=-1).clamp(0, 255).float()

    def _formula(self, pictures: torch.Tensor) -> torch.Tensor:
        level = pictures / 255
        light = torch.where(level <= 0.04045, level / 12.92, ((level.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
        axes = light @ (self.xyz.T.float() / (1 << FIXED))
        x, y, z = torch.where(axes < 216 / 24389, axes * 841 / 108 + 16 / 116, axes.clamp(min=8e-3) ** (1 / 3)).unbind(
            -1
        )
        return torch.stack([2.55 * (116 * y - 16), 500 * (x - y) + 128, 200 * (y - z) + 128], dim=-1)


def _descaled(whole: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers divided by a power of two, rounded: of what may be negative, towards +∞ from the half on, as a shift does."""
    return torch.div(whole + (1 << bits - 1), 1 << bits, rounding_mode="floor")


class Colours(nn.Module):
    """Square-rooted histograms of LAB (n, 48); smooth: a level counts for both bins that it lies between."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        """lab: (n, height, width, 3), 0 to 255."""
        places = (lab * (COLOUR_BINS / 256)).flatten(1, 2)
        if self.smooth:
            shares = [torch.relu(1 - (places - 0.5 - one).abs()).mean(dim=1) for one in range(COLOUR_BINS)]
            return torch.sqrt(torch.stack(shares, dim=-1).flatten(1) + 1e-4)
        shares = [(torch.floor(places) == one).float().mean(dim=1) for one in range(COLOUR_BINS)]
        return torch.sqrt(torch.stack(shares, dim=-1).flatten(1))


class OfPictures(nn.Module):
    """Thumbnail, HOG and colours, scaled: tasks/learners/features.py as a graph."""

    def __init__(self, maker: PictureFeatures, smooth: bool) -> None:
        super().__init__()
        self.smooth, self.lab, self.colours = smooth, Lab(smooth), Colours(smooth)
        self.kept = [bool(np.isfinite(scale)) for _, scale in maker.blocks or []]
        for place, (mean, scale) in enumerate(maker.blocks or []):
            self.register_buffer(f"mean_{place}", torch.from_numpy(mean))
            self.register_buffer(f"scale_{place}", torch.tensor(scale, dtype=torch.float32))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, d)."""
        lab = self.lab(pictures)
        grey = (pictures.float() * torch.tensor(GREY_OF_RGB, dtype=torch.float32)).sum(dim=-1) / (1 << 15)
        grey = grey if self.smooth else torch.floor(grey + 0.5)
        small = nn.functional.avg_pool2d(lab.permute(0, 3, 1, 2), lab.shape[1] // THUMBNAIL).permute(0, 2, 3, 1)
        raw = [(small if self.smooth else torch.round(small)).flatten(1), _hog(grey / 255), self.colours(lab)]
        scaled = [
            (block - getattr(self, f"mean_{place}")) / getattr(self, f"scale_{place}")
            for place, block in enumerate(raw)
            if self.kept[place]
        ]
        return torch.cat(scaled, dim=1)


def _hog(grey: torch.Tensor) -> torch.Tensor:
    """As features.hog: (n, height, width), 0 to 1 → (n, blocks × 4 × bins)."""
    padded = pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx, dy = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.sqrt(dx**2 + dy**2 + 1e-20)
    across = torch.where((dx == 0) & (dy == 0), torch.ones_like(dx), dx)  # no direction has no gradient either
    angle = torch.remainder(torch.atan2(dy, across), torch.pi) / torch.pi * BINS
    lower = torch.floor(angle)
    share, first = angle - lower, torch.remainder(lower, BINS)
    cells = []
    for one in range(BINS):
        votes = strength * ((first == one) * (1 - share) + (torch.remainder(first + 1, BINS) == one) * share)
        cells.append(CELL * CELL * nn.functional.avg_pool2d(votes[:, None], CELL)[:, 0])
    stacked = torch.stack(cells, dim=-1)
    around = [stacked[:, :-1, :-1], stacked[:, 1:, :-1], stacked[:, :-1, 1:], stacked[:, 1:, 1:]]
    blocks = torch.cat(around, dim=-1)
    length = torch.sqrt((blocks**2).sum(dim=-1, keepdim=True) + 1e-20)
    return (blocks / (length + 0.1)).flatten(1)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Each row of length 1, zeros as they are."""
    return rows / torch.sqrt((rows**2).sum(dim=1, keepdim=True) + 1e-18).clamp(min=1e-9)


class Embedding(nn.Module):
    """An encoder's pooled output, in float16's precision where it is not to be derived."""

    def __init__(self, encoder: Any, smooth: bool) -> None:
        super().__init__()
        self.encoder, self.smooth = encoder, smooth
        self.model = copy.deepcopy(encoder.model).float().cpu()  # the caller's stays as it is, and where it is

    def forward(self, ready: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(n, d)."""
        made = self.encoder._pooled(self.model(**ready), ready.get("attention_mask"))
        result: torch.Tensor = made if self.smooth else made.half().float()
        return result


class OfEncoder(nn.Module):
    """What heads see of encoded rows: tasks/learners/encoded_features.py as a graph."""

    centre: torch.Tensor
    topics: torch.Tensor | None

    def __init__(self, maker: EncodedFeatures, smooth: bool) -> None:
        super().__init__()
        if maker.centre is None:
            raise InputError("The features were not fitted.")
        self.embedding = Embedding(maker.encoder, smooth)
        self.smooth, self.lab, self.colours = smooth, Lab(smooth), Colours(smooth)
        self.register_buffer("centre", torch.from_numpy(maker.centre))
        self.register_buffer("topics", None if maker.topics is None else torch.from_numpy(maker.topics))

    def forward(self, ready: Mapping[str, torch.Tensor], beside: torch.Tensor) -> torch.Tensor:
        """(n, d). beside: small pictures (n, 64, 64, 3), or counted words (n, n_terms)."""
        main = _unit(self.embedding(ready))
        if self.topics is None:
            surface = self.colours(self.lab(beside))
            surface = _unit(surface if self.smooth else surface.half().float())
        else:
            surface = _unit(beside @ self.topics)
        joined = torch.cat([main, surface], dim=1) - self.centre
        wide = main.shape[1]
        return _unit(torch.cat([_unit(joined[:, :wide]), SURFACE * _unit(joined[:, wide:])], dim=1))


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


class Neighbours(nn.Module):
    """The nearest training rows' summed opinions."""

    rows: torch.Tensor
    labels: torch.Tensor
    prior: torch.Tensor

    def __init__(self, learner: NearestNeighbours) -> None:
        super().__init__()
        kept, labels = learner.kept, learner.arrays["labels"]
        rows = kept.toarray() if sparse.issparse(kept) else kept
        self.many = min(NEIGHBOURS, len(rows))
        self.register_buffer("rows", torch.from_numpy(np.asarray(rows, np.float32).T.copy()))
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.float32)))
        self.register_buffer("prior", torch.from_numpy((labels.sum(axis=0) / labels.sum()).astype(np.float32)))
        self.width = float(learner.arrays["width"][0])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, n_classes)."""
        near, place = torch.topk(_unit(features) @ self.rows, self.many, dim=1)
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

    def __init__(self, estimator: Any, classes: int) -> None:
        super().__init__()
        boosted = hasattr(estimator, "_predictors")
        trees = _boosted_trees(estimator) if boosted else [_forest_tree(one.tree_) for one in estimator.estimators_]
        most, self.depth = max(len(one["feature"]) for one in trees), max(one["depth"] for one in trees)
        for name in ("feature", "threshold", "left", "right"):
            rows = [np.pad(one[name], (0, most - len(one[name]))) for one in trees]
            self.register_buffer(name, torch.from_numpy(np.stack(rows)))
        values = [np.pad(one["value"], ((0, most - len(one["value"])), (0, 0))) for one in trees]
        self.register_buffer("value", torch.from_numpy(np.stack(values).astype(np.float32)))
        self.register_buffer("tree", torch.arange(len(trees))[None])
        start = estimator._baseline_prediction.reshape(1, -1) if boosted else np.zeros((1, 1))
        self.register_buffer("start", torch.from_numpy(start.astype(np.float32)))
        self.boosted = boosted
        self.classes = Classes(estimator.classes_, classes)

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


def _forest_tree(tree: Any) -> dict[str, Any]:
    leaf, itself = tree.children_left < 0, np.arange(tree.node_count)
    shares = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
    return {
        "feature": np.where(leaf, 0, tree.feature).astype(np.int64),
        "threshold": _not_above(tree.threshold),
        "left": np.where(leaf, itself, tree.children_left).astype(np.int64),
        "right": np.where(leaf, itself, tree.children_right).astype(np.int64),
        "value": shares,
        "depth": tree.max_depth,
    }


def _boosted_trees(estimator: Any) -> list[dict[str, Any]]:
    found = []
    for step in estimator._predictors:
        for place, one in enumerate(step):
            nodes = one.nodes
            leaf, itself = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
            value = np.zeros((len(nodes), len(step)))
            value[:, place] = np.where(leaf, nodes["value"], 0.0)
            found.append(
                {
                    "feature": np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
                    "threshold": _not_above(nodes["num_threshold"]),
                    "left": np.where(leaf, itself, nodes["left"]).astype(np.int64),
                    "right": np.where(leaf, itself, nodes["right"]).astype(np.int64),
                    "value": value,
                    "depth": int(nodes["depth"].max()),
                }
            )
    return found


class Pixels(nn.Module):
    """The network, from pixels on."""

    def __init__(self, learner: Network) -> None:
        super().__init__()
        if learner.net is None:
            raise InputError("The network was not trained.")
        self.net = learner.net.eval()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, n_classes)."""
        return torch.as_tensor(self.net(pictures.float().permute(0, 3, 1, 2) / 127.5 - 1))


class Tuned(nn.Module):
    """The tuned encoder, beside what the other heads see."""

    centre: torch.Tensor

    def __init__(self, learner: FineTuned, smooth: bool) -> None:
        super().__init__()
        if learner._tuned is None:
            raise InputError("The encoder was not tuned.")
        self.embedding, head = Embedding(learner._tuned, smooth), learner._head
        self.register_buffer("centre", head["centre"])
        self.linear = Linear(
            head["coefficients"].numpy(), head["intercept"].numpy(), head["classes"].numpy(), learner.classes
        )

    def forward(self, ready: Mapping[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        """(n, n_classes)."""
        made = _unit(self.embedding(ready) - self.centre)
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


class Portable(nn.Module):
    """A trained model, from its inputs to probabilities.

    `inputs` names the tensors that it is called with, in their order: `pictures` (n, side, side, 3) and `small` (n, its side, its side, 3), 0 to 255; or `pixel_values` (n, 3, height, width) and
    `small` (n, 64, 64, 3); or `input_ids` and `attention_mask` (n, tokens) and `words` (n, n_terms); or `words` alone.
    smooth: whatever is a step is given a slope, so that gradients lead somewhere; the probabilities are then near, not the same.
    """

    def __init__(self, model: TrainedModel, smooth: bool = False) -> None:
        super().__init__()
        self.maker: FeatureMaker = model.features
        self.kind = _kind(self.maker)
        self.of_pictures = OfPictures(self.maker, smooth) if isinstance(self.maker, PictureFeatures) else None
        self.of_encoder = OfEncoder(self.maker, smooth) if isinstance(self.maker, EncodedFeatures) else None
        self.members = nn.ModuleList(
            nn.ModuleList(_as_module(half, model, smooth) for half in member) for member in model.members
        )
        names = {one for member in model.members for half in member for one in [half.name]}
        self.needs_small = self.kind == "pictures" and "network" in names
        self.takes = [[TAKES.get(half.name, "features") for half in member] for member in model.members]
        self.temperatures, self.temperature = list(model.temperatures), model.temperature
        self.votes = [float(one) / sum(model.votes) for one in model.votes]

    @property
    def inputs(self) -> list[str]:
        """The names of the tensors."""
        of_kind = {
            "pictures": ["pictures", *(["small"] if self.needs_small else [])],
            "encoded pictures": ["pixel_values", "small"],
            "encoded texts": ["input_ids", "attention_mask", "words"],
            "texts": ["words"],
        }
        return of_kind[self.kind]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(n, n_classes), rows sum to 1."""
        given = dict(zip(self.inputs, inputs, strict=True))
        ready: dict[str, torch.Tensor] = {
            name: one for name, one in given.items() if name not in {"pictures", "small", "words"}
        }
        features = self._features(given, ready)
        shares = torch.zeros(())
        for place, takes in enumerate(self.takes):
            member: Any = self.members[place]
            halves = [self._ask(half, one, features, given, ready) for half, one in zip(member, takes, strict=True)]
            logits = torch.stack(halves).mean(dim=0)
            shares = shares + self.votes[place] * torch.softmax(logits / self.temperatures[place], dim=1)
        return torch.softmax(torch.log(shares.clamp(min=SMALLEST)) / self.temperature, dim=1)

    def _features(self, given: Mapping[str, torch.Tensor], ready: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self.of_pictures is not None:
            return torch.as_tensor(self.of_pictures(given["pictures"]))
        if self.of_encoder is not None:
            return torch.as_tensor(self.of_encoder(ready, given["small"] if "small" in given else given["words"]))
        return given["words"]

    @staticmethod
    def _ask(
        half: Any, takes: str, features: torch.Tensor, given: Mapping[str, torch.Tensor], ready: Any
    ) -> torch.Tensor:
        asked = (given["small"],) if takes == "small" else (ready, features) if takes == "ready" else (features,)
        return torch.as_tensor(half(*asked))

    def prepared(self, payloads: Sequence[Any], max_megapixels: float = 64.0) -> tuple[torch.Tensor, ...]:
        """The tensors of these encoded pictures or texts."""
        if self.kind == "texts":
            return (self._words(self.maker, payloads),)
        if isinstance(self.maker, EncodedFeatures):
            encoder = self.maker.encoder
            if self.kind == "encoded texts":
                made = encoder.batch(encoder.prepared(payloads))
                return made["input_ids"].cpu(), made["attention_mask"].cpu(), self._words(self.maker.words, payloads)
            pixels = [images.decode(one, max_megapixels) for one in payloads]
            return encoder.prepare(pixels).float(), _area(pixels, COLOUR_SIDE)
        pixels = [images.decode(one, max_megapixels) for one in payloads]
        made_of: Any = self.maker
        shown = np.stack([images.resized(one, made_of.side, made_of.side) for one in pixels])
        if not self.needs_small:
            return (torch.from_numpy(shown),)
        small = np.stack([images.resized(one, made_of.network_side, made_of.network_side) for one in shown])
        return torch.from_numpy(shown), torch.from_numpy(small)

    @staticmethod
    def _words(maker: Any, texts: Sequence[Any]) -> torch.Tensor:
        counted: Any = maker.transform([str(one) for one in texts]).features
        return torch.from_numpy(np.asarray(counted.toarray(), dtype=np.float32))


def _kind(maker: FeatureMaker) -> str:
    if isinstance(maker, PictureFeatures):
        return "pictures"
    if isinstance(maker, EncodedFeatures):
        return "encoded pictures" if maker.modality == "image" else "encoded texts"
    if isinstance(maker, TextFeatures):
        return "texts"
    raise InputError(f"{type(maker).__name__} has no graph.")


def _area(pixels: Sequence[images.Pixels], side: int) -> torch.Tensor:
    import cv2

    return torch.from_numpy(np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pixels]))


def _as_module(learner: Any, model: TrainedModel, smooth: bool) -> nn.Module:
    classes = len(model.classes)
    if isinstance(learner, Adjusted):
        return Lessened(_as_module(learner.learner, model, smooth), learner.log_shares)
    if isinstance(learner, Network):
        return Pixels(learner)
    if isinstance(learner, FineTuned):
        return Tuned(learner, smooth)
    if isinstance(learner, NearestNeighbours):
        return Neighbours(learner)
    if isinstance(learner, SupportVectorMachine):
        present = learner.arrays["classes"]
        return Constant(present, classes) if len(present) == 1 else Machine(learner, smooth)
    if isinstance(learner, Head):
        estimator = learner.estimator
        if len(estimator.classes_) == 1:
            return Constant(estimator.classes_, classes)
        if learner.name == "logistic_regression":
            return Linear(estimator.coef_, estimator.intercept_, estimator.classes_, classes)
        return Trees(estimator, classes)
    raise InputError(f"{learner.name} has no graph.")
