"""Label rules: what each kind says, and how several are brought to agree."""

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


def test_words_stand_alone_in_any_case_and_two_labels_are_none() -> None:
    """'Cats' is not the word 'cat'; CAT is; where words of two labels stand, the rule abstains."""
    rule = {"rule": "w", "field": "alt", "words": {"cat": ["cat", "tom cat"], "dog": ["dog"]}}
    assert votes({"alt": "A CAT!"}, rule) == {"w": "cat"}
    assert votes({"alt": "cats"}, rule) == {}
    assert votes({"alt": "cat and dog"}, rule) == {}
    assert votes({}, rule) == {}


def test_bands_hold_their_lower_end() -> None:
    """4.0 is medium; 10.0 is beyond the last band; words are no number."""
    rule = {"rule": "b", "field": "score", "bands": {"low": [0, 4], "medium": [4, 7]}}
    found = [votes({"score": value}, rule).get("b") for value in ("0", "3.99", "4.0", "7", "high", "nan")]
    assert found == ["low", "low", "medium", None, None, None]


def test_patterns_and_maps() -> None:
    """The first bracket, else the whole match; a map names what counts; a field alone is its own label."""
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


def test_functions_of_a_user_are_found_and_their_faults_told(tmp_path: Path) -> None:
    """data/labeling.py: two functions; one that is nowhere is named with those that are; one that stops says where."""
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


def test_a_package_may_bring_labeling_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers `shouting` under seedling.labeling is found by that name, with no file in the workspace."""
    (tmp_path / "loudness.py").write_text(
        "def shouting(fields):\n    return 'loud' if fields['text'].isupper() else None\n"
    )
    told = tmp_path / "loudness-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: loudness\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[seedling.labeling]\nshouting = loudness:shouting\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "data").mkdir()
    rule = {"rule": "s", "function": "shouting"}
    assert votes({"text": "HEY"}, rule, data=tmp_path / "data") == {"s": "loud"}
    assert votes({"text": "hey"}, rule, data=tmp_path / "data") == {}


def test_the_majority_decides_and_a_tie_does_not() -> None:
    """Two of three; one of two; none."""
    combine = Majority()
    assert combine((("a", "x"), ("b", "x"), ("c", "y"))) == Agreed("x", 2 / 3, ("a", "b"))
    assert combine((("a", "x"), ("b", "y"))) is None
    assert combine(()) is None


def test_dawid_and_skene_learn_whom_to_trust() -> None:
    """One good rule against two that guess: where they differ the good one decides, and more items are right than by majority."""
    rng = np.random.default_rng(5)
    truth = rng.integers(3, size=4_000)
    cast, items = Counter[tuple[tuple[str, str], ...]](), []
    for one in truth:
        said = []
        for rule, (right, speaks) in {
            "good": (0.95, 0.9),
            "guess1": (0.45, 0.9),
            "guess2": (0.45, 0.9),
            "fair": (0.75, 0.6),
        }.items():
            if rng.random() < speaks:
                label = one if rng.random() < right else (one + rng.integers(1, 3)) % 3
                said.append((rule, f"c{label}"))
        items.append(tuple(said))
        cast[tuple(said)] += 1
    del cast[()]
    accuracies = {}
    for name, combine in (("majority", Majority()), ("dawid_skene", DawidSkene(cast))):
        found = [combine(one) for one in items]
        accuracies[name] = np.mean(
            [one is not None and one.label == f"c{number}" for one, number in zip(found, truth, strict=True)]
        )
    assert accuracies["dawid_skene"] > accuracies["majority"] + 0.05
    assert accuracies["dawid_skene"] > 0.88
    sure = DawidSkene(cast)((("good", "c1"), ("guess1", "c0"), ("guess2", "c0")))
    assert sure is not None
    assert sure.label == "c1"


def test_dawid_and_skene_by_hand() -> None:
    """Rules that always agree: the posterior is all but certain, and the same whatever the order of the patterns."""
    cast: dict[tuple[tuple[str, str], ...], int] = {(("a", "x"), ("b", "x")): 50, (("a", "y"), ("b", "y")): 50}
    combine = DawidSkene(cast)
    found = combine((("a", "x"), ("b", "x")))
    assert found is not None
    assert found.label == "x"
    assert found.confidence > 0.99
    other = DawidSkene(dict(reversed(cast.items())))((("a", "x"), ("b", "x")))
    assert other == found


def test_the_audit_by_hand() -> None:
    """Four items: a speaks of three, with b of two, against it of one; of two that a person labeled it is right once."""
    audit = Audit(4)
    audit.add((("a", "x"), ("b", "x")), "x")
    audit.add((("a", "x"), ("b", "y")), "Y")
    audit.add((("a", "y"),), None)
    found = {one.rule: one for one in audit.table()}
    assert [getattr(found["a"], name) for name in ("votes", "coverage", "overlap", "conflict", "evaluated")] == [
        3,
        0.75,
        0.5,
        0.25,
        2,
    ]
    precisions = [one.precision.value for one in (found["a"], found["b"]) if one.precision]
    assert precisions == [0.5, 1.0]
