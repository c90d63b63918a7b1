"""Functions stay short enough to read at once: few have more than 40 lines of code."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
MAX_CODE_LINES = 40
MAX_LONG_FUNCTIONS = 9
WITHOUT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lengths_of_functions(source: str) -> Iterator[tuple[str, int]]:
    """Each function's name and number of code lines: those of its signature and body that hold code.

    Docstrings, comments and blank lines are not counted. A function counts the lines of functions inside it, too.
    """
    code_lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in WITHOUT_CODE:
            code_lines.update(range(token.start[0], token.end[0] + 1))
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            docstring = node.body[0]
            code_lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    for function in functions:
        yield function.name, len(code_lines.intersection(range(function.lineno, (function.end_lineno or 0) + 1)))


def test_code_lines_by_hand() -> None:
    """A signature of two lines, a docstring, a comment, a blank line and a body of two lines: four lines of code."""
    source = 'def add(\n    a, b):\n    """Sum.\n\n    Of two."""\n    # the sum\n\n    total = a + b\n    return total  # it\n'
    assert list(lengths_of_functions(source)) == [("add", 4)]


@pytest.mark.slow
def test_few_functions_are_long() -> None:
    """Of seedling, flows and tasks; the message lists the functions with more than 40 lines, the longest first."""
    lengths = [
        (length, f"{path.relative_to(PROJECT).as_posix()}: {name}")
        for folder in ("seedling", "flows", "tasks")
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for name, length in lengths_of_functions(path.read_text(encoding="utf-8"))
    ]
    too_long = sorted((length, name) for length, name in lengths if length > MAX_CODE_LINES)[::-1]
    assert len(lengths) > 1_000
    assert len(too_long) <= MAX_LONG_FUNCTIONS, "\n".join(f"{length} lines: {name}" for length, name in too_long)
