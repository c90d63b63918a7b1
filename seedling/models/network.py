"""A small residual network for small images, trained from scratch on soft labels and weights.

A stem and two residual blocks (He et al. 2016), average pooling and one linear layer. The network can also learn from
unlabeled images: in pretraining, from two augmented views of one image (VICReg, Bardes et al. 2022), and in training,
by predicting for a strongly augmented image what its averaged weights (Tarvainen and Valpola 2017) predict with
confidence for a weakly augmented one (FixMatch, Sohn et al. 2020, with the self-adaptive thresholds of FreeMatch, Wang
et al. 2023).
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
from seedling.models.device import device_of, mixed_precision, use_one_thread
from seedling.models.heads import DROPOUT_DRAWS, std_of_likeliest
from seedling.models.losses import MIXIN, MIXIN_SHARE, losses_of_rows
from seedling.models.training import FitContext, Loop, Mixin, batch_of_step
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats

WIDTHS = (16, 32, 64)
BATCH = 64
UNLABELED_BATCH = 64
PRETRAINING_BATCH = 128
# On a CPU, activations of larger batches exceed the cache; 512 rows need 200 MB more per thread.
ROWS_PER_FORWARD_PASS = 64
ROWS_PER_FORWARD_PASS_ON_GPU = 512
PEAK_LEARNING_RATE = 4e-3
THRESHOLD_DECAY = 0.9  # of the adaptive thresholds' moving averages; low, as training has only a few hundred steps
UNLABELED_RAMP_SHARE = 0.3  # of the steps, during which the weight of the unlabeled loss rises from 0 to 1


class Residual(nn.Module):
    """Two convolutions with a shortcut connection; halves the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, side, side) → (n, out_channels, side / 2, side / 2)."""
        halved = self.halve(images)
        result: torch.Tensor = torch.relu(self.body(halved) + self.shortcut(halved))
        return result


class ResidualNetwork(nn.Module):
    """(n, 3, side, side) in [-1, 1] → (n, classes) logits.

    second_head: for mixup and CutMix rows; mixin_head: for the classes of another dataset, only during training.
    """

    def __init__(self, classes: int, mixin_classes: int = 0) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
        blocks = [Residual(in_channels, out_channels) for in_channels, out_channels in pairwise(WIDTHS)]
        self.body = nn.Sequential(*stem, *blocks)
        self.head = nn.Linear(WIDTHS[-1], classes)
        self.second_head = nn.Linear(WIDTHS[-1], classes)
        self.mixin_head = nn.Linear(WIDTHS[-1], mixin_classes) if mixin_classes else None

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(n, width): the input of the heads.

        On a CPU, convolutions are a quarter faster (and without gradients, twice as fast) if the channels of a pixel
        lie side by side. The layout of the images decides; the weights keep theirs, as they are saved.
        """
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        result: torch.Tensor = self.body(images).mean(dim=(2, 3))
        return result

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the first head."""
        logits: torch.Tensor = self.head(self.pooled(images))
        return logits


class Network:
    """The residual network as a learner: fits weighted, soft-labeled rows and returns logits."""

    name = "network"

    def __init__(self, context: FitContext, net: ResidualNetwork | None = None) -> None:
        self.context, self.classes, self.net = context, context.classes, net

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Train on rows with soft labels.

        targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). Raises Diverged for a loss that is not finite.
        """
        device = device_of(self.context.device)
        use_one_thread(device)
        self.net = new_network(self.classes, self.context).to(device)
        images = as_tensor(inputs.images).to(device)
        target_rows = torch.from_numpy(targets.astype(np.float32)).to(device)
        row_weights = torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(device)
        uses_second_head = torch.zeros(len(target_rows), dtype=torch.bool)
        if self.context.loss == "second_head" and self.context.mixed_in is not None:
            uses_second_head = torch.from_numpy(self.context.mixed_in)
        unlabeled = None if self.context.unlabeled is None else self.context.unlabeled.images
        mixin = self.context.mixin if self.context.loss == MIXIN else None
        thresholds = AdaptiveThresholds(self.classes, device)
        loop = Loop(self.net, self.context, PEAK_LEARNING_RATE, thresholds.state)
        net = self.net

        def loss_of(step: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
            batch = batch_of_step(len(target_rows), BATCH, self.context.seed, step)
            dropout_mask = ((torch.rand((len(batch), WIDTHS[-1]), generator=generator) > 0.2) / 0.8).to(device)
            for part, mask_part in zip(batch.chunk(loop.parts), dropout_mask.chunk(loop.parts), strict=True):
                with mixed_precision(device):
                    pooled = net.pooled(images[part]) * mask_part
                    logits = net.head(pooled)
                    if uses_second_head.any():
                        logits = torch.where(
                            uses_second_head[part].to(device)[:, None], net.second_head(pooled), logits
                        )
                losses = losses_of_rows(self.context.loss, logits.float(), target_rows[part])
                yield (losses * row_weights[part]).sum() / len(batch)
            if unlabeled is not None:
                yield from self._consistency_losses(net, unlabeled, thresholds, step, generator, device, loop.parts)
            if mixin is not None:
                yield from self._mixin_losses(net, mixin, step, device, loop.parts)

        averaged = loop.run(loss_of, self.context.steps)
        net.load_state_dict(averaged, strict=False)
        net.mixin_head = None
        net.to("cpu")

    def dropout_std(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): Monte Carlo dropout before the last layer (Gal and Ghahramani 2016).

        Returns the standard deviation over draws of the likeliest class's probability.
        """
        if self.net is None or len(inputs) == 0:
            return np.zeros(len(inputs))
        net = self.net.eval()
        generator = torch.Generator().manual_seed(seed % 2**63)
        masks = (torch.rand((DROPOUT_DRAWS, WIDTHS[-1]), generator=generator) > 0.2) / 0.8
        use_one_thread(torch.device("cpu"))
        with torch.inference_mode():
            pooled = torch.cat([net.pooled(as_tensor(part)) for part in blocks(inputs.images)])
            probabilities = torch.stack([torch.softmax(net.head(pooled * mask), dim=1) for mask in masks])
        return std_of_likeliest(probabilities.numpy().astype(np.float64))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights by name, as they are saved."""
        if self.net is None:
            raise InputError("The network was not trained.")
        return dict(sorted(self.net.state_dict().items()))

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the saved weights."""
        self.net = ResidualNetwork(self.classes)
        self.net.load_state_dict(tensors)

    def _mixin_losses(
        self, net: ResidualNetwork, mixin: Mixin, step: int, device: torch.device, parts: int
    ) -> Iterator[torch.Tensor]:
        """Yield cross-entropy losses of another dataset's rows under a separate head; they train the shared body."""
        assert net.mixin_head is not None  # noqa: S101  (new_network creates it for a mixin)
        batch = batch_of_step(len(mixin.labels), BATCH, derived_seed(self.context.seed, "mixin"), step)
        rows = mixin.inputs.images
        for part in batch.chunk(parts):
            with mixed_precision(device):
                logits = net.mixin_head(net.pooled(as_tensor(rows[part.numpy()]).to(device)))  # type: ignore[index]
            labels = torch.from_numpy(mixin.labels[part.numpy()]).to(device)
            weights = torch.from_numpy((mixin.weights / mixin.weights.mean())[part.numpy()].astype(np.float32)).to(
                device
            )
            losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
            yield MIXIN_SHARE * (losses * weights).sum() / len(batch)

    def _consistency_losses(
        self,
        net: ResidualNetwork,
        pool: NDArray[np.uint8],
        thresholds: AdaptiveThresholds,
        step: int,
        generator: torch.Generator,
        device: torch.device,
        parts: int,
    ) -> Iterator[torch.Tensor]:
        batch = batch_of_step(len(pool), UNLABELED_BATCH, self.context.seed + 1, step)
        for part in batch.chunk(parts):
            images = as_tensor(pool[part.numpy()])  # one batch only: the whole pool as floats would take gigabytes
            weak = randomly_transformed(images, generator, strength=0.3).to(device)
            strong = randomly_transformed(images, generator, strength=1.0).to(device)
            with mixed_precision(device):
                net.eval()
                with torch.no_grad():
                    probabilities = torch.softmax(net(weak).float(), dim=1)
                net.train()
                logits = net(strong)
            predicted, is_confident = thresholds.select(probabilities)
            losses = nn.functional.cross_entropy(logits.float(), predicted, reduction="none")
            yield (
                min(1.0, step / (UNLABELED_RAMP_SHARE * self.context.steps))
                * (losses * is_confident).sum()
                / len(batch)
            )

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""
        if self.net is None:
            raise InputError("The network was not trained.")
        if len(inputs) == 0:
            return np.zeros((0, self.classes))
        device = device_of(self.context.device)
        use_one_thread(device)
        net = self.net.to(device).eval()
        with torch.inference_mode():
            size = ROWS_PER_FORWARD_PASS if device.type == "cpu" else ROWS_PER_FORWARD_PASS_ON_GPU
            parts = [net(as_tensor(part).to(device)).cpu() for part in blocks(inputs.images, size)]
        self.net.to("cpu")
        return torch.cat(parts).numpy().astype(np.float64)


class AdaptiveThresholds:
    """The confidence above which an unlabeled image is used, overall and per class (FreeMatch, Wang et al. 2023).

    τ is the moving average of the confidence, p̄ that of the predicted probabilities; class c has the threshold τ ·
    p̄_c / max(p̄).
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        uniform = torch.full((classes,), 1 / classes, device=device)
        self.state = {"limit": torch.tensor(1 / classes, device=device), "shares": uniform}

    def select(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the thresholds; return the predicted classes (n,) and whether each is confident enough (n,), 0 or 1.

        probabilities: (n, classes), rows sum to 1.
        """
        confidence, predicted = probabilities.max(dim=1)
        self.state["limit"].lerp_(confidence.mean(), 1 - THRESHOLD_DECAY)
        self.state["shares"].lerp_(probabilities.mean(dim=0), 1 - THRESHOLD_DECAY)
        class_thresholds = self.state["limit"] * self.state["shares"] / self.state["shares"].max()
        return predicted, (confidence >= class_thresholds[predicted]).float()


def new_network(classes: int, context: FitContext) -> ResidualNetwork:
    """Return a network with random weights from the seed of its model; the body may be pretrained."""
    mixin = context.mixin if context.loss == MIXIN else None
    net = ResidualNetwork(classes, mixin.classes if mixin is not None else 0)
    initialize(net, torch.Generator().manual_seed(context.seed % 2**63))
    if context.body is not None:
        net.body.load_state_dict(context.body)
    return net


def pretrain(images: NDArray[np.uint8], context: FitContext) -> dict[str, torch.Tensor]:
    """Return the body's weights after self-supervised pretraining on two augmented views per image (VICReg).

    images: (n, side, side, 3). The variance and covariance terms prevent a collapse of all embeddings to one point.
    """
    device = device_of(context.device)
    use_one_thread(device)
    generator = torch.Generator().manual_seed(context.seed % 2**63)
    net = ResidualNetwork(1)
    projection_width = 4 * WIDTHS[-1]
    projector = nn.Sequential(
        nn.Linear(WIDTHS[-1], projection_width),
        nn.BatchNorm1d(projection_width),
        nn.ReLU(),
        nn.Linear(projection_width, projection_width),
    )
    model = nn.ModuleDict({"net": net, "project": projector})
    initialize(model, generator)
    model.to(device)
    loop = Loop(model, context, PEAK_LEARNING_RATE, {})

    def loss_of(step: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
        batch = as_tensor(images[batch_of_step(len(images), PRETRAINING_BATCH, context.seed, step).numpy()])
        views = [randomly_transformed(batch, generator, strength=0.7).to(device) for _ in range(2)]
        with mixed_precision(device):
            first_embedding, second_embedding = (projector(net.pooled(view)).float() for view in views)
        yield 25 * nn.functional.mse_loss(first_embedding, second_embedding) + sum(
            _variance_covariance_loss(embedding) for embedding in (first_embedding, second_embedding)
        )

    averaged = loop.run(loss_of, context.steps)
    model.load_state_dict(averaged, strict=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in net.body.state_dict().items()}


def _variance_covariance_loss(embedding: torch.Tensor) -> torch.Tensor:
    """The regularizer of VICReg: Σ_j 25 · max(0, 1 − std_j) / d + Σ_{i≠j} cov_ij² / d, with d dimensions."""
    centered = embedding - embedding.mean(dim=0)
    std = torch.sqrt(centered.var(dim=0) + 1e-4)
    covariance = centered.T @ centered / max(1, len(embedding) - 1)
    off_diagonal = covariance - torch.diag(torch.diag(covariance))
    return 25 * torch.relu(1 - std).mean() + (off_diagonal**2).sum() / embedding.shape[1]


def randomly_transformed(images: torch.Tensor, generator: torch.Generator, *, strength: float) -> torch.Tensor:
    """(n, 3, side, side): random shifts, rotations, scales, shears, brightness and contrast per image.

    With strength 1 a square patch is also erased. There are no flips, because a mirrored digit is not a digit.
    """
    n_images, _, side, _ = images.shape

    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand((n_images, *shape), generator=generator) - 1

    angle, scale, shear = 0.35 * strength * uniform(), 1 + 0.2 * strength * uniform(), 0.2 * strength * uniform()
    matrix = torch.zeros((n_images, 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = scale * torch.cos(angle), -torch.sin(angle) + shear
    matrix[:, 1, 0], matrix[:, 1, 1] = torch.sin(angle), scale * torch.cos(angle)
    matrix[:, :, 2] = 0.25 * strength * uniform(2)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast = (
        0.3 * strength * uniform()[:, None, None, None],
        1 + 0.4 * strength * uniform()[:, None, None, None],
    )
    moved = moved * contrast + brightness
    if strength >= 1:
        patch_side, positions = side // 4, torch.arange(side)
        corner = torch.randint(0, side - patch_side + 1, (n_images, 2), generator=generator)
        rows, columns = (
            (positions >= start[:, None]) & (positions < start[:, None] + patch_side) for start in corner.T
        )
        moved = moved.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
    return moved.clamp(-1, 1)


def blocks(images: NDArray[np.uint8] | None, size: int = ROWS_PER_FORWARD_PASS) -> Iterator[NDArray[np.uint8] | None]:
    """Yield the images in blocks of `size` rows."""
    if images is None:
        yield None
        return
    for first in range(0, len(images), size):
        yield images[first : first + size]


def as_tensor(images: NDArray[np.uint8] | None) -> torch.Tensor:
    """(n, side, side, 3), 0 to 255 → (n, 3, side, side), -1 to 1."""
    if images is None:
        raise InputError("The network needs images: leave `network` out of train.candidates for texts.")
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def initialize(net: nn.Module, generator: torch.Generator) -> None:
    """He initialization (2015) from the generator of the learner; torch's default would use the global one."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
