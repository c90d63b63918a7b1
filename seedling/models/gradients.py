"""Which way an image must change for a model to say something else: slopes of its smooth stand-in, from pixels on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seedling.models.portable import COLOR_SIDE, Portable
from seedling.stats.statistics import SMALLEST

RIVALS = 2  # likeliest other classes that a step may lead to


class FromPixels(nn.Module):
    """The smooth stand-in, from one image's pixels on: what else the model takes is made of them here."""

    def __init__(self, portable: Portable) -> None:
        super().__init__()
        self.portable = portable.eval()
        made: Any = portable.maker
        if portable.kind == "encoded images":
            self.made = made.encoder.prepare
            self.size = (int(self.made.height), int(self.made.width))
        else:
            self.size = (int(made.side), int(made.side))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3), 0 to 255 → (n, n_classes), rows sum to 1."""
        if self.portable.kind == "encoded images":
            values = (images / 255 - torch.tensor(self.made.mean)) / torch.tensor(self.made.deviation)
            given = [values.permute(0, 3, 1, 2), _to_side(images, COLOR_SIDE)]
        else:
            network_side: Any = getattr(self.portable.maker, "network_side", 0)
            given = [images, *([_to_side(images, network_side)] if self.portable.needs_small else [])]
        result: torch.Tensor = self.portable(*given)
        return result

    def flops(self) -> float:
        """Operations of one image's forward pass."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self(torch.zeros((1, *self.size, 3)))
        return float(max(counter.get_total_flops(), 1))


def _to_side(images: torch.Tensor, side: int) -> torch.Tensor:
    """By averages over areas."""
    sized = nn.functional.interpolate(images.permute(0, 3, 1, 2), size=(side, side), mode="area")
    return sized.permute(0, 2, 3, 1)


def towards_a_rival(pixels: FromPixels, images: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """DeepFool's next step of each image, to the nearest of the linearized borders; nothing for one that is across already."""
    shown = images.clamp(0, 255).detach().requires_grad_()
    logits = torch.log(pixels(shown).clamp(min=SMALLEST))
    if not logits.requires_grad:  # trees alone: they have steps, and no slope
        return torch.zeros_like(images)
    of_own = logits.gather(1, own[:, None])[:, 0]
    others = logits.detach().scatter(1, own[:, None], -torch.inf)
    rivals = others.topk(min(RIVALS, logits.shape[1] - 1), dim=1).indices
    best, nearest = torch.zeros_like(images), torch.full((len(images),), torch.inf)
    for rival in rivals.T:
        gap = logits.gather(1, rival[:, None])[:, 0] - of_own
        (slope,) = torch.autograd.grad(gap.sum(), shown, retain_graph=True)
        slope = torch.nan_to_num(slope)
        steep = slope.flatten(1).norm(dim=1)
        distance = torch.where(steep > 0, gap.detach().abs() / steep.clamp(min=1e-12), torch.inf)
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        taken = (gap.detach().abs() + 1e-4) / (steep**2).clamp(min=1e-12)
        best = torch.where(closer[:, None, None, None], taken[:, None, None, None] * slope, best)
    across = others.max(dim=1).values > of_own.detach()
    return torch.where(across[:, None, None, None], torch.zeros_like(best), best).detach()


def away_from_label(pixels: FromPixels, images: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1 for every value: which way the label's log-loss grows (the fast gradient sign method, Goodfellow et al. 2015).

    images: (n, height, width, 3), 0 to 255, of the stand-in's size; own: (n,), the labels' class numbers.
    """
    shown = images.clamp(0, 255).detach().requires_grad_()
    loss = -torch.log(pixels(shown).clamp(min=SMALLEST)).gather(1, own[:, None]).sum()
    if not loss.requires_grad:
        return torch.zeros_like(images)
    (slope,) = torch.autograd.grad(loss, shown)
    return torch.nan_to_num(slope).sign()
