"""Params with which a whole run takes seconds, for tests in which how well the model does is not the point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedling.config.params import set_value

SHORT_RUN: Mapping[str, Any] = {
    "effort": "quick",
    "augment.augmentations_per_row": 0,
    "synthesize.mixup": 0,
    "train.candidates": ["logistic_regression"],
    "pseudo_label.rounds": 0,
    "evaluate.bootstrap_draws": 200,
    "evaluate.robustness_rows": 0,
}


def set_params(workspace: Path, params: Mapping[str, Any]) -> None:
    """Write params, by their dotted keys, to params.yaml."""
    for key, value in params.items():
        set_value(workspace, key.split("."), value)


def shorten_runs(workspace: Path, **changes: Any) -> Path:
    """Write SHORT_RUN to params.yaml and return the workspace. changes: other values of some keys, with __ for the dot."""
    set_params(workspace, {**SHORT_RUN, **{key.replace("__", "."): value for key, value in changes.items()}})
    return workspace


def run_all_stages(workspace: Path) -> None:
    """Run all stages in this process, recorded by DVC, and write the pages, as `seedling.grow` does: without Prefect."""
    from seedling.pipeline import stages
    from seedling.runner import write_page
    from seedling.versioning.ledger import open_ledger

    ledger = open_ledger(workspace)
    with ledger.snapshotted():
        for name in stages():
            ledger.run(name)
    for page in ("validate", "evaluate"):
        write_page(page, workspace)
