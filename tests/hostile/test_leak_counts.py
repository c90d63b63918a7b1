"""The data page counts each row once that would have brought a held-out row's content to another split, by kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from folder_trees import image, scraped
from PIL import Image

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import read, read_rejected
from seedling.report.data_page import leaks_by_kind
from seedling.validate import validate


def nearly(seed: int) -> bytes:
    """The image of that seed with one value of one pixel changed."""
    pixels = np.array(Image.open(io.BytesIO(image(seed))).convert("RGB"))
    pixels[0, 0, 0] ^= 1
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_exact_copies_of_held_out_rows_are_counted_as_leaks(tmp_path: Path) -> None:
    """Three exact copies and two near-duplicates of test rows, one exact copy of a validation row; a copy within a split is no leak."""
    data = tmp_path / "data"
    images = {
        **{f"train/{'ab'[seed % 2]}/{seed}.png": image(seed) for seed in range(12)},
        **{f"test/{'ab'[seed % 2]}/{seed}.png": image(seed) for seed in range(100, 106)},
        **{f"train/{'ab'[seed % 2]}/copy{seed}.png": image(seed) for seed in (100, 101)},
        "unlabeled/copy.png": image(102),
        "train/a/near.png": nearly(104),
        "unlabeled/near.png": nearly(105),
        "validation/a/1.png": image(200),
        "unlabeled/validation.png": image(200),
        "test/a/twin.png": image(100),
        "train/a/twin.png": image(0),
    }
    for name, content in images.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    scraped(data, tmp_path / "scrape", [{"kind": "folder"}])
    validate(
        ValidateParams(),
        WorkspaceConfig(modality="image", seed=0),
        collected=tmp_path / "scrape",
        output=tmp_path / "validate",
    )
    assert leaks_by_kind(read(tmp_path / "validate"), read_rejected(tmp_path / "validate")) == {
        "exact copies of test rows": 3,
        "exact copies of validation rows": 1,
        "near-duplicates of test rows": 2,
    }
