"""A small class-conditional generator of small images.

The method is rectified flow (Liu et al. 2023; Lipman et al. 2023) with a U-Net (Ronneberger et al. 2015). With noise x₀
and an image x₁, x_t = (1 − t) x₀ + t x₁, and the network learns the direction x₁ − x₀ from (x_t, t, class). Heun's
method integrates the direction from t = 0 to 1. A tenth of the rows is trained without a class, which allows
classifier-free guidance (Ho and Salimans 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seedling.media.images import Pixels
from seedling.models.device import device_of, mixed_precision, use_one_thread
from seedling.models.network import as_tensor
from seedling.models.training import FitContext, Loop, batch_of_step

WIDTHS = (32, 64, 96)
BATCH = 64
PEAK_LEARNING_RATE = 2e-3
UNCONDITIONAL_SHARE = 0.1  # of the rows, which are trained without their class
GUIDANCE = 1.5  # 1: no guidance, the class-conditional direction
STEPS_PER_SAMPLE = 20
SAMPLES_PER_BATCH = 16  # the last batch is padded, so no sample depends on the others


class _Block(nn.Module):
    """Two convolutions with a shortcut; a linear projection of time and class is added between them."""

    def __init__(self, in_channels: int, out_channels: int, condition_size: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.condition = nn.Linear(condition_size, out_channels)
        self.second = nn.Sequential(
            nn.GroupNorm(8, out_channels), nn.SiLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, images: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, side, side) and (n, condition_size) → (n, out_channels, side, side)."""
        conditioned = self.first(images) + self.condition(conditions)[:, :, None, None]
        result: torch.Tensor = self.second(conditioned) + self.shortcut(images)
        return result


class _Attention(nn.Module):
    """Self-attention over positions (Vaswani et al. 2017), with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.query_key_value, self.project = (
            nn.GroupNorm(8, width),
            nn.Conv2d(width, 3 * width, 1),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, side, side) → the same shape."""
        n_images, channels, image_height, image_width = images.shape
        query_key_value = (
            self.query_key_value(self.norm(images))
            .reshape(n_images, 3, channels, image_height * image_width)
            .transpose(2, 3)
            .unbind(1)
        )
        attended = nn.functional.scaled_dot_product_attention(*query_key_value).transpose(1, 2)
        result: torch.Tensor = images + self.project(attended.reshape(n_images, channels, image_height, image_width))
        return result


class FlowNet(nn.Module):
    """(n, 3, side, side), times (n,) and classes (n,) → the direction, (n, 3, side, side).

    The class number after the last class stands for no class.
    """

    def __init__(self, classes: int, side: int) -> None:
        super().__init__()
        condition_size = 4 * WIDTHS[0]
        widths = WIDTHS[: 1 + min(len(WIDTHS) - 1, int(math.log2(side / 4)))]
        self.time = nn.Sequential(
            nn.Linear(2 * WIDTHS[0], condition_size), nn.SiLU(), nn.Linear(condition_size, condition_size)
        )
        self.class_embedding = nn.Embedding(classes + 1, condition_size)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _Block(in_channels, level_channels, condition_size)
            for in_channels, level_channels in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.middle = _Block(widths[-1], widths[-1], condition_size)
        self.attention = _Attention(widths[-1])
        self.up = nn.ModuleList(
            _Block(in_channels + level_channels, out_channels, condition_size)
            for in_channels, level_channels, out_channels in zip(
                widths[::-1], widths[::-1], (*widths[-2::-1], widths[0]), strict=True
            )
        )
        self.out = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1))
        self.downsample, self.upsample = nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, images: torch.Tensor, times: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the direction."""
        angles = times[:, None] * torch.exp(torch.linspace(0, math.log(1000), WIDTHS[0], device=times.device))
        conditions = nn.functional.silu(
            self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.class_embedding(classes)
        )
        hidden = self.stem(images)
        skips = []
        for level, block in enumerate(self.down):
            hidden = block(self.downsample(hidden) if level else hidden, conditions)
            skips.append(hidden)
        hidden = self.attention(self.middle(hidden, conditions))
        for level, block in enumerate(self.up):
            hidden = block(torch.cat([self.upsample(hidden) if level else hidden, skips.pop()], dim=1), conditions)
        direction: torch.Tensor = self.out(hidden)
        return direction


class ImageFlow:
    """The generator: trains on images with or without classes, and samples images of a class."""

    def __init__(self, classes: int, side: int, context: FitContext) -> None:
        """side: of training and generated images, in pixels, a multiple of eight."""
        self.classes, self.side, self.context = classes, side, context
        self.net = FlowNet(classes, side)
        _initialize(self.net, torch.Generator().manual_seed(context.seed % 2**63))

    def copy(self, context: FitContext) -> ImageFlow:
        """Return a copy with the same weights and another context."""
        copied = ImageFlow(self.classes, self.side, context)
        copied.net.load_state_dict(self.net.state_dict())
        return copied

    def fit(self, images: NDArray[np.uint8], labels: NDArray[np.int64], watch: Callable[[int, float], None]) -> None:
        """Train the generator.

        images: (n, side, side, 3); labels: (n,), class numbers, or -1 for no class. Raises Diverged for a loss that is
        not finite.
        """
        device = device_of(self.context.device)
        use_one_thread(device)
        net = self.net.to(device)
        class_numbers = torch.from_numpy(np.where(labels < 0, self.classes, labels))
        loop = Loop(net, replace(self.context, watch=watch), PEAK_LEARNING_RATE, {})

        def loss_of(step: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
            batch = batch_of_step(len(class_numbers), BATCH, self.context.seed, step)
            noise = torch.randn((len(batch), 3, self.side, self.side), generator=generator)
            times = torch.sigmoid(torch.randn(len(batch), generator=generator))  # times in the middle are the hardest
            is_hidden = torch.rand(len(batch), generator=generator) < UNCONDITIONAL_SHARE
            conditions = torch.where(is_hidden, torch.tensor(self.classes), class_numbers[batch])
            targets = as_tensor(images[batch.numpy()])
            interpolated = torch.lerp(noise, targets, times[:, None, None, None])
            for part in torch.arange(len(batch)).chunk(loop.parts):
                with mixed_precision(device):
                    predicted = net(interpolated[part].to(device), times[part].to(device), conditions[part].to(device))
                directions = (targets - noise)[part].to(device)
                yield ((predicted.float() - directions) ** 2).mean() * len(part) / len(batch)

        net.load_state_dict(loop.run(loss_of, self.context.steps), strict=False)
        net.to("cpu")

    def sample(self, label: int, seeds: Sequence[int]) -> Iterator[Pixels]:
        """Yield an image of the class per seed, (side, side, 3), which does not depend on the other seeds."""
        device = device_of(self.context.device)
        use_one_thread(device)
        net = self.net.to(device).eval()
        for first in range(0, len(seeds), SAMPLES_PER_BATCH):
            block_seeds = [*seeds[first : first + SAMPLES_PER_BATCH]]
            padded_seeds = block_seeds + [block_seeds[-1]] * (SAMPLES_PER_BATCH - len(block_seeds))
            noise = [
                torch.randn((3, self.side, self.side), generator=torch.Generator().manual_seed(seed % 2**63))
                for seed in padded_seeds
            ]
            with torch.inference_mode():
                generated = _integrated(net, torch.stack(noise).to(device), label, self.classes)
            levels = ((generated.cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            yield from (np.ascontiguousarray(pixels) for pixels in levels[: len(block_seeds)])
        self.net.to("cpu")


def _integrated(net: FlowNet, start: torch.Tensor, label: int, no_class: int) -> torch.Tensor:
    """Integrate the guided direction from time 0 to 1 by Heun's method.

    The guided direction is u + GUIDANCE · (c − u), where c is the class-conditional and u the unconditional direction.
    """
    n_images = len(start)
    conditions = torch.tensor([label] * n_images + [no_class] * n_images, device=start.device)

    def direction(images: torch.Tensor, time: float) -> torch.Tensor:
        times = torch.full((2 * n_images,), time, device=start.device)
        conditional, unconditional = net(torch.cat([images, images]), times, conditions).chunk(2)
        guided: torch.Tensor = unconditional + GUIDANCE * (conditional - unconditional)
        return guided

    images, step = start, 1 / STEPS_PER_SAMPLE
    for step_index in range(STEPS_PER_SAMPLE):
        start_direction = direction(images, step_index * step)
        end_direction = direction(images + step * start_direction, (step_index + 1) * step)
        images = images + step * (start_direction + end_direction) / 2
    return images


def _initialize(net: FlowNet, generator: torch.Generator) -> None:
    """Initialize the weights from the generator; the last layers of blocks and of the network start at 0."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
    last: list[Any] = [block.second[-1] for block in net.modules() if isinstance(block, _Block)]
    for convolution in [*last, net.attention.project, net.out[-1]]:
        nn.init.zeros_(convolution.weight)
