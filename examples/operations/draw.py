"""Draws docs/images/operations.jpg: each operation on one photograph, weak and strong, and what synthesize does to two.

python examples/operations/draw.py

The photographs are scikit-learn's samples: a flower by dany13 and a temple in China by Mathias Rosenthal, both
CC BY 2.0.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from seedling.augment.catalog import OPERATIONS, Entry
from seedling.augment.image_policy import PolicyTransform
from seedling.media.images import Pixels
from seedling.synthesize.cutting import Placement, object_mask, paste, remove_object
from seedling.synthesize.mixing import cut_in, mix
from seedling.synthesize.translating import match_colors

TILE, CAPTION, GAP, ACROSS = (150, 112), 22, 12, 4
SEED = 5
INK, SOFT, PAPER = (28, 42, 36), (91, 107, 99), (255, 255, 255)


def tiles() -> list[tuple[str, list[Pixels]]]:
    """Each caption with its images: of an operation weak and strong, where it has a strength."""
    flower, china = (
        cv2.resize(load_sample_image(f"{name}.jpg"), TILE, interpolation=cv2.INTER_AREA) for name in ("flower", "china")
    )
    operation_tiles = [("the photograph", [flower])]
    for name, operation in OPERATIONS.items():
        strengths = (0.3, 0.9) if operation.graded else (0.5,)
        operation_tiles.append((name, [changed(flower, operation.entry(strength)) for strength in strengths]))
    mask = object_mask(flower, (20, 5, 130, 105))
    cut, *_ = cut_in(flower, china, 0.7, np.random.default_rng(1))
    where = Placement(0.8, 10, 0.5, 0.55)
    return [
        *operation_tiles,
        ("mixup (synthesize)", [mix(flower, china, 0.6)]),
        ("cutmix (synthesize)", [cut]),
        (
            "cut_and_paste (synthesize)",
            [paste(flower, mask, china, where, "feather"), paste(flower, mask, china, where, "poisson")],
        ),
        ("negatives (synthesize)", [remove_object(flower, mask)]),
        ("translate (synthesize)", [match_colors(flower, china, share) for share in (0.5, 1.0)]),
    ]


def changed(image: Pixels, entry: Entry) -> Pixels:
    """Transform the image with the first seed from SEED on that changes it: some rotations are by 0 degrees."""
    transform = PolicyTransform([entry])
    candidates = (transform(image, seed) for seed in range(SEED, SEED + 50))
    return next(pixels for pixels in candidates if pixels.shape == image.shape and (pixels != image).any())


def main() -> None:
    """Write the image."""
    captioned = tiles()
    wide = 2 * TILE[0] + 4
    rows = -(-len(captioned) // ACROSS)
    page = Image.new("RGB", (ACROSS * (wide + GAP) + GAP, rows * (TILE[1] + CAPTION + GAP) + GAP), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for number, (name, images) in enumerate(captioned):
        left, top = GAP + number % ACROSS * (wide + GAP), GAP + number // ACROSS * (TILE[1] + CAPTION + GAP)
        for column, pixels in enumerate(images):
            page.paste(Image.fromarray(pixels), (left + column * (TILE[0] + 4), top))
        draw.text((left, top + TILE[1] + 3), name, INK if number else SOFT, font)
    path = Path(__file__).parents[2] / "docs" / "images" / "operations.jpg"
    path.parent.mkdir(exist_ok=True)
    page.save(path, quality=82, optimize=True)
    print(path, f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
