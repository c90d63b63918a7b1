"""A run works on its inputs as they were when it began; what changes meanwhile is taken by the next run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from short_runs import shorten_runs

from seedling.config.params import set_value
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.pipeline import find_stage
from seedling.progress import Progress, silent
from seedling.runner import run_stage
from seedling.versioning.ledger import Ledger

STAGES = ("scrape", "validate", "augment")
WORDS = ("rain", "fog", "hail", "sun", "heat", "glow")


def write_text(data: Path, number: int) -> Path:
    """Writes one text of a class of its own words into data/."""
    label = ("wet", "dry")[number % 2]
    path = data / "labeled" / label / f"{number}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = WORDS[:3] if label == "wet" else WORDS[3:]
    path.write_text(
        f"{words[number % 3]} over field {number}, {words[(number + 1) % 3]} at {number * 7}", encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 24 texts in two classes, copied by each example."""
    folder = tmp_path_factory.mktemp("template")
    for number in range(24):
        write_text(folder / "texts", number)
    workspace = make_workspace(folder / "workspace", folder / "texts", "text", encoder="none")
    return shorten_runs(workspace, augment__augmentations_per_row=1, synthesize__mixup=None)


@pytest.fixture
def texts(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    return Path(shutil.copytree(template, tmp_path / "texts", symlinks=True))


def dvc(workspace: Path, *arguments: str) -> str:
    """A plain dvc command, as a user types it."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True).stdout


def rows_of(workspace: Path, stage: str) -> dict[str, list[str]]:
    """Ids of the stage's kept rows and of its rejected rows with their reasons."""
    folder = workspace / "generations" / stage
    rejected = read_rejected(folder, ["id", "reason"])
    return {
        "kept": sorted(read(folder, ["id"])["id"]),
        "rejected": sorted(rejected["id"] + " " + rejected["reason"]),
    }


EDITS = ("add", "change", "remove", "params", "gates")


def edit(workspace: Path, kind: str, number: int) -> None:
    """One change that a person makes to the workspace's inputs."""
    files = sorted((workspace / "data").rglob("*.txt"))
    if kind == "add":
        write_text(workspace / "data", 100 + number)
    elif kind == "change":
        files[number % len(files)].write_text(f"drizzle on road {number}", encoding="utf-8")
    elif kind == "remove" and len(files) > 16:
        files[number % len(files)].unlink()
    elif kind == "params":
        set_value(workspace, ["validate", "min_characters"], 2 + number % 20)
    elif kind == "gates":
        text = f"scrape: [expect_table_row_count_to_be_between: {{min_value: {number % 5}}}]\n"
        (workspace / "gates.yaml").write_text(
            text
            + "".join(
                f"{name}: []\n" for name in ("validate", "augment", "synthesize", "pseudo_label", "train", "evaluate")
            )
        )


Edits = list[tuple[str, bool, str, int]]  # stage, whether within it or before it, kind, number


def editing(workspace: Path, edits: Edits) -> Callable[[str], AbstractContextManager[Progress]]:
    """For Ledger.watch: makes the edits before each stage, and those within it once it reports its gate."""

    def make_edits(stage: str, *, within: bool) -> None:
        for name, is_within, kind, number in edits:
            if name == stage and is_within == within:
                edit(workspace, kind, number)

    @contextmanager
    def watch(stage: str) -> Iterator[Progress]:
        make_edits(stage, within=False)

        def progress(what: str, done: int, total: int | None) -> None:
            if what == "gate":
                make_edits(stage, within=True)

        yield progress

    return watch


def copy_of_inputs(workspace: Path) -> Path:
    """A folder beside the workspace with its data, params and gates alone."""
    fresh = workspace.with_name("fresh")
    fresh.mkdir()
    shutil.copytree(workspace / "data", fresh / "data")
    for name in ("params.yaml", "gates.yaml"):
        shutil.copy(workspace / name, fresh / name)
    return fresh


@pytest.mark.soak
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    edits=st.lists(
        st.tuples(st.sampled_from(STAGES), st.booleans(), st.sampled_from(EDITS), st.integers(0, 40)), max_size=6
    )
)
def test_after_any_edits_during_a_run_the_next_run_equals_a_fresh_one(
    template: Path, tmp_path_factory: pytest.TempPathFactory, edits: Edits
) -> None:
    """Files added, changed and removed, params and gates edited before or within any stage: nothing is lost."""
    workspace = Path(shutil.copytree(template, tmp_path_factory.mktemp("run") / "workspace", symlinks=True))
    began_with = {path.name for path in (workspace / "data").rglob("*.txt")}
    ledger = Ledger(workspace)
    ledger.watch = editing(workspace, edits)
    with ledger.snapshotted():
        for stage in STAGES:
            ledger.run(stage)
    scraped = read(workspace / "generations/scrape", ["origin"])["origin"]
    assert {Path(origin).name for origin in scraped} == began_with
    lock = YAML(typ="safe").load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    assert lock["stages"]["scrape"]["deps"][0]["nfiles"] == len(began_with)

    ledger.watch = lambda _: nullcontext(silent)
    with ledger.snapshotted():
        for stage in STAGES:
            ledger.run(stage)
    fresh = copy_of_inputs(workspace)
    for stage in STAGES:
        run_stage(find_stage(stage), fresh)
        assert rows_of(workspace, stage) == rows_of(fresh, stage)
    assert "up to date" in dvc(workspace, "status", *STAGES)
    shutil.rmtree(workspace.parent)


@pytest.mark.soak
@pytest.mark.usefixtures("shared_prefect")
def test_files_dropped_in_while_evaluate_works_are_taken_by_the_next_run(texts: Path) -> None:
    """A whole `seedling run`: dvc.lock counts the files that were read, the experiment too, and DVC sees the new ones."""
    command = [sys.executable, "-m", "seedling.cli.main", "run", "-w", str(texts)]
    stop = threading.Event()

    def drop_files() -> None:
        while not stop.is_set() and not (texts / ".seedling/partial/evaluate").exists():
            time.sleep(0.01)
        for number in range(200, 205):
            write_text(texts / "data", number)
        set_value(texts, ["evaluate", "calibration_bins"], 7)

    dropper = threading.Thread(target=drop_files)
    dropper.start()
    first = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    stop.set()
    dropper.join()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Changed during the run: data/ (5 added), params.yaml" in first.stdout
    assert lock_counts(texts) == (24, 24)
    (name,) = [path.stem for path in (texts / ".seedling/runs").glob("*.json")]
    saved = subprocess.run(
        ["git", "show", f"exp:{name}:dvc.lock"], cwd=texts, capture_output=True, text=True, check=False
    )
    assert dvc(texts, "exp", "list", "--name-only").split() == [name], saved.stderr
    assert "modified:           data" in dvc(texts, "status")
    second = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Changed during the run" not in second.stdout
    assert lock_counts(texts) == (29, 29)
    assert "up to date" in dvc(texts, "status")
    assert "changes have been applied" not in dvc(texts, "exp", "apply", name)
    assert lock_counts(texts) == (24, 24)


def lock_counts(workspace: Path) -> tuple[int, int]:
    """Files of data/ by dvc.lock, and rows that scrape took from them."""
    lock = YAML(typ="safe").load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    manifest = json.loads((workspace / "generations/scrape/manifest.json").read_text(encoding="utf-8"))
    return lock["stages"]["scrape"]["deps"][0]["nfiles"], manifest["rows"]["in"]


@pytest.mark.slow
def test_a_file_that_grows_while_it_is_added_is_whole_or_waits(texts: Path) -> None:
    """DVC never stores half of it under the hash of another half; the earlier state of data/ stands until it is whole."""
    ledger = Ledger(texts)
    before = (texts / "data.dvc").read_bytes()
    path, stop = texts / "data/labeled/wet/growing.txt", threading.Event()

    def write_on() -> None:
        with path.open("a", encoding="utf-8") as file:
            while not stop.is_set():
                file.write("more rain " * 50)
                file.flush()
                time.sleep(0.002)

    writer = threading.Thread(target=write_on)
    writer.start()
    while not path.exists():
        time.sleep(0.001)
    try:
        added = ledger.track_data()
    finally:
        stop.set()
        writer.join()
    assert not added
    assert (texts / "data.dvc").read_bytes() == before
    assert ledger.track_data()
    assert "up to date" in dvc(texts, "status", "data.dvc")
    path.unlink()
    dvc(texts, "checkout", "data.dvc")
    assert path.read_text(encoding="utf-8").endswith("more rain ")


def test_a_pipe_in_data_is_named_and_not_waited_for(texts: Path) -> None:
    """Reading it would never end."""
    import os

    os.mkfifo(texts / "data" / "pipe")
    with pytest.raises(InputError, match="pipe is not a regular file"), Ledger(texts).snapshotted():
        pass


def test_a_link_out_of_data_is_named_and_its_file_is_not_stored(texts: Path, tmp_path: Path) -> None:
    """DVC alone would keep a copy of the file that the link leads to."""
    secret = tmp_path / "secret.txt"
    secret.write_text("a key of this machine")
    (texts / "data/labeled/wet/key.txt").symlink_to(secret)
    with pytest.raises(InputError, match=r"key\.txt is a link to a file outside data/"), Ledger(texts).snapshotted():
        pass
    stored = [path for path in (texts / ".dvc/cache").rglob("*") if path.is_file()]
    assert stored
    assert not any(path.read_bytes() == secret.read_bytes() for path in stored)


@pytest.mark.slow
def test_a_link_to_a_class_folder_gives_the_same_rows_in_a_run_and_alone(texts: Path) -> None:
    """The snapshot has the link, which DVC does not track."""
    (texts / "data/labeled/drizzle").symlink_to("wet")
    Ledger(texts).run("scrape")
    in_run = rows_of(texts, "scrape")
    run_stage(find_stage("scrape"), texts)
    assert rows_of(texts, "scrape") == in_run
    assert len(in_run["kept"]) == 36


@pytest.mark.slow
def test_a_class_folder_without_files_stays_one_in_the_snapshot(texts: Path) -> None:
    """DVC tracks no empty folder, and scrape names the class all the same."""
    (texts / "data/labeled/snow").mkdir()
    Ledger(texts).run("scrape")
    manifest = json.loads((texts / "generations/scrape/manifest.json").read_text(encoding="utf-8"))
    assert manifest["notes"]["empty_classes"] == ["snow"]


@pytest.mark.slow
def test_data_that_git_pull_names_is_checked_out_and_not_undone(texts: Path, tmp_path: Path) -> None:
    """data.dvc changed by a pull, data/ still as the last run read it: the run works on what was pulled."""
    Ledger(texts).run("scrape")
    write_text(texts / "data", 300)
    Ledger(texts).track_data()
    pulled = (texts / "data.dvc").read_bytes()
    (texts / "data/labeled/wet/300.txt").unlink()
    Ledger(texts).run("scrape")
    (texts / "data.dvc").write_bytes(pulled)
    Ledger(texts).run("scrape")
    assert (texts / "data/labeled/wet/300.txt").is_file()
    assert lock_counts(texts) == (25, 25)
    assert (texts / "data.dvc").read_bytes() == pulled
