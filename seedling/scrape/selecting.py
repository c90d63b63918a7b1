"""Selects text on a page or in an answer, with CSS, XPath and JMESPath."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def field_text(value: Any) -> str | None:
    """Return a JSON value as a field's text: strings and numbers as they are, lists joined by commas."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(part for member in value if (part := field_text(member)) is not None)
    return json.dumps(value)


def parse_json(response: Any) -> Any:
    """Return the answer's JSON value; None if it is not JSON."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def fingerprint_of(content: str) -> str:
    """Return a hash that identifies an item without an id: its position on the page may change."""
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def is_xpath(selector: str) -> bool:
    """Whether a selector is XPath and not CSS."""
    return selector.startswith(("/", "./", "("))


def is_selector(setting: str) -> bool:
    """Whether a license or author is a selector, and not the text itself: "(c) Ada" is not XPath."""
    return "::" in setting or setting.startswith(("/", "./", "(/", "(./"))


def is_json_path(setting: str) -> bool:
    """Whether a license or author is a path in the item's JSON, which begins with "@.": "@ada" is a name."""
    return setting.startswith("@.")


def select_nodes(node: Any, selector: str) -> Any:
    """Return the nodes that a CSS or XPath selector finds."""
    return node.xpath(selector) if is_xpath(selector) else node.css(selector)


def first_text(node: Any, selector: str) -> str | None:
    """Return the first text that a selector finds, blanks folded; None if there is none."""
    text = select_nodes(node, selector).get()
    return " ".join(text.split()) or None if text else None


def all_text(node: Any, selector: str) -> str:
    """Return all text that a selector finds, blanks folded; `::text` omits scripts and styles."""
    if selector == "::text":
        return " ".join(" ".join(node.xpath(".//text()[not(parent::script or parent::style)]").getall()).split())
    return " ".join("".join(select_nodes(node, selector).getall()).split())
