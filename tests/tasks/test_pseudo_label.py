"""pseudo_label: the filter by hand, and refinement that never uses what it is judged by."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.params import PseudoLabelParams
from tasks.pseudo_label import Taught, _rows, audit, refine
from tasks.pseudo_label.filters import class_wise_threshold
from tasks.statistics import softmax


def test_each_class_has_a_limit_of_its_own() -> None:
    """Mean confidence 0.8 in all, 0.9 and 0.7 a class: the limits are 1.0 × 0.8 = 0.8 and 0.8 × 0.7 / 0.9 = 0.622."""
    chances = np.array([[0.98, 0.02], [0.82, 0.18], [0.2, 0.8], [0.4, 0.6]])
    assert class_wise_threshold(chances, 1.0).tolist() == [True, True, True, False]


def test_a_model_that_is_unsure_of_everything_still_keeps_its_surer_rows() -> None:
    """After few labels no confidence is high: 0.6 and 0.4 of a mean of 0.5 are told apart all the same."""
    chances = np.array([[0.6, 0.2, 0.2], [0.4, 0.3, 0.3]])
    assert class_wise_threshold(chances, 0.9).tolist() == [True, False]


def test_no_rows_are_no_rows() -> None:
    """An empty pool is kept as it is."""
    assert class_wise_threshold(np.zeros((0, 3)), 0.9).shape == (0,)


def taught(truth: np.ndarray) -> Taught:
    rng = np.random.default_rng(4)
    many, pool = len(truth), 60
    logits = rng.normal(size=(3, pool, 2))
    return Taught(
        labelled_ids=[f"l{n}" for n in range(many)],
        pool_ids=[f"p{n}" for n in range(pool)],
        half=np.zeros(pool, dtype=np.int64),
        labelled=np.full((many, 2), 0.5),
        pool=np.stack([softmax(one) for one in logits]),
        fold=np.arange(many) % 2,
        folds=[0, 1],
        truth=truth,
        weights=np.ones(many),
        human=np.ones(many, dtype=bool),
    )


def test_a_folds_labels_do_not_reach_its_own_lineage() -> None:
    """Flipping every label of fold 0 leaves what lineage 0 says of the pool in the same order of confidence."""
    features = np.random.default_rng(5).normal(size=(80, 4)).astype(np.float32)
    truth = np.random.default_rng(6).integers(0, 2, 20)
    flipped = np.where(np.arange(20) % 2 == 0, 1 - truth, truth)
    first, second = (refine(taught(one), features, PseudoLabelParams())[0] for one in (truth, flipped))
    odds = [np.log(one[0][:, 0] / one[0][:, 1]) for one in (first, second)]  # equal up to the shared temperature
    assert (np.argsort(odds[0]) == np.argsort(odds[1])).all()
    assert not np.allclose(first[1], second[1]), "lineage 1 does see fold 0"


def test_what_a_lineage_learns_from_does_not_depend_on_the_others() -> None:
    """With another final lineage, lineage 0's labels and weights of the pool are the same to the bit."""
    known = taught(np.arange(20) % 2)
    rows = pd.DataFrame(
        {"id": known.pool_ids, "origin": None, "licence": None, "attribution": None, "group": known.pool_ids}
    )
    other = known.pool.copy()
    other[-1] = other[-1][:, ::-1]
    both = [
        [
            (row.extra["lineage_labels"][0], row.extra["lineage_weights"][0])
            for row, _ in _rows(rows, known, chances, ["a", "b"], PseudoLabelParams(), 1)
        ]
        for chances in (known.pool, other)
    ]
    assert both[0] == both[1]
    assert len({weight for _, weight in both[0]}) > 10


def test_the_audit_counts_what_the_filter_would_keep() -> None:
    """The mean is 0.85, so the limit is 0.765: three of four held-out rows are kept, two of them right."""
    seen = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.55, 0.45]])
    found = audit(seen, np.array([0, 0, 1, 0]), 0.9, 1.0)
    assert (found["rows"], found["kept"]) == (4, 3)
    assert found["precision"]["value"] == round(2 / 3, 6)
