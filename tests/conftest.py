"""What tests share: small images and folders, built here, and a workspace of them."""

from __future__ import annotations

import gc
import os

# Threads of numerical libraries wait for each other in a loop that keeps a core busy, which the other worker and the
# processes that tests start need. These let them sleep instead, and are read while the libraries are loaded below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
gc.disable()  # until all tests are collected: imports make objects that stay

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from shapes import SHAPES, draw, write_images
from small_encoders import of_images, of_texts  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from services import Service

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A test run in the background of a script ignores these, its children inherit that, and tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

PROJECT = Path(__file__).parents[1]


# Files whose slow tests take more than 30 seconds. The processes of pytest-xdist take files in this order: a long file
# that starts last would keep one process at work while the others have nothing to do.
LONG_FILES = (
    "test_readme_blocks.py",
    "test_commands_without_code.py",
    "test_storage.py",
    "test_monitoring_in_prefect.py",
    "test_in_pipeline.py",
    "test_grow.py",
    "test_scheduling.py",
    "test_command_line.py",
    "test_page.py",
    "test_faults.py",
    "test_reviewing.py",
    "test_page_classes.py",
    "test_page_faults.py",
    "test_browser.py",
    "test_tour.py",
    "test_export.py",
    "test_python_api.py",
    "test_extras.py",
    "test_notebook.py",
    "test_portable.py",
    "test_site.py",
    "test_noise_model.py",
    "test_temporary_server.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files of long tests first."""
    positions = {name: position for position, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: positions.get(item.path.name, len(positions)))


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, not at the modules that are now imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ImageFolder of shapes, by default in the test's folder; the counts are those of `write_images`."""
    return lambda folder=None, **counts: write_images(folder or tmp_path / "images", **counts)


@pytest.fixture(scope="session")
def new_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real workspace of shapes in git and DVC, with `effort: quick`, in which nothing has run. Only to be copied."""
    from seedling.config.params import set_value
    from seedling.init.create import make_workspace

    folder = tmp_path_factory.mktemp("new")
    created = make_workspace(folder / "workspace", write_images(folder / "images"), "image")
    set_value(created, ["effort"], "quick")
    return created


@pytest.fixture
def workspace(new_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the new workspace."""
    return Path(shutil.copytree(new_workspace, tmp_path / "workspace", symlinks=True))


@pytest.fixture(scope="session")
def scraped_once(new_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the new workspace in which scrape has run, recorded in DVC. Only to be copied."""
    from seedling.versioning.ledger import Ledger

    copy = Path(shutil.copytree(new_workspace, tmp_path_factory.mktemp("scraped") / "workspace", symlinks=True))
    assert Ledger(copy).run("scrape").how == "done"
    return copy


@pytest.fixture
def scraped(scraped_once: Path, tmp_path: Path) -> Path:
    """A copy of the workspace in which scrape has run."""
    return Path(shutil.copytree(scraped_once, tmp_path / "workspace", symlinks=True))


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Copies an example into a folder of its own, with its data prepared, as a git and DVC repository."""
    import subprocess
    import sys

    from seedling.files.review_folder import create_review_folder
    from seedling.versioning.repository import create_repository

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        root = PROJECT if name == "digits" else PROJECT / "examples" / name
        for file in ("dvc.yaml", "gates.yaml"):
            shutil.copy(PROJECT / file, folder / file)
        shutil.copy(root / "params.yaml", folder / "params.yaml")
        shutil.copy(PROJECT / "seedling/init/workspace_files/gitignore.template", folder / ".gitignore")
        subprocess.run([sys.executable, PROJECT / "examples" / name / "prepare.py", folder / "data"], check=True)
        create_review_folder(folder / "reviews")
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        create_repository(folder)
        subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, "commit", "-qm", "start"], cwd=folder, check=True)
        return folder

    return make


@pytest.fixture(scope="session")
def finished_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny workspace whose pipeline has been run: a run of it has nothing to do. Copy it before you change it.

    All processes of pytest-xdist share it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "finished"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)  # left over by a worker that failed
            run_small_workspace(folder)
            (folder / "complete").touch()
    return folder / "workspace"


def run_small_workspace(folder: Path) -> None:
    """Create the workspace `folder/workspace` of shapes, and run its pipeline by `seedling run`."""
    import subprocess
    import sys

    from prefect_runs import own_environment

    from seedling.config.params import set_value
    from seedling.init.create import make_workspace

    generator = np.random.default_rng(7)
    for shape in SHAPES:
        for part, count in (("labeled", 6), ("test", 5), ("unlabeled", 2)):
            (folder / "images" / part / shape).mkdir(parents=True)
            for number in range(count):
                path = folder / "images" / part / shape / f"{number}.png"
                Image.fromarray(draw(shape, generator)).save(path)
    created = make_workspace(folder / "workspace", folder / "images", "image")
    set_value(created, ["effort"], "quick")
    set_value(created, ["pseudo_label", "rounds"], 0)
    set_value(created, ["evaluate", "bootstrap_draws"], 200)
    set_value(created, ["evaluate", "robustness_rows"], 0)
    command = [str(Path(sys.executable).parent / "seedling"), "run", "-w", str(created)]
    subprocess.run(command, env=own_environment(folder), check=True, capture_output=True, timeout=900)


@pytest.fixture(scope="session")
def shared_prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Prefect server that the tests of this process share, since its start takes seconds."""
    from services import prefect_server, running

    with running(prefect_server(tmp_path_factory.mktemp("shared-prefect"))) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_variables(shared_prefect_server: Service) -> dict[str, str]:
    """The environment variables with which commands use the shared Prefect server, and start none."""
    return {name: shared_prefect_server.env[name] for name in ("PREFECT_HOME", "PREFECT_API_URL")}


@pytest.fixture
def shared_prefect(prefect_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The runs of this test report to the shared server, whose API has the returned address, and start none."""
    for name, value in prefect_variables.items():
        monkeypatch.setenv(name, value)
    return prefect_variables["PREFECT_API_URL"]


@pytest.fixture
def finished_copy(finished_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace."""
    return Path(shutil.copytree(finished_workspace, tmp_path / "copy", symlinks=True))
