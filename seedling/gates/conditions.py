"""Conditions on rows (`row_condition`) and patterns in gates.yaml: what may stand in one.

pandas evaluates them, and would call any function that it can reach from a column or from its own modules (`@pd.io…`), those that write
files or start programs among them. So a condition is read first: columns, values, comparisons and a few methods of columns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from seedling.config.patterns import Pattern
from seedling.errors import InputError

METHODS = {
    *("isnull", "isna", "notnull", "notna", "isin", "between", "abs", "round", "duplicated", "notna", "eq", "ne", "lt", "le", "gt", "ge"),
    *("mean", "median", "min", "max", "std", "sum", "count", "nunique", "quantile", "rank", "mode", "astype"),
    *("len", "lower", "upper", "strip", "startswith", "endswith", "contains", "match", "fullmatch", "isdigit", "isnumeric", "isalpha"),
}  # fmt: skip
ACCESSORS = {"str"}
MATCHING = {"contains", "match", "fullmatch"}
REPEATED = re.compile(r"(?<!\\)[*+?{]")
ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.Compare, ast.Eq, ast.NotEq),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.BinOp, ast.BitAnd, ast.BitOr, ast.BitXor, ast.Add),
    *(ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Load, ast.Name, ast.keyword),
)  # fmt: skip
MAX_CHARACTERS = 2_000
REMEDY = "compare columns with values, as in 'split == \"train\" and words > 3'"


def check_condition(condition: Any, where: str) -> None:
    """Raises InputError for a condition that pandas may not be given. where: the place in gates.yaml, for the message."""
    if isinstance(condition, str):
        _check_words(condition, where)
    elif isinstance(condition, dict):  # as Great Expectations writes its own conditions down
        for value in condition.values():
            check_condition_parts(value, where)
    elif condition is not None:
        raise InputError(f"{where}: row_condition is {condition!r}: {REMEDY}.")


def check_condition_parts(value: Any, where: str) -> None:
    """As `check_condition`, of what stands in a condition that is written as a mapping: texts in it reach pandas too."""
    if isinstance(value, dict):
        for name, below in value.items():
            if name in {"pass_through_filter", "condition"} and isinstance(below, str):
                _check_words(below, where)
            elif name == "name" and isinstance(below, str) and re.fullmatch(r"\w+", below) is None:
                raise InputError(f"{where}: row_condition names a column {below!r}: {REMEDY}.")
            else:
                check_condition_parts(below, where)
    elif isinstance(value, list):
        for below in value:
            check_condition_parts(below, where)
    elif isinstance(value, str) and re.search(r"[@()\[\]`\"'\\]", value):
        raise InputError(f"{where}: row_condition holds {value!r}, which may be code: {REMEDY}.")


def _check_words(condition: str, where: str) -> None:
    if len(condition) > MAX_CHARACTERS:
        raise InputError(f"{where}: row_condition has more than {MAX_CHARACTERS:,} characters: shorten it.")
    # A pair of backticks around quotation marks would be a column here, and parts of two texts with code between them in pandas.
    plain = re.sub(r"`([^`'\"\n]*)`", lambda found: "_" + re.sub(r"\W", "_", found[1]), condition)
    try:
        if "`" in plain:
            raise ValueError("a backtick without another, or around quotation marks")
        tree = ast.parse(plain.strip(), mode="eval")
        fault = next((fault for node in ast.walk(tree) if (fault := _fault(node))), None) or _outside(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        fault = "it cannot be read" + (", and @ leads to Python's own names" if "@" in plain else "")
    if fault:
        raise InputError(f"{where}: row_condition {condition[:200]!r} is not used: {fault}. Instead, {REMEDY}.")


def _fault(node: ast.AST) -> str | None:
    match node:
        case ast.Attribute():
            if node.attr not in METHODS | ACCESSORS:
                return f"'{node.attr}' is not among the methods that may stand in one"
        case ast.Call():
            if not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
                return "a function is called that is not a method of a column"
            return _fault_of_pattern(node) if node.func.attr in MATCHING else None
        case ast.Name():
            if node.id.startswith("__"):
                return f"'{node.id}' is not a column"
        case _ if not isinstance(node, ALLOWED):
            return f"it holds {type(node).__name__}"
    return None


def _fault_of_pattern(call: ast.Call) -> str | None:
    """Pandas asks Python's engine, which has no limit of time: a pattern may repeat nothing."""
    given = call.args[0] if call.args else next((one.value for one in call.keywords if one.arg == "pat"), None)
    if not isinstance(given, ast.Constant) or not isinstance(given.value, str):
        return "its pattern is not written out"
    if REPEATED.search(given.value):
        return "its pattern repeats something, which can take forever; an expectation such as expect_column_values_to_match_regex may"
    return None


def _outside(body: ast.expr) -> str | None:
    """A condition that is an attribute and no value, such as `id.str`, is none."""
    return "it is not a comparison" if isinstance(body, ast.Attribute | ast.Constant) else None


def check_patterns(arguments: Mapping[str, Any], where: str) -> None:
    """Raises InputError for a regular expression of an expectation that cannot be read. where: the place in gates.yaml."""
    listed = arguments.get("regex_list")
    for pattern in [arguments.get("regex"), *(listed if isinstance(listed, list) else [])]:
        if isinstance(pattern, str):
            try:
                Pattern(pattern)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
