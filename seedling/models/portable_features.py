"""Features as torch modules: what seedling/features/classical.py and encoded_features.py make of a row, as a graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from seedling.errors import InputError
from seedling.features.classical import BINS, CELL, COLOR_BINS, THUMBNAIL, ImageFeatures
from seedling.features.encoded_features import SURFACE, EncodedFeatures

FIXED = 12  # bits after the point of the color conversion's numbers
GAMMA_BITS = 3
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)
GRAY_OF_RGB = (9798, 19235, 3735)  # of 2¹⁵


class Lab(nn.Module):
    """RGB → LAB of 8 bits in whole numbers, as OpenCV calculates it; smooth: the formula itself."""

    light: torch.Tensor
    root: torch.Tensor
    xyz: torch.Tensor

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        level = np.arange(256) / 255
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        steps = np.arange(256 * 3 // 2 << GAMMA_BITS, dtype=np.float32) / np.float32(
            255 << GAMMA_BITS
        )  # as OpenCV has it
        root = np.where(steps < 216 / 24389, steps * 841 / 108 + 16 / 116, _cube_root(steps))
        xyz = np.array(XYZ_OF_RGB) / np.array(WHITE)[:, None]
        self.register_buffer("light", torch.from_numpy(np.rint((255 << GAMMA_BITS) * light).astype(np.int64)))
        self.register_buffer("root", torch.from_numpy(np.rint((1 << FIXED + GAMMA_BITS) * root).astype(np.int64)))
        self.register_buffer("xyz", torch.from_numpy(np.rint((1 << FIXED) * xyz).astype(np.int64)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3), 0 to 255, whole numbers unless smooth → the same shape, 0 to 255, float32."""
        if self.smooth:
            return self._formula(images)
        linear = self.light[images.long()]
        # Sums, not a product of matrices, which runtimes have for floats alone.
        axes = [(linear * weights).sum(dim=-1) for weights in self.xyz]
        x, y, z = (self.root[_descaled(axis, FIXED)] for axis in axes)
        bits = FIXED + GAMMA_BITS
        lightness = _descaled(296 * y - ((16 * 255 << bits) + 50) // 100, bits)
        both = (_descaled(500 * (x - y) + (128 << bits), bits), _descaled(200 * (y - z) + (128 << bits), bits))
        return torch.stack([lightness, *both], dim=-1).clamp(0, 255).float()

    def _formula(self, images: torch.Tensor) -> torch.Tensor:
        level = images / 255
        light = torch.where(level <= 0.04045, level / 12.92, ((level.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
        axes = light @ (self.xyz.T.float() / (1 << FIXED))
        x, y, z = torch.where(axes < 216 / 24389, axes * 841 / 108 + 16 / 116, axes.clamp(min=8e-3) ** (1 / 3)).unbind(
            -1
        )
        return torch.stack([2.55 * (116 * y - 16), 500 * (x - y) + 128, 200 * (y - z) + 128], dim=-1)


def _cube_root(steps: np.ndarray) -> np.ndarray:
    """(n,) float32, cut to float32 as OpenCV cuts its own; NumPy's root of float32 differs between processors in the last bit."""
    exact = np.cbrt(steps.astype(np.float64))
    nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(0)), nearest)


def _descaled(whole: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers divided by a power of two, rounded: of what may be negative, towards +∞ from the half on, as a shift does."""
    return torch.div(whole + (1 << bits - 1), 1 << bits, rounding_mode="floor")


class Colors(nn.Module):
    """Square-rooted histograms of LAB (n, 48); smooth: a level counts for both bins that it lies between."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        """lab: (n, height, width, 3), 0 to 255."""
        places = (lab * (COLOR_BINS / 256)).flatten(1, 2)
        if self.smooth:
            shares = [torch.relu(1 - (places - 0.5 - one).abs()).mean(dim=1) for one in range(COLOR_BINS)]
            return torch.sqrt(torch.stack(shares, dim=-1).flatten(1) + 1e-4)
        shares = [(torch.floor(places) == one).float().mean(dim=1) for one in range(COLOR_BINS)]
        return torch.sqrt(torch.stack(shares, dim=-1).flatten(1))


class OfImages(nn.Module):
    """Thumbnail, HOG and colors, scaled: seedling/features/classical.py as a graph."""

    def __init__(self, maker: ImageFeatures, smooth: bool) -> None:
        super().__init__()
        self.smooth, self.lab, self.colors = smooth, Lab(smooth), Colors(smooth)
        self.kept = [bool(np.isfinite(scale)) for _, scale in maker.blocks or []]
        for place, (mean, scale) in enumerate(maker.blocks or []):
            self.register_buffer(f"mean_{place}", torch.from_numpy(mean))
            self.register_buffer(f"scale_{place}", torch.tensor(scale, dtype=torch.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, d)."""
        lab = self.lab(images)
        gray = (images.float() * torch.tensor(GRAY_OF_RGB, dtype=torch.float32)).sum(dim=-1) / (1 << 15)
        gray = gray if self.smooth else torch.floor(gray + 0.5)
        small = nn.functional.avg_pool2d(lab.permute(0, 3, 1, 2), lab.shape[1] // THUMBNAIL).permute(0, 2, 3, 1)
        raw = [(small if self.smooth else torch.round(small)).flatten(1), _hog(gray / 255), self.colors(lab)]
        scaled = [
            (block - getattr(self, f"mean_{place}")) / getattr(self, f"scale_{place}")
            for place, block in enumerate(raw)
            if self.kept[place]
        ]
        return torch.cat(scaled, dim=1)


def _hog(gray: torch.Tensor) -> torch.Tensor:
    """As features.hog: (n, height, width), 0 to 1 → (n, blocks × 4 × bins)."""
    padded = pad(gray[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx, dy = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.sqrt(dx**2 + dy**2 + 1e-20)
    across = torch.where((dx == 0) & (dy == 0), torch.ones_like(dx), dx)  # no direction has no gradient either
    angle = torch.remainder(torch.atan2(dy, across), torch.pi) / torch.pi * BINS
    lower = torch.floor(angle)
    share, first = angle - lower, torch.remainder(lower, BINS)
    cells = []
    for one in range(BINS):
        votes = strength * ((first == one) * (1 - share) + (torch.remainder(first + 1, BINS) == one) * share)
        cells.append(CELL * CELL * nn.functional.avg_pool2d(votes[:, None], CELL)[:, 0])
    stacked = torch.stack(cells, dim=-1)
    around = [stacked[:, :-1, :-1], stacked[:, 1:, :-1], stacked[:, :-1, 1:], stacked[:, 1:, 1:]]
    blocks = torch.cat(around, dim=-1)
    length = torch.sqrt((blocks**2).sum(dim=-1, keepdim=True) + 1e-20)
    return (blocks / (length + 0.1)).flatten(1)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Each row of length 1, zeros as they are."""
    return rows / torch.sqrt((rows**2).sum(dim=1, keepdim=True) + 1e-18).clamp(min=1e-9)


class Embedding(nn.Module):
    """An encoder's pooled output, in float16's precision where it is not to be derived."""

    def __init__(self, encoder: Any, smooth: bool) -> None:
        super().__init__()
        self.encoder, self.smooth = encoder, smooth
        self.model = copy.deepcopy(encoder.model).float().cpu()  # the caller's stays as it is, and where it is

    def forward(self, ready: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(n, d)."""
        made = self.encoder._pooled(self.model(**ready), ready.get("attention_mask"))
        result: torch.Tensor = made if self.smooth else made.half().float()
        return result


class OfEncoder(nn.Module):
    """What heads see of encoded rows: seedling/features/encoded_features.py as a graph."""

    center: torch.Tensor
    topics: torch.Tensor | None

    def __init__(self, maker: EncodedFeatures, smooth: bool) -> None:
        super().__init__()
        if maker.center is None:
            raise InputError("The features were not fitted.")
        self.embedding = Embedding(maker.encoder, smooth)
        self.smooth, self.lab, self.colors = smooth, Lab(smooth), Colors(smooth)
        self.register_buffer("center", torch.from_numpy(maker.center))
        self.register_buffer("topics", None if maker.topics is None else torch.from_numpy(maker.topics))

    def forward(self, ready: Mapping[str, torch.Tensor], beside: torch.Tensor) -> torch.Tensor:
        """(n, d). beside: small images (n, 64, 64, 3), or counted words (n, n_terms)."""
        main = unit_rows(self.embedding(ready))
        if self.topics is None:
            surface = self.colors(self.lab(beside))
            surface = unit_rows(surface if self.smooth else surface.half().float())
        else:
            surface = unit_rows(beside @ self.topics)
        joined = torch.cat([main, surface], dim=1) - self.center
        wide = main.shape[1]
        return unit_rows(torch.cat([unit_rows(joined[:, :wide]), SURFACE * unit_rows(joined[:, wide:])], dim=1))
