"""Whole pipelines, slow: Prefect and DVC give the same bytes, a kill loses no finished work, two runs can be compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from short_runs import run_all_stages, set_params, shorten_runs

from seedling.config.params import set_value
from seedling.records.results import read_evaluation
from seedling.records.summaries import headline

BIN = Path(sys.executable).parent
MADE = (
    "generations",
    "models",
    "reports/evaluation.json",
    "reports/metrics.json",
    "reports/predictions.parquet",
    "reports/plots",
    "dvc.lock",
)


def call(workspace: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as a user types it, with the environment's programs first in PATH."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=workspace,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0 or not check, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


def contents(workspace: Path) -> dict[str, bytes]:
    """Every file that the pipeline wrote, by path."""
    content_by_path = {}
    for name in MADE:
        top = workspace / name
        for path in [top] if top.is_file() else sorted(file for file in top.rglob("*") if file.is_file()):
            content_by_path[path.relative_to(workspace).as_posix()] = path.read_bytes()
    return content_by_path


def keep_few_digits(data: Path) -> None:
    """Leave the 50 labeled images, 100 test images, 40 of the pool, and two of the 24 pages of the gallery."""
    for folder, count in (("test", 100), ("unlabeled", 40)):
        for path in sorted((data / folder).rglob("*.png"), key=lambda path: path.name)[count:]:
            path.unlink()
    pages = [data / "site" / name for name in ("index.html", "page-1.html")]
    pages[1].write_text(pages[1].read_text(encoding="utf-8").replace('<a rel="next" href="page-2.html">next</a>', ""))
    html = "".join(page.read_text(encoding="utf-8") for page in pages)
    for path in (data / "site").rglob("*"):
        is_shown = path.name in html or path in pages or path.name == "robots.txt"
        if path.is_file() and not is_shown:
            path.unlink()


LEARNERS: dict[str, dict[str, object]] = {  # by scikit-learn alone, by joblib's processes, by torch
    "digits": {"train.candidates": ["logistic_regression", "random_forest", "network"], "train.steps": 10},
    "intents": {"train.candidates": ["logistic_regression", "random_forest"]},
}


@pytest.mark.slow
def test_dvc_writes_the_bytes_of_a_run_up_to_the_first_model(finished_workspace: Path, tmp_path: Path) -> None:
    """`dvc repro train@0` in a copy of the inputs, against `seedling run`, on a few images of shapes."""
    call(tmp_path, "git", "init", "--quiet")
    call(tmp_path, "dvc", "init", "--quiet")
    for name in ("data", "reviews"):
        shutil.copytree(finished_workspace / name, tmp_path / name)
    for name in ("params.yaml", "gates.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(finished_workspace / name, tmp_path / name)
    call(tmp_path, "dvc", "repro", "train@0")
    by_dvc, by_prefect = contents(tmp_path), contents(finished_workspace)
    assert {"models/0/model.json", "generations/synthesize/manifest.json"} <= by_dvc.keys()
    assert [path for path in by_dvc if by_dvc[path] != by_prefect.get(path)] == ["dvc.lock"]  # which has fewer stages


@pytest.mark.soak
@pytest.mark.usefixtures("shared_prefect")
@pytest.mark.parametrize("name", ["digits", "intents"])
def test_prefect_and_dvc_give_the_same_bytes(example: Callable[[str], Path], name: str) -> None:
    """`seedling run` in one copy, `dvc repro` in another; afterwards both are up to date in either."""
    prefect_folder = example(name)
    set_params(prefect_folder, {"effort": "quick", "evaluate.robustness_rows": 10, **LEARNERS[name]})
    if name == "digits":
        keep_few_digits(prefect_folder / "data")
    dvc_folder = prefect_folder.with_name(f"{name}-dvc")
    shutil.copytree(prefect_folder, dvc_folder)
    call(prefect_folder, "seedling", "run")
    call(dvc_folder, "dvc", "repro")
    by_prefect, by_dvc = contents(prefect_folder), contents(dvc_folder)
    assert by_prefect.keys() == by_dvc.keys()
    assert [path for path in by_prefect if by_prefect[path] != by_dvc[path]] in ([], ["dvc.lock"])
    locks = [YAML(typ="safe").load(content["dvc.lock"]) for content in (by_prefect, by_dvc)]
    assert locks[0] == locks[1], "the same entries; DVC writes them in the order in which stages end"
    for folder in (prefect_folder, dvc_folder):
        assert "up to date" in call(folder, "dvc", "status").stdout
    assert "Data and pipelines are up to date" in call(prefect_folder, "dvc", "repro").stdout
    assert "+ " not in call(dvc_folder, "seedling", "run").stdout
    metrics = json.loads((prefect_folder / "reports/evaluation.json").read_text())
    assert metrics["test"]["accuracy"]["value"] > {"digits": 0.7, "intents": 0.4}[name]  # chance: 0.1 and 0.125
    page = prefect_folder / "reports/report.html"
    assert page.stat().st_size < 5e6
    assert "given by rules or models, not by people" in page.read_text(encoding="utf-8")
    scraped = json.loads((prefect_folder / "generations/scrape/manifest.json").read_text())
    assert any(count["label_source"] == "weak:tag" for count in scraped["counts"])


@pytest.mark.soak
def test_a_kill_in_any_stage_repeats_that_stage_alone(workspace: Path, tmp_path: Path) -> None:
    """After a kill during training, the next run keeps what was finished and ends with the bytes of an uninterrupted
    run.
    """
    unbroken = tmp_path / "unbroken"
    shutil.copytree(workspace, unbroken)
    call(unbroken, "seedling", "run")
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    run = subprocess.Popen(
        ["seedling", "run"], cwd=workspace, env=env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (workspace / ".seedling/partial/train@0").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (workspace / "models/0/manifest.json").exists()
    done = call(workspace, "seedling", "run").stdout
    for stage in ("scrape", "validate", "augment", "synthesize"):
        assert f"= {stage}" in done
    assert contents(workspace) == contents(unbroken)


@pytest.mark.slow
@pytest.mark.usefixtures("shared_prefect")
def test_two_runs_compare_and_why_explains_a_row(finished_copy: Path) -> None:
    """By run name and against the workspace; the run is an experiment of DVC too."""
    workspace = finished_copy
    (run,) = (workspace / ".seedling/runs").glob("*.json")
    set_value(workspace, ["augment", "augmentations_per_row"], 0)
    behind = call(workspace, "seedling", "compare", run.stem, check=False)
    assert behind.returncode == 2
    assert "The results of the workspace are stale: augment" in behind.stderr
    call(workspace, "seedling", "run")
    done = call(workspace, "seedling", "compare", run.stem)
    assert "difference, paired" in done.stdout
    assert "accuracy" in done.stdout
    assert list((workspace / "reports").glob("compare-*.html"))
    assert run.stem in call(workspace, "dvc", "exp", "list", "--all").stdout
    predictions = pd.read_parquet(workspace / "reports/predictions.parquet")
    row = predictions.iloc[0]
    explanation = call(workspace, "seedling", "why", row["id"]).stdout
    assert row["origin"] in explanation
    assert f"label '{row['label']}', predicted '{row['predicted']}'" in explanation
    trained = call(workspace, "seedling", "why", "labeled/disc/0.png").stdout
    assert "learned from it" in trained
    assert call(workspace, "seedling", "compare", "nowhere", check=False).returncode == 2


@pytest.mark.slow
def test_a_workspace_without_pool_and_test_split_reports_it(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    """Cross-validation alone, and no round after the first."""
    from seedling.init.create import make_workspace

    workspace = shorten_runs(
        make_workspace(tmp_path / "few", make_images(pool=0, test=0), "image"), pseudo_label__rounds=1
    )
    run_all_stages(workspace)
    evaluation = read_evaluation(workspace / "reports")
    assert evaluation is not None
    assert "no test split" in headline(evaluation)  # the last line of `seedling run`
    assert evaluation.test is None
    assert evaluation.accepted_round == 0
    assert "There is no test split" in (workspace / "reports/report.html").read_text()
