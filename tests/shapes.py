"""Small images of shapes, which a model learns in seconds."""

from __future__ import annotations

import numpy as np

SHAPES = ("disc", "bar", "cross")


def draw(shape: str, rng: np.random.Generator, side: int = 24) -> np.ndarray:
    """A gray image of a shape at a random place, with noise: easy to tell apart, no two alike."""
    pixels = rng.integers(0, 60, (side, side)).astype(np.uint8)
    row, column = (int(one) for one in rng.integers(8, side - 8, 2))
    rows, columns = np.mgrid[:side, :side]
    ink = {
        "disc": (rows - row) ** 2 + (columns - column) ** 2 <= 25,
        "bar": (abs(columns - column) <= 1) & (abs(rows - row) <= 8),
        "cross": ((abs(rows - row) <= 1) | (abs(columns - column) <= 1))
        & (abs(rows - row) + abs(columns - column) <= 7),
    }[shape]
    pixels[ink] = rng.integers(180, 255)
    return pixels
