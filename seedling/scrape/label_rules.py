"""Weak labels: rules that each read a field of an item, and label models that combine the votes of several rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from seedling.config.patterns import Pattern
from seedling.config.sources import LabelRule
from seedling.dataset.class_indices import index_by_class
from seedling.errors import InputError
from seedling.plugins import defined_in, plugin_functions
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import RuleRecord
from seedling.scrape.items import tidy_label
from seedling.stats.statistics import Floats, wilson
from seedling.workspace import LABELING_FILE

ENTRY_POINTS = "seedling.labeling"
Votes = tuple[tuple[str, str], ...]  # rule and label, in the rules' order
Function = Callable[[Mapping[str, str]], str | None]
MAX_ITERATIONS, TOLERANCE = 200, 1e-8
PRIOR_VOTES = 1.0  # right votes that each rule has a priori; a tenth as many are wrong


class Rules:
    """The rules of a source, ready to be applied."""

    def __init__(self, rules: Sequence[LabelRule], data: Path) -> None:
        """Raises InputError for a name that two rules have, and for an unknown function."""
        names = Counter(rule.rule for rule in rules)
        if duplicates := [name for name, count in names.items() if count > 1]:
            raise InputError(f"params.yaml: two label rules are named '{duplicates[0]}': give each its own name.")
        plugins = plugin_functions(data, _file_of(rules), ENTRY_POINTS, "a label rule's function")
        self._rules = [(rule, _function_of(rule, plugins)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def names(self) -> list[str]:
        """Return the rules' names."""
        return [rule.rule for rule, _ in self._rules]

    def needs_text(self) -> bool:
        """Whether a rule reads an item's text."""
        return any(rule.function or rule.field == "text" for rule, _ in self._rules)

    def votes(self, fields: Mapping[str, str]) -> Votes:
        """Return the label of each rule that does not abstain."""
        labels = ((rule.rule, tidy_label(apply(fields))) for rule, apply in self._rules)
        return tuple((name, label) for name, label in labels if label)


def _file_of(rules: Sequence[LabelRule]) -> str | None:
    """Return the file in data/ with labeling functions, if a rule names a function."""
    return LABELING_FILE if any(rule.function for rule in rules) else None


def _function_of(rule: LabelRule, plugins: Mapping[str, Function]) -> Function:
    if rule.function is not None:
        if rule.function not in plugins:
            raise InputError(
                f"params.yaml: rule '{rule.rule}': there is no function '{rule.function}' in data/{LABELING_FILE} or "
                f"among installed packages (there is: {', '.join(sorted(plugins)) or 'none'})."
            )
        return partial(_by_function, rule, plugins[rule.function])
    if rule.words is not None:
        pattern_by_label = {
            label: re.compile(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in words) + r")(?!\w)", re.IGNORECASE)
            for label, words in rule.words.items()
            if words
        }
        return partial(_by_words, rule.field, pattern_by_label)
    if rule.bands is not None:
        return partial(_by_bands, rule.field, rule.bands)
    return partial(_by_pattern, rule, Pattern(rule.pattern) if rule.pattern else None)


def _by_function(rule: LabelRule, function: Function, fields: Mapping[str, str]) -> str | None:
    try:
        label = function(fields)
    except Exception as error:
        raise InputError(
            f"The labeling function '{rule.function}' stopped at {fields.get('origin')}: {type(error).__name__}: "
            f"{error}. Fix it in {defined_in(function)}; return None to abstain."
        ) from error
    return _mapped(rule, None if label is None else str(label))


def _by_words(field: str, pattern_by_label: Mapping[str, re.Pattern[str]], fields: Mapping[str, str]) -> str | None:
    """Return the label that has a word in the field; None if two labels have."""
    value = fields.get(field)
    labels = [label for label, pattern in pattern_by_label.items() if pattern.search(value)] if value else []
    return labels[0] if len(labels) == 1 else None


def _by_bands(field: str, bands: Mapping[str, tuple[float, float]], fields: Mapping[str, str]) -> str | None:
    try:
        value = float(fields.get(field, ""))
    except ValueError:
        return None
    return next((label for label, (low, high) in bands.items() if low <= value < high), None)


def _by_pattern(rule: LabelRule, pattern: Pattern | None, fields: Mapping[str, str]) -> str | None:
    value = fields.get(rule.field)
    if value is None or pattern is None:
        return _mapped(rule, value)
    match = pattern.search(value)
    return _mapped(rule, None if match is None else match[1] if pattern.groups else match[0])


def _mapped(rule: LabelRule, label: str | None) -> str | None:
    if label is None or not rule.map:
        return label
    return rule.map.get(" ".join(label.split()))


@dataclass(frozen=True, slots=True)
class Agreed:
    """The label that the votes agree on, its probability (0 to 1), and the rules that voted for it."""

    label: str
    confidence: float
    rules: tuple[str, ...]


class Majority:
    """Combines votes into the label with most votes; None for a tie."""

    def __call__(self, votes: Votes) -> Agreed | None:
        """Combine the votes for one item."""
        counts = Counter(label for _, label in votes).most_common()
        if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
            return None
        label, count = counts[0]
        return Agreed(label, count / len(votes), tuple(rule for rule, vote in votes if vote == label))


class DawidSkene:
    """Combines votes with each rule's confusion matrix, which is estimated together with the classes.

    P(class | votes) ∝ prior[class] · ∏_rules confusion[rule, class, vote], over the rules that vote; an abstention has
    no factor. The posterior is the label's confidence. Source: Dawid and Skene (1979).
    """

    def __init__(self, counts: Mapping[Votes, int]) -> None:
        """counts: votes → number of items that have them."""
        self._posterior: dict[Votes, Floats] = {}
        if not counts:
            return
        self._rules = sorted({rule for votes in counts for rule, _ in votes})
        self._labels = sorted({label for votes in counts for _, label in votes})
        label_to_index = index_by_class(self._labels)
        rule_to_index = {rule: index for index, rule in enumerate(self._rules)}
        patterns = sorted(counts)
        weights = np.array([counts[pattern] for pattern in patterns], dtype=float)
        cast = np.zeros((len(patterns), len(self._rules), len(self._labels)))
        for index, votes in enumerate(patterns):
            for rule, label in votes:
                cast[index, rule_to_index[rule], label_to_index[label]] = 1
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
        return Agreed(label, float(posterior[best[0]]), tuple(rule for rule, vote in votes if vote == label))


def _dawid_skene(cast: Floats, weights: Floats) -> Floats:
    """Estimate the posteriors of the labels by expectation maximization, from the majority's shares.

    M-step: prior[t] ∝ Σ_p w_p q_pt + 1, confusion[r, t, l] ∝ Σ_p w_p q_pt cast_prl + PRIOR_VOTES · pseudo-counts.
    E-step: q_pt ∝ prior[t] · ∏_r,l confusion[r, t, l]^cast_prl.
    The pseudo-counts keep a rule with few votes from being estimated as always wrong.

    cast: (n_patterns, n_rules, n_labels), 1 where a rule votes for a label; weights: (n_patterns,), items per pattern.
    Returns (n_patterns, n_labels), rows sum to 1.
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


class Audit:
    """Counts each rule's votes, overlaps, conflicts with other rules, and agreement with human labels."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._votes: Counter[str] = Counter()
        self._overlaps: Counter[str] = Counter()
        self._conflicts: Counter[str] = Counter()
        self._evaluated: Counter[str] = Counter()
        self._right: Counter[str] = Counter()

    def add(self, votes: Votes, human: str | None) -> None:
        """Count one item's votes, with its human label if it has one."""
        for rule, label in votes:
            self._votes[rule] += 1
            self._overlaps[rule] += len(votes) > 1
            self._conflicts[rule] += any(other != label for _, other in votes)
            if human is not None:
                self._evaluated[rule] += 1
                self._right[rule] += label.casefold() == human.casefold()

    def table(self) -> tuple[RuleRecord, ...]:
        """Return statistics per rule; precision, with Wilson's interval, on the items that have a human label."""
        return tuple(
            RuleRecord(
                rule=rule,
                votes=self._votes[rule],
                coverage=round(self._votes[rule] / self._items, 6),
                overlap=round(self._overlaps[rule] / self._items, 6),
                conflict=round(self._conflicts[rule] / self._items, 6),
                evaluated=self._evaluated[rule],
                precision=(
                    EstimateRecord.of(wilson(self._right[rule], self._evaluated[rule]))
                    if self._evaluated[rule]
                    else None
                ),
            )
            for rule in sorted(self._votes)
        )
