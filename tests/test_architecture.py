"""The import rules of the house, read off the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate")
CODE = sorted([*(PROJECT / "tasks").rglob("*.py"), *(PROJECT / "flows").rglob("*.py")])
DRAWERS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "core",
    "misc",
    "manager",
    "handlers",
    "factory",
    "service",
}


def imports(path: Path) -> set[str]:
    """Every module that the file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{one.name}" for one in node.names}
    return found


def importers(package: str, below: str = "") -> set[str]:
    """The files, relative to the project, that import the package."""
    return {
        path.relative_to(PROJECT).as_posix()
        for path in CODE
        if path.relative_to(PROJECT).as_posix().startswith(below)
        and any(one == package or one.startswith(f"{package}.") for one in imports(path))
    }


def test_there_is_code_to_look_at() -> None:
    """So that the rules below cannot pass over nothing."""
    assert len(CODE) > 40
    assert "tasks.errors" in imports(PROJECT / "tasks/gates/asking.py")


@pytest.mark.parametrize("package", ["prefect", "dvc", "flows"])
def test_tasks_know_no_orchestrator(package: str) -> None:
    """The work runs without Prefect and DVC."""
    assert importers(package, "tasks/") == set()


@pytest.mark.parametrize("room", ROOMS)
def test_stage_rooms_never_import_one_another(room: str) -> None:
    """A new capability is a new file in one room, and no other room changes."""
    for other in ROOMS:
        if other != room:
            assert importers(f"tasks.{other}", f"tasks/{room}/") == set()


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("great_expectations", {"tasks/gates/asking.py", "tasks/gates/engine.py", "tasks/gates/limited_patterns.py"}),
        ("duckdb", {"tasks/gates/on_disk.py"}),
        (
            "scrapy",
            {
                f"tasks/scrape/{one}.py"
                for one in (
                    "asking",
                    "browser",
                    "browser_downloads",
                    "downloading",
                    "interface",
                    "pages",
                    "politeness",
                    "robots",
                    "spider",
                )
            },
        ),
        ("datasets", {"tasks/scrape/hub.py"}),
        ("dvc", {"flows/dvc_storage.py", "flows/dvc_yaml.py", "flows/ledger.py"}),
        ("albumentations", {"tasks/augment/pictures.py", "tasks/augment/transforms.py"}),
        ("transformers", {"tasks/learners/encoder.py", "tasks/learners/masked_words.py"}),
        ("peft", {"tasks/learners/fine_tuned.py"}),
        (
            "pyarrow.parquet",
            {
                "tasks/generation.py",
                "tasks/gates/on_disk.py",
                "flows/predict.py",
                "flows/export.py",
                "tasks/scrape/packing.py",
                "tasks/scrape/table_files.py",
                "tasks/memory_limit.py",
                "tasks/train/files.py",
                "tasks/pseudo_label/teaching.py",
                "tasks/evaluate/__init__.py",
            },
        ),
    ],
)
def test_some_packages_have_one_door(package: str, only: set[str]) -> None:
    """Heavy or delicate packages are imported in one place."""
    assert importers(package) == only


def test_the_ground_does_not_import_the_rooms() -> None:
    """generation, params, statistics, learners and the rest stand below; stages.py alone looks over them all."""
    for path in CODE:
        name = path.relative_to(PROJECT).as_posix()
        if name.startswith("tasks/") and name.split("/")[1] not in ROOMS and name != "tasks/stages.py":
            assert not any(one.startswith(tuple(f"tasks.{room}" for room in ROOMS)) for one in imports(path)), name


def test_no_module_is_a_drawer() -> None:
    """Modules are called by what they hold."""
    assert {path.stem for path in CODE} & DRAWERS == set()


def test_the_command_line_starts_without_heavy_imports() -> None:
    """`seedling --help` loads none of the packages that take seconds."""
    code = "import sys, flows.command_line; print([m for m in ('torch','prefect','dvc','pandas','great_expectations') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_flow_starts_without_the_learners_and_the_crawler() -> None:
    """A run with nothing new loads no package that only a stage's work needs."""
    heavy = ("torch", "scrapy", "twisted", "sklearn", "great_expectations", "albumentations", "transformers")
    code = f"import sys, flows.grow; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
