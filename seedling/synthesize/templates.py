"""A grammar of templates: "Find me a {cuisine} restaurant [within {number:1-1000} {unit} of {place}]".

{slot}          one of the slot's values, the same at each occurrence
{n:1-1000}      a number; {n:0.5-3:0.5} has a step
[…]             an optional part; they may be nested
a(n) {slot}     "a", or "an" if the value begins with a vowel sound
{{ }} [[ ]]     literal brackets; ]] closes two parts if two are open

A template is compiled to variants, one per choice of optional parts. The sentences of a variant are the Cartesian
product of its slots minus the combinations that `never` forbids, so that they are counted without being enumerated.
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
SILENT_H = ("hour", "honest", "honor", "honour", "heir")  # both spellings: values are the user's
CONSONANT_SOUND = re.compile(  # words that begin with a vowel letter, but a consonant sound
    r"uni(?!n|m)|us[aeu]|eu|one\b|once\b|ubi|uti|ufo|ute|uk\b|ur[aoi]"
)
VOWEL_SOUND_LETTERS = "aefhilmnorsx"  # letters whose names begin with a vowel sound
VOWEL_SOUND_NUMBERS = re.compile(r"^(8|11$|18$|11\D|18\D|1[18]\d{3}(\D|$))")
MAX_VARIANTS = 4096
MAX_RANGE_VALUES = 1_000_000
MAX_NEVER_RULES = 16  # counting enumerates all subsets of the rules
MAX_ENUMERATED_SENTENCES = 200_000  # of a variant; beyond, sentences are drawn with rejection of repetitions
MAX_DRAW_ROUNDS = 50

Rule = Mapping[int, NDArray[np.bool_]]  # slot index → which of its values; forbids all combinations of these values
Combinations = Sequence[NDArray[np.intp]]  # one array of value indices per slot, each (n,)


@dataclass(frozen=True)
class Slot:
    """values: as text; weights: (n,), sum to 1."""

    name: str
    values: tuple[str, ...]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A template with its optional parts decided.

    literals: the text between slot references, one more than these; references: the slot index of each reference;
    reference_texts: the values of each reference with their article; never: forbidden combinations.
    """

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]
    references: tuple[int, ...]
    reference_texts: tuple[tuple[str, ...], ...]
    never: tuple[Rule, ...]

    @property
    def sizes(self) -> list[int]:
        """The number of values per slot."""
        return [len(slot.values) for slot in self.slots]

    def count(self) -> int:
        """Count the sentences: the product of the slot sizes minus the union of the rules (inclusion–exclusion).

        n = sum over subsets S of the rules of (-1)^|S| * |intersection of S|.
        """
        total = math.prod(self.sizes)
        for n_rules in range(1, len(self.never) + 1):
            for rules in itertools.combinations(self.never, n_rules):
                total += (-1) ** n_rules * self._intersection_size(rules)
        return total

    def _intersection_size(self, rules: Sequence[Rule]) -> int:
        sizes = list(self.sizes)
        for slot in {slot for rule in rules for slot in rule}:
            sizes[slot] = int(np.logical_and.reduce([rule[slot] for rule in rules if slot in rule]).sum())
        return math.prod(sizes)

    def allowed(self, combinations: Combinations) -> NDArray[np.bool_]:
        """Return (n,): whether `never` allows each combination."""
        is_allowed = np.ones(len(combinations[0]) if combinations else 1, dtype=bool)
        for rule in self.never:
            is_allowed &= ~np.logical_and.reduce([mask[combinations[slot]] for slot, mask in rule.items()])
        return is_allowed

    def weights(self, combinations: Combinations) -> NDArray[np.float64]:
        """Return (n,): the weight of each combination, the product of the weights of its values."""
        products = np.ones(len(combinations[0]) if combinations else 1)
        for slot, value_indices in zip(self.slots, combinations, strict=True):
            products *= slot.weights[value_indices]
        return products

    def sentences(self, combinations: Combinations) -> list[str]:
        """Return the sentence of each combination."""
        n_sentences = len(combinations[0]) if combinations else 1
        columns: list[Sequence[str] | Iterator[str]] = []
        for literal, slot, slot_texts in zip(self.literals, self.references, self.reference_texts, strict=False):
            columns += [
                itertools.repeat(literal, n_sentences),
                [slot_texts[value] for value in combinations[slot]],
            ]
        columns.append(itertools.repeat(self.literals[-1], n_sentences))
        sentences = ["".join(parts) for parts in zip(*columns, strict=True)]
        return [" ".join(text.split()) for text in sentences] if self._has_extra_spaces else sentences

    @property
    def _has_extra_spaces(self) -> bool:
        """Whether omitted parts leave two spaces in a row, or one at an end."""
        return (
            any("  " in literal for literal in self.literals)
            or self.literals[0][:1] == " "
            or self.literals[-1][-1:] == " "
            or any(first[-1:] == " " == second[:1] for first, second in itertools.pairwise(self.literals))
        )


def compile_template(template: Template, data: Path | None = None, label: str | None = None) -> list[Variant]:
    """Compile the template to its variants. data: the folder of files of slot values; label: the value of {label}.

    Raises InputError for unmatched brackets, a slot without values, an invalid range, and more than MAX_VARIANTS
    choices.
    """
    if label is not None and "label" in template.slots:
        raise _error(template, "{label} is reserved for the class's own name: rename the slot")
    pieces = _parse(template)
    if len(template.never) > MAX_NEVER_RULES:
        raise _error(template, f"`never` has {len(template.never)} rules: the maximum is {MAX_NEVER_RULES}")
    _check_slots(template, pieces)
    choices = _choices(pieces)
    if len(choices) > MAX_VARIANTS:
        raise _error(template, f"its optional parts allow {len(choices):,} choices: the maximum is {MAX_VARIANTS:,}")
    slots: dict[str, Slot] = {} if label is None else {"label": Slot("label", (label,), np.ones(1))}
    variants: dict[tuple[str, ...], Variant] = {}
    for choice in choices:
        variant = _variant(template, choice, slots, data)
        slot_names = (variant.slots[slot].name for slot in variant.references)
        variants.setdefault((*variant.literals, *slot_names), variant)
    return list(variants.values())


@dataclass(frozen=True)
class SlotReference:
    """An occurrence of a slot. number_range: the range after its colon."""

    name: str
    number_range: str | None


@dataclass(frozen=True)
class Optional:
    """A part that may be omitted."""

    pieces: list[Piece]


Piece = str | SlotReference | Optional


def _check_slots(template: Template, pieces: Sequence[Piece]) -> None:
    """Raises InputError for two ranges of one slot, rules of unknown slots, and a template without a label."""
    references = list(_references(pieces))
    ranges: dict[str, str] = {}
    for reference in references:
        number_range = reference.number_range
        if number_range is not None and ranges.setdefault(reference.name, number_range) != number_range:
            raise _error(
                template,
                f"{{{reference.name}}} has two ranges, {ranges[reference.name]} and {number_range}: use two names",
            )
    for rule in template.never:
        if not rule:
            raise _error(template, "`never` has an empty rule, which would forbid every sentence")
        if unknown := [name for name in rule if name not in {reference.name for reference in references}]:
            raise _error(template, f"`never` names the slot '{unknown[0]}', which is not in the text")
    has_label = any(isinstance(piece, SlotReference) and piece.name == "label" for piece in pieces)
    if template.label is None and not has_label:
        raise _error(template, "without a label of its own it must contain {label}, outside of any [part]")


def _references(pieces: Sequence[Piece]) -> Iterator[SlotReference]:
    for piece in pieces:
        if isinstance(piece, Optional):
            yield from _references(piece.pieces)
        elif isinstance(piece, SlotReference):
            yield piece


def _parse(template: Template) -> list[Piece]:
    stack: list[list[Piece]] = [[]]
    end = 0
    for token in TOKENS.finditer(template.text):
        end, text = token.end(), token[0]
        if text == "]]" and len(stack) > 2:  # closes two parts
            stack[-2].append(Optional(stack.pop()))
            stack[-2].append(Optional(stack.pop()))
        elif text in {"{{", "}}", "[[", "]]"}:
            stack[-1].append(text[0])
        elif text == "[":
            stack.append([])
        elif text == "]":
            if len(stack) == 1:
                raise _error(template, "a ] has no matching [: write ]] for a literal bracket")
            optional = Optional(stack.pop())
            stack[-1].append(optional)
        elif token[1] is not None:
            stack[-1].append(_reference(template, token[1]))
        elif text in "{}":
            raise _error(
                template, f"a {text} has no match: write {{name}} for a slot, or {text * 2} for a literal bracket"
            )
        else:
            stack[-1].append(text)
    if len(stack) > 1 or end != len(template.text):
        raise _error(template, "a [ is not closed: write [[ for a literal bracket")
    return stack[0]


def _reference(template: Template, content: str) -> SlotReference:
    """Parse the content of {…}: a slot name, and a range after a colon."""
    name, _, number_range = content.partition(":")
    if not name.strip().isidentifier():
        raise _error(
            template,
            f"{{{content}}} is not a slot: write a name of letters and digits, as in {{city}} or {{number:1-10}}",
        )
    return SlotReference(name.strip(), number_range.strip() or None)


def _choices(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return each choice of optional parts as a flat list of literals and slot references."""
    choices: list[list[Piece]] = [[]]
    for piece in pieces:
        options: list[list[Piece]] = [[], *_choices(piece.pieces)] if isinstance(piece, Optional) else [[piece]]
        choices = [[*choice, *option] for choice in choices for option in options]
        if len(choices) > MAX_VARIANTS:
            break
    return choices


def _variant(template: Template, choice: Sequence[Piece], slots: dict[str, Slot], data: Path | None) -> Variant:
    """Build the variant of a choice. slots: read already; new ones are added."""
    literals, names, literal = list[str](), list[str](), ""
    for piece in choice:
        if isinstance(piece, SlotReference):
            if piece.name not in slots:
                slots[piece.name] = _read_slot(template, piece.name, piece.number_range, data)
            literals.append(literal)
            names.append(piece.name)
            literal = ""
        else:
            literal += str(piece)
    literals.append(literal)
    distinct_names = list(dict.fromkeys(names))
    reference_texts = []
    for index, name in enumerate(names):
        article = ARTICLE.search(literals[index])
        slot_texts = slots[name].values
        if article:
            literals[index] = literals[index][: article.start()]
            slot_texts = tuple(f"{article[1]}{'n' if begins_with_vowel(value) else ''} {value}" for value in slot_texts)
        reference_texts.append(slot_texts)
    return Variant(
        tuple(literals),
        tuple(slots[name] for name in distinct_names),
        tuple(distinct_names.index(name) for name in names),
        tuple(reference_texts),
        tuple(_rules(template, [slots[name] for name in distinct_names])),
    )


def _rules(template: Template, slots: Sequence[Slot]) -> Iterator[dict[int, NDArray[np.bool_]]]:
    names = [slot.name for slot in slots]
    for rule in template.never:
        if not all(name in names for name in rule):  # the part with this slot is omitted
            continue
        yield {
            names.index(name): _matching_values(template, slots[names.index(name)], values)
            for name, values in rule.items()
        }


def _matching_values(template: Template, slot: Slot, patterns: str | list[str]) -> NDArray[np.bool_]:
    """Return (n_values,): the values of the slot that a rule names. A pattern is a value or a range of numbers."""
    mask = np.zeros(len(slot.values), dtype=bool)
    for pattern in map(str, patterns if isinstance(patterns, list) else [patterns]):
        matches = np.array([value == pattern for value in slot.values])
        range_match = RANGE.match(pattern)
        bounds = [_number(bound) for bound in (range_match[1], range_match[2])] if range_match else []
        if not matches.any() and bounds and None not in bounds:
            low, high = (float(bound) for bound in bounds if bound is not None)
            matches = np.array([_number(value) is not None and low <= float(value) <= high for value in slot.values])
        if not matches.any():
            raise _error(template, f"`never`: the slot '{slot.name}' has no value '{pattern}'")
        mask |= matches
    return mask


def _number(value: str) -> Decimal | None:
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def _read_slot(template: Template, name: str, number_range: str | None, data: Path | None) -> Slot:
    if number_range is not None:
        numbers = _range_values(template, number_range)
        return Slot(name, numbers, np.full(len(numbers), 1 / len(numbers)))
    values = template.slots.get(name)
    if values is None:
        defined = ", ".join(template.slots) or "none"
        raise _error(template, f"there are no values for {{{name}}}: add them under slots (defined: {defined})")
    if isinstance(values, SlotFile):
        values = _read_values(template, values, data)
    value_weights = dict.fromkeys(values, 1.0) if isinstance(values, list) else values
    weights = np.array(list(value_weights.values()), dtype=np.float64)
    if negative := [value for value, weight in value_weights.items() if weight < 0]:
        raise _error(template, f"the slot '{name}': the weight of '{negative[0]}' is below 0")
    if not value_weights or not (weights >= 0).all() or weights.sum() <= 0:
        raise _error(template, f"the slot '{name}' has no value with a weight above 0")
    positive = [(value, weight) for value, weight in zip(value_weights, weights, strict=True) if weight > 0]
    return Slot(
        name, tuple(value for value, _ in positive), np.array([weight for _, weight in positive]) / weights.sum()
    )


def _range_values(template: Template, number_range: str) -> tuple[str, ...]:
    match = RANGE.match(number_range)
    numbers = [_number(part) for part in (match[1], match[2], match[3] or "1")] if match else []
    if len(numbers) != 3 or any(number is None for number in numbers):
        raise _error(
            template,
            f"'{number_range}' is not a range: write {{number:1-10}}, or {{number:0.5-3:0.5}} with a step",
        )
    low, high, step = (number for number in numbers if number is not None)
    if step <= 0:
        raise _error(template, f"the range {number_range} has a step of {step}: it must be above 0")
    if high < low:
        raise _error(template, f"the range {number_range} is empty: write the smaller number first")
    count = int((high - low) / step) + 1
    if count > MAX_RANGE_VALUES:
        raise _error(
            template,
            f"the range {number_range} has {count:,} numbers, more than {MAX_RANGE_VALUES:,}: use a larger step",
        )
    return tuple(str(low + step * index) for index in range(count))


def _read_values(template: Template, source: SlotFile, data: Path | None) -> list[str]:
    path = inside(data or Path(), source.file)
    if not path.is_file():
        raise _error(template, f"the file {path} does not exist: put it into data/")
    if source.column is None:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    import pandas as pd

    separator = "\t" if path.suffix == ".tsv" else ","
    table = (
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    )
    if source.column not in table.columns:
        raise _error(template, f"{path} has no column '{source.column}' (it has {', '.join(map(str, table.columns))})")
    return [value for cell in table[source.column].drop_duplicates() if (value := str(cell).strip())]


def _error(template: Template, message: str) -> InputError:
    return InputError(f"params.yaml: synthesize.templates: '{template.text}': {message}.")


def begins_with_vowel(value: str) -> bool:
    """Return whether English puts "an" before the value: by its first letters, and for 8, 11 and 18 by sound."""
    unquoted = value.lstrip("\"'(")
    word = unquoted.lower()
    if word[:1].isdigit():
        return bool(VOWEL_SOUND_NUMBERS.match(word))
    first = re.split(r"\W", unquoted, maxsplit=1)[0]
    if 1 < len(first) <= 3 and first.isupper():  # an abbreviation, pronounced letter by letter
        return word[0] in VOWEL_SOUND_LETTERS
    if word.startswith(SILENT_H):
        return True
    return word[:1] in set("aeiou") and not CONSONANT_SOUND.match(word)


def count_sentences(template: Template, data: Path | None = None, label: str | None = None) -> int:
    """Count the distinct choices of parts and values of the template."""
    return sum(variant.count() for variant in compile_template(template, data, label))


def sample_sentences(
    templates: Sequence[Template],
    max_sentences: int,
    rng: np.random.Generator,
    data: Path | None = None,
    label: str | None = None,
) -> Iterator[tuple[Template, str]]:
    """Sample sentences without replacement: equally many per template, and per choice of optional parts.

    Values are drawn by their weights. A variant of few sentences is sampled exactly, by the largest keys of a weighted
    draw without replacement (Efraimidis and Spirakis 2006); a variant of many by drawing again after repetitions.
    """
    compiled = [(template, compile_template(template, data, label)) for template in templates]
    counts = [[variant.count() for variant in variants] for _, variants in compiled]
    shares = divide_evenly([sum(variant_counts) for variant_counts in counts], max_sentences)
    for (template, variants), variant_counts, share in zip(compiled, counts, shares, strict=True):
        variant_shares = divide_evenly(variant_counts, share)
        for variant, count, n_sampled in zip(variants, variant_counts, variant_shares, strict=True):
            if n_sampled:
                draw = _sample_exactly if count <= MAX_ENUMERATED_SENTENCES else _sample_by_rejection
                yield from ((template, text) for text in draw(variant, n_sampled, rng))


def divide_evenly(capacities: Sequence[int], total: int) -> list[int]:
    """Divide the total evenly up to each capacity; what exceeds a capacity goes to the others."""
    shares, left = [0] * len(capacities), min(total, sum(capacities))
    for turn, index in enumerate(sorted(range(len(capacities)), key=lambda index: capacities[index])):
        shares[index] = min(capacities[index], left // (len(capacities) - turn))
        left -= shares[index]
    for index in sorted(range(len(capacities)), key=lambda index: -capacities[index]):  # the remainder of the division
        extra = min(capacities[index] - shares[index], left)
        shares[index], left = shares[index] + extra, left - extra
    return shares


def _sample_exactly(variant: Variant, n_sampled: int, rng: np.random.Generator) -> list[str]:
    """Enumerate all allowed combinations; the smallest values of Exponential(1) / weight are a weighted sample."""
    combinations = [indices.ravel() for indices in np.indices(variant.sizes)] if variant.slots else []
    allowed = np.flatnonzero(variant.allowed(combinations))
    keys = rng.exponential(size=len(allowed)) / variant.weights(combinations)[allowed]
    sampled = allowed[np.argsort(keys, kind="stable")[:n_sampled]]
    return variant.sentences([indices[sampled] for indices in combinations])


def _sample_by_rejection(variant: Variant, n_sampled: int, rng: np.random.Generator) -> Iterator[str]:
    """Draw combinations, and drop forbidden and repeated ones, for at most MAX_DRAW_ROUNDS rounds."""
    seen: set[str] = set()
    for _ in range(MAX_DRAW_ROUNDS):
        combinations = [
            rng.integers(len(slot.values), size=n_sampled - len(seen))
            if np.ptp(slot.weights) == 0
            else rng.choice(len(slot.values), size=n_sampled - len(seen), p=slot.weights)
            for slot in variant.slots
        ]
        allowed = variant.allowed(combinations)
        for text in variant.sentences([indices[allowed] for indices in combinations]) if allowed.any() else ():
            if text not in seen:
                seen.add(text)
                yield text
        if len(seen) >= n_sampled:
            return
