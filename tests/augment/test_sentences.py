"""Operations on texts: what each changes, and what none changes."""

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


def test_names_numbers_negations_and_protected_words_are_not_changed() -> None:
    """NOT, 30, Anna, Rome, and the protected 'book' stay; a capitalized first word of a sentence is not a name."""
    tokens = tokenize(TEXT, CONTEXT.protected)
    changeable = [tokens.pieces[index].strip(".!") for index in tokens.changeable]
    assert changeable == ["Please", "a", "quiet", "table", "for", "two", "We", "will", "pay", "euros", "to", "in"]


@pytest.mark.parametrize("operation", [*OPERATIONS])
def test_protected_words_stay_under_every_operation(operation: str) -> None:
    """In a hundred augmented texts, whatever the share of changed words."""
    for seed in range(100):
        changed = change(TEXT, operation, 0.6, seed, CONTEXT)
        for word in ("book", "NOT", "30", "Anna", "Rome!"):
            assert word in changed


def test_each_operation_changes_what_its_name_says() -> None:
    """Compared with definitions: the multiset of words, their number, neighbors of one letter, the share of masks."""
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
            changed = change(TEXT, operation, 0.01, seed, CONTEXT)
            ((old, new_letter),) = [(a, b) for a, b in zip(TEXT, changed, strict=True) if a != b]
            assert new_letter.lower() in (table.get(old) or table[old.lower()]).lower()
        assert change(TEXT, "case", 0.1, seed, CONTEXT).lower() == TEXT.lower()
    masked = [
        change("one two three four five six seven eight nine ten", "mask", 1.0, seed, CONTEXT) for seed in range(300)
    ]
    shares = Counter(word for text in masked for word in text.split())
    assert shares[MASK] / 3000 == pytest.approx(0.8, abs=0.03)
    assert shares["zebra"] / 3000 == pytest.approx(0.1, abs=0.02)


def test_blanks_are_kept_and_capitalization_is_transferred() -> None:
    """Two blanks after the sentence; a synonym of the first word is capitalized as that word was."""
    assert "  We" in change(TEXT, "typo", 0.01, 4, Context(protected=frozenset({"we"})))
    assert change("Quiet!", "synonym", 1.0, 0, CONTEXT) in {"Silent!", "Calm!"}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "a", "...", "42", "one", "ünïcode wörds ölny", "no not never", "word " * 100_000])
def test_unusual_texts_are_accepted(text: str) -> None:
    """Empty, one word, no letters, only negations, a hundred thousand words: the result is a text, the same for the
    same seed.
    """
    for operation in OPERATIONS:
        changed = change(text, operation, 0.15, 1, CONTEXT)
        assert changed == change(text, operation, 0.15, 1, CONTEXT)
        if text in {"", "...", "42", "no not never"}:
            assert changed == text


def test_a_thesaurus_is_read_from_a_table(tmp_path: Path) -> None:
    """Lists or comma-separated words; only the first sense; only single words of four letters or more."""
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
    for name, text, message in (
        ("no.csv", None, "does not exist"),
        ("odd.csv", "a,b\n1,2\n", "it needs `word` and `synonyms`"),
        ("odd.txt", "", "none of .csv"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_thesaurus(tmp_path / name)


def test_inserted_words_are_neither_negations_nor_protected() -> None:
    """`mask` and `insert` draw from the other words of the training texts."""
    parents = pd.DataFrame({"text": ["you will not pay", "never book the direct debit", "no table"]})
    params = AugmentParams(policy=["mask", "insert"], protect=["direct debit"])
    features = make_features(None, None, WorkspaceConfig(modality="text"))
    context = resources_of(params, WorkspaceConfig(modality="text"), parents, None, features).context
    assert context.vocabulary == ["book", "pay", "table", "the", "will", "you"]


def test_an_unusable_share_or_function_is_explained() -> None:
    """A share of zero, and a function that returns half a character."""
    config = WorkspaceConfig(modality="text")
    with pytest.raises(InputError, match="swap: a share of 0 changes nothing"):
        steps_of([{"swap": 0}], config, {})
    resources = Resources({"halved": lambda text, _: text + "\ud800"}, CONTEXT)
    with pytest.raises(InputError, match="'halved' returned a text with a lone surrogate"):
        maker_of(steps_of(["halved"], config, resources.plugins), config, resources)("good day", 1)


def test_an_unknown_operation_is_explained() -> None:
    """The error has the most similar name and the list of operations."""
    with pytest.raises(InputError, match=r"unknown operation .synonim.\. Did you mean synonym"):
        steps_of(["synonim"], WorkspaceConfig(modality="text"), {})
    with pytest.raises(InputError, match="Unknown function 'gone'"):
        maker_of([Step("own", {"name": "gone"}, "gone")], WorkspaceConfig(modality="text"), Resources.of(None))
