"""Gradient training: one loop for the network, its pretraining and fine-tuning.

Every random draw depends on (seed, step) only, so a killed run resumes from its last checkpoint with the same result.
Checkpoints are safetensors files, which run no code when they are read. On CUDA the forward pass uses bfloat16.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seedling.errors import Diverged, InputError
from seedling.features.classical import FeatureMaker, Inputs
from seedling.stats.randomness import derived_seed

SECONDS_BETWEEN_CHECKPOINTS = 10.0
STEPS_BETWEEN_LOSSES = 10
FUSED_ON = ("cpu", "cuda")  # devices whose fused AdamW is tested: one call instead of one per parameter
MOVING_AVERAGE_DECAY = 0.99  # of the averaged weights, the mean teacher (Tarvainen and Valpola 2017)


def ignore_loss(step: int, loss: float) -> None:
    """Do nothing; the default callback for losses."""


@dataclass(frozen=True)
class Mixin:
    """Rows of another dataset, whose classes are learned by a separate head (multi-task learning, Caruana 1997).

    labels: (n_rows,), class numbers of that dataset; weights: (n_rows,); classes: the number of its classes.
    """

    inputs: Inputs
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    classes: int


@dataclass(frozen=True)
class FitContext:
    """What a learner needs besides its training rows.

    loss: see seedling/models/losses.py; device: a number that distributes fold models over several GPUs; checkpoint:
    the path from which a killed run resumes; watch: called with (step, loss); mixed_in: (n_rows,), True for rows that
    the second head learns; unlabeled: pool rows for consistency training; mixin: rows of another dataset; maker: the
    feature maker, whose encoder can be fine-tuned; body: weights that were pretrained without labels.
    """

    classes: int
    seed: int = 0
    steps: int = 300
    loss: str = "plain"
    device: int = 0
    checkpoint: Path | None = None
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS
    watch: Callable[[int, float], None] = ignore_loss
    mixed_in: NDArray[np.bool_] | None = None
    unlabeled: Inputs | None = None
    mixin: Mixin | None = None
    maker: FeatureMaker | None = None
    body: dict[str, torch.Tensor] | None = None

    def of_model(self, **overrides: Any) -> FitContext:
        """Return a copy with some fields replaced for one model."""
        return replace(self, **overrides)


def generator_of_step(seed: int, step: int) -> torch.Generator:
    """Return the random generator of one step."""
    return torch.Generator().manual_seed(derived_seed(seed, "step", step) % 2**63)


def batch_of_step(rows: int, size: int, seed: int, step: int) -> torch.Tensor:
    """Return the row numbers of a batch; each epoch shuffles the rows and splits them into about equal batches."""
    batches_per_epoch = -(-rows // size)
    epoch, batch_index = divmod(step, batches_per_epoch)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(derived_seed(seed, "pass", epoch) % 2**63))
    return order.tensor_split(batches_per_epoch)[batch_index]


class Checkpoint:
    """A step and its tensors in one file; stores nothing if there is no path."""

    def __init__(self, path: Path | None, seconds_between: float = SECONDS_BETWEEN_CHECKPOINTS) -> None:
        self.path = None if path is None else path.with_name(f"{path.name}.safetensors")
        self._seconds_between = seconds_between
        self._last = monotonic()

    def read(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """Return the next step and the stored tensors; None if there is no readable checkpoint."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.path is None or not self.path.is_file():
            return None
        try:
            tensors = load_file(self.path)
        except (SafetensorError, OSError):
            return None
        return int(tensors.pop("step")), tensors

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self.path is not None and monotonic() - self._last > self._seconds_between

    def write(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Write the file atomically, by renaming, so that a kill never leaves a partial file."""
        from safetensors.torch import save_file

        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path = self.path.with_suffix(".part")
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file({**copies, "step": torch.tensor(step)}, temporary_path)
        temporary_path.replace(self.path)
        self._last = monotonic()

    def clear(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@dataclass
class Loop:
    """One training run: AdamW with a one-cycle learning rate (Smith 2018) and a moving average of the weights.

    state: further tensors that steps change in place and that belong to the checkpoint.
    """

    net: nn.Module
    context: FitContext
    peak_learning_rate: float
    state: dict[str, torch.Tensor]
    weight_decay: float = 1e-2
    parts: int = 1  # per batch; gradients are summed, and the number doubles when the device runs out of memory

    def run(
        self,
        loss_of: Callable[[int, torch.Generator], Iterator[torch.Tensor]],
        steps: int,
        should_stop: Callable[[int], bool] = lambda step: False,
    ) -> dict[str, torch.Tensor]:
        """Train and return the averaged weights.

        loss_of: (step, generator) → losses of the batch's `parts`, which are summed; should_stop: called after each
        step, ends the training early if it returns True (its own state belongs in `state`).

        Raises Diverged for a loss that is not finite, InputError if a single row does not fit into the device's memory.
        """
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trained,
            lr=self.peak_learning_rate,
            weight_decay=self.weight_decay,
            fused=all(parameter.device.type in FUSED_ON for parameter in trained),
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.peak_learning_rate, total_steps=max(steps, 2))
        averaged = {name: weight.detach().clone() for name, weight in self._weights().items()}
        checkpoint = Checkpoint(self.context.checkpoint, self.context.seconds_between_checkpoints)
        losses = torch.full((steps,), torch.nan)
        first = self._resume(checkpoint, optimizer, scheduler, averaged, losses)
        self.net.train()
        for step in range(first, steps):
            losses[step] = self._step(loss_of, step, optimizer)
            optimizer.step()
            scheduler.step()
            decay = min(MOVING_AVERAGE_DECAY, (1 + step) / (10 + step))
            for name, weight in self._weights().items():
                averaged[name].lerp_(weight.detach().to(averaged[name].dtype), 1 - decay)
            if (step + 1) % STEPS_BETWEEN_LOSSES == 0 or step + 1 == steps:
                self.context.watch(step + 1, float(losses[step]))
            if should_stop(step + 1):
                break
            if checkpoint.due:
                checkpoint.write(step + 1, self._checkpoint_tensors(optimizer, averaged) | {"losses": losses})
        checkpoint.clear()
        return averaged

    def _step(
        self, loss_of: Callable[[int, torch.Generator], Iterator[torch.Tensor]], step: int, optimizer: Any
    ) -> float:
        while True:
            optimizer.zero_grad()
            total = 0.0
            try:
                for loss in loss_of(step, generator_of_step(self.context.seed, step)):
                    if not torch.isfinite(loss):
                        raise Diverged(f"The loss is not a finite number at step {step + 1}.")
                    loss.backward()  # type: ignore[no-untyped-call]
                    total += float(loss.detach())
            except torch.OutOfMemoryError:
                self.parts *= 2
                if self.parts > 1024:
                    raise InputError(
                        "A single row does not fit into the device's memory. Remove this learner from train.candidates."
                    ) from None
            else:
                nn.utils.clip_grad_norm_(
                    [parameter for parameter in self.net.parameters() if parameter.requires_grad], 5.0
                )
                return total

    def _weights(self) -> dict[str, torch.Tensor]:
        """The trained parameters and the floating-point buffers (running means), by name."""
        trained = {name: parameter for name, parameter in self.net.named_parameters() if parameter.requires_grad}
        return trained | {name: buffer for name, buffer in self.net.named_buffers() if buffer.is_floating_point()}

    def _state(self) -> dict[str, torch.Tensor]:
        """Everything in the net that training changes: parameters, running means and batch counters."""
        return self._weights() | dict(self.net.named_buffers())

    def _checkpoint_tensors(self, optimizer: Any, averaged: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors = {f"net.{name}": tensor for name, tensor in self._state().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.items()}
        tensors |= {f"state.{name}": tensor for name, tensor in self.state.items()}
        for parameter_index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{parameter_index}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def _resume(
        self,
        checkpoint: Checkpoint,
        optimizer: Any,
        scheduler: Any,
        averaged: dict[str, torch.Tensor],
        losses: torch.Tensor,
    ) -> int:
        saved = checkpoint.read()
        if saved is None:
            return 0
        step, tensors = saved
        with torch.no_grad():
            for targets, prefix in ((self._state(), "net."), (averaged, "averaged."), (self.state, "state.")):
                for name, target in targets.items():
                    target.copy_(tensors[prefix + name])
        losses.copy_(tensors["losses"])
        for reported_step in range(STEPS_BETWEEN_LOSSES, step + 1, STEPS_BETWEEN_LOSSES):
            self.context.watch(reported_step, float(losses[reported_step - 1]))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, parameter_index, moment = name.split(".")
                moments.setdefault(int(parameter_index), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects an optimizer step before each scheduler step
            for _ in range(step):
                scheduler.step()
        return step
