"""`synthesize`: the arithmetic and folds of mixup, the slots and counts of templates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedling.config.params import SynthesizeParams, Template, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_rejected
from seedling.errors import InputError
from seedling.media import images
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import SynthesizeNotes
from seedling.synthesize import synthesize
from seedling.synthesize.mixing import cut_in, draw_pairs, mix, mixed_label
from seedling.synthesize.templates import (
    begins_with_vowel,
    compile_template,
    count_sentences,
    divide_evenly,
    sample_sentences,
)

TEXTS = WorkspaceConfig(modality="text")


def test_a_mixup_row_is_the_weighted_mean() -> None:
    """0.7 × 100 + 0.3 × 200 = 130, and the label is 0.7 and 0.3 in the order of the classes."""
    first, second = np.full((4, 4, 3), 100, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    assert (mix(first, second, 0.7) == 130).all()
    assert mixed_label("b", "c", 0.7, ["a", "b", "c"]) == pytest.approx([0, 0.7, 0.3])
    assert mixed_label("b", "b", 0.7, ["a", "b"]) == pytest.approx([0, 1])


def test_mixup_pairs_stay_within_a_fold_and_do_not_depend_on_order() -> None:
    """A mixup row over two folds could be held out with neither."""
    ids, folds = [f"r{n}" for n in range(40)], [n % 4 for n in range(40)]
    pairs = draw_pairs(ids, folds, 1.5, 0.4, seed=0)
    fold_of = dict(zip(ids, folds, strict=True))
    assert all(fold_of[pair.first] == fold_of[pair.second] and pair.first != pair.second for pair in pairs)
    assert all(0.5 <= pair.share <= 1 for pair in pairs)
    assert 45 <= len(pairs) <= 75
    assert set(draw_pairs(ids[::-1], folds[::-1], 1.5, 0.4, seed=0)) == set(pairs)


GREETING = Template(label="greet", text="{hail}, {who}!", slots={"hail": ["Hi", "Hello"], "who": ["Ann", "Bo", "Cy"]})


def sampled_texts(template: Template, most: int = 10_000, seed: int = 1, **more: Any) -> set[str]:
    texts = [text for _, text in sample_sentences([template], most, np.random.default_rng(seed), **more)]
    assert len(texts) == len(set(texts))
    return set(texts)


def test_the_number_of_sentences_is_the_product_of_the_slots() -> None:
    """Two times three is six, and all of them are sampled."""
    assert count_sentences(GREETING) == 6
    assert sampled_texts(GREETING) == {f"{a}, {b}!" for a in ("Hi", "Hello") for b in ("Ann", "Bo", "Cy")}


def test_sampling_never_repeats_a_sentence() -> None:
    """A request for more than all sentences returns each once; requests for four, and for two thousand of a million,
    return that many different ones.
    """
    assert len(sampled_texts(GREETING, 100)) == 6
    assert len(sampled_texts(GREETING, 4)) == 4
    assert len(sampled_texts(Template(label="x", text="{a:1-1000} and {b:1-1000}"), 2_000)) == 2_000


def test_optional_parts_ranges_and_brackets() -> None:
    """An optional part with one of three numbers, or none.

    Doubled brackets are literal, and superfluous blanks are removed.
    """
    template = Template(label="x", text="Find {{it}} [within {n:1-2:0.5} km] [[now]]")
    assert count_sentences(template) == 4
    assert sampled_texts(template) == {
        "Find {it} [now]",
        *(f"Find {{it}} within {n} km [now]" for n in ("1.0", "1.5", "2.0")),
    }
    nested = Template(label="x", text="go[ on[ and {n:1-2}]]")
    assert sampled_texts(nested) == {"go", "go on", "go on and 1", "go on and 2"}


def test_a_n_is_an_before_a_vowel_sound() -> None:
    """The English article depends on the sound, also of numbers and abbreviations; a plain "a" is unchanged."""
    values = ["apple", "pear", "hour", "university", "8", "80", "18", "11", "1", "umbrella", "one-off", "honest man"]
    template = Template(label="x", text="A(n) {what}, or a(n) {what}; a {what}", slots={"what": values})
    an = {"apple", "hour", "8", "80", "18", "11", "umbrella", "honest man"}
    assert sampled_texts(template) == {
        f"A{'n' * (word in an)} {word}, or a{'n' * (word in an)} {word}; a {word}" for word in values
    }
    for word, expected in {
        "uninhabited": True,
        "onerous": True,
        "honorable": True,
        "honourable": True,
        "union": False,
        "MRI": True,
        "USB": False,
        "user": False,
    }.items():
        assert begins_with_vowel(word) == expected
    assert not begins_with_vowel("180")
    assert begins_with_vowel("11,000")


def test_excluded_combinations_are_neither_counted_nor_sampled() -> None:
    """Of 2 x 10 sentences, those with inches above 3 (seven) and those with 5 (one more) are excluded: 12 remain."""
    template = Template.model_validate(
        {
            "label": "x",
            "text": "{n:1-10} {unit}",
            "slots": {"unit": ["inch", "mile"]},
            "never": [{"unit": "inch", "n": "4-10"}, {"n": ["5"]}],
        }
    )
    assert count_sentences(template) == 12
    expected = {f"{n} inch" for n in (1, 2, 3)} | {f"{n} mile" for n in range(1, 11) if n != 5}
    assert sampled_texts(template) == expected
    huge = Template.model_validate({"label": "x", "text": "{n:1-999} {m:1-999}", "never": [{"n": "500-999"}]})
    assert count_sentences(huge) == 499 * 999
    assert all(int(text.split()[0]) < 500 for text in sampled_texts(huge, 3_000))


@pytest.mark.parametrize("width", [1, 500])
def test_weights_decide_how_often_a_value_is_sampled(width: int) -> None:
    """Three to one, among few sentences and among many, of which a tenth is sampled."""
    template = Template(label="x", text=f"{{what}} {{n:1-{1000 * width}}}", slots={"what": {"pizza": 3, "soup": 1}})
    texts = sampled_texts(template, 200)
    assert sum(text.startswith("pizza") for text in texts) / 200 == pytest.approx(0.75, abs=0.08)


def test_values_come_from_files(tmp_path: Path) -> None:
    """Lines of a text file and a column of a table, each value once; bare numbers in YAML are strings."""
    (tmp_path / "cities.txt").write_text("Rome\n\nParis\n", encoding="utf-8")
    (tmp_path / "menu.csv").write_text("dish,price\nsoup,3\nsoup,4\npie,5\n", encoding="utf-8")
    slots = {"city": {"file": "cities.txt"}, "dish": {"file": "menu.csv", "column": "dish"}, "n": [1, 2]}
    template = Template.model_validate({"label": "x", "text": "{dish} for {n} in {city}", "slots": slots})
    assert sampled_texts(template, data=tmp_path) == {
        f"{d} for {n} in {c}" for d in ("soup", "pie") for n in (1, 2) for c in ("Rome", "Paris")
    }


def test_the_order_of_samples_does_not_depend_on_the_machine() -> None:
    """The same seed gives the same sentences in the same order."""
    template = Template(label="x", text="{a:1-2000} {b:1-2000}")
    first, second = (
        [text for _, text in sample_sentences([template], 500, np.random.default_rng(3))] for _ in range(2)
    )
    assert first == second
    assert len(compile_template(template)) == 1


def test_a_cutmix_row_matches_a_hand_calculation() -> None:
    """At most a quarter of the area comes from the second image, at the same position; the label is the share of the
    area.
    """
    first, second = np.full((20, 40, 3), 10, np.uint8), np.full((10, 20, 3), 200, np.uint8)
    mixed, share, box = cut_in(first, second, 0.75, np.random.default_rng(0))
    assert share == 0.75
    assert (mixed == 200).all(axis=2).mean() == pytest.approx(0.25)
    assert ((mixed == 10) | (mixed == 200)).all()
    rows, columns = np.nonzero((mixed == 200).all(axis=2))
    assert box == [rows.min(), columns.min(), 10, 20]


def test_the_label_of_a_cutmix_row_is_the_more_likely_class(tmp_path: Path) -> None:
    """In images of seven pixels cut at about a half, some rows have more of the second image than of the first."""
    config, rng, names = WorkspaceConfig(modality="image"), np.random.default_rng(0), ["a", "b"]
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number in range(20):
            payload = images.encode(rng.integers(0, 255, (7, 7, 3)).astype(np.uint8))
            row_id = identify(payload)
            label = names[number % 2]
            writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=payload))
        writer.close(rows_in=20, classes=names)
    params = SynthesizeParams(mixup=0, cutmix=3, cutmix_alpha=500, partners="other_class")
    synthesize(params, config, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    mixed_rows, labels = read(tmp_path / "out"), read(tmp_path / "v").set_index("id")["label"]
    assert [names[int(np.argmax(probabilities))] for probabilities in mixed_rows["label_probs"]] == mixed_rows[
        "label"
    ].tolist()
    assert mixed_rows["confidence"].to_numpy() == pytest.approx(
        [max(probabilities) for probabilities in mixed_rows["label_probs"]]
    )
    assert any(
        labels[parents[0]] != label
        for parents, label in zip(mixed_rows["parent_ids"], mixed_rows["label"], strict=True)
    )


def test_sentences_that_differ_in_a_number_are_different_rows(tmp_path: Path) -> None:
    """A sign, a decimal point and a currency change the meaning; a full stop or a blank before % does not."""
    folder = validated(tmp_path / "v")
    slots = {"c": ["+5", "-5", "1.5", "15", "1,5", "$7", "€7", "8%", "8 %", "9.", "9"]}
    templates = [Template.model_validate({"label": "greet", "text": "change of {c}", "slots": slots})]
    params = SynthesizeParams(templates=templates)
    synthesize(params, TEXTS, collected=folder, validated=folder, output=tmp_path / "out")
    assert len(read(tmp_path / "out")) == 9
    assert read_rejected(tmp_path / "out")["reason"].tolist() == ["exact_duplicate"] * 2


def test_partners_may_be_of_the_same_class_or_of_another() -> None:
    """Always within a fold; a class with one row in its fold has no partner of the same class."""
    ids, folds = [f"r{n}" for n in range(40)], [n % 2 for n in range(40)]
    labels = ["a" if n < 39 else "b" for n in range(40)]
    of = dict(zip(ids, labels, strict=True))
    same = draw_pairs(ids, folds, 1, 1.0, 0, labels=labels, partners="same_class")
    other = draw_pairs(ids, folds, 1, 1.0, 0, labels=labels, partners="other_class")
    assert {(of[pair.first], of[pair.second]) for pair in same} == {("a", "a")}
    assert {(of[pair.first], of[pair.second]) for pair in other} == {("a", "b"), ("b", "a")}


def validated(folder: Path) -> Path:
    with GenerationWriter(folder, stage="validate", modality="text") as writer:
        for text, label in (("hi ann", "greet"), ("bye", "leave")):
            row_id = identify(text.encode())
            writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=2, classes=["greet", "leave"])
    return folder


def test_template_rows_are_labeled_and_copies_of_collected_rows_are_rejected(tmp_path: Path) -> None:
    """'Hi, Ann!' and 'hi ann' are equal after normalization and would leak across folds."""
    folder = validated(tmp_path / "v")
    params = SynthesizeParams(templates=[GREETING])
    synthesize(params, TEXTS, collected=folder, validated=folder, output=tmp_path / "out")
    rows = read(tmp_path / "out")
    assert len(rows) == 5
    assert set(rows["label"]) == {"greet"}
    assert set(rows["label_source"]) == {"template"}
    assert rows["fold"].isna().all()
    assert read_rejected(tmp_path / "out")["text"].tolist() == ["Hi, Ann!"]


def test_templates_with_label_names_apply_to_every_class(tmp_path: Path) -> None:
    """Each class is named by its label or by label_names; template_rows sets the number per class."""
    folder = validated(tmp_path / "v")
    template = Template(text="this is about {label}[, {how}]", slots={"how": ["surely", "maybe"]})
    params = SynthesizeParams(
        templates=[template], template_rows={"greet": 3, "leave": 1}, label_names={"greet": "saying hello"}
    )
    synthesize(params, TEXTS, collected=folder, validated=folder, output=tmp_path / "out")
    rows = read(tmp_path / "out")
    assert Counter(rows["label"]) == {"greet": 3, "leave": 1}
    assert all(
        ("saying hello" in text) == (label == "greet") for text, label in zip(rows["text"], rows["label"], strict=True)
    )
    template_notes = read_notes(tmp_path / "out", SynthesizeNotes).templates
    assert [(notes.label, notes.possible) for notes in template_notes] == [("greet", 3), ("leave", 3)]


def test_templates_and_their_optional_parts_are_sampled_evenly(tmp_path: Path) -> None:
    """Of nine rows, one is of the template with a single sentence; of the other, four have the number and four do not."""
    single_sentence = Template(label="greet", text="only this")
    optional_part = Template(label="greet", text="go {n:1-4}[ and {m:1-900}]")
    texts = [text for _, text in sample_sentences([single_sentence, optional_part], 9, np.random.default_rng(0))]
    assert texts.count("only this") == 1
    assert sum("and" in text for text in texts) == 4
    assert sum("and" not in text for text in texts) == 5
    assert divide_evenly([1, 3604], 9) == [1, 8]
    assert divide_evenly([5, 5, 5], 7) in ([2, 2, 3], [3, 2, 2], [2, 3, 2])
    assert divide_evenly([2, 2], 9) == [2, 2]


def test_a_sentence_has_one_class(tmp_path: Path) -> None:
    """A sentence of both classes is kept for the first alone; an empty one is not kept."""
    folder = validated(tmp_path / "v")
    templates = [
        Template(label="greet", text="good {x:1-1}"),
        Template(label="leave", text="good 1"),
        Template(label="leave", text="[ ]"),
    ]
    synthesize(
        SynthesizeParams(templates=templates), TEXTS, collected=folder, validated=folder, output=tmp_path / "out"
    )
    assert read(tmp_path / "out")["label"].tolist() == ["greet"]
    assert "said_of_another_class" in set(read_rejected(tmp_path / "out")["reason"])
    assert "" not in set(read(tmp_path / "out")["text"])


def broken(text: str, **more: Any) -> Template:
    return Template.model_validate({"label": "greet", "text": text, **more})


@pytest.mark.parametrize(
    ("template", "explained"),
    [
        (broken("{hail} you"), "no values for {hail}: add them under slots"),
        (broken("{hail you"), "a { has no match"),
        (broken("you}"), "a } has no match"),
        (broken("[you"), r"a \[ is not closed"),
        (broken("you]"), r"a ] has no matching \["),
        (broken("{n:10-1}"), "the range 10-1 is empty"),
        (broken("{n:one-two}"), "'one-two' is not a range"),
        (broken("{n:1-99999999}"), "more than 1,000,000"),
        (broken("{n:1-3:0}"), "has a step of 0: it must be above 0"),
        (broken("{x}", slots={"x": []}), "has no value with a weight above 0"),
        (broken("{x}", slots={"x": {"a": -1, "b": 2}}), "the weight of 'a' is below 0"),
        (broken("{x}", slots={"x": ["1"]}, never=[{"x": "1"}]), "`never` forbids every sentence"),
        (broken("{x}", slots={"x": {"file": "none.txt"}}), "none.txt does not exist"),
        (broken("{x}", slots={"x": ["1"]}, never=[{"y": "1"}]), "`never` names the slot 'y'"),
        (broken("{x}", slots={"x": ["1"]}, never=[{"x": "2"}]), "has no value '2'"),
        (broken("{n:1-50} km", never=[{"num": "31-50"}]), "`never` names the slot 'num'"),
        (broken("{n:1-50} km", never=[{"n": "1.2.3-4"}]), "has no value '1.2.3-4'"),
        (broken("{n:1-50} km", never=[{}]), "an empty rule"),
        (broken("{n:1-5} to {n:10-20}"), "has two ranges, 1-5 and 10-20"),
        (broken("this is[ about {label}]", label=None), "must contain {label}, outside"),
        (broken("{label} {x}", label=None, slots={"x": ["1"], "label": ["y"]}), "the class's own name"),
        (broken("you", label="nobody"), "'nobody' is not a class: it must be one of greet, leave"),
    ],
)
def test_templates_that_cannot_be_used_are_explained(tmp_path: Path, template: Template, explained: str) -> None:
    """The error names the template, the fault, and what is allowed."""
    folder = validated(tmp_path / "v")
    params = SynthesizeParams(templates=[template])
    with pytest.raises(InputError, match=explained):
        synthesize(params, TEXTS, collected=folder, validated=folder, data=tmp_path, output=tmp_path / "o")
