"""Kappa, alpha, self-agreement and automation bias agree with hand calculations, papers and peer libraries."""

from __future__ import annotations

from collections import Counter

import pytest
from sklearn.metrics import cohen_kappa_score

from seedling.review.agreement import (
    SuggestionCounts,
    automation_bias,
    cohens_kappa,
    krippendorffs_alpha,
    self_agreement,
)

FIRST = ["a"] * 10 + ["b"] * 8 + ["c"] * 7
SECOND = ["a"] * 8 + ["b"] * 2 + ["b"] * 5 + ["c"] * 3 + ["c"] * 6 + ["a"]


def test_kappa_of_two_classes_by_hand() -> None:
    """Of 50 rows, 20 + 15 agree: p_o = .7, p_e = .5 · .6 + .5 · .4 = .5, κ = .2 / .5."""
    counts = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    assert cohens_kappa(counts) == pytest.approx(0.4)


def test_kappa_of_three_classes_is_that_of_scikit_learn() -> None:
    """The same 25 pairs of answers."""
    kappa = cohens_kappa(Counter(zip(FIRST, SECOND, strict=True)))
    assert kappa == pytest.approx(cohen_kappa_score(FIRST, SECOND))


@pytest.mark.parametrize("counts", [{}, {("a", "a"): 7}])
def test_kappa_is_unknown_without_two_classes(counts: dict[tuple[str, str], int]) -> None:
    """Two reviewers who only ever give one class agree as by chance."""
    assert cohens_kappa(counts) is None


def test_alpha_of_krippendorffs_example() -> None:
    """Krippendorff (2011), section C: four observers, twelve units, missing answers; `krippendorff` 0.9.0: 0.743421."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = Counter(tuple(answer for answer in unit if answer != ".") for unit in zip(*observers, strict=True))
    assert krippendorffs_alpha(units) == pytest.approx(0.743421052631579)


def test_alpha_of_two_reviewers() -> None:
    """`krippendorff` 0.9.0, level nominal, on the same 25 pairs: 0.645356."""
    assert krippendorffs_alpha(Counter(zip(FIRST, SECOND, strict=True))) == pytest.approx(0.6453558504221953)


def test_alpha_is_unknown_if_nothing_differs() -> None:
    """A row with one answer does not count, and one class says nothing of agreement."""
    assert krippendorffs_alpha({("a",): 5, ("a", "a"): 3}) is None


def test_self_agreement_has_wilsons_interval() -> None:
    """8 of 10: Wilson's interval is .4902 to .9433 (Newcombe 1998, method 3)."""
    share = self_agreement(8, 10)
    assert share is not None
    assert (share.value, share.low, share.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert self_agreement(0, 0) is None


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        (SuggestionCounts(70, 56, 80, 48), 0.05243147, 0.33387265),
        (SuggestionCounts(100, 90, 12, 7), 0.08120828, 0.5842605),
    ],
)
def test_automation_bias_of_one_stratum_has_newcombes_interval(
    counts: SuggestionCounts, low: float, high: float
) -> None:
    """56/70 - 48/80 is an example of Newcombe (1998); statsmodels 0.15.0, method newcomb, gives the same digits."""
    bias = automation_bias([counts])
    assert bias is not None
    assert (bias.low, bias.high) == pytest.approx((low, high), abs=1e-7)


def test_rows_are_compared_within_a_stratum() -> None:
    """Both strata have no difference, although the shares of all rows are 30/110 and 81/110: Simpson's paradox."""
    hard, easy = SuggestionCounts(100, 20, 10, 2), SuggestionCounts(10, 9, 100, 90)
    bias = automation_bias([hard, easy, SuggestionCounts(shown_rows=50, shown_agree=50)])
    assert bias is not None
    assert bias.value == pytest.approx(0.0)
    assert bias.low < 0 < bias.high


def test_automation_bias_is_unknown_without_hidden_suggestions() -> None:
    """Nothing can be compared."""
    assert automation_bias([SuggestionCounts(shown_rows=5, shown_agree=5)]) is None
