"""The fine-tuned encoder: low-rank adapters (Hu et al. 2022) in the upper half of its layers.

The loss pulls rows of one class together and pushes other classes away (supervised contrastive loss, Khosla et al.
2020), which learns more from few labels than cross-entropy does. Pairs are formed within a batch, so memory does not
grow with the square of the number of rows. A logistic regression on the tuned and the frozen features gives the logits.
Only the adapters and the regression are saved: the encoder stays in its folder, pinned by its key.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seedling.errors import InputError
from seedling.features.classical import Contents, Inputs
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import COLOR_COLUMNS, Encoder, Features
from seedling.features.normalization import normalize_rows
from seedling.models.device import device_of, mixed_precision, use_one_thread
from seedling.models.heads import ABSENT, hard_rows, make_estimator
from seedling.models.losses import MIXIN, MIXIN_SHARE
from seedling.models.model_arrays import check_arrays, check_classes
from seedling.models.training import FitContext, Loop
from seedling.stats.statistics import Floats

RANK = 8
PEAK_LEARNING_RATE = 1e-3
CLASSES_PER_BATCH, ROWS_PER_CLASS = 8, 4
TEMPERATURE = 0.1  # of the contrastive loss
MIN_ROWS_TO_HOLD_OUT = 100  # with fewer rows, all rows are training rows and the number of steps is fixed
STEPS_BETWEEN_CHECKS, PATIENCE = 20, 2
NETWORK_STEPS_PER_STEP, MAX_STEPS = 5, 200  # a step is expensive: a fifth of the network's steps
FLOPS_PER_SECOND = {"cpu": 4e10, "mps": 5e11, "cuda": 5e12}  # that small batches reach, by device type
ARRAYS_OF_HEAD = {"center": ("f", 1), "classes": ("i", 1), "coefficients": ("f", 2), "intercept": ("f", 1)}
EXAMPLE_TOKENS = 16  # of a typical short text, to predict the seconds


class FineTuned:
    """The fine-tuned encoder as a learner: fits weighted, soft-labeled rows and returns logits."""

    name = "fine_tuned"

    def __init__(self, context: FitContext) -> None:
        self.context, self.classes = context, context.classes
        self._tuned: Encoder | None = None
        self._head: dict[str, torch.Tensor] = {}

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fine-tune the adapters, then fit the regression.

        targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). Raises Diverged for a loss that is not finite.
        """
        encoder, contents = frozen_encoder(self.context), _contents(inputs)
        device = device_of(self.context.device) if encoder.device.type == "cuda" else encoder.device
        use_one_thread(device)
        model = with_adapters(encoder, self.context.seed).to(device)
        tuned_encoder = replace(encoder, model=model, device=device)
        prepared_rows = PreparedRows(tuned_encoder, contents, _maker(self.context).max_megapixels)
        mixin = self.context.mixin if self.context.loss == MIXIN else None
        prepared_mixin = (
            None
            if mixin is None
            else PreparedRows(tuned_encoder, _contents(mixin.inputs), prepared_rows.max_megapixels)
        )
        labels = targets.argmax(axis=1)
        train, held_out = train_and_held_out(len(labels), self.context.seed)
        stopping = EarlyStopping(prepared_rows, train, held_out, labels, self.classes)
        loop = Loop(model, self.context, PEAK_LEARNING_RATE, stopping.state)

        def loss_of(step: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
            model.eval()  # dropout would use torch's global generator
            batch = train[sample_batch(labels[train], weights[train], generator)]
            yield from batch_losses(prepared_rows, labels, batch, loop.parts)
            if mixin is not None and prepared_mixin is not None:
                # A batch of its own, because its classes differ from ours.
                mixin_batch = sample_batch(mixin.labels, mixin.weights, generator)
                yield from batch_losses(prepared_mixin, mixin.labels, mixin_batch, loop.parts, MIXIN_SHARE)

        n_steps = min(max(2, self.context.steps // NETWORK_STEPS_PER_STEP), MAX_STEPS)
        averaged = loop.run(loss_of, n_steps, stopping.should_stop)
        model.load_state_dict(averaged, strict=False)
        self._tuned = replace(tuned_encoder, model=model.eval())
        self._fit_head(inputs, targets, weights)

    def _fit_head(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        embeddings = self._encode(_contents(inputs))
        center = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        features = combined_features(embeddings, center, inputs.features)
        rows, labels, row_weights = hard_rows(targets, weights)
        if len(np.unique(labels)) == 1:
            n_features = features.shape[1]
            coefficients, intercept, classes = np.zeros((1, n_features)), np.zeros(1), np.unique(labels)
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
        """(n_rows, n_classes); a class that was not in the training rows gets `ABSENT`."""
        result = np.full((len(inputs), self.classes), ABSENT)
        if len(inputs) == 0:
            return result
        head = {name: tensor.numpy() for name, tensor in self._head.items()}
        features = combined_features(self._encode(_contents(inputs)), head["center"], inputs.features)
        result[:, head["classes"]] = features.astype(np.float64) @ head["coefficients"].T + head["intercept"]
        return result

    def _encode(self, contents: Contents) -> Features:
        if self._tuned is None:
            raise InputError("The encoder was not tuned.")
        embeddings = np.concatenate(list(self._tuned.encode(contents, _maker(self.context).max_megapixels)))
        return embeddings[:, :-COLOR_COLUMNS] if self._tuned.modality == "image" else embeddings

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is saved: the adapters and the regression."""
        if self._tuned is None:
            raise InputError("The encoder was not tuned.")
        adapters = {name: parameter for name, parameter in self._tuned.model.named_parameters() if "lora_" in name}
        saved = {f"adapter.{name}": tensor for name, tensor in adapters.items()} | {
            f"head.{name}": tensor for name, tensor in self._head.items()
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(saved.items())}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the saved adapters and regression onto the encoder. Raises ValueError if they do not fit."""
        encoder = frozen_encoder(self.context)
        model = with_adapters(encoder, 0)
        adapters = {
            name.removeprefix("adapter."): tensor for name, tensor in tensors.items() if name.startswith("adapter.")
        }
        expected = {name for name, _ in model.named_parameters() if "lora_" in name}
        if adapters.keys() != expected:
            raise ValueError("the adapters are not those of the encoder's layers")
        model.load_state_dict(adapters, strict=False)
        self._tuned = replace(encoder, model=model.to(encoder.device).eval())
        head = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
        check_arrays({name: tensor.numpy() for name, tensor in head.items()}, ARRAYS_OF_HEAD)
        check_classes(head["classes"].numpy(), self.classes)
        if not len(head["classes"]) == len(head["coefficients"]) == len(head["intercept"]):
            raise ValueError("coefficients and intercepts do not fit the classes")
        self._head = head


class PreparedRows:
    """Rows that are prepared once as input of the encoder."""

    def __init__(self, encoder: Encoder, contents: Contents, max_megapixels: float) -> None:
        self.encoder, self.prepared = encoder, encoder.prepared(list(contents))
        self.max_megapixels = max_megapixels

    def embeddings(self, rows: Any) -> torch.Tensor:
        """(n, d): rows of length 1, with gradients if they are enabled."""
        model_inputs = self.encoder.batch([self.prepared[row] for row in rows], self.max_megapixels)
        return nn.functional.normalize(self.encoder.embedded(model_inputs).float(), dim=1)


class EarlyStopping:
    """Stops the training when the loss of the held-out rows has not decreased for `PATIENCE` checks.

    train, held_out: row numbers; labels: (n_rows,). state: tensors that belong to the checkpoint.
    """

    def __init__(self, rows: PreparedRows, train: Any, held_out: Any, labels: Any, n_classes: int) -> None:
        self.rows, self.train, self.held_out = rows, train, held_out
        self.labels, self.n_classes = labels, n_classes
        self.state = {"best": torch.tensor(torch.inf), "waited": torch.tensor(0)}

    def should_stop(self, step: int) -> bool:
        """Whether to stop after this step; the loss is computed every `STEPS_BETWEEN_CHECKS` steps."""
        if not len(self.held_out) or step % STEPS_BETWEEN_CHECKS:
            return False
        best, waited = self.state["best"], self.state["waited"]
        loss = class_mean_loss(self.rows, self.train, self.held_out, self.labels, self.n_classes)
        improved = loss < float(best) - 1e-3
        waited.fill_(0 if improved else int(waited) + 1)
        best.fill_(min(loss, float(best)))
        return int(waited) >= PATIENCE


def train_and_held_out(n_rows: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row numbers to train on and the fifth to hold out; none is held out of a few rows."""
    held_out = np.zeros(n_rows, dtype=bool)
    if n_rows >= MIN_ROWS_TO_HOLD_OUT:
        held_out[np.random.default_rng(seed).permutation(n_rows)[: n_rows // 5]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def batch_losses(rows: PreparedRows, labels: Any, batch: Any, parts: int, share: float = 1.0) -> Iterator[torch.Tensor]:
    """Yield the losses of a batch's parts, which add up to `share` times the mean loss. batch: row numbers."""
    device = rows.encoder.device
    for part in np.array_split(batch, min(parts, max(1, len(batch) // 4))):
        with mixed_precision(device):
            embeddings = rows.embeddings(part)
        loss = contrastive_loss(embeddings.float(), torch.from_numpy(labels[part]).to(device))
        yield share * loss * len(part) / len(batch)


def frozen_encoder(context: FitContext) -> Encoder:
    """Return the encoder that computes the features."""
    return _maker(context).encoder


def _maker(context: FitContext) -> EncodedFeatures:
    if not isinstance(context.maker, EncodedFeatures):
        raise InputError(
            "There is no encoder to tune. "
            "Remove `fine_tuned` from train.candidates, or name an `encoder` in params.yaml."
        )
    return context.maker


def _contents(inputs: Inputs) -> Contents:
    if inputs.contents is None:
        raise InputError("Fine-tuning needs the images or texts, but only their features were passed.")
    return inputs.contents


def with_adapters(encoder: Encoder, seed: int) -> Any:
    """Return a copy of the encoder's model with rank-8 adapters in the upper half of its layers.

    The seed determines the initial weights of the adapters.
    """
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
        if isinstance(getattr(layer, "base_layer", None), nn.Conv2d):  # some models read these attributes
            for attribute in ("stride", "kernel_size", "padding", "dilation"):
                setattr(layer, attribute, getattr(layer.base_layer, attribute))
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_A" in name:  # peft uses torch's global generator; B stays zero
                parameter.copy_(nn.init.kaiming_uniform_(torch.empty(parameter.shape), a=5**0.5, generator=generator))
    return model


def sample_batch(labels: np.ndarray, weights: Floats, generator: torch.Generator) -> np.ndarray:
    """Return row numbers, sampled by weight without replacement.

    A batch has up to eight classes and up to four rows per class, or more if there are fewer classes.
    """
    present = np.unique(labels[weights > 0])
    classes = present[torch.randperm(len(present), generator=generator)[:CLASSES_PER_BATCH].numpy()]
    rows_per_class = max(ROWS_PER_CLASS, CLASSES_PER_BATCH * ROWS_PER_CLASS // len(classes))
    chosen = []
    for label in classes:
        class_rows = np.flatnonzero((labels == label) & (weights > 0))
        sampled = torch.multinomial(
            torch.from_numpy(weights[class_rows]), min(rows_per_class, len(class_rows)), generator=generator
        )
        chosen.append(class_rows[sampled.numpy()])
    return np.concatenate(chosen)


def contrastive_loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss over the batch, plus cross-entropy to the class means of the batch.

    With similarities s_ij = z_i·z_j / TEMPERATURE, the first term is the mean over rows i, and over their positives p,
    of −log(exp(s_ip) / Σ_{j≠i} exp(s_ij)).

    embeddings: (n, d), rows of length 1; labels: (n,). A row that is alone in its class only serves as a negative.
    """
    is_self = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    is_positive = (labels[:, None] == labels[None]) & ~is_self
    similarities = (embeddings @ embeddings.T / TEMPERATURE).masked_fill(is_self, -1e9)
    log_probabilities = similarities - torch.logsumexp(similarities, dim=1, keepdim=True)
    n_positives = is_positive.sum(dim=1)
    contrastive = -((log_probabilities * is_positive).sum(dim=1) / n_positives.clamp(min=1)).sum() / (
        n_positives > 0
    ).sum().clamp(min=1)
    present, class_index = torch.unique(labels, return_inverse=True)
    means = torch.stack([embeddings[class_index == index].mean(dim=0) for index in range(len(present))])
    class_logits = embeddings @ nn.functional.normalize(means, dim=1).T / TEMPERATURE
    return contrastive + nn.functional.cross_entropy(class_logits, class_index)


def class_mean_loss(rows: PreparedRows, train: Any, held_out: Any, labels: Any, n_classes: int) -> float:
    """Return the mean cross-entropy of the held-out rows under a softmax of their similarities to the class means."""
    with torch.no_grad():
        train_embeddings, embeddings = (
            torch.cat([rows.embeddings(part) for part in _blocks(row_numbers)]).cpu()
            for row_numbers in (train, held_out)
        )
    means = torch.zeros((n_classes, train_embeddings.shape[1]))
    means.index_add_(0, torch.from_numpy(labels[train]), train_embeddings)
    class_logits = embeddings @ nn.functional.normalize(means, dim=1).T / TEMPERATURE
    return float(nn.functional.cross_entropy(class_logits, torch.from_numpy(labels[held_out])))


def _blocks(rows: Any, size: int = 32) -> Iterator[Any]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def combined_features(tuned: Features, center: Features, frozen: Features) -> Features:
    """(n, d): the centered, length-1 tuned features, next to the features that the other heads use."""
    return np.concatenate([normalize_rows(tuned - center), frozen], axis=1)


def predicted_seconds_of_model(context: FitContext, fit_rows: float, evaluation_rows: float) -> float:
    """Return the predicted seconds of one model on a typical core or GPU, from the FLOPs of one row's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    encoder = frozen_encoder(context)
    example: Any = np.zeros((64, 64, 3), np.uint8) if encoder.modality == "image" else [1] * EXAMPLE_TOKENS
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.embedded(encoder.batch([example]))
    seconds_per_row = counter.get_total_flops() / FLOPS_PER_SECOND.get(encoder.device.type, 4e10)
    steps = min(context.steps // NETWORK_STEPS_PER_STEP, MAX_STEPS)
    return float(seconds_per_row * (3 * steps * CLASSES_PER_BATCH * ROWS_PER_CLASS + fit_rows + evaluation_rows))
