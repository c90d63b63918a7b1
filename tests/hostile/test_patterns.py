"""Regular expressions that take forever: of sources, label rules, selectors and gates."""

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
    """A limit of 0.3 seconds, so that the tests are quick."""
    with limiting_searches(0.3):
        yield


@pytest.mark.parametrize(
    "pattern", [SLOW, r"^(a+)+$", r"(a*)*c", r"(.*)x(.*)y(.*)z(.*)w", r"^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_a_search_ends(pattern: str) -> None:
    """Each of these takes Python's engine years; here it is answered, or given up with the pattern and the remedy."""
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
def test_ordinary_patterns_find_what_they_found_before(pattern: str, text: str) -> None:
    """The same match and groups as Python's own engine."""
    expected, found = re.search(pattern, text), Pattern(pattern).search(text)
    assert expected is not None
    assert (found[0], found.span(), found.groups()) == (expected[0], expected.span(), expected.groups())


def test_a_label_rule_ends(tmp_path: Path) -> None:
    """The stage stops with the pattern's error, exit code 2, and does not hang."""
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": ["a text", LONG]}).to_csv(tmp_path / "data" / "t.csv", index=False)
    with pytest.raises(PatternTooSlow, match="takes more than"):
        run(tmp_path, TEXTS, {"kind": "table", "path": "t.csv"}, rules=[{"rule": "r", "pattern": SLOW}])
    assert issubclass(PatternTooSlow, InputError)


def test_a_folder_group_ends(tmp_path: Path) -> None:
    """The names of a stranger's files are what is searched."""
    folder = tmp_path / "data" / "unlabeled"
    folder.mkdir(parents=True)
    (folder / f"{LONG}.txt").write_text("a text")
    with pytest.raises(PatternTooSlow):
        run(tmp_path, TEXTS, {"kind": "folder", "group": r"/(a|a)*\1$"})


@pytest.mark.parametrize(
    "pattern", ["(" * 600 + ")" * 600, "a" * 2_000, "(", "a{99999999999999999999}", "(?<=a+)b" * 0 + "[z-a]"], ids=len
)
def test_a_pattern_that_cannot_be_read_is_an_error_of_params(pattern: str) -> None:
    """Not a traceback, and not a program that takes a minute to compile."""
    with pytest.raises(ValidationError):
        LabelRule(rule="r", pattern=pattern)
    with pytest.raises(ValidationError):
        FolderSource(kind="folder", group=pattern)


@pytest.mark.slow
def test_a_selector_ends(tmp_path: Path) -> None:
    """XPath has regular expressions too: the page that hangs one is rejected with a reason, and the visit goes on."""
    with site() as told:
        told.routes["/"] = "<p>a text</p><p>aab</p>"
        page = {"kind": "crawl", "start": told.address + "/", "text": "::text", **QUICK}
        found = run(tmp_path, TEXTS, {**page, "item": '//p[re:test(., "^A+B$", "i")]'})
        assert pd.read_parquet(next(found.glob("part-*.parquet")))["text"].tolist() == ["aab"]
        told.routes["/"] = '<p>a text</p><a rel=next href="/2">on</a>'
        told.routes["/2"] = f"<p>{LONG}</p>"
        began = time.monotonic()
        output = run(tmp_path, TEXTS, {**page, "item": rf'//p[. = "a text" or re:test(., "{SLOW}")]'}, as_of="2")
        assert time.monotonic() - began < 60
    assert read_rejected(output)["reason"].tolist() == ["page_not_understood_patterntooslow"]


def rows(*texts: str) -> GatedRows:
    """Rows as a gate sees them."""
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
def test_an_expectation_ends(expectation: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """It could not be evaluated, and says why."""
    name, arguments = expectation
    gates = {"train": [(name, {"column": "text", **arguments})]}
    text = f'"{LONG}"' if "json" in name else LONG
    with limiting_searches(0.05):  # each is searched several times
        (*_, judged) = check("train", rows("x" if "json" not in name else '"x"', text), gates, tmp_path)
    assert not judged.passed
    assert "could not be evaluated" in judged.observed
    assert "takes more than" in judged.observed


def test_expectations_of_patterns_judge_as_before() -> None:
    """What Arrow's engine reads, a lookahead, which it does not, and the parts of a JSON schema that hold patterns."""
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
def test_a_json_schema_loads_no_other_one(reference: str) -> None:
    """`$ref` could name an address inside, or a file."""
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
def test_a_condition_on_rows_runs_no_code(condition: Any, tmp_path: Path) -> None:
    """The attack: pandas' `@` leads from a condition in gates.yaml to os.system, and columns have methods that write files."""
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
def test_ordinary_conditions_are_used(condition: str | None, tmp_path: Path) -> None:
    """Comparisons, arithmetic, and methods that only look."""
    import json

    expectation = {"expect_column_values_to_not_be_null": {"column": "id", "row_condition": condition}}
    (tmp_path / "gates.yaml").write_text(json.dumps({"validate": [expectation]}))
    assert load_gates(tmp_path)["validate"][0][1]["row_condition"] == condition
