"""A Dask cluster: the same bytes as without one, tasks of dead workers are computed again, and errors are explained.

A real scheduler and real workers, as `dask scheduler` and `dask worker` start them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from benches import labeled, training_data

from seedling.config.params import load, set_value
from seedling.errors import InputError, MissingGeneration, SeedlingError
from seedling.features.encoder_handle import EncoderHandle, encoder_of
from seedling.parallel.cluster import over_cluster
from seedling.parallel.pool import in_pieces
from seedling.pipeline import StageContext, find_stage
from seedling.progress import silent
from seedling.train.cross_validation import cross_validate
from seedling.train.tally import Candidate

pytestmark = pytest.mark.soak
PROJECT = Path(__file__).parents[2]
START_SECONDS = 120
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1")


@contextmanager
def started(*command: str, **environment: str) -> Iterator[psutil.Popen]:
    """A Dask program that runs within the block, and is stopped with its child processes."""
    paths = os.pathsep.join(
        [*([environment.pop("FIRST")] if "FIRST" in environment else []), str(PROJECT), str(PROJECT / "tests")]
    )
    program = psutil.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield program
    finally:
        family = [program, *program.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=START_SECONDS)


@contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """Run a scheduler and return its address."""
    file = folder / "scheduler.json"
    arguments = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    with started("distributed.cli.dask_scheduler", *arguments):
        until = time.monotonic() + START_SECONDS
        while not file.is_file() or not file.read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"]


def workers_of(address: str, folder: Path, count: int = 2, **environment: str) -> Any:
    """Worker processes with one thread each, which their nanny restarts after a crash."""
    arguments = ["--nworkers", str(count), "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    return started("distributed.cli.dask_worker", address, *arguments, **environment)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two workers."""
    from distributed import Client

    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder) as address, workers_of(address, folder):
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=START_SECONDS)
        yield address


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every file by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_bytes(
    workspace: Path, address: str, monkeypatch: pytest.MonkeyPatch, skipped: tuple[str, ...] = ()
) -> None:
    """Run each stage without and with the cluster, and compare the outputs."""
    for name in STAGES:
        stage, outputs = find_stage(name), []
        if name in skipped:
            continue
        for where in ("", address):
            monkeypatch.setenv("SEEDLING_DASK", where)
            output = workspace / stage.output if where else workspace / "here" / name
            output.mkdir(parents=True)
            params = load(workspace)
            encoder = encoder_of(params, workspace)
            stage.function(StageContext(params, workspace, workspace / "data", output, silent, encoder))
            outputs.append(bytes_of(output))
        here, there = outputs
        assert here.keys() == there.keys()
        assert [path for path in here if here[path] != there[path]] == [], name


def modules_of_workers(address: str) -> list[set[str]]:
    """The modules of seedling that each worker has imported."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return [*client.run(lambda: {name for name in sys.modules if name.startswith("tasks.")}).values()]


def test_every_stage_of_images_has_the_same_bytes(
    dask: str, make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding, features, augmented rows, mixup, folds, pseudo-labels and a second round, all computed by the workers."""
    from seedling.init.create import make_workspace

    workspace = make_workspace(tmp_path / "workspace", make_images(labeled=8, pool=40, test=0), "image")
    set_value(workspace, ["effort"], "quick")
    set_value(workspace, ["train", "candidates"], ["logistic_regression"])
    set_value(workspace, ["pseudo_label", "rounds"], 1)
    set_value(workspace, ["synthesize", "cutmix"], 0.5)
    set_value(workspace, ["synthesize", "cut_and_paste"], 0.5)
    assert_same_bytes(workspace, dask, monkeypatch)
    expected = {"seedling.scrape", "seedling.synthesize", "seedling.augment.batches", "seedling.features.classical"}
    expected |= {
        "seedling.train.cross_validation",
        "seedling.models.label_propagation",
        "seedling.pseudo_label.teacher",
    }
    assert expected <= set.union(*modules_of_workers(dask))


def test_folds_of_the_network_have_the_same_predictions_and_losses(dask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is trained in the workers, and its losses are returned with its predictions."""
    rows, inputs, _ = labeled(30)
    images = np.random.default_rng(0).integers(0, 255, (30, 16, 16, 3)).astype(np.uint8)
    network = Candidate("network", ("collected",))
    results = []
    for address in ("", dask):
        monkeypatch.setenv("SEEDLING_DASK", address)
        data = training_data(rows, replace(inputs, images=images))
        trained, failed = cross_validate(data, [network])
        assert failed == {}
        results.append((trained[network], data.tally.losses))
    (here, losses_here), (there, losses_there) = results
    assert (here.labeled == there.labeled).all()
    assert (here.labeled_std == there.labeled_std).all()
    assert losses_here == losses_there
    assert len(losses_here) == 5


def test_an_encoder_and_its_fine_tuning_have_the_same_bytes(
    dask: str, of_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are encoded by the workers, which load the encoder themselves, and tuned by them."""
    from seedling.features.encoded_features import EncodedFeatures
    from seedling.init.create import make_workspace

    texts = tmp_path / "texts"
    for number in range(60):
        label = ("apple", "bus")[number % 2]
        path = texts / (f"labeled/{label}" if number < 30 else "unlabeled") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the {'red' if number % 3 else 'green'} {label} {'runs' if number % 5 else 'falls'} {number}")
    workspace = make_workspace(tmp_path / "workspace", texts, "text")
    set_value(workspace, ["effort"], "quick")
    set_value(workspace, ["encoder"], {"model": str(of_texts)})
    set_value(workspace, ["train", "candidates"], ["logistic_regression", "fine_tuned"])
    set_value(workspace, ["train", "steps"], 10)
    assert_same_bytes(workspace, dask, monkeypatch, skipped=("pseudo_label@1", "train@1"))

    rows = {str(number): f"a bus runs {number}" for number in range(50)}
    features_by_executor = []
    for where, address in (("here", ""), ("there", dask)):
        monkeypatch.setenv("SEEDLING_DASK", address)
        encoder = load(workspace).encoder
        assert encoder is not None
        features = EncodedFeatures(EncoderHandle(encoder, "text", tmp_path / where))
        features_by_executor.append(features.of_rows([*rows], partial(rows_of, rows), fit=True).features.tobytes())
    assert features_by_executor[0] == features_by_executor[1]
    assert any("seedling.models.fine_tuned" in imported for imported in modules_of_workers(dask))


def rows_of(rows: dict[str, str], ids: list[str]) -> list[tuple[str, str]]:
    """The requested rows."""
    return [(row_id, rows[row_id]) for row_id in ids]


def doubled(marks: str, deadly: tuple[int, ...], piece: int) -> int:
    """Twice the number; the first process that computes a deadly number is killed."""
    mark = Path(marks) / str(piece)
    if piece in deadly and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * piece


@pytest.mark.parametrize("deadly", [(3,), (3, 4)])
def test_the_task_of_a_killed_worker_is_computed_again(
    dask: str, deadly: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kill -9 in mid-piece of one worker, and of both, with which all that they held in memory is lost."""
    monkeypatch.setenv("SEEDLING_DASK", dask)
    results = in_pieces(partial(doubled, str(tmp_path), deadly), range(12))
    assert list(results) == [2 * piece for piece in range(12)]
    assert {path.name for path in tmp_path.iterdir()} == {str(piece) for piece in deadly}


def always_deadly(piece: int) -> int:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)
    return piece


def failing(piece: int) -> int:
    """Raise an error of a stage."""
    if piece == 1:
        raise InputError("The image of piece 1 cannot be used: remove it.")
    raise MissingGeneration("scrape", "scrape")


def test_an_error_in_a_worker_is_raised_unchanged(dask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class and message are the same as without a cluster, also for a class that cannot be pickled.

    A task that kills every worker ends the run.
    """
    monkeypatch.setenv("SEEDLING_DASK", dask)
    with pytest.raises(InputError, match=r"The image of piece 1 cannot be used: remove it\."):
        list(in_pieces(failing, [1]))
    with pytest.raises(SeedlingError, match="Generation 'scrape' is missing"):
        list(in_pieces(failing, [2]))
    with pytest.raises(SeedlingError, match="most likely out of memory"):
        list(in_pieces(always_deadly, [0]))


def test_an_unusable_cluster_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler at the address; a scheduler without a worker; a worker with another version of a package."""
    monkeypatch.setenv("SEEDLING_DASK", "tcp://127.0.0.1:9")
    with pytest.raises(SeedlingError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        list(in_pieces(str, [1]))
    with scheduler(tmp_path) as address:
        monkeypatch.setenv("SEEDLING_DASK", address)
        with pytest.raises(SeedlingError, match="has no worker: start some"):
            list(over_cluster(str, [1], worker_timeout_seconds=2))
        other = tmp_path / "other" / "scipy-0.0.1.dist-info"
        other.mkdir(parents=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 0.0.1\n")
        with (
            workers_of(address, tmp_path, 1, FIRST=str(other.parent)),
            pytest.raises(SeedlingError, match=r"has scipy 0\.0\.1, and this machine has scipy"),
        ):
            list(over_cluster(str, [1], worker_timeout_seconds=START_SECONDS))
