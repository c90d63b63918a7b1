"""How well reviewers agree with each other, with themselves, and with suggestions: pure functions of counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seedling.stats.statistics import Estimate, wilson


def cohens_kappa(counts: Mapping[tuple[str, str], int]) -> float | None:
    """Cohen's kappa of two reviewers (Cohen 1960); None if there is no row or only one class.

    κ = (p_o - p_e) / (1 - p_e), with the share p_o of rows on which both give the same class, and the share p_e
    expected of two independent reviewers, p_e = sum_k p_1k p_2k for the shares p_1k and p_2k of the class k.

    counts: class by the first and class by the second reviewer → rows.
    """
    rows = sum(counts.values())
    first, second = Counter[str](), Counter[str]()
    for (label, other), count in counts.items():
        first[label] += count
        second[other] += count
    expected = sum(first[label] * second[label] for label in first) / rows**2 if rows else 1.0
    if expected >= 1:
        return None
    observed = sum(count for (label, other), count in counts.items() if label == other) / rows
    return (observed - expected) / (1 - expected)


def krippendorffs_alpha(units: Mapping[tuple[str, ...], int]) -> float | None:
    """Krippendorff's alpha of nominal classes (Krippendorff 2011); None if no class differs from another.

    α = 1 - D_o / D_e. With n_uk answers k among the m_u answers of the row u, n_k = sum_u n_uk and n = sum_k n_k over
    rows with at least two answers,

        D_o = sum_u (m_u² - sum_k n_uk²) / (m_u - 1) / n,    D_e = (n² - sum_k n_k²) / (n (n - 1)).

    units: the answers about a row, at most one per reviewer → rows that have these answers.
    """
    totals, disagreement = Counter[str](), 0.0
    for labels, rows in units.items():
        size = len(labels)
        if size < 2:
            continue
        of_row = Counter(labels)
        disagreement += rows * (size**2 - sum(count**2 for count in of_row.values())) / (size - 1)
        for label, count in of_row.items():
            totals[label] += rows * count
    answers = sum(totals.values())
    expected = answers**2 - sum(count**2 for count in totals.values())
    return 1 - (answers - 1) * disagreement / expected if expected else None


def self_agreement(same: int, rows: int, confidence: float = 0.95) -> Estimate | None:
    """The share of rows that a reviewer answered twice alike, p = same / rows; None without a row.

    The interval is Wilson's score interval (1927).
    """
    return wilson(same, rows, confidence) if rows else None


@dataclass(frozen=True)
class SuggestionCounts:
    """Answers about comparable rows: how many, and how many agree with the suggestion, with it shown and hidden."""

    shown_rows: int = 0
    shown_agree: int = 0
    hidden_rows: int = 0
    hidden_agree: int = 0


def automation_bias(strata: Iterable[SuggestionCounts], confidence: float = 0.95) -> Estimate | None:
    """By how much more often answers agree with a suggestion that was shown; None without such rows of both kinds.

    For the strata s of comparable rows with n_1s rows with the suggestion shown and n_0s with it hidden,

        d = sum_s w_s (p_1s - p_0s), w_s ∝ n_1s n_0s / (n_1s + n_0s)       (Mantel and Haenszel 1959),

    with Newcombe's hybrid score interval in each stratum (1998, method 10), (l_s, u_s), and over the strata

        (d - sqrt(sum_s w_s² (d_s - l_s)²), d + sqrt(sum_s w_s² (u_s - d_s)²))  (Zou and Donner 2008).

    Rows that differ between shown and hidden within a stratum bias d: draw both kinds at random, or stratify.
    """
    comparable = [stratum for stratum in strata if stratum.shown_rows and stratum.hidden_rows]
    weights = [
        stratum.shown_rows * stratum.hidden_rows / (stratum.shown_rows + stratum.hidden_rows) for stratum in comparable
    ]
    if not weights:
        return None
    value = below = above = 0.0
    for stratum, weight in zip(comparable, weights, strict=True):
        difference = _difference(stratum, confidence)
        weight /= sum(weights)
        value += weight * difference.value
        below += (weight * (difference.value - difference.low)) ** 2
        above += (weight * (difference.high - difference.value)) ** 2
    return Estimate(value, value - math.sqrt(below), value + math.sqrt(above))


def _difference(stratum: SuggestionCounts, confidence: float) -> Estimate:
    """The difference of two independent shares with Newcombe's interval."""
    with_it = wilson(stratum.shown_agree, stratum.shown_rows, confidence)
    without = wilson(stratum.hidden_agree, stratum.hidden_rows, confidence)
    value = with_it.value - without.value
    below = math.hypot(with_it.value - with_it.low, without.high - without.value)
    above = math.hypot(with_it.high - with_it.value, without.value - without.low)
    return Estimate(value, value - below, value + above)
