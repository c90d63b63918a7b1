"""The mix-in: another dataset, whose rows are used for training and never for evaluation."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapes import SHAPES, draw
from short_runs import set_params

from seedling.config.params import ScrapeParams, ValidateParams, WorkspaceConfig, set_value
from seedling.dataset.generation import read, read_manifest, read_rejected
from seedling.features.classical import Inputs
from seedling.models.network import Network
from seedling.models.training import FitContext, Mixin
from seedling.pipeline import find_stage, stages
from seedling.runner import run_stage
from seedling.scrape import scrape
from seedling.validate import validate

IMAGES = WorkspaceConfig(modality="image")


def test_mixin_rows_have_a_split_of_their_own(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """They are in no fold, and their labels are not classes.

    Duplicates and near-duplicates of labeled rows are rejected, and so are rows without a label.
    """
    data = tmp_path / "data"
    make_images(data / "mine", labeled=4, pool=2, test=2)
    rng = np.random.default_rng(1)
    for label, shape in (("Disc", "disc"), ("rod", "bar")):
        (data / "other/labeled" / label).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(draw(shape, rng)).save(data / "other/labeled" / label / f"{number}.png")
    shutil.copy(data / "mine/test/bar/0.png", data / "other/labeled/rod/copy.png")
    near = np.asarray(Image.open(data / "mine/labeled/disc/0.png")).astype(int) + rng.integers(-2, 3, (24, 24))
    Image.fromarray(near.clip(0, 255).astype(np.uint8)).save(data / "other/labeled/Disc/near.png")
    (data / "other/unlabeled").mkdir()
    Image.fromarray(draw("disc", rng)).save(data / "other/unlabeled/one.png")
    sources = [{"kind": "folder", "path": "mine"}, {"kind": "folder", "path": "other", "role": "mixin"}]
    scrape(ScrapeParams.model_validate({"sources": sources}), IMAGES, data=data, output=tmp_path / "scrape")
    assert Counter(read_rejected(tmp_path / "scrape")["reason"]) == {"mixin_without_label": 1}
    validate(ValidateParams(), IMAGES, collected=tmp_path / "scrape", output=tmp_path / "validate")
    rows = read(tmp_path / "validate")
    mixed = rows[rows["split"] == "mixin"]
    assert Counter(mixed["label"]) == {"Disc": 3, "rod": 3}
    assert mixed["fold"].isna().all()
    assert read_manifest(tmp_path / "validate").classes == tuple(sorted(SHAPES))
    assert Counter(read_rejected(tmp_path / "validate")["reason"]) == {
        "exact_duplicate": 1,
        "near_duplicate_of_train": 1,
    }


def images(count: int, seed: int) -> tuple[Inputs, np.ndarray]:
    """Images of alternating shapes as the network's inputs, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = np.stack([np.stack([draw(SHAPES[label], rng)[4:20, 4:20]] * 3, axis=-1) for label in labels])
    return Inputs(np.zeros((count, 1), dtype=np.float32), pixels), labels


@pytest.mark.slow
def test_the_network_learns_from_the_mixin_and_predicts_our_classes() -> None:
    """Two rows per class, and a mix-in of sixty per class with the same shapes under other names: accuracy on unseen
    rows is much higher than without.
    """
    (ours, truth), (theirs, other), (unseen, unseen_labels) = images(6, 0), images(180, 1), images(150, 2)
    mixin = Mixin(theirs, (2 - other).astype(np.int64), np.ones(len(other)), 3)
    right = {}
    for loss in ("plain", "mixin"):
        net = Network(FitContext(3, seed=3, steps=150, loss=loss, mixin=mixin))
        net.fit(ours, np.eye(3)[truth], np.ones(6))
        right[loss] = float((net.logits(unseen).argmax(axis=1) == unseen_labels).mean())
        assert not any("mixin" in name for name in net.tensors())
    assert right["mixin"] > right["plain"] + 0.1


@pytest.mark.soak
def test_cross_validation_measures_whether_the_mixin_helps(workspace: Path) -> None:
    """In a run of all stages the network is trained with and without the mix-in, whose rows are in no other stage's
    output.
    """
    rng = np.random.default_rng(11)
    for shape, name in zip(SHAPES, ("o", "l", "x"), strict=True):
        (workspace / "data/other" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(draw(shape, rng)).save(workspace / "data/other" / name / f"{number}.png")
    params = {"train.candidates": ["logistic_regression", "network"], "train.steps": 10, "pseudo_label.rounds": 0}
    set_params(workspace, {**params, "evaluate.bootstrap_draws": 200, "evaluate.robustness_rows": 0})
    path = workspace / "params.yaml"
    text = path.read_text(encoding="utf-8")
    listed = next(line for line in text.splitlines() if "kind: folder" in line)
    more = listed.replace("path: .", "path: other, role: mixin")
    path.write_text(text.replace(listed, f"{listed}\n{more}"), encoding="utf-8")
    for stage in stages(0).values():
        run_stage(stage, workspace)
    tried = json.loads((workspace / "models/0/candidates.json").read_text(encoding="utf-8"))["candidates"]
    losses = {candidate["loss"] for candidate in tried if candidate["learner"] == "network"}
    assert {"plain", "mixin"} <= losses
    assert len(read(workspace / "generations/validate", splits=["mixin"])) == 36
    set_value(workspace, ["train", "mixin"], value=False)
    run_stage(find_stage("train@0"), workspace)
    without = json.loads((workspace / "models/0/candidates.json").read_text(encoding="utf-8"))["candidates"]
    assert {candidate["loss"] for candidate in without if candidate["learner"] == "network"} == losses - {"mixin"}
    mixed = set(read(workspace / "generations/validate", splits=["mixin"])["id"])
    assert not mixed & set(pd.read_parquet(workspace / "reports/predictions.parquet")["id"])
