"""synthesize.translate: images as from another source: whose look, in which fold, and how much of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from albumentations.augmentations.mixing.domain_adaptation_functional import apply_histogram

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_rejected
from seedling.errors import InputError
from seedling.media import images
from seedling.synthesize import synthesize
from seedling.synthesize.translating import match_colors

IMAGES = WorkspaceConfig(modality="image")


def test_values_go_as_far_as_is_said_by_hand() -> None:
    """A half of 10 and a half of 20 becomes a half of 100 and a half of 240; half of the way, 55 and 130; an image matched to itself stays."""
    content = np.tile(np.array([10, 20], np.uint8)[None, :, None], (2, 1, 3))
    look = np.tile(np.array([240, 100, 100, 240], np.uint8)[None, :, None], (3, 1, 3))
    assert match_colors(content, look, 1.0)[0, :, 0].tolist() == [100, 240]
    assert match_colors(content, look, 0.5)[0, :, 0].tolist() == [55, 130]
    assert (match_colors(content, content, 1.0) == content).all()
    alone = np.full((1, 1, 3), 7, np.uint8)
    assert (match_colors(alone, look[:1, :1], 1.0) == 240).all()


def test_where_all_levels_are_held_alike_it_is_albumentations_histogram_matching() -> None:
    """Which takes the end of a level's ranks, where ours takes their middle."""
    rng = np.random.default_rng(0)
    content = rng.integers(0, 160, (64, 64, 3)).astype(np.uint8)
    look = rng.integers(60, 256, (64, 64, 3)).astype(np.uint8)  # of one size: it would be resized else
    away = np.abs(match_colors(content, look, 1.0).astype(int) - apply_histogram(content, look, 1.0).astype(int))
    assert away.mean() < 2


def test_a_flat_ground_does_not_jump_by_hand() -> None:
    """A page of 5 % ink as one of 12 %: its ground's middle rank, .475, lies .035 of .5 between the other's ground, .44, and ink, .94: at level 18."""
    content, look = (
        np.where(np.arange(400) < many, 255, 0).astype(np.uint8).reshape(20, 20, 1).repeat(3, 2) for many in (20, 48)
    )
    assert np.unique(match_colors(content, look, 1.0)).tolist() == [18, 255]


def rows(place: Path, sources: dict[str, tuple[int, str]]) -> Path:
    """Images of one brightness a source: so many of each, labeled in two folds, or of the pool."""
    with GenerationWriter(place, stage="validate", modality="image") as writer:
        for number, (source, (many, split)) in enumerate(sources.items()):
            for one in range(many):
                pixels = np.random.default_rng([number, one]).integers(80 * number, 80 * number + 60, (16, 16, 3))
                payload = images.encode(pixels.astype(np.uint8))
                name = identify(payload)
                labeled = split == "train"
                writer.keep(
                    Row(
                        name,
                        split,
                        one % 2 if labeled else None,
                        "ab"[one // 2 % 2] if labeled else None,
                        label_source="human" if labeled else None,
                        group=name,
                        origin=f"{source}/{one}.png",
                        payload=payload,
                    )
                )
        writer.close(rows_in=sum(many for many, _ in sources.values()), classes=["a", "b"])
    return place


def made(here: Path, output: Path, **params: object) -> Path:
    wanted = SynthesizeParams.model_validate({"mixup": 0, "translate": 2, **params})
    synthesize(wanted, IMAGES, collected=here, validated=here, output=output)
    return output


def test_labeled_rows_take_the_look_of_the_pool_and_keep_all_else(tmp_path: Path) -> None:
    """Studio images are dark, the pool is bright: so are the children, in their parent's fold, class and group; the same bytes each time."""
    here = rows(tmp_path / "v", {"studio": (8, "train"), "street": (3, "pool"), "shop": (2, "test")})
    first = made(here, tmp_path / "out")
    found, known = (
        read(first, ["id", "fold", "label", "group", "parent_ids", "label_source", "image"]),
        read(here).set_index("id"),
    )
    assert len(found) == 16
    for one in found.to_dict("records"):
        content, look = (known.loc[parent] for parent in one["parent_ids"])
        assert (one["fold"], one["label"], one["group"]) == (content["fold"], content["label"], content["group"])
        assert look["split"] == "pool", "what judges gives no look"
        assert one["label_source"] == "translate"
        assert images.decode(one["image"]["bytes"]).mean() > 70, "between the studio's 30 and the street's 110"
    again = made(here, tmp_path / "again")
    assert read(again, ["id"])["id"].tolist() == found["id"].tolist()


def test_a_labeled_row_gives_its_look_within_its_fold_alone(tmp_path: Path) -> None:
    """Both sources are labeled: parents share a fold, and sources differ; into the one, rows of the other alone are translated."""
    here = rows(tmp_path / "v", {"studio": (8, "train"), "street": (8, "train")})
    known = read(here).set_index("id")
    for parents in read(made(here, tmp_path / "out"), ["parent_ids"])["parent_ids"]:
        content, look = (known.loc[parent] for parent in parents)
        assert content["fold"] == look["fold"]
        assert content["origin"].split("/")[0] != look["origin"].split("/")[0]
    into = read(made(here, tmp_path / "into", translate_into="street"), ["parent_ids"])
    assert Counter(known.loc[one[0], "origin"].split("/")[0] for one in into["parent_ids"]) == {"studio": 16}


def test_where_a_fold_has_no_row_of_another_source_it_is_counted(tmp_path: Path) -> None:
    """The street's one labeled row is of the first fold and of class a: it gives its look to the studio's one row of both."""
    here = rows(tmp_path / "v", {"studio": (4, "train"), "street": (1, "train")})
    output = made(here, tmp_path / "out", translate_into="street")
    assert Counter(read_rejected(output)["reason"]) == {"no_other_source": 6}
    assert len(read(output)) == 2


def test_a_pool_row_that_is_nearly_a_labeled_one_gives_its_look_within_that_ones_fold(tmp_path: Path) -> None:
    """The street's only two images are near-duplicates of a studio row of either fold: children of a fold take the one of that fold."""
    here, place = rows(tmp_path / "v", {"studio": (4, "train"), "street": (2, "pool")}), tmp_path / "near"
    known = read(here, ["id", "split", "fold", "label", "label_source", "origin", "group", "image"])
    labeled = known[known["split"] == "train"].drop_duplicates("fold").sort_values("fold")["group"].tolist()
    with GenerationWriter(place, stage="validate", modality="image") as writer:
        pool = iter(labeled)
        for row in known.to_dict("records"):
            group = row["group"] if row["split"] == "train" else next(pool)
            fold = None if row["fold"] != row["fold"] or row["fold"] is None else int(row["fold"])
            more = {name: row[name] for name in ("label", "label_source", "origin")}
            writer.keep(Row(row["id"], row["split"], fold, **more, group=group, payload=row["image"]["bytes"]))
        writer.close(rows_in=len(known), classes=["a", "b"])
    near, fold_of = read(place).set_index("id"), dict(zip(labeled, (0, 1), strict=True))
    found = read(made(place, tmp_path / "out"), ["fold", "parent_ids"])
    assert len(found)
    assert all(fold_of[near.loc[one["parent_ids"][1], "group"]] == one["fold"] for one in found.to_dict("records"))


def test_folders_that_are_classes_are_no_sources(tmp_path: Path) -> None:
    """Cats in cat/, dogs in dog/: a cat must not look as if it came from where the dogs are."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number in range(8):
            payload = images.encode(np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8))
            label = "cat" if number % 2 else "dog"
            name = identify(payload)
            writer.keep(
                Row(
                    name,
                    "train",
                    number // 2 % 2,
                    label,
                    label_source="human",
                    group=name,
                    origin=f"{label}/{number}",
                    payload=payload,
                )
            )
        writer.close(rows_in=8, classes=["cat", "dog"])
    with pytest.raises(InputError, match="with rows of its class or of the pool"):
        made(tmp_path / "v", tmp_path / "out")


def test_a_child_that_is_its_parent_is_none(tmp_path: Path) -> None:
    """Images of one flat gray as from a place of the same gray: nothing changes, and nothing is kept."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number in range(4):
            gray = np.full((8, 8 + number, 3), 90, np.uint8)
            name, split = identify(images.content(gray)), "train" if number < 2 else "pool"
            label, fold = ("ab"[number], 0) if split == "train" else (None, None)
            source = "human" if label else None
            writer.keep(
                Row(
                    name,
                    split,
                    fold,
                    label,
                    label_source=source,
                    group=name,
                    origin=f"{split}/{number}",
                    payload=images.encode(gray),
                )
            )
        writer.close(rows_in=4, classes=["a", "b"])
    assert Counter(read_rejected(made(tmp_path / "v", tmp_path / "out"))["reason"]) == {"copy_of_a_parent": 4}


def test_sources_that_are_not_there_are_explained(tmp_path: Path) -> None:
    """A name that no row has, and rows that all come from one source."""
    two = rows(tmp_path / "two", {"studio": (4, "train"), "street": (4, "pool")})
    with pytest.raises(InputError, match=r"unknown source 'stret'\. The sources are street, studio"):
        made(two, tmp_path / "a", translate_into="stret")
    with pytest.raises(InputError, match="no labeled row has another source"):
        made(two, tmp_path / "c", translate_into="studio")
    one = rows(tmp_path / "one", {"studio": (4, "train")})
    with pytest.raises(InputError, match=r"come from one source \(studio\)"):
        made(one, tmp_path / "b")
