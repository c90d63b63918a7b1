"""`augment`: augmented rows, their parents and recipes, and identical bytes for any number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

from seedling.augment import augment, balance_counts, favor_hard_rows
from seedling.augment.batches import Batching, InheritedColumns, Parent, batches_of
from seedling.augment.cross_fitting import LabeledRows, hardness
from seedling.augment.image_policy import PolicyTransform
from seedling.augment.makers import DEFAULT_IMAGES
from seedling.config.params import AugmentParams, ScrapeParams, ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_rejected
from seedling.errors import InputError
from seedling.features.classical import ImageFeatures, Inputs, TextFeatures
from seedling.media import images
from seedling.parallel.pool import in_processes
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import AugmentNotes, NotScreened
from seedling.scrape import scrape
from seedling.validate import validate

IMAGES, TEXTS = WorkspaceConfig(modality="image", effort="quick"), WorkspaceConfig(modality="text")


def decode(payload: bytes | str) -> images.Pixels:
    """The pixels of a row of images."""
    assert isinstance(payload, bytes)
    return images.decode(payload)


@pytest.fixture
def rows(make_images: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    data = make_images(labeled=4, pool=2, test=1)
    folders = {"collected": tmp_path / "scrape", "validated": tmp_path / "validate"}
    sources = ScrapeParams.model_validate({"sources": [{"kind": "folder"}]})
    scrape(sources, IMAGES, data=data, output=folders["collected"])
    validate(ValidateParams(), IMAGES, collected=folders["collected"], output=folders["validated"])
    return folders


def test_augmented_rows_have_the_label_fold_and_group_of_their_parent(rows: dict[str, Any], tmp_path: Path) -> None:
    """Three augmented rows for each of twelve labeled rows, none for a test or pool row."""
    augment(AugmentParams(augmentations_per_row=3, weight=0.5), IMAGES, **rows, output=tmp_path / "out")
    children, parents = read(tmp_path / "out"), read(rows["validated"]).set_index("id")
    assert len(children) == 36
    child: Any
    for child in children.itertuples():
        parent: Any = parents.loc[child.parent_ids[0]]
        assert (child.label, child.fold, child.group, child.split) == (parent.label, parent.fold, parent.group, "train")
        assert child.weight == 0.5


def test_an_augmented_row_can_be_recreated_from_its_parent_and_recipe(rows: dict[str, Any], tmp_path: Path) -> None:
    """The recipe's policy and seed give exactly the pixels of the augmented row."""
    augment(AugmentParams(augmentations_per_row=1), IMAGES, **rows, output=tmp_path / "out")
    child = read(tmp_path / "out").iloc[5]
    recipe = json.loads(child["recipe"])
    (_, parent), (_, stored) = (
        next(payloads([rows["collected"]], [child["parent_ids"][0]])),
        next(payloads([tmp_path / "out"], [child["id"]])),
    )
    again = PolicyTransform(recipe["policy"])(decode(parent), recipe["seed"])
    assert (again == decode(stored)).all()


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(rows: dict[str, Any], tmp_path: Path) -> None:
    """In this process alone, and with 2 and 4 others.

    A plugin's function records where it ran, and is imported once per process.
    """
    data, marks = tmp_path / "data", tmp_path / "said"
    data.mkdir()
    marks.mkdir()
    (data / "augmenting.py").write_text(
        "import os, pathlib, uuid\n"
        f"said = pathlib.Path({str(marks)!r})\n"
        "(said / f'imported-{os.getpid()}-{uuid.uuid4()}').touch()\n"
        "def darker(pixels, rng):\n"
        "    (said / f'used-{os.getpid()}').touch()\n"
        "    return pixels // rng.integers(2, 4).astype('uint8')\n"
    )
    outputs = []
    for others in (1, 2, 4):
        batching = Batching(max_rows=3, local_seconds=0.0, processes=others)
        out = tmp_path / str(others)
        params = AugmentParams(
            augmentations_per_row=3, policy=["rotate", "gaussian_noise", "darker"], plugin="augmenting.py"
        )
        augment(params, IMAGES, **rows, data=data, output=out, batching=batching)
        outputs.append({path.name: path.read_bytes() for path in out.iterdir()})
        used = {path.name.split("-")[1] for path in marks.glob("used-*")} - {str(os.getpid())}
        imported = Counter(path.name.split("-")[1] for path in marks.glob("imported-*"))
        assert len(used) == 0 if others == 1 else 1 <= len(used) <= others
        assert all(imported[process_id] == 1 for process_id in used)
        for path in marks.iterdir():
            path.unlink()
    assert outputs[0] == outputs[1] == outputs[2]


def test_work_units_begin_small_and_have_a_limit_in_megapixels() -> None:
    """Batches of 1, 2, 4 and so on up to 64 augmented rows.

    Images of three megapixels come two at a time, even from one parent.
    """
    small, large = images.encode(np.zeros((4, 4, 3), np.uint8)), images.encode(np.zeros((2_000, 1_500, 3), np.uint8))
    columns = InheritedColumns(0, "a", "human", 1.0, None, None, None, "g")
    parents = [Parent(str(number_of_parent), small, columns, range(5)) for number_of_parent in range(60)]
    pieces = [*batches_of(parents, Batching())]
    assert [sum(len(numbers) for *_, numbers in piece) for piece in pieces[:8]] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert [(name, number) for piece in pieces for name, _, _, numbers in piece for number in numbers] == [
        (str(number_of_parent), number) for number_of_parent in range(60) for number in range(5)
    ]
    pieces = [*batches_of([Parent("a", large, columns, range(7))], Batching())]
    assert [[*numbers] for piece in pieces for *_, numbers in piece] == [[0], [1, 2], [3, 4], [5, 6]]


@pytest.mark.slow
def test_a_killed_worker_raises_an_error_that_names_the_fix() -> None:
    """As after the kernel kills it for lack of memory."""
    from seedling.errors import SeedlingError

    pieces = in_processes(partial(_end_elsewhere, os.getpid()), iter(range(6)), local_seconds=0.0, processes=2)
    with pytest.raises(SeedlingError, match="killed, most likely out of memory"):
        list(pieces)


def _end_elsewhere(leader: int, piece: int) -> int:
    if os.getpid() != leader:
        os.kill(os.getpid(), signal.SIGKILL)
    return piece


def _is_of_pool(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it has ended
        return False
    return "loky" in command and "popen" in command


@pytest.mark.slow
def test_worker_processes_stay_a_few_units_ahead_and_end_with_this_one() -> None:
    """A slow consumer is not overrun.

    Closing the generator leaves no process behind; a process whose parent is killed exits by itself.
    """
    taken = []

    def pieces() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_processes(str, pieces(), local_seconds=0.0, processes=2)
    assert [next(results) for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(taken) <= 5 + 2 * 2
    assert isinstance(results, Generator)
    results.close()
    assert not [process for process in psutil.Process().children(recursive=True) if _is_of_pool(process)]
    code = (
        "import time; from seedling.parallel.pool import in_processes\n"
        "found = in_processes(time.sleep, iter([0, 0, 0, 600, 600]), local_seconds=0.0, processes=2)\n"
        "print(next(found), next(found), flush=True); next(found); next(found)"
    )
    leader = psutil.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert leader.stdout.readline()
    started = leader.children(recursive=True)
    assert started
    leader.kill()
    leader.wait()
    _, left = psutil.wait_procs(started, timeout=20)
    assert not left


@pytest.mark.slow
def test_augmenting_processes_import_torch_only_if_a_function_needs_it() -> None:
    """albumentations, which would import torch, is loaded without it."""
    limits: dict[str, Any] = {"local_seconds": 0.0, "processes": 2}
    imported_modules = (
        "('torch' in __import__('sys').modules, __import__('albumentations').Affine, __import__('os').getpid())"
    )
    sum_of_torch = "(__import__('torch').arange(3).sum().item(), __import__('os').getpid())"
    here, *before, _ = in_processes(
        eval, [imported_modules, imported_modules, imported_modules, sum_of_torch], **limits
    )
    *_, (three, other) = in_processes(eval, [sum_of_torch] * 4, **limits)
    assert {process for *_, process in before}.isdisjoint({here[2], os.getpid()})
    assert {there for there, *_ in before} == {False}
    assert (three, other != os.getpid()) == (3, True)


@pytest.mark.soak
def test_a_dask_cluster_of_two_processes_gives_the_same_bytes(
    rows: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real scheduler and two workers on the loopback interface create all augmented rows.

    Without a scheduler the error names the setting.
    """
    from distributed import Client, LocalCluster

    from seedling.errors import SeedlingError

    params = AugmentParams(augmentations_per_row=3)
    batching = Batching(max_rows=8)
    augment(params, IMAGES, **rows, output=tmp_path / "alone", batching=batching)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        monkeypatch.setenv("SEEDLING_DASK", cluster.scheduler_address)
        augment(params, IMAGES, **rows, output=tmp_path / "dask", batching=batching)
        with Client(cluster) as client:
            busy = client.run(lambda: "seedling.augment" in sys.modules)
        assert [*busy.values()] == [True, True]
    alone, by_dask = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("alone", "dask")
    )
    assert alone == by_dask
    with pytest.raises(SeedlingError, match="no Dask scheduler at"):
        augment(params, IMAGES, **rows, output=tmp_path / "none")


@pytest.mark.slow
def test_hard_rows_get_more_augmented_rows_and_likely_label_errors_do_not(tmp_path: Path) -> None:
    """Reds and blues, one near-violet row of each class, and a blue row labeled red: the violets get most, the
    mislabeled one no more than usual.
    """
    rng = np.random.default_rng(0)
    colors = {"red": (220, 30, 30), "blue": (30, 30, 220), "violet red": (140, 30, 120), "violet blue": (120, 30, 140)}
    colors_and_labels = [("red", "red")] * 12 + [("blue", "blue")] * 12
    colors_and_labels += [("violet red", "red"), ("violet blue", "blue"), ("blue", "red")]
    names: dict[str, str] = {}
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number, (color, label) in enumerate(colors_and_labels):
            image = np.clip(np.array(colors[color]) + rng.normal(0, 6, (24, 24, 3)), 0, 255).astype(np.uint8)
            row_id = identify(images.content(image))
            names[row_id] = f"{color} called {label}"
            payload = images.encode(image)
            writer.keep(Row(row_id, "train", number % 3, label, label_source="human", group=row_id, payload=payload))
        writer.close(rows_in=len(colors_and_labels), classes=["blue", "red"])
    params = AugmentParams(augmentations_per_row=4, hard=1.0, policy=["gaussian_noise"])
    augment(params, IMAGES, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    children = Counter(names[parent_ids[0]] for parent_ids in read(tmp_path / "out")["parent_ids"])
    assert children["violet red called red"] >= 7
    assert children["violet blue called blue"] == 8
    assert children["blue called red"] <= 4
    easy = [children["red called red"] / 12, children["blue called blue"] / 12]
    assert max(easy) < 4.5
    assert 0.85 * 4 * len(colors_and_labels) <= sum(children.values()) <= 1.1 * 4 * len(colors_and_labels)


def test_rows_between_two_classes_are_hard_and_not_label_errors() -> None:
    """Two overlapping clusters with correct labels: a quarter of 400 rows looks like the other, and nearly all of these
    have more than the average hardness, as the only row of a class has.
    """
    rng = np.random.default_rng(0)
    labels = np.append(rng.integers(0, 2, 400), 2)
    features = (1.35 * np.eye(3)[labels, :2] + rng.normal(size=(401, 2))).astype(np.float32)
    names, fold = [str(row) for row in range(401)], np.arange(401) % 4
    maker = TextFeatures()  # not used: the features are there
    rows = LabeledRows(names, [*names], labels, fold, np.array(names), np.ones(401), 3, maker, Inputs(features))
    by_row = hardness(rows)
    like_the_other = np.flatnonzero((features[:400, 0] > features[:400, 1]) != (labels[:400] == 0))
    assert len(like_the_other) > 50
    assert np.mean([by_row[names[row]] > 0.5 for row in like_the_other]) > 0.9
    assert by_row["400"] == 0.5


@pytest.mark.parametrize(("hard", "expected"), [(0.0, [4, 4, 4]), (0.5, [2, 4, 6]), (1.0, [0, 4, 8])])
def test_hard_rows_get_the_augmentations_that_easy_rows_lose(hard: float, expected: list[int]) -> None:
    """The easiest row loses as many as the hardest one gains."""
    counts = favor_hard_rows(pd.Series({"a": 4, "b": 4, "c": 4}), {"a": 0.0, "b": 0.5, "c": 1.0}, hard, 0)
    assert [counts[name] for name in "abc"] == expected


def test_fractional_augmentations_are_drawn_at_random() -> None:
    """With one augmentation per row and `hard` of 0.4, the hardest rows get 1.4 and the easiest 0.6 on average."""
    hard = {f"{level}-{row}": float(level) for level in (0, 1) for row in range(2_000)}
    counts = favor_hard_rows(pd.Series(dict.fromkeys(hard, 1)), hard, 0.4, 0)
    means = [np.mean([counts[name] for name in hard if hard[name] == level]) for level in (0, 1)]
    assert means == pytest.approx([0.6, 1.4], abs=0.05)


def test_the_default_policy_adds_no_black_border() -> None:
    """The corners of augmented white images stay bright."""
    transform = PolicyTransform(DEFAULT_IMAGES[:1])
    for seed in range(20):
        child = transform(np.full((32, 32, 3), 250, np.uint8), seed)
        assert child.min() > 240


def test_rows_equal_to_their_parent_or_to_a_test_text_are_rejected(tmp_path: Path) -> None:
    """Swapping two words gives the test text; a text of one word cannot change at all."""
    texts = [("good day", "x", "train"), ("one", "y", "train"), ("day good", "x", "test"), ("five", "y", "train")]
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        for text, label, split in texts:
            row_id = identify(text.encode())
            fold = 0 if split == "train" else None
            writer.keep(Row(row_id, split, fold, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=4, classes=["x", "y"])
    params = AugmentParams(augmentations_per_row=1, policy=[{"swap": 1.0}])
    augment(params, TEXTS, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    assert sorted(read_rejected(tmp_path / "out")["reason"]) == ["near_duplicate_of_test", "unchanged", "unchanged"]


def texts(folder: Path, rows: list[tuple[str, str, int]]) -> Path:
    """A validated generation of training rows: text, label, fold."""
    with GenerationWriter(folder, stage="validate", modality="text") as writer:
        for text, label, fold in rows:
            row_id = identify(text.encode())
            writer.keep(Row(row_id, "train", fold, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=len(rows), classes=sorted({label for _, label, _ in rows}))
    return folder


def test_rare_classes_get_more_augmented_rows() -> None:
    """Twelve rows and three: with balance 1 and one augmentation per row, both classes come to 24.

    With 0.5 the rare class gets (1 + 1) x 4^0.5 - 1 = 3; the maximum is ten times as many.
    """
    assert balance_counts({"often": 12, "rare": 3}, 1, 1.0) == {"often": 1, "rare": 7}
    assert balance_counts({"often": 12, "rare": 3}, 1, 0.5) == {"often": 1, "rare": 3}
    assert balance_counts({"often": 12, "rare": 3}, 1, 0.0) == {"often": 1, "rare": 1}
    assert balance_counts({"often": 900, "rare": 1}, 1, 1.0) == {"often": 1, "rare": 10}


def test_class_shares_are_recorded_before_and_after(tmp_path: Path) -> None:
    """A quarter before, and about a half after with balance 1, which brings both classes to the same number."""
    rows = [
        (f"the {word} was quick and bright today", "x", index % 2)
        for index, word in enumerate(["red", "blue", "green", "gray", "pink", "teal"])
    ]
    rows += [(f"many slow {word} stay here for long", "y", index % 2) for index, word in enumerate(["cows", "goats"])]
    texts(tmp_path / "v", rows)
    params = AugmentParams(augmentations_per_row=1, balance=1.0, policy=["typo"])
    augment(params, TEXTS, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    shares = read_notes(tmp_path / "out", AugmentNotes).class_shares
    assert shares is not None
    assert shares.before == {"x": 0.75, "y": 0.25}
    assert shares.after["y"] == pytest.approx(0.5, abs=0.1)


OWN = """
import numpy as np

def shouted(text, rng):
    return text.upper()

def darker(pixels, rng):
    return (pixels * rng.uniform(0.3, 0.5)).astype(np.uint8)

def broken(text, rng):
    return 3
"""


def test_a_plugins_function_augments_rows(tmp_path: Path, rows: dict[str, Any]) -> None:
    """Texts and images, with the function named in the policy like any operation; its return value is checked."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/augmenting.py").write_text(OWN, encoding="utf-8")
    here = texts(tmp_path / "v", [("one fine day", "x", 0), ("a bad night", "y", 1)])
    arguments: dict[str, Any] = {"collected": here, "validated": here, "data": tmp_path / "data"}
    augment(
        AugmentParams(augmentations_per_row=1, policy=["shouted"], plugin="augmenting.py"),
        TEXTS,
        **arguments,
        output=tmp_path / "out",
    )
    assert sorted(read(tmp_path / "out")["text"]) == ["A BAD NIGHT", "ONE FINE DAY"]
    with pytest.raises(InputError, match="'broken' returned int, not a string"):
        augment(
            AugmentParams(augmentations_per_row=1, policy=["broken"], plugin="augmenting.py"),
            TEXTS,
            **arguments,
            output=tmp_path / "no",
        )
    augment(
        AugmentParams(augmentations_per_row=1, policy=["darker"], plugin="augmenting.py"),
        IMAGES,
        **rows,
        data=tmp_path / "data",
        output=tmp_path / "images",
    )
    for child, payload in payloads([tmp_path / "images"], read(tmp_path / "images")["id"]):
        (parent,) = read(tmp_path / "images", ids=[child])["parent_ids"].iloc[0]
        ((_, before),) = payloads([rows["collected"]], [parent])
        assert decode(payload).mean() < 0.55 * decode(before).mean()


def test_the_guard_rejects_augmented_rows_that_other_models_assign_to_another_class(tmp_path: Path) -> None:
    """One word decides the class, and in every second text the plugin's function replaces it with the other class's
    word.
    """
    rng = np.random.default_rng(0)
    filler = ["it", "was", "on", "the", "way", "to", "a", "town", "with", "some", "of", "them", "by", "now"]
    rows = []
    for number in range(60):
        label = "xy"[number % 2]
        words = [*rng.choice(filler, 6), {"x": "apple", "y": "stone"}[label]]
        rows.append((" ".join(rng.permutation(words)) + f" n{number}", label, number // 2 % 3))
    (tmp_path / "data").mkdir()
    swap = (
        "def flipped(text, rng):\n    return text.replace('apple', 'stone') if 'apple' in text else text + ' indeed'\n"
    )
    (tmp_path / "data/augmenting.py").write_text(swap, encoding="utf-8")
    here = texts(tmp_path / "v", rows)
    params = AugmentParams(augmentations_per_row=1, policy=["flipped"], plugin="augmenting.py", label_guard=True)
    augment(params, TEXTS, collected=here, validated=here, data=tmp_path / "data", output=tmp_path / "out")
    assert set(read(tmp_path / "out")["label"]) == {"y"}
    rejected = read_rejected(tmp_path / "out")
    assert set(rejected["reason"]) == {"label_changed"}
    assert len(rejected) >= 25


@pytest.mark.slow
def test_auto_keeps_what_helps_and_rejects_what_changes_the_class(tmp_path: Path) -> None:
    """Arrows to the left and to the right: mirroring is rejected by its measured effect, and what is kept is confirmed
    on other folds.
    """
    rng = np.random.default_rng(2)
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number in range(60):
            image = rng.integers(0, 60, (24, 24, 3)).astype(np.uint8)
            row, column, length = rng.integers(6, 18), rng.integers(4, 7), rng.integers(9, 14)
            image[row, column : column + length] = 220
            for step in range(4):
                image[[row - step, row + step], column + step] = 220
            label = "left" if number % 2 else "right"
            encoded = images.encode(image if label == "left" else image[:, ::-1].copy())
            row_id = identify(encoded)
            writer.keep(
                Row(row_id, "train", number // 2 % 5, label, label_source="human", group=row_id, payload=encoded)
            )
        writer.close(rows_in=60, classes=["left", "right"])
    augment(
        AugmentParams(policy="auto"),
        IMAGES,
        collected=tmp_path / "v",
        validated=tmp_path / "v",
        output=tmp_path / "out",
    )
    screened = read_notes(tmp_path / "out", AugmentNotes).screened
    assert screened is not None
    tried = {trial.name: trial for trial in screened.trials}
    assert len(tried) > 30
    assert tried["flip_left_right"].label_changes > 0.6
    assert tried["brightness_contrast"].label_changes < 0.2
    assert not tried["flip_left_right"].kept
    mirrored = ("flip_left_right", "quarter_turns", "HorizontalFlip")
    assert not any(name in json.dumps(screened.policy) for name in mirrored)
    if screened.policy:
        assert screened.confirmed.log_loss.value < 0


def test_auto_with_few_rows_reports_it_and_uses_the_default_policy(tmp_path: Path) -> None:
    """Four rows are too few to measure which operations help."""
    here = texts(
        tmp_path / "v",
        [
            ("one fine day in may", "x", 0),
            ("a bad night in june", "y", 1),
            ("what a day this is", "x", 1),
            ("the night is so long", "y", 0),
        ],
    )
    augment(
        AugmentParams(policy="auto", augmentations_per_row=1),
        TEXTS,
        collected=here,
        validated=here,
        output=tmp_path / "out",
    )
    notes = read_notes(tmp_path / "out", AugmentNotes)
    assert isinstance(notes.screening, NotScreened)
    assert "fewer than twenty" in notes.screening.not_screened
    assert [next(iter(step)) for step in notes.policy] == ["swap", "delete", "typo"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fgsm", "deepfool"])
def test_adversarial_rows_mislead_a_model_that_never_saw_them(
    tmp_path: Path, make_images: Callable[..., Path], way: str
) -> None:
    """The change is within its limit, and a new model trained on the other folds is less confident in the label for
    most adversarial rows.
    """
    data = make_images(labeled=12, pool=0, test=0)
    sources = ScrapeParams.model_validate({"sources": [{"kind": "folder"}]})
    scrape(sources, IMAGES, data=data, output=tmp_path / "s")
    validate(ValidateParams(test_share=0), IMAGES, collected=tmp_path / "s", output=tmp_path / "v")
    params = AugmentParams.model_validate(
        {"augmentations_per_row": 0, "adversarial": 1.0, "adversarial_attack": way, "adversarial_levels": 6}
    )
    augment(params, IMAGES, collected=tmp_path / "s", validated=tmp_path / "v", output=tmp_path / "out")
    children, rows = read(tmp_path / "out"), read(tmp_path / "v").set_index("id")
    assert len(children) > 25
    before, after = dict(payloads([tmp_path / "s"], rows.index)), dict(payloads([tmp_path / "out"], children["id"]))
    classes = sorted(set(rows["label"]))
    less_sure = []
    for fold, fold_children in children.groupby("fold"):
        taught = rows[rows["fold"] != fold]
        maker = ImageFeatures()
        inputs = maker.fit_transform([before[row_id] for row_id in rows.index])
        model = LogisticRegression(max_iter=500).fit(
            inputs.features[(rows["fold"] != fold).to_numpy()], taught["label"]
        )
        child: Any
        for child in fold_children.itertuples():
            parent = child.parent_ids[0]
            change = decode(after[child.id]).astype(float) - decode(before[parent])
            assert np.sqrt((change**2).mean()) <= 6.5
            probabilities = model.predict_proba(maker.transform([before[parent], after[child.id]]).features)
            class_index = classes.index(child.label)
            less_sure.append(probabilities[1, class_index] < probabilities[0, class_index])
    assert np.mean(less_sure) > 0.8


def test_an_augmented_row_that_exists_already_counts_once(tmp_path: Path) -> None:
    """Regardless of the seed, one of ten flips of an image is kept.

    An image equal to another row's, in any fold, is rejected.
    """
    rng = np.random.default_rng(0)
    image_arrays = [rng.integers(0, 255, (12, 12, 3)).astype(np.uint8) for _ in range(3)]
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for number, (image, split) in enumerate(
            [
                (image_arrays[0], "train"),
                (image_arrays[1], "train"),
                (image_arrays[1][:, ::-1], "train"),
                (image_arrays[2], "train"),
                (image_arrays[2][:, ::-1], "test"),
            ]
        ):
            encoded = images.encode(np.ascontiguousarray(image))
            row_id = identify(images.content(images.decode(encoded)))
            fold = number % 2 if split == "train" else None
            writer.keep(Row(row_id, split, fold, "ab"[number % 2], label_source="human", group=row_id, payload=encoded))
        writer.close(rows_in=5, classes=["a", "b"])
    params = AugmentParams(augmentations_per_row=10, policy=["flip_left_right"])
    augment(params, IMAGES, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    assert len(read(tmp_path / "out")) == 1
    reasons = Counter(read_rejected(tmp_path / "out")["reason"])
    assert reasons == {"exact_duplicate": 9, "copy_of_another_row": 20, "near_duplicate_of_test": 10}


def test_an_empty_policy_creates_no_rows(tmp_path: Path) -> None:
    """It is not an error, whatever the balance."""
    here = texts(tmp_path / "v", [("one fine day", "x", 0), ("a bad night", "y", 1), ("a good night", "y", 0)])
    augment(
        AugmentParams(augmentations_per_row=3, policy=[], balance=1),
        TEXTS,
        collected=here,
        validated=here,
        output=tmp_path / "out",
    )
    assert len(read(tmp_path / "out")) == 0


def test_a_plugins_function_has_a_probability_and_a_unique_name(tmp_path: Path, rows: dict[str, Any]) -> None:
    """With p 0 it changes nothing; other keys, and the name of a built-in operation, are refused."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/augmenting.py").write_text(
        OWN + "\ndef rotate(pixels, rng):\n    return pixels\n", encoding="utf-8"
    )
    arguments: dict[str, Any] = {**rows, "data": tmp_path / "data"}
    augment(
        AugmentParams(augmentations_per_row=1, policy=[{"darker": {"p": 0.0}}], plugin="augmenting.py"),
        IMAGES,
        **arguments,
        output=tmp_path / "out",
    )
    assert set(read_rejected(tmp_path / "out")["reason"]) == {"unchanged"}
    for policy, message in (
        ({"darker": 0.3}, "darker takes p, not 0.3"),
        ({"darker": {"foo": 1}}, "takes p, not foo"),
        ("rotate", "'rotate' is the name of a built-in operation"),
    ):
        with pytest.raises(InputError, match=message):
            augment(
                AugmentParams(augmentations_per_row=1, policy=[policy], plugin="augmenting.py"),
                IMAGES,
                **arguments,
                output=tmp_path / "no",
            )
