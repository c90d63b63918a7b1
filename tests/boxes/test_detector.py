"""The detector: assignment and losses by hand, and what a trained one finds."""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_folders import write_annotations
from PIL import Image

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject
from seedling.boxes.checks import CheckedAnnotations, check
from seedling.boxes.cross_validation import cross_validated_issues
from seedling.boxes.detector import (
    CachedView,
    Cells,
    DetectorHead,
    assign,
    detect,
    generalized_iou,
    pairwise_iou,
    target_of,
)
from seedling.boxes.feature_maps import Backbone
from seedling.boxes.geometry import as_boxes, intersection_over_union
from seedling.boxes.learning import DetectorSettings, cross_validate, encode_images, folds_of, views_within
from seedling.boxes.reading import frame_of, read_annotations
from seedling.errors import InputError

SIDE = 64
COLORS = {"bright": 235, "dark": 20}
SHORT = DetectorSettings(side=SIDE, steps=160, views=2)


def write_squares(folder: Path, count: int) -> tuple[Path, Path]:
    """Images of gray noise with one or two bright or dark squares of 12 to 24 pixels, and their XML files."""
    generator = np.random.default_rng(0)
    images = []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(100, 150, (SIDE, SIDE, 3), dtype=np.uint8)
        objects = []
        for half in range(int(generator.integers(1, 3))):
            name, side = str(generator.choice(list(COLORS))), int(generator.integers(12, 25))
            x, y = 32 * half + int(generator.integers(0, 33 - side)), int(generator.integers(0, SIDE - side))
            pixels[y : y + side, x : x + side] = COLORS[name]
            objects.append(AnnotatedObject(name, (x, y, side, side)))
        Image.fromarray(pixels).save(folder / f"images/{number:02}.png")
        images.append(AnnotatedImage(f"{number:02}.png", tuple(objects), SIDE, SIDE, "yes"))
    return folder / "images", write_annotations("voc", images, list(COLORS), folder / "annotations")


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CheckedAnnotations]:
    """Twenty images with squares."""
    images, annotations = write_squares(tmp_path_factory.mktemp("squares"), 20)
    return images, check(read_annotations(images, annotations), partial(frame_of, images))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of a layer per stride, with random weights: deeper ones of random weights see no squares."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("shallow")
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


def test_generalized_iou_by_hand() -> None:
    """Two squares of side 2 at a distance of 2: no overlap, and a third of the hull is empty."""
    first, second = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[4.0, 0, 6, 2]])
    iou, giou = generalized_iou(first, second)
    assert iou.item() == 0
    assert giou.item() == pytest.approx(-1 / 3)
    same_iou, same_giou = generalized_iou(first, first)
    assert (same_iou.item(), same_giou.item()) == (1, 1)


def test_the_overlaps_are_those_of_the_metrics() -> None:
    """In torch as in numpy."""
    generator = np.random.default_rng(0)
    boxes = as_boxes(generator.uniform(1, 50, (12, 4)))
    corners = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))
    np.testing.assert_allclose(pairwise_iou(corners, corners), intersection_over_union(boxes, boxes), atol=1e-9)


def test_cells_learn_the_object_that_they_are_in() -> None:
    """Each object has a cell, also one of three pixels; every cell that learns a larger one is inside it."""
    cells = Cells.of(64, 64)
    corners = torch.tensor([[4.0, 4, 44, 44], [50.0, 50, 53, 53]])
    objects = assign(cells, corners)
    assert set(objects.tolist()) == {-1, 0, 1}
    centers = cells.centers[objects == 0]
    assert ((centers > 4) & (centers < 44)).all()
    assert (objects == 1).sum() == 1
    assert assign(cells, torch.zeros(0, 4)).unique().tolist() == [-1]


def test_cells_inside_a_crowd_learn_nothing() -> None:
    """The crowd is no object, and no background either."""
    boxes = as_boxes([(0, 0, 64, 32), (8, 40, 20, 20)])
    view = CachedView([], boxes, np.array([0, 1]), np.array([True, False]), (64, 64))
    cells = Cells.of(64, 64)
    target = target_of(view, cells)
    assert target.classes.tolist() == [1]
    in_crowd = (cells.centers[:, 1] < 32) & (target.objects < 0)
    assert target.is_ignored[in_crowd].all()
    assert not target.is_ignored[~in_crowd].any()


def test_an_untrained_head_predicts_no_object_with_confidence() -> None:
    """Scores begin near 0.01, so that the first steps are not lost on the background."""
    head = DetectorHead((8, 16, 32), 3)
    maps = [torch.randn(1, count, 64 // stride, 64 // stride) for count, stride in ((8, 8), (16, 16), (32, 32))]
    logits, distances = head(maps)
    assert logits.shape == (1, 84, 3)
    assert 0.003 < logits.sigmoid().mean() < 0.03
    assert (distances > 0).all()
    assert len(detect(head, maps, (64, 64))[0].scores) <= 100


def test_a_model_without_feature_maps_is_refused(of_texts: Path, tmp_path: Path) -> None:
    """A vision transformer (the message names models that have them), a text encoder, and no folder at all."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ViTModel(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    for folder, message in (
        (tmp_path, "MobileNet, ResNet or ConvNeXt"),
        (of_texts, "is a model of texts"),
        (tmp_path / "gone", "does not exist. Set --backbone to"),
    ):
        with pytest.raises(InputError, match=message):
            Backbone.load(str(folder))


def test_folds_have_about_as_many_objects_of_each_category(
    squares: tuple[Path, CheckedAnnotations], shallow: Path
) -> None:
    """Of twenty images in five folds."""
    images, checked = squares
    encoded = encode_images(checked, images, Backbone.load(str(shallow)), DetectorSettings(side=SIDE, views=1))
    folds = folds_of(encoded, 5, 0)
    counts = np.zeros((5, 2))
    for fold, image in zip(folds, encoded.images, strict=True):
        counts[fold] += np.bincount(image.views[0].classes, minlength=2)
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 3
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 3


@pytest.mark.slow
def test_a_detector_is_the_same_each_time(squares: tuple[Path, CheckedAnnotations], shallow: Path) -> None:
    """The detections of two folds that are trained in threads, to the bit."""
    images, checked = squares
    settings = DetectorSettings(side=SIDE, steps=20, views=2)
    encoded = encode_images(checked, images, Backbone.load(str(shallow)), settings)
    first, again = (cross_validate(encoded, settings, folds=2) for _ in range(2))
    assert any(len(detections.scores) for detections in first.values())
    for file, detections in first.items():
        np.testing.assert_array_equal(detections.boxes, again[file].boxes)
        np.testing.assert_array_equal(detections.scores, again[file].scores)


@pytest.mark.slow
def test_an_overlooked_square_is_the_first_issue(
    tmp_path: Path, shallow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of twenty images with up to two squares, on a backbone of random weights; AP50 is printed."""
    images, annotations = write_squares(tmp_path, 20)
    read = read_annotations(images, annotations)
    file = next(name for name, image in read.images.items() if len(image.objects) == 2)
    removed, *kept = read.images[file].objects
    read.images[file] = AnnotatedImage(file, tuple(kept), SIDE, SIDE, "yes")
    checked = check(read, partial(frame_of, images))
    issues = cross_validated_issues(checked, images, str(shallow), SHORT)
    overlooked = [issue for issue in issues if issue.kind == "overlooked"]
    assert overlooked[0].file == file
    assert overlooked[0].suggested is not None
    overlap = intersection_over_union(as_boxes([overlooked[0].suggested.box]), as_boxes([removed.box]))
    assert overlap[0, 0] > 0.3
    output = capsys.readouterr().out
    ap50 = re.search(r"On 20 images: AP 0\.\d+ \[.*?\], AP50 (0\.\d+) \[", output)
    assert ap50 is not None
    assert float(ap50[1]) > 0.5
    assert re.search(r"overlooked \(\d+ possible label errors?\), the most likely:", output)


def test_cross_validation_needs_five_images_with_objects(tmp_path: Path, shallow: Path) -> None:
    """The message has both numbers."""
    images, annotations = write_squares(tmp_path, 4)
    checked = check(read_annotations(images, annotations), partial(frame_of, images))
    with pytest.raises(InputError, match="needs 5 images with objects, and there are 4"):
        cross_validated_issues(checked, images, str(shallow))


def test_an_image_that_cannot_be_decoded_takes_no_part(tmp_path: Path, shallow: Path) -> None:
    """Its header is intact, and its pixels are cut off."""
    images, annotations = write_squares(tmp_path, 6)
    with io.BytesIO() as file:
        Image.open(images / "02.png").save(file, format="JPEG")
        (images / "02.png").write_bytes(file.getvalue()[:700])
    checked = check(read_annotations(images, annotations), partial(frame_of, images))
    encoded = encode_images(checked, images, Backbone.load(str(shallow)), DetectorSettings(side=SIDE, views=1))
    assert "02.png" not in encoded.files
    assert len(encoded.files) == len(encoded.images) == 5
    assert checked.annotations.problem_counts() == {"image_not_decodable": 1}


def test_more_images_have_fewer_views() -> None:
    """By hand: 4 channels on 64 + 16 + 4 cells of two bytes are 672 bytes per view."""
    assert views_within(6, 100, (4, 4, 4), (64, 64)) == 6
    assert views_within(6, 1_000_000, (4, 4, 4), (64, 64)) == 3
    with pytest.raises(InputError, match="at most 3,195,660 annotated images"):
        views_within(6, 4_000_000, (4, 4, 4), (64, 64))
