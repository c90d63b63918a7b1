"""Class indices: the position of a label in the list of classes, which is sorted and stands in the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def index_by_class(classes: Sequence[str]) -> dict[str, int]:
    """Return class → its index."""
    return {label: index for index, label in enumerate(classes)}


def class_indices(labels: Iterable[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    """(n_labels,): the index of each label. Raises KeyError for a label that is not a class."""
    label_to_index = index_by_class(classes)
    return np.array([label_to_index[label] for label in labels], dtype=np.int64)
