"""The encoder itself, tuned to the labels there are: low-rank adapters (Hu et al. 2022) in the upper half of its layers.

Rows of one class are drawn together and apart from the others (supervised contrastive loss, Khosla et al. 2020), which
teaches an encoder more from few labels than cross-entropy does; pairs are those within a batch, so the memory does not grow
with the square of the rows. A logistic regression on the tuned features, beside the frozen ones, gives the logits.
What is saved is the adapters and that regression: the encoder stays where it is, pinned by its key.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from seedling.errors import InputError
from seedling.features.classical import Contents, Inputs
from seedling.features.encoded_features import EncodedFeatures, unit
from seedling.features.encoder import COLORS, Encoder, Features
from seedling.models.device import device_of, in_half, one_thread
from seedling.models.heads import ABSENT, hard_rows, make_estimator
from seedling.models.losses import MIXIN, MIXIN_SHARE
from seedling.models.model_arrays import check_arrays, check_classes
from seedling.models.training import FitContext, Loop
from seedling.stats.statistics import Floats

RANK = 8
RATE = 1e-3
CLASSES_A_BATCH, ROWS_A_CLASS = 8, 4
SHARPNESS = 0.1  # temperature of the contrastive loss
ENOUGH_TO_HOLD_OUT = 100  # rows: with fewer, all of them teach and the steps are fixed
STEPS_BETWEEN_CHECKS, PATIENCE = 20, 2
SHARE_OF_STEPS, MOST_STEPS = 5, 200  # a step is dear: a fifth of the network's
FLOPS_A_SECOND = {"cpu": 4e10, "mps": 5e11, "cuda": 5e12}  # that small batches reach
ARRAYS_OF_HEAD = {"center": ("f", 1), "classes": ("i", 1), "coefficients": ("f", 2), "intercept": ("f", 1)}
TOKENS = 16  # of a usual short text, for the prediction of seconds


class FineTuned:
    """The tuned encoder as a learner: fit on weighted, soft-labeled rows, give logits."""

    name = "fine_tuned"

    def __init__(self, setting: FitContext) -> None:
        self.setting, self.classes = setting, setting.classes
        self._tuned: Encoder | None = None
        self._head: dict[str, torch.Tensor] = {}

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). Raises Diverged for a loss that is no number."""
        encoder, contents = frozen_encoder(self.setting), _contents(inputs)
        device = device_of(self.setting.device) if encoder.device.type == "cuda" else encoder.device
        one_thread(device)
        model = adapted(encoder, self.setting.seed).to(device)
        tuned = replace(encoder, model=model, device=device)
        rows = Ready(tuned, contents, _maker(self.setting).max_megapixels)
        mixin = self.setting.mixin if self.setting.loss == MIXIN else None
        others = None if mixin is None else Ready(tuned, _contents(mixin.inputs), rows.max_megapixels)
        labels = targets.argmax(axis=1)
        held_out = np.zeros(len(labels), dtype=bool)
        if len(labels) >= ENOUGH_TO_HOLD_OUT:
            held_out[np.random.default_rng(self.setting.seed).permutation(len(labels))[: len(labels) // 5]] = True
        taught = np.flatnonzero(~held_out)
        state = {"best": torch.tensor(torch.inf), "waited": torch.tensor(0)}
        loop = Loop(model, self.setting, RATE, state)

        def loss_of(step: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
            model.eval()  # dropout would draw from torch's global generator
            batch = taught[drawn_batch(labels[taught], weights[taught], draw)]
            for part in np.array_split(batch, min(loop.parts, max(1, len(batch) // 4))):
                with in_half(device):
                    made = rows.embed(part)
                yield contrastive_loss(made.float(), torch.from_numpy(labels[part]).to(device)) * len(part) / len(batch)
            if mixin is None or others is None:
                return
            batch = drawn_batch(mixin.labels, mixin.weights, draw)  # its classes draw together too, apart from ours
            for part in np.array_split(batch, min(loop.parts, max(1, len(batch) // 4))):
                with in_half(device):
                    made = others.embed(part)
                loss = contrastive_loss(made.float(), torch.from_numpy(mixin.labels[part]).to(device))
                yield MIXIN_SHARE * loss * len(part) / len(batch)

        def enough(step: int) -> bool:
            if not held_out.any() or step % STEPS_BETWEEN_CHECKS:
                return False
            loss = class_mean_loss(rows, taught, np.flatnonzero(held_out), labels, self.classes)
            better = loss < float(state["best"]) - 1e-3
            state["waited"].fill_(0 if better else int(state["waited"]) + 1)
            state["best"].fill_(min(loss, float(state["best"])))
            return int(state["waited"]) >= PATIENCE

        steps = min(max(2, self.setting.steps // SHARE_OF_STEPS), MOST_STEPS)
        averaged = loop.run(loss_of, steps, enough)
        model.load_state_dict(averaged, strict=False)
        self._tuned = replace(tuned, model=model.eval())
        self._fit_head(inputs, targets, weights)

    def _fit_head(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        made = self._encode(_contents(inputs))
        center = made.mean(axis=0, dtype=np.float64).astype(np.float32)
        features = joined(made, center, inputs.features)
        rows, labels, row_weights = hard_rows(targets, weights)
        if len(np.unique(labels)) == 1:
            wide = features.shape[1]
            coefficients, intercept, classes = np.zeros((1, wide)), np.zeros(1), np.unique(labels)
        else:
            estimator = make_estimator("logistic_regression", 0, len(rows))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*lbfgs failed to converge.*")
                estimator.fit(features[rows], labels, sample_weight=row_weights)
            coefficients, intercept, classes = estimator.coef_, estimator.intercept_, estimator.classes_
            if len(classes) == 2:
                coefficients = np.concatenate([-coefficients, coefficients]) / 2
                intercept = np.concatenate([-intercept, intercept]) / 2
        self._head = {
            "center": torch.from_numpy(center),
            "classes": torch.from_numpy(np.asarray(classes, dtype=np.int64)),
            "coefficients": torch.from_numpy(np.ascontiguousarray(coefficients, dtype=np.float64)),
            "intercept": torch.from_numpy(np.asarray(intercept, dtype=np.float64)),
        }

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes); a class that was not in training gets the smallest there is."""
        result = np.full((len(inputs), self.classes), ABSENT)
        if len(inputs) == 0:
            return result
        head = {name: one.numpy() for name, one in self._head.items()}
        features = joined(self._encode(_contents(inputs)), head["center"], inputs.features)
        result[:, head["classes"]] = features.astype(np.float64) @ head["coefficients"].T + head["intercept"]
        return result

    def _encode(self, contents: Contents) -> Features:
        if self._tuned is None:
            raise InputError("The encoder was not tuned.")
        made = np.concatenate(list(self._tuned.encode(contents, _maker(self.setting).max_megapixels)))
        return made[:, :-COLORS] if self._tuned.modality == "image" else made

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is saved: the adapters and the regression."""
        if self._tuned is None:
            raise InputError("The encoder was not tuned.")
        adapters = {name: one for name, one in self._tuned.model.named_parameters() if "lora_" in name}
        kept = {f"adapter.{name}": one for name, one in adapters.items()} | {
            f"head.{name}": one for name, one in self._head.items()
        }
        return {name: one.detach().cpu().contiguous() for name, one in sorted(kept.items())}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The adapters and the regression that were saved, on the encoder as it lies in its folder."""
        encoder = frozen_encoder(self.setting)
        model = adapted(encoder, 0)
        adapters = {name.removeprefix("adapter."): one for name, one in tensors.items() if name.startswith("adapter.")}
        expected = {name for name, _ in model.named_parameters() if "lora_" in name}
        if adapters.keys() != expected:
            raise ValueError("the adapters are not those of the encoder's layers")
        model.load_state_dict(adapters, strict=False)
        self._tuned = replace(encoder, model=model.to(encoder.device).eval())
        head = {name.removeprefix("head."): one for name, one in tensors.items() if name.startswith("head.")}
        check_arrays({name: one.numpy() for name, one in head.items()}, ARRAYS_OF_HEAD)
        check_classes(head["classes"].numpy(), self.classes)
        if not len(head["classes"]) == len(head["coefficients"]) == len(head["intercept"]):
            raise ValueError("coefficients and intercepts do not fit the classes")
        self._head = head


class Ready:
    """Rows as the encoder takes them, prepared once."""

    def __init__(self, encoder: Encoder, contents: Contents, max_megapixels: float) -> None:
        self.encoder, self.prepared = encoder, encoder.prepared(list(contents))
        self.max_megapixels = max_megapixels

    def embed(self, rows: Any) -> torch.Tensor:
        """(n, d): of length 1, with gradients where they are wanted."""
        ready = self.encoder.batch([self.prepared[row] for row in rows], self.max_megapixels)
        return nn.functional.normalize(self.encoder.embedded(ready).float(), dim=1)


def frozen_encoder(setting: FitContext) -> Encoder:
    """The encoder that the features are made by."""
    return _maker(setting).encoder


def _maker(setting: FitContext) -> EncodedFeatures:
    if not isinstance(setting.maker, EncodedFeatures):
        raise InputError(
            "There is no encoder to tune: leave `fine_tuned` out of train.candidates, or name an `encoder` in params.yaml."
        )
    return setting.maker


def _contents(inputs: Inputs) -> Contents:
    if inputs.contents is None:
        raise InputError("Fine-tuning needs the rows themselves, and only their features are at hand.")
    return inputs.contents


def adapted(encoder: Encoder, seed: int) -> Any:
    """A copy of the encoder's model with adapters of rank 8, drawn from the seed, in the upper half of its layers."""
    from peft import LoraConfig, inject_adapter_in_model

    model = copy.deepcopy(encoder.model)
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        if "pooler" not in name
    ]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=layers[len(layers) // 2 :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = inject_adapter_in_model(config, model)
    for layer in model.modules():
        if isinstance(getattr(layer, "base_layer", None), nn.Conv2d):  # some models ask a convolution how it is built
            for fact in ("stride", "kernel_size", "padding", "dilation"):
                setattr(layer, fact, getattr(layer.base_layer, fact))
    draw = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.requires_grad_("lora_" in name)
            if "lora_A" in name:  # peft draws them from torch's global generator; B stays zero
                one.copy_(nn.init.kaiming_uniform_(torch.empty(one.shape), a=5**0.5, generator=draw))
    return model


def drawn_batch(labels: np.ndarray, weights: Floats, draw: torch.Generator) -> np.ndarray:
    """Row numbers: up to eight classes and of each up to four rows, by weight and without repeats."""
    present = np.unique(labels[weights > 0])
    classes = present[torch.randperm(len(present), generator=draw)[:CLASSES_A_BATCH].numpy()]
    room = max(ROWS_A_CLASS, CLASSES_A_BATCH * ROWS_A_CLASS // len(classes))
    chosen = []
    for one in classes:
        mine = np.flatnonzero((labels == one) & (weights > 0))
        drawn = torch.multinomial(torch.from_numpy(weights[mine]), min(room, len(mine)), generator=draw)
        chosen.append(mine[drawn.numpy()])
    return np.concatenate(chosen)


def contrastive_loss(made: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss over the batch, and cross-entropy towards the batch's class means.

    made: (n, d), rows of length 1; labels: (n,). A row alone of its class teaches by being none of the others.
    """
    itself = torch.eye(len(made), dtype=torch.bool, device=made.device)
    alike = (labels[:, None] == labels[None]) & ~itself
    closeness = (made @ made.T / SHARPNESS).masked_fill(itself, -1e9)
    log_shares = closeness - torch.logsumexp(closeness, dim=1, keepdim=True)
    pairs = alike.sum(dim=1)
    contrast = -((log_shares * alike).sum(dim=1) / pairs.clamp(min=1)).sum() / (pairs > 0).sum().clamp(min=1)
    present, place = torch.unique(labels, return_inverse=True)
    means = torch.stack([made[place == one].mean(dim=0) for one in range(len(present))])
    towards = made @ nn.functional.normalize(means, dim=1).T / SHARPNESS
    return contrast + nn.functional.cross_entropy(towards, place)


def class_mean_loss(rows: Ready, taught: Any, asked: Any, labels: Any, classes: int) -> float:
    """How unlikely the held-out rows' classes are by their closeness to the classes' means."""
    with torch.no_grad():
        known, made = (torch.cat([rows.embed(part) for part in _blocks(some)]).cpu() for some in (taught, asked))
    means = torch.zeros((classes, known.shape[1]))
    means.index_add_(0, torch.from_numpy(labels[taught]), known)
    towards = made @ nn.functional.normalize(means, dim=1).T / SHARPNESS
    return float(nn.functional.cross_entropy(towards, torch.from_numpy(labels[asked])))


def _blocks(rows: Any, size: int = 32) -> Iterator[Any]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def joined(made: Features, center: Features, frozen: Features) -> Features:
    """(n, d): tuned features, centered and of length 1, beside what the other heads see."""
    return np.concatenate([unit(made - center), frozen], axis=1)


def predicted_seconds_of_model(setting: FitContext, fitted: float, asked: float) -> float:
    """Seconds of one model on a usual core, or a usual GPU: from the operations of one row's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    encoder = frozen_encoder(setting)
    example: Any = np.zeros((64, 64, 3), np.uint8) if encoder.modality == "image" else [1] * TOKENS
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.embedded(encoder.batch([example]))
    a_row = counter.get_total_flops() / FLOPS_A_SECOND.get(encoder.device.type, 4e10)
    steps = min(setting.steps // SHARE_OF_STEPS, MOST_STEPS)
    return float(a_row * (3 * steps * CLASSES_A_BATCH * ROWS_A_CLASS + fitted + asked))
