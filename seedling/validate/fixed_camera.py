"""Tell images of one fixed-camera scene from copies of one another.

Over a conveyor belt or a street, all frames are similar, whatever their class: the difference between classes is
smaller than the difference that near-duplicates may have. If such frames counted as near-duplicates, all training rows
would be rejected as copies of test rows, or no folds could be assigned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedling.validate.checks import CheckedRow
from seedling.validate.duplicates import Clusters

MIN_SCENE_ROWS = 10
MIN_SHARE_OF_ROWS = 0.1  # of all rows, for a scene with several classes
MIN_ROWS_OF_SECOND_CLASS = 2  # one row of another class among copies is a label error
MAJORITY = 0.5  # share of all rows: more rows cannot be copies, whatever their labels
MAX_SETS = 1_000  # largest sets of near-duplicates that are compared with one another
MAX_SCENES = 20  # largest scenes that single images are compared with
MIN_SHARE_OF_CLASS = 0.8  # of a class's labeled rows; without them, too few rows are left to learn the class


def scenes(rows: Sequence[CheckedRow], near: Clusters, difference: float) -> list[list[int]]:
    """The sets of near-duplicates that are scenes.

    A scene is large, and it has several classes, most of the rows, or nearly all rows of a class. Hashes of one scene
    may be in several sets, so sets with similar mean thumbnails are merged first.

    difference: the maximum mean difference between the thumbnails of near-duplicates, in gray levels, 0 to 255.
    """
    if not rows:  # all images are rejected already, for example as blank
        return []
    class_sizes = Counter(row.row.label for row in rows if row.row.label is not None)
    return [
        members
        for members in _merge_similar(rows, near.members(), difference / 2)
        if len(members) >= MIN_SCENE_ROWS and _is_scene(members, rows, class_sizes)
    ]


def _merge_similar(rows: Sequence[CheckedRow], sets: Sequence[list[int]], difference: float) -> list[list[int]]:
    """Merge each set into the largest set whose mean thumbnail differs by at most `difference`."""
    thumbnails = np.array([row.thumbnail for row in rows], dtype=np.uint8).reshape(len(rows), -1)
    merged: list[list[int]] = []
    means: list[NDArray[np.float64]] = []
    largest_first = sorted(
        (members for members in sets if len(members) > 1), key=lambda members: (-len(members), members[0])
    )
    for members in largest_first[:MAX_SETS]:
        mean = thumbnails[members].mean(axis=0)
        gaps = [float(np.abs(mean - other).mean()) for other in means]
        if gaps and min(gaps) <= difference:
            merged[gaps.index(min(gaps))].extend(members)
        else:
            merged.append(list(members))
            means.append(mean)
    for member in (members[0] for members in sets if len(members) == 1):  # its hash is not near any other
        gaps = [float(np.abs(thumbnails[member] - mean).mean()) for mean in means[:MAX_SCENES]]
        if gaps and min(gaps) <= difference:
            merged[gaps.index(min(gaps))].append(member)
    return merged


def without_scenes(size: int, near: Clusters, scene_sets: Sequence[Sequence[int]]) -> Clusters:
    """The same sets, except that each row of a scene is in its own set."""
    in_scene = {member for members in scene_sets for member in members}
    result = Clusters(size)
    for members in near.members():
        for member in members if members[0] not in in_scene else ():
            result.join(members[0], member)
    return result


def _is_scene(members: Sequence[int], rows: Sequence[CheckedRow], class_sizes: Counter[str]) -> bool:
    labels = Counter(label for member in members if (label := rows[member].row.label) is not None)
    if len(members) > MAJORITY * len(rows):
        return True
    has_several_classes = len(labels) > 1 and labels.most_common(2)[1][1] >= MIN_ROWS_OF_SECOND_CLASS
    if has_several_classes and len(members) >= MIN_SHARE_OF_ROWS * len(rows):
        return True
    return any(count >= max(MIN_SCENE_ROWS, MIN_SHARE_OF_CLASS * class_sizes[label]) for label, count in labels.items())
