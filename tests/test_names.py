"""Local names say what a value is: names that say nothing are rare, and stay so."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FILLERS = frozenset(
    (
        "one",
        "found",
        "said",
        "told",
        "known",
        "place",
        "made",
        "many",
        "given",
        "wanted",
        "shown",
        "mine",
        "own",
        "some",
        "asked",
        "work",
    )
)
MAX_SHARE_OF_FILLERS = 0.02


def bindings(path: Path) -> Iterator[str]:
    """Each name that the file binds: assigned names, loop variables, parameters, and names of imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


@pytest.mark.slow
def test_few_names_are_fillers() -> None:
    """Of all names that the code, its tests and benchmarks bind; the message lists the files with most."""
    of_file = {
        path.relative_to(PROJECT).as_posix(): Counter(bindings(path))
        for folder in ("seedling", "flows", "tasks", "tests", "benchmarks", "examples")
        for path in sorted((PROJECT / folder).rglob("*.py"))
    }
    counts = {name: sum(names[filler] for filler in FILLERS) for name, names in of_file.items()}
    total = sum(sum(names.values()) for names in of_file.values())
    share = sum(counts.values()) / total
    worst = sorted(counts.items(), key=lambda item: -item[1])[:10]
    assert total > 20_000
    assert share < MAX_SHARE_OF_FILLERS, f"{share:.1%} of {total:,} names are fillers; most in {worst}"
