"""Prepares data/ with scikit-learn's handwritten digits, 8×8, real (Alpaydin and Kaynak 1998).

    python examples/digits/prepare.py data

It has 5 labeled images per class, a fixed test split of 500, and 97 unlabeled images. The other 1,150 are on a small
gallery site of 24 pages: about every third image has a tag, and about one tag in eight is wrong.
"""

from __future__ import annotations

import html
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

LABELED_PER_CLASS, TEST_ROWS, POOL_FILES, IMAGES_PER_PAGE = 5, 500, 97, 48
TAGGED_SHARE, WRONG_TAG_SHARE = 0.3, 0.125
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Digits, page {}</title><body><h1>Digits</h1>\n'


def main(data: Path) -> None:
    """Create the folder again, with the same bytes each time."""
    digits = load_digits()
    rng = np.random.default_rng(1998)
    order = rng.permutation(len(digits.target))
    test, rest = order[:TEST_ROWS], order[TEST_ROWS:]
    labeled = np.concatenate([rest[digits.target[rest] == digit][:LABELED_PER_CLASS] for digit in range(10)])
    pool = np.array([row for row in rest if row not in set(labeled.tolist())])
    shutil.rmtree(data, ignore_errors=True)
    for folder, rows in (("labeled", labeled), ("test", test)):
        for row in rows:
            write_image(data / folder / str(digits.target[row]) / f"{row:04d}.png", digits.images[row])
    for row in pool[:POOL_FILES]:
        write_image(data / "unlabeled" / f"{row:04d}.png", digits.images[row])
    write_site(data / "site", pool[POOL_FILES:], digits.images, digits.target, rng)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an 8×8 gray PNG, 0 to 240; uncompressed, so that its bytes do not depend on the version of zlib."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", (image * 15).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    path.write_bytes(encoded.tobytes())


def write_site(site: Path, rows: np.ndarray, images: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> None:
    """Write pages of figures, each with a `next` link, the images under images/, and robots.txt."""
    pages = [rows[start : start + IMAGES_PER_PAGE] for start in range(0, len(rows), IMAGES_PER_PAGE)]
    for number, on_page in enumerate(pages):
        figures = []
        for row in on_page:
            write_image(site / "images" / f"{row:04d}.png", images[row])
            figures.append(figure(int(row), int(target[row]), rng))
        following = f'<a rel="next" href="page-{number + 1}.html">next</a>' if number + 1 < len(pages) else ""
        page = HEAD.format(number + 1) + "\n".join(figures) + f"\n{following}\n</body></html>\n"
        (site / ("index.html" if number == 0 else f"page-{number}.html")).write_text(page, encoding="utf-8")
    (site / "robots.txt").write_text("User-agent: *\nDisallow: /private/\n", encoding="utf-8")


def figure(row: int, digit: int, rng: np.random.Generator) -> str:
    """An item of the gallery. Some have a tag, and some of the tags are wrong."""
    has_tag, is_wrong = rng.random() < TAGGED_SHARE, rng.random() < WRONG_TAG_SHARE
    offset = int(rng.integers(1, 10))
    word = WORDS[(digit + offset) % 10 if is_wrong else digit]
    caption = f'<figcaption><a class="tag">{html.escape(word)}</a></figcaption>' if has_tag else ""
    image = f'<img src="images/{row:04d}.png" alt="a digit">'
    return f'<figure class="digit">{image}{caption}<small>CC BY 4.0</small></figure>'


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    partial_folder = folder.with_name(f".{folder.name}.new")  # renamed at the end: a kill leaves no partial data folder
    main(partial_folder)
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.replace(folder)
