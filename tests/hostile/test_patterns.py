"""Regular expressions with exponential run time: of sources, label rules, selectors and gates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import site
from pydantic import ValidationError
from visiting import QUICK, TEXTS, run

from seedling.config.patterns import Pattern, PatternTooSlow, limiting_searches
from seedling.config.sources import FolderSource, LabelRule
from seedling.dataset.generation import read_rejected
from seedling.errors import InputError
from seedling.gates.checking import check, load_gates
from seedling.gates.limited_patterns import limited_validator, matches
from seedling.gates.on_disk import GatedRows

SLOW = r"^(a|a)*\1$"  # which no linear engine reads either
LONG = "a" * 60 + "b"


@pytest.fixture(autouse=True)
def short_limit() -> Iterator[None]:
    """A limit of 0.3 seconds, so that the tests are fast."""
    with limiting_searches(0.3):
        yield


@pytest.mark.parametrize(
    "pattern", [SLOW, r"^(a+)+$", r"(a*)*c", r"(.*)x(.*)y(.*)z(.*)w", r"^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_a_search_with_exponential_run_time_ends(pattern: str) -> None:
    """Each takes Python's engine years; here it returns, or raises an error with the pattern and the fix."""
    began = time.monotonic()
    try:
        assert Pattern(pattern).search("x" * 3_000 + LONG) is None or pattern.startswith("(.*)")
    except PatternTooSlow as error:
        assert pattern in str(error)
        assert "without nested repetitions" in str(error)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(\w+)-(\d+)", "größe-12"),
        (r"(?i)CAT", "a cat"),
        (r"a$", "a\n"),
        (r"(?P<x>b)(?=c)", "abc"),
        (r"(?<!\d)\b\w", "1 é"),
    ],
)
def test_ordinary_patterns_match_as_in_the_standard_library(pattern: str, text: str) -> None:
    """The same match and groups as in Python's engine."""
    expected, match = re.search(pattern, text), Pattern(pattern).search(text)
    assert expected is not None
    assert (match[0], match.span(), match.groups()) == (expected[0], expected.span(), expected.groups())


def test_a_slow_label_rule_stops_the_stage(tmp_path: Path) -> None:
    """The stage raises the pattern's error with exit code 2, and does not hang."""
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": ["a text", LONG]}).to_csv(tmp_path / "data" / "t.csv", index=False)
    with pytest.raises(PatternTooSlow, match="takes more than"):
        run(tmp_path, TEXTS, {"kind": "table", "path": "t.csv"}, rules=[{"rule": "r", "pattern": SLOW}])
    assert issubclass(PatternTooSlow, InputError)


def test_a_slow_group_pattern_stops_the_stage(tmp_path: Path) -> None:
    """The pattern is applied to untrusted file names."""
    folder = tmp_path / "data" / "unlabeled"
    folder.mkdir(parents=True)
    (folder / f"{LONG}.txt").write_text("a text")
    with pytest.raises(PatternTooSlow):
        run(tmp_path, TEXTS, {"kind": "folder", "group": r"/(a|a)*\1$"})


@pytest.mark.parametrize(
    "pattern", ["(" * 600 + ")" * 600, "a" * 2_000, "(", "a{99999999999999999999}", "(?<=a+)b" * 0 + "[z-a]"], ids=len
)
def test_an_invalid_pattern_is_an_error_of_params(pattern: str) -> None:
    """Not a traceback, and not a program that takes a minute to compile."""
    with pytest.raises(ValidationError):
        LabelRule(rule="r", pattern=pattern)
    with pytest.raises(ValidationError):
        FolderSource(kind="folder", group=pattern)


@pytest.mark.slow
def test_a_slow_selector_rejects_its_page(tmp_path: Path) -> None:
    """XPath has regular expressions too: the page on which one hangs is rejected with a reason, and the visit
    continues.
    """
    with site() as server:
        server.routes["/"] = "<p>a text</p><p>aab</p>"
        page = {"kind": "crawl", "start": server.address + "/", "text": "::text", **QUICK}
        generation = run(tmp_path, TEXTS, {**page, "item": '//p[re:test(., "^A+B$", "i")]'})
        assert pd.read_parquet(next(generation.glob("part-*.parquet")))["text"].tolist() == ["aab"]
        server.routes["/"] = '<p>a text</p><a rel=next href="/2">on</a>'
        server.routes["/2"] = f"<p>{LONG}</p>"
        began = time.monotonic()
        output = run(tmp_path, TEXTS, {**page, "item": rf'//p[. = "a text" or re:test(., "{SLOW}")]'}, as_of="2")
        assert time.monotonic() - began < 60
    assert read_rejected(output)["reason"].tolist() == ["page_not_understood_patterntooslow"]


def rows(*texts: str) -> GatedRows:
    """Rows as a gate receives them."""
    return GatedRows.of(pd.DataFrame({"id": [str(number) for number in range(len(texts))], "text": list(texts)}))


@pytest.mark.parametrize(
    "expectation",
    [
        ("expect_column_values_to_match_regex", {"regex": SLOW}),
        ("expect_column_values_to_not_match_regex", {"regex": SLOW}),
        ("expect_column_values_to_match_regex_list", {"regex_list": ["x", SLOW]}),
        ("expect_column_values_to_not_match_regex_list", {"regex_list": ["x", SLOW]}),
        ("expect_column_values_to_match_json_schema", {"json_schema": {"type": "string", "pattern": SLOW}}),
    ],
)
def test_a_slow_expectation_fails(expectation: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """The result states that it could not be evaluated, and why."""
    name, arguments = expectation
    gates = {"train": [(name, {"column": "text", **arguments})]}
    text = f'"{LONG}"' if "json" in name else LONG
    with limiting_searches(0.05):  # each is searched several times
        (*_, judged) = check("train", rows("x" if "json" not in name else '"x"', text), gates, tmp_path)
    assert not judged.passed
    assert "could not be evaluated" in judged.observed
    assert "takes more than" in judged.observed


def test_ordinary_expectations_with_patterns_are_evaluated() -> None:
    """Patterns of Arrow's engine, a lookahead, which it lacks, and the parts of a JSON schema that have patterns."""
    column = pd.Series(["cat-1", "dog", "größe-2"], dtype=object)
    assert matches(column, r"-\d$").tolist() == [True, False, True]
    assert matches(column, r"^(?=cat)").tolist() == [True, False, False]
    schema = {
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^n_": {"type": "number"}},
        "additionalProperties": False,
    }
    validator = limited_validator(schema)
    assert [validator.is_valid(value) for value in ({"a": 1, "n_x": 2.5}, {"n_x": "no"}, {"b": 1}, {"a": "1"})] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema", "file:///etc/passwd"])
def test_a_json_schema_loads_no_other_schema(reference: str) -> None:
    """`$ref` could name a private address or a file."""
    with pytest.raises(Exception, match="nresolvable"):
        limited_validator({"$ref": reference}).is_valid({})


CODE = [
    "@pd.io.common.os.system('touch MARK') == 0",
    "id.to_csv('MARK') == id",
    "`id`.to_pickle('MARK') == id",
    "id == '`' or @pd.io.common.os.system('touch MARK') or id == '`'",
    "`a` == 1 and id == '`'",
    "id.str.__class__ == 1",
    "id.pipe(print) == 1",
    "id.apply('to_csv') == id",
    "id.str.contains('^(a+)+$')",
    "id.str.match(text)",
    "id.map(eval) == 1",
    "(lambda: 1)() == 1",
    "[x for x in id] == 1",
    "id[0] == 1",
    "__import__('os').system('touch MARK')",
    "id == 'a'; id = 'b'",
    "x = id",
    "id.str",
    {"condition": {"type": "pass_through", "pass_through_filter": "@pd.io.common.os.system('touch MARK') == 0"}},
    {"type": "comparison", "column": {"name": "id`) or @pd.x(`"}, "operator": "==", "parameter": 1},
    ["id"],
]


@pytest.mark.parametrize("condition", CODE, ids=str)
def test_a_row_condition_executes_no_code(condition: Any, tmp_path: Path) -> None:
    """The attack: pandas' `@` leads from a condition in gates.yaml to os.system, and columns have methods that write
    files.
    """
    import json

    expectation = {
        "expect_column_values_to_not_be_null": {
            "column": "id",
            "row_condition": condition,
            "condition_parser": "pandas",
        }
    }
    (tmp_path / "gates.yaml").write_text(json.dumps({"validate": [expectation]}).replace("MARK", str(tmp_path / "ran")))
    with pytest.raises(InputError, match="row_condition"):
        load_gates(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "condition",
    [
        'split == "train"', 'split=="train" and words > 3', "not (words in [1, 2])", "label.isnull() | (words >= -2.5)", "words > words.mean()",
        'text.str.len() > 3 & label != "a.b"', 'text.str.contains("cat|dog")', "`a column` == 1", 'text.str.startswith("@")', None,
    ],
)  # fmt: skip
def test_ordinary_row_conditions_are_evaluated(condition: str | None, tmp_path: Path) -> None:
    """Comparisons, arithmetic, and methods that only read."""
    import json

    expectation = {"expect_column_values_to_not_be_null": {"column": "id", "row_condition": condition}}
    (tmp_path / "gates.yaml").write_text(json.dumps({"validate": [expectation]}))
    assert load_gates(tmp_path)["validate"][0][1]["row_condition"] == condition
