"""Average precision of detections, with intervals.

Within an image and a class, detections are taken by descending score. Each matches the object with the largest
intersection over union (IoU) of at least t that no other detection has matched (Lin et al. 2014, COCO). With tp(k) and
fp(k) the matched and unmatched ones among the first k detections of all images, and n the number of objects,

    recall(k) = tp(k) / n,   precision(k) = max over j ≥ k of tp(j) / (tp(j) + fp(j)),
    AP(t) = mean over r = 0, 0.01, …, 1 of the precision at the first k with recall(k) ≥ r, 0 if there is none.

AP is the mean over classes that have objects and t = 0.5, 0.55, …, 0.95; AR is the mean of the largest recalls.
Objects that are a crowd or difficult, or whose area is not asked for, count neither as found nor as missed.

For an interval, groups of images are drawn with replacement: an image that is drawn w times counts w times in tp, fp
and n, so that detections are matched once only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedling.boxes.annotations import AnnotatedObject
from seedling.boxes.geometry import Boxes, areas, as_boxes, intersection_over_union
from seedling.stats.statistics import Estimate, Floats

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS_PER_IMAGE = 100
SMALL_AREA_PIXELS, LARGE_AREA_PIXELS = 32.0**2, 96.0**2
AREA_RANGES = {
    "small": (0.0, SMALL_AREA_PIXELS),
    "medium": (SMALL_AREA_PIXELS, LARGE_AREA_PIXELS),
    "large": (LARGE_AREA_PIXELS, float("inf")),
}
ALL_AREAS = (0.0, float("inf"))
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TrueObjects:
    """The objects of an image. boxes: (n, 4); classes: (n,); is_crowd, is_ignored: (n,)."""

    boxes: Boxes
    classes: NDArray[np.intp]
    is_crowd: Flags
    is_ignored: Flags

    @classmethod
    def of(cls, boxes: object, classes: object, is_crowd: object = None, is_ignored: object = None) -> TrueObjects:
        """From sequences; by default, no object is a crowd or ignored."""
        arrays = as_boxes(boxes), np.asarray(classes, dtype=np.intp)
        none = np.zeros(len(arrays[0]), dtype=bool)
        flags = (none if each is None else np.asarray(each, dtype=bool) for each in (is_crowd, is_ignored))
        return cls(*arrays, *flags)


@dataclass(frozen=True, slots=True)
class Detections:
    """The predicted boxes of an image. boxes: (n, 4); classes: (n,); scores: (n,), 0 to 1."""

    boxes: Boxes
    classes: NDArray[np.intp]
    scores: Floats

    @classmethod
    def of(cls, boxes: object, classes: object, scores: object) -> Detections:
        """From sequences."""
        return cls(as_boxes(boxes), np.asarray(classes, dtype=np.intp), np.asarray(scores, dtype=np.float64))

    def as_objects(self, categories: Sequence[str]) -> tuple[AnnotatedObject, ...]:
        """The detections as objects with the source `model` and their scores as confidence."""
        return tuple(
            AnnotatedObject(categories[class_index], (box[0], box[1], box[2], box[3]), "model", float(score))
            for class_index, box, score in zip(self.classes, self.boxes.tolist(), self.scores, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """The matched detections of one class, by descending score.

    image: (n_detections,) index of the image; scores: (n_detections,); is_match, is_ignored: (n_thresholds,
    n_detections); objects: (n_images,) number of objects that count.
    """

    image: NDArray[np.intp]
    scores: Floats
    is_match: Flags
    is_ignored: Flags
    objects: NDArray[np.intp]


def match_image(
    objects: TrueObjects, detections: Detections, thresholds: Floats, area_range: tuple[float, float] = ALL_AREAS
) -> tuple[Flags, Flags, int]:
    """Match the detections of one class in one image; they must be in descending order of their scores.

    Returns, (n_thresholds, n_detections) each, whether a detection matches an object that counts and whether it is
    ignored, and the number of objects that count.
    """
    object_areas, detection_areas = areas(objects.boxes), areas(detections.boxes)
    ignored = objects.is_ignored | objects.is_crowd | (object_areas < area_range[0]) | (object_areas > area_range[1])
    overlaps = intersection_over_union(detections.boxes, objects.boxes, is_crowd=objects.is_crowd)
    shape = (len(thresholds), len(detections.scores))
    is_match, is_ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    is_taken = np.zeros((len(thresholds), len(object_areas)), dtype=bool)
    rows = np.arange(len(thresholds))
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for number in range(shape[1]):
        is_candidate = (overlaps[number] >= limits) & (~is_taken | objects.is_crowd)
        # An object that counts comes before one that is ignored, however large the overlap with that one is.
        preference = np.where(is_candidate, overlaps[number] + 2.0 * ~ignored, -1.0)
        if not preference.size:
            break
        best = preference.shape[1] - 1 - preference[:, ::-1].argmax(axis=1)  # of equal overlaps the last, as in COCO
        is_matched = preference[rows, best] > 0
        is_taken[rows[is_matched], best[is_matched]] = True
        is_match[:, number] = is_matched & ~ignored[best]
        is_ignored[:, number] = is_matched & ignored[best]
    is_outside = (detection_areas < area_range[0]) | (detection_areas > area_range[1])
    is_ignored |= ~is_match & is_outside[None]
    return is_match, is_ignored, int((~ignored).sum())


def match(
    images: Iterable[tuple[TrueObjects, Detections]],
    n_classes: int,
    thresholds: Floats = IOU_THRESHOLDS,
    area_range: tuple[float, float] = ALL_AREAS,
) -> list[Matches]:
    """Match the detections of all images, class by class."""
    parts: list[list[tuple[int, Floats, Flags, Flags]]] = [[] for _ in range(n_classes)]
    counts: list[dict[int, int]] = [{} for _ in range(n_classes)]
    n_images = 0
    for number, (objects, detections) in enumerate(images):
        n_images = number + 1
        for class_index in np.union1d(objects.classes, detections.classes).tolist():
            of_class = objects.classes == class_index
            candidates = np.flatnonzero(detections.classes == class_index)
            candidates = candidates[np.argsort(-detections.scores[candidates], kind="stable")]
            candidates = candidates[:MAX_DETECTIONS_PER_IMAGE]
            is_match, is_ignored, count = match_image(
                TrueObjects(
                    objects.boxes[of_class],
                    objects.classes[of_class],
                    objects.is_crowd[of_class],
                    objects.is_ignored[of_class],
                ),
                Detections(detections.boxes[candidates], detections.classes[candidates], detections.scores[candidates]),
                thresholds,
                area_range,
            )
            parts[class_index].append((number, detections.scores[candidates], is_match, is_ignored))
            counts[class_index][number] = count
    return [
        _joined(of_class, [count.get(number, 0) for number in range(n_images)], len(thresholds))
        for of_class, count in zip(parts, counts, strict=True)
    ]


def _joined(parts: Sequence[tuple[int, Floats, Flags, Flags]], counts: Sequence[int], n_thresholds: int) -> Matches:
    """One class's detections of all images, sorted by score; equal scores in the order of the images."""
    scores = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
    image = np.repeat([part[0] for part in parts], [len(part[1]) for part in parts]) if parts else np.zeros(0)
    empty = [np.zeros((n_thresholds, 0), dtype=bool)]
    order = np.argsort(-scores, kind="stable")
    return Matches(
        image[order].astype(np.intp),
        scores[order],
        np.concatenate(empty + [part[2] for part in parts], axis=1)[:, order],
        np.concatenate(empty + [part[3] for part in parts], axis=1)[:, order],
        np.asarray(counts, dtype=np.intp),
    )


def precision_and_recall(matches: Matches, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """(n_thresholds,) AP and largest recall of one class; NaN if it has no objects.

    weights: (n_images,) how often each image counts; None for once.
    """
    of_image = np.ones(len(matches.objects)) if weights is None else weights
    objects = float(of_image @ matches.objects)
    n_thresholds = len(matches.is_match)
    if objects == 0:
        return np.full(n_thresholds, np.nan), np.full(n_thresholds, np.nan)
    if not len(matches.scores):
        return np.zeros(n_thresholds), np.zeros(n_thresholds)
    of_detection = of_image[matches.image]
    matched = np.cumsum(matches.is_match * of_detection, axis=1)
    counted = np.cumsum(~matches.is_ignored * of_detection, axis=1)
    recall = matched / objects
    precision = np.divide(matched, counted, out=np.zeros_like(matched), where=counted > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    average = np.empty(n_thresholds)
    for number in range(n_thresholds):
        positions = np.searchsorted(recall[number], RECALL_POINTS, side="left")
        is_reached = positions < recall.shape[1]
        average[number] = envelope[number, positions[is_reached]].sum() / len(RECALL_POINTS)
    return average, recall[:, -1]


@dataclass(frozen=True)
class DetectionScores:
    """Scores of a detector. class_values: (n_classes,) AP of each class, NaN for one without objects."""

    ap: float
    ap50: float
    ap75: float
    ar: float
    class_values: Floats

    @classmethod
    def of(
        cls, matches: Sequence[Matches], thresholds: Floats = IOU_THRESHOLDS, weights: Floats | None = None
    ) -> DetectionScores:
        """The means over the classes with objects; NaN if no class has any."""
        both = [precision_and_recall(each, weights) for each in matches]
        average, recall = (np.array([pair[part] for pair in both]).reshape(len(both), -1) for part in (0, 1))

        def mean(values: Floats) -> float:
            of_classes = values[~np.isnan(values)]
            return float(of_classes.mean()) if of_classes.size else float("nan")

        def at(threshold: float) -> float:
            return mean(average[:, np.flatnonzero(np.isclose(thresholds, threshold))])

        return cls(mean(average), at(0.5), at(0.75), mean(recall), average.mean(axis=1))


def score_intervals(
    matches: Sequence[Matches],
    groups: NDArray[np.str_],
    *,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """AP, AP50, AP75 and AR with bootstrap percentile intervals over groups of images.

    groups: (n_images,) images of one group, such as frames of a video, are drawn together.
    """
    names = ("ap", "ap50", "ap75", "ar")
    point = DetectionScores.of(matches)
    values = {name: np.empty(draws) for name in names}
    _, members = np.unique(groups, return_inverse=True)
    n_groups = int(members.max(initial=-1)) + 1
    for number in range(draws):
        counts = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups).astype(np.float64)
        drawn = DetectionScores.of(matches, weights=counts[members])
        for name in names:
            values[name][number] = getattr(drawn, name)
    tail = 50 * (1 - confidence)
    return {
        name: Estimate(getattr(point, name), *np.nanpercentile(values[name], [tail, 100 - tail]).tolist())
        for name in names
    }
