"""EXSLT's regular expressions in XPath, as in parsel, with a time limit: lxml uses Python's `re` without one."""

from __future__ import annotations

from typing import Any

from lxml import etree

from seedling.config.patterns import Pattern

NAMESPACE = "http://exslt.org/regular-expressions"


def register_functions() -> None:
    """Make XPath use the functions of this module instead of lxml's own, in this process."""
    etree.FunctionNamespace(NAMESPACE).update({"test": _test, "match": _match, "replace": _replace})


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
