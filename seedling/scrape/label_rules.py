"""Weak labels: rules that each read a field of an item. seedling/stats/voting.py combines their votes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from seedling.config.patterns import Pattern
from seedling.config.sources import LabelRule
from seedling.errors import InputError
from seedling.plugins import defined_in, plugin_functions
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import RuleRecord
from seedling.scrape.items import tidy_label
from seedling.stats.statistics import wilson
from seedling.stats.voting import Votes
from seedling.workspace import LABELING_FILE

ENTRY_POINTS = "seedling.labeling"
Function = Callable[[Mapping[str, str]], str | None]


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
