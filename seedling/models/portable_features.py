"""Features as torch modules: the computations of seedling/features/classical.py and encoded_features.py as a graph."""

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
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import unit_rows

FIXED_POINT_BITS = 12  # fractional bits of the fixed-point color conversion
GAMMA_BITS = 3
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)
GRAY_OF_RGB = (9798, 19235, 3735)  # divided by 2¹⁵


class Lab(nn.Module):
    """RGB → 8-bit LAB in fixed-point integers, as OpenCV computes it; smooth: the differentiable formula."""

    light: torch.Tensor
    root: torch.Tensor
    xyz: torch.Tensor

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        level = np.arange(256) / 255
        linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        steps = np.arange(256 * 3 // 2 << GAMMA_BITS, dtype=np.float32)
        table_inputs = steps / np.float32(255 << GAMMA_BITS)  # as in OpenCV
        cube_roots = np.where(table_inputs < 216 / 24389, table_inputs * 841 / 108 + 16 / 116, _cube_root(table_inputs))
        xyz = np.array(XYZ_OF_RGB) / np.array(WHITE)[:, None]
        self.register_buffer("light", torch.from_numpy(np.rint((255 << GAMMA_BITS) * linear).astype(np.int64)))
        self.register_buffer(
            "root", torch.from_numpy(np.rint((1 << FIXED_POINT_BITS + GAMMA_BITS) * cube_roots).astype(np.int64))
        )
        self.register_buffer("xyz", torch.from_numpy(np.rint((1 << FIXED_POINT_BITS) * xyz).astype(np.int64)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3), 0 to 255, integers unless smooth → the same shape, 0 to 255, float32."""
        if self.smooth:
            return self._formula(images)
        linear = self.light[images.long()]
        # Sums instead of a matrix product: ONNX runtimes multiply only floating-point matrices.
        axes = [(linear * weights).sum(dim=-1) for weights in self.xyz]
        x, y, z = (self.root[_rounded_shift(axis, FIXED_POINT_BITS)] for axis in axes)
        bits = FIXED_POINT_BITS + GAMMA_BITS
        lightness = _rounded_shift(296 * y - ((16 * 255 << bits) + 50) // 100, bits)
        a_and_b = (
            _rounded_shift(500 * (x - y) + (128 << bits), bits),
            _rounded_shift(200 * (y - z) + (128 << bits), bits),
        )
        return torch.stack([lightness, *a_and_b], dim=-1).clamp(0, 255).float()

    def _formula(self, images: torch.Tensor) -> torch.Tensor:
        level = images / 255
        linear = torch.where(level <= 0.04045, level / 12.92, ((level.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
        axes = linear @ (self.xyz.T.float() / (1 << FIXED_POINT_BITS))
        roots = torch.where(axes < 216 / 24389, axes * 841 / 108 + 16 / 116, axes.clamp(min=8e-3) ** (1 / 3))
        x, y, z = roots.unbind(-1)
        return torch.stack([2.55 * (116 * y - 16), 500 * (x - y) + 128, 200 * (y - z) + 128], dim=-1)


def _cube_root(values: np.ndarray) -> np.ndarray:
    """(n,) float32, rounded toward zero as in OpenCV.

    NumPy's float32 cube root differs between CPUs in the last bit.
    """
    exact_roots = np.cbrt(values.astype(np.float64))
    nearest = exact_roots.astype(np.float32)
    return np.where(nearest > exact_roots, np.nextafter(nearest, np.float32(0)), nearest)


def _rounded_shift(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers divided by 2^bits and rounded half up (toward +∞, also for negative numbers), as a bit shift does."""
    return torch.div(values + (1 << bits - 1), 1 << bits, rounding_mode="floor")


class Colors(nn.Module):
    """Square roots of LAB histograms (n, 48); smooth: a value counts in part for the two nearest bins."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        """lab: (n, height, width, 3), 0 to 255."""
        bin_positions = (lab * (COLOR_BINS / 256)).flatten(1, 2)
        if self.smooth:
            bin_shares = [
                torch.relu(1 - (bin_positions - 0.5 - bin_index).abs()).mean(dim=1) for bin_index in range(COLOR_BINS)
            ]
            return torch.sqrt(torch.stack(bin_shares, dim=-1).flatten(1) + 1e-4)
        bin_shares = [(torch.floor(bin_positions) == bin_index).float().mean(dim=1) for bin_index in range(COLOR_BINS)]
        return torch.sqrt(torch.stack(bin_shares, dim=-1).flatten(1))


class ImageFeaturesModule(nn.Module):
    """Scaled thumbnail, HOG and color blocks: seedling/features/classical.py as a graph."""

    def __init__(self, maker: ImageFeatures, smooth: bool) -> None:
        super().__init__()
        self.smooth, self.lab, self.colors = smooth, Lab(smooth), Colors(smooth)
        self.kept = [bool(np.isfinite(scale)) for _, scale in maker.blocks or []]
        for block_index, (mean, scale) in enumerate(maker.blocks or []):
            self.register_buffer(f"mean_{block_index}", torch.from_numpy(mean))
            self.register_buffer(f"scale_{block_index}", torch.tensor(scale, dtype=torch.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3), 0 to 255 → (n, d)."""
        lab = self.lab(images)
        gray = (images.float() * torch.tensor(GRAY_OF_RGB, dtype=torch.float32)).sum(dim=-1) / (1 << 15)
        gray = gray if self.smooth else torch.floor(gray + 0.5)
        thumbnail = nn.functional.avg_pool2d(lab.permute(0, 3, 1, 2), lab.shape[1] // THUMBNAIL).permute(0, 2, 3, 1)
        raw = [
            (thumbnail if self.smooth else torch.round(thumbnail)).flatten(1),
            _hog_features(gray / 255),
            self.colors(lab),
        ]
        scaled = [
            (block - getattr(self, f"mean_{block_index}")) / getattr(self, f"scale_{block_index}")
            for block_index, block in enumerate(raw)
            if self.kept[block_index]
        ]
        return torch.cat(scaled, dim=1)


def _hog_features(gray: torch.Tensor) -> torch.Tensor:
    """As `hog` of seedling/features/classical.py: (n, height, width), 0 to 1 → (n, blocks × 4 × bins)."""
    padded = pad(gray[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx, dy = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    magnitude = torch.sqrt(dx**2 + dy**2 + 1e-20)
    safe_dx = torch.where((dx == 0) & (dy == 0), torch.ones_like(dx), dx)  # atan2(0, 0) has no gradient
    angle = torch.remainder(torch.atan2(dy, safe_dx), torch.pi) / torch.pi * BINS
    bin_floor = torch.floor(angle)
    upper_share, lower_bin = angle - bin_floor, torch.remainder(bin_floor, BINS)
    cells = []
    for bin_index in range(BINS):
        votes = magnitude * (
            (lower_bin == bin_index) * (1 - upper_share)
            + (torch.remainder(lower_bin + 1, BINS) == bin_index) * upper_share
        )
        cells.append(CELL * CELL * nn.functional.avg_pool2d(votes[:, None], CELL)[:, 0])
    stacked = torch.stack(cells, dim=-1)
    corners = [stacked[:, :-1, :-1], stacked[:, 1:, :-1], stacked[:, :-1, 1:], stacked[:, 1:, 1:]]
    blocks = torch.cat(corners, dim=-1)
    length = torch.sqrt((blocks**2).sum(dim=-1, keepdim=True) + 1e-20)
    return (blocks / (length + 0.1)).flatten(1)


class Embedding(nn.Module):
    """An encoder's embedding, rounded to float16 unless gradients are needed."""

    def __init__(self, encoder: Any, smooth: bool) -> None:
        super().__init__()
        self.encoder, self.smooth = encoder, smooth
        self.model = copy.deepcopy(encoder.model).float().cpu()  # the caller's model keeps its device and precision

    def forward(self, model_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(n, d)."""
        pooled = self.encoder.embedding(self.model, model_inputs)
        result: torch.Tensor = pooled if self.smooth else pooled.half().float()
        return result


class EncodedFeaturesModule(nn.Module):
    """The features that heads use for encoded rows: seedling/features/encoded_features.py as a graph."""

    center: torch.Tensor
    topics: torch.Tensor | None

    def __init__(self, maker: EncodedFeatures, smooth: bool) -> None:
        super().__init__()
        if maker.center is None:
            raise InputError("The features were not fitted.")
        self.embedding = Embedding(maker.encoder, smooth)
        self.smooth, self.lab, self.colors = smooth, Lab(smooth), Colors(smooth)
        self.surface_weight = maker.surface_weight
        self.register_buffer("center", torch.from_numpy(maker.center))
        self.register_buffer("topics", None if maker.topics is None else torch.from_numpy(maker.topics))

    def forward(self, model_inputs: Mapping[str, torch.Tensor], surface_input: torch.Tensor) -> torch.Tensor:
        """(n, d). surface_input: small images (n, 64, 64, 3), or TF-IDF term weights (n, n_terms)."""
        main = unit_rows(self.embedding(model_inputs))
        if self.topics is None:
            surface = self.colors(self.lab(surface_input))
            surface = unit_rows(surface if self.smooth else surface.half().float())
        else:
            surface = unit_rows(surface_input @ self.topics)
        centered = torch.cat([main, surface], dim=1) - self.center
        n_main = main.shape[1]
        main, surface = unit_rows(centered[:, :n_main]), unit_rows(centered[:, n_main:])
        return unit_rows(torch.cat([main, self.surface_weight * surface], dim=1))
