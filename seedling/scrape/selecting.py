"""Selects text on a page or in an answer, with CSS, XPath and JMESPath."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lxml import etree

from seedling.config.patterns import Pattern


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


# EXSLT's regular expressions in XPath, as in parsel, with a time limit: lxml uses Python's `re` without one.
def _text(value: Any) -> str:
    content = next(iter(value), "") if isinstance(value, list) else value
    return "".join(content.itertext()) if isinstance(content, etree._Element) else str(content)


def _pattern(pattern: Any, flags: Any) -> Pattern:
    return Pattern(_text(pattern), ignore_case="i" in _text(flags))


def _test(_: Any, text: Any, pattern: Any, flags: Any = "") -> bool:
    return _pattern(pattern, flags).search(_text(text)) is not None


def _match(_: Any, text: Any, pattern: Any, flags: Any = "") -> list[etree._Element]:
    limited = _pattern(pattern, flags)
    if "g" in _text(flags):
        texts = ["".join(match.groups(default="")) or match[0] for match in limited.find_all(_text(text))]
    else:
        match = limited.search(_text(text))
        texts = [] if match is None else [match[0], *match.groups(default="")]
    root = etree.Element("matches")
    for content in texts:
        etree.SubElement(root, "match").text = content
    return list(root)


def _replace(_: Any, text: Any, pattern: Any, flags: Any, replacement: Any) -> str:
    return _pattern(pattern, flags).replace(_text(replacement), _text(text), count=0 if "g" in _text(flags) else 1)


etree.FunctionNamespace("http://exslt.org/regular-expressions").update(
    {"test": _test, "match": _match, "replace": _replace}
)
