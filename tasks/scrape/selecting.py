"""Finding things on a page or in an answer: CSS, XPath and JMESPath, as words."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def scalar(value: Any) -> str | None:
    """A JSON value as a field holds it: words and numbers as they are written, lists joined."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(part for one in value if (part := scalar(one)) is not None)
    return json.dumps(value)


def parsed(response: Any) -> Any:
    """The answer's JSON; None where it is none."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def fingerprint_of(content: str) -> str:
    """What stands for an item without an id of its own: its place would be another item's tomorrow."""
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def is_xpath(selector: str) -> bool:
    """Whether a selector is XPath and not CSS."""
    return selector.startswith(("/", "./", "("))


def is_selector(given: str) -> bool:
    """Whether a licence or an author is to be found on the page, and not given in words: "(c) Ada" is no XPath."""
    return "::" in given or given.startswith(("/", "./", "(/", "(./"))


def is_json_path(given: str) -> bool:
    """The same in JSON, where a path from the item begins with "@.": "@ada" is a name."""
    return given.startswith("@.")


def picked(node: Any, selector: str) -> Any:
    """The nodes that a CSS or XPath selector finds."""
    return node.xpath(selector) if is_xpath(selector) else node.css(selector)


def first(node: Any, selector: str) -> str | None:
    """The first word or words that a selector finds, blanks folded."""
    found = picked(node, selector).get()
    return " ".join(found.split()) or None if found else None


def words(node: Any, selector: str) -> str:
    """All that a selector finds, one text, blanks folded; of a whole page without its scripts and styles."""
    if selector == "::text":
        return " ".join(" ".join(node.xpath(".//text()[not(parent::script or parent::style)]").getall()).split())
    return " ".join("".join(picked(node, selector).getall()).split())
