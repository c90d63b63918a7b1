"""Workspaces of an earlier version are upgraded, and nothing is computed again."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prefect_runs import own_environment
from text_workspaces import call

from seedling.upgrading import upgrade_workspace
from seedling.versioning.dvc_yaml import render_dvc_yaml

PROJECT = Path(__file__).parents[1]
TEMPLATES = PROJECT / "seedling" / "init" / "workspace_files"


def as_earlier_version(text: str) -> str:
    """dvc.yaml, dvc.lock or prefect.yaml with the commands that the earlier version wrote."""
    text = re.sub(r"seedling\.runner (train|pseudo_label)@(\$\{key\}|\d)", r"tasks.\1 --round \2", text)
    return re.sub(r"seedling\.runner (\w+)", r"tasks.\1", text).replace("seedling.flows.grow", "flows.grow")


def test_former_commands_of_all_stages_are_replaced(tmp_path: Path) -> None:
    """Written out: with and without a round, with and without -P; then a second upgrade changes nothing."""
    shutil.copy(TEMPLATES / "gitattributes.template", tmp_path / ".gitattributes")
    (tmp_path / "dvc.yaml").write_text(
        "scrape:\n  cmd: python -P -m tasks.scrape\n"
        "augment:\n  cmd: python -m tasks.augment\n"
        "train:\n  cmd: python -P -m tasks.train --round ${key}\n"
        "outs: [reports/evaluation.json, reports/predictions.parquet]\n"
    )
    (tmp_path / "dvc.lock").write_text("pseudo_label@2:\n  cmd: python -P -m tasks.pseudo_label --round 2\n")
    assert len(upgrade_workspace(tmp_path)) == 1
    assert upgrade_workspace(tmp_path) == []
    pipeline = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    assert [pipeline[name]["cmd"] for name in ("scrape", "augment", "train")] == [
        "python -P -m seedling.runner scrape",
        "python -P -m seedling.runner augment",
        "python -P -m seedling.runner train@${key}",
    ]
    assert (
        tmp_path / "dvc.lock"
    ).read_text() == "pseudo_label@2:\n  cmd: python -P -m seedling.runner pseudo_label@2\n"


@pytest.mark.parametrize("name", ["dvc.yaml", "prefect.yaml"])
def test_the_files_of_the_earlier_version_become_those_of_this_one(tmp_path: Path, name: str) -> None:
    """Character for character, comments included."""
    current = render_dvc_yaml() if name == "dvc.yaml" else (TEMPLATES / f"{name}.template").read_text()
    assert as_earlier_version(current) != current
    (tmp_path / name).write_text(as_earlier_version(current))
    upgrade_workspace(tmp_path)
    assert (tmp_path / name).read_text() == current


@pytest.mark.slow
def test_a_run_upgrades_the_workspace_and_runs_no_stage_again(finished_copy: Path, tmp_path: Path) -> None:
    """`seedling run` in a workspace whose dvc.yaml, dvc.lock and prefect.yaml are of the earlier version."""
    for name in ("dvc.yaml", "dvc.lock", "prefect.yaml"):
        path = finished_copy / name
        path.write_text(as_earlier_version(path.read_text()))
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, "commit", "-qam", "Earlier version"], cwd=finished_copy, check=True)
    before = (finished_copy / "generations" / "scrape" / "manifest.json").stat().st_mtime_ns
    printed = call(["seedling", "run"], finished_copy, own_environment(tmp_path))
    assert "stages are run as `python -P -m seedling.runner`" in printed
    assert (finished_copy / "generations" / "scrape" / "manifest.json").stat().st_mtime_ns == before
    assert "tasks." not in (finished_copy / "dvc.lock").read_text()
    assert "changed" not in call(["dvc", "status"], finished_copy, own_environment(tmp_path))
