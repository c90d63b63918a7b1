"""Compare Seedling's label errors of boxes with cleanlab's ObjectLab on the same out-of-fold detections.

    python benchmarks/box_label_errors.py --data FOLDER --backbone FOLDER [--draws 3] [--images 60] [--steps 300]

FOLDER/bccd holds images/ and annotations/ in the form of Pascal VOC. Each draw takes other images, and makes 10 % of
their boxes wrong in one of three ways: removed, given another class, or moved by half of their width and height. A
detector is trained by cross-validation on the wrong boxes, and ranks the errors. ObjectLab (cleanlab 2.9) gets the same
detections. It expects probabilities, and ignores detections below a threshold (0.95, or 0.5 for moved boxes), which few
of these scores reach, since they estimate an overlap. The best of five thresholds counts, chosen with the answer key.

Average precision is over boxes: a swapped or moved box is found if it is ranked, and a removed one if a candidate has
an intersection over union of at least 0.5 with it. A removed box that no candidate covers counts as never found.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from cleanlab.object_detection.rank import (
    compute_badloc_box_scores,
    compute_overlooked_box_scores,
    compute_swap_box_scores,
)
from record import Measurement, mean_with_interval, write

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject
from seedling.boxes.checks import CheckedAnnotations, check
from seedling.boxes.feature_maps import Backbone
from seedling.boxes.geometry import as_boxes, intersection_over_union, to_corners
from seedling.boxes.label_errors import IssueKind, find_box_issues
from seedling.boxes.learning import DetectorSettings, cross_validate, encode_images
from seedling.boxes.metrics import Detections
from seedling.boxes.reading import frame_of, read_annotations

Change = Literal["removed", "swapped", "moved"]
KIND_OF: dict[Change, IssueKind] = {"removed": "overlooked", "swapped": "swapped", "moved": "badly_located"}
WRONG_SHARE = 0.1
THRESHOLDS_OF_OBJECTLAB = (0.1, 0.3, 0.5, 0.7, 0.95)
FOUND_OVERLAP = 0.5
Ranked = list[tuple[float, str, tuple[float, float, float, float]]]
"""Score, file and box of each candidate."""


def make_wrong(
    images: Mapping[str, AnnotatedImage], change: Change, categories: Sequence[str], rng: np.random.Generator
) -> tuple[dict[str, AnnotatedImage], list[tuple[str, AnnotatedObject]]]:
    """Return the images with a tenth of their boxes changed, and the changed boxes, or those that were removed."""
    wrong: dict[str, AnnotatedImage] = {}
    changed: list[tuple[str, AnnotatedObject]] = []
    for file, image in images.items():
        objects: list[AnnotatedObject] = []
        for annotated in image.objects:
            if rng.random() >= WRONG_SHARE:
                objects.append(annotated)
                continue
            new = annotated
            if change == "swapped":
                others = [name for name in categories if name != annotated.category]
                new = replace(annotated, category=others[int(rng.integers(len(others)))])
            elif change == "moved":
                x, y, width, height = annotated.box
                signs = rng.choice([-1.0, 1.0], 2)
                new = replace(annotated, box=(x + signs[0] * width / 2, y + signs[1] * height / 2, width, height))
            if change != "removed":
                objects.append(new)
            changed.append((file, new))
        wrong[file] = replace(image, objects=tuple(objects))
    return wrong, changed


def ranked_by_seedling(
    images: Mapping[str, AnnotatedImage],
    detections: Mapping[str, Detections],
    categories: Sequence[str],
    change: Change,
) -> Ranked:
    """The candidates of Seedling for this kind of error."""
    issues = [issue for issue in find_box_issues(images, detections, categories) if issue.kind == KIND_OF[change]]
    boxes = [issue.suggested if issue.annotated is None else issue.annotated for issue in issues]
    return [(issue.score, issue.file, box.box) for issue, box in zip(issues, boxes, strict=True) if box is not None]


def ranked_by_objectlab(
    images: Mapping[str, AnnotatedImage],
    detections: Mapping[str, Detections],
    categories: Sequence[str],
    change: Change,
    threshold: float,
) -> Ranked:
    """The candidates of ObjectLab: 1 minus its quality of each box."""
    files = sorted(images)
    labels = [
        {
            "bboxes": to_corners(as_boxes([each.box for each in images[file].objects])),
            "labels": np.array([categories.index(each.category) for each in images[file].objects]),
        }
        for file in files
    ]
    predictions = [by_class(detections[file], len(categories)) for file in files]
    if change == "moved":
        qualities = compute_badloc_box_scores(
            labels=labels, predictions=predictions, low_probability_threshold=threshold
        )
    else:
        compute = compute_overlooked_box_scores if change == "removed" else compute_swap_box_scores
        qualities = compute(labels=labels, predictions=predictions, high_probability_threshold=threshold)
    ranked: Ranked = []
    for file, quality, label, prediction in zip(files, qualities, labels, predictions, strict=True):
        corners = np.concatenate([part[:, :4] for part in prediction]) if change == "removed" else label["bboxes"]
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        for value, box in zip(quality, boxes.tolist(), strict=True):
            if np.isfinite(value):
                ranked.append((1 - float(value), file, (box[0], box[1], box[2], box[3])))
    return ranked


def by_class(detections: Detections, n_classes: int) -> list[np.ndarray]:
    """Return the detections as ObjectLab takes them: per class, corners and score."""
    rows = np.concatenate([to_corners(detections.boxes), detections.scores[:, None]], axis=1)
    return [rows[detections.classes == class_index] for class_index in range(n_classes)]


def average_precision(ranked: Ranked, wrong: Sequence[tuple[str, AnnotatedObject]]) -> float:
    """Return the mean over the wrong boxes of the precision at the rank where each is found; 0 for one that is not."""
    open_boxes: dict[str, list[tuple[float, ...]]] = {}
    for file, annotated in wrong:
        open_boxes.setdefault(file, []).append(annotated.box)
    n_found, total = 0, 0.0
    for rank, (_, file, box) in enumerate(sorted(ranked, key=lambda each: -each[0]), start=1):
        candidates = open_boxes.get(file, [])
        overlaps = intersection_over_union(as_boxes([box]), as_boxes(candidates))[0]
        if len(overlaps) and overlaps.max() >= FOUND_OVERLAP:
            candidates.pop(int(overlaps.argmax()))
            n_found += 1
            total += n_found / rank
    return total / len(wrong)


def draw(
    checked: CheckedAnnotations, folder: Path, backbone: Backbone, arguments: argparse.Namespace, seed: int
) -> dict[str, float]:
    """Return average precision by change and system, such as "removed, Seedling"."""
    rng = np.random.default_rng(seed)
    files = sorted(rng.choice(sorted(checked.annotations.images), arguments.images, replace=False).tolist())
    images = {file: checked.annotations.images[file] for file in files}
    categories = checked.annotations.categories
    settings = DetectorSettings(steps=arguments.steps, seed=seed)
    results = {}
    for change in KIND_OF:
        wrong_images, wrong = make_wrong(images, change, categories, rng)
        changed = replace(checked, annotations=replace(checked.annotations, images=wrong_images))
        detections = cross_validate(encode_images(changed, folder, backbone, settings), settings)
        results[f"{change}, Seedling"] = average_precision(
            ranked_by_seedling(wrong_images, detections, categories, change), wrong
        )
        results[f"{change}, ObjectLab"] = max(
            average_precision(ranked_by_objectlab(wrong_images, detections, categories, change, threshold), wrong)
            for threshold in THRESHOLDS_OF_OBJECTLAB
        )
        print(seed, change, len(wrong), results, flush=True)
    return results


def main() -> None:
    """Run the draws and write results/box_label_errors.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    folder = arguments.data / "bccd" / "images"
    checked = check(read_annotations(folder, arguments.data / "bccd" / "annotations"), partial(frame_of, folder))
    backbone = Backbone.load(str(arguments.backbone))
    draws = [draw(checked, folder, backbone, arguments, seed) for seed in range(arguments.draws)]
    command = (
        f"python benchmarks/box_label_errors.py --data DATA --backbone BACKBONE --draws {arguments.draws} "
        f"--images {arguments.images} --steps {arguments.steps}"
    )
    measurements = []
    for change in KIND_OF:
        setting = f"bccd, {arguments.images} images, 10 % of boxes {change}"
        of_system = {name: [each[f"{change}, {name}"] for each in draws] for name in ("ObjectLab", "Seedling")}
        gap = list(np.subtract(of_system["Seedling"], of_system["ObjectLab"]))
        for system, metric, values in (
            *((name, "average precision", values) for name, values in of_system.items()),
            ("Seedling", "minus ObjectLab, paired", gap),
        ):
            interval = mean_with_interval(values)
            measurements.append(Measurement(setting, system, metric, *interval, "share", len(values), command))
    write("box_label_errors", measurements)


if __name__ == "__main__":
    main()
