"""Translation of images to another source: which source they imitate, in which fold, and how strongly."""

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


def test_color_matching_by_strength_matches_a_hand_calculation() -> None:
    """Half 10 and half 20 becomes half 100 and half 240; at strength 0.5, 55 and 130; an image matched to itself is
    unchanged.
    """
    content = np.tile(np.array([10, 20], np.uint8)[None, :, None], (2, 1, 3))
    look = np.tile(np.array([240, 100, 100, 240], np.uint8)[None, :, None], (3, 1, 3))
    assert match_colors(content, look, 1.0)[0, :, 0].tolist() == [100, 240]
    assert match_colors(content, look, 0.5)[0, :, 0].tolist() == [55, 130]
    assert (match_colors(content, content, 1.0) == content).all()
    alone = np.full((1, 1, 3), 7, np.uint8)
    assert (match_colors(alone, look[:1, :1], 1.0) == 240).all()


def test_equally_frequent_levels_match_albumentations_histogram_matching() -> None:
    """Albumentations uses the last rank of a level, and this code its middle rank."""
    rng = np.random.default_rng(0)
    content = rng.integers(0, 160, (64, 64, 3)).astype(np.uint8)
    look = rng.integers(60, 256, (64, 64, 3)).astype(np.uint8)  # of one size: it would be resized else
    away = np.abs(match_colors(content, look, 1.0).astype(int) - apply_histogram(content, look, 1.0).astype(int))
    assert away.mean() < 2


def test_a_uniform_background_does_not_jump() -> None:
    """A page with 5 % ink matched to one with 12 %.

    The middle rank of its background, 0.475, is 0.035 of 0.5 between the other's background (0.44) and ink (0.94):
    level 18.
    """
    content, look = (
        np.where(np.arange(400) < ink_pixels, 255, 0).astype(np.uint8).reshape(20, 20, 1).repeat(3, 2)
        for ink_pixels in (20, 48)
    )
    assert np.unique(match_colors(content, look, 1.0)).tolist() == [18, 255]


def source_rows(folder: Path, sources: dict[str, tuple[int, str]]) -> Path:
    """Images of one brightness per source, as many as given, labeled in two folds or of the pool."""
    with GenerationWriter(folder, stage="validate", modality="image") as writer:
        for number, (source, (count, split)) in enumerate(sources.items()):
            for index in range(count):
                pixels = np.random.default_rng([number, index]).integers(80 * number, 80 * number + 60, (16, 16, 3))
                payload = images.encode(pixels.astype(np.uint8))
                name = identify(payload)
                labeled = split == "train"
                writer.keep(
                    Row(
                        name,
                        split,
                        index % 2 if labeled else None,
                        "ab"[index // 2 % 2] if labeled else None,
                        label_source="human" if labeled else None,
                        group=name,
                        origin=f"{source}/{index}.png",
                        payload=payload,
                    )
                )
        writer.close(rows_in=sum(count for count, _ in sources.values()), classes=["a", "b"])
    return folder


def synthesized(here: Path, output: Path, **params: object) -> Path:
    config = SynthesizeParams.model_validate({"mixup": 0, "translate": 2, **params})
    synthesize(config, IMAGES, collected=here, validated=here, output=output)
    return output


def test_labeled_rows_are_translated_to_the_pool_and_keep_everything_else(tmp_path: Path) -> None:
    """Studio images are dark and the pool is bright.

    Translated rows are brighter, in their parent's fold, class and group, with the same bytes each time.
    """
    here = source_rows(tmp_path / "v", {"studio": (8, "train"), "street": (3, "pool"), "shop": (2, "test")})
    first = synthesized(here, tmp_path / "out")
    translated, by_id = (
        read(first, ["id", "fold", "label", "group", "parent_ids", "label_source", "image"]),
        read(here).set_index("id"),
    )
    assert len(translated) == 16
    for row in translated.to_dict("records"):
        content, look = (by_id.loc[parent] for parent in row["parent_ids"])
        assert (row["fold"], row["label"], row["group"]) == (content["fold"], content["label"], content["group"])
        assert look["split"] == "pool", "what judges gives no look"
        assert row["label_source"] == "translate"
        assert images.decode(row["image"]["bytes"]).mean() > 70, "between the studio's 30 and the street's 110"
    again = synthesized(here, tmp_path / "again")
    assert read(again, ["id"])["id"].tolist() == translated["id"].tolist()


def test_a_labeled_row_is_a_target_within_its_fold_alone(tmp_path: Path) -> None:
    """Both sources are labeled: parents share a fold and differ in source.

    With translate_into, only rows of the other source are translated.
    """
    here = source_rows(tmp_path / "v", {"studio": (8, "train"), "street": (8, "train")})
    by_id = read(here).set_index("id")
    for parents in read(synthesized(here, tmp_path / "out"), ["parent_ids"])["parent_ids"]:
        content, look = (by_id.loc[parent] for parent in parents)
        assert content["fold"] == look["fold"]
        assert content["origin"].split("/")[0] != look["origin"].split("/")[0]
    into = read(synthesized(here, tmp_path / "into", translate_into="street"), ["parent_ids"])
    assert Counter(by_id.loc[parent_ids[0], "origin"].split("/")[0] for parent_ids in into["parent_ids"]) == {
        "studio": 16
    }


def test_a_fold_without_rows_of_another_source_is_counted(tmp_path: Path) -> None:
    """The street's only labeled row is in the first fold and of class a: it is the target of one studio row of each
    class.
    """
    here = source_rows(tmp_path / "v", {"studio": (4, "train"), "street": (1, "train")})
    output = synthesized(here, tmp_path / "out", translate_into="street")
    assert Counter(read_rejected(output)["reason"]) == {"no_other_source": 6}
    assert len(read(output)) == 2


def test_a_pool_row_that_duplicates_a_labeled_one_is_a_target_within_that_fold(tmp_path: Path) -> None:
    """The street's two images are near-duplicates of a studio row in each fold; translated rows of a fold use the one
    of that fold.
    """
    here, near_folder = source_rows(tmp_path / "v", {"studio": (4, "train"), "street": (2, "pool")}), tmp_path / "near"
    all_rows = read(here, ["id", "split", "fold", "label", "label_source", "origin", "group", "image"])
    labeled = all_rows[all_rows["split"] == "train"].drop_duplicates("fold").sort_values("fold")["group"].tolist()
    with GenerationWriter(near_folder, stage="validate", modality="image") as writer:
        pool = iter(labeled)
        for row in all_rows.to_dict("records"):
            group = row["group"] if row["split"] == "train" else next(pool)
            fold = None if row["fold"] != row["fold"] or row["fold"] is None else int(row["fold"])
            more = {name: row[name] for name in ("label", "label_source", "origin")}
            writer.keep(Row(row["id"], row["split"], fold, **more, group=group, payload=row["image"]["bytes"]))
        writer.close(rows_in=len(all_rows), classes=["a", "b"])
    near, fold_of = read(near_folder).set_index("id"), dict(zip(labeled, (0, 1), strict=True))
    translated = read(synthesized(near_folder, tmp_path / "out"), ["fold", "parent_ids"])
    assert len(translated)
    assert all(fold_of[near.loc[row["parent_ids"][1], "group"]] == row["fold"] for row in translated.to_dict("records"))


def test_folders_that_are_classes_are_not_sources(tmp_path: Path) -> None:
    """With cats in cat/ and dogs in dog/, a cat is not translated to look like a dog's image."""
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
        synthesized(tmp_path / "v", tmp_path / "out")


def test_a_translated_row_equal_to_its_parent_is_rejected(tmp_path: Path) -> None:
    """Images of one flat gray matched to the same gray are unchanged, and not kept."""
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
    assert Counter(read_rejected(synthesized(tmp_path / "v", tmp_path / "out"))["reason"]) == {"copy_of_a_parent": 4}


def test_missing_sources_are_explained(tmp_path: Path) -> None:
    """A name that no row has, and rows that all come from one source."""
    two_sources = source_rows(tmp_path / "two", {"studio": (4, "train"), "street": (4, "pool")})
    with pytest.raises(InputError, match=r"unknown source 'stret'\. The sources are street, studio"):
        synthesized(two_sources, tmp_path / "a", translate_into="stret")
    with pytest.raises(InputError, match="no labeled row has another source"):
        synthesized(two_sources, tmp_path / "c", translate_into="studio")
    one_source = source_rows(tmp_path / "one", {"studio": (4, "train")})
    with pytest.raises(InputError, match=r"come from one source \(studio\)"):
        synthesized(one_source, tmp_path / "b")
