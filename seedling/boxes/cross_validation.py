"""Trains a detector by cross-validation, scores it on images it has not learned, and lists possible label errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from seedling.boxes.checks import CheckedAnnotations
from seedling.boxes.feature_maps import Backbone
from seedling.boxes.label_errors import BoxIssue, IssueKind, detail_of, find_box_issues
from seedling.boxes.learning import FOLDS, DetectorSettings, cross_validate, encode_images
from seedling.boxes.scoring import print_score_sentences
from seedling.errors import InputError
from seedling.extras import require
from seedling.progress import terminal
from seedling.terminal.console import PrintableConsole
from seedling.terminal.counts import counted_noun

MIN_SCORES: Mapping[IssueKind, float] = {
    "overlooked": 0.5,
    "swapped": 0.5,
    "badly_located": 0.5,
    "superfluous": 0.7,  # 1 minus a score: small objects have low ones
}
EXAMPLES_PER_KIND = 3


def cross_validated_issues(
    checked: CheckedAnnotations, images: Path, backbone: str, settings: DetectorSettings | None = None
) -> list[BoxIssue]:
    """Print the scores of the out-of-fold boxes and the most likely label errors, and return those.

    Raises InputError if fewer images have objects than there are folds.
    """
    require("encoder", "Training a detector")
    annotated = {file: image for file, image in sorted(checked.annotations.images.items()) if image.complete == "yes"}
    _check_number(sum(bool(image.objects) for image in annotated.values()))
    settings = settings or DetectorSettings()
    with terminal("boxes") as progress:
        encoded = encode_images(checked, images, Backbone.load(backbone), settings, progress)
        _check_number(sum(bool(annotated[file].objects) for file in encoded.files))
        predictions = cross_validate(encoded, settings, progress=progress)
    categories = checked.annotations.categories
    console = PrintableConsole()
    if lost := len(annotated) - len(predictions):
        sentence = f"{counted_noun(lost, 'image')} cannot be decoded, and {'was' if lost == 1 else 'were'} left out."
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    annotated = {file: annotated[file] for file in predictions}
    predicted = {
        file: replace(annotated[file], objects=detections.as_objects(categories))
        for file, detections in predictions.items()
    }
    console.print("Cross-validation: each image is scored with a detector that was not trained on it.", highlight=False)
    print_score_sentences(console, annotated, predicted, categories)
    issues = [
        issue for issue in find_box_issues(annotated, predictions, categories) if issue.score >= MIN_SCORES[issue.kind]
    ]
    print_issues(console, issues)
    return issues


def _check_number(with_objects: int) -> None:
    if with_objects < FOLDS:
        raise InputError(
            f"Cross-validation needs {FOLDS} images with objects, and there are {with_objects}: annotate more."
        )


def print_issues(console: PrintableConsole, issues: list[BoxIssue]) -> None:
    """Print the number of issues of each kind, and the first of them."""
    counts = Counter(issue.kind for issue in issues)
    for kind, count in counts.most_common():
        console.print(f"{kind} ({counted_noun(count, 'possible label error')}), the most likely:", highlight=False)
        for issue in [issue for issue in issues if issue.kind == kind][:EXAMPLES_PER_KIND]:
            box = issue.suggested if issue.annotated is None else issue.annotated
            assert box is not None  # noqa: S101  (each kind of issue has one of them)
            position = ", ".join(f"{value:.4g}" for value in box.box)
            sentence = f"  {issue.file}: {box.category} at {position} ({detail_of(issue)})"
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
