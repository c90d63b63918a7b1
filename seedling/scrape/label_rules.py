"""Weak labels: rules that each read a field of an item, and how several that speak of one item are brought to agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seedling.config.patterns import Pattern
from seedling.config.sources import LabelRule
from seedling.errors import InputError
from seedling.plugins import plugin_functions
from seedling.scrape.items import tidy_label
from seedling.stats.statistics import Floats, wilson

FILE = "labeling.py"  # in data/, so that a change of it is a change of the stage's input
ENTRY_POINTS = "seedling.labeling"
Votes = tuple[tuple[str, str], ...]  # rule and label, in the rules' order
Function = Callable[[Mapping[str, str]], str | None]
ITERATIONS, SETTLED = 200, 1e-8
BEFORE = 1.0  # right votes beforehand of each rule, of which a tenth as many are wrong


class Rules:
    """The rules of a source, ready to be asked."""

    def __init__(self, rules: Sequence[LabelRule], data: Path) -> None:
        """Raises InputError for a name that two rules have, and a function that is nowhere."""
        names = Counter(rule.rule for rule in rules)
        if twice := [name for name, many in names.items() if many > 1]:
            raise InputError(f"params.yaml: two label rules are named '{twice[0]}': give each its own name.")
        own = plugin_functions(data, _file_of(rules), ENTRY_POINTS, "a label rule's function")
        self._rules = [(rule, _asked(rule, own)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def names(self) -> list[str]:
        """The rules' names."""
        return [rule.rule for rule, _ in self._rules]

    def needs_text(self) -> bool:
        """Whether an item's text must be read for it."""
        return any(rule.function or rule.field == "text" for rule, _ in self._rules)

    def votes(self, fields: Mapping[str, str]) -> Votes:
        """What each rule that does not abstain says."""
        said = ((rule.rule, tidy_label(ask(fields))) for rule, ask in self._rules)
        return tuple((name, label) for name, label in said if label)


def _file_of(rules: Sequence[LabelRule]) -> str | None:
    """The file in data/ that is loaded where a rule names a function."""
    return FILE if any(rule.function for rule in rules) else None


def _asked(rule: LabelRule, own: Mapping[str, Function]) -> Function:
    if rule.function is not None:
        if rule.function not in own:
            raise InputError(
                f"params.yaml: rule '{rule.rule}': there is no function '{rule.function}' in data/{FILE} or among installed packages "
                f"(there is: {', '.join(sorted(own)) or 'none'})."
            )
        return partial(_by_function, rule, own[rule.function])
    if rule.words is not None:
        of_label = {
            label: re.compile(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in some) + r")(?!\w)", re.IGNORECASE)
            for label, some in rule.words.items()
            if some
        }
        return partial(_by_words, rule.field, of_label)
    if rule.bands is not None:
        return partial(_by_bands, rule.field, rule.bands)
    return partial(_by_pattern, rule, Pattern(rule.pattern) if rule.pattern else None)


def _by_function(rule: LabelRule, function: Function, fields: Mapping[str, str]) -> str | None:
    try:
        said = function(fields)
    except Exception as error:
        raise InputError(
            f"The labeling function '{rule.function}' stopped at {fields.get('origin')}: {type(error).__name__}: {error}. Mend it in "
            f"data/{FILE}; return None where it has nothing to say."
        ) from error
    return _mapped(rule, None if said is None else str(said))


def _by_words(field: str, of_label: Mapping[str, re.Pattern[str]], fields: Mapping[str, str]) -> str | None:
    """The label whose words stand there; none where two labels' do."""
    value = fields.get(field)
    found = [label for label, some in of_label.items() if some.search(value)] if value else []
    return found[0] if len(found) == 1 else None


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
    found = pattern.search(value)
    return _mapped(rule, None if found is None else found[1] if pattern.groups else found[0])


def _mapped(rule: LabelRule, said: str | None) -> str | None:
    if said is None or not rule.map:
        return said
    return rule.map.get(" ".join(said.split()))


@dataclass(frozen=True, slots=True)
class Agreed:
    """The label that the votes come to, how sure that is (0 to 1), and the rules that say so."""

    label: str
    confidence: float
    rules: tuple[str, ...]


class Majority:
    """The label that most rules name; where two are named as often, none."""

    def __call__(self, votes: Votes) -> Agreed | None:
        """What the votes come to."""
        said = Counter(label for _, label in votes).most_common()
        if not said or (len(said) > 1 and said[0][1] == said[1][1]):
            return None
        label, many = said[0]
        return Agreed(label, many / len(votes), tuple(rule for rule, one in votes if one == label))


class DawidSkene:
    """How often each rule takes one class for another is estimated together with the classes (Dawid and Skene 1979), from the items that
    several rules speak of; a rule that abstains says nothing. The posterior is the confidence.
    """

    def __init__(self, counts: Mapping[Votes, int]) -> None:
        """counts: how many items have these votes."""
        self._posterior: dict[Votes, Floats] = {}
        if not counts:
            return
        self._rules = sorted({rule for votes in counts for rule, _ in votes})
        self._labels = sorted({label for votes in counts for _, label in votes})
        place = {label: number for number, label in enumerate(self._labels)}
        row = {rule: number for number, rule in enumerate(self._rules)}
        patterns = sorted(counts)
        weights = np.array([counts[one] for one in patterns], dtype=float)
        cast = np.zeros((len(patterns), len(self._rules), len(self._labels)))
        for number, votes in enumerate(patterns):
            for rule, label in votes:
                cast[number, row[rule], place[label]] = 1
        self._posterior = dict(zip(patterns, _dawid_skene(cast, weights), strict=True))

    def __call__(self, votes: Votes) -> Agreed | None:
        """What the votes come to."""
        if not votes:
            return None
        likely = self._posterior[votes]
        best = np.flatnonzero(likely >= likely.max() - 1e-9)
        if len(best) > 1:
            return None
        label = self._labels[int(best[0])]
        return Agreed(label, float(likely[best[0]]), tuple(rule for rule, one in votes if one == label))


def _dawid_skene(cast: Floats, weights: Floats) -> Floats:
    """(n_patterns, n_labels) posteriors. cast: (n_patterns, n_rules, n_labels), 1 where a rule says so; weights: items of each pattern.

    Begins with the majority; each rule has some right votes beforehand, so that one of few votes is not taken for always wrong.
    """
    labels = cast.shape[2]
    before = BEFORE * (np.eye(labels) + 0.1 / max(1, labels - 1) * (1 - np.eye(labels)))
    shares = cast.sum(axis=1)
    posterior = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    for _ in range(ITERATIONS):
        heavy = posterior * weights[:, None]
        prior = (heavy.sum(axis=0) + 1) / (weights.sum() + labels)
        confusion = np.einsum("pt,prl->rtl", heavy, cast) + before
        confusion /= confusion.sum(axis=2, keepdims=True)
        logs = np.log(prior) + np.einsum("prl,rtl->pt", cast, np.log(confusion))
        changed = np.exp(logs - logs.max(axis=1, keepdims=True))
        changed /= changed.sum(axis=1, keepdims=True)
        moved = float(np.abs(changed - posterior).max(initial=0.0))
        posterior = changed
        if moved < SETTLED:
            break
    result: Floats = posterior
    return result


class Audit:
    """What the rules did: how many items each speaks of, how often with others and against them, and how often a person agrees."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._votes: Counter[str] = Counter()
        self._overlaps: Counter[str] = Counter()
        self._conflicts: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._right: Counter[str] = Counter()

    def hear(self, votes: Votes, human: str | None) -> None:
        """One item's votes, and the label that a person gave it."""
        for rule, label in votes:
            self._votes[rule] += 1
            self._overlaps[rule] += len(votes) > 1
            self._conflicts[rule] += any(other != label for _, other in votes)
            if human is not None:
                self._judged[rule] += 1
                self._right[rule] += label.casefold() == human.casefold()

    def table(self) -> list[dict[str, Any]]:
        """A row a rule; precision, with Wilson's interval, where people labeled items that it speaks of."""
        return [
            {
                "rule": rule,
                "votes": self._votes[rule],
                "coverage": round(self._votes[rule] / self._items, 6),
                "overlap": round(self._overlaps[rule] / self._items, 6),
                "conflict": round(self._conflicts[rule] / self._items, 6),
                "judged": self._judged[rule],
                "precision": wilson(self._right[rule], self._judged[rule]).rounded() if self._judged[rule] else None,
            }
            for rule in sorted(self._votes)
        ]
