"""The corrected error rate: known limits, an independent integration, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from seedling.review.error_rate import (
    ERROR_PRIOR,
    Counted,
    LabelChecks,
    corrected_error_rate,
    mean_error,
    reviewer_errors,
)
from seedling.stats.statistics import Estimate

TIMES = 1_000_000


def rate_of(checks: LabelChecks, population: int | None = None) -> Estimate:
    """The corrected share of wrong labels."""
    rate = corrected_error_rate(checks, population=population)
    assert rate is not None
    return rate.estimate


def test_a_reviewer_without_errors_gives_jeffreys_interval() -> None:
    """If a million second looks agree, the posterior is Beta(8.5, 92.5), for 8 contradicted labels of 100."""
    estimate = rate_of(LabelChecks({"anna": Counted(100, 8)}, {("anna", "anna"): Counted(TIMES, 0)}, 5))
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx(
        beta.ppf([0.025, 0.5, 0.975], 8.5, 92.5), abs=1e-3
    )


def test_with_many_rows_it_is_the_estimate_of_rogan_and_gladen() -> None:
    """For e = .05 and K = 5, d = .1 · .95 + .0025 · .75 = .096875; with θ = .1, q = .9 · .05 + .1 · .9875 = .14375."""
    checks = LabelChecks({"anna": Counted(TIMES, 143_750)}, {("anna", "anna"): Counted(TIMES, 96_875)}, 5)
    estimate = rate_of(checks)
    assert estimate.value == pytest.approx(0.1, abs=2e-3)
    assert reviewer_errors(checks)["anna"].value == pytest.approx(0.05, abs=2e-3)
    naive = corrected_error_rate(checks)
    assert naive is not None and naive.contradicted.value == pytest.approx(0.14375)


def test_two_reviewers_agree_with_an_integration_by_random_draws() -> None:
    """200,000 draws of θ, e_anna and e_ben from their priors, weighted by the binomial likelihood of all counts."""
    checks = LabelChecks(
        {"anna": Counted(80, 6), "ben": Counted(60, 9)},
        {("anna", "anna"): Counted(15, 1), ("anna", "ben"): Counted(25, 3), ("ben", "ben"): Counted(10, 2)},
        4,
    )
    rng = np.random.default_rng(0)
    draws = 200_000
    rate, (anna, ben) = rng.beta(0.5, 0.5, draws), rng.beta(*ERROR_PRIOR, (2, draws))
    weight = np.ones(draws)
    for error, (rows, differ) in ((anna, (80, 6)), (ben, (60, 9))):
        weight *= binom.pmf(differ, rows, (1 - rate) * error + rate * (1 - error / 3))
    for first, second, rows, differ in ((anna, anna, 15, 1), (anna, ben, 25, 3), (ben, ben, 10, 2)):
        same = (1 - first) * (1 - second) + first * second / 3
        weight *= binom.pmf(differ, rows, 1 - same)
    order = np.argsort(rate)
    cumulative = np.cumsum(weight[order]) / weight.sum()
    expected = np.interp([0.025, 0.5, 0.975], cumulative, rate[order])
    estimate = rate_of(checks)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx(expected, abs=4e-3)
    for name, error in (("anna", anna), ("ben", ben)):
        assert reviewer_errors(checks)[name].value == pytest.approx(
            np.interp(0.5, np.cumsum(weight[np.argsort(error)]) / weight.sum(), np.sort(error)), abs=4e-3
        )


def test_a_shared_row_shows_who_errs() -> None:
    """Anna and Cleo always agree, and Ben differs from both in one of ten rows: the errors are Ben's."""
    checks = LabelChecks(
        {"ben": Counted(100, 10)},
        {
            ("anna", "cleo"): Counted(200, 0),
            ("anna", "ben"): Counted(200, 20),
            ("ben", "cleo"): Counted(150, 15),
        },
        5,
    )
    errors = reviewer_errors(checks)
    assert errors["ben"].value > 0.08 > 0.02 > errors["anna"].value
    assert rate_of(checks).low == pytest.approx(0, abs=1e-3)


def test_contradictions_that_the_reviewers_errors_explain_leave_zero_in_the_interval() -> None:
    """5 of 100 labels are contradicted by a reviewer who errs on 5 % of all rows."""
    estimate = rate_of(
        LabelChecks({"anna": Counted(100, 5)}, {("anna", "anna"): Counted(200, 19)}, 5), population=2_000
    )
    assert estimate.low == 0.0 and 0.02 < estimate.high < 0.1


def test_no_contradiction_gives_an_interval_from_zero() -> None:
    """The upper end for 0 of 100 is that of Jeffreys, .0247, or less."""
    estimate = rate_of(LabelChecks({"anna": Counted(100, 0)}, {("anna", "anna"): Counted(100, 0)}, 5))
    assert estimate.low == 0.0 and 0.015 < estimate.high < 0.026


def test_the_interval_shrinks_as_the_sample_becomes_the_population() -> None:
    """All 200 rows, by a reviewer who never errs: exactly 10 % are wrong."""
    checks = LabelChecks({"anna": Counted(200, 20)}, {("anna", "anna"): Counted(TIMES, 0)}, 5)
    widths = [
        rate_of(checks, population).high - rate_of(checks, population).low for population in (None, 1_000, 300, 200)
    ]
    assert widths == sorted(widths, reverse=True)
    everything = rate_of(checks, 200)
    assert everything.low <= 0.1 <= everything.high and widths[-1] < 0.011


def test_the_ends_are_whole_rows() -> None:
    """Of 50 rows, a multiple of .02 is wrong."""
    estimate = rate_of(LabelChecks({"anna": Counted(20, 3)}, classes=3), 50)
    assert [estimate.low * 50, estimate.high * 50] == pytest.approx(
        [round(estimate.low * 50), round(estimate.high * 50)]
    )


def test_without_second_looks_the_reviewers_error_is_assumed() -> None:
    """The interval is wider than with a reviewer whose second looks all agree, and starts lower."""
    assumed = corrected_error_rate(LabelChecks({"anna": Counted(100, 10)}, classes=5))
    measured = corrected_error_rate(LabelChecks({"anna": Counted(100, 10)}, {("anna", "anna"): Counted(80, 1)}, 5))
    assert assumed is not None and measured is not None
    assert not assumed.is_corrected and measured.is_corrected
    assert assumed.estimate.low < measured.estimate.low
    assert mean_error(LabelChecks({}, classes=5)) == pytest.approx(0.05)


def test_no_random_row_gives_no_estimate() -> None:
    """A log without a random row says nothing of all labels."""
    assert corrected_error_rate(LabelChecks({"anna": Counted(0, 0)}, {("anna", "anna"): Counted(20, 1)}, 5)) is None


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.0, 0.05])
def test_the_interval_covers_the_true_rate(error: float) -> None:
    """Of 1,000 reviewers with 100 random rows and 40 repeats of other data, 93 to 97 % of the intervals contain it."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1_000):
        rate = rng.uniform(0.03, 0.2)
        wrong = rng.random(100) < rate
        contradicts = np.where(wrong, rng.random(100) >= error / 4, rng.random(100) < error)
        looks = rng.random((2, 40)) < error, rng.integers(4, size=(2, 40))
        differ = np.where(looks[0].any(axis=0), looks[0][0] != looks[0][1], False)
        differ |= looks[0].all(axis=0) & (looks[1][0] != looks[1][1])
        counts = Counted(100, int(contradicts.sum())), Counted(40, int(differ.sum()))
        estimate = rate_of(LabelChecks({"anna": counts[0]}, {("anna", "anna"): counts[1]}, 5))
        covered += estimate.low <= rate <= estimate.high
    assert 930 <= covered <= 975
