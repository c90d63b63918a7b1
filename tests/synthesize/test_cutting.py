"""Cut and paste: objects are found, pasted elsewhere and removed; images without an object are rejected."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_rejected
from seedling.errors import InputError
from seedling.media import images
from seedling.synthesize import synthesize
from seedling.synthesize.cutting import NoObject, Placement, draw_placement, object_mask, paste, remove_object

IMAGES = WorkspaceConfig(modality="image")


def disc(
    color: tuple[int, int, int], ground: tuple[int, int, int], radius: int = 16, side: int = 80, seed: int = 0
) -> np.ndarray:
    """A disc in the middle of a slightly noisy background."""
    image = np.full((side, side, 3), ground, np.uint8)
    cv2.circle(image, (side // 2, side // 2), radius, color, -1)
    noise = np.random.default_rng(seed).integers(-4, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def intersection_over_union(first_mask: np.ndarray, second_mask: np.ndarray) -> float:
    """The intersection over union of two masks."""
    return float((first_mask & second_mask).sum() / (first_mask | second_mask).sum())


def true_disc(radius: int = 16, side: int = 80) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - side // 2
    return rows**2 + columns**2 <= radius**2


def test_grabcut_finds_the_disc_deterministically() -> None:
    """Within 90 % of the true outline; its random initialization is seeded."""
    image = disc((200, 40, 40), (90, 120, 160))
    found_mask = object_mask(image)
    assert intersection_over_union(found_mask, true_disc()) > 0.9
    assert (found_mask == object_mask(image)).all()


def test_a_given_mask_or_box_is_used() -> None:
    """A mask is used unchanged; a box selects one of two discs."""
    image = disc((200, 40, 40), (90, 120, 160))
    assert (object_mask(image, true_disc()) == true_disc()).all()
    cv2.circle(image, (12, 12), 9, (40, 200, 40), -1)
    found_mask = object_mask(image, (1, 1, 24, 24))
    assert found_mask[12, 12]
    assert not found_mask[40, 40]


@pytest.mark.parametrize(
    "image",
    [
        np.full((60, 60, 3), 120, np.uint8),
        disc((200, 40, 40), (90, 120, 160), radius=60),
        disc((200, 40, 40), (90, 120, 160), radius=2),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((3, 200, 3), np.uint8),
    ],
)
def test_images_without_an_object_raise_an_error(image: np.ndarray) -> None:
    """A blank image, an object that fills the image, an object of a few pixels, one pixel, and a strip."""
    with pytest.raises(NoObject):
        object_mask(image)


def test_a_thin_object_can_be_pasted_with_either_blend() -> None:
    """Three pixels wide and tilted: Poisson blending has no inner pixels for it, so the object is feathered instead."""
    image, mask = np.full((64, 64, 3), 120, np.uint8), np.zeros((64, 64), bool)
    image[7:57, 30:33], mask[7:57, 30:33] = 250, True
    for seed in range(40):
        assert paste(image, mask, image, draw_placement(np.random.default_rng(seed)), "poisson").shape == image.shape


@pytest.mark.parametrize("blend", ["feather", "poisson"])
def test_the_object_is_pasted_at_its_position_and_the_rest_is_background(blend: str) -> None:
    """Half as large, a quarter from the left: the center of the disc has its color (with Poisson, its edge), and the
    far side is unchanged.
    """
    image, ground = disc((200, 40, 40), (90, 120, 160)), disc((170, 90, 90), (170, 90, 90), seed=3)
    if blend == "poisson":
        image[:, 37:44] = (50, 40, 40)
    pasted = paste(image, true_disc(), ground, Placement(0.5, 0, 0.25, 0.5), blend)  # type: ignore[arg-type]
    assert (pasted[:, 45:] == ground[:, 45:]).all()
    if blend == "feather":
        assert pasted[40, 20].astype(int) == pytest.approx([200, 40, 40], abs=12)
        changed = (np.abs(pasted.astype(int) - ground).max(axis=2) > 12).sum()
        assert 0.5 * np.pi * 8**2 < changed < 1.6 * np.pi * 8**2
    else:  # its black stripe, half as wide, is as much darker than beside it as it was; the level is the background's
        assert pasted[40, 17].astype(int) - pasted[40, 20].astype(int) == pytest.approx([150, 0, 0], abs=70)
        assert pasted[36:45, 15].mean(axis=0) == pytest.approx(ground[36:45, 15].mean(axis=0), abs=60)


def test_the_area_behind_a_removed_object_is_filled_in() -> None:
    """On a uniform background nothing of the disc remains, and pixels outside the disc are unchanged."""
    image = disc((200, 40, 40), (90, 120, 160))
    filled = remove_object(image, true_disc())
    assert np.abs(filled[true_disc()].astype(int) - (90, 120, 160)).max() < 15
    far = np.mgrid[:80, :80][0] < 10
    assert np.abs(filled[far].astype(int) - image[far]).max() <= 1


def rows(folder: Path, classes: tuple[str, ...] = ("red", "green")) -> Path:
    """Four discs per class in two folds; plain backgrounds of `nothing`; one image of `red` without a disc."""
    colors = {"red": (200, 40, 40), "green": (40, 180, 60), "nothing": (90, 120, 160)}
    with GenerationWriter(folder, stage="validate", modality="image") as writer:
        for label in classes:
            for number in range(4):
                ground = (90, 120, 160) if label == "nothing" else (60 + 20 * number, 90, 150)
                empty = label == "nothing" or (label == "red" and number == 3)
                image = disc(ground if empty else colors[label], ground, seed=len(label) + number)
                encoded = images.encode(image)
                row_id = identify(encoded)
                writer.keep(
                    Row(
                        row_id,
                        "train",
                        number % 2,
                        label,
                        label_source="human",
                        group=row_id,
                        origin=f"{label}/{number}",
                        payload=encoded,
                    )
                )
        writer.close(rows_in=4 * len(classes), classes=sorted(classes))
    return folder


def test_pasted_objects_stay_in_their_fold_and_keep_their_label(tmp_path: Path) -> None:
    """Each row has two parents of one fold and class, because GrabCut may leave parts of an object, or one parent if
    its fold has no other row of the class.

    The image without a disc is counted, and no row is lost.
    """
    here = rows(tmp_path / "v")
    params = SynthesizeParams(mixup=0, cut_and_paste=2)
    synthesize(params, IMAGES, collected=here, validated=here, output=tmp_path / "out")
    pasted_rows, parents = read(tmp_path / "out"), read(here).set_index("id")
    assert Counter(pasted_rows["label"]) == {"red": 6, "green": 8}
    assert Counter(read_rejected(tmp_path / "out")["reason"]) == {"no_object_found": 2}
    row: Any
    for row in pasted_rows.itertuples():
        first, second = parents.loc[row.parent_ids[0]], parents.loc[row.parent_ids[-1]]
        assert (row.label, row.fold) == (first.label, first.fold) == (second.label, second.fold)
        assert len(row.parent_ids) == (1 if first.origin == "red/1" else 2)
        assert json.loads(row.recipe)["operation"] == "cut_and_paste"


def test_backgrounds_become_rows_of_the_class_nothing(tmp_path: Path) -> None:
    """For half of the rows, without their disc; without a class `nothing` the error names the fix."""
    here = rows(tmp_path / "v", ("red", "green", "nothing"))
    synthesize(SynthesizeParams(mixup=0, negatives=1), IMAGES, collected=here, validated=here, output=tmp_path / "out")
    backgrounds = read(tmp_path / "out")
    assert set(backgrounds["label"]) == {"nothing"}
    assert len(backgrounds) == 7
    for _, payload in payloads([tmp_path / "out"], backgrounds["id"]):
        assert np.ptp(images.decode(payload)[30:50, 30:50].astype(int), axis=(0, 1)).max() < 30  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"which does not exist: put some images into data/labeled/nothing/"):
        plain = rows(tmp_path / "plain")
        synthesize(SynthesizeParams(negatives=0.5), IMAGES, collected=plain, validated=plain, output=tmp_path / "no")


FINDERS = """
def boxes(pixels, row):
    return None if row["origin"] == "red/0" else (20, 20, 60, 60)

def wrong(pixels, row):
    return "the middle"

def turned(pixels, row):
    return [[1, 0], [0, 1]]

def broken(pixels, row):
    raise RuntimeError("no weights")
"""


def test_a_plugins_object_finder_is_used(tmp_path: Path) -> None:
    """Boxes by origin. Images for which it returns None are counted; its errors name the image."""
    here = rows(tmp_path / "v")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/augmenting.py").write_text(FINDERS, encoding="utf-8")
    arguments: dict[str, Any] = {"collected": here, "validated": here, "data": tmp_path / "data"}
    synthesize(
        SynthesizeParams(mixup=0, cut_and_paste=1, cut_by="boxes", plugin="augmenting.py"),
        IMAGES,
        **arguments,
        output=tmp_path / "out",
    )
    assert "red/0" not in {
        read(here).set_index("id").loc[parent_ids[0], "origin"] for parent_ids in read(tmp_path / "out")["parent_ids"]
    }
    pasted_rows, by_id = read(tmp_path / "out"), read(here).set_index("id")
    behind = {
        (label, by_id.at[parent_ids[1], "label"])
        for label, parent_ids in zip(pasted_rows["label"], pasted_rows["parent_ids"], strict=True)
    }
    assert ("green", "red") in behind  # of what a box names nothing stays, so any other row's ground will do
    for name, message in (
        ("wrong", "the finder must return a mask"),
        ("turned", "the finder must return a mask"),
        ("broken", "RuntimeError: no weights"),
        ("gone", "unknown function 'gone'"),
    ):
        with pytest.raises(InputError, match=message):
            synthesize(
                SynthesizeParams(cut_and_paste=1, cut_by=name, plugin="augmenting.py"),
                IMAGES,
                **arguments,
                output=tmp_path / name,
            )
