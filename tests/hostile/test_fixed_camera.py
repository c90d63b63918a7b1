"""Images of a fixed camera, every frame nearly like the others, are neither lost as copies nor one undividable group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_rejected
from seedling.errors import SeedlingError
from seedling.media import images
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ValidateNotes
from seedling.validate import validate

CONFIG = WorkspaceConfig(modality="image")


def scene(seed: int) -> images.Pixels:
    """A smooth image of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (5, 5, 3)).astype(np.uint8)
    return images.resized(coarse, 64, 64)


def frame(background: images.Pixels, seed: int, *, defect: bool = False, noise: float = 5.0) -> images.Pixels:
    """The scene with a sensor's noise, and a scratch of a few pixels."""
    rng = np.random.default_rng(seed)
    pixels = background.astype(int) + rng.normal(0, noise, background.shape).astype(int)
    if defect:
        row, column = rng.integers(10, 50, 2)
        pixels[row : row + 2, column : column + 8] = 255
    return pixels.clip(0, 255).astype(np.uint8)


def validated(folder: Path, rows: Sequence[tuple[str, str | None, images.Pixels]], **params: object) -> ValidateNotes:
    """Runs validate on rows of (split, label, pixels); gives the manifest's notes."""
    with GenerationWriter(folder / "scrape", stage="scrape", modality="image") as writer:
        for number, (split, label, pixels) in enumerate(rows):
            writer.keep(
                Row(
                    identify(images.content(pixels)),
                    split,
                    label=label,
                    label_source="human" if label else None,
                    origin=str(number),
                    payload=images.encode(pixels),
                )
            )
        writer.close(rows_in=len(rows))
    settings = ValidateParams.model_validate(params)
    validate(settings, CONFIG, collected=folder / "scrape", output=folder / "validate")
    return read_notes(folder / "validate", ValidateNotes)


def camera_rows(
    split: str, count: int, seed: int = 0, background: int = 7
) -> list[tuple[str, str | None, images.Pixels]]:
    """As many sound parts as scratched ones."""
    base = scene(background)
    return [
        (split, label, frame(base, seed + number, defect=label == "defect"))
        for number in range(count)
        for label in ("sound", "defect")
    ]


@pytest.mark.slow
def test_training_rows_of_a_fixed_camera_are_not_lost_to_its_test_split(tmp_path: Path) -> None:
    """All 40 stay, each in a group of its own, and the manifest says how many images were kept apart."""
    notes = validated(tmp_path, camera_rows("train", 15) + camera_rows("test", 5, seed=1000))
    rows = read(tmp_path / "validate")
    assert Counter(rows["split"]) == {"train": 30, "test": 10}
    assert rows["group"].nunique() == 40
    assert notes.fixed_camera == 40


@pytest.mark.slow
def test_without_a_test_split_folds_are_dealt_and_one_is_carved(tmp_path: Path) -> None:
    """As with any other images."""
    notes = validated(tmp_path, camera_rows("train", 40), min_test_rows=5)
    rows = read(tmp_path / "validate")
    assert len(rows) == 80
    assert notes.carved_test_rows == 16
    assert set(rows[rows["split"] == "train"]["fold"]) == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_three_cameras_are_three_scenes(tmp_path: Path) -> None:
    """Each takes a third of the images, of both classes."""
    rows = [
        row
        for background in (7, 8, 9)
        for row in camera_rows("train", 10, seed=100 * background, background=background)
    ]
    assert validated(tmp_path, rows).fixed_camera == 60


def test_the_parameter_takes_them_for_near_duplicates_or_none_at_all(tmp_path: Path) -> None:
    """False rejects the training rows as before; true makes no group of two rows that are nearly the same."""
    rows = camera_rows("train", 15) + camera_rows("test", 5, seed=1000)
    with pytest.raises(Exception, match=r"rejected as near_duplicate_of_test"):
        validated(tmp_path / "false", rows, fixed_camera=False)
    pair = [("train", "sound", frame(scene(50), 1, noise=0.6)), ("train", "sound", frame(scene(50), 2, noise=0.6))]
    others = [("train", label, scene(60 + number)) for number, label in enumerate(("sound", "defect") * 3)]
    validated(tmp_path / "true", [*pair, *others], fixed_camera=True)
    assert read(tmp_path / "true" / "validate")["group"].nunique() == 8


@pytest.mark.slow
def test_copies_of_a_few_images_are_still_near_duplicates(tmp_path: Path) -> None:
    """Bursts of five, a mislabeled one among twelve, and a video that is a small part of its class: all of them stay groups."""
    rows = [("train", "sound", scene(100 + number)) for number in range(60)]
    rows += [("train", "defect", scene(200 + number)) for number in range(60)]
    rows += [("train", "sound", frame(scene(300), number, noise=0.6)) for number in range(5)]
    rows += [("train", "sound" if number else "defect", frame(scene(301), number, noise=0.6)) for number in range(12)]
    rows += [("test", "sound", frame(scene(302), 1, noise=0.6)), ("train", "sound", frame(scene(302), 2, noise=0.6))]
    notes = validated(tmp_path, rows)
    assert notes.fixed_camera == 0
    assert read_rejected(tmp_path / "validate")["reason"].tolist() == ["near_duplicate_of_test"]
    sizes = Counter(Counter(read(tmp_path / "validate")["group"]).values())
    assert sizes == {1: 121, 5: 1, 12: 1}


@pytest.mark.slow
def test_a_class_of_one_scene_can_still_be_learned(tmp_path: Path) -> None:
    """An empty belt that is always the same, beside parts that differ."""
    rows = [("train", "empty", frame(scene(7), number)) for number in range(20)]
    rows += [("train", "part", scene(100 + number)) for number in range(80)]
    assert validated(tmp_path, rows, min_test_rows=5).fixed_camera == 20
    kept = read(tmp_path / "validate")
    assert Counter(kept["label"]) == {"empty": 20, "part": 80}
    assert kept[(kept["label"] == "empty") & (kept["split"] == "train")]["fold"].nunique() == 5


def test_images_that_are_all_blank_end_with_a_sentence(tmp_path: Path) -> None:
    """Where no image is left, there is no scene to look for: the error counts the classes that remain."""
    white = [("train", "sound", np.full((32, 32, 3), 255 - number, np.uint8)) for number in range(4)]
    with pytest.raises(SeedlingError, match="At least two classes"):
        validated(tmp_path, white)
