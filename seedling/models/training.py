"""Learning by gradients: one loop for the network, its pretraining and fine-tuning.

Every draw comes from (seed, step), so a run that was killed goes on from its last checkpoint as if nothing had happened.
Checkpoints are safetensors: nothing is run when one is read. On CUDA the forward pass is in bfloat16.
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
AVERAGING = 0.99  # of the weights' moving average, the teacher (Tarvainen and Valpola 2017)


def nobody_watches(step: int, loss: float) -> None:
    """Where no one asked for the losses."""


@dataclass(frozen=True)
class Mixin:
    """Another dataset's rows, whose classes are learnt beside ours by a head of their own (multi-task learning, Caruana 1997).

    labels: (n_rows,), numbers of its classes; weights: (n_rows,); classes: how many it has.
    """

    inputs: Inputs
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    classes: int


@dataclass(frozen=True)
class FitContext:
    """What a learner is told besides its rows.

    loss: see seedling/models/losses.py; device: a number, so that lineages are spread over several GPUs; checkpoint: where
    to go on after a kill; mixed_in: (n_rows,), rows that a second head learns; unlabeled: pool rows for consistency
    training; mixin: another dataset's; maker: the features' maker, whose encoder may be tuned; body: weights that were pretrained without labels.
    """

    classes: int
    seed: int = 0
    steps: int = 300
    loss: str = "plain"
    device: int = 0
    checkpoint: Path | None = None
    watch: Callable[[int, float], None] = nobody_watches
    mixed_in: NDArray[np.bool_] | None = None
    unlabeled: Inputs | None = None
    mixin: Mixin | None = None
    maker: FeatureMaker | None = None
    body: dict[str, torch.Tensor] | None = None

    def of_model(self, **changed: Any) -> FitContext:
        """The same for one model."""
        return replace(self, **changed)


def draws_of_step(seed: int, step: int) -> torch.Generator:
    """The step's own generator."""
    return torch.Generator().manual_seed(derived_seed(seed, "step", step) % 2**63)


def batch_of_step(rows: int, size: int, seed: int, step: int) -> torch.Tensor:
    """Row numbers: each pass over the rows in an order of its own, cut into parts of about equal size."""
    a_pass = -(-rows // size)
    number, place = divmod(step, a_pass)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(derived_seed(seed, "pass", number) % 2**63))
    return order.tensor_split(a_pass)[place]


class Checkpoint:
    """Tensors and a step in one file; nothing is kept where there is no path."""

    def __init__(self, path: Path | None) -> None:
        self.path = None if path is None else path.with_name(f"{path.name}.safetensors")
        self._last = monotonic()

    def read(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The step to go on with and what was kept; None where nothing was, or only half of it."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.path is None or not self.path.is_file():
            return None
        try:
            found = load_file(self.path)
        except (SafetensorError, OSError):
            return None
        return int(found.pop("step")), found

    @property
    def due(self) -> bool:
        """Whether the last one is long ago."""
        return self.path is not None and monotonic() - self._last > SECONDS_BETWEEN_CHECKPOINTS

    def write(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Renamed into place, so that no kill leaves half a file."""
        from safetensors.torch import save_file

        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        copies = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
        save_file({**copies, "step": torch.tensor(step)}, beside)
        beside.replace(self.path)
        self._last = monotonic()

    def clear(self) -> None:
        """Away with it."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@dataclass
class Loop:
    """One training: AdamW under a one-cycle learning rate (Smith 2018), with a moving average of the weights.

    state: further tensors that steps change in place, which belong to a checkpoint too.
    """

    net: nn.Module
    setting: FitContext
    rate: float
    state: dict[str, torch.Tensor]
    weight_decay: float = 1e-2
    parts: int = 1  # of a batch, their gradients summed: more after the device's memory ran out

    def run(
        self,
        loss_of: Callable[[int, torch.Generator], Iterator[torch.Tensor]],
        steps: int,
        enough: Callable[[int], bool] = lambda step: False,
    ) -> dict[str, torch.Tensor]:
        """The averaged weights. loss_of: step and its generator → the losses of the batch's `parts`, which add up;
        enough: asked after each step, ends the training early (what it remembers belongs into `state`).

        Raises Diverged where a loss is no number, InputError where one row alone is too large for the device.
        """
        trained = [one for one in self.net.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.rate, weight_decay=self.weight_decay)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=max(steps, 2))
        averaged = {name: one.detach().clone() for name, one in self._weights().items()}
        kept = Checkpoint(self.setting.checkpoint)
        losses = torch.full((steps,), torch.nan)
        first = self._resume(kept, optimizer, pace, averaged, losses)
        self.net.train()
        for step in range(first, steps):
            losses[step] = self._step(loss_of, step, optimizer)
            optimizer.step()
            pace.step()
            decay = min(AVERAGING, (1 + step) / (10 + step))
            for name, one in self._weights().items():
                averaged[name].lerp_(one.detach().to(averaged[name].dtype), 1 - decay)
            if (step + 1) % STEPS_BETWEEN_LOSSES == 0 or step + 1 == steps:
                self.setting.watch(step + 1, float(losses[step]))
            if enough(step + 1):
                break
            if kept.due:
                kept.write(step + 1, self._everything(optimizer, averaged) | {"losses": losses})
        kept.clear()
        return averaged

    def _step(
        self, loss_of: Callable[[int, torch.Generator], Iterator[torch.Tensor]], step: int, optimizer: Any
    ) -> float:
        while True:
            optimizer.zero_grad()
            total = 0.0
            try:
                for loss in loss_of(step, draws_of_step(self.setting.seed, step)):
                    if not torch.isfinite(loss):
                        raise Diverged(f"The loss is no number at step {step + 1}.")
                    loss.backward()  # type: ignore[no-untyped-call]
                    total += float(loss.detach())
            except torch.OutOfMemoryError:
                self.parts *= 2
                if self.parts > 1024:
                    raise InputError(
                        "One row alone is too large for the device's memory: leave this learner out of train.candidates."
                    ) from None
            else:
                nn.utils.clip_grad_norm_([one for one in self.net.parameters() if one.requires_grad], 5.0)
                return total

    def _weights(self) -> dict[str, torch.Tensor]:
        """What is trained, and the running means that go with it, by name."""
        trained = {name: one for name, one in self.net.named_parameters() if one.requires_grad}
        return trained | {name: one for name, one in self.net.named_buffers() if one.is_floating_point()}

    def _state(self) -> dict[str, torch.Tensor]:
        """All that changes in the net as it learns: weights, running means, and how many batches made them."""
        return self._weights() | dict(self.net.named_buffers())

    def _everything(self, optimizer: Any, averaged: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {f"net.{name}": one for name, one in self._state().items()}
        found |= {f"averaged.{name}": one for name, one in averaged.items()}
        found |= {f"state.{name}": one for name, one in self.state.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            found |= {f"adam.{number}.{name}": one for name, one in moments.items()}
        return found

    def _resume(
        self, kept: Checkpoint, optimizer: Any, pace: Any, averaged: dict[str, torch.Tensor], losses: torch.Tensor
    ) -> int:
        found = kept.read()
        if found is None:
            return 0
        step, tensors = found
        with torch.no_grad():
            for into, prefix in ((self._state(), "net."), (averaged, "averaged."), (self.state, "state.")):
                for name, one in into.items():
                    one.copy_(tensors[prefix + name])
        losses.copy_(tensors["losses"])
        for done in range(STEPS_BETWEEN_LOSSES, step + 1, STEPS_BETWEEN_LOSSES):
            self.setting.watch(done, float(losses[done - 1]))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, one in tensors.items():
            if name.startswith("adam."):
                _, number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = one
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects a step of the optimizer before each of the pace
            for _ in range(step):
                pace.step()
        return step
