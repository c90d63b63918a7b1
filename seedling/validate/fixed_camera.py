"""Tells images of one scene, as a fixed camera takes them, from copies of one another.

Over a belt or a street every frame is nearly like every other, whatever its class: what tells the classes apart is smaller than
what near-duplicates may differ by. Taken for near-duplicates, all training rows would go as copies of test rows, or no folds
could be dealt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedling.validate.checks import CheckedRow
from seedling.validate.duplicates import Clusters

MIN_SCENE_ROWS = 10
MIN_SHARE_OF_ROWS = 0.1  # of all rows, for a scene that shows several classes
MIN_ROWS_OF_SECOND_CLASS = 2  # one row of another class among copies is a label error
MAJORITY = 0.5  # of all rows: too many to be copies, whatever they show
MAX_SETS = 1_000  # of near-duplicates that are compared with one another, the largest ones
MAX_SCENES = 20  # that single images are compared with, the largest ones
MIN_SHARE_OF_CLASS = 0.8  # of a class's labeled rows, without which there is nothing left to learn it from


def scenes(rows: Sequence[CheckedRow], near: Clusters, difference: float) -> list[list[int]]:
    """The sets of near-duplicates that are scenes: large, and of several classes, or most of the rows, or nearly all of a class.

    Hashes of one scene may fall into several sets, so those whose mean thumbnails are alike are looked at together. difference: the
    mean difference of thumbnails, 0 to 255, that near-duplicates may have.
    """
    if not rows:  # each image was rejected before, for instance as blank
        return []
    class_sizes = Counter(row.row.label for row in rows if row.row.label is not None)
    return [
        members
        for members in _alike(rows, near.members(), difference / 2)
        if len(members) >= MIN_SCENE_ROWS and _is_scene(members, rows, class_sizes)
    ]


def _alike(rows: Sequence[CheckedRow], sets: Sequence[list[int]], difference: float) -> list[list[int]]:
    """Sets of several rows joined, each to the largest one whose mean thumbnail differs by no more."""
    thumbnails = np.array([row.thumbnail for row in rows], dtype=np.uint8).reshape(len(rows), -1)
    joined: list[list[int]] = []
    means: list[NDArray[np.float64]] = []
    largest_first = sorted(
        (members for members in sets if len(members) > 1), key=lambda members: (-len(members), members[0])
    )
    for members in largest_first[:MAX_SETS]:
        mean = thumbnails[members].mean(axis=0)
        apart = [float(np.abs(mean - other).mean()) for other in means]
        if apart and min(apart) <= difference:
            joined[apart.index(min(apart))].extend(members)
        else:
            joined.append(list(members))
            means.append(mean)
    for member in (members[0] for members in sets if len(members) == 1):  # whose hash alone is not near another's
        apart = [float(np.abs(thumbnails[member] - mean).mean()) for mean in means[:MAX_SCENES]]
        if apart and min(apart) <= difference:
            joined[apart.index(min(apart))].append(member)
    return joined


def without_scenes(size: int, near: Clusters, of_scenes: Sequence[Sequence[int]]) -> Clusters:
    """The same sets, but each row of a scene in a set of its own."""
    apart = {member for members in of_scenes for member in members}
    kept = Clusters(size)
    for members in near.members():
        for member in members if members[0] not in apart else ():
            kept.join(members[0], member)
    return kept


def _is_scene(members: Sequence[int], rows: Sequence[CheckedRow], class_sizes: Counter[str]) -> bool:
    labels = Counter(label for member in members if (label := rows[member].row.label) is not None)
    if len(members) > MAJORITY * len(rows):
        return True
    several = len(labels) > 1 and labels.most_common(2)[1][1] >= MIN_ROWS_OF_SECOND_CLASS
    if several and len(members) >= MIN_SHARE_OF_ROWS * len(rows):
        return True
    return any(count >= max(MIN_SCENE_ROWS, MIN_SHARE_OF_CLASS * class_sizes[label]) for label, count in labels.items())
