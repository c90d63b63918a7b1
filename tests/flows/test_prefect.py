"""The folds of a long round are tasks of a real Prefect server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prefect_runs import post
from services import BIN
from short_runs import shorten_runs

from seedling.dataset.generation import digest

pytestmark = pytest.mark.soak


def test_the_folds_of_a_long_round_are_tasks_on_the_flows_task_runner(shared_prefect: str, workspace: Path) -> None:
    """A network with 100 steps has a long predicted run time: its five folds are in Prefect's database, and the bytes
    are the same as without.
    """
    workspace = workspace.rename(workspace.with_name("folds"))  # the name of its flow runs begins with it
    params = {"train__candidates": ["network"], "train__steps": 100, "train__budget_seconds": 1000.0}
    shorten_runs(workspace, **params, augment__augmentations_per_row=1, synthesize__mixup=None)
    subprocess.run([BIN / "seedling", "run", "-w", workspace], check=True, capture_output=True, timeout=600)
    (run,) = post(shared_prefect, "flow_runs/filter", {"flow_runs": {"name": {"like_": "folds 20"}}})
    tasks = post(shared_prefect, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    folds = sorted(task["name"] for task in tasks if task["name"].startswith("fold"))
    assert folds == [f"fold {number}" for number in range(5)]
    digest_before = digest(workspace / "models/0")
    subprocess.run([sys.executable, "-m", "seedling.runner", "train@0"], cwd=workspace, check=True, timeout=600)
    assert digest(workspace / "models/0") == digest_before
