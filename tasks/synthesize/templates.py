"""Templates with slots: "Find me a {cuisine} restaurant" and lists of what the slots may hold."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence

import numpy as np

from tasks.errors import InputError
from tasks.params import Template


def slots_of(template: Template) -> list[str]:
    """The slots in the order in which they first appear. Raises InputError for one without values or a broken brace."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template.text) if name is not None]
    except ValueError as error:
        raise InputError(f"params.yaml: synthesize.templates: '{template.text}': {error}.") from error
    for name in names:
        if name not in template.slots:
            raise InputError(
                f"params.yaml: synthesize.templates: '{template.text}' has no values for {{{name}}}: add them under slots."
            )
    return list(dict.fromkeys(names))


def possible(template: Template) -> int:
    """How many different fillings the template has."""
    return math.prod(len(template.slots[name]) for name in slots_of(template))


def fill(template: Template, number: int) -> str:
    """Filling `number` of the template, 0 ≤ number < possible(template): its digits in the slots' mixed radix."""
    values = {}
    for name in slots_of(template):
        number, place = divmod(number, len(template.slots[name]))
        values[name] = template.slots[name][place]
    return template.text.format(**values)


def sample(templates: Sequence[Template], most: int, rng: np.random.Generator) -> Iterator[tuple[Template, str]]:
    """At most `most` fillings of the templates, none twice, each template drawn in proportion to what it can say."""
    ends = np.cumsum([possible(template) for template in templates])
    total = int(ends[-1]) if len(ends) else 0
    for number in sorted(draw_without_repeats(total, min(most, total), rng)):
        which = int(np.searchsorted(ends, number, side="right"))
        yield templates[which], fill(templates[which], number - (int(ends[which - 1]) if which else 0))


def draw_without_repeats(total: int, count: int, rng: np.random.Generator) -> set[int]:
    """`count` different numbers below `total`, whatever its size (Floyd's algorithm, Bentley 1987)."""
    chosen: set[int] = set()
    for last in range(total - count, total):
        number = int(rng.integers(last + 1))
        chosen.add(last if number in chosen else number)
    return chosen
