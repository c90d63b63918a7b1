"""Reads the values of a label column: unpacks lists of one, structs, bytes and whole floats; rejects other values."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from seedling.errors import InputError
from seedling.scrape.items import has_lone_surrogate, tidy_label

NO_LABEL_WORDS = frozenset({"nan", "<na>", "nat", "null", "#n/a", "unlabeled", "unlabelled"})  # never a class name
MAYBE_NO_LABEL = frozenset({"none", "n/a", "na", "nil", "undefined", "unknown", "?", "-"})  # may be a class name
MINUS_ONE = "-1"
LABEL_KEYS = ("label", "name", "class", "value", "id")
WHOLE_FLOAT = re.compile(r"[+-]?\d+\.0*")
WHOLE_NUMBER = re.compile(r"[+-]?\d+")
# A list of one, or bytes, as str() writes them, in a text file: ['good'], ["good"], [3], [], b'good'.
WRITTEN_VALUE = re.compile(
    r"""\[\s*\]|\[\s*(?:'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?)\s*(?:,[^\]]*)?\]|b(?:'[^']*'|"[^"]*")"""
)
SEVERAL, UNREADABLE, SURROGATE = "several_labels", "unreadable_label", "lone_surrogate"
ASK_MINUS_ONE = (
    "set `no_label: ['-1']` for this source in params.yaml if it stands for no label, `no_label: []` if it is a class."
)


@dataclass(frozen=True, slots=True)
class LabelValue:
    """The label of a value. reason: why the row is rejected; change: how the value was converted."""

    label: str | None = None
    reason: str | None = None
    change: str | None = None


def label_value(value: Any, class_names: Sequence[str] = (), no_label: Collection[str] | None = None) -> LabelValue:
    """Return the label of a cell of a label column.

    class_names: of a column of class numbers, if the table has them (`ClassLabel` of the Hub's `datasets`).
    no_label: the values that stand for no label; None: NO_LABEL_WORDS.
    """
    if value is None or value != value:
        return LabelValue()
    if class_names and isinstance(value, int) and not isinstance(value, bool):
        class_name = class_names[value] if 0 <= value < len(class_names) else None
        return LabelValue(None if class_name is None else tidy_label(class_name))
    word, reason, change = _word(value)
    if word is None or reason is not None:
        return LabelValue(None, reason, change)
    if has_lone_surrogate(word):
        return LabelValue(None, SURROGATE)
    label = tidy_label(word)
    if label is not None and label != " ".join(word.split()):
        change = change or "invisible or full-width characters removed"
    if label is not None and (label.casefold() in NO_LABEL_WORDS if no_label is None else label in no_label):
        return LabelValue(None, None, f"'{label}' read as no label")
    return LabelValue(label, None, change)


def _word(value: Any) -> tuple[str | None, str | None, str | None]:
    """Return (word, reason, change)."""
    if isinstance(value, str):
        return _written(value)
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode("utf-8-sig"), None, "bytes decoded"
        except UnicodeDecodeError:
            return None, UNREADABLE, None
    if isinstance(value, Mapping):
        return _of_struct(value)
    if isinstance(value, list | tuple | set):
        members = [member for member in value if member is not None and member != ""]
        if len(members) > 1:
            return None, SEVERAL, None
        word, reason, _ = _word(members[0]) if members else (None, None, None)
        return word, reason, "list of one label unpacked" if members else "empty list read as no label"
    if isinstance(value, float | Decimal):
        whole = value == value.to_integral_value() if isinstance(value, Decimal) and value.is_finite() else False
        if whole or (isinstance(value, float) and value.is_integer()):
            return str(int(value)), None, "whole number written without decimals"
    return str(value), None, None


def _written(text: str) -> tuple[str | None, str | None, str | None]:
    bare = text.strip()
    if WHOLE_FLOAT.fullmatch(bare):
        return str(int(Decimal(bare))), None, "whole number written without decimals"
    if WRITTEN_VALUE.fullmatch(bare):
        try:
            return _word(ast.literal_eval(bare))
        except (ValueError, SyntaxError):
            return text, None, None
    return text, None, None


def _of_struct(value: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    filled = {str(key).casefold(): member for key, member in value.items() if member is not None}
    members = list(filled.values())
    if len(members) > 1:
        members = [filled[key] for key in LABEL_KEYS if key in filled][:1]
        if not members:
            return None, UNREADABLE, None
    word, reason, _ = _word(members[0]) if members else (None, None, None)
    return word, reason, "label read from a struct"


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The number of rows per label in each split of a table."""

    of_split: Mapping[str, Counter[str]]

    def total(self) -> Counter[str]:
        """Return the counts over all splits."""
        return sum(self.of_split.values(), Counter())


def minus_one_is_no_label(counts: LabelCounts, table: str) -> bool:
    """Whether -1 stands for no label, as in GLUE's test splits and scikit-learn's semi-supervised learners.

    It is a class if the only other label is 1, as for a support vector machine, or if other labels are words. It means
    no label if each split that has it has no other label. Raises InputError if it may be either, as beside 0 and 1.
    table: its name, for the message.
    """
    total = counts.total()
    others = set(total) - {MINUS_ONE}
    if MINUS_ONE not in total or others == {"1"} or not all(WHOLE_NUMBER.fullmatch(label) for label in others):
        return False
    if all(set(labels) == {MINUS_ONE} for labels in counts.of_split.values() if MINUS_ONE in labels):
        return True
    listed = ", ".join(sorted(others)[:5])
    raise InputError(
        f"{table}: {total[MINUS_ONE]:,} of {total.total():,} rows have the label -1, the others {listed}: it may be a "
        f"class or stand for no label: {ASK_MINUS_ONE}"
    )
