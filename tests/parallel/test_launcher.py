"""Training over several processes: real ones, started by torchrun, or none where the launcher is wrong."""

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
    """A workspace of small images with all that train reads; learns by logistic regression and a network."""
    folder = tmp_path_factory.mktemp("prepared")
    workspace = folder / "workspace"
    make_workspace(workspace, write_images(folder / "images", labeled=6, pool=220, test=3), "image")
    for key, value in (("candidates", ["logistic_regression", "network"]), ("steps", 10)):
        set_value(workspace, ["train", key], value)
    for stage in ("scrape", "validate", "augment", "synthesize"):
        run_stage(find_stage(stage), workspace)
    return workspace


@pytest.fixture
def made(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared workspace."""
    return Path(shutil.copytree(prepared, tmp_path / "workspace", symlinks=True))


def test_shares_are_put_together_in_order_and_an_error_reaches_all() -> None:
    """Three threads that meet at a barrier, for processes: five places one by one; then the second one's share fails."""
    barrier, given = threading.Barrier(3), dict[int, Any]()

    def one(number: int, work: Callable[[int], int]) -> Any:
        def gather(mine: Any) -> list[Any]:
            given[number] = mine
            barrier.wait(timeout=10)
            everything = [given[other] for other in range(3)]
            barrier.wait(timeout=10)
            return everything

        process = Process(number, 3, gather=gather)
        try:
            return process.map(work, range(5), "fold"), process.by_leader(lambda: f"said by {number}")
        except SeedlingError as error:
            return str(error)

    def fails(place: int) -> int:
        if place == 4:
            raise InputError("the fourth cannot be trained")
        return place

    with ThreadPoolExecutor(3) as threads:
        assert (
            list(threads.map(lambda number: one(number, lambda place: place**2), range(3)))
            == [([0, 1, 4, 9, 16], "said by 0")] * 3
        )
        assert list(threads.map(lambda number: one(number, fails), range(3))) == ["the fourth cannot be trained"] * 3


@pytest.mark.soak
def test_two_processes_write_the_bytes_of_one(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds 0 and 1, with a network that is pretrained and learns from the pool; the losses of all folds are there."""
    line = [find_stage(name) for name in ("train@0", "pseudo_label@1", "train@1")]
    for stage in line:
        run_stage(stage, made)
    alone = [digest(made / stage.output) for stage in line]
    monkeypatch.setenv(LAUNCH, TWO)
    heard: list[str] = []
    for stage in line:
        run_stage(stage, made, lambda what, done, total: heard.append(what))
    assert [digest(made / stage.output) for stage in line] == alone
    assert "train models" in heard, "the leading process says how far it is"
    losses = (made / "models/0/losses.csv").read_text()
    assert all(f"fold {number}" in losses for number in (1, 2, 3))


@pytest.mark.soak
def test_two_processes_encode_and_count_words_as_one_does(
    tmp_path: Path, of_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty sentences, a shared encoder, in shares of four rows; nothing was encoded before either run."""
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "apple", "bus", "runs", "falls", "the", "a", "old", "new"])
    texts = [" ".join(rng.choice(words, size=rng.integers(3, 9))) for _ in range(60)]
    labels = ["fruit" if "apple" in one else "vehicle" if number < 30 else None for number, one in enumerate(texts)]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "rows.csv", index=False)
    made = make_workspace(tmp_path / "workspace", tmp_path / "rows.csv", "text", encoder=str(of_texts))
    set_value(made, ["train", "steps"], 10)
    line = [find_stage(name) for name in ("scrape", "validate", "augment", "synthesize", "train@0")]
    for stage in line:
        run_stage(stage, made)
    alone = digest(made / "models/0")
    shutil.rmtree(made / ".seedling/features")
    monkeypatch.setenv(LAUNCH, TWO)
    run_stage(line[-1], made)
    assert digest(made / "models/0") == alone
    assert len(list((made / ".seedling/features").glob("*.sqlite"))) == 2


@pytest.mark.slow
def test_what_goes_wrong_in_the_processes_is_said_once_and_leaves_nothing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that does not exist: the message of the stage itself, no half a generation, no process left behind."""
    set_value(made, ["train", "candidates"], None)
    set_value(made, ["encoder"], {"model": "./no-such-folder"})
    with pytest.raises(SeedlingError) as alone:
        run_stage(find_stage("train@0"), made)
    monkeypatch.setenv(LAUNCH, TWO)
    with pytest.raises(SeedlingError) as together:
        run_stage(find_stage("train@0"), made)
    assert str(together.value) == str(alone.value)
    assert not (made / "models/0").exists()
    assert not (made / ".seedling/partial/train@0").exists()
    assert not _of_training(os.getpid())


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_stops_its_processes(made: Path, how: signal.Signals) -> None:
    """SIGINT, and SIGKILL, which no handler hears, in the midst of a training: soon after none of the processes is at work."""
    set_value(made, ["train", "steps"], 100_000)
    set_value(made, ["train", "budget_seconds"], 10_000_000)
    command = [sys.executable, "-m", "seedling.runner", "train@0"]
    left: list[psutil.Process] = []
    with subprocess.Popen(command, cwd=made, env={**os.environ, LAUNCH: TWO}, start_new_session=True) as running:
        try:
            deadline = time.monotonic() + 120
            unfinished = made / ".seedling/unfinished"
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
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def _of_training(pid: int) -> list[psutil.Process]:
    """The running processes below this one that train folds; a zombie, which has no command line, has ended."""
    training = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if "seedling.parallel.launched_process" in command and not any("torchrun" in part for part in command):
                training.append(child)
    return training


@pytest.mark.slow
def test_a_launcher_that_is_not_there_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy."""
    monkeypatch.setenv(LAUNCH, "no-such-launcher --fast")
    with pytest.raises(InputError, match="no command 'no-such-launcher'"):
        run_stage(find_stage("train@0"), made)


@pytest.mark.parametrize(("launch", "why"), [(" ", "holds no command"), ("torchrun 'x", "close its quotes")])
def test_words_that_are_no_command_are_explained(launch: str, why: str, tmp_path: Path) -> None:
    """Blanks alone, and a quote that is left open."""
    with pytest.raises(InputError, match=why):
        run_by_launcher(launch, "train@0", tmp_path, tmp_path, silent)


@pytest.mark.slow
def test_a_launcher_that_ends_without_a_word_is_an_error(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where its exit code says that all is well: nothing was trained."""
    monkeypatch.setenv(LAUNCH, "true")
    with pytest.raises(SeedlingError, match="before the stage was complete"):
        run_stage(find_stage("train@0"), made)


@pytest.mark.slow
def test_one_process_by_a_plain_interpreter_is_a_launcher_too(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python` starts the module once, which is enough for the stage."""
    set_value(made, ["train", "candidates"], ["logistic_regression"])
    monkeypatch.setenv(LAUNCH, sys.executable)
    run_stage(find_stage("train@0"), made)
    assert json.loads((made / "models/0/decision.json").read_text())["decision"] == "accepted"
