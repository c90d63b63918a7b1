"""A small class-conditional generator of small images: rectified flow (Liu et al. 2023; Lipman et al. 2023) by a U-Net (Ronneberger et al. 2015).

From noise at time 0 to an image at time 1 along nearly straight lines; the network learns the lines' direction, and Heun's method follows it. Of a
tenth of the rows the class is kept from it, so that a sample can lean away from what any class would be (classifier-free guidance, Ho and Salimans 2022).
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
from seedling.models.device import device_of, in_half, one_thread
from seedling.models.network import as_tensor
from seedling.models.training import FitContext, Loop, batch_of_step

WIDTHS = (32, 64, 96)
BATCH = 64
PEAK_LEARNING_RATE = 2e-3
HIDDEN_SHARE = 0.1  # of the rows whose class is not told
GUIDANCE = 1.5  # 1: as the class alone says
STEPS_OF_A_SAMPLE = 20
AT_ONCE = 16  # samples; the last ones are filled up, so that none depends on those beside it


class _Block(nn.Module):
    """Two convolutions that the time and the class speak into, beside a shortcut."""

    def __init__(self, before: int, width: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, width, 3, padding=1))
        self.tell = nn.Linear(told, width)
        self.second = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, images: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """(n, before, side, side) and (n, told) → (n, width, side, side)."""
        changed = self.first(images) + self.tell(told)[:, :, None, None]
        result: torch.Tensor = self.second(changed) + self.shortcut(images)
        return result


class _Attention(nn.Module):
    """Every place looks at every other one (Vaswani et al. 2017), one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.asks, self.says = (
            nn.GroupNorm(8, width),
            nn.Conv2d(width, 3 * width, 1),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, width, side, side), the same shape."""
        many, width, height, across = images.shape
        parts = self.asks(self.norm(images)).reshape(many, 3, width, height * across).transpose(2, 3).unbind(1)
        seen = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)
        result: torch.Tensor = images + self.says(seen.reshape(many, width, height, across))
        return result


class FlowNet(nn.Module):
    """(n, 3, side, side), times (n,) and classes (n,) → the direction, (n, 3, side, side). The class after the last one: none is told."""

    def __init__(self, classes: int, side: int) -> None:
        super().__init__()
        told = 4 * WIDTHS[0]
        widths = WIDTHS[: 1 + min(len(WIDTHS) - 1, int(math.log2(side / 4)))]
        self.time = nn.Sequential(nn.Linear(2 * WIDTHS[0], told), nn.SiLU(), nn.Linear(told, told))
        self.of_class = nn.Embedding(classes + 1, told)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _Block(before, width, told) for before, width in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.middle = _Block(widths[-1], widths[-1], told)
        self.look = _Attention(widths[-1])
        self.up = nn.ModuleList(
            _Block(before + width, after, told)
            for before, width, after in zip(widths[::-1], widths[::-1], (*widths[-2::-1], widths[0]), strict=True)
        )
        self.out = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1))
        self.smaller, self.larger = nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, images: torch.Tensor, times: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """The direction."""
        waves = times[:, None] * torch.exp(torch.linspace(0, math.log(1000), WIDTHS[0], device=times.device))
        told = nn.functional.silu(self.time(torch.cat([waves.sin(), waves.cos()], dim=1)) + self.of_class(classes))
        shown = self.stem(images)
        seen = []
        for number, block in enumerate(self.down):
            shown = block(self.smaller(shown) if number else shown, told)
            seen.append(shown)
        shown = self.look(self.middle(shown, told))
        for number, block in enumerate(self.up):
            shown = block(torch.cat([self.larger(shown) if number else shown, seen.pop()], dim=1), told)
        direction: torch.Tensor = self.out(shown)
        return direction


class ImageFlow:
    """The generator: taught by images with classes, or without, gives images of a class."""

    def __init__(self, classes: int, side: int, setting: FitContext) -> None:
        """side: of what is learnt and made, pixels, a multiple of eight."""
        self.classes, self.side, self.setting = classes, side, setting
        self.net = FlowNet(classes, side)
        _initialize(self.net, torch.Generator().manual_seed(setting.seed % 2**63))

    def copy(self, setting: FitContext) -> ImageFlow:
        """Another one that goes on from here."""
        other = ImageFlow(self.classes, self.side, setting)
        other.net.load_state_dict(self.net.state_dict())
        return other

    def fit(self, images: NDArray[np.uint8], labels: NDArray[np.int64], watch: Callable[[int, float], None]) -> None:
        """images: (n, side, side, 3); labels: (n,), class numbers, -1 where there is none. Raises Diverged for a loss that is no number."""
        device = device_of(self.setting.device)
        one_thread(device)
        net = self.net.to(device)
        told = torch.from_numpy(np.where(labels < 0, self.classes, labels))
        loop = Loop(net, replace(self.setting, watch=watch), PEAK_LEARNING_RATE, {})

        def loss_of(step: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
            batch = batch_of_step(len(told), BATCH, self.setting.seed, step)
            noise = torch.randn((len(batch), 3, self.side, self.side), generator=draw)
            times = torch.sigmoid(torch.randn(len(batch), generator=draw))  # the middle is the hardest part of the way
            hidden = torch.rand(len(batch), generator=draw) < HIDDEN_SHARE
            asked = torch.where(hidden, torch.tensor(self.classes), told[batch])
            there = as_tensor(images[batch.numpy()])
            between = torch.lerp(noise, there, times[:, None, None, None])
            for part in torch.arange(len(batch)).chunk(loop.parts):
                with in_half(device):
                    said = net(between[part].to(device), times[part].to(device), asked[part].to(device))
                wanted = (there - noise)[part].to(device)
                yield ((said.float() - wanted) ** 2).mean() * len(part) / len(batch)

        net.load_state_dict(loop.run(loss_of, self.setting.steps), strict=False)
        net.to("cpu")

    def sample(self, label: int, seeds: Sequence[int]) -> Iterator[Pixels]:
        """An image of the class for each seed, (side, side, 3), whatever the other seeds are."""
        device = device_of(self.setting.device)
        one_thread(device)
        net = self.net.to(device).eval()
        for first in range(0, len(seeds), AT_ONCE):
            mine = [*seeds[first : first + AT_ONCE]]
            filled = mine + [mine[-1]] * (AT_ONCE - len(mine))
            starts = [
                torch.randn((3, self.side, self.side), generator=torch.Generator().manual_seed(one % 2**63))
                for one in filled
            ]
            with torch.inference_mode():
                made = _followed(net, torch.stack(starts).to(device), label, self.classes)
            levels = ((made.cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            yield from (np.ascontiguousarray(one) for one in levels[: len(mine)])
        self.net.to("cpu")


def _followed(net: FlowNet, start: torch.Tensor, label: int, nothing: int) -> torch.Tensor:
    """Heun's method from time 0 to 1."""
    many = len(start)
    both = torch.tensor([label] * many + [nothing] * many, device=start.device)

    def direction(place: torch.Tensor, time: float) -> torch.Tensor:
        times = torch.full((2 * many,), time, device=start.device)
        told, untold = net(torch.cat([place, place]), times, both).chunk(2)
        leaning: torch.Tensor = untold + GUIDANCE * (told - untold)
        return leaning

    place, step = start, 1 / STEPS_OF_A_SAMPLE
    for number in range(STEPS_OF_A_SAMPLE):
        here = direction(place, number * step)
        there = direction(place + step * here, (number + 1) * step)
        place = place + step * (here + there) / 2
    return place


def _initialize(net: FlowNet, draw: torch.Generator) -> None:
    """From the generator's own seed; what a block adds, and the direction itself, begin at nothing."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=draw)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=draw)
    last: list[Any] = [one.second[-1] for one in net.modules() if isinstance(one, _Block)]
    for convolution in [*last, net.look.says, net.out[-1]]:
        nn.init.zeros_(convolution.weight)
