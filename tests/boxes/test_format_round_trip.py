"""What is written in a format is read as the same images and objects, images without objects included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotated_folders import FORMATS, HEIGHT, WIDTH, write_annotations, write_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject
from seedling.boxes.masks import encode_mask
from seedling.boxes.reading import ReadingOptions, read_annotations

FILES = ("a.png", "b.png", "deep/c.png")
CATEGORIES = ("cat", "dog with spaces", "Straße")
OBJECT = st.builds(
    lambda category, left, top, across, down: AnnotatedObject(
        category, (left, top, across * (WIDTH - left), down * (HEIGHT - top))
    ),
    st.sampled_from(CATEGORIES),
    st.floats(0, WIDTH - 1).map(lambda value: round(value, 3)),
    st.floats(0, HEIGHT - 1).map(lambda value: round(value, 3)),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, one of them in a folder of its own."""
    return write_images(tmp_path_factory.mktemp("images"), FILES)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=st.lists(st.lists(OBJECT, max_size=5), min_size=3, max_size=3))
def test_each_format_comes_back_equal(
    kind: str, objects: list[list[AnnotatedObject]], images: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files, categories and boxes to a millionth of a pixel; an image without objects is complete and has none."""
    written = [
        AnnotatedImage(file, tuple(each), WIDTH, HEIGHT, "yes") for file, each in zip(FILES, objects, strict=True)
    ]
    folder = write_annotations(kind, written, CATEGORIES, tmp_path_factory.mktemp("annotations"))
    annotations = read_annotations(images, folder)
    assert annotations.problems == []
    assert sorted(annotations.images) == sorted(FILES)
    for image in written:
        other = annotations.images[image.file]
        assert other.complete == "yes"
        assert [each.category for each in other.objects] == [each.category for each in image.objects]
        for read, expected in zip(other.objects, image.objects, strict=True):
            assert read.box == pytest.approx(expected.box, abs=1e-6)
        if kind != "label_studio" or image.objects:  # a task without a region has no size
            assert (other.width, other.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", ["coco", "hugging_face"])
def test_masks_and_crowds_come_back(kind: str, images: Path, tmp_path: Path) -> None:
    """COCO and Hugging Face keep them; the other formats have boxes alone."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[2:6, 1:4] = True
    mask = encode_mask(pixels)
    written = AnnotatedImage(
        "a.png", (AnnotatedObject("cat", (1.0, 2.0, 3.0, 4.0), is_crowd=True, mask=mask),), WIDTH, HEIGHT, "yes"
    )
    annotations = read_annotations(images, write_annotations(kind, [written], CATEGORIES, tmp_path / "annotations"))
    assert annotations.images["a.png"].objects == written.objects
    assert annotations.problems == []


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_confidences_of_predictions_come_back(kind: str, images: Path, tmp_path: Path) -> None:
    """COCO's score, and YOLO's sixth number."""
    written = AnnotatedImage("a.png", (AnnotatedObject("cat", (1.0, 2.0, 3.0, 4.0), confidence=0.625),), complete="yes")
    annotations = read_annotations(images, write_annotations(kind, [written], CATEGORIES, tmp_path / "annotations"))
    (read,) = annotations.images["a.png"].objects
    assert read.confidence == 0.625


@pytest.mark.parametrize("without_annotation", ["unlabeled", "background"])
def test_an_image_that_no_annotation_names_is_what_the_option_says(
    without_annotation: str, images: Path, tmp_path: Path
) -> None:
    """Unlabeled images join the pool; background images are complete and have no object."""
    written = AnnotatedImage("a.png", (AnnotatedObject("cat", (1.0, 2.0, 3.0, 4.0)),), WIDTH, HEIGHT, "yes")
    folder = write_annotations("voc", [written], CATEGORIES, tmp_path / "annotations")
    options = ReadingOptions(without_annotation=without_annotation)  # type: ignore[arg-type]
    other = read_annotations(images, folder, options).images["b.png"]
    expected = {"unlabeled": ("unknown", "pool"), "background": ("yes", None)}[without_annotation]
    assert (other.complete, other.split) == expected
