"""Small images of shapes, which a model learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("disc", "bar", "cross")


def draw(shape: str, rng: np.random.Generator, side: int = 24) -> np.ndarray:
    """A noisy gray image of a shape at a random position; no two are equal."""
    pixels = rng.integers(0, 60, (side, side)).astype(np.uint8)
    row, column = (int(coordinate) for coordinate in rng.integers(8, side - 8, 2))
    rows, columns = np.mgrid[:side, :side]
    ink = {
        "disc": (rows - row) ** 2 + (columns - column) ** 2 <= 25,
        "bar": (abs(columns - column) <= 1) & (abs(rows - row) <= 8),
        "cross": ((abs(rows - row) <= 1) | (abs(columns - column) <= 1))
        & (abs(rows - row) + abs(columns - column) <= 7),
    }[shape]
    pixels[ink] = rng.integers(180, 255)
    return pixels


def write_images(root: Path, labeled: int = 6, pool: int = 20, test: int = 5) -> Path:
    """Write an ImageFolder of shapes: `labeled` per class, `pool` unlabeled, `test` per class."""
    rng = np.random.default_rng(7)
    for shape in SHAPES:
        for part, count in (("labeled", labeled), ("test", test)):
            for number in range(count):
                path = root / part / shape / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(shape, rng)).save(path)
    for number in range(pool):
        path = root / "unlabeled" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(SHAPES[number % 3], rng)).save(path)
    return root
