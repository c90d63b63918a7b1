"""The built wheel, installed into a new environment, in a workspace whose own modules have names that collide."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from prefect_runs import flow_runs, free_port, kill_all, own_environment, post, wait_for
from services import TERMINAL_STATES, Service, running
from short_runs import shorten_runs
from text_workspaces import TABLE, append_letters, call, letter

from seedling.config.params import set_value

PROJECT = Path(__file__).parents[2]
SECONDS = 600
COLLIDING_MODULES = (
    "tasks.py",
    "flows/__init__.py",
    "flows/grow.py",
    "scrapy.py",
    "uvicorn.py",
    "seedling_notes/__init__.py",
)
SCRIPTS_OF_DEPENDENCIES = ("dvc", "prefect")
WORKING_STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "evaluate")  # the rounds are skipped


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it from the source tree."""
    return build_wheel(PROJECT, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, folder: Path) -> Path:
    """Builds the wheel of a source tree with pip, and returns its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, timeout=SECONDS)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_docker_image_is_built_from_the_whole_package(wheel: Path, tmp_path: Path) -> None:
    """A wheel of what the Dockerfile copies, and nothing else, holds the same files."""
    lines = (PROJECT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    for name in itertools.chain.from_iterable(copied):
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, tmp_path / "build" / name, symlinks=True)
        else:
            (tmp_path / "build").mkdir(exist_ok=True)
            shutil.copy(PROJECT / name, tmp_path / "build" / name)
    of_image = build_wheel(tmp_path / "build", tmp_path / "wheel")
    assert zipfile.ZipFile(of_image).namelist() == zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that holds the wheel, with the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, timeout=SECONDS)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # A .pth file below this folder is not read, so that the editable installation of the source tree is not importable.
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for name in SCRIPTS_OF_DEPENDENCIES:
        lines = (Path(sys.executable).parent / name).read_text().splitlines(keepends=True)
        (folder / "bin" / name).write_text(f"#!{python}\n" + "".join(lines[1:]))
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


@pytest.fixture
def environment(programs: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment variables of a user who has activated the new environment."""
    variables = own_environment(tmp_path, PATH=f"{programs}:{os.environ['PATH']}")
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        variables.pop(name, None)
    yield variables
    kill_all(variables)


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_types_and_no_other_top_level_name(wheel: Path) -> None:
    """Beside its metadata; flows and tasks are inside it, and so are the files that are not Python."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"seedling"}
    tracked = subprocess.run(
        ["git", "ls-files", "seedling", "flows", "tasks"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()
    files = {name for name in tracked if not (PROJECT / name).is_symlink() and (PROJECT / name).is_file()}
    expected = {name if name.startswith("seedling/") else f"seedling/{name}" for name in files}
    assert {"seedling/py.typed", "seedling/flows/grow.py", "seedling/tasks/train.py"} <= expected
    assert expected - set(names) == set()


@pytest.mark.slow
def test_a_stage_runs_beside_modules_of_the_same_names(environment: dict[str, str], tmp_path: Path) -> None:
    """`seedling stage` and `dvc repro` of the wheel import none of the files of the workspace."""
    workspace, imported = _workspace_of_colliding_modules(environment, tmp_path)
    call(["seedling", "stage", "scrape"], workspace, environment)
    call(["dvc", "repro", "scrape"], workspace, environment)
    assert (workspace / "generations" / "scrape" / "manifest.json").is_file()
    assert not imported.exists(), f"imported: {imported.read_text()}"


@pytest.mark.soak
def test_everything_runs_beside_modules_of_the_same_names(
    environment: dict[str, str], prefect_variables: dict[str, str], tmp_path: Path
) -> None:
    """`seedling run`, `dvc repro`, `seedling serve` and a Prefect process worker import none of the user's files."""
    workspace, imported = _workspace_of_colliding_modules(environment, tmp_path)
    shorten_runs(workspace, augment__augmentations_per_row=1)

    call(["seedling", "run"], workspace, environment)
    assert len(_experiments(workspace)) == 1
    forced = call(["dvc", "repro", "--force", "--single-item", *WORKING_STAGES], workspace, environment)
    assert [stage for stage in WORKING_STAGES if f"Running stage '{stage}'" not in forced] == []
    assert "up to date" in call(["dvc", "repro"], workspace, environment)

    url = f"http://127.0.0.1:{free_port()}"
    serve = ["seedling", "serve", "--port", url.rpartition(":")[2]]
    with _running(serve, workspace, environment, f"{url}/health"):
        answer = httpx.post(f"{url}/predict", json={"texts": [letter(100)[0]]}, timeout=60)
        assert answer.status_code == 200, answer.text

    api = prefect_variables["PREFECT_API_URL"]
    environment |= prefect_variables
    pool = ["prefect", "work-pool", "create", "default", "--type", "process", "--overwrite"]
    call(pool, workspace, environment)
    call(["prefect", "--no-prompt", "deploy", "--all"], workspace, environment)
    (deployment,) = post(api, "deployments/filter", {"deployments": {"name": {"any_": [workspace.name]}}})
    set_value(workspace, ["evaluate", "bootstrap_draws"], 300)
    with _running(["prefect", "worker", "start", "--pool", "default"], workspace, environment) as worker:
        post(api, f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        states = wait_for(lambda: _terminal_states(api, deployment["id"]), SECONDS, worker.log.read_text)
        assert states == ["COMPLETED"], worker.log.read_text()
    assert len(_experiments(workspace)) == 2
    assert not imported.exists(), f"imported: {imported.read_text()}"


def _workspace_of_colliding_modules(environment: dict[str, str], folder: Path) -> tuple[Path, Path]:
    """A new workspace with modules named like Seedling's and its dependencies', and the file that they write when imported."""
    workspace, imported = folder / "letters", folder / "imported"
    package = call(["python", "-P", "-c", "import seedling; print(seedling.__file__)"], folder, environment).strip()
    assert Path(package).is_relative_to(Path(environment["PATH"].partition(":")[0]).parent)  # not the source tree
    append_letters(folder / TABLE, 0, 24)
    call(["seedling", "init", workspace, "--texts", folder / TABLE, "--encoder", "none"], folder, environment)
    for name in COLLIDING_MODULES:
        path = workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"with open({str(imported)!r}, 'a') as file:\n    file.write('{name} ')\nraise SystemExit(9)\n")
    return workspace, imported


def _running(
    command: list[str], workspace: Path, environment: dict[str, str], health_url: str | None = None
) -> AbstractContextManager[Service]:
    """The command in the workspace, once its health check answers, and until the end of the block."""
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    is_ready = (lambda: httpx.get(health_url).status_code == 200) if health_url else (lambda: True)
    log = workspace.parent / f"{'-'.join(command[:2])}.txt"
    return running(Service([program, *command[1:]], log, is_ready, environment, workspace))


def _terminal_states(api: str, deployment_id: str) -> list[str]:
    runs = [run for run in flow_runs(api) if run["deployment_id"] == deployment_id]
    return [run["state"]["type"] for run in runs if run["state"]["type"] in TERMINAL_STATES]


def _experiments(workspace: Path) -> list[str]:
    listed = call(["git", "for-each-ref", "--format=%(refname)", "refs/exps"], workspace)
    return [name for name in listed.split() if name.endswith("-grow")]
