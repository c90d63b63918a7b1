"""A small residual network for small images, trained from scratch on soft labels and weights.

A stem and two residual blocks (He et al. 2016), average pooling, one linear layer. Beside its own labels it may learn
from unlabeled images: before, by bringing two views of an image together without collapsing (VICReg, Bardes et al.
2022), and in training, by asking of a strongly changed image what its averaged self (Tarvainen and Valpola 2017) is sure
of for a weakly changed one (FixMatch, Sohn et al. 2020, with the self-adaptive limits of FreeMatch, Wang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seedling.errors import InputError
from seedling.features.classical import Inputs
from seedling.models.device import device_of, in_half, one_thread
from seedling.models.heads import DROPOUT_DRAWS, deviation_of_likeliest
from seedling.models.losses import MIXIN, MIXIN_SHARE, losses_of_rows
from seedling.models.training import FitContext, Loop, Mixin, batch_of_step
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats

WIDTHS = (16, 32, 64)
BATCH = 64
UNLABELED_BATCH = 64
PRETRAINING_BATCH = 128
# On a processor the activations of more rows outgrow its cache, and each thread needs 200 MB more for 512.
ROWS_PER_FORWARD_PASS = 64
ROWS_PER_FORWARD_PASS_ON_GPU = 512
PEAK_LEARNING_RATE = 4e-3
LIMITS_KEPT = 0.9  # of the self-adaptive limits' moving averages: a few hundred steps are few
RAMP = 0.3  # share of the steps over which the pool's part of the loss grows from nothing: first the labels speak


class Residual(nn.Module):
    """Two convolutions beside a shortcut; the side is halved."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Conv2d(before, width, 1, bias=False)
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, before, side, side) → (n, width, side / 2, side / 2)."""
        halved = self.halve(images)
        result: torch.Tensor = torch.relu(self.body(halved) + self.shortcut(halved))
        return result


class ResidualNetwork(nn.Module):
    """(n, 3, side, side) in [-1, 1] → (n, classes) logits; a second head for rows that are mixtures, and one for another dataset's classes,
    which is there while the network learns.
    """

    def __init__(self, classes: int, mixin_classes: int = 0) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
        blocks = [Residual(before, width) for before, width in pairwise(WIDTHS)]
        self.body = nn.Sequential(*stem, *blocks)
        self.head = nn.Linear(WIDTHS[-1], classes)
        self.second_head = nn.Linear(WIDTHS[-1], classes)
        self.mixin_head = nn.Linear(WIDTHS[-1], mixin_classes) if mixin_classes else None

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(n, width): what the heads see."""
        result: torch.Tensor = self.body(images).mean(dim=(2, 3))
        return result

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the first head."""
        logits: torch.Tensor = self.head(self.pooled(images))
        return logits


class Network:
    """The network as a learner: fit on weighted, soft-labeled rows, give logits."""

    name = "network"

    def __init__(self, setting: FitContext, net: ResidualNetwork | None = None) -> None:
        self.setting, self.classes, self.net = setting, setting.classes, net

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). Raises Diverged for a loss that is no number."""
        device = device_of(self.setting.device)
        one_thread(device)
        self.net = new_network(self.classes, self.setting).to(device)
        images = as_tensor(inputs.images).to(device)
        wanted = torch.from_numpy(targets.astype(np.float32)).to(device)
        row_weights = torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(device)
        aside = torch.zeros(len(wanted), dtype=torch.bool)
        if self.setting.loss == "second_head" and self.setting.mixed_in is not None:
            aside = torch.from_numpy(self.setting.mixed_in)
        unlabeled = None if self.setting.unlabeled is None else self.setting.unlabeled.images
        mixin = self.setting.mixin if self.setting.loss == MIXIN else None
        limits = Limits(self.classes, device)
        loop = Loop(self.net, self.setting, PEAK_LEARNING_RATE, limits.state)
        net = self.net

        def loss_of(step: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
            batch = batch_of_step(len(wanted), BATCH, self.setting.seed, step)
            kept = ((torch.rand((len(batch), WIDTHS[-1]), generator=draw) > 0.2) / 0.8).to(device)
            for part, kept_part in zip(batch.chunk(loop.parts), kept.chunk(loop.parts), strict=True):
                with in_half(device):
                    pooled = net.pooled(images[part]) * kept_part
                    logits = net.head(pooled)
                    if aside.any():
                        logits = torch.where(aside[part].to(device)[:, None], net.second_head(pooled), logits)
                losses = losses_of_rows(self.setting.loss, logits.float(), wanted[part])
                yield (losses * row_weights[part]).sum() / len(batch)
            if unlabeled is not None:
                yield from self._consistency(net, unlabeled, limits, step, draw, device, loop.parts)
            if mixin is not None:
                yield from self._of_mixin(net, mixin, step, device, loop.parts)

        averaged = loop.run(loss_of, self.setting.steps)
        net.load_state_dict(averaged, strict=False)
        net.mixin_head = None
        net.to("cpu")

    def dropout_std(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): Monte Carlo dropout (Gal and Ghahramani 2016) before the last layer, where training has it too:
        the deviation of the likeliest class's probability.
        """
        if self.net is None or len(inputs) == 0:
            return np.zeros(len(inputs))
        net = self.net.eval()
        draw = torch.Generator().manual_seed(seed % 2**63)
        masks = (torch.rand((DROPOUT_DRAWS, WIDTHS[-1]), generator=draw) > 0.2) / 0.8
        one_thread(torch.device("cpu"))
        with torch.inference_mode():
            pooled = torch.cat([net.pooled(as_tensor(part)) for part in blocks(inputs.images)])
            shares = torch.stack([torch.softmax(net.head(pooled * mask), dim=1) for mask in masks])
        return deviation_of_likeliest(shares.numpy().astype(np.float64))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is saved: the weights by name."""
        if self.net is None:
            raise InputError("The network was not trained.")
        return dict(sorted(self.net.state_dict().items()))

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The weights that were saved."""
        self.net = ResidualNetwork(self.classes)
        self.net.load_state_dict(tensors)

    def _of_mixin(
        self, net: ResidualNetwork, mixin: Mixin, step: int, device: torch.device, parts: int
    ) -> Iterator[torch.Tensor]:
        """Cross-entropy of another dataset's rows under a head of their own: the body learns from them, our classes do not."""
        assert net.mixin_head is not None  # noqa: S101  (new_network makes it where there is a mixin)
        batch = batch_of_step(len(mixin.labels), BATCH, derived_seed(self.setting.seed, "mixin"), step)
        rows = mixin.inputs.images
        for part in batch.chunk(parts):
            with in_half(device):
                logits = net.mixin_head(net.pooled(as_tensor(rows[part.numpy()]).to(device)))  # type: ignore[index]
            wanted = torch.from_numpy(mixin.labels[part.numpy()]).to(device)
            weights = torch.from_numpy((mixin.weights / mixin.weights.mean())[part.numpy()].astype(np.float32)).to(
                device
            )
            losses = nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
            yield MIXIN_SHARE * (losses * weights).sum() / len(batch)

    def _consistency(
        self,
        net: ResidualNetwork,
        pool: NDArray[np.uint8],
        limits: Limits,
        step: int,
        draw: torch.Generator,
        device: torch.device,
        parts: int,
    ) -> Iterator[torch.Tensor]:
        batch = batch_of_step(len(pool), UNLABELED_BATCH, self.setting.seed + 1, step)
        for part in batch.chunk(parts):
            images = as_tensor(pool[part.numpy()])  # a batch alone: the whole pool as numbers would take gigabytes
            weak = changed(images, draw, strength=0.3).to(device)
            strong = changed(images, draw, strength=1.0).to(device)
            with in_half(device):
                net.eval()
                with torch.no_grad():
                    shares = torch.softmax(net(weak).float(), dim=1)
                net.train()
                logits = net(strong)
            said, sure = limits.judge(shares)
            losses = nn.functional.cross_entropy(logits.float(), said, reduction="none")
            yield min(1.0, step / (RAMP * self.setting.steps)) * (losses * sure).sum() / len(batch)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""
        if self.net is None:
            raise InputError("The network was not trained.")
        if len(inputs) == 0:
            return np.zeros((0, self.classes))
        device = device_of(self.setting.device)
        one_thread(device)
        net = self.net.to(device).eval()
        with torch.inference_mode():
            size = ROWS_PER_FORWARD_PASS if device.type == "cpu" else ROWS_PER_FORWARD_PASS_ON_GPU
            parts = [net(as_tensor(part).to(device)).cpu() for part in blocks(inputs.images, size)]
        self.net.to("cpu")
        return torch.cat(parts).numpy().astype(np.float64)


class Limits:
    """How sure the network must be of an unlabeled image, in all and by class, as it learns (FreeMatch)."""

    def __init__(self, classes: int, device: torch.device) -> None:
        even = torch.full((classes,), 1 / classes, device=device)
        self.state = {"limit": torch.tensor(1 / classes, device=device), "shares": even}

    def judge(self, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest classes (n,) and whether each is sure enough (n,), 0 or 1. shares: (n, classes), rows sum to 1."""
        sure, said = shares.max(dim=1)
        self.state["limit"].lerp_(sure.mean(), 1 - LIMITS_KEPT)
        self.state["shares"].lerp_(shares.mean(dim=0), 1 - LIMITS_KEPT)
        of_class = self.state["limit"] * self.state["shares"] / self.state["shares"].max()
        return said, (sure >= of_class[said]).float()


def new_network(classes: int, setting: FitContext) -> ResidualNetwork:
    """Drawn from the model's own seed, the body as it was pretrained where it was."""
    mixin = setting.mixin if setting.loss == MIXIN else None
    net = ResidualNetwork(classes, mixin.classes if mixin is not None else 0)
    initialize(net, torch.Generator().manual_seed(setting.seed % 2**63))
    if setting.body is not None:
        net.body.load_state_dict(setting.body)
    return net


def pretrain(images: NDArray[np.uint8], setting: FitContext) -> dict[str, torch.Tensor]:
    """The body's weights after learning, without any label, to see two changed views of an image as one (VICReg).

    images: (n, side, side, 3). Variance and covariance terms keep the views from all becoming the same.
    """
    device = device_of(setting.device)
    one_thread(device)
    draw = torch.Generator().manual_seed(setting.seed % 2**63)
    net = ResidualNetwork(1)
    wide = 4 * WIDTHS[-1]
    project = nn.Sequential(nn.Linear(WIDTHS[-1], wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, wide))
    whole = nn.ModuleDict({"net": net, "project": project})
    initialize(whole, draw)
    whole.to(device)
    loop = Loop(whole, setting, PEAK_LEARNING_RATE, {})

    def loss_of(step: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
        batch = as_tensor(images[batch_of_step(len(images), PRETRAINING_BATCH, setting.seed, step).numpy()])
        views = [changed(batch, draw, strength=0.7).to(device) for _ in range(2)]
        with in_half(device):
            first, second = (project(net.pooled(one)).float() for one in views)
        yield 25 * nn.functional.mse_loss(first, second) + sum(_spread_out(one) for one in (first, second))

    averaged = loop.run(loss_of, setting.steps)
    whole.load_state_dict(averaged, strict=False)
    return {name: one.detach().cpu().clone() for name, one in net.body.state_dict().items()}


def _spread_out(made: torch.Tensor) -> torch.Tensor:
    """25 × how far each direction's deviation is under 1, and the directions' covariances."""
    centered = made - made.mean(dim=0)
    deviation = torch.sqrt(centered.var(dim=0) + 1e-4)
    covariance = centered.T @ centered / max(1, len(made) - 1)
    aside = covariance - torch.diag(torch.diag(covariance))
    return 25 * torch.relu(1 - deviation).mean() + (aside**2).sum() / made.shape[1]


def changed(images: torch.Tensor, draw: torch.Generator, *, strength: float) -> torch.Tensor:
    """(n, 3, side, side): each image shifted, turned, scaled and sheared a little, brighter or darker, and of strength 1
    with a patch missing. No flips: a mirrored digit is no digit.
    """
    many, _, side, _ = images.shape

    def even(*shape: int) -> torch.Tensor:
        return 2 * torch.rand((many, *shape), generator=draw) - 1

    angle, scale, shear = 0.35 * strength * even(), 1 + 0.2 * strength * even(), 0.2 * strength * even()
    matrix = torch.zeros((many, 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = scale * torch.cos(angle), -torch.sin(angle) + shear
    matrix[:, 1, 0], matrix[:, 1, 1] = torch.sin(angle), scale * torch.cos(angle)
    matrix[:, :, 2] = 0.25 * strength * even(2)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    light, contrast = 0.3 * strength * even()[:, None, None, None], 1 + 0.4 * strength * even()[:, None, None, None]
    moved = moved * contrast + light
    if strength >= 1:
        size, places = side // 4, torch.arange(side)
        corner = torch.randint(0, side - size + 1, (many, 2), generator=draw)
        rows, columns = ((places >= one[:, None]) & (places < one[:, None] + size) for one in corner.T)
        moved = moved.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
    return moved.clamp(-1, 1)


def blocks(images: NDArray[np.uint8] | None, size: int = ROWS_PER_FORWARD_PASS) -> Iterator[NDArray[np.uint8] | None]:
    """The images, so many at once."""
    if images is None:
        yield None
        return
    for first in range(0, len(images), size):
        yield images[first : first + size]


def as_tensor(images: NDArray[np.uint8] | None) -> torch.Tensor:
    """(n, 3, side, side), -1 to 1, of (n, side, side, 3), 0 to 255."""
    if images is None:
        raise InputError("The network needs images: leave `network` out of train.candidates for texts.")
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def initialize(net: nn.Module, draw: torch.Generator) -> None:
    """He initialization (2015) from the learner's own generator: torch's default would draw from the global one."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
