"""The import rules of the house, read off the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate")
CODE = sorted([path for folder in ("seedling", "tasks", "flows") for path in (PROJECT / folder).rglob("*.py")])
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
    assert "seedling.errors" in imports(PROJECT / "seedling/gates/checking.py")


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
        (
            "great_expectations",
            {"seedling/gates/checking.py", "seedling/gates/engine.py", "seedling/gates/limited_patterns.py"},
        ),
        ("duckdb", {"seedling/gates/on_disk.py"}),
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
        ("datasets", {"seedling/scrape/hub.py"}),
        (
            "dvc",
            {"seedling/versioning/storage.py", "seedling/versioning/yaml_limits.py", "seedling/versioning/ledger.py"},
        ),
        ("albumentations", {"seedling/augment/image_policy.py", "seedling/augment/transforms.py"}),
        ("transformers", {"seedling/features/encoder.py", "seedling/models/masked_words.py"}),
        ("peft", {"seedling/models/fine_tuned.py"}),
        (
            "pyarrow.parquet",
            {
                "seedling/dataset/generation.py",
                "seedling/gates/on_disk.py",
                "seedling/prediction.py",
                "seedling/export/dataset.py",
                "seedling/scrape/packing.py",
                "seedling/scrape/table_files.py",
                "seedling/parallel/memory_limit.py",
                "seedling/train/files.py",
                "seedling/pseudo_label/teacher.py",
                "seedling/evaluate/__init__.py",
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
        if name.startswith("tasks/") and name.split("/")[1] not in ROOMS and name != "seedling/runner.py":
            assert not any(one.startswith(tuple(f"tasks.{room}" for room in ROOMS)) for one in imports(path)), name


def test_no_module_is_a_drawer() -> None:
    """Modules are called by what they hold."""
    assert {path.stem for path in CODE} & DRAWERS == set()


def test_the_command_line_starts_without_heavy_imports() -> None:
    """`seedling --help` loads none of the packages that take seconds."""
    code = "import sys, seedling.cli.main; print([m for m in ('torch','prefect','dvc','pandas','great_expectations') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_flow_starts_without_the_learners_and_the_crawler() -> None:
    """A run with nothing new loads no package that only a stage's work needs."""
    heavy = ("torch", "scrapy", "twisted", "sklearn", "great_expectations", "albumentations", "transformers")
    code = f"import sys, seedling.flows.grow; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
