"""Checks of annotated images: boxes out of the frame, without area, drawn twice, or unlike those of their class.

Outliers. Let v be the logarithm of a box's area share, or of its aspect ratio. Within a class with median m and median
absolute deviation d, the robust score of a box is |v − m| / (1.4826 d) (Iglewicz and Hoaglin 1993).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet, FrameOf, ImageFrame
from seedling.boxes.geometry import Boxes, as_boxes, clip, intersection_over_union, oriented, outside_by, to_corners

MAX_PIXELS_TO_CLIP = 1.0  # a box that exceeds the frame by at most this many pixels is clipped, otherwise rejected
MIN_SIDE_PIXELS = 1.0
ROUNDING_PIXELS = 1e-3
EDGE_PIXELS = 2.0  # a box this near to the edge may be of an object that the frame cuts
DUPLICATE_OVERLAP = 0.9  # intersection over union from which two boxes of a class are the same object
MAX_PAIRS_IN_MEMORY = 4_000_000
MAX_ROBUST_SCORE = 5.0
MIN_BOXES_FOR_OUTLIERS = 20
NORMAL_CONSISTENCY = 1.4826  # the standard deviation of a normal distribution in median absolute deviations

RejectReason = Literal["no_area", "too_small", "out_of_frame", "duplicate_box"]
Flag = Literal["size_outlier", "aspect_outlier"]


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """An object that cannot be used."""

    file: str
    annotated: AnnotatedObject
    reason: RejectReason


@dataclass(frozen=True, slots=True)
class FlaggedObject:
    """An object whose box is unlike those of its class. score: robust standard deviations from the median."""

    file: str
    annotated: AnnotatedObject
    flag: Flag
    score: float


@dataclass
class CheckedAnnotations:
    """The usable images and objects, and what was rejected or is worth a look."""

    annotations: AnnotationSet
    frames: dict[str, ImageFrame] = field(default_factory=dict)
    rejected: list[RejectedObject] = field(default_factory=list)
    flagged: list[FlaggedObject] = field(default_factory=list)
    clipped: int = 0


def check(annotations: AnnotationSet, frame_of: FrameOf) -> CheckedAnnotations:
    """Check each image.

    frame_of: the frame of an image file; None if it cannot be read, and the image is then left out.
    """
    checked = CheckedAnnotations(replace(annotations, images={}, problems=list(annotations.problems)))
    for file, image in annotations.images.items():
        frame = frame_of(file)
        if frame is None:
            checked.annotations.report("image_not_readable", image.annotation or file, file)
            continue
        checked.frames[file] = frame
        checked.annotations.images[file] = _check_image(checked, image, frame)
    checked.flagged = list(outliers(checked.annotations.images, checked.frames))
    return checked


def _check_image(checked: CheckedAnnotations, image: AnnotatedImage, frame: ImageFrame) -> AnnotatedImage:
    boxes = as_boxes([each.box for each in image.objects])
    boxes = _in_displayed_image(checked, image, boxes, frame)
    reasons, clipped = reject_reasons(boxes, [each.category for each in image.objects], frame.width, frame.height)
    kept = []
    for annotated, box, reason, original in zip(image.objects, clipped.tolist(), reasons, boxes.tolist(), strict=True):
        if reason is not None:
            checked.rejected.append(RejectedObject(image.file, annotated, reason))
            continue
        checked.clipped += bool(np.abs(np.subtract(box, original)).max() > ROUNDING_PIXELS)
        kept.append(replace(annotated, box=tuple(box)))
    return replace(image, objects=tuple(kept), width=frame.width, height=frame.height)


def _in_displayed_image(checked: CheckedAnnotations, image: AnnotatedImage, boxes: Boxes, frame: ImageFrame) -> Boxes:
    """The boxes in the image as it is displayed; those that were drawn on the stored pixels are turned."""
    stated, displayed = (image.width, image.height), (frame.width, frame.height)
    if None in stated or stated == displayed:
        return boxes
    if stated == frame.stored_size:
        checked.annotations.report(
            "boxes_turned", image.annotation, f"{image.file}, EXIF orientation {frame.orientation}"
        )
        return oriented(boxes, *frame.stored_size, frame.orientation)
    detail = f"{image.file} has {frame.width} × {frame.height} pixels, and the annotation {stated[0]} × {stated[1]}"
    checked.annotations.report("wrong_size", image.annotation, detail)
    return boxes


def reject_reasons(
    boxes: Boxes, categories: list[str], width: float, height: float
) -> tuple[list[RejectReason | None], Boxes]:
    """The reason to reject each box of an image, or None, and the boxes clipped to the frame.

    The second of two boxes of one category that overlap by DUPLICATE_OVERLAP or more is a duplicate.
    """
    reasons: list[RejectReason | None] = [None] * len(boxes)
    outside, clipped = outside_by(boxes, width, height), clip(boxes, width, height)
    for position, box in enumerate(boxes):
        if min(box[2], box[3]) <= 0:
            reasons[position] = "no_area"
        elif outside[position] > MAX_PIXELS_TO_CLIP:
            reasons[position] = "out_of_frame"
        elif min(clipped[position, 2:]) < MIN_SIDE_PIXELS:
            reasons[position] = "too_small"
    for first, second in _duplicates(clipped, np.array(categories)):
        if reasons[first] is None and reasons[second] is None:
            reasons[second] = "duplicate_box"
    return reasons, clipped


def _duplicates(boxes: Boxes, categories: NDArray[np.str_]) -> Iterator[tuple[int, int]]:
    """Pairs of boxes of one category that overlap by DUPLICATE_OVERLAP or more, each with the earlier box first."""
    rows = max(1, MAX_PAIRS_IN_MEMORY // max(1, len(boxes)))
    for start in range(0, len(boxes), rows):
        overlaps = intersection_over_union(boxes[start : start + rows], boxes)
        is_same = categories[start : start + rows, None] == categories[None]
        for first, second in np.argwhere((overlaps >= DUPLICATE_OVERLAP) & is_same):
            if start + first < second:
                yield int(start + first), int(second)


def outliers(images: Mapping[str, AnnotatedImage], frames: Mapping[str, ImageFrame]) -> Iterable[FlaggedObject]:
    """Objects whose area or aspect ratio is unlike those of their class, the most unusual first.

    Objects at the edge of the image are left out: what is cut by the frame has any shape.
    """
    by_category: dict[str, list[tuple[str, AnnotatedObject]]] = {}
    for file, image in images.items():
        for annotated in image.objects:
            by_category.setdefault(annotated.category, []).append((file, annotated))
    flagged: list[FlaggedObject] = []
    for entries in by_category.values():
        if len(entries) < MIN_BOXES_FOR_OUTLIERS:
            continue
        boxes = as_boxes([annotated.box for _, annotated in entries])
        sides = np.array([(frames[file].width, frames[file].height) for file, _ in entries], dtype=np.float64)
        pixels, corners = sides.prod(axis=1), to_corners(boxes)
        is_cut = ((corners[:, :2] < EDGE_PIXELS) | (corners[:, 2:] > sides - EDGE_PIXELS)).any(axis=1)
        values: dict[Flag, NDArray[np.float64]] = {
            "size_outlier": np.log(boxes[:, 2] * boxes[:, 3] / pixels),
            "aspect_outlier": np.log(boxes[:, 2] / boxes[:, 3]),
        }
        for flag, logarithms in values.items():
            scores = robust_scores(logarithms)
            flagged += [
                FlaggedObject(*entries[position], flag, float(scores[position]))
                for position in np.flatnonzero((scores > MAX_ROBUST_SCORE) & ~is_cut)
            ]
    return sorted(flagged, key=lambda each: (-each.score, each.file))


def robust_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): distances from the median in robust standard deviations; 0 if more than half of the values are equal."""
    distances: NDArray[np.float64] = np.abs(values - np.median(values))
    deviation = NORMAL_CONSISTENCY * float(np.median(distances))
    return distances / deviation if deviation > 0 else np.zeros_like(distances)
