"""augment: children, their parents and recipes, and the same bytes from any number of workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks import images
from tasks.augment import augment
from tasks.augment.pictures import DEFAULT_POLICY, PolicyTransform
from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify, payloads, read, read_rejected
from tasks.params import AugmentParams, Facts, ScrapeParams, ValidateParams
from tasks.scrape import scrape
from tasks.validate import validate
from tasks.words import change_words

IMAGES, TEXTS = Facts(modality="image", effort="quick"), Facts(modality="text")


@pytest.fixture
def rows(make_pictures: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    data = make_pictures(labelled=4, pool=2, test=1)
    folders = {"collected": tmp_path / "scrape", "validated": tmp_path / "validate"}
    sources = ScrapeParams.model_validate({"sources": [{"kind": "folder"}]})
    scrape(sources, IMAGES, data=data, output=folders["collected"])
    validate(ValidateParams(), IMAGES, collected=folders["collected"], output=folders["validated"])
    return folders


def test_children_take_label_fold_and_group_from_their_parent(rows: dict[str, Path], tmp_path: Path) -> None:
    """Three children of each of twelve labelled rows, none of a test or pool row."""
    augment(AugmentParams(children=3, weight=0.5), IMAGES, **rows, output=tmp_path / "out")
    children, parents = read(tmp_path / "out"), read(rows["validated"]).set_index("id")
    assert len(children) == 36
    for child in children.itertuples():
        parent = parents.loc[child.parents[0]]
        assert (child.label, child.fold, child.group, child.split) == (parent.label, parent.fold, parent.group, "train")
        assert child.weight == 0.5


def test_a_child_can_be_made_again_from_its_parent_and_recipe(rows: dict[str, Path], tmp_path: Path) -> None:
    """The recipe's policy and seed, applied by hand, give the child's very pixels."""
    augment(AugmentParams(children=1), IMAGES, **rows, output=tmp_path / "out")
    child = read(tmp_path / "out").iloc[5]
    recipe = json.loads(child["recipe"])
    (_, parent), (_, made) = (
        next(payloads([rows["collected"]], [child["parents"][0]])),
        next(payloads([tmp_path / "out"], [child["id"]])),
    )
    again = PolicyTransform(recipe["policy"])(images.decode(parent), recipe["seed"])
    assert (again == images.decode(made)).all()


@pytest.mark.slow
def test_one_core_and_two_give_the_same_bytes(rows: dict[str, Path], tmp_path: Path) -> None:
    """In processes of their own, with the number of worker threads forced to 1 and to 4."""
    found = []
    for workers in (1, 4):
        code = (
            "import concurrent.futures as f, functools, os; from pathlib import Path\n"
            f"os.cpu_count = lambda: {workers - 4 if workers > 4 else workers}; os.process_cpu_count = os.cpu_count\n"
            "from tasks.augment import augment; from tasks.params import *\n"
            f"augment(AugmentParams(children=3), Facts(modality='image'), collected=Path({str(rows['collected'])!r}),"
            f" validated=Path({str(rows['validated'])!r}), output=Path({str(tmp_path / str(workers))!r}))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
        found.append({path.name: path.read_bytes() for path in (tmp_path / str(workers)).iterdir()})
    assert found[0] == found[1]


def test_an_unknown_transform_is_named(rows: dict[str, Path], tmp_path: Path) -> None:
    """Bad policies are said before any work."""
    with pytest.raises(InputError, match="albumentations has no 'Rotato'"):
        augment(AugmentParams(policy=[{"Rotato": {}}]), IMAGES, **rows, output=tmp_path / "out")


def test_the_default_policy_shows_no_black_border() -> None:
    """Of a white picture every child stays bright in its corners."""
    transform = PolicyTransform(DEFAULT_POLICY[:1])
    for seed in range(20):
        child = transform(np.full((32, 32, 3), 250, np.uint8), seed)
        assert child.min() > 240


def test_word_operations_do_what_they_are_called() -> None:
    """Swap keeps the words, delete drops one of seven, typo changes one letter for its neighbour on the keyboard."""
    text = "please book a quiet table for two"
    rng = np.random.default_rng(0)
    assert sorted(change_words(text, "swap", 0.1, rng).split()) == sorted(text.split())
    assert len(change_words(text, "delete", 0.1, rng).split()) == 6
    typed = change_words(text, "typo", 0.1, rng)
    (changed,) = [(a, b) for a, b in zip(text, typed, strict=True) if a != b]
    rows_of_keys = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    assert any(abs(row.find(changed[0]) - row.find(changed[1])) == 1 for row in rows_of_keys if changed[0] in row)


def test_children_that_are_their_parents_or_a_test_text_are_rejected(tmp_path: Path) -> None:
    """Two words swapped give the test text; one word cannot change at all."""
    texts = [("good day", "x", "train"), ("one", "y", "train"), ("day good", "x", "test"), ("five", "y", "train")]
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        for text, label, split in texts:
            row_id = identify(text.encode())
            fold = 0 if split == "train" else None
            writer.keep(Row(row_id, split, fold, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=4, classes=["x", "y"])
    params = AugmentParams(children=1, word_operations=["swap"])
    augment(params, TEXTS, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    assert sorted(read_rejected(tmp_path / "out")["reason"]) == ["near_duplicate_of_test", "unchanged", "unchanged"]
