"""Average precision, against hand calculations and faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from seedling.boxes.metrics import (
    AREA_RANGES,
    Detections,
    DetectionScores,
    TrueObjects,
    match,
    precision_and_recall,
    score_intervals,
)

Image = tuple[TrueObjects, Detections]
N_CLASSES = 3


def random_images(seed: int, count: int = 8, *, crowds: bool = True) -> list[Image]:
    """Images of 200 × 200 pixels with up to six objects, most of which are detected, and some false detections."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        n_objects = int(generator.integers(0, 7))
        corners, sides = generator.uniform(0, 120, (n_objects, 2)), generator.uniform(8, 110, (n_objects, 2))
        boxes = np.round(np.concatenate([corners, sides], axis=1), 2)
        classes = generator.integers(0, N_CLASSES, n_objects)
        is_crowd = generator.random(n_objects) < (0.15 if crowds else 0.0)
        moved = np.round(np.abs(boxes + generator.normal(0, 5, boxes.shape)), 2)
        false = np.round(generator.uniform(5, 90, (int(generator.integers(0, 4)), 4)), 2)
        detected = np.concatenate([moved, moved[: n_objects // 2], false])
        predicted = np.concatenate(
            [
                np.where(generator.random(n_objects) < 0.2, generator.integers(0, N_CLASSES, n_objects), classes),
                classes[: n_objects // 2],
                generator.integers(0, N_CLASSES, len(false)),
            ]
        )
        scores = np.round(generator.random(len(detected)), 3)
        images.append((TrueObjects.of(boxes, classes, is_crowd), Detections.of(detected, predicted, scores)))
    return images


def scores_of_coco(images: list[Image]) -> Any:
    """The twelve numbers of COCO's summary by faster-coco-eval."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, (objects, detections) in enumerate(images, start=1):
        for box, class_index, is_crowd in zip(objects.boxes.tolist(), objects.classes, objects.is_crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_index) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(is_crowd),
                }
            )
        for box, class_index, score in zip(
            detections.boxes.tolist(), detections.classes, detections.scores, strict=True
        ):
            results.append(
                {"image_id": image_id, "category_id": int(class_index) + 1, "bbox": box, "score": float(score)}
            )
    truth = {
        "images": [{"id": number + 1, "width": 200, "height": 200} for number in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": str(number)} for number in range(N_CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(truth)
        evaluation = COCOeval_faster(dataset, dataset.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_scores_are_those_of_coco(seed: int) -> None:
    """AP, AP50, AP75, AR, and AP of small, medium and large objects, on random images with crowds."""
    images = random_images(seed)
    if not any(len(objects.boxes) for objects, _ in images) or not any(
        len(detections.boxes) for _, detections in images
    ):
        return
    scores, expected = DetectionScores.of(match(images, N_CLASSES)), scores_of_coco(images)
    of_areas = [DetectionScores.of(match(images, N_CLASSES, area_range=limits)).ap for limits in AREA_RANGES.values()]
    computed = np.nan_to_num([scores.ap, scores.ap50, scores.ap75, *of_areas, scores.ar], nan=-1.0)
    np.testing.assert_allclose(computed, [*expected[:6], expected[8]], atol=1e-9)


def test_average_precision_by_hand() -> None:
    """Two objects; detections by score: right, wrong, right. Precision is 1 up to recall 0.5 and 2/3 up to 1."""
    objects = TrueObjects.of([(0, 0, 10, 10), (50, 50, 10, 10)], [0, 0])
    detections = Detections.of([(0, 0, 10, 10), (90, 0, 5, 5), (50, 50, 10, 10)], [0, 0, 0], [0.9, 0.8, 0.7])
    (matches,) = match([(objects, detections)], 1)
    average, recall = precision_and_recall(matches)
    assert average[0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert recall[0] == 1.0


def test_a_second_detection_of_an_object_is_wrong() -> None:
    """It is a false detection although it overlaps; the first one still counts."""
    objects = TrueObjects.of([(0, 0, 10, 10)], [0])
    detections = Detections.of([(0, 0, 10, 10), (0, 0, 10, 10)], [0, 0], [0.9, 0.8])
    (matches,) = match([(objects, detections)], 1)
    assert matches.is_match[0].tolist() == [True, False]


def test_ignored_objects_are_neither_found_nor_missed() -> None:
    """A detection of a difficult object changes nothing."""
    objects = TrueObjects.of([(0, 0, 10, 10), (50, 50, 10, 10)], [0, 0], is_ignored=[False, True])
    detections = Detections.of([(0, 0, 10, 10), (50, 50, 10, 10)], [0, 0], [0.5, 0.9])
    assert DetectionScores.of(match([(objects, detections)], 1)).ap == pytest.approx(1.0)


def test_a_class_without_objects_does_not_count() -> None:
    """Its detections change no mean; without any object there is no score."""
    objects = TrueObjects.of([(0, 0, 10, 10)], [0])
    detections = Detections.of([(0, 0, 10, 10), (5, 5, 10, 10)], [0, 1], [0.9, 0.8])
    scores = DetectionScores.of(match([(objects, detections)], 2))
    assert scores.ap == pytest.approx(1.0)
    assert np.isnan(scores.class_values[1])
    nothing = (TrueObjects.of([], []), detections)
    assert np.isnan(DetectionScores.of(match([nothing], 2)).ap)


def test_an_image_of_weight_two_counts_as_two_images() -> None:
    """Weights replace repeated matching in the bootstrap."""
    images = random_images(3)
    weights = np.array([2, 0, 1, 3, 1, 0, 1, 2], dtype=float)
    repeated = [image for image, weight in zip(images, weights, strict=True) for _ in range(int(weight))]
    weighted = DetectionScores.of(match(images, N_CLASSES), weights=weights)
    assert weighted.ap == pytest.approx(DetectionScores.of(match(repeated, N_CLASSES)).ap, abs=1e-3)


def test_the_interval_contains_the_score_and_is_narrower_with_more_images() -> None:
    """A fourfold number of images about halves the interval."""
    widths = []
    for count in (30, 120):
        images = random_images(7, count, crowds=False)
        groups = np.array([str(number) for number in range(count)])
        rng = np.random.default_rng(0)
        intervals = score_intervals(match(images, N_CLASSES), groups, draws=200, confidence=0.95, rng=rng)
        estimate = intervals["ap50"]
        assert estimate.low < estimate.value < estimate.high
        widths.append(estimate.high - estimate.low)
    assert 0.3 < widths[1] / widths[0] < 0.8
