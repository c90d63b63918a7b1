"""Scores a detector's boxes against annotated boxes: average precision with intervals, by category and by size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from seedling.boxes.annotations import AnnotatedImage
from seedling.boxes.checks import CheckedAnnotations
from seedling.boxes.metrics import (
    ALL_AREAS,
    AREA_RANGES,
    Detections,
    DetectionScores,
    Matches,
    TrueObjects,
    match,
    score_intervals,
)
from seedling.boxes.reading import problem_sentences, read_annotations
from seedling.errors import InputError
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate, Floats
from seedling.terminal.console import PrintableConsole
from seedling.terminal.counts import counted_noun

BOOTSTRAP_DRAWS, CONFIDENCE = 1_000, 0.95
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}


def print_scores(checked: CheckedAnnotations, images: Path, predictions: Path) -> None:
    """Print the scores of the predicted boxes of all images whose objects are annotated.

    Raises InputError if there are none, or if the predictions have no category of the annotations.
    """
    predicted = read_annotations(images, predictions)
    annotated = {file: image for file, image in checked.annotations.images.items() if image.complete == "yes"}
    categories = checked.annotations.categories
    if not any(image.objects for image in annotated.values()):
        raise InputError(f"No image has annotated objects: there is nothing to score {predictions} against.")
    if not set(categories) & set(predicted.categories):
        raise InputError(
            f"{predictions} has the categories {', '.join(predicted.categories) or 'none'}, and the annotations "
            f"{', '.join(categories)}: give them the same names."
        )
    console = PrintableConsole()
    for sentence in problem_sentences(predicted):
        console.print(f"Predictions: {sentence}", markup=False, highlight=False, soft_wrap=True)
    print_score_sentences(console, annotated, predicted.images, categories)
    if unknown := [name for name in predicted.categories if name not in categories]:
        sentence = f"Boxes of categories that the annotations do not have are left out: {', '.join(unknown)}."
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def print_score_sentences(
    console: PrintableConsole,
    annotated: Mapping[str, AnnotatedImage],
    predicted: Mapping[str, AnnotatedImage],
    categories: Sequence[str],
) -> None:
    """Print the scores of predicted boxes with their intervals, and AP by category and by size."""
    matches = match_annotations(annotated, predicted, categories)
    intervals = score_intervals(
        matches,
        np.array(sorted(annotated)),
        draws=BOOTSTRAP_DRAWS,
        confidence=CONFIDENCE,
        rng=generator(0, "detection scores"),
    )
    by_size = {
        name: DetectionScores.of(match_annotations(annotated, predicted, categories, limits)).ap
        for name, limits in AREA_RANGES.items()
    }
    class_values = DetectionScores.of(matches).class_values
    for sentence in sentences_of(intervals, class_values, categories, by_size, len(annotated)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def match_annotations(
    annotated: Mapping[str, AnnotatedImage],
    predicted: Mapping[str, AnnotatedImage],
    categories: Sequence[str],
    area_range: tuple[float, float] = ALL_AREAS,
) -> list[Matches]:
    """The matches of each category, over the annotated images in the order of their files.

    area_range: in square pixels, of the objects that count.
    """
    index = {name: number for number, name in enumerate(categories)}

    def pairs() -> Iterator[tuple[TrueObjects, Detections]]:
        for file in sorted(annotated):
            objects = annotated[file].objects
            detected = [each for each in predicted[file].objects if each.category in index] if file in predicted else []
            yield (
                TrueObjects.of(
                    [each.box for each in objects],
                    [index[each.category] for each in objects],
                    [each.is_crowd for each in objects],
                    [each.is_difficult for each in objects],
                ),
                Detections.of(
                    [each.box for each in detected],
                    [index[each.category] for each in detected],
                    [each.confidence for each in detected],
                ),
            )

    return match(pairs(), len(categories), area_range=area_range)


def sentences_of(
    intervals: Mapping[str, Estimate],
    class_values: Floats,
    categories: Sequence[str],
    by_size: Mapping[str, float],
    images: int,
) -> Iterator[str]:
    """The scores with their intervals, and AP by category and by size."""
    texts = [f"{TITLES[name]} {each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for name, each in intervals.items()]
    yield f"On {counted_noun(images, 'image')}: {', '.join(texts)}."
    for what, values in (
        ("category", dict(zip(categories, class_values.tolist(), strict=True))),
        ("size", by_size),
    ):
        texts = [f"{name} {value:.3f}" for name, value in values.items() if not np.isnan(value)]
        yield f"AP by {what}: {', '.join(texts)}."
