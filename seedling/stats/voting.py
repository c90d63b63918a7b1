"""Combines the votes of several voters, such as label rules or reviewers, into one label per item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seedling.dataset.class_indices import index_by_class
from seedling.stats.statistics import Floats

Votes = tuple[tuple[str, str], ...]  # voter and label, in the voters' order
MAX_ITERATIONS, TOLERANCE = 200, 1e-8
PRIOR_VOTES = 1.0  # right votes that each voter has a priori; a tenth as many are wrong


@dataclass(frozen=True, slots=True)
class Agreed:
    """The label that the votes agree on, its probability (0 to 1), and the voters that voted for it."""

    label: str
    confidence: float
    voters: tuple[str, ...]


class Majority:
    """Combines votes into the label with most votes; None for a tie."""

    def __call__(self, votes: Votes) -> Agreed | None:
        """Combine the votes for one item."""
        counts = Counter(label for _, label in votes).most_common()
        if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
            return None
        label, count = counts[0]
        return Agreed(label, count / len(votes), tuple(voter for voter, vote in votes if vote == label))


class DawidSkene:
    """Combines votes with each voter's confusion matrix, which is estimated together with the classes.

    P(class | votes) ∝ prior[class] · ∏_voters confusion[voter, class, vote], over the voters that vote; an
    abstention has no factor. The posterior is the label's confidence. Source: Dawid and Skene (1979).
    """

    def __init__(self, counts: Mapping[Votes, int]) -> None:
        """counts: votes → number of items that have them."""
        self._posterior: dict[Votes, Floats] = {}
        if not counts:
            return
        self._voters = sorted({voter for votes in counts for voter, _ in votes})
        self._labels = sorted({label for votes in counts for _, label in votes})
        label_to_index = index_by_class(self._labels)
        voter_to_index = {voter: index for index, voter in enumerate(self._voters)}
        patterns = sorted(counts)
        weights = np.array([counts[pattern] for pattern in patterns], dtype=float)
        cast = np.zeros((len(patterns), len(self._voters), len(self._labels)))
        for index, votes in enumerate(patterns):
            for voter, label in votes:
                cast[index, voter_to_index[voter], label_to_index[label]] = 1
        self._posterior = dict(zip(patterns, _dawid_skene(cast, weights), strict=True))

    def __call__(self, votes: Votes) -> Agreed | None:
        """Combine the votes for one item; None for a tie."""
        if not votes:
            return None
        posterior = self._posterior[votes]
        best = np.flatnonzero(posterior >= posterior.max() - 1e-9)
        if len(best) > 1:
            return None
        label = self._labels[int(best[0])]
        return Agreed(label, float(posterior[best[0]]), tuple(voter for voter, vote in votes if vote == label))


def _dawid_skene(cast: Floats, weights: Floats) -> Floats:
    """Estimate the posteriors of the labels by expectation maximization, from the majority's shares.

    M-step: prior[t] ∝ Σ_p w_p q_pt + 1, confusion[r, t, l] ∝ Σ_p w_p q_pt cast_prl + PRIOR_VOTES · pseudo-counts.
    E-step: q_pt ∝ prior[t] · ∏_r,l confusion[r, t, l]^cast_prl.
    The pseudo-counts keep a voter with few votes from being estimated as always wrong.

    cast: (n_patterns, n_voters, n_labels), 1 where a voter votes for a label; weights: (n_patterns,), items
    per pattern. Returns (n_patterns, n_labels), rows sum to 1.
    """
    labels = cast.shape[2]
    pseudo_counts = PRIOR_VOTES * (np.eye(labels) + 0.1 / max(1, labels - 1) * (1 - np.eye(labels)))
    shares = cast.sum(axis=1)
    posterior = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    for _ in range(MAX_ITERATIONS):
        weighted = posterior * weights[:, None]
        prior = (weighted.sum(axis=0) + 1) / (weights.sum() + labels)
        confusion = np.einsum("pt,prl->rtl", weighted, cast) + pseudo_counts
        confusion /= confusion.sum(axis=2, keepdims=True)
        logs = np.log(prior) + np.einsum("prl,rtl->pt", cast, np.log(confusion))
        updated = np.exp(logs - logs.max(axis=1, keepdims=True))
        updated /= updated.sum(axis=1, keepdims=True)
        change = float(np.abs(updated - posterior).max(initial=0.0))
        posterior = updated
        if change < TOLERANCE:
            break
    result: Floats = posterior
    return result
