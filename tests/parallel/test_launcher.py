"""Training in several processes: real ones started by torchrun, and launchers that fail."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from shapes import write_images

from seedling.config.params import set_value
from seedling.dataset.generation import digest
from seedling.errors import InputError, SeedlingError
from seedling.init.create import make_workspace
from seedling.parallel.executor import Process
from seedling.parallel.launcher import LAUNCH, run_by_launcher
from seedling.pipeline import find_stage
from seedling.progress import silent
from seedling.runner import run_stage

TWO = "torchrun --nproc_per_node 2"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of small images with all inputs of train, for logistic regression and a network."""
    folder = tmp_path_factory.mktemp("prepared")
    workspace = folder / "workspace"
    make_workspace(workspace, write_images(folder / "images", labeled=6, pool=220, test=3), "image")
    for key, value in (("candidates", ["logistic_regression", "network"]), ("steps", 10)):
        set_value(workspace, ["train", key], value)
    for stage in ("scrape", "validate", "augment", "synthesize"):
        run_stage(find_stage(stage), workspace)
    return workspace


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared workspace."""
    return Path(shutil.copytree(prepared, tmp_path / "workspace", symlinks=True))


def test_results_are_gathered_in_order_and_an_error_reaches_all_processes() -> None:
    """Three threads with a barrier stand in for processes: five items in order; then the second one's share fails."""
    barrier, sent = threading.Barrier(3), dict[int, Any]()

    def results_of(number: int, function: Callable[[int], int]) -> Any:
        def gather(own_results: Any) -> list[Any]:
            sent[number] = own_results
            barrier.wait(timeout=10)
            everything = [sent[other] for other in range(3)]
            barrier.wait(timeout=10)
            return everything

        process = Process(number, 3, gather=gather)
        try:
            return process.map(function, range(5), "fold"), process.by_leader(lambda: f"said by {number}")
        except SeedlingError as error:
            return str(error)

    def fail_at_the_last_item(item: int) -> int:
        if item == 4:
            raise InputError("the fourth cannot be trained")
        return item

    with ThreadPoolExecutor(3) as threads:
        assert (
            list(threads.map(lambda number: results_of(number, lambda item: item**2), range(3)))
            == [([0, 1, 4, 9, 16], "said by 0")] * 3
        )
        assert (
            list(threads.map(lambda number: results_of(number, fail_at_the_last_item), range(3)))
            == ["the fourth cannot be trained"] * 3
        )


@pytest.mark.soak
def test_two_processes_write_the_same_bytes_as_one(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds 0 and 1, with a network that is pretrained and trained on pseudo-labels; the losses of all folds are
    written.
    """
    stages = [find_stage(name) for name in ("train@0", "pseudo_label@1", "train@1")]
    for stage in stages:
        run_stage(stage, workspace)
    alone = [digest(workspace / stage.output) for stage in stages]
    monkeypatch.setenv(LAUNCH, TWO)
    progress_steps: list[str] = []
    for stage in stages:
        run_stage(stage, workspace, lambda what, done, total: progress_steps.append(what))
    assert [digest(workspace / stage.output) for stage in stages] == alone
    assert "train models" in progress_steps, "the leading process says how far it is"
    losses = (workspace / "models/0/losses.csv").read_text()
    assert all(f"fold {number}" in losses for number in (1, 2, 3))


@pytest.mark.soak
def test_two_processes_encode_and_count_words_the_same_as_one(
    tmp_path: Path, of_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty sentences, a shared encoder, in shares of four rows; both runs start with an empty cache."""
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "apple", "bus", "runs", "falls", "the", "a", "old", "new"])
    texts = [" ".join(rng.choice(words, size=rng.integers(3, 9))) for _ in range(60)]
    labels = ["fruit" if "apple" in text else "vehicle" if number < 30 else None for number, text in enumerate(texts)]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "rows.csv", index=False)
    workspace = make_workspace(tmp_path / "workspace", tmp_path / "rows.csv", "text", encoder=str(of_texts))
    set_value(workspace, ["train", "steps"], 10)
    stages = [find_stage(name) for name in ("scrape", "validate", "augment", "synthesize", "train@0")]
    for stage in stages:
        run_stage(stage, workspace)
    alone = digest(workspace / "models/0")
    shutil.rmtree(workspace / ".seedling/features")
    monkeypatch.setenv(LAUNCH, TWO)
    run_stage(stages[-1], workspace)
    assert digest(workspace / "models/0") == alone
    assert len(list((workspace / ".seedling/features").glob("*.sqlite"))) == 2


@pytest.mark.slow
def test_an_error_in_the_processes_is_reported_once_and_leaves_nothing_behind(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a missing encoder: the stage's own message, no partial generation, and no process left."""
    set_value(workspace, ["train", "candidates"], None)
    set_value(workspace, ["encoder"], {"model": "./no-such-folder"})
    with pytest.raises(SeedlingError) as alone:
        run_stage(find_stage("train@0"), workspace)
    monkeypatch.setenv(LAUNCH, TWO)
    with pytest.raises(SeedlingError) as together:
        run_stage(find_stage("train@0"), workspace)
    assert str(together.value) == str(alone.value)
    assert not (workspace / "models/0").exists()
    assert not (workspace / ".seedling/partial/train@0").exists()
    assert not _of_training(os.getpid())


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopping_a_run_stops_its_processes(workspace: Path, how: signal.Signals) -> None:
    """After SIGINT, or SIGKILL, which cannot be handled, in the middle of training, all processes exit within seconds."""
    set_value(workspace, ["train", "steps"], 100_000)
    set_value(workspace, ["train", "budget_seconds"], 10_000_000)
    command = [sys.executable, "-m", "seedling.runner", "train@0"]
    left: list[psutil.Process] = []
    with subprocess.Popen(command, cwd=workspace, env={**os.environ, LAUNCH: TWO}, start_new_session=True) as running:
        try:
            deadline = time.monotonic() + 120
            unfinished = workspace / ".seedling/unfinished"
            while not any(unfinished.rglob("*.safetensors")) and time.monotonic() < deadline:
                time.sleep(0.5)
            left = _of_training(running.pid)
            assert len(left) == 2
            assert any(unfinished.rglob("*.safetensors")), "one pretrains the network, the other waits for it"
            running.send_signal(how)
            running.wait(timeout=60)
            _, alive = psutil.wait_procs(left, timeout=30)
            assert not alive
        finally:
            running.kill()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _of_training(pid: int) -> list[psutil.Process]:
    """The running processes below this one that train folds; a zombie has no command line and counts as ended."""
    training = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if "seedling.parallel.launched_process" in command and not any("torchrun" in part for part in command):
                training.append(child)
    return training


@pytest.mark.slow
def test_a_missing_launcher_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that was not found."""
    monkeypatch.setenv(LAUNCH, "no-such-launcher --fast")
    with pytest.raises(InputError, match="no command 'no-such-launcher'"):
        run_stage(find_stage("train@0"), workspace)


@pytest.mark.parametrize(("launch", "why"), [(" ", "holds no command"), ("torchrun 'x", "close its quotes")])
def test_an_invalid_launch_command_is_explained(launch: str, why: str, tmp_path: Path) -> None:
    """Blanks alone, and an unclosed quote."""
    with pytest.raises(InputError, match=why):
        run_by_launcher(launch, "train@0", tmp_path, tmp_path, silent)


@pytest.mark.slow
def test_a_launcher_that_exits_early_is_an_error(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its exit code is 0: nothing was trained."""
    monkeypatch.setenv(LAUNCH, "true")
    with pytest.raises(SeedlingError, match="before the stage was complete"):
        run_stage(find_stage("train@0"), workspace)


@pytest.mark.slow
def test_a_plain_python_interpreter_is_a_launcher_of_one_process(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python` starts the module once, which is enough for the stage."""
    set_value(workspace, ["train", "candidates"], ["logistic_regression"])
    monkeypatch.setenv(LAUNCH, sys.executable)
    run_stage(find_stage("train@0"), workspace)
    assert json.loads((workspace / "models/0/decision.json").read_text())["decision"] == "accepted"
