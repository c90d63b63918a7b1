"""Cut and paste: objects that are found, put elsewhere, and taken away; and what becomes of images without one."""

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
    """A disc in the middle of a slightly noisy ground."""
    image = np.full((side, side, 3), ground, np.uint8)
    cv2.circle(image, (side // 2, side // 2), radius, color, -1)
    noise = np.random.default_rng(seed).integers(-4, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def true_disc(radius: int = 16, side: int = 80) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - side // 2
    return rows**2 + columns**2 <= radius**2


def test_grabcut_finds_the_disc_and_the_same_one_each_time() -> None:
    """Within 90 % of the true outline; its random beginnings are tied down."""
    image = disc((200, 40, 40), (90, 120, 160))
    found = object_mask(image)
    assert overlap(found, true_disc()) > 0.9
    assert (found == object_mask(image)).all()


def test_a_given_mask_or_box_is_used() -> None:
    """A mask as it is; of two discs the one in the box."""
    image = disc((200, 40, 40), (90, 120, 160))
    assert (object_mask(image, true_disc()) == true_disc()).all()
    cv2.circle(image, (12, 12), 9, (40, 200, 40), -1)
    found = object_mask(image, (1, 1, 24, 24))
    assert found[12, 12]
    assert not found[40, 40]


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
def test_images_without_an_object_say_so(image: np.ndarray) -> None:
    """Nothing there, one that fills the image, one of a few pixels, one pixel, a strip."""
    with pytest.raises(NoObject):
        object_mask(image)


def test_a_thin_object_can_be_put_down_either_way() -> None:
    """Three pixels wide and tilted: Poisson blending takes none of it, and it fades instead."""
    image, mask = np.full((64, 64, 3), 120, np.uint8), np.zeros((64, 64), bool)
    image[7:57, 30:33], mask[7:57, 30:33] = 250, True
    for seed in range(40):
        assert paste(image, mask, image, draw_placement(np.random.default_rng(seed)), "poisson").shape == image.shape


@pytest.mark.parametrize("blend", ["feather", "poisson"])
def test_the_object_is_where_it_was_put_and_the_rest_is_background(blend: str) -> None:
    """Half as large, a quarter from the left: the middle of the disc is there in its color (with Poisson: its edge), and the far side is untouched."""
    image, ground = disc((200, 40, 40), (90, 120, 160)), disc((170, 90, 90), (170, 90, 90), seed=3)
    if blend == "poisson":
        image[:, 37:44] = (50, 40, 40)
    made = paste(image, true_disc(), ground, Placement(0.5, 0, 0.25, 0.5), blend)  # type: ignore[arg-type]
    assert (made[:, 45:] == ground[:, 45:]).all()
    if blend == "feather":
        assert made[40, 20].astype(int) == pytest.approx([200, 40, 40], abs=12)
        changed = (np.abs(made.astype(int) - ground).max(axis=2) > 12).sum()
        assert 0.5 * np.pi * 8**2 < changed < 1.6 * np.pi * 8**2
    else:  # its black stripe, half as wide, is as much darker than beside it as it was; the level is the background's
        assert made[40, 17].astype(int) - made[40, 20].astype(int) == pytest.approx([150, 0, 0], abs=70)
        assert made[36:45, 15].mean(axis=0) == pytest.approx(ground[36:45, 15].mean(axis=0), abs=60)


def test_what_is_behind_an_object_is_filled_in() -> None:
    """Of an even ground nothing of the disc is left, and what was not under it stays."""
    image = disc((200, 40, 40), (90, 120, 160))
    made = remove_object(image, true_disc())
    assert np.abs(made[true_disc()].astype(int) - (90, 120, 160)).max() < 15
    far = np.mgrid[:80, :80][0] < 10
    assert np.abs(made[far].astype(int) - image[far]).max() <= 1


def rows(place: Path, classes: tuple[str, ...] = ("red", "green")) -> Path:
    """Four discs a class in two folds; of `nothing` plain grounds; of `red` one image without a disc."""
    colors = {"red": (200, 40, 40), "green": (40, 180, 60), "nothing": (90, 120, 160)}
    with GenerationWriter(place, stage="validate", modality="image") as writer:
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
    return place


def test_objects_stay_in_their_fold_and_keep_their_label(tmp_path: Path) -> None:
    """Each with two parents of one fold and class, as GrabCut may leave something of an object, or moved within its own image where its fold has no
    other one; the image without a disc is counted; nothing is lost.
    """
    here = rows(tmp_path / "v")
    params = SynthesizeParams(mixup=0, cut_and_paste=2)
    synthesize(params, IMAGES, collected=here, validated=here, output=tmp_path / "out")
    made, parents = read(tmp_path / "out"), read(here).set_index("id")
    assert Counter(made["label"]) == {"red": 6, "green": 8}
    assert Counter(read_rejected(tmp_path / "out")["reason"]) == {"no_object_found": 2}
    row: Any
    for row in made.itertuples():
        first, second = parents.loc[row.parent_ids[0]], parents.loc[row.parent_ids[-1]]
        assert (row.label, row.fold) == (first.label, first.fold) == (second.label, second.fold)
        assert len(row.parent_ids) == (1 if first.origin == "red/1" else 2)
        assert json.loads(row.recipe)["operation"] == "cut_and_paste"


def test_backgrounds_become_rows_of_nothing(tmp_path: Path) -> None:
    """A half of the rows, without their disc, in the class `nothing`; without such a class the remedy is said."""
    here = rows(tmp_path / "v", ("red", "green", "nothing"))
    synthesize(SynthesizeParams(mixup=0, negatives=1), IMAGES, collected=here, validated=here, output=tmp_path / "out")
    made = read(tmp_path / "out")
    assert set(made["label"]) == {"nothing"}
    assert len(made) == 7
    for _, payload in payloads([tmp_path / "out"], made["id"]):
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


def test_a_users_finder_is_asked(tmp_path: Path) -> None:
    """Boxes by origin; what it does not know is counted; what it does wrong is said with the image's name."""
    here = rows(tmp_path / "v")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/augmenting.py").write_text(FINDERS, encoding="utf-8")
    told: dict[str, Any] = {"collected": here, "validated": here, "data": tmp_path / "data"}
    synthesize(
        SynthesizeParams(mixup=0, cut_and_paste=1, cut_by="boxes", plugin="augmenting.py"),
        IMAGES,
        **told,
        output=tmp_path / "out",
    )
    assert "red/0" not in {
        read(here).set_index("id").loc[one[0], "origin"] for one in read(tmp_path / "out")["parent_ids"]
    }
    made, known = read(tmp_path / "out"), read(here).set_index("id")
    behind = {
        (label, known.at[parent_ids[1], "label"])
        for label, parent_ids in zip(made["label"], made["parent_ids"], strict=True)
    }
    assert ("green", "red") in behind  # of what a box names nothing stays, so any other row's ground will do
    for name, said in (
        ("wrong", "the finder must return a mask"),
        ("turned", "the finder must return a mask"),
        ("broken", "RuntimeError: no weights"),
        ("gone", "unknown function 'gone'"),
    ):
        with pytest.raises(InputError, match=said):
            synthesize(
                SynthesizeParams(cut_and_paste=1, cut_by=name, plugin="augmenting.py"),
                IMAGES,
                **told,
                output=tmp_path / name,
            )
