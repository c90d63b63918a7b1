"""Classes with few training labels, as a phrase for the terminal, the report and the advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from seedling.records.manifest import Manifest

FEW_LABELS = 5  # per class: with fewer, a class is hardly learned, and its recall is known to within 40 points at best
MAX_NAMED_CLASSES = 4


def training_labels(manifest: Manifest) -> dict[str, int]:
    """Number of training labels by class, 0 for a class without any."""
    labels = Counter[str](dict.fromkeys(manifest.classes, 0))
    for count in manifest.counts:
        if count.split == "train" and count.label is not None:
            labels[count.label] += count.rows
    return dict(labels)


def classes_with_few_labels(labels: Mapping[str, int]) -> dict[str, int]:
    """The classes with fewer than `FEW_LABELS` labels, the fewest first."""
    few = [(count, name) for name, count in labels.items() if count < FEW_LABELS]
    return {name: count for count, name in sorted(few)}


def few_labels_phrase(few: Mapping[str, int]) -> str:
    """The classes and their numbers of labels, as in `trash (2), glass (4)`."""
    named = [f"{name} ({count})" for name, count in list(few.items())[:MAX_NAMED_CLASSES]]
    more = len(few) - len(named)
    return ", ".join(named) + (f" and {more} more classes" if more > 1 else " and 1 more class" if more else "")
