"""Complete pipelines on little data: one label per class, no pool, a pool of unrelated images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from short_runs import set_params

from seedling.config.params import set_value
from seedling.dataset.generation import read, read_manifest, read_rejected
from seedling.init.create import make_workspace
from seedling.pipeline import stages
from seedling.report.report import write_report
from seedling.runner import run_stage


@pytest.fixture
def run_pipeline(tmp_path: Path) -> Callable[..., Path]:
    """Run every stage on a folder of images with `effort: quick` and no robustness tests, and return the workspace."""

    def run(images: Path, **of_train: Any) -> Path:
        workspace = tmp_path / "workspace"
        make_workspace(workspace, images, "image")
        set_params(workspace, {"effort": "quick", "evaluate.bootstrap_draws": 200, "evaluate.robustness_rows": 0})
        for key, value in of_train.items():
            set_value(workspace, ["train", key], value)
        for stage in stages().values():
            run_stage(stage, workspace)
        write_report(workspace)
        return workspace

    return run


def round_decision(workspace: Path, round_number: int) -> dict[str, Any]:
    decision: dict[str, Any] = json.loads((workspace / f"models/{round_number}/decision.json").read_text())
    return decision


@pytest.mark.slow
def test_one_label_per_class_is_used_and_the_report_states_that_the_accuracy_is_unknown(
    make_images: Callable[..., Path], run_pipeline: Callable[..., Path]
) -> None:
    """Every model is trained on the three rows; there is no accuracy, and no number in its place."""
    workspace = run_pipeline(make_images(labeled=1, pool=30, test=0))
    assert read(workspace / "generations/validate")["fold"].isna().all()
    assert json.loads((workspace / "models/0/manifest.json").read_text())["rows"]["never_held_out"] == 3
    assert round_decision(workspace, 1)["rows"] == 0
    assert "no labeled row can be held out" in round_decision(workspace, 1)["reason"]
    metrics = json.loads((workspace / "reports/evaluation.json").read_text())
    assert (metrics["cross_validation"], metrics["test"]) == (None, None)
    page = " ".join((workspace / "reports/report.html").read_text().split())
    assert "The accuracy is unknown" in page
    assert "Classifies images into 3 classes" in page
    assert "Trained on 3 rows labeled by people" in page
    assert "Unchecked labels" not in page


@pytest.mark.soak
def test_a_class_with_a_single_row_is_learned(
    make_images: Callable[..., Path], run_pipeline: Callable[..., Path]
) -> None:
    """The other classes are cross-validated; the single row is in every model's training data, and its class can be
    predicted.
    """
    images = make_images(labeled=6, pool=20, test=5)
    for path in sorted((images / "labeled/cross").iterdir())[1:]:
        path.unlink()
    workspace = run_pipeline(images)
    rows = read(workspace / "generations/validate").query("split == 'train'")
    assert rows.loc[rows["label"] == "cross", "fold"].isna().all()
    assert round_decision(workspace, 0)["rows"] == 12
    assert "cross" in json.loads((workspace / "models/0/model.json").read_text())["classes"]


@pytest.mark.soak
def test_without_a_pool_the_supervised_model_is_used(
    make_images: Callable[..., Path], run_pipeline: Callable[..., Path]
) -> None:
    """The rounds end after round 0, with the reason."""
    workspace = run_pipeline(make_images(labeled=6, pool=0, test=5))
    assert "the pool is empty" in round_decision(workspace, 0)["reason"]
    assert round_decision(workspace, 3)["decision"] == "skipped"


@pytest.mark.soak
def test_a_pool_of_unrelated_images_does_no_harm(
    make_images: Callable[..., Path], run_pipeline: Callable[..., Path]
) -> None:
    """With forty images of noise and eighteen labeled shapes, the accepted model is as accurate as that of round 0."""
    images = make_images(labeled=6, pool=0, test=12)
    rng = np.random.default_rng(3)
    (images / "unlabeled").mkdir()
    for number in range(40):
        noise = rng.integers(0, 255, (24, 24)).astype(np.uint8)
        Image.fromarray(noise).save(images / "unlabeled" / f"{number}.png")
    workspace = run_pipeline(images)
    rounds = json.loads((workspace / "reports/evaluation.json").read_text())
    accepted = round_decision(workspace, 3)["accepted_round"]
    start = rounds["rounds"][0]["accuracy"]["value"]
    assert rounds["rounds"][accepted]["accuracy"]["value"] >= start - 0.06


@pytest.mark.soak
def test_unused_rows_of_a_large_pool_are_rejected_with_a_reason(
    make_images: Callable[..., Path], run_pipeline: Callable[..., Path]
) -> None:
    """Of 30 pool rows 12 are drawn: the other 18 are rejected with their reason, and every row is in one place."""
    workspace = run_pipeline(make_images(labeled=6, pool=30, test=0), pool_rows=12)
    labels = workspace / "generations/pseudo_label/1"
    pool = set(read(workspace / "generations/validate", ["id"], splits=["pool"])["id"])
    rejected = read_rejected(labels)
    beyond = rejected[rejected["reason"] == "beyond_pool_rows"]
    assert read_manifest(labels).rows.rows_in == len(pool)
    assert len(beyond) == len(pool) - 12
    assert beyond["label"].isna().all()
    assert beyond["origin"].notna().all()
    assert set(rejected["id"]) | set(read(labels, ["id"])["id"]) == pool
