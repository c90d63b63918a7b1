"""validate: every reason, duplicates and leaks, splits and folds."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from PIL import Image

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_manifest, read_rejected
from seedling.errors import InputError
from seedling.media import images
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ValidateNotes
from seedling.validate import validate
from seedling.validate.duplicates import Clusters, equal_texts, near_duplicate_images, near_duplicate_texts
from seedling.validate.splits import assign_folds, carve_test

RNG = np.random.default_rng(11)
TEXTS, IMAGES = WorkspaceConfig(modality="text"), WorkspaceConfig(modality="image")


def text(content: str, label: str | None = None, split: str | None = None, source: str = "human") -> Row:
    where = split or ("train" if label else "pool")
    return Row(identify(content.encode()), where, label=label, label_source=source if label else None, payload=content)


def checked(tmp_path: Path, rows: list[Row], config: WorkspaceConfig = TEXTS, **params: object) -> Path:
    with GenerationWriter(tmp_path / "scrape", stage="scrape", modality=config.modality) as writer:
        for row in rows:
            writer.keep(row)
        writer.close(rows_in=len(rows))
    validate(ValidateParams.model_validate(params), config, collected=tmp_path / "scrape", output=tmp_path / "out")
    return tmp_path / "out"


BASE = [text(f"a sentence number {n} of {label}", label) for label in ("x", "y") for n in range(4)]


def reasons(output: Path) -> dict[str, int]:
    return dict(Counter(read_rejected(output)["reason"]))


def test_of_exact_copies_one_is_kept(tmp_path: Path) -> None:
    """The labeled copy is kept, not the unlabeled one."""
    output = checked(tmp_path, [text("twice"), text("twice", "x"), *BASE])
    assert reasons(output) == {"exact_duplicate": 1}
    assert read(output).set_index("text").loc["twice", "label"] == "x"


def test_copies_with_conflicting_labels_are_both_rejected(tmp_path: Path) -> None:
    """It is unknown which label is correct."""
    output = checked(tmp_path, [text("both", "x"), text("both", "y"), *BASE])
    assert reasons(output) == {"conflicting_labels": 2}


def test_a_human_label_outranks_a_weak_one(tmp_path: Path) -> None:
    """A wrong weak label on a copy does not reject the labeled row."""
    output = checked(tmp_path, [text("both", "x"), text("both", "y", source="weak:tag"), *BASE])
    assert reasons(output) == {"exact_duplicate": 1}
    assert read(output).set_index("text").loc["both", "label"] == "x"


def test_near_duplicates_of_test_rows_are_rejected_from_training_and_pool(tmp_path: Path) -> None:
    """Case and punctuation do not hide a leak."""
    held_out = text("Is this seen?", "x", "test")
    output = checked(tmp_path, [held_out, text("is this seen", "x"), text("IS THIS SEEN!"), *BASE])
    assert reasons(output) == {"near_duplicate_of_test": 2}


def test_near_duplicates_in_training_share_a_fold(tmp_path: Path) -> None:
    """No model is evaluated on a row that it was trained on."""
    rows = [text(f"{word}{mark}", label) for word, label in (("one", "x"), ("two", "y")) for mark in ("", "!", "?")]
    kept = read(checked(tmp_path, [*rows, *BASE]))
    for word in ("one", "two"):
        of_word = kept[kept["text"].str.startswith(word)]
        assert len(of_word) == 3
        assert of_word["fold"].nunique() == of_word["group"].nunique() == 1


PHRASES = [
    f"{adjective} {noun}"
    for adjective in ("red", "old", "big", "far", "dry", "wet", "raw", "icy")
    for noun in ("inn", "den", "pub", "spa", "zoo")
]


def in_group(group: str, row: Row) -> Row:
    """The row with the group that a source defines."""
    return replace(row, group=group)


def test_rows_in_the_source_group_of_a_test_row_are_rejected(tmp_path: Path) -> None:
    """The training and the pool row of the test row's page have another reason than a copy of the test row."""
    page = [
        in_group("page 1", row) for row in (text("asked of the model", "x", "test"), text("taught", "x"), text("pool"))
    ]
    output = checked(tmp_path, [*page, text("Asked of the model!", "x"), *BASE])
    assert reasons(output) == {"same_group_as_test": 2, "near_duplicate_of_test": 1}
    assert read(output).set_index("text").loc["asked of the model", "split"] == "test"


@pytest.mark.slow
def test_rows_in_a_source_group_share_a_fold(tmp_path: Path) -> None:
    """Six rows of a page and a copy of one of them are in one fold; near_group tells copies from neighbors."""
    page = [in_group("page 1", text(f"number {n} on this page, and no other {'z' * n}".strip(), "x")) for n in range(6)]
    rows = read(checked(tmp_path, [*page, text("Number 0 on this page, and no other!", "x"), *BASE])).set_index("text")
    on_page = rows[rows.index.str.contains("this page")]
    assert len(on_page) == 7
    assert on_page["fold"].nunique() == on_page["group"].nunique() == 1
    assert on_page["near_group"].nunique() < 7
    first = on_page["near_group"]["number 0 on this page, and no other"]
    assert first == on_page["near_group"]["Number 0 on this page, and no other!"]
    others = rows[~rows.index.str.contains("this page")]
    assert (others["group"] == others["id"]).all()


@pytest.mark.slow
def test_pages_with_several_classes_are_carved_whole_and_a_class_with_one_row_has_no_fold(tmp_path: Path) -> None:
    """A quarter of forty pages, with an x and a y row each, becomes the test split.

    A class with a single row on one of the pages has no fold, although the page has one.
    """
    things = ["hut", "cat", "sky", "oak", "fig", "bee", "sea", "ant", "elk", "owl"]
    pages = [f"{adjective} {noun}" for adjective in ("red", "old", "big", "far") for noun in things]
    rows = [in_group(page, text(f"{page} {label * 4}", label)) for page in pages for label in ("x", "y")]
    output = checked(
        tmp_path,
        [*rows, in_group(pages[0], text("once only", "z"))],
        test_share=0.25,
        min_test_rows=5,
        near_duplicate_similarity=1,
    )
    kept = read(output)
    test = kept[kept["split"] == "test"]
    assert test["label"].value_counts().to_dict() == {"x": 10, "y": 10}
    assert (kept.groupby("group")["split"].nunique() == 1).all()
    single = kept.set_index("text").loc["once only"]
    assert (single["split"], np.isnan(single["fold"])) == ("train", True)


@pytest.mark.slow
def test_the_kept_copy_inherits_the_group_of_the_rejected_copy(tmp_path: Path) -> None:
    """A copy of a test row is on a page: the page's other row is rejected. A text on two pages does not join them."""
    rows = [
        text("asked", "x", "test"),
        in_group("page 1", text("asked", "x")),
        in_group("page 1", text("beside it", "x")),
    ]
    rows += [in_group("page 2", text("on both", "y")), in_group("page 3", text("on both", "y"))]
    rows += [in_group("page 2", text("second page alone", "y")), in_group("page 3", text("third page alone", "y"))]
    output = checked(tmp_path, [*rows, *BASE])
    assert reasons(output) == {"exact_duplicate": 2, "same_group_as_test": 1}
    groups = read(output).set_index("text")["group"]
    assert len({groups[content] for content in ("on both", "second page alone", "third page alone")}) == 3


def test_near_duplicates_do_not_chain_pages(tmp_path: Path) -> None:
    """Pairs of 40 pages share a near-duplicate and have four rows of their own.

    There are 40 groups of four rows, the near-duplicates form separate groups, and there is a test split.
    """
    rows = []
    for page in range(40):
        shared_text = f"{PHRASES[page // 2]} hotel" if page % 2 else f"{PHRASES[page // 2].title()} Hotel!"
        rows.append(in_group(f"page {page}", text(shared_text, "a")))
        rows += [
            in_group(f"page {page}", text(f"{PHRASES[page]} {word}", "ab"[page % 2]))
            for word in ("hut", "cat", "sky", "oak")
        ]
    kept = read(checked(tmp_path, rows))
    shared = kept["text"].str.lower().str.contains("hotel")
    assert sorted(kept[~shared].groupby("group").size()) == [4] * 40
    assert not {*kept[shared]["group"]} & {*kept[~shared]["group"]}
    assert set(kept[shared].groupby("group").size()) <= {1, 2}  # 1 if the other page is in the test split
    assert (kept["split"] == "test").sum() >= 20


@pytest.mark.slow
def test_a_carved_test_split_takes_pages_whole(tmp_path: Path) -> None:
    """With two rows per page, no page is in both splits, and no row is rejected."""
    words = [
        f"{adjective} {noun}"
        for adjective in ("red", "old", "big", "far", "dry")
        for noun in ("hut", "cat", "sky", "oak", "fig")
    ]
    rows = [
        in_group(f"page {label} {number}", text(f"{word} {label * 3} {part}", label))
        for label in ("x", "y")
        for number, word in enumerate(words)
        for part in ("upper", "lower side of it")
    ]
    output = checked(tmp_path, rows, min_test_rows=5, test_share=0.2, near_duplicate_similarity=1)
    kept = read(output)
    assert reasons(output) == {}
    assert (kept["split"] == "test").sum() >= 10
    assert (kept.groupby("group")["split"].nunique() == 1).all()
    assert (kept.groupby("group").size() == 2).all()


def test_spellings_that_differ_in_case_become_the_most_common_one(tmp_path: Path) -> None:
    """'X' and 'x' are one class, which the manifest states."""
    output = checked(tmp_path, [*BASE, text("capital", "X")])
    assert read_manifest(output).classes == ("x", "y")
    assert read_notes(output, ValidateNotes).merged_spellings == {"X": "x"}


def test_a_class_with_too_few_rows_is_rejected(tmp_path: Path) -> None:
    """With min_class_rows of 2, a class with one row is rejected, including its held-out rows."""
    rows = [*BASE, text("alone", "z"), text("alone too", "z", "test"), text("other", "q", "test")]
    assert reasons(checked(tmp_path, rows, min_class_rows=2)) == {"class_too_small": 2, "class_not_in_training": 1}


def test_the_only_row_of_a_class_has_no_fold(tmp_path: Path) -> None:
    """Every model must see it to know the class; the rows of the other classes have folds."""
    rows = read(checked(tmp_path, [*BASE, text("alone", "z")])).query("split == 'train'")
    assert rows.loc[rows["label"] == "z", "fold"].isna().all()
    assert rows.loc[rows["label"] != "z", "fold"].notna().all()


def test_a_single_class_is_an_error(tmp_path: Path) -> None:
    """The message states the classes, their numbers of rows, and what to do."""
    with pytest.raises(
        InputError, match=r"At least two classes.*found: 'x' \(4\).*Label rows with `seedling review`, add labeled rows"
    ):
        checked(tmp_path, BASE[:4])


def test_empty_and_short_texts_have_reasons(tmp_path: Path) -> None:
    """Both are in the table of rejected rows."""
    output = checked(tmp_path, [*BASE, text(""), text("a")])
    assert reasons(output) == {"empty": 1, "too_short": 1}


@pytest.mark.slow
def test_a_test_split_is_carved_if_there_is_none_and_rows_suffice(tmp_path: Path) -> None:
    """It is a fifth of each class; there is none if it would be too small."""
    rows = [text(f"{label} says {n} things", label) for label in ("x", "y") for n in range(100)]
    output = checked(tmp_path, rows, min_test_rows=30)
    test = read(output).query("split == 'test'")
    assert test.groupby("label").size().to_dict() == {"x": 20, "y": 20}
    too_small = checked(tmp_path / "too_small", rows, min_test_rows=41)
    assert "test" not in set(read(too_small)["split"])


def image(pixels: np.ndarray, label: str | None, split: str | None = None, kind: str = "PNG") -> Row:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    row_id = identify(images.content(images.decode(buffer.getvalue())))
    where = split or ("train" if label else "pool")
    return Row(row_id, where, label=label, label_source="human" if label else None, payload=buffer.getvalue())


def noise(seed: int, side: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)).resize((side, side)))


def test_unusable_images_have_reasons(tmp_path: Path) -> None:
    """Damaged, empty, tiny and blank images are rejected."""
    rows = [image(noise(n), "x" if n < 4 else "y") for n in range(8)]
    broken = [Row("0" * 31 + str(n), payload=content) for n, content in enumerate((b"", b"\xff\xd8 torn"))]
    rows += [*broken, image(noise(90, 5), None), image(np.full((40, 40, 3), 77, np.uint8), None)]
    output = checked(tmp_path, rows, IMAGES)
    assert reasons(output) == {"empty_file": 1, "undecodable": 1, "too_small": 1, "blank": 1}
    assert "image" not in read(output).columns


def test_a_recompressed_test_image_is_found_in_training(tmp_path: Path) -> None:
    """A JPEG of a test image with quality 60 is a near-duplicate; other images are not."""
    rows = [image(noise(n), "x" if n < 4 else "y") for n in range(8)]
    buffer = io.BytesIO()
    Image.fromarray(noise(50)).save(buffer, "JPEG", quality=60)
    again = np.asarray(Image.open(buffer))
    output = checked(tmp_path, [*rows, image(noise(50), "x", "test"), image(again, "x")], IMAGES)
    assert reasons(output) == {"near_duplicate_of_test": 1}


def test_banded_search_finds_what_comparing_all_pairs_finds() -> None:
    """The search finds the same pairs within 3 bits and 6 gray levels as brute force."""
    hashes = RNG.integers(0, 2**63, 60).astype(np.uint64)
    copies = hashes[:30] ^ (np.uint64(1) << RNG.integers(0, 63, 30).astype(np.uint64)) ^ np.uint64(1 << 40)
    every = np.concatenate([hashes, copies])
    thumbs = np.concatenate([(base := RNG.integers(0, 255, (60, 12)).astype(np.uint8)), base[:30]])
    thumbs[75:] = 255 - thumbs[75:]  # near in hash, far in image
    expected = {
        (i, j)
        for i in range(90)
        for j in range(i + 1, 90)
        if (int(every[i]) ^ int(every[j])).bit_count() <= 3
        and np.abs(thumbs[i].astype(int) - thumbs[j].astype(int)).mean() <= 6
    }
    found_pairs = {tuple(sorted(pair)) for pair in near_duplicate_images(every, thumbs, bits=3, difference=6)}
    assert found_pairs == expected
    assert len(expected) == 15


def test_folds_are_balanced_and_do_not_depend_on_the_order_of_rows() -> None:
    """Each class is distributed as evenly as possible, and the order of the rows changes nothing."""
    labels = ["a"] * 10 + ["b"] * 7 + ["c"] * 2
    groups = [f"g{n}" for n in range(19)]
    folds = assign_folds(labels, groups, 5, seed=0)
    for label in "abc":
        of_label = Counter(folds[group] for other, group in zip(labels, groups, strict=True) if other == label)
        assert max(of_label.values()) - (min(of_label.values()) if len(of_label) == 5 else 0) <= 1
    order = RNG.permutation(19)
    assert folds == assign_folds([labels[n] for n in order], [groups[n] for n in order], 5, seed=0)
    assert folds != assign_folds(labels, groups, 5, seed=1)


def test_carving_leaves_two_groups_of_each_class() -> None:
    """With groups of four rows and of one, the single row would fit, but then only one group would remain."""
    labels, groups = ["b"] * 5 + ["a"] * 20, ["big"] * 4 + ["single"] + [f"g{n}" for n in range(20)]
    for seed in range(5):
        assert not carve_test(labels, groups, 0.2, seed) & {"big", "single"}


def test_a_carved_test_takes_whole_groups() -> None:
    """A fifth of ten rows is one group of two rows or two groups of one, never half a group."""
    groups = ["p", "p", "q", "r", "s", "t", "u", "v", "w", "w"]
    chosen = carve_test(["a"] * 10, groups, 0.2, seed=3)
    assert sum(groups.count(group) for group in chosen) == 2


def test_rows_of_a_large_class_keep_their_fold_when_rows_are_added() -> None:
    """A third more rows change no fold and move no row into or out of the test split; the shares are as configured."""
    groups = [f"g{n}" for n in range(4_000)]
    before, after = ["a"] * 3_000, ["a"] * 4_000
    folds = assign_folds(before, groups[:3_000], 5, seed=0)
    assert folds.items() <= assign_folds(after, groups, 5, seed=0).items()
    test = carve_test(before, groups[:3_000], 0.2, seed=0)
    assert carve_test(after, groups, 0.2, seed=0) & set(groups[:3_000]) == test
    assert abs(len(test) - 600) < 5 * 22  # five standard errors of 3,000 draws with the probability 1/5
    assert all(abs(rows - 600) < 5 * 22 for rows in Counter(folds.values()).values())


def grams(text: str) -> set[str]:
    """The character 5-grams."""
    return {text[at : at + 5] for at in range(len(text) - 4)}


@pytest.mark.slow
def test_texts_that_share_four_fifths_of_their_grams_are_near_duplicates() -> None:
    """All pairs of 300 texts with a Jaccard similarity of at least 0.8, and no others, are in one group."""
    rng = np.random.default_rng(4)
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]
    texts = [" ".join(rng.choice(words, 14)) for _ in range(150)]
    texts += [
        text.replace(text.split()[-1], "zulu", 1) if number % 2 else f"{text} x" for number, text in enumerate(texts)
    ]
    pairs = set(near_duplicate_texts(texts, 0.8))
    gram_sets = [grams(text) for text in texts]
    by_hand = {
        (number, other)
        for number in range(len(texts))
        for other in range(number + 1, len(texts))
        if len(gram_sets[number] & gram_sets[other]) >= 0.8 * len(gram_sets[number] | gram_sets[other])
    }
    assert len(by_hand) > 60
    groups, expected = Clusters(300), nx.empty_graph(300)
    expected.add_edges_from(by_hand)
    for row, other in pairs:
        groups.join(row, other)
    assert groups.members() == sorted(sorted(component) for component in nx.connected_components(expected))


def test_short_texts_and_a_similarity_of_1_require_equality() -> None:
    """`yes` and `yet` differ; with a similarity of 1, one changed letter in forty makes a difference."""
    assert list(near_duplicate_texts(["yes", "yet", "yes"], 0.8)) == []
    assert list(equal_texts(["yes", "yet", "yes"])) == [(0, 2)]
    long = "the quick brown fox jumps over the lazy dog"
    assert list(near_duplicate_texts([long, long[:-1] + "t"], 1.0)) == []
    assert list(near_duplicate_texts([long, long[:-1] + "t"], 0.8)) == [(0, 1)]


def test_texts_that_differ_in_a_word_and_in_their_label_are_not_copies(tmp_path: Path) -> None:
    """The word may tell the classes apart. With the same label, or without a label, the pair is a leak."""
    long = "please turn the lamp in the large living room upstairs {} for me at once"
    rows = [
        text(long.format("on"), "x", "test"),
        text(long.format("off"), "y"),
        text(long.format("in"), "x"),
        text(long.format("up")),
    ]
    output = checked(tmp_path, [*rows, *BASE])
    assert reasons(output) == {"near_duplicate_of_test": 2}
    assert "off" in " ".join(read(output)["text"])


def test_texts_that_differ_only_in_case_are_copies_whatever_their_labels(tmp_path: Path) -> None:
    """One of the labels is wrong, and the training row is rejected because it has the test row's text."""
    output = checked(tmp_path, [text("Is this seen?", "x", "test"), text("is this seen", "y"), *BASE])
    assert reasons(output) == {"near_duplicate_of_test": 1}


def test_sets_with_different_labels_are_not_joined_by_rows_without_a_label() -> None:
    """0 and 1 are equal texts and only 1 has a label, y: neither may join x. 3 has no label and may join one."""
    sets = Clusters(5, [None, "y", "x", None, "x"])
    sets.join(0, 1)
    assert sets.settled(0, 2)
    assert not sets.settled(0, 3)
    sets.join(0, 3)
    assert sets.settled(3, 4)
    assert not sets.settled(2, 4)
    assert sets.members() == [[0, 1, 3], [2], [4]]
