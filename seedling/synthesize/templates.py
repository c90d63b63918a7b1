"""A grammar of templates: "Find me a {cuisine} restaurant [within {number:1-1000} {unit} of {place}]".

{slot}          one of the slot's values, the same wherever the slot stands; {n:1-1000} and {n:0.5-3:0.5} are numbers, with a step
[…]             a part that may be left out; they may stand in one another
a(n) {slot}     "a", or "an" where the value begins with a vowel's sound
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

from seedling.config.params import SlotFile, Template
from seedling.errors import InputError
from seedling.files.data_files import inside

TOKENS = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{([^{}]*)\}|[\[\]{}]|[^\[\]{}]+")
RANGE = re.compile(r"^(-?[\d.]+)-(-?[\d.]+)(?::([\d.]+))?$")
ARTICLE = re.compile(r"(?:^|(?<=[\s\"'(]))([Aa])\(n\)\s+$")
SILENT_H = ("hour", "honest", "honor", "honor", "heir")
LIKE_YOU = re.compile(
    r"uni(?!n|m)|us[aeu]|eu|one\b|once\b|ubi|uti|ufo|ute|uk\b|ur[aoi]"
)  # begin with a vowel's letter, and not with its sound
SPELT = "aefhilmnorsx"  # letters whose names begin with a vowel's sound
EIGHTS = re.compile(r"^(8|11$|18$|11\D|18\D|1[18]\d{3}(\D|$))")
MOST_VARIANTS = 4096
MOST_VALUES = 1_000_000
MOST_RULES = 16  # all sets of them are counted
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
    if label is not None and "label" in template.slots:
        raise _wrong(template, "the slot {label} is the class's own name: give yours another one")
    values = {"label": (label,)} if label is not None else {}
    pieces = _parsed(template)
    if len(template.never) > MOST_RULES:
        raise _wrong(template, f"`never` has {len(template.never)} rules: more than {MOST_RULES} cannot be counted")
    _check_slots(template, pieces)
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


def _check_slots(template: Template, pieces: Sequence[Piece]) -> None:
    """One range a slot, rules of slots that there are, and a label that is always said."""
    places = list(_places(pieces))
    ranges: dict[str, str] = {}
    for place in places:
        if place.given is not None and ranges.setdefault(place.name, place.given) != place.given:
            raise _wrong(
                template,
                f"{{{place.name}}} has two ranges, {ranges[place.name]} and {place.given}: give them two names",
            )
    for rule in template.never:
        if not rule:
            raise _wrong(template, "`never` has an empty rule, which would forbid everything")
        if unknown := [name for name in rule if name not in {place.name for place in places}]:
            raise _wrong(template, f"`never` names the slot '{unknown[0]}', which is not in it")
    if template.label is None and not any(isinstance(one, Place) and one.name == "label" for one in pieces):
        raise _wrong(template, "without a label of its own it must say {label}, and outside of any [part]")


def _places(pieces: Sequence[Piece]) -> Iterator[Place]:
    for one in pieces:
        if isinstance(one, Optional):
            yield from _places(one.pieces)
        elif isinstance(one, Place):
            yield one


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
        if not all(name in names for name in rule):  # the part with this slot is left out
            continue
        yield {names.index(name): _named(template, slots[names.index(name)], given) for name, given in rule.items()}


def _named(template: Template, slot: Slot, given: str | list[str]) -> NDArray[np.bool_]:
    """Which of the slot's values a rule means: one, several, or a range of numbers."""
    wanted = given if isinstance(given, list) else [given]
    mask = np.zeros(len(slot.values), dtype=bool)
    for one in map(str, wanted):
        here = np.array([value == one for value in slot.values])
        limits = RANGE.match(one)
        ends = [_number(end) for end in (limits[1], limits[2])] if limits else []
        if not here.any() and ends and None not in ends:
            low, high = (float(end) for end in ends if end is not None)
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
    if below := [value for value, weight in told.items() if weight < 0]:
        raise _wrong(template, f"the slot '{name}': the weight of '{below[0]}' is below 0")
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
    if step <= 0:
        raise _wrong(template, f"the range {given} has a step of {step}: it must be above 0")
    if high < low:
        raise _wrong(template, f"the range {given} is empty: the smaller number comes first")
    many = int((high - low) / step) + 1
    if many > MOST_VALUES:
        raise _wrong(template, f"the range {given} has {many:,} numbers: more than {MOST_VALUES:,}; give it a step")
    return tuple(str(low + step * number) for number in range(many))


def _of_file(template: Template, given: SlotFile, data: Path | None) -> list[str]:
    path = inside(data or Path(), given.file)
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
    bare = value.lstrip("\"'(")
    word = bare.lower()
    if word[:1].isdigit():
        return bool(EIGHTS.match(word))
    first = re.split(r"\W", bare, maxsplit=1)[0]
    if 1 < len(first) <= 3 and first.isupper():  # said letter by letter
        return word[0] in SPELT
    if word.startswith(SILENT_H):
        return True
    return word[:1] in set("aeiou") and not LIKE_YOU.match(word)


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
    """At most `most` sentences: of each template alike, and of each choice of its optional parts, as far as they go; its values by their weights.

    Of each none twice. Where there are few, the heaviest keys of a weighted draw without replacement (Efraimidis and Spirakis 2006); where there are many, draws, of which
    repeats are drawn again.
    """
    compiled = [(template, compile_template(template, data, label)) for template in templates]
    counts = [[variant.count() for variant in variants] for _, variants in compiled]
    for (template, variants), each, share in zip(
        compiled, counts, shared_out([sum(one) for one in counts], most), strict=True
    ):
        for variant, count, many in zip(variants, each, shared_out(each, share), strict=True):
            if many:
                made = _of_few(variant, many, rng) if count <= FEW else _of_many(variant, many, rng)
                yield from ((template, text) for text in made)


def shared_out(rooms: Sequence[int], most: int) -> list[int]:
    """Alike to each, as far as its room goes; what one cannot take goes to the others."""
    given, left = [0] * len(rooms), min(most, sum(rooms))
    for turn, place in enumerate(sorted(range(len(rooms)), key=lambda one: rooms[one])):
        given[place] = min(rooms[place], left // (len(rooms) - turn))
        left -= given[place]
    for place in sorted(range(len(rooms)), key=lambda one: -rooms[one]):  # what division left over
        more = min(rooms[place] - given[place], left)
        given[place], left = given[place] + more, left - more
    return given


def _of_few(variant: Variant, most: int, rng: np.random.Generator) -> list[str]:
    every = [one.ravel() for one in np.indices(variant.sizes)] if variant.slots else []
    fine = np.flatnonzero(variant.allowed(every))
    keys = rng.exponential(size=len(fine)) / variant.weights(every)[fine]
    chosen = fine[np.argsort(keys, kind="stable")[:most]]
    return variant.said([one[chosen] for one in every]) if variant.slots else variant.said([])


def _of_many(variant: Variant, most: int, rng: np.random.Generator) -> Iterator[str]:
    seen: set[str] = set()
    for _ in range(TRIES):
        chosen = [
            rng.integers(len(slot.values), size=most - len(seen))
            if np.ptp(slot.weights) == 0
            else rng.choice(len(slot.values), size=most - len(seen), p=slot.weights)
            for slot in variant.slots
        ]
        fine = variant.allowed(chosen)
        for text in variant.said([one[fine] for one in chosen]) if fine.any() else ():
            if text not in seen:
                seen.add(text)
                yield text
        if len(seen) >= most:
            return
