"""Remotes, clones, merges, cleaning and the status, with real git and DVC repositories and an S3 server."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from shapes import SHAPES, draw

from seedling.config.params import load, set_value
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.status import read_status
from seedling.versioning.git import git
from seedling.versioning.ledger import open_ledger
from seedling.versioning.pushing import experiment_refs, push_workspace, read_push_state
from seedling.workspace import TEST_EVALUATIONS

SEEDLING = [sys.executable, "-m", "seedling.cli.main"]
IDENTITY = {f"GIT_{role}_{part}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
S3_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
RESULTS = (
    "data.dvc",
    "dvc.lock",
    "generations",
    "models",
    "reports/evaluation.json",
    "reports/metrics.json",
    TEST_EVALUATIONS,
)


def seedling(workspace: Path, *arguments: str, expected: int = 0) -> str:
    """Run the command, check its exit code, and return its output."""
    done = subprocess.run([*SEEDLING, *arguments, "-w", workspace], capture_output=True, text=True, timeout=900)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(workspace: Path, *arguments: str) -> str:
    """Run the dvc command and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=workspace, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(workspace: Path, message: str) -> None:
    """Commit everything that git tracks or would track."""
    git(workspace, "add", "--all")
    git(workspace, "commit", "--quiet", "--message", message)


def scrape(workspace: Path) -> None:
    """Bring the stage up to date, as `seedling stage scrape` does in a process of its own."""
    open_ledger(workspace).run("scrape")


def add_image(workspace: Path, name: str, seed: int) -> None:
    """One more unlabeled image."""
    image = draw(SHAPES[seed % len(SHAPES)], np.random.default_rng(seed))
    Image.fromarray(image).save(workspace / "data/unlabeled/disc" / name)


def same_files(first: Path, second: Path) -> None:
    """Asserts that both are the same file or contain the same files."""
    if first.is_file():
        assert first.read_bytes() == second.read_bytes(), first
        return
    names = [sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (first, second)]
    assert names[0] == names[1]
    assert names[0]
    assert filecmp.cmpfiles(first, second, list(map(str, names[0])), shallow=False) == (
        list(map(str, names[0])),
        [],
        [],
    )


@pytest.fixture(scope="module")
def s3(prefect_variables: dict[str, str]) -> Iterator[ThreadedMotoServer]:
    """An S3 server with an empty bucket; keys for it and the shared Prefect server in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**S3_KEYS, **IDENTITY, **prefect_variables}.items():
            patch.setenv(name, value)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
        server.start()
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket="seedling")
        yield server
        server.stop()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, s3: ThreadedMotoServer, finished_workspace: Path) -> Path:
    """A workspace with a finished run that pushed to S3 and to a git remote; tests copy it."""
    folder = tmp_path_factory.mktemp("storage")
    workspace = Path(shutil.copytree(finished_workspace, folder / "workspace", symlinks=True))
    set_value(workspace, ["push"], True)
    set_value(workspace, ["remote"], {"url": "s3://seedling/store", "endpointurl": f"http://127.0.0.1:{s3._port}"})
    git(folder, "init", "--quiet", "--bare", "origin.git")
    git(workspace, "remote", "add", "origin", str(folder / "origin.git"))
    assert "Pushed to the remote 'seedling'" in seedling(workspace, "run")
    commit(workspace, "run")
    git(workspace, "push", "--quiet", "origin", "HEAD:main")
    git(folder / "origin.git", "symbolic-ref", "HEAD", "refs/heads/main")
    return workspace


@pytest.fixture
def copy(pushed: Path, tmp_path: Path) -> Path:
    """A copy of the workspace that pushes nothing."""
    shutil.copytree(pushed, tmp_path / "workspace", symlinks=True)
    set_value(tmp_path / "workspace", ["push"], False)
    commit(tmp_path / "workspace", "push nothing")
    return tmp_path / "workspace"


@pytest.mark.slow
def test_a_clone_that_pulled_has_nothing_to_do(pushed: Path, tmp_path: Path) -> None:
    """After clone, pull and repro: the same bytes, the same number of test-set evaluations, the same experiments, and
    no stage runs.
    """
    git(tmp_path, "clone", "--quiet", str(pushed.parent / "origin.git"), "clone")
    clone = tmp_path / "clone"
    dvc(clone, "pull", "--run-cache")
    assert "Data and pipelines are up to date" in dvc(clone, "repro")
    for name in RESULTS:
        same_files(pushed / name, clone / name)
    assert json.loads(seedling(clone, "status", "--json"))["state"] == "up to date"
    seedling(clone, "run")
    assert git(clone, "status", "--porcelain") == ""
    page = (clone / "reports/report.html").read_text(encoding="utf-8")
    assert "<dt>Test-set evaluations</dt><dd>1 " in page
    (experiment,) = experiment_refs(pushed)
    assert experiment.rsplit("/", 1)[1] in dvc(clone, "exp", "list", "origin", "--all-commits")


@pytest.mark.slow
def test_the_experiments_table_has_a_dozen_metrics(pushed: Path) -> None:
    """`dvc exp show` has at most twelve columns of metrics; the command of docs/storage.md adds only the params that differ."""
    table = json.loads(dvc(pushed, "exp", "show", "--json"))
    metrics = table[0]["data"]["metrics"]["reports/metrics.json"]["data"]
    assert 6 <= len(metrics) <= 12
    assert {"accuracy", "log_loss", "test_rows"} <= set(metrics)
    header = (
        dvc(pushed, "exp", "show", "--csv", "--only-changed", "--drop", "data|generations.*|models.*")
        .splitlines()[0]
        .split(",")
    )
    assert len(header) < 20, header


@pytest.mark.soak
def test_an_unreachable_remote_does_not_fail_the_run(pushed: Path, s3: ThreadedMotoServer, tmp_path: Path) -> None:
    """During an outage a run ends with exit code 0 and reports what was not pushed; the next run pushes it, although
    nothing changed.
    """
    workspace = tmp_path / "workspace"
    shutil.copytree(pushed, workspace, symlinks=True)
    set_value(workspace, ["evaluate", "bootstrap_draws"], 300)
    s3.stop()
    try:
        assert "The push to the remote 'seedling' failed" in seedling(workspace, "run")
        assert not json.loads(seedling(workspace, "status", "--json"))["push"]["complete"]
    finally:
        s3.start()
    assert "Pushed to the remote 'seedling'" in seedling(workspace, "run")
    state = read_push_state(workspace)
    assert state is not None
    assert state.complete
    assert (
        len(git(workspace, "ls-remote", "origin", "refs/exps/*").splitlines()) == len(experiment_refs(workspace)) == 2
    )


@pytest.mark.slow
def test_a_remote_that_never_answers_does_not_hang_the_run(copy: Path) -> None:
    """A server that accepts connections and sends nothing: the push ends at its time limit, and no process is left."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        set_value(copy, ["remote"], {"url": "s3://seedling/store", "endpointurl": address})
        set_value(copy, ["push"], True)
        set_value(copy, ["push_minutes"], 0.2)
        began = time.monotonic()
        message = push_workspace(copy)
        assert message is not None
        assert "the remote did not respond" in message
        assert time.monotonic() - began < 60
    assert (
        subprocess.run(["pgrep", "-f", f"seedling.versioning.pushing {copy}"], stdout=subprocess.DEVNULL).returncode
        == 1
    )


@pytest.mark.soak
def test_clean_keeps_what_kept_experiments_need(copy: Path) -> None:
    """A dry run removes nothing; afterwards each kept experiment can be applied, and a run has nothing to do."""
    for draws in (300, 400):
        set_value(copy, ["evaluate", "bootstrap_draws"], draws)
        seedling(copy, "run")
    refs = dict(sorted(experiment_refs(copy).items(), key=lambda item: item[0].rsplit("/", 1)[1]))
    names = [ref.rsplit("/", 1)[1] for ref in refs]
    assert len(names) == 3
    git(copy, "tag", "best", next(iter(refs.values())))
    (copy / ".seedling/unfinished/train@0-x").mkdir(parents=True)
    git(copy, "stash", "--quiet")
    stashed = git(copy, "stash", "list")
    git(copy, "stash", "apply", "--quiet")

    before = sorted((copy / ".dvc/cache").rglob("*"))
    assert "would be freed" in seedling(copy, "clean", "--keep", "1")
    assert sorted((copy / ".dvc/cache").rglob("*")) == before
    assert len(experiment_refs(copy)) == 3
    seedling(copy, "clean", "--keep", "1", "--apply")
    kept = [ref.rsplit("/", 1)[1] for ref in sorted(experiment_refs(copy), key=lambda ref: ref.rsplit("/", 1)[1])]
    assert kept == [names[0], names[2]]
    assert len(sorted((copy / ".dvc/cache").rglob("*"))) < len(before)
    assert not (copy / ".seedling/unfinished/train@0-x").exists()
    assert {path.stem for path in (copy / ".seedling/runs").glob("*.json")} >= {names[0], names[2]}
    assert git(copy, "stash", "list") == stashed
    for name in kept:
        dvc(copy, "exp", "apply", name)
        assert "up to date" in dvc(copy, "status")
        assert json.loads(seedling(copy, "status", "--json"))["state"] == "up to date"
    git(copy, "checkout", "--quiet", "--force", "HEAD")
    dvc(copy, "checkout")
    assert "up to date" in dvc(copy, "status")


@pytest.mark.slow
def test_two_branches_with_their_own_data_are_merged(copy: Path) -> None:
    """After `git merge` and `seedling resolve`, data/ has both sides' files and a run reads them, as in a new
    workspace.
    """
    main = git(copy, "rev-parse", "--abbrev-ref", "HEAD")
    git(copy, "checkout", "--quiet", "-b", "other")
    add_image(copy, "other.png", 101)
    (copy / "data/unlabeled/disc/0.png").unlink()
    scrape(copy)
    commit(copy, "other")
    git(copy, "checkout", "--quiet", main)
    dvc(copy, "checkout")
    add_image(copy, "ours.png", 102)
    scrape(copy)
    commit(copy, "ours")
    assert git(copy, "merge", "other", check=False) == ""
    assert "<<<<<<<" in (copy / "data.dvc").read_text()
    assert "seedling resolve" in seedling(copy, "status", expected=2)

    seedling(copy, "resolve")
    names = {path.name for path in (copy / "data/unlabeled/disc").iterdir()}
    assert {"ours.png", "other.png"} <= names
    assert "0.png" not in names
    commit(copy, "merge")
    scrape(copy)
    assert git(copy, "diff", "--name-only", "--", "data.dvc") == ""
    fresh = make_workspace(copy.parent / "fresh", copy / "data", "image")
    shutil.copy(copy / "params.yaml", fresh / "params.yaml")
    scrape(fresh)
    same_files(fresh / "generations/scrape", copy / "generations/scrape")


@pytest.mark.slow
def test_a_file_that_both_branches_changed_needs_a_decision(copy: Path) -> None:
    """`seedling resolve` names the file and leaves the conflict; with --data theirs the other branch's file is used."""
    main = git(copy, "rev-parse", "--abbrev-ref", "HEAD")
    for branch, seed in (("other", 7), ("ours", 8)):
        git(copy, "checkout", "--quiet", "-b", branch, main)
        dvc(copy, "checkout")
        (copy / "data/unlabeled/disc/1.png").unlink()
        add_image(copy, "1.png", seed)
        dvc(copy, "add", "data")
        commit(copy, branch)
    expected = git(copy, "show", "other:data.dvc")
    git(copy, "merge", "other", check=False)
    assert "unlabeled/disc/1.png" in seedling(copy, "resolve", expected=2)
    assert "<<<<<<<" in (copy / "data.dvc").read_text()
    seedling(copy, "resolve", "--data", "theirs")
    assert (copy / "data.dvc").read_text().strip() == expected.strip()
    commit(copy, "merge")


@pytest.mark.slow
def test_the_status_waits_for_a_half_written_dvc_lock(copy: Path) -> None:
    """`dvc repro` writes dvc.lock in place: a status that reads half of it reads again, and is correct once the file is
    complete.
    """
    lock = copy / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[: len(whole) // 2] + b"\n  - [")
    writer = threading.Timer(1.0, lock.write_bytes, [whole])
    writer.start()
    try:
        assert read_status(copy).exit_code == 0
    finally:
        writer.join()


@pytest.mark.soak
def test_the_status_is_shown_during_a_run(copy: Path) -> None:
    """While stages run, the status names them with exit code 4; then outstanding work is 3, a failed gate 1, and
    nothing to do 0.
    """
    assert read_status(copy).exit_code == 0
    add_image(copy, "new.png", 103)
    seedling(copy, "status", expected=3)
    run = subprocess.Popen(
        [*SEEDLING, "run", "-w", copy], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        stages: set[str] = set()
        while not stages & {"augment", "synthesize", "train@0", "train@1", "evaluate", "pseudo_label@1"}:
            assert run.poll() is None, "the run ended before a stage was seen at work"
            status = read_status(copy)
            if status.running is not None:
                assert status.exit_code == 4
                stages |= set(status.running.stages)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert read_status(copy).running is None
    gate = "scrape: [expect_table_row_count_to_be_between: {min_value: 1000}]\n"
    (copy / "gates.yaml").write_text(gate)
    seedling(copy, "stage", "scrape", expected=1)
    assert read_status(copy).failed_gates == ["scrape"]
    seedling(copy, "status", expected=1)


@pytest.mark.parametrize(
    ("remote", "setting"),
    [
        ("s3://key:hunter2@bucket/path", "remote.url"),
        ("https://example.org/store?sig=hunter2", "remote.url"),
        ({"url": "s3://bucket", "secret_access_key": "hunter2"}, "remote.secret_access_key"),
        ({"url": "azure://store", "connection_string": "AccountKey=hunter2"}, "remote.connection_string"),
    ],
)
def test_a_secret_in_params_is_refused(workspace: Path, remote: object, setting: str) -> None:
    """The message names the setting and where the secret belongs, and does not show it."""
    set_value(workspace, ["remote"], remote)
    with pytest.raises(InputError, match=setting) as caught:
        load(workspace)
    assert "hunter2" not in str(caught.value)
    assert "dvc remote modify --local" in str(caught.value)


@pytest.mark.slow
def test_a_secret_in_the_tracked_dvc_config_is_refused(workspace: Path) -> None:
    """Git tracks .dvc/config; a password there ends the run before it begins."""
    dvc(workspace, "remote", "add", "--default", "store", "s3://bucket/path")
    dvc(workspace, "remote", "modify", "store", "secret_access_key", "hunter2")
    set_value(workspace, ["push"], True)
    with pytest.raises(InputError, match="secret_access_key"):
        push_workspace(workspace)


def test_push_without_a_remote_names_the_fix(workspace: Path) -> None:
    """`push: true` without a remote raises an error that says what to add."""
    set_value(workspace, ["push"], True)
    with pytest.raises(InputError, match="there is no remote: add `remote: s3://bucket/path`"):
        push_workspace(workspace)


def test_a_workspace_of_an_earlier_version_is_upgraded(workspace: Path) -> None:
    """dvc.yaml lists the new output, the log moves to where git tracks it; a second upgrade changes nothing."""
    from seedling.upgrading import FORMER_OUTPUTS, OUTPUTS, upgrade_workspace

    pipeline = workspace / "dvc.yaml"
    current = pipeline.read_text()
    pipeline.write_text(current.replace(OUTPUTS, FORMER_OUTPUTS))
    (workspace / TEST_EVALUATIONS).unlink()
    (workspace / ".seedling").mkdir()
    line = '{"metrics": [], "model": "m", "test": "t", "time": "2026-01-01T00:00:00+00:00", "who": "a"}\n'
    (workspace / ".seedling/looks.jsonl").write_text(line)
    assert len(upgrade_workspace(workspace)) == 2
    assert pipeline.read_text() == current
    assert (workspace / TEST_EVALUATIONS).read_text() == line
    assert upgrade_workspace(workspace) == []
