"""Finding things on a page or in an answer: CSS, XPath and JMESPath, as words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lxml import etree

from seedling.config.patterns import Pattern


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
    """Whether a license or an author is to be found on the page, and not given in words: "(c) Ada" is no XPath."""
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


# XPath's regular expressions (EXSLT) as parsel has them, with a limit of time: lxml asks Python's own engine.
def _text(value: Any) -> str:
    first_one = next(iter(value), "") if isinstance(value, list) else value
    return "".join(first_one.itertext()) if isinstance(first_one, etree._Element) else str(first_one)


def _pattern(pattern: Any, flags: Any) -> Pattern:
    return Pattern(_text(pattern), ignore_case="i" in _text(flags))


def _test(_: Any, text: Any, pattern: Any, flags: Any = "") -> bool:
    return _pattern(pattern, flags).search(_text(text)) is not None


def _match(_: Any, text: Any, pattern: Any, flags: Any = "") -> list[etree._Element]:
    limited = _pattern(pattern, flags)
    if "g" in _text(flags):
        found = ["".join(one.groups(default="")) or one[0] for one in limited.find_all(_text(text))]
    else:
        one = limited.search(_text(text))
        found = [] if one is None else [one[0], *one.groups(default="")]
    root = etree.Element("matches")
    for content in found:
        etree.SubElement(root, "match").text = content
    return list(root)


def _replace(_: Any, text: Any, pattern: Any, flags: Any, replacement: Any) -> str:
    return _pattern(pattern, flags).replace(_text(replacement), _text(text), count=0 if "g" in _text(flags) else 1)


etree.FunctionNamespace("http://exslt.org/regular-expressions").update(
    {"test": _test, "match": _match, "replace": _replace}
)
