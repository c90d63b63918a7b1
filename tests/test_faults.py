"""Real faults of a workspace: one sentence with the file and the fix, exit code 2, and no lost data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.config import Config

from seedling.config.params import set_value
from seedling.errors import DamagedFile, InputError
from seedling.models.predictor import Predictor
from seedling.versioning.ledger import Ledger

COMMAND = [sys.executable, "-m", "seedling.cli.main"]
WAIT_SECONDS = 120


def seedling(workspace: Path, *arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own. shell: what a shell puts behind it."""
    line = " ".join(["exec", *COMMAND, *arguments, shell])
    return subprocess.run(
        ["bash", "-c", line],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def conflict(text: str) -> str:
    """The text as git leaves it where two branches changed all of it."""
    return f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n"


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock", "data.dvc", "gates.yaml", "params.yaml"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (conflict, "unsolved merge conflict at line 1: (keep one side|`seedling resolve`)"),
        (lambda _: "", "is empty: `git checkout"),
        (lambda _: "[1, 2]\n", "has no.*`git checkout"),
        (lambda text: text + "x: &x [a]\ny: [*z]\n", "not readable YAML"),
    ],
    ids=["conflict", "empty", "list", "alias of nothing"],
)
def test_an_unusable_tracked_file_is_reported_with_the_fix(
    tmp_path: Path, name: str, damage: Callable[[str], str], message: str
) -> None:
    """The error is raised before DVC reads the file."""
    (tmp_path / ".dvc").mkdir()
    whole = {"dvc.yaml": "stages: {}\n", "dvc.lock": "stages: {}\n", "data.dvc": "outs: []\n"}
    for file in ("dvc.yaml", "dvc.lock", "data.dvc", "gates.yaml", "params.yaml"):
        (tmp_path / file).write_text(whole.get(file, "scrape: []\n"))
    (tmp_path / name).write_text(damage((tmp_path / name).read_text()))
    with pytest.raises(InputError, match=f"(?s){name} ?.*{message}"):
        Ledger(tmp_path)


@pytest.mark.slow
def test_a_deleted_cache_is_filled_from_complete_generations(scraped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With all objects deleted, the stage is unchanged, standard error reports the repair, and the output can be
    restored again.
    """
    before = {path.name: path.stat().st_mtime_ns for path in (scraped / "generations/scrape").iterdir()}
    shutil.rmtree(scraped / ".dvc/cache/files")
    assert Ledger(scraped).run("scrape").how == "unchanged"
    assert "DVC's cache lacked outputs that are intact" in capfd.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (scraped / "generations/scrape").iterdir()} == before
    shutil.rmtree(scraped / "generations/scrape")
    assert Ledger(scraped).run("scrape").how == "restored"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["symlink", "hardlink", "copy"])
def test_every_cache_link_type_works(workspace: Path, tmp_path: Path, kind: str) -> None:
    """With the cache in another folder: done, unchanged, and restored after the output was deleted."""
    with Config(workspace / ".dvc").edit("repo") as config:
        config["cache"] |= {"type": [kind], "dir": str(tmp_path / "elsewhere")}
    assert Ledger(workspace).run("scrape").how == "done"
    assert Ledger(workspace).run("scrape").how == "unchanged"
    shutil.rmtree(workspace / "generations/scrape")
    assert Ledger(workspace).run("scrape").how == "restored"


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    ['{"write": {', '{"write": {"WHERE": {"pid": 1, "cmd": "seedling scrape"}}, "read": {}}'],
    ids=["cut", "of a process whose number another one has by now"],
)
def test_locks_of_dead_dvc_commands_are_ignored(workspace: Path, content: str) -> None:
    """After a kill during a write, and in a restarted container, where process 1 always exists."""
    path = workspace / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content.replace("WHERE", str(workspace / "generations/scrape")))
    os.utime(path, (0, 0))
    assert Ledger(workspace).run("scrape").how == "done"
    assert json.loads(path.read_text()) == {"write": {}, "read": {}} or "scrape" not in path.read_text()


@pytest.mark.slow
def test_a_killed_run_is_reported_and_the_next_one_continues(workspace: Path) -> None:
    """After SIGKILL, as by the kernel without memory, standard error names the likely reason, and nothing is lost."""
    running = subprocess.Popen(
        [*COMMAND, "stage", "scrape"], cwd=workspace, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    until = time.monotonic() + WAIT_SECONDS
    while not (workspace / ".seedling/partial/scrape").is_dir() and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    _, stderr = running.communicate(timeout=WAIT_SECONDS)
    assert "The run was killed" in stderr
    assert "out of memory" in stderr
    done = seedling(workspace, "stage", "scrape")
    assert done.returncode == 0, done.stderr
    assert "53 in, 53 kept" in done.stdout


@pytest.mark.slow
def test_a_truncated_model_is_reported_by_predict(workspace: Path) -> None:
    """Exit code 2 and not 1, which would mean that a gate failed; a traceback with --debug alone."""
    set_value(workspace, ["train", "candidates"], ["logistic_regression"])
    for stage in ("scrape", "validate", "augment", "synthesize", "train@0"):
        Ledger(workspace).run(stage)
    model = workspace / "models/0"
    members = tuple(member["file"] for member in json.loads((model / "model.json").read_text())["members"])
    learners = [path for path in model.glob("half-*/*") if path.name.startswith(members)]
    assert learners
    for path in [*learners, model / "model.json", model / "features.json", model / "decision.json"]:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            DamagedFile, match=rf"{re.escape(path.name)} is damaged .*delete this file and run `seedling run`"
        ):
            Predictor.of(workspace)
        path.write_bytes(whole)
    (model / "model.json").write_text('{"classes": [')
    failed = seedling(workspace, "predict", "data/labeled")
    assert (failed.returncode, "model.json is damaged" in failed.stderr) == (2, True)
    assert "Traceback" not in failed.stderr
    completed = seedling(workspace, "predict", "data/labeled", "--debug")
    assert (completed.returncode, "Traceback" in completed.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("surroundings", "shell"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
        ({}, "< /dev/null >&- 2>&-"),
        ({"HOME": "/proc/1/nowhere"}, ""),
    ],
    ids=["no UTF-8", "closed streams", "no home"],
)
def test_an_unusual_environment_does_not_stop_a_stage(
    tmp_path: Path, workspace: Path, surroundings: dict[str, str], shell: str
) -> None:
    """In a folder with blanks, brackets and letters that are not ASCII."""
    renamed = tmp_path / "a workspace [1] – größe"
    workspace.rename(renamed)
    done = seedling(renamed, "stage", "scrape", shell=shell, **surroundings)
    assert done.returncode == 0, done.stderr
    assert (renamed / "generations/scrape/manifest.json").is_file()


@pytest.mark.slow
def test_a_missing_temporary_folder_is_reported(workspace: Path) -> None:
    """Another folder is used, or an error names it; never a traceback or exit code 1."""
    done = seedling(workspace, "stage", "scrape", TMPDIR="/proc/nowhere")
    assert done.returncode in {0, 2}, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_file_that_exceeds_the_disk_space_is_reported(workspace: Path) -> None:
    """A limit on the size of files stands for a full disk: exit code 2, one sentence, and unchanged data."""
    before = sorted((workspace / "data").rglob("*"))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 8; exec {' '.join(COMMAND)} stage scrape"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 2, done.stderr
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((workspace / "data").rglob("*")) == before
    assert seedling(workspace, "stage", "scrape").returncode == 0
