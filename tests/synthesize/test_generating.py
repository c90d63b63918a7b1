"""Images of a small generative model: they have the requested class and the fold of their training rows, and are not
copies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, read_rejected
from seedling.errors import InputError
from seedling.media import images
from seedling.models.image_flow import ImageFlow
from seedling.models.training import FitContext, ignore_loss
from seedling.synthesize import synthesize
from seedling.synthesize.generating import CopyFilter, roughness

COLORS = {"blue": (40, 60, 200), "red": (210, 70, 50)}
IMAGES = WorkspaceConfig(modality="image", effort="quick")


def image_arrays(color: tuple[int, int, int], count: int, rng: np.random.Generator, side: int = 8) -> list[np.ndarray]:
    """Images of one color, each lighter or darker, with a little noise."""
    light = rng.normal(0, 15, (count, 1, 1, 1))
    return [*np.clip(np.array(color) + light + rng.normal(0, 4, (count, side, side, 3)), 0, 255).astype(np.uint8)]


@pytest.mark.soak
def test_a_sample_depends_on_its_class_and_seed_alone() -> None:
    """Reds and blues are learned from noise.

    The mean color of every sample is nearer to that of its class; among other seeds a sample stays the same.
    """
    rng = np.random.default_rng(0)
    training_images = [pixels for color in COLORS.values() for pixels in image_arrays(color, 30, rng)]
    flow = ImageFlow(2, 8, FitContext(2, 0, 150))
    flow.fit(np.stack(training_images), np.repeat([0, 1], 30), ignore_loss)
    means = np.array([*COLORS.values()])
    for label in (0, 1):
        samples = list(flow.sample(label, range(20)))
        for pixels in samples:
            away = np.abs(pixels.mean(axis=(0, 1)) - means).mean(axis=1)
            assert away[label] < min(40, away[1 - label])
        (alone,) = flow.sample(label, [7])
        assert (alone == samples[7]).all()
        assert len({pixels.tobytes() for pixels in samples}) == 20


def write(folder: Path, seed_of_fold: dict[int, int], pool: int) -> dict[str, Any]:
    """Reds and blues in two folds, each fold drawn with a seed of its own, and a gray pool."""
    with GenerationWriter(folder, stage="validate", modality="image") as writer:
        for fold, seed in seed_of_fold.items():
            rng = np.random.default_rng(seed)
            for label, color in COLORS.items():
                for pixels in image_arrays(color, 4, rng, side=20):
                    row_id, payload = identify(images.content(pixels)), images.encode(pixels)
                    writer.keep(Row(row_id, "train", fold, label, label_source="human", group=row_id, payload=payload))
        for pixels in image_arrays((120, 120, 120), pool, np.random.default_rng(9)):
            row_id = identify(images.content(pixels))
            writer.keep(Row(row_id, "pool", group=row_id, payload=images.encode(pixels)))
        writer.close(rows_in=16 + pool, classes=sorted(COLORS))
    return {"collected": folder, "validated": folder}


@pytest.mark.soak
def test_generated_images_stay_in_the_fold_of_their_training_rows(tmp_path: Path) -> None:
    """Two per row, with the same bytes each time.

    Their parents have their class and fold; another fold's rows do not affect them, the pool does.
    """
    params = SynthesizeParams(mixup=0, generate=2.0, generate_side=8, generate_steps=60)
    seeds = {
        "one": ({0: 1, 1: 2}, 210),
        "again": ({0: 1, 1: 2}, 210),
        "other": ({0: 1, 1: 3}, 210),
        "alone": ({0: 1, 1: 2}, 0),
    }
    ids_by_fold = {}
    for name, (folds, pool) in seeds.items():
        folders = write(tmp_path / name, folds, pool)
        synthesize(params, IMAGES, **folders, output=tmp_path / f"{name} made")
        out = tmp_path / f"{name} made"
        kept = pd.concat([read(out), read_rejected(out)], ignore_index=True)
        assert read_manifest(out).rows.rows_in == len(kept) == 32
        ids_by_fold[name] = {fold: set(kept.loc[kept["fold"] == fold, "id"]) for fold in (0, 1)}
    assert ids_by_fold["one"] == ids_by_fold["again"]
    assert ids_by_fold["one"][0] == ids_by_fold["other"][0]
    assert ids_by_fold["one"][1].isdisjoint(ids_by_fold["other"][1])
    assert ids_by_fold["one"][0].isdisjoint(ids_by_fold["alone"][0])
    parents, kept = read(tmp_path / "one").set_index("id"), read(tmp_path / "one made")
    row: Any
    for row in kept.itertuples():
        row_parents = parents.loc[list(row.parent_ids)]
        assert (len(row_parents), set(row_parents["label"]), set(row_parents["fold"])) == (2, {row.label}, {row.fold})
        assert (row.label_source, row.split, row.weight) == ("generated", "train", 0.5)
        recipe = json.loads(row.recipe)
        assert (recipe["steps"], recipe["pool"], recipe["learnt_from"]) == (60, 210, row.group)
    content: dict[str, Any] = dict(payloads([tmp_path / "one made"], kept["id"]))
    assert {images.decode(payload).shape for payload in content.values()} <= {(8, 8, 3)}


def test_copies_of_existing_images_are_rejected() -> None:
    """Copies of a parent, a row of another class, a test row, or an earlier image; and the nearest rows are named."""
    rng = np.random.default_rng(3)
    original, near, other, test, new = (rng.integers(90, 170, (16, 16, 3)).astype(np.uint8) for _ in range(5))
    copy_filter = CopyFilter({"own": original, "near": near, "other": other}, {"test": test}, 9)
    family = ["near", "own"]
    assert copy_filter.reason(np.clip(original.astype(int) + 2, 0, 255).astype(np.uint8), family) == "copy_of_a_parent"
    assert copy_filter.reason(other, family) == "copy_of_another_row"
    assert copy_filter.reason(test, family) == "near_duplicate_of_test"
    assert copy_filter.reason(new, family) is None
    assert copy_filter.reason(new, family) == "copy_of_another_row"
    assert copy_filter.reason(255 * rng.integers(0, 2, (16, 16, 3)).astype(np.uint8), family) == "unlike_any_row"
    assert roughness(np.tile(np.array([[[0], [100]], [[100], [0]]], np.uint8), (4, 4, 3))) == 100
    between = (0.7 * original + 0.3 * other).astype(np.uint8)
    assert copy_filter.nearest(between, family) == ["own", "near"]


@pytest.mark.soak
def test_samples_equal_to_the_training_images_are_rejected(tmp_path: Path) -> None:
    """All rows of a class are nearly one image: the generator's samples are that image, and are counted as copies."""
    rng = np.random.default_rng(2)
    base = {label: rng.integers(0, 256, (8, 8, 3)) for label in COLORS}
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for label, pixels in base.items():
            for _ in range(6):
                image = np.clip(pixels + rng.integers(-1, 2, pixels.shape), 0, 255).astype(np.uint8)
                row_id = identify(images.content(image))
                payload = images.encode(image)
                writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=payload))
        writer.close(rows_in=12, classes=sorted(COLORS))
    params = SynthesizeParams(mixup=0, generate=1.0, generate_side=8, generate_steps=500)
    synthesize(params, IMAGES, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.rows.rows_in == 12
    assert manifest.reasons.get("copy_of_a_parent", 0) > 6  # most of twelve


def test_texts_are_not_generated(tmp_path: Path) -> None:
    """The error names the key and the fix."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        writer.close(rows_in=0, classes=["a"])
    folders: dict[str, Any] = {"collected": tmp_path / "v", "validated": tmp_path / "v", "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"synthesize\.generate makes images, but this is a text workspace"):
        synthesize(SynthesizeParams(generate=1.0), WorkspaceConfig(modality="text"), **folders)
