"""Gradients of a model with respect to the pixels of an image, computed on its smooth torch version."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seedling.media.images import CENTER_SHARE
from seedling.models.portable import COLOR_SIDE, Portable
from seedling.stats.statistics import SMALLEST

MAX_RIVAL_CLASSES = 2  # likeliest other classes that a step can lead to


class FromPixels(nn.Module):
    """The smooth version of a model, starting at an image's pixels: computes the model's other inputs from them."""

    def __init__(self, portable: Portable) -> None:
        super().__init__()
        self.portable = portable.eval()
        maker: Any = portable.maker
        if portable.kind == "encoded images":
            self.preprocessing, self.views = maker.encoder.prepare, maker.views
            self.size = (int(self.preprocessing.height), int(self.preprocessing.width))
        else:
            self.size = (int(maker.side), int(maker.side))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3), 0 to 255 → (n, n_classes), rows sum to 1."""
        if self.portable.kind == "encoded images":
            scaled = (images / 255 - torch.tensor(self.preprocessing.mean)) / torch.tensor(self.preprocessing.deviation)
            values = scaled.permute(0, 3, 1, 2)
            if len(self.views) > 1:  # the image has the encoder's aspect ratio, so that `padded` is the whole of it
                values = torch.stack([_center(values) if view == "center" else values for view in self.views], dim=1)
            model_inputs = [values, _resized(images, COLOR_SIDE)]
        else:
            network_side: Any = getattr(self.portable.maker, "network_side", 0)
            model_inputs = [images, *([_resized(images, network_side)] if self.portable.needs_small else [])]
        result: torch.Tensor = self.portable(*model_inputs)
        return result

    def flops(self) -> float:
        """Return the FLOPs of one image's forward pass."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self(torch.zeros((1, *self.size, 3)))
        return float(max(counter.get_total_flops(), 1))


def _center(values: torch.Tensor) -> torch.Tensor:
    """The central `CENTER_SHARE` of images (n, 3, height, width), enlarged to their size."""
    height, width = values.shape[-2:]
    top, left = (round(side * (1 - CENTER_SHARE) / 2) for side in (height, width))
    center = values[..., top : height - top, left : width - left]
    return nn.functional.interpolate(center, size=(height, width), mode="bilinear", align_corners=False)


def _resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize by averaging over areas."""
    sized = nn.functional.interpolate(images.permute(0, 3, 1, 2), size=(side, side), mode="area")
    return sized.permute(0, 2, 3, 1)


def step_to_nearest_class(pixels: FromPixels, images: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Return the next DeepFool step per image (Moosavi-Dezfooli et al. 2016), to the nearest linearized class border.

    With the margin f = logit(rival) − logit(predicted) and its gradient w, the distance to the border is |f| / ‖w‖ and
    the step is (|f| / ‖w‖²) w. The step is 0 for an image that is already across a border.
    """
    inputs = images.clamp(0, 255).detach().requires_grad_()
    logits = torch.log(pixels(inputs).clamp(min=SMALLEST))
    if not logits.requires_grad:  # trees only: they are piecewise constant, without a gradient
        return torch.zeros_like(images)
    predicted_logits = logits.gather(1, predicted[:, None])[:, 0]
    other_logits = logits.detach().scatter(1, predicted[:, None], -torch.inf)
    rivals = other_logits.topk(min(MAX_RIVAL_CLASSES, logits.shape[1] - 1), dim=1).indices
    best_step, smallest_distance = torch.zeros_like(images), torch.full((len(images),), torch.inf)
    for rival in rivals.T:
        margin = logits.gather(1, rival[:, None])[:, 0] - predicted_logits
        (gradient,) = torch.autograd.grad(margin.sum(), inputs, retain_graph=True)
        gradient = torch.nan_to_num(gradient)
        gradient_norm = gradient.flatten(1).norm(dim=1)
        distance = torch.where(gradient_norm > 0, margin.detach().abs() / gradient_norm.clamp(min=1e-12), torch.inf)
        is_closer = distance < smallest_distance
        smallest_distance = torch.where(is_closer, distance, smallest_distance)
        step_factor = (margin.detach().abs() + 1e-4) / (gradient_norm**2).clamp(min=1e-12)
        best_step = torch.where(is_closer[:, None, None, None], step_factor[:, None, None, None] * gradient, best_step)
    is_misclassified = other_logits.max(dim=1).values > predicted_logits.detach()
    return torch.where(is_misclassified[:, None, None, None], torch.zeros_like(best_step), best_step).detach()


def loss_gradient_sign(pixels: FromPixels, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sign of the log loss's gradient per value, -1, 0 or 1 (FGSM, Goodfellow et al. 2015).

    images: (n, height, width, 3), 0 to 255, of the size that the smooth model expects; labels: (n,), class numbers.
    """
    inputs = images.clamp(0, 255).detach().requires_grad_()
    loss = -torch.log(pixels(inputs).clamp(min=SMALLEST)).gather(1, labels[:, None]).sum()
    if not loss.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(loss, inputs)
    return torch.nan_to_num(gradient).sign()
