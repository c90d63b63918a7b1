"""YAML that people edit and git merges: read with limits, and with a remedy for what a merge or an editor left in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from seedling.config.secret_literals import without_secrets
from seedling.errors import InputError

MAX_BYTES = 2**20  # which takes the parser some seconds; the largest that we know has a tenth of it
MAX_OPEN_BRACKETS = 50  # the parser looks at each of them for each word within
MAX_LEVELS = 100
MAX_VALUES = 200_000  # of a file whose aliases are written out; the largest that we know has some thousands

ALIAS = re.compile(r"[&*][^\s,\[\]{}]")  # an anchor or an alias may have any name

BRACKET = re.compile(r"[\[\]{}]")

CONFLICT_START = re.compile(r"^<{7}(?: |$)", re.MULTILINE)
CONFLICT_END = re.compile(r"^>{7}(?: |$)", re.MULTILINE)
SOLVED_BY_HAND = "keep one side of each conflict and delete the lines that begin with <<<<<<<, ======= and >>>>>>>"
SOLVED_BY_COMMAND = "`seedling resolve` solves it"
MERGED_BY_COMMAND = {"dvc.lock", "data.dvc"}


def read_yaml_file(path: Path) -> Any:
    """The file's value, None of an empty one.

    Raises InputError, which names the file and the remedy: conflict markers of git, no YAML, no UTF-8, nested too deeply, or
    aliases that would fill the memory.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, and at most {MAX_BYTES:,} are read: shorten it."
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable YAML: {error}. Save it as UTF-8.") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str) -> Any:
    """As `read_yaml_file`, of a text; `path` is for the message."""
    check_no_conflict(text, path)
    try:
        check_limits(text, path)
        value = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:
        quoted = (
            " Put what holds a colon, such as 'http://host:80/' or '.tag::text', in quotes."
            if "unexpected ':'" in str(error)
            else ""
        )
        raise InputError(f"{path} is not readable YAML: {without_secrets(str(error))}.{quoted}") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    check_depth(value, path)
    return value


def check_limits(text: str, path: Path | str) -> None:
    """Raises InputError for a text that is too long or nested too deeply, or whose aliases stand for more values than any program should
    walk through.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{path} has {len(text):,} characters, and at most {MAX_BYTES:,} are read: shorten it.")
    if _open_brackets(text) > MAX_OPEN_BRACKETS:
        raise _too_deep(path)
    if ALIAS.search(text) is None:
        return
    try:
        root = YAML(typ="safe").compose(text)
        if root is not None and _values(root, {}) > MAX_VALUES:
            raise InputError(
                f"{path} has aliases (*name) that stand for more than {MAX_VALUES:,} values: write out what is needed."
            )
    except RecursionError as error:
        raise _too_deep(path) from error


def check_depth(value: Any, path: Path | str) -> None:
    """Raises InputError for a value with more levels than functions that call themselves can walk down."""
    level, seen = [value], set[int]()
    for _ in range(MAX_LEVELS):
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict | list) and id(container) not in seen:
                seen.add(id(container))
                below.extend([*container, *container.values()] if isinstance(container, dict) else container)
        if not below:
            return
        level = below
    raise _too_deep(path)


def _open_brackets(text: str) -> int:
    """How many brackets are open at most, those in quotes counted too."""
    most = depth = 0
    for bracket in BRACKET.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        most = max(most, depth)
    return most


def _too_deep(path: Path | str) -> InputError:
    return InputError(f"{path} is nested too deeply: no value of Seedling's has more than a dozen levels.")


def check_no_conflict(text: str, path: Path | str) -> None:
    """Raises InputError where git left the markers of a merge conflict in the text."""
    start = CONFLICT_START.search(text)
    if start is None or CONFLICT_END.search(text) is None:
        return
    line = text.count("\n", 0, start.start()) + 1
    how = SOLVED_BY_COMMAND if Path(path).name in MERGED_BY_COMMAND else SOLVED_BY_HAND
    raise InputError(f"{path} has an unsolved merge conflict at line {line}: {how}.")


def _values(node: Node, counts: dict[int, int]) -> int:
    """How many values the node holds once its aliases are written out. Each node is visited once, however often it is named."""
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = MAX_VALUES + 1  # found again below itself: it never ends
    count = 1
    if isinstance(node, MappingNode):
        count += sum(_values(key, counts) + _values(value, counts) for key, value in node.value)
    elif isinstance(node, SequenceNode):
        count += sum(_values(item, counts) for item in node.value)
    counts[id(node)] = count
    return count
