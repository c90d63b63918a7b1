"""Seconds that reviewers need for an answer, by which the expected value of a row is divided.

A labeled row is checked, a row of the pool is labeled from nothing; the seconds of each kind are the median of the
latest answers to rows of the queue, as the page measured them. They are unknown before MIN_ANSWERS answers of both
kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedling.review.records import Answer

MIN_ANSWERS = 10  # of each kind
MAX_ANSWERS = 500  # of each kind, so that the seconds follow a reviewer who becomes faster
MAX_RATIO = 4.0  # of the seconds of the two kinds: pauses must not decide the order


def seconds_per_row(answers: Sequence[Answer], is_labeled: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """(n,): the seconds that an answer about each row is expected to take; None if unknown.

    answers: of all reviewers, the earliest first. is_labeled: (n,), whether the row has a label.
    """
    timed = [
        answer
        for answer in answers
        if answer.purpose == "queue" and answer.is_decisive and answer.milliseconds and answer.batch is None
    ]
    by_kind = [
        [answer.milliseconds / 1000 for answer in timed if (answer.previous_label is not None) == has_label]
        for has_label in (False, True)
    ]
    if min(map(len, by_kind)) < MIN_ANSWERS:
        return None
    pool, labeled = (float(np.median(seconds[-MAX_ANSWERS:])) for seconds in by_kind)
    labeled = float(np.clip(labeled, pool / MAX_RATIO, pool * MAX_RATIO))
    return np.where(is_labeled, labeled, pool).astype(np.float32)
