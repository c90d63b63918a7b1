"""Trains detectors by cross-validation: the frozen backbone runs once per view of an image, for all folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seedling.boxes.annotations import AnnotatedImage
from seedling.boxes.checks import CheckedAnnotations
from seedling.boxes.detector import CachedView, DetectorHead, detect, train_head
from seedling.boxes.feature_maps import STRIDES, Backbone, Pixels
from seedling.boxes.geometry import as_boxes
from seedling.boxes.metrics import Detections
from seedling.boxes.views import (
    ViewGeometry,
    random_view,
    recolored,
    render,
    view_size,
    visible_boxes,
    whole_view,
)
from seedling.errors import InputError
from seedling.media import images
from seedling.models.device import use_one_thread
from seedling.parallel.executor import in_threads
from seedling.progress import Progress, silent
from seedling.stats.randomness import derived_seed, generator

SIDE_PIXELS = 320
STEPS = 600
VIEWS_PER_IMAGE = 6
FOLDS = 5
MAX_MEGAPIXELS = 64.0
MAX_FEATURE_BYTES = 2 * 2**30  # of all views together; more images have fewer views
BYTES_PER_FEATURE = 2


@dataclass(frozen=True)
class DetectorSettings:
    """How detectors are trained. side: of the longer side of the views, in pixels; steps: of eight images each."""

    side: int = SIDE_PIXELS
    steps: int = STEPS
    views: int = VIEWS_PER_IMAGE
    seed: int = 0


@dataclass(frozen=True)
class EncodedImage:
    """The views of an image; the first one shows the whole image. geometry: of that one."""

    views: list[CachedView]
    geometry: ViewGeometry


@dataclass(frozen=True)
class EncodedImages:
    """The feature maps of a dataset. files: in the order of `images`; size: height and width of all views."""

    files: list[str]
    images: list[EncodedImage]
    categories: list[str]
    channels: tuple[int, ...]
    size: tuple[int, int]


def encode_images(
    checked: CheckedAnnotations,
    folder: Path,
    backbone: Backbone,
    settings: DetectorSettings,
    progress: Progress = silent,
) -> EncodedImages:
    """The feature maps of all views of the images whose objects are annotated, without those that cannot be decoded.

    Raises InputError if one view of each image needs more than MAX_FEATURE_BYTES.
    """
    annotated = {file: image for file, image in sorted(checked.annotations.images.items()) if image.complete == "yes"}
    frames = [checked.frames[file] for file in annotated]
    size = view_size(
        np.array([frame.width for frame in frames]), np.array([frame.height for frame in frames]), settings.side
    )
    categories = checked.annotations.categories
    settings = replace(settings, views=views_within(settings.views, len(annotated), backbone.channels, size))
    done = 0

    def encoded(item: tuple[str, AnnotatedImage]) -> EncodedImage | None:
        nonlocal done
        file, image = item
        use_one_thread(torch.device("cpu"))
        try:
            pixels = images.decode((folder / file).read_bytes(), MAX_MEGAPIXELS)
        except (OSError, ValueError) as error:
            checked.annotations.report("image_not_decodable", file, str(error))
            return None
        result = _encode(pixels, image, categories, backbone, size, settings)
        done += 1
        progress("encode", done, len(annotated))
        return result

    results = in_threads(encoded, list(annotated.items()))
    of_file = {file: result for file, result in zip(annotated, results, strict=True) if result is not None}
    return EncodedImages(list(of_file), list(of_file.values()), categories, backbone.channels, size)


def views_within(views: int, n_images: int, channels: Sequence[int], size: tuple[int, int]) -> int:
    """The number of views per image, at most `views`, whose feature maps fit in MAX_FEATURE_BYTES together."""
    cells = [size[0] // stride * (size[1] // stride) for stride in STRIDES]
    bytes_per_view = BYTES_PER_FEATURE * sum(
        count * of_stride for count, of_stride in zip(channels, cells, strict=True)
    )
    fitting = MAX_FEATURE_BYTES // max(1, bytes_per_view * n_images)
    if not fitting:
        raise InputError(
            f"The features of {n_images:,} images need {n_images * bytes_per_view / 2**30:.1f} GB, and at most "
            f"{MAX_FEATURE_BYTES / 2**30:.0f} GB are kept in memory: pass a folder of at most "
            f"{MAX_FEATURE_BYTES // bytes_per_view:,} annotated images."
        )
    return min(views, fitting)


def _encode(
    pixels: Pixels,
    image: AnnotatedImage,
    categories: Sequence[str],
    backbone: Backbone,
    size: tuple[int, int],
    settings: DetectorSettings,
) -> EncodedImage:
    rng = generator(settings.seed, "views", image.file)
    height, width = pixels.shape[:2]
    whole = whole_view(width, height, size)
    random = [random_view(width, height, size, rng) for _ in range(settings.views - 1)]
    rendered = [render(pixels, whole, size), *(recolored(render(pixels, each, size), rng) for each in random)]
    maps = backbone.maps(rendered)
    boxes = as_boxes([each.box for each in image.objects])
    classes = np.array([categories.index(each.category) for each in image.objects], dtype=np.intp)
    is_crowd = np.array([each.is_crowd or each.is_difficult for each in image.objects], dtype=bool)
    views = []
    for number, geometry in enumerate([whole, *random]):
        inside, positions = visible_boxes(geometry.to_view(boxes), size)
        of_view = [level[number].half() for level in maps]
        views.append(CachedView(of_view, inside, classes[positions], is_crowd[positions], size))
    return EncodedImage(views, whole)


def folds_of(encoded: EncodedImages, folds: int, seed: int) -> NDArray[np.intp]:
    """(n_images,): the fold of each image, such that each fold has about as many objects of each category.

    The images are dealt one by one, those with rare categories first, to the fold that has the fewest objects of the
    image's rarest category (Sechidis et al. 2011, iterative stratification).
    """
    counts = np.array(
        [np.bincount(image.views[0].classes, minlength=len(encoded.categories)) for image in encoded.images]
    )
    totals = counts.sum(axis=0)
    order = generator(seed, "detection folds").permutation(len(counts))
    rarity = [min((totals[each] for each in np.flatnonzero(counts[image])), default=np.inf) for image in order]
    result = np.zeros(len(counts), dtype=np.intp)
    dealt, sizes = np.zeros((folds, len(totals))), np.zeros(folds)
    for image in order[np.argsort(rarity, kind="stable")]:
        present = np.flatnonzero(counts[image])
        rarest = present[totals[present].argmin()] if len(present) else None
        load = sizes if rarest is None else dealt[:, rarest] + sizes / (1 + sizes.max())
        fold = int(load.argmin())
        result[image] = fold
        dealt[fold] += counts[image]
        sizes[fold] += 1
    return result


def fit(encoded: EncodedImages, positions: Sequence[int], settings: DetectorSettings, name: str = "") -> DetectorHead:
    """A head that is trained on the images at these positions. name: the seed depends on it."""
    return train_head(
        [encoded.images[position].views for position in positions],
        encoded.channels,
        len(encoded.categories),
        steps=settings.steps,
        seed=derived_seed(settings.seed, "detector", name) % 2**31,
    )


def predict(encoded: EncodedImages, positions: Sequence[int], head: DetectorHead) -> list[Detections]:
    """The boxes that a head finds in the whole images at these positions, in pixels of the images."""
    result = []
    for position in positions:
        image = encoded.images[position]
        maps = [level[None].float() for level in image.views[0].maps]
        (detections,) = detect(head, maps, encoded.size)
        result.append(Detections(image.geometry.to_image(detections.boxes), detections.classes, detections.scores))
    return result


def cross_validate(
    encoded: EncodedImages, settings: DetectorSettings, *, folds: int = FOLDS, progress: Progress = silent
) -> dict[str, Detections]:
    """File → the boxes that a detector finds which has not learned from this image."""
    fold_of_image = folds_of(encoded, folds, settings.seed)
    finished = 0

    def predictions_of(fold: int) -> list[tuple[int, Detections]]:
        nonlocal finished
        use_one_thread(torch.device("cpu"))
        held_out = np.flatnonzero(fold_of_image == fold).tolist()
        head = fit(encoded, np.flatnonzero(fold_of_image != fold).tolist(), settings, f"fold {fold}")
        predicted = list(zip(held_out, predict(encoded, held_out, head), strict=True))
        finished += 1
        progress("folds", finished, folds)
        return predicted

    predictions = [each for of_fold in in_threads(predictions_of, range(folds)) for each in of_fold]
    return {
        encoded.files[position]: detections for position, detections in sorted(predictions, key=lambda each: each[0])
    }
