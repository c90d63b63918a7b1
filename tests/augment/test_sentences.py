"""Operations on texts: what each does, and what none touches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from seedling.augment.makers import Resources, Step, maker_of, steps_of
from seedling.augment.resources import resources_of
from seedling.augment.sentences import LOOKALIKES, MASK, OPERATIONS, Context, change, tokenize
from seedling.augment.thesaurus import read_thesaurus
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.media.typos import NEIGHBORS
from seedling.models.saving import make_features

TEXT = "Please book a quiet table for two.  We will NOT pay 30 euros to Anna in Rome!"
CONTEXT = Context(
    near={"quiet": ["silent", "calm"], "table": ["desk"]}, vocabulary=["zebra"], protected=frozenset({"book"})
)


def test_names_numbers_negations_and_protected_words_may_not_change() -> None:
    """By hand: not NOT, 30, Anna, Rome, nor the protected 'book'; words at a sentence's beginning are no names."""
    tokens = tokenize(TEXT, CONTEXT.protected)
    changeable = [tokens.pieces[index].strip(".!") for index in tokens.changeable]
    assert changeable == ["Please", "a", "quiet", "table", "for", "two", "We", "will", "pay", "euros", "to", "in"]


@pytest.mark.parametrize("operation", [*OPERATIONS])
def test_what_may_not_change_stays(operation: str) -> None:
    """In a hundred children, whatever the operation and however much of the text it changes."""
    for seed in range(100):
        made = change(TEXT, operation, 0.6, seed, CONTEXT)
        for word in ("book", "NOT", "30", "Anna", "Rome!"):
            assert word in made


def test_each_operation_does_what_it_is_called() -> None:
    """Against definitions: the words' multiset, their number, one letter's neighbors, the mask's share."""
    words = Counter(TEXT.split())
    for seed in range(50):
        assert Counter(change(TEXT, "swap", 0.3, seed, CONTEXT).split()) == words
        assert len(change(TEXT, "delete", 0.25, seed, CONTEXT).split()) == words.total() - 3  # a quarter of twelve
        new = Counter(change(TEXT, "synonym", 0.1, seed, CONTEXT).replace(".", "").split()) - Counter(
            TEXT.replace(".", "").split()
        )
        assert set(new) <= {"silent", "calm", "desk"}
        assert new.total() == 1
        assert (Counter(change(TEXT, "insert", 0.1, seed, CONTEXT).split()) - words).total() == 1
        for operation, table in (("typo", NEIGHBORS), ("misread", LOOKALIKES)):
            made = change(TEXT, operation, 0.01, seed, CONTEXT)
            ((old, new_letter),) = [(a, b) for a, b in zip(TEXT, made, strict=True) if a != b]
            assert new_letter.lower() in (table.get(old) or table[old.lower()]).lower()
        assert change(TEXT, "case", 0.1, seed, CONTEXT).lower() == TEXT.lower()
    masked = [
        change("one two three four five six seven eight nine ten", "mask", 1.0, seed, CONTEXT) for seed in range(300)
    ]
    shares = Counter(word for one in masked for word in one.split())
    assert shares[MASK] / 3000 == pytest.approx(0.8, abs=0.03)
    assert shares["zebra"] / 3000 == pytest.approx(0.1, abs=0.02)


def test_blanks_stay_as_they_were_and_capitals_come_back() -> None:
    """Two blanks after the sentence; a synonym at the beginning is capitalized as the word was."""
    assert "  We" in change(TEXT, "typo", 0.01, 4, Context(protected=frozenset({"we"})))
    assert change("Quiet!", "synonym", 1.0, 0, CONTEXT) in {"Silent!", "Calm!"}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "a", "...", "42", "one", "ünïcode wörds ölny", "no not never", "word " * 100_000])
def test_odd_texts_come_through(text: str) -> None:
    """Nothing, one word, no letters, only negations, a hundred thousand words: a text comes back, the same for the same seed."""
    for operation in OPERATIONS:
        made = change(text, operation, 0.15, 1, CONTEXT)
        assert made == change(text, operation, 0.15, 1, CONTEXT)
        if text in {"", "...", "42", "no not never"}:
            assert made == text


def test_a_thesaurus_is_read_from_a_table(tmp_path: Path) -> None:
    """Lists or words between commas; the first sense alone; single words of four letters or more."""
    table = pd.DataFrame(
        {
            "lemma": ["quick", "quick", "be", "table"],
            "sense": [1, 2, 1, 1],
            "synonyms": [["fast", "rapid"], ["alive"], ["exist"], ["dining table", "desk"]],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    assert read_thesaurus(tmp_path / "t.parquet") == {"quick": ["fast", "rapid"], "table": ["desk"]}
    (tmp_path / "t.csv").write_text("word,synonyms\nquick,fast; rapid\n", encoding="utf-8")
    assert read_thesaurus(tmp_path / "t.csv") == {"quick": ["fast", "rapid"]}
    for name, text, said in (
        ("no.csv", None, "does not exist"),
        ("odd.csv", "a,b\n1,2\n", "it needs `word` and `synonyms`"),
        ("odd.txt", "", "none of .csv"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_thesaurus(tmp_path / name)


def test_words_that_are_put_in_are_no_negation_and_none_that_is_protected() -> None:
    """Random words of the training texts, by `mask` and `insert`: what they may be is what is left of these texts."""
    parents = pd.DataFrame({"text": ["you will not pay", "never book the direct debit", "no table"]})
    params = AugmentParams(policy=["mask", "insert"], protect=["direct debit"])
    features = make_features(None, None, WorkspaceConfig(modality="text"))
    context = resources_of(params, WorkspaceConfig(modality="text"), parents, None, features).context
    assert context.vocabulary == ["book", "pay", "table", "the", "will", "you"]


def test_what_no_text_can_be_made_of_is_explained() -> None:
    """A share of none, and a function that gives half of a character."""
    config = WorkspaceConfig(modality="text")
    with pytest.raises(InputError, match="swap: a share of 0 changes nothing"):
        steps_of([{"swap": 0}], config, {})
    resources = Resources({"halved": lambda text, _: text + "\ud800"}, CONTEXT)
    with pytest.raises(InputError, match="'halved' returned a text with a lone surrogate"):
        maker_of(steps_of(["halved"], config, resources.plugins), config, resources)("good day", 1)


def test_an_unknown_operation_is_explained() -> None:
    """With what was probably meant, and what there is."""
    with pytest.raises(InputError, match=r"unknown operation .synonim.\. Did you mean synonym"):
        steps_of(["synonim"], WorkspaceConfig(modality="text"), {})
    with pytest.raises(InputError, match="Unknown function 'gone'"):
        maker_of([Step("own", {"name": "gone"}, "gone")], WorkspaceConfig(modality="text"), Resources.of(None))
