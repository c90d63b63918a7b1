"""The section `review` of params.yaml: its defaults, what it accepts, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from seedling.config.params import load
from seedling.config.review_params import ReviewOrder, ReviewParams
from seedling.errors import InputError
from seedling.review.orders import ORDERS

PARAMS = "modality: text\nscrape: {sources: [{kind: folder, path: .}]}\n"


def load_review(folder: Path, section: str) -> ReviewParams:
    """The section of a params.yaml."""
    (folder / "params.yaml").write_text(f"{PARAMS}review: {section}\n", encoding="utf-8")
    return load(folder).review


def test_a_run_does_not_wait_by_default(tmp_path: Path) -> None:
    """Without the section: no wait, and a tenth of the questions are random rows."""
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    review = load(tmp_path).review
    assert (review.wait_after, review.random_share, review.order) == (None, 0.1, "expected_value")


def test_a_key_may_be_one_or_several_and_a_class_a_number(tmp_path: Path) -> None:
    """YAML reads unquoted digits as numbers; they are keys and class names all the same."""
    review = load_review(tmp_path, "{keys: {accept: KeyJ, reject: [KeyK, 7], flag: []}, classes: [1, two, 3.5]}")
    assert review.keys == {"accept": ("KeyJ",), "reject": ("KeyK", "7"), "flag": ()}
    assert review.classes == ("1", "two", "3.5")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{wait_after: train}", "'review.wait_after': input should be 'validate' or 'pseudo_label'"),
        ("{answers: 0}", "'review.answers': input should be greater than or equal to 1"),
        ("{timeout_minutes: 0}", "'review.timeout_minutes': input should be greater than 0"),
        ("{random_share: 0.4, gold_share: 0.2}", "sum to 0.62, and at most half of the questions may be checks"),
        ("{order: oldest}", "'review.order': input should be"),
        ("{keys: {accept: ['']}}", "'review.keys.accept.0'"),
        ("{keys: {accept: null}}", "'review.keys.accept.0'"),
        ("{classes: [cat, cat]}", "the class 'cat' is listed more than once"),
        ("{classes: [cat]}", "lists one class"),
        ("{classes: [cat, '']}", "'review.classes.1'"),
        ("{classes: [cat, true]}", "'review.classes.1'"),
        ("{answer: 5}", r"unknown key 'review.answer' \(did you mean 'answers'\?\)"),
    ],
)
def test_a_value_out_of_range_is_explained(tmp_path: Path, section: str, message: str) -> None:
    """The error names the key and what it may be."""
    with pytest.raises(InputError, match=message):
        load_review(tmp_path, section)


def test_the_orders_of_params_are_those_of_the_queue() -> None:
    """params.yaml is read without the packages that rank rows."""
    assert get_args(ReviewOrder) == ORDERS
