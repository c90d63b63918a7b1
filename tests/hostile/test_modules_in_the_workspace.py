"""No process of a command imports a file of the workspace that is named like a dependency."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
NAMES = [
    "scrapy",
    "uvicorn",
    "tasks",
    "flows",
    "joblib",
    "numpy",
    "torch",
    "twisted",
    "cv2",
    "PIL",
    "pandas",
    "prefect",
    "accelerate",
    "yaml",
    "typer",
    "skops",
    "pickle",
]
SITE = """
pipeline_version: 18
modality: text
scrape:
  sources:
    - {kind: crawl, start: "http://site.example/index.html", saved_site: site, item: p, text: "::text"}
"""


@pytest.fixture
def shadowed(tmp_path: Path) -> Path:
    """A workspace with a saved site, and a file for each name that writes `ran` when it is imported."""
    workspace = tmp_path / "work"
    (workspace / "data" / "site").mkdir(parents=True)
    (workspace / "data" / "site" / "index.html").write_text("<p>rain</p><p>sun</p>")
    (workspace / "params.yaml").write_text(SITE)
    (workspace / "gates.yaml").write_text("{}")
    for name in NAMES:
        (workspace / f"{name}.py").write_text(
            f"import os\nopen({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\nos._exit(9)\n"
        )
    return workspace


def _run(words: list[str], workspace: Path) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if name not in {"PYTHONSAFEPATH", "PYTHONPATH"}}
    path = {"PYTHONPATH": str(PROJECT)}  # our packages, wherever the tests found them
    return subprocess.run(
        words, cwd=workspace, env=without | path, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.slow
def test_a_stage_and_its_spider_do_not_import_from_the_workspace(shadowed: Path, tmp_path: Path) -> None:
    """The stage is started as in dvc.yaml; the spider is a process of its own."""
    command = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]["scrape"]["cmd"].split()
    done = _run([sys.executable, *command[1:]], shadowed)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert done.returncode == 0, done.stderr
    assert (shadowed / "generations" / "scrape" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_command_line_and_its_children_do_not_import_from_the_workspace(shadowed: Path, tmp_path: Path) -> None:
    """The console script in the workspace's folder, a child process, and a process pool."""
    script = (
        "import sys\n"
        "from seedling.cli.main import app\n"
        "import subprocess\n"
        "subprocess.run([sys.executable, '-c', 'import scrapy, uvicorn, joblib'], check=True)\n"
        "from seedling.parallel.pool import in_processes\n"
        "print(list(in_processes(abs, [-1, -2, -3], local_seconds=0.0, processes=2)))\n"
    )
    beside = tmp_path / "bin" / "seedling"
    beside.parent.mkdir()
    beside.write_text(script)
    done = _run([sys.executable, str(beside)], shadowed)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert done.stdout.splitlines()[-1] == "[1, 2, 3]", done.stderr


@pytest.mark.slow
def test_python_m_of_seedlings_packages_ignores_the_working_folder(tmp_path: Path) -> None:
    """If the module is installed elsewhere; in a checkout of the repository the folder stays on the path."""
    (tmp_path / "typer.py").write_text("import os\nos._exit(9)\n")
    done = _run([sys.executable, "-m", "seedling.cli.main", "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert _run([sys.executable, "-m", "seedling.cli.main", "--help"], PROJECT).returncode == 0


def test_each_command_of_dvc_yaml_is_started_with_a_safe_path() -> None:
    """The repository's dvc.yaml is that of every new workspace."""
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    commands = [stage.get("do", stage)["cmd"] for stage in stages.values()]
    assert len(commands) == 7
    assert all(command.startswith("python -P -m seedling.runner ") for command in commands), commands
