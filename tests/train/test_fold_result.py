"""The file of a fold's result, which the next run reads after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seedling.train.fold_result import FoldResult


def fold_result(**values: object) -> FoldResult:
    """Two held-out rows, one validation row and three pool rows of two classes, with these values."""
    arrays: dict[str, object] = {
        "labeled": np.array([[0.5, -0.5], [1.0, 2.0]]),
        "labeled_std": np.array([0.0, 0.25]),
        "validation": np.array([[3.0, 4.0]]),
        "pool": np.arange(6, dtype=np.float32).reshape(3, 2),
        "pool_std": np.zeros(3, dtype=np.float32),
        "seconds": 7.5,
        "losses": {"network plain fold 1 half 0": np.array([[1.0, 0.7], [2.0, 0.6]])},
    }
    return FoldResult(**{**arrays, **values})  # type: ignore[arg-type]


def test_a_result_is_read_as_it_was_saved_with_no_seconds(tmp_path: Path) -> None:
    """Arrays and losses are equal, in the same precision; the seconds were those of the killed run."""
    path = tmp_path / "unfinished" / "svm-0.npz"
    saved = fold_result()
    saved.save(path)
    again = FoldResult.load(path)
    assert again is not None
    for name in ("labeled", "labeled_std", "validation", "pool", "pool_std"):
        before, after = getattr(saved, name), getattr(again, name)
        assert after.dtype == before.dtype
        assert (after == before).all()
    assert [*again.losses] == [*saved.losses]
    assert all((again.losses[model] == losses).all() for model, losses in saved.losses.items())
    assert (again.seconds, saved.seconds) == (0.0, 7.5)
    assert [file.name for file in path.parent.iterdir()] == ["svm-0.npz"], "no partial file is left"


def test_a_missing_a_truncated_and_another_file_are_no_result(tmp_path: Path) -> None:
    """The fold is then computed again."""
    path = tmp_path / "svm-0.npz"
    assert FoldResult.load(path) is None
    fold_result().save(path)
    path.write_bytes(path.read_bytes()[:100])
    assert FoldResult.load(path) is None
    np.savez(path, labeled=np.zeros((2, 2)))
    assert FoldResult.load(path) is None


@pytest.mark.parametrize(("name", "value"), [("labeled", np.nan), ("pool", np.inf), ("labeled_std", -np.inf)])
def test_a_prediction_that_is_no_finite_number_is_noticed(name: str, value: float) -> None:
    """In any of the arrays; the others are finite."""
    assert fold_result().is_finite
    array = getattr(fold_result(), name).copy()
    array.ravel()[-1] = value
    assert not fold_result(**{name: array}).is_finite
