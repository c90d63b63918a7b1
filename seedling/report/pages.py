"""What the pages have in common: templates, filters, and a row as it is shown on a page."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from seedling.media import images
from seedling.media.personal_data import as_shown

SHARED = ("style.css", "marks.jinja", "families.jinja", "screening.jinja", "report.js")
LONGEST = 160  # characters of a text that are shown
PARTS = re.compile(r"[^_\-/ ]{1,12}[_\-/]*|[_\-/ ]+")  # of a name, between which a line may end


def environment(*templates: str) -> jinja2.Environment:
    """Jinja with these templates of this folder and what they share; all that is put into them is escaped."""
    known = {
        name: files("seedling.report").joinpath(name).read_text(encoding="utf-8") for name in (*templates, *SHARED)
    }
    made = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.DictLoader(known))
    made.filters["percent"] = lambda share: f"{100 * share:.1f}\u00a0%"
    made.filters["whole_percent"] = lambda share: f"{100 * share:.0f}\u00a0%"
    made.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    made.filters["points"] = lambda share: f"{100 * share:+.1f}"
    made.filters["name"] = breakable
    made.filters["words"] = lambda name: str(name).replace("_", " ")
    return made


def breakable(name: object) -> Markup:
    """A class's name, which may be long and without a blank, with places where a line may end."""
    return Markup("<wbr>").join(escape(one) for one in PARTS.findall(str(name)))


def vote(model: Mapping[str, Any]) -> str:
    """Who answers, from model.json; a learner that votes under several recipes or losses is named once, with their number."""
    counts = Counter(member["learner"].replace("_", " ") for member in model["members"])
    names = [name if many == 1 else f"{many} × {name}" for name, many in counts.items()]
    if len(model["members"]) == 1:
        return names[0]
    return "a vote of " + (names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}")


def shown(payload: bytes | str, side: int = 96) -> dict[str, str]:
    """An image as a data address, no larger than `side` pixels; a text, cut, with personal data masked unless it is to be shown."""
    if isinstance(payload, str):
        text = as_shown(payload)
        return {"text": text if len(text) <= LONGEST else text[: LONGEST - 3] + "…"}
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
