"""Images that a small generator makes: of the class that was asked for, in the fold of what they were made from, and no copies."""

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


def image_arrays(color: tuple[int, int, int], many: int, rng: np.random.Generator, side: int = 8) -> list[np.ndarray]:
    """One color, a lighter or darker one each time, with a little noise."""
    light = rng.normal(0, 15, (many, 1, 1, 1))
    return [*np.clip(np.array(color) + light + rng.normal(0, 4, (many, side, side, 3)), 0, 255).astype(np.uint8)]


@pytest.mark.soak
def test_a_sample_is_of_the_class_that_was_asked_for_and_of_its_seed_alone() -> None:
    """Reds and blues are learnt from noise: every sample's mean color is nearer to its own class's; beside other seeds it is the same image."""
    rng = np.random.default_rng(0)
    shown = [one for color in COLORS.values() for one in image_arrays(color, 30, rng)]
    flow = ImageFlow(2, 8, FitContext(2, 0, 150))
    flow.fit(np.stack(shown), np.repeat([0, 1], 30), ignore_loss)
    means = np.array([*COLORS.values()])
    for label in (0, 1):
        made = list(flow.sample(label, range(20)))
        for one in made:
            away = np.abs(one.mean(axis=(0, 1)) - means).mean(axis=1)
            assert away[label] < min(40, away[1 - label])
        (alone,) = flow.sample(label, [7])
        assert (alone == made[7]).all()
        assert len({one.tobytes() for one in made}) == 20


def write(place: Path, seed_of_fold: dict[int, int], pool: int) -> dict[str, Any]:
    """Reds and blues in two folds, each fold's drawn by a seed of its own, and a gray pool."""
    with GenerationWriter(place, stage="validate", modality="image") as writer:
        for fold, seed in seed_of_fold.items():
            rng = np.random.default_rng(seed)
            for label, color in COLORS.items():
                for one in image_arrays(color, 4, rng, side=20):
                    row_id, payload = identify(images.content(one)), images.encode(one)
                    writer.keep(Row(row_id, "train", fold, label, label_source="human", group=row_id, payload=payload))
        for one in image_arrays((120, 120, 120), pool, np.random.default_rng(9)):
            row_id = identify(images.content(one))
            writer.keep(Row(row_id, "pool", group=row_id, payload=images.encode(one)))
        writer.close(rows_in=16 + pool, classes=sorted(COLORS))
    return {"collected": place, "validated": place}


@pytest.mark.soak
def test_generated_images_stay_in_the_fold_that_they_were_made_from(tmp_path: Path) -> None:
    """Two a row, the same bytes each time; their parents are of their class and fold; another fold's rows change nothing about them, the pool does."""
    params = SynthesizeParams(mixup=0, generate=2.0, generate_side=8, generate_steps=60)
    seeds = {
        "one": ({0: 1, 1: 2}, 210),
        "again": ({0: 1, 1: 2}, 210),
        "other": ({0: 1, 1: 3}, 210),
        "alone": ({0: 1, 1: 2}, 0),
    }
    made = {}
    for name, (folds, pool) in seeds.items():
        told = write(tmp_path / name, folds, pool)
        synthesize(params, IMAGES, **told, output=tmp_path / f"{name} made")
        out = tmp_path / f"{name} made"
        kept = pd.concat([read(out), read_rejected(out)], ignore_index=True)
        assert read_manifest(out).rows.rows_in == len(kept) == 32
        made[name] = {fold: set(kept.loc[kept["fold"] == fold, "id"]) for fold in (0, 1)}
    assert made["one"] == made["again"]
    assert made["one"][0] == made["other"][0]
    assert made["one"][1].isdisjoint(made["other"][1])
    assert made["one"][0].isdisjoint(made["alone"][0])
    parents, kept = read(tmp_path / "one").set_index("id"), read(tmp_path / "one made")
    row: Any
    for row in kept.itertuples():
        mine = parents.loc[list(row.parent_ids)]
        assert (len(mine), set(mine["label"]), set(mine["fold"])) == (2, {row.label}, {row.fold})
        assert (row.label_source, row.split, row.weight) == ("generated", "train", 0.5)
        recipe = json.loads(row.recipe)
        assert (recipe["steps"], recipe["pool"], recipe["learnt_from"]) == (60, 210, row.group)
    content: dict[str, Any] = dict(payloads([tmp_path / "one made"], kept["id"]))
    assert {images.decode(one).shape for one in content.values()} <= {(8, 8, 3)}


def test_a_image_that_is_there_already_is_none() -> None:
    """Of its family, of another class, of the test split, or of an earlier image; and whom it is most like."""
    rng = np.random.default_rng(3)
    own, near, other, test, new = (rng.integers(90, 170, (16, 16, 3)).astype(np.uint8) for _ in range(5))
    known = CopyFilter({"own": own, "near": near, "other": other}, {"test": test}, 9)
    family = ["near", "own"]
    assert known.reason(np.clip(own.astype(int) + 2, 0, 255).astype(np.uint8), family) == "copy_of_a_parent"
    assert known.reason(other, family) == "copy_of_another_row"
    assert known.reason(test, family) == "near_duplicate_of_test"
    assert known.reason(new, family) is None
    assert known.reason(new, family) == "copy_of_another_row"
    assert known.reason(255 * rng.integers(0, 2, (16, 16, 3)).astype(np.uint8), family) == "unlike_any_row"
    assert roughness(np.tile(np.array([[[0], [100]], [[100], [0]]], np.uint8), (4, 4, 3))) == 100
    between = (0.7 * own + 0.3 * other).astype(np.uint8)
    assert known.nearest(between, family) == ["own", "near"]


@pytest.mark.slow
def test_what_comes_out_as_it_went_in_is_rejected(tmp_path: Path) -> None:
    """All rows of a class are nearly one image: what its generator makes is that image, and is counted as a copy."""
    rng = np.random.default_rng(2)
    base = {label: rng.integers(0, 256, (8, 8, 3)) for label in COLORS}
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for label, one in base.items():
            for _ in range(6):
                image = np.clip(one + rng.integers(-1, 2, one.shape), 0, 255).astype(np.uint8)
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
    """The error names the key and the remedy."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        writer.close(rows_in=0, classes=["a"])
    told: dict[str, Any] = {"collected": tmp_path / "v", "validated": tmp_path / "v", "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"synthesize\.generate makes images, but this is a text workspace"):
        synthesize(SynthesizeParams(generate=1.0), WorkspaceConfig(modality="text"), **told)
