"""Reads YAML files that users edit and git merges: with limits, and with remedies for conflicts and common mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from seedling.config.secret_literals import mask_secrets
from seedling.errors import InputError
from seedling.workspace import DATA_POINTER, DVC_LOCK

MAX_BYTES = 2**20  # takes the parser some seconds; known files have at most a tenth of it
MAX_OPEN_BRACKETS = 50  # the parser checks each open bracket for each word inside
MAX_LEVELS = 100
MAX_VALUES = 200_000  # of a file with its aliases expanded; known files have some thousands

ALIAS = re.compile(r"[&*][^\s,\[\]{}]")  # an anchor or an alias may have any name

BRACKET = re.compile(r"[\[\]{}]")

CONFLICT_START = re.compile(r"^<{7}(?: |$)", re.MULTILINE)
CONFLICT_END = re.compile(r"^>{7}(?: |$)", re.MULTILINE)
SOLVED_BY_HAND = "keep one side of each conflict and delete the lines that begin with <<<<<<<, ======= and >>>>>>>"
SOLVED_BY_COMMAND = "`seedling resolve` solves it"
MERGED_BY_COMMAND = {DVC_LOCK, DATA_POINTER}


def read_yaml_file(path: Path) -> Any:
    """Return the file's value, None for an empty file.

    Raises InputError, with the file and the remedy, for conflict markers of git, invalid YAML or UTF-8, too many
    levels, and aliases that would fill the memory.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, but at most {MAX_BYTES:,} are read: shorten it."
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable YAML: {error}. Save it as UTF-8.") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str) -> Any:
    """Parse a text as `read_yaml_file` does; `path` is for messages."""
    check_no_conflict(text, path)
    try:
        check_limits(text, path)
        value = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:
        hint = (
            " Put values with a colon, such as 'http://host:80/' or '.tag::text', in quotes."
            if "unexpected ':'" in str(error)
            else ""
        )
        raise InputError(f"{path} is not readable YAML: {mask_secrets(str(error))}.{hint}") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    check_depth(value, path)
    return value


def check_limits(text: str, path: Path | str) -> None:
    """Raise InputError for a text that is too long, has too many levels, or has aliases for too many values."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{path} has {len(text):,} characters, but at most {MAX_BYTES:,} are read: shorten it.")
    if _open_brackets(text) > MAX_OPEN_BRACKETS:
        raise _too_deep(path)
    if ALIAS.search(text) is None:
        return
    try:
        root = YAML(typ="safe").compose(text)
        if root is not None and _values(root, {}) > MAX_VALUES:
            raise InputError(
                f"{path} has aliases (*name) that stand for more than {MAX_VALUES:,} values: write the needed "
                "values out."
            )
    except RecursionError as error:
        raise _too_deep(path) from error


def check_depth(value: Any, path: Path | str) -> None:
    """Raise InputError for a value with more levels than recursive functions can handle."""
    level, seen = [value], set[int]()
    for _ in range(MAX_LEVELS):
        members: list[Any] = []
        for container in level:
            if isinstance(container, dict | list) and id(container) not in seen:
                seen.add(id(container))
                members.extend([*container, *container.values()] if isinstance(container, dict) else container)
        if not members:
            return
        level = members
    raise _too_deep(path)


def _open_brackets(text: str) -> int:
    """Return the largest number of open brackets, including brackets in quotes."""
    deepest = depth = 0
    for bracket in BRACKET.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _too_deep(path: Path | str) -> InputError:
    return InputError(f"{path} is nested too deeply: Seedling's files have at most a dozen levels.")


def check_no_conflict(text: str, path: Path | str) -> None:
    """Raise InputError for conflict markers of git in the text."""
    start = CONFLICT_START.search(text)
    if start is None or CONFLICT_END.search(text) is None:
        return
    line = text.count("\n", 0, start.start()) + 1
    remedy = SOLVED_BY_COMMAND if Path(path).name in MERGED_BY_COMMAND else SOLVED_BY_HAND
    raise InputError(f"{path} has an unsolved merge conflict at line {line}: {remedy}.")


def _values(node: Node, counts: dict[int, int]) -> int:
    """Count the values of the node with its aliases expanded. Each node is visited once."""
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = MAX_VALUES + 1  # a node that contains itself never ends
    count = 1
    if isinstance(node, MappingNode):
        count += sum(_values(key, counts) + _values(value, counts) for key, value in node.value)
    elif isinstance(node, SequenceNode):
        count += sum(_values(item, counts) for item in node.value)
    counts[id(node)] = count
    return count
