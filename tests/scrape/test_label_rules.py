"""Label rules: the votes of each kind, and how votes are combined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from seedling.config.sources import LabelRule
from seedling.errors import InputError
from seedling.scrape.label_rules import Audit, Rules
from seedling.stats.voting import Agreed, DawidSkene, Majority


def votes(fields: dict[str, str], *rules: Mapping[str, object], data: Path = Path("nowhere")) -> dict[str, str]:
    return dict(Rules([LabelRule.model_validate(rule) for rule in rules], data).votes(fields))


def test_words_match_whole_words_in_any_case_and_two_labels_abstain() -> None:
    """'Cats' does not match 'cat', 'CAT' does; if words of two labels match, the rule abstains."""
    rule = {"rule": "w", "field": "alt", "words": {"cat": ["cat", "tom cat"], "dog": ["dog"]}}
    assert votes({"alt": "A CAT!"}, rule) == {"w": "cat"}
    assert votes({"alt": "cats"}, rule) == {}
    assert votes({"alt": "cat and dog"}, rule) == {}
    assert votes({}, rule) == {}


def test_bands_include_their_lower_end() -> None:
    """4.0 is medium; 10.0 is beyond the last band; text that is not a number has no band."""
    rule = {"rule": "b", "field": "score", "bands": {"low": [0, 4], "medium": [4, 7]}}
    band_labels = [votes({"score": value}, rule).get("b") for value in ("0", "3.99", "4.0", "7", "high", "nan")]
    assert band_labels == ["low", "low", "medium", None, None, None]


def test_patterns_and_maps() -> None:
    """The first group, or else the whole match; a map selects values; a field alone is its own label."""
    assert votes(
        {"origin": "/x/dogs/1.png"},
        {"rule": "p", "field": "origin", "pattern": "/(cats|dogs)/", "map": {"dogs": "dog"}},
    ) == {"p": "dog"}
    assert (
        votes(
            {"origin": "/x/cats/1.png"},
            {"rule": "p", "field": "origin", "pattern": "/(cats|dogs)/", "map": {"dogs": "dog"}},
        )
        == {}
    )
    assert votes({"tag": " big  dog "}, {"rule": "t", "field": "tag"}) == {"t": "big dog"}
    with pytest.raises(ValueError, match="words and pattern"):
        LabelRule.model_validate({"rule": "x", "words": {"a": ["a"]}, "pattern": "a"})


def test_plugin_functions_are_found_and_their_errors_reported(tmp_path: Path) -> None:
    """Two functions in data/labeling.py.

    A missing one is reported with the existing ones, and an exception with the item's origin.
    """
    (tmp_path / "labeling.py").write_text(
        "import math\n\ndef shouting(item):\n    return 'loud' if item['text'].isupper() else None\n\n\ndef faulty(item):\n    return item['nothing']\n"
    )
    rule = {"rule": "s", "function": "shouting"}
    assert votes({"text": "HEY"}, rule, data=tmp_path) == {"s": "loud"}
    assert votes({"text": "hey"}, rule, data=tmp_path) == {}
    with pytest.raises(InputError, match=r"no function 'shout' .*there is: faulty, shouting"):
        votes({}, {"rule": "s", "function": "shout"}, data=tmp_path)
    with pytest.raises(InputError, match="'faulty' stopped at here: KeyError"):
        votes({"origin": "here"}, {"rule": "s", "function": "faulty"}, data=tmp_path)
    with pytest.raises(InputError, match="two label rules are named 's'"):
        votes({}, rule, rule, data=tmp_path)


def test_a_package_may_provide_labeling_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function `shouting` that an installed package registers under seedling.labeling needs no file in the workspace."""
    (tmp_path / "loudness.py").write_text(
        "def shouting(fields):\n    return 'loud' if fields['text'].isupper() else None\n"
    )
    dist_info = tmp_path / "loudness-1.0.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: loudness\nVersion: 1.0\n")
    (dist_info / "entry_points.txt").write_text("[seedling.labeling]\nshouting = loudness:shouting\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "data").mkdir()
    rule = {"rule": "s", "function": "shouting"}
    assert votes({"text": "HEY"}, rule, data=tmp_path / "data") == {"s": "loud"}
    assert votes({"text": "hey"}, rule, data=tmp_path / "data") == {}


def test_the_majority_decides_and_a_tie_abstains() -> None:
    """Two of three votes; one of two; none."""
    combine = Majority()
    assert combine((("a", "x"), ("b", "x"), ("c", "y"))) == Agreed("x", 2 / 3, ("a", "b"))
    assert combine((("a", "x"), ("b", "y"))) is None
    assert combine(()) is None


def test_dawid_skene_estimates_the_accuracy_of_each_rule() -> None:
    """One good rule against two that guess: where they differ the good one decides, and more items are correct than by
    majority.
    """
    rng = np.random.default_rng(5)
    truth = rng.integers(3, size=4_000)
    cast, items = Counter[tuple[tuple[str, str], ...]](), []
    for true_class in truth:
        item_votes = []
        for rule, (right, speaks) in {
            "good": (0.95, 0.9),
            "guess1": (0.45, 0.9),
            "guess2": (0.45, 0.9),
            "fair": (0.75, 0.6),
        }.items():
            if rng.random() < speaks:
                label = true_class if rng.random() < right else (true_class + rng.integers(1, 3)) % 3
                item_votes.append((rule, f"c{label}"))
        items.append(tuple(item_votes))
        cast[tuple(item_votes)] += 1
    del cast[()]
    accuracies = {}
    for name, combine in (("majority", Majority()), ("dawid_skene", DawidSkene(cast))):
        combined = [combine(item) for item in items]
        accuracies[name] = np.mean(
            [
                result is not None and result.label == f"c{number}"
                for result, number in zip(combined, truth, strict=True)
            ]
        )
    assert accuracies["dawid_skene"] > accuracies["majority"] + 0.05
    assert accuracies["dawid_skene"] > 0.88
    sure = DawidSkene(cast)((("good", "c1"), ("guess1", "c0"), ("guess2", "c0")))
    assert sure is not None
    assert sure.label == "c1"


def test_dawid_skene_is_nearly_certain_about_rules_that_agree() -> None:
    """For rules that always agree the posterior is nearly 1, and does not depend on the order of the vote patterns."""
    cast: dict[tuple[tuple[str, str], ...], int] = {(("a", "x"), ("b", "x")): 50, (("a", "y"), ("b", "y")): 50}
    combine = DawidSkene(cast)
    result = combine((("a", "x"), ("b", "x")))
    assert result is not None
    assert result.label == "x"
    assert result.confidence > 0.99
    other = DawidSkene(dict(reversed(cast.items())))((("a", "x"), ("b", "x")))
    assert other == result


def test_the_audit_of_rules_matches_a_hand_calculation() -> None:
    """Four items: rule a votes on three, agrees with b on one and differs on one; on two items with human labels it is
    correct once.
    """
    audit = Audit(4)
    audit.add((("a", "x"), ("b", "x")), "x")
    audit.add((("a", "x"), ("b", "y")), "Y")
    audit.add((("a", "y"),), None)
    audit_by_rule = {rule_audit.rule: rule_audit for rule_audit in audit.table()}
    assert [
        getattr(audit_by_rule["a"], name) for name in ("votes", "coverage", "overlap", "conflict", "evaluated")
    ] == [
        3,
        0.75,
        0.5,
        0.25,
        2,
    ]
    precisions = [
        rule_audit.precision.value for rule_audit in (audit_by_rule["a"], audit_by_rule["b"]) if rule_audit.precision
    ]
    assert precisions == [0.5, 1.0]
