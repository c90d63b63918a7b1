"""A grammar of templates: "Find me a {cuisine} restaurant [within {number:1-1000} {unit} of {place}]".

{slot}          one of the slot's values, the same wherever the slot stands; {n:1-1000} and {n:0.5-3:0.5} are numbers, with a step
[…]             a part that may be left out; they may stand in one another
a {slot}        becomes "an" where the value begins with a vowel's sound
{{ }} [[ ]]     the brackets themselves; ]] ends two parts where two are open
A template is compiled to variants, one for every choice of optional parts; a variant's sentences are numbered in the mixed radix of its slots, less what
`never` forbids. So their number is known before any is made.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.params import SlotFile, Template

TOKENS = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{([^{}]*)\}|[\[\]{}]|[^\[\]{}]+")
RANGE = re.compile(r"^(-?[\d.]+)-(-?[\d.]+)(?::([\d.]+))?$")
ARTICLE = re.compile(r"(?:^|(?<=[\s\"'(]))([Aa])n?\s+$")
SILENT_H = ("hour", "honest", "honour", "honor", "heir")
LIKE_YOU = (
    "uni",
    "use",
    "usu",
    "usa",
    "eu",
    "one",
    "once",
    "ubi",
    "uti",
    "ufo",
    "ute",
    "uk",
)  # begin with a vowel, and do not sound so
EIGHTS = re.compile(r"^(8|11$|18$|11\D|18\D|1[18]\d{3}(\D|$))")
MOST_VARIANTS = 4096
MOST_VALUES = 1_000_000
FEW = 200_000  # sentences: up to here all are weighed against one another; beyond, they are drawn and repeats are drawn again
TRIES = 50


@dataclass(frozen=True)
class Slot:
    """values: as they are written; weights: (n,), sum to 1."""

    name: str
    values: tuple[str, ...]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A template with its optional parts decided.

    literals: one more than places; places: the slot's number at each, shown: its values there, with their article; never: boxes of forbidden
    combinations, slot number → which values.
    """

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]
    places: tuple[int, ...]
    shown: tuple[tuple[str, ...], ...]
    never: tuple[Mapping[int, NDArray[np.bool_]], ...]

    @property
    def sizes(self) -> list[int]:
        """How many values each slot has."""
        return [len(slot.values) for slot in self.slots]

    def count(self) -> int:
        """Its sentences: the product of its slots, less what is forbidden (inclusion and exclusion over the boxes)."""
        total = math.prod(self.sizes)
        for many in range(1, len(self.never) + 1):
            for some in itertools.combinations(self.never, many):
                total += (-1) ** many * self._in_all(some)
        return total

    def _in_all(self, boxes: Sequence[Mapping[int, NDArray[np.bool_]]]) -> int:
        left = list(self.sizes)
        for slot in {one for box in boxes for one in box}:
            left[slot] = int(np.logical_and.reduce([box[slot] for box in boxes if slot in box]).sum())
        return math.prod(left)

    def allowed(self, chosen: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
        """Which combinations may be said. chosen: one array of value numbers a slot, all (n,)."""
        many = len(chosen[0]) if chosen else 1
        fine = np.ones(many, dtype=bool)
        for box in self.never:
            fine &= ~np.logical_and.reduce([mask[chosen[slot]] for slot, mask in box.items()])
        return fine

    def weights(self, chosen: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
        """(n,): of each combination, the product of its values'."""
        found = np.ones(len(chosen[0]) if chosen else 1)
        for slot, values in zip(self.slots, chosen, strict=True):
            found *= slot.weights[values]
        return found

    def said(self, chosen: Sequence[NDArray[np.intp]]) -> list[str]:
        """The sentences of these combinations."""
        many = len(chosen[0]) if chosen else 1
        columns: list[Sequence[str] | Iterator[str]] = []
        for literal, place, shown in zip(self.literals, self.places, self.shown, strict=False):
            columns += [itertools.repeat(literal, many), [shown[value] for value in chosen[place]]]
        columns.append(itertools.repeat(self.literals[-1], many))
        found = ["".join(parts) for parts in zip(*columns, strict=True)]
        return [" ".join(text.split()) for text in found] if self._loose else found

    @property
    def _loose(self) -> bool:
        """Whether leaving parts out has left two blanks in a row, or one at an end."""
        return (
            any("  " in one for one in self.literals)
            or self.literals[0][:1] == " "
            or self.literals[-1][-1:] == " "
            or any(first[-1:] == " " == second[:1] for first, second in itertools.pairwise(self.literals))
        )


def compile_template(template: Template, data: Path | None = None, label: str | None = None) -> list[Variant]:
    """The template's variants. data: where files of slot values lie; label: what {label} says.

    Raises InputError for brackets that do not close, a slot without values, a range that is none, and more than MOST_VARIANTS choices.
    """
    values = {"label": (label,)} if label is not None else {}
    pieces = _parsed(template)
    choices = _choices(pieces)
    if len(choices) > MOST_VARIANTS:
        raise _wrong(template, f"its optional parts allow {len(choices):,} choices: more than {MOST_VARIANTS:,}")
    slots: dict[str, Slot] = {name: Slot(name, tuple(map(str, some)), np.ones(1)) for name, some in values.items()}
    found: dict[tuple[str, ...], Variant] = {}
    for choice in choices:
        variant = _variant(template, choice, slots, data)
        found.setdefault((*variant.literals, *(variant.slots[place].name for place in variant.places)), variant)
    return list(found.values())


@dataclass(frozen=True)
class Place:
    """Where a slot stands, with the range that is written there."""

    name: str
    given: str | None


@dataclass(frozen=True)
class Optional:
    """A part that may be left out."""

    pieces: list[Piece]


Piece = str | Place | Optional


def _parsed(template: Template) -> list[Piece]:
    stack: list[list[Piece]] = [[]]
    end = 0
    for token in TOKENS.finditer(template.text):
        end, text = token.end(), token[0]
        if text == "]]" and len(stack) > 2:  # two parts end here
            stack[-2].append(Optional(stack.pop()))
            stack[-2].append(Optional(stack.pop()))
        elif text in {"{{", "}}", "[[", "]]"}:
            stack[-1].append(text[0])
        elif text == "[":
            stack.append([])
        elif text == "]":
            if len(stack) == 1:
                raise _wrong(template, "a ] closes nothing: write ]] for the bracket itself")
            inner = Optional(stack.pop())
            stack[-1].append(inner)
        elif token[1] is not None:
            name, _, given = token[1].partition(":")
            if not name.strip().isidentifier():
                raise _wrong(
                    template,
                    f"{{{token[1]}}} names no slot: a name of letters and digits, as in {{city}} or {{number:1-10}}",
                )
            stack[-1].append(Place(name.strip(), given.strip() or None))
        elif text in "{}":
            raise _wrong(template, f"a {text} stands alone: slots are written {{name}}, the bracket itself {text * 2}")
        else:
            stack[-1].append(text)
    if len(stack) > 1 or end != len(template.text):
        raise _wrong(template, "a [ is not closed: write [[ for the bracket itself")
    return stack[0]


def _choices(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Every way to decide the optional parts; each a flat list of literals and slots."""
    found: list[list[Piece]] = [[]]
    for piece in pieces:
        ways: list[list[Piece]] = [[], *_choices(piece.pieces)] if isinstance(piece, Optional) else [[piece]]
        found = [[*before, *way] for before in found for way in ways]
        if len(found) > MOST_VARIANTS:
            break
    return found


def _variant(template: Template, choice: Sequence[Piece], slots: dict[str, Slot], data: Path | None) -> Variant:
    literals, names, literal = list[str](), list[str](), ""
    for piece in choice:
        if isinstance(piece, Place):
            if piece.name not in slots:
                slots[piece.name] = _slot(template, piece.name, piece.given, data)
            literals.append(literal)
            names.append(piece.name)
            literal = ""
        else:
            literal += str(piece)
    literals.append(literal)
    present = list(dict.fromkeys(names))
    shown, plain = [], list(literals)
    for place, name in enumerate(names):
        article = ARTICLE.search(literals[place])
        of_slot = slots[name].values
        if article:
            plain[place] = literals[place][: article.start()]
            of_slot = tuple(f"{article[1]}{'n' if begins_with_vowel(value) else ''} {value}" for value in of_slot)
        shown.append(of_slot)
    return Variant(
        tuple(plain),
        tuple(slots[name] for name in present),
        tuple(present.index(name) for name in names),
        tuple(shown),
        tuple(_boxes(template, [slots[name] for name in present])),
    )


def _boxes(template: Template, slots: Sequence[Slot]) -> Iterator[dict[int, NDArray[np.bool_]]]:
    names = [slot.name for slot in slots]
    for rule in template.never:
        if unknown := [name for name in rule if f"{{{name}" not in template.text]:
            raise _wrong(template, f"`never` names the slot '{unknown[0]}', which is not in it")
        if not all(name in names for name in rule):  # the part with this slot is left out
            continue
        yield {names.index(name): _named(template, slots[names.index(name)], given) for name, given in rule.items()}


def _named(template: Template, slot: Slot, given: str | list[str]) -> NDArray[np.bool_]:
    """Which of the slot's values a rule means: one, several, or a range of numbers."""
    wanted = given if isinstance(given, list) else [given]
    mask = np.zeros(len(slot.values), dtype=bool)
    for one in map(str, wanted):
        here = np.array([value == one for value in slot.values])
        if not here.any() and (limits := RANGE.match(one)):
            low, high = float(limits[1]), float(limits[2])
            here = np.array([_number(value) is not None and low <= float(value) <= high for value in slot.values])
        if not here.any():
            raise _wrong(template, f"`never`: the slot '{slot.name}' has no value '{one}'")
        mask |= here
    return mask


def _number(value: str) -> Decimal | None:
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def _slot(template: Template, name: str, given: str | None, data: Path | None) -> Slot:
    if given is not None:
        numbers = _range(template, given)
        return Slot(name, numbers, np.full(len(numbers), 1 / len(numbers)))
    values = template.slots.get(name)
    if values is None:
        known = ", ".join(template.slots) or "none"
        raise _wrong(template, f"there are no values for {{{name}}}: add them under slots (there is: {known})")
    if isinstance(values, SlotFile):
        values = _of_file(template, values, data)
    told = dict.fromkeys(values, 1.0) if isinstance(values, list) else values
    weights = np.array(list(told.values()), dtype=np.float64)
    if not told or not (weights >= 0).all() or weights.sum() <= 0:
        raise _wrong(template, f"the slot '{name}' has no value that may be drawn")
    kept = [(value, weight) for value, weight in zip(told, weights, strict=True) if weight > 0]
    return Slot(name, tuple(value for value, _ in kept), np.array([weight for _, weight in kept]) / weights.sum())


def _range(template: Template, given: str) -> tuple[str, ...]:
    found = RANGE.match(given)
    numbers = [_number(one) for one in (found[1], found[2], found[3] or "1")] if found else []
    if len(numbers) != 3 or any(one is None for one in numbers):
        raise _wrong(template, f"'{given}' is no range: write {{number:1-10}}, or {{number:0.5-3:0.5}} with a step")
    low, high, step = (one for one in numbers if one is not None)
    if high < low or step <= 0:
        raise _wrong(template, f"the range {given} is empty: the smaller number comes first")
    many = int((high - low) / step) + 1
    if many > MOST_VALUES:
        raise _wrong(template, f"the range {given} has {many:,} numbers: more than {MOST_VALUES:,}; give it a step")
    return tuple(str(low + step * number) for number in range(many))


def _of_file(template: Template, given: SlotFile, data: Path | None) -> list[str]:
    path = (data or Path()) / given.file
    if not path.is_file():
        raise _wrong(template, f"the file {path} does not exist: put it into data/")
    if given.column is None:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    import pandas as pd

    separator = "\t" if path.suffix == ".tsv" else ","
    table = (
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    )
    if given.column not in table.columns:
        raise _wrong(template, f"{path} has no column '{given.column}' (it has {', '.join(map(str, table.columns))})")
    return [value for one in table[given.column].drop_duplicates() if (value := str(one).strip())]


def _wrong(template: Template, why: str) -> InputError:
    return InputError(f"params.yaml: synthesize.templates: '{template.text}': {why}.")


def begins_with_vowel(value: str) -> bool:
    """Whether English says "an" before it: by its first letters, and for numbers by how 8, 11 and 18 are said."""
    word = value.lstrip("\"'(").lower()
    if word[:1].isdigit():
        return bool(EIGHTS.match(word))
    if word.startswith(SILENT_H):
        return True
    return word[:1] in set("aeiou") and not word.startswith(LIKE_YOU)


def possible(template: Template, data: Path | None = None, label: str | None = None) -> int:
    """How many sentences the template can say."""
    return sum(variant.count() for variant in compile_template(template, data, label))


def sample(
    templates: Sequence[Template],
    most: int,
    rng: np.random.Generator,
    data: Path | None = None,
    label: str | None = None,
) -> Iterator[tuple[Template, str]]:
    """At most `most` different sentences, each template's share by how many it can say and by its values' weights; in an order of their own.

    Where there are few, the heaviest keys of a weighted draw without replacement (Efraimidis and Spirakis 2006); where there are many, draws, of which
    repeats are drawn again.
    """
    variants = [(template, variant) for template in templates for variant in compile_template(template, data, label)]
    counts = [variant.count() for _, variant in variants]
    total = sum(counts)
    if not total or not most:
        return
    if total <= FEW:
        yield from _of_few(variants, counts, min(most, total), rng)
    else:
        yield from _of_many(variants, counts, min(most, total), rng)


def _of_few(
    variants: Sequence[tuple[Template, Variant]], counts: Sequence[int], most: int, rng: np.random.Generator
) -> Iterator[tuple[Template, str]]:
    keys, where = [], []
    for number, ((_, variant), count) in enumerate(zip(variants, counts, strict=True)):
        every = [one.ravel() for one in np.indices(variant.sizes)] if variant.slots else []
        fine = variant.allowed(every)
        weights = variant.weights(every)[fine]
        keys.append(rng.exponential(size=len(weights)) / (weights / weights.sum() * count))
        where.append(np.stack([np.full(len(weights), number), np.flatnonzero(fine)], axis=1))
    order = np.argsort(np.concatenate(keys), kind="stable")[:most]
    found: dict[str, Template] = {}
    for number, cell in np.concatenate(where)[order]:
        template, variant = variants[number]
        chosen = [np.array([one]) for one in np.unravel_index(cell, variant.sizes)] if variant.slots else []
        found.setdefault(variant.said(chosen)[0], template)
    yield from ((template, text) for text, template in found.items())


def _of_many(
    variants: Sequence[tuple[Template, Variant]], counts: Sequence[int], most: int, rng: np.random.Generator
) -> Iterator[tuple[Template, str]]:
    shares = np.array([count / sum(counts) for count in counts])
    seen: set[str] = set()
    for _ in range(TRIES):
        for (template, variant), many in zip(variants, rng.multinomial(most - len(seen), shares), strict=True):
            if not many:
                continue
            chosen = [
                rng.integers(len(slot.values), size=many)
                if np.ptp(slot.weights) == 0
                else rng.choice(len(slot.values), size=many, p=slot.weights)
                for slot in variant.slots
            ]
            fine = variant.allowed(chosen)
            for text in variant.said([one[fine] for one in chosen]) if fine.any() else ():
                if text not in seen:
                    seen.add(text)
                    yield template, text
        if len(seen) >= most:
            return
