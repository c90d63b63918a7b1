"""The share of wrong labels among random rows, corrected for the errors of the reviewers who checked them.

A reviewer r errs on a row with the probability e_r. With the true share of wrong labels θ and K classes, the reviewer
contradicts a label with the probability

    q_r = (1 - θ) e_r + θ (1 - e_r c), where c = 1 / (K - 1),

since a wrong answer about a wrong label repeats that label in one of K - 1 cases. Solved for θ, this is the estimate of
Rogan and Gladen (1978), with the sensitivity 1 - e_r c and the specificity 1 - e_r. The errors are estimated from rows
that were answered twice, each time without a suggestion: two looks, by r and s, differ with the probability

    d_rs = e_r (1 - e_s) + e_s (1 - e_r) + e_r e_s (1 - c).

The interval is the central interval of the posterior of θ, with Jeffreys' prior (arcsin sqrt θ is uniform) and the
errors integrated out; its ends are rounded outward to whole rows. It covers as a confidence interval should
(benchmarks/review_coverage.py). The prior of e_r is Beta(ERROR_PRIOR), with a mean of 5 %, and stands in for
measurements if no row was answered twice. If more than two reviewers share rows, the integral uses the pairs of a
maximum spanning tree, for which it is exact.

Assumed: looks are independent given the true class, and a reviewer errs on the rows that were answered twice as often
as on the random ones. A reviewer who makes the same mistake each time agrees with himself, and only another reviewer's
look shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from seedling.stats.statistics import SMALLEST, Estimate, Floats, wilson

N_RATES, N_ERRORS = 400, 50  # points of the grids of θ and e_r
ERROR_PRIOR = (0.5, 9.5)  # of Beta
MIN_SECOND_LOOKS = 10  # with fewer, the reviewers' errors are assumed rather than measured
MAX_PRECISION = 1_000.0  # of the factor by which a sample of a small population is more precise

Pair = tuple[str, str]  # two reviewers in alphabetical order, or one reviewer twice


@dataclass(frozen=True)
class Counted:
    """The number of rows, and of those on which two labels differ."""

    rows: int = 0
    differ: int = 0


@dataclass(frozen=True)
class LabelChecks:
    """What reviewers answered without a suggestion.

    labels: reviewer → random rows that the reviewer answered first, and the labels that the answers contradict.
    second_looks: pair of reviewers → rows that were answered twice, and differing answers. classes: their number.
    """

    labels: Mapping[str, Counted]
    second_looks: Mapping[Pair, Counted] = field(default_factory=dict)
    classes: int = 2


@dataclass(frozen=True)
class CorrectedRate:
    """The share of wrong labels.

    estimate: corrected for the reviewers' errors; contradicted: the share of labels that reviewers contradict, which
    includes their errors; rows: random rows; second_looks: rows that were answered twice without a suggestion.
    """

    estimate: Estimate
    contradicted: Estimate
    rows: int
    second_looks: int

    @property
    def is_corrected(self) -> bool:
        """Whether enough rows were answered twice to measure the reviewers' errors."""
        return self.second_looks >= MIN_SECOND_LOOKS


def corrected_error_rate(
    checks: LabelChecks, *, population: int | None = None, confidence: float = 0.95
) -> CorrectedRate | None:
    """Estimate the share of wrong labels; None without a random row.

    population: the number of rows that the random rows were drawn from, None: many more. confidence: the probability
    inside the interval.
    """
    rows = sum(counted.rows for counted in checks.labels.values())
    if not rows:
        return None
    log_likelihood = _log_likelihood(checks)
    if population is not None:
        rate = float(_weights(log_likelihood) @ _rates())
        log_likelihood = _log_likelihood(checks, _precision(rate, checks, min(1.0, rows / population)))
    differ = sum(counted.differ for counted in checks.labels.values())
    return CorrectedRate(
        estimate=_central_interval(log_likelihood, population, confidence),
        contradicted=wilson(differ, rows, confidence),
        rows=rows,
        second_looks=sum(counted.rows for counted in checks.second_looks.values()),
    )


def reviewer_errors(checks: LabelChecks, confidence: float = 0.95) -> dict[str, Estimate]:
    """The share of wrong answers without a suggestion, by reviewer: posterior median and central interval."""
    errors = {}
    for reviewer in sorted({*checks.labels, *(name for pair in checks.second_looks for name in pair)}):
        joint = _joint_log_likelihood(checks, reviewer)
        weights = np.exp(joint - joint.max()).sum(axis=0)
        cumulative = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
        quantiles = np.interp(_tails(confidence), cumulative, np.arange(N_ERRORS + 1) / N_ERRORS)
        low, value, high = (float(error) for error in _prior_quantiles(quantiles))
        errors[reviewer] = Estimate(value, low, high)
    return errors


def mean_error(checks: LabelChecks) -> float:
    """The approximate mean share of wrong answers: half of the differing second looks, with the prior's pseudo-counts.

    It is (a + sum differ / 2) / (a + b + sum rows) for the prior Beta(a, b).
    """
    wrong, right = ERROR_PRIOR
    looks = checks.second_looks.values()
    differ, rows = sum(counted.differ for counted in looks), sum(counted.rows for counted in looks)
    return (wrong + differ / 2) / (wrong + right + rows)


@cache
def _rates() -> Floats:
    """(N_RATES,): the grid of θ, equally likely under Jeffreys' prior."""
    return np.asarray(np.sin((np.arange(N_RATES) + 0.5) / N_RATES * np.pi / 2) ** 2)


def _prior_quantiles(probabilities: Floats) -> Floats:
    from scipy.stats import beta

    return np.asarray(beta.ppf(probabilities, *ERROR_PRIOR), dtype=np.float64)


@cache
def _errors() -> Floats:
    """(N_ERRORS,): the grid of e_r, equally likely under its prior."""
    return _prior_quantiles((np.arange(N_ERRORS) + 0.5) / N_ERRORS)


def _coincidence(classes: int) -> float:
    """c: the probability that one wrong answer equals another wrong label."""
    return 1 / max(1, classes - 1)


@cache
def _logs_of_labels(classes: int) -> tuple[Floats, Floats]:
    """(N_RATES, N_ERRORS) each: log q and log(1 - q)."""
    rates, errors = _rates()[:, None], _errors()
    contradicts = (1 - rates) * errors + rates * (1 - errors * _coincidence(classes))
    return _logs(contradicts)


@cache
def _logs_of_looks(classes: int) -> tuple[Floats, Floats]:
    """(N_ERRORS, N_ERRORS) each: log d and log(1 - d)."""
    first, second = _errors()[:, None], _errors()
    differ = first * (1 - second) + second * (1 - first) + first * second * (1 - _coincidence(classes))
    return _logs(differ)


def _logs(shares: Floats) -> tuple[Floats, Floats]:
    clipped = np.clip(shares, SMALLEST, 1 - SMALLEST)
    return np.log(clipped), np.log1p(-clipped)


def _of_counts(counted: Counted, logs: tuple[Floats, Floats]) -> Floats:
    """The binomial log likelihood, up to a constant."""
    return counted.differ * logs[0] + (counted.rows - counted.differ) * logs[1]


def _spanning_tree(checks: LabelChecks) -> dict[str, set[str]]:
    """Reviewer → reviewers next to it in a maximum spanning forest by shared rows (Kruskal 1956)."""
    neighbors: dict[str, set[str]] = {reviewer: set() for reviewer in checks.labels}
    neighbors |= {reviewer: set() for pair in checks.second_looks for reviewer in pair}
    tree_of = {reviewer: reviewer for reviewer in neighbors}
    for (first, second), _ in sorted(checks.second_looks.items(), key=lambda item: (-item[1].rows, item[0])):
        kept, merged = tree_of[first], tree_of[second]
        if kept != merged:
            neighbors[first].add(second)
            neighbors[second].add(first)
            tree_of = {reviewer: kept if tree == merged else tree for reviewer, tree in tree_of.items()}
    return neighbors


def _log_likelihood(checks: LabelChecks, precision: float = 1.0) -> Floats:
    """(N_RATES,): the log likelihood of θ with the errors integrated out, up to a constant.

    precision: the factor of `_precision`.
    """
    neighbors = _spanning_tree(checks)
    total, visited = np.zeros(N_RATES), set[str]()
    for root in sorted(neighbors):
        if root not in visited:
            log_scores = _messages(checks, root, None, neighbors, visited, precision)
            total += _log_mean(log_scores)
    return total


def _joint_log_likelihood(checks: LabelChecks, reviewer: str) -> Floats:
    """(N_RATES, N_ERRORS): the log likelihood of θ and of the reviewer's error, up to a constant."""
    neighbors = _spanning_tree(checks)
    visited = set[str]()
    joint = _messages(checks, reviewer, None, neighbors, visited, 1.0)
    for root in sorted(neighbors):
        if root not in visited:
            joint = joint + _log_mean(_messages(checks, root, None, neighbors, visited, 1.0))[:, None]
    return joint


def _messages(
    checks: LabelChecks,
    reviewer: str,
    parent: str | None,
    neighbors: Mapping[str, set[str]],
    visited: set[str],
    precision: float,
) -> Floats:
    """(N_RATES, N_ERRORS): the log likelihood of θ and the reviewer's error from the subtree below the reviewer."""
    visited.add(reviewer)
    looks = _logs_of_looks(checks.classes)
    scores = precision * _of_counts(checks.labels.get(reviewer, Counted()), _logs_of_labels(checks.classes))
    repeats = _of_counts(checks.second_looks.get((reviewer, reviewer), Counted()), looks)
    scores = scores + np.diagonal(repeats)
    for other in sorted(neighbors[reviewer] - {parent}):
        below = _messages(checks, other, reviewer, neighbors, visited, precision)
        pair = (min(reviewer, other), max(reviewer, other))
        between = _of_counts(checks.second_looks[pair], looks)  # symmetric
        scores = scores + _log_product(below, between)
    return scores


def _log_product(below: Floats, between: Floats) -> Floats:
    """(N_RATES, N_ERRORS): log sum_e exp(below[θ, e] + between[e, e'])."""
    largest, reach = below.max(axis=1, keepdims=True), between.max()
    product = np.exp(below - largest) @ np.exp(between - reach)
    return np.asarray(np.log(np.maximum(product, np.finfo(np.float64).tiny)) + largest + reach)


def _log_mean(log_scores: Floats) -> Floats:
    largest = log_scores.max(axis=1)
    return np.asarray(np.log(np.exp(log_scores - largest[:, None]).mean(axis=1)) + largest)


def _weights(log_likelihood: Floats) -> Floats:
    weights = np.exp(log_likelihood - log_likelihood.max())
    return np.asarray(weights / weights.sum())


def _precision(rate: float, checks: LabelChecks, sampled: float) -> float:
    """The factor by which the rows say more about a population of which they are the share `sampled`.

    Of the variance q (1 - q), the part (1 - e - e c)² θ (1 - θ) is due to the choice of rows; in a sample without
    replacement, its share `sampled` is absent.
    """
    coincidence = _coincidence(checks.classes)
    error = mean_error(checks)
    contradicts = (1 - rate) * error + rate * (1 - error * coincidence)
    variance = contradicts * (1 - contradicts)
    absent = sampled * (1 - error - error * coincidence) ** 2 * rate * (1 - rate)
    return min(MAX_PRECISION, variance / max(variance - absent, variance / MAX_PRECISION))


def _tails(confidence: float) -> Floats:
    return np.array([(1 - confidence) / 2, 0.5, (1 + confidence) / 2])


def _central_interval(log_likelihood: Floats, population: int | None, confidence: float) -> Estimate:
    """The posterior median, and the interval from the lower to the upper quantile.

    It starts at 0 if θ = 0 is likeliest, and ends at 1 if θ = 1 is, as Brown, Cai and DasGupta (2001) advise.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(_weights(log_likelihood))])
    angles = np.interp(_tails(confidence), cumulative, np.arange(N_RATES + 1) / N_RATES * np.pi / 2)
    low, value, high = (math.sin(angle) ** 2 for angle in angles)
    likeliest = int(log_likelihood.argmax())
    if likeliest == 0:
        low = 0.0
    elif likeliest == N_RATES - 1:
        high = 1.0
    if population is not None:
        low, high = math.floor(low * population) / population, min(1.0, math.ceil(high * population) / population)
    return Estimate(value, low, high)
