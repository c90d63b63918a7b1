"""Shared parts of the pages: templates, filters, and previews of rows."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import TypedDict

import jinja2
from markupsafe import Markup, escape

from seedling.media import images
from seedling.media.personal_data import as_shown
from seedling.records.evaluation import ClassResultRecord
from seedling.records.model import ModelRecord

SHARED = ("style.css", "marks.jinja", "augmented_rows.jinja", "screening.jinja", "review.jinja", "report.js")
MAX_TEXT_CHARACTERS = 160
NAME_PARTS = re.compile(r"[^_\-/ ]{1,12}[_\-/]*|[_\-/ ]+")  # a line may break between them


def environment(*templates: str) -> jinja2.Environment:
    """A Jinja environment with these templates and the shared ones. All values are escaped."""
    sources = {
        name: files("seedling.report").joinpath(name).read_text(encoding="utf-8") for name in (*templates, *SHARED)
    }
    loader = jinja2.DictLoader(sources)
    jinja = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    jinja.filters["percent"] = percent
    jinja.filters["whole_percent"] = whole_percent
    jinja.filters["thousands"] = thousands
    jinja.filters["points"] = points
    jinja.filters["name"] = breakable
    jinja.filters["code"] = with_code
    jinja.filters["words"] = lambda name: str(name).replace("_", " ")
    return jinja


def percent(share: float) -> str:
    """0.1234 → 12.3 %, with a space that does not break."""
    return f"{100 * share:.1f}\u00a0%"


def whole_percent(share: float) -> str:
    """0.1234 → 12 %, with a space that does not break."""
    return f"{100 * share:.0f}\u00a0%"


def thousands(number: float) -> str:
    """12345 → 12 345, with a narrow space that does not break."""
    return f"{number:,}".replace(",", "\u202f")


def points(share: float) -> str:
    """0.0123 → +1.2: percentage points with their sign."""
    return f"{100 * share:+.1f}"


def breakable(name: object) -> Markup:
    """A name with places where a line may break, as it may be long and without a blank."""
    return Markup("<wbr>").join(escape(part) for part in NAME_PARTS.findall(str(name)))


def with_code(text: str) -> Markup:
    """The text with the parts between backticks as code."""
    parts = text.split("`")
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if number % 2 else part for number, part in enumerate(parts))


def vote(model: ModelRecord) -> str:
    """The learners of the model, from model.json. A learner with several votes is named once, with their number."""
    counts = Counter(member.learner.replace("_", " ") for member in model.members)
    names = [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]
    if len(model.members) == 1:
        return names[0]
    return "a vote of " + (names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}")


def never_predicted(classes: Sequence[ClassResultRecord]) -> list[str]:
    """The classes with evaluation rows that no row was predicted as."""
    return [result.name for result in classes if result.rows and result.precision is None]


class Preview(TypedDict, total=False):
    """The keys `image`, as a data URL, and its `kind`, or the key `text`. kind: `tiny` or `photograph`."""

    text: str
    image: str
    kind: str


def preview(payload: bytes | str, side: int = 96) -> Preview:
    """An image as a data URL, at most `side` pixels wide and high; a text, shortened, with personal data masked.

    Personal data is shown if reports.show_personal_data is set.
    """
    if isinstance(payload, str):
        text = as_shown(payload)
        return {"text": text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 3] + "…"}
    try:
        pixels = images.decode(payload)
    except images.Undecodable as error:
        return {"text": str(error)}
    longest = max(pixels.shape[:2])
    pixels = images.shrunk(pixels, side)
    if longest < 64:
        return {"image": "data:image/png;base64," + base64.b64encode(images.encode(pixels)).decode(), "kind": "tiny"}
    return {
        "image": "data:image/jpeg;base64," + base64.b64encode(images.compressed(pixels)).decode(),
        "kind": "photograph",
    }
