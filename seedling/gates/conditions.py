"""Check the row conditions (`row_condition`) and patterns in gates.yaml before they are used.

pandas evaluates row conditions. It calls any function that it can reach from a column or from its own modules
(`@pd.io…`), including functions that write files or start programs. A condition may therefore contain only columns,
values, comparisons and a few methods of columns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from seedling.config.patterns import Pattern
from seedling.errors import InputError

COMPARISON_METHODS = ("isnull", "isna", "notnull", "notna", "isin", "between", "eq", "ne", "lt", "le", "gt", "ge")
COLUMN_METHODS = (
    "mean",
    "median",
    "min",
    "max",
    "std",
    "sum",
    "count",
    "nunique",
    "quantile",
    "rank",
    "mode",
    "astype",
)
VALUE_METHODS = ("abs", "round", "duplicated")
TEXT_METHODS = ("len", "lower", "upper", "strip", "startswith", "endswith", "isdigit", "isnumeric", "isalpha")
MATCHING = {"contains", "match", "fullmatch"}  # methods with a pattern
METHODS = {*COMPARISON_METHODS, *COLUMN_METHODS, *VALUE_METHODS, *TEXT_METHODS, *MATCHING}
ACCESSORS = {"str"}
REPEATED = re.compile(r"(?<!\\)[*+?{]")
ALLOWED_NODES = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Load, ast.Name, ast.keyword),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot),
    *(ast.BinOp, ast.BitAnd, ast.BitOr, ast.BitXor, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)
MAX_CHARACTERS = 2_000
REMEDY = "compare columns with values, as in 'split == \"train\" and words > 3'"


def check_condition(condition: Any, where: str) -> None:
    """Raise InputError for a condition that must not reach pandas.

    where: the location in gates.yaml, for the message.
    """
    if isinstance(condition, str):
        _check_words(condition, where)
    elif isinstance(condition, dict):  # the serialized form of Great Expectations' conditions
        for value in condition.values():
            _check_mapping_value(value, where)
    elif condition is not None:
        raise InputError(f"{where}: row_condition is {condition!r}: {REMEDY}.")


def _check_mapping_value(value: Any, where: str) -> None:
    """Check the values of a condition that is written as a mapping, because texts in it also reach pandas."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name in {"pass_through_filter", "condition"} and isinstance(part, str):
                _check_words(part, where)
            elif name == "name" and isinstance(part, str) and re.fullmatch(r"\w+", part) is None:
                raise InputError(f"{where}: row_condition names a column {part!r}: {REMEDY}.")
            else:
                _check_mapping_value(part, where)
    elif isinstance(value, list):
        for part in value:
            _check_mapping_value(part, where)
    elif isinstance(value, str) and re.search(r"[@()\[\]`\"'\\]", value):
        raise InputError(f"{where}: row_condition contains {value!r}, which may be code: {REMEDY}.")


def _check_words(condition: str, where: str) -> None:
    if len(condition) > MAX_CHARACTERS:
        raise InputError(f"{where}: row_condition has more than {MAX_CHARACTERS:,} characters: shorten it.")
    # Backticks around quotation marks would be a column name here, but two strings with code between them in pandas.
    plain = re.sub(r"`([^`'\"\n]*)`", lambda match: "_" + re.sub(r"\W", "_", match[1]), condition)
    try:
        if "`" in plain:
            raise ValueError("an unpaired backtick, or backticks around quotation marks")
        tree = ast.parse(plain.strip(), mode="eval")
        fault = next((fault for node in ast.walk(tree) if (fault := _fault(node))), None) or _fault_of_whole(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        fault = "it cannot be parsed" + (", and @ refers to Python variables" if "@" in plain else "")
    if fault:
        raise InputError(f"{where}: row_condition {condition[:200]!r} is not allowed: {fault}. Instead, {REMEDY}.")


def _fault(node: ast.AST) -> str | None:
    match node:
        case ast.Attribute():
            if node.attr not in METHODS | ACCESSORS:
                return f"'{node.attr}' is not an allowed method"
        case ast.Call():
            if not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
                return "it calls a function that is not a method of a column"
            return _fault_of_pattern(node) if node.func.attr in MATCHING else None
        case ast.Name():
            if node.id.startswith("__"):
                return f"'{node.id}' is not a column"
        case _ if not isinstance(node, ALLOWED_NODES):
            return f"it contains {type(node).__name__}"
    return None


def _fault_of_pattern(call: ast.Call) -> str | None:
    """Reject patterns with repetitions: pandas uses Python's regular expressions, which have no time limit."""
    pattern = call.args[0] if call.args else next((word.value for word in call.keywords if word.arg == "pat"), None)
    if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
        return "its pattern is not a string literal"
    if REPEATED.search(pattern.value):
        return (
            "its pattern contains a repetition, which can take very long; "
            "expectations such as expect_column_values_to_match_regex allow repetitions"
        )
    return None


def _fault_of_whole(body: ast.expr) -> str | None:
    """Reject a condition that is only an attribute or a constant, such as `id.str`."""
    return "it is not a comparison" if isinstance(body, ast.Attribute | ast.Constant) else None


def check_patterns(arguments: Mapping[str, Any], where: str) -> None:
    """Raise InputError for an invalid regular expression in an expectation.

    where: the location in gates.yaml, for the message.
    """
    listed = arguments.get("regex_list")
    for pattern in [arguments.get("regex"), *(listed if isinstance(listed, list) else [])]:
        if isinstance(pattern, str):
            try:
                Pattern(pattern)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
