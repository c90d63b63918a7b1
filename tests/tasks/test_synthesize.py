"""synthesize: mixup's arithmetic and folds, templates' slots and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify, read, read_rejected
from tasks.params import Facts, SynthesizeParams, Template
from tasks.synthesize import synthesize
from tasks.synthesize.mixup import draw_pairs, mix, mixed_label
from tasks.synthesize.templates import fill, possible, sample

TEXTS = Facts(modality="text")


def test_a_mixture_is_the_weighted_mean_by_hand() -> None:
    """0.7 × 100 + 0.3 × 200 = 130, and the label is 0.7 and 0.3 in the classes' order."""
    first, second = np.full((4, 4, 3), 100, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    assert (mix(first, second, 0.7) == 130).all()
    assert mixed_label("b", "c", 0.7, ["a", "b", "c"]) == pytest.approx([0, 0.7, 0.3])
    assert mixed_label("b", "b", 0.7, ["a", "b"]) == pytest.approx([0, 1])


def test_pairs_stay_within_a_fold_and_do_not_depend_on_order() -> None:
    """A mixture over two folds could be held out with neither."""
    ids, folds = [f"r{n}" for n in range(40)], [n % 4 for n in range(40)]
    pairs = draw_pairs(ids, folds, 1.5, 0.4, seed=0)
    fold_of = dict(zip(ids, folds, strict=True))
    assert all(fold_of[pair.first] == fold_of[pair.second] and pair.first != pair.second for pair in pairs)
    assert all(0.5 <= pair.share <= 1 for pair in pairs)
    assert 45 <= len(pairs) <= 75
    assert set(draw_pairs(ids[::-1], folds[::-1], 1.5, 0.4, seed=0)) == set(pairs)


GREETING = Template(label="greet", text="{hail}, {who}!", slots={"hail": ["Hi", "Hello"], "who": ["Ann", "Bo", "Cy"]})


def test_the_number_of_sentences_is_the_product_of_the_slots() -> None:
    """Two by three is six, and filling 0 to 5 gives each once."""
    assert possible(GREETING) == 6
    assert {fill(GREETING, n) for n in range(6)} == {f"{a}, {b}!" for a in ("Hi", "Hello") for b in ("Ann", "Bo", "Cy")}


def test_sampling_never_repeats() -> None:
    """Asked for more than there is, each is given once; asked for four, four different ones."""
    for wanted, expected in ((100, 6), (4, 4)):
        made = [text for _, text in sample([GREETING], wanted, np.random.default_rng(1))]
        assert len(made) == len(set(made)) == expected


def validated(folder: Path) -> Path:
    with GenerationWriter(folder, stage="validate", modality="text") as writer:
        for text, label in (("hi ann", "greet"), ("bye", "leave")):
            row_id = identify(text.encode())
            writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=2, classes=["greet", "leave"])
    return folder


def test_template_rows_are_labelled_and_copies_of_collected_rows_are_rejected(tmp_path: Path) -> None:
    """'Hi, Ann!' is 'hi ann' to the naked ear: it would leak through the folds."""
    folder = validated(tmp_path / "v")
    params = SynthesizeParams(templates=[GREETING])
    synthesize(params, TEXTS, collected=folder, validated=folder, output=tmp_path / "out")
    rows = read(tmp_path / "out")
    assert len(rows) == 5
    assert set(rows["label"]) == {"greet"}
    assert set(rows["label_source"]) == {"template"}
    assert rows["fold"].isna().all()
    assert read_rejected(tmp_path / "out")["text"].tolist() == ["Hi, Ann!"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (Template(label="greet", text="{hail} you"), "no values for {hail}"),
        (Template(label="greet", text="{hail you"), "expected '}'"),
        (Template(label="nobody", text="you"), "'nobody' is no class: it must be one of greet, leave"),
    ],
)
def test_templates_that_cannot_be_used_are_explained(tmp_path: Path, template: Template, said: str) -> None:
    """The template, what is wrong with it, and what may stand there."""
    folder = validated(tmp_path / "v")
    with pytest.raises(InputError, match=said):
        synthesize(
            SynthesizeParams(templates=[template]), TEXTS, collected=folder, validated=folder, output=tmp_path / "o"
        )
