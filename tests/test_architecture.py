"""The import rules of docs/architecture.md, read from the source code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
STAGE_PACKAGES = ("scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate")
ORCHESTRATION = ("cli", "flows", "tasks")  # below seedling/, what may import Prefect
ABOVE_STAGES = {"ablation", "init", "pipeline", "prediction", "report", "row_story", "versioning", "web_visits"}
VAGUE_NAMES = {
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


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name; flows/ and tasks/ are seedling.flows and seedling.tasks."""
    return {
        ".".join((*prefix, *path.relative_to(PROJECT).with_suffix("").parts)).removesuffix(".__init__"): path
        for folder, prefix in (("seedling", ()), ("flows", ("seedling",)), ("tasks", ("seedling",)))
        for path in sorted((PROJECT / folder).rglob("*.py"))
    }


@cache
def imports(module: str) -> frozenset[str]:
    """Every dotted name that the module imports, wherever in its file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def is_within(name: str, package: str) -> bool:
    """Whether the dotted name is the package or below it."""
    return name == package or name.startswith(f"{package}.")


def importers(package: str) -> set[str]:
    """The modules that import the package."""
    return {module for module in modules() if any(is_within(name, package) for name in imports(module))}


def library() -> Iterator[str]:
    """The modules below seedling/ that are neither of the command line, nor flows, nor tasks."""
    others = ("__main__", *ORCHESTRATION)
    return (module for module in modules() if not any(is_within(module, f"seedling.{name}") for name in others))


def test_the_rules_are_applied_to_all_modules() -> None:
    """So that the rules below cannot pass over an empty set."""
    assert len(list(library())) > 200
    assert {"seedling.tasks.train", "seedling.flows.grow", "seedling.cli.main"} <= set(modules())
    assert "seedling.errors" in imports("seedling.gates.checking")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["prefect", "seedling.flows", "seedling.tasks", "seedling.cli"])
def test_the_library_imports_no_orchestrator(package: str) -> None:
    """All work can be done without Prefect, flows and the command line."""
    assert importers(package) & set(library()) == set()


def test_tasks_and_flows_do_not_import_the_command_line() -> None:
    """A task is called by a flow, and a flow by the command line or a worker."""
    assert not any(is_within(module, "seedling.tasks") for module in importers("seedling.cli"))
    assert not any(is_within(module, "seedling.flows") for module in importers("seedling.cli"))


def test_each_stage_has_one_task_of_ten_to_sixty_lines() -> None:
    """tasks/ holds a file per stage, and what these share."""
    lines = {
        module.rpartition(".")[2]: len(path.read_text().splitlines())
        for module, path in modules().items()
        if module.startswith("seedling.tasks.")
    }
    assert set(lines) == {*STAGE_PACKAGES, "stage_task"}
    assert [name for name in STAGE_PACKAGES if not 10 <= lines[name] <= 60] == []


@pytest.mark.parametrize("stage", STAGE_PACKAGES)
def test_stage_packages_never_import_one_another(stage: str) -> None:
    """A new capability is a new file in one stage package, and no other stage changes."""
    others = {module for module in modules() for name in STAGE_PACKAGES if is_within(module, f"seedling.{name}")}
    assert {
        importer for importer in importers(f"seedling.{stage}") & others if not is_within(importer, f"seedling.{stage}")
    } == set()


def names_of_seedling(tree: ast.Module) -> set[str]:
    """The names that a test binds to modules and objects of seedling by its imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                if is_within(f"{module}.{alias.name}".lstrip("."), "seedling"):
                    names.add(alias.asname or alias.name)
    return names


def patches_of_seedling(source: str) -> list[int]:
    """The lines that replace an attribute of a module or object of seedling: by `setattr`, or by an assignment."""
    tree = ast.parse(source)
    names, lines = names_of_seedling(tree), []
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt):
            continue
        targets: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            targets = node.args[:1]
        elif isinstance(node, ast.Assign):
            targets = [target.value for target in node.targets if isinstance(target, ast.Attribute)]
        if any(
            target.id in names
            if isinstance(target, ast.Name)
            else isinstance(target, ast.Constant) and is_within(str(target.value), "seedling")
            for target in targets
        ):
            lines.append(node.lineno)
    return lines


@pytest.mark.slow
def test_tests_patch_nothing_of_seedling() -> None:
    """What a test varies is an argument or a field; only the operating system and libraries are patched."""
    patched = "from seedling.gates import history\nmonkeypatch.setattr(history, 'MAX_HISTORY_BYTES', 1)"
    assert patches_of_seedling(patched) == [2]
    assert patches_of_seedling("monkeypatch.setattr('seedling.gates.history.HISTORY', 1)") == [1]
    assert patches_of_seedling("from seedling.parallel import pool\npool.LOCAL_SECONDS = 0") == [2]
    assert patches_of_seedling("import os\nmonkeypatch.setattr(os, 'geteuid', lambda: 1)") == []
    files = sorted((PROJECT / "tests").rglob("*.py"))
    assert len(files) > 100
    lines = {path.name: patches_of_seedling(path.read_text(encoding="utf-8")) for path in files}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}


def test_shared_packages_do_not_import_the_stages() -> None:
    """Only stages and what is named here, which looks over all stages, know a stage's code."""
    for stage in STAGE_PACKAGES:
        packages = {module.split(".")[1] for module in importers(f"seedling.{stage}")}
        assert packages <= {stage, *ABOVE_STAGES}, stage


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("great_expectations", {"gates.checking", "gates.engine", "gates.limited_patterns"}),
        ("duckdb", {"gates.on_disk"}),
        (
            "scrapy",
            {
                "scrape.api_spider",
                "scrape.base_spider",
                "scrape.browser",
                "scrape.browser_downloads",
                "scrape.downloading",
                "scrape.page_spiders",
                "scrape.politeness",
                "scrape.robots",
                "scrape.spider",
                "scrape.spider_server",
            },
        ),
        ("datasets", {"scrape.hub"}),
        (
            "dvc",
            {
                "versioning.data_tracking",
                "versioning.ledger",
                "versioning.pinned",
                "versioning.repository",
                "versioning.storage",
                "versioning.yaml_limits",
            },
        ),
        ("albumentations", {"augment.image_policy", "augment.transforms"}),
        ("transformers", {"features.encoder", "models.masked_words"}),
        ("peft", {"models.fine_tuned"}),
        (
            "pyarrow.parquet",
            {
                "dataset.fold_probabilities",
                "dataset.reader",
                "dataset.writer",
                "gates.on_disk",
                "prediction",
                "export.dataset",
                "scrape.packing",
                "scrape.table_files",
                "parallel.memory_limit",
                "train.files",
                "pseudo_label.teacher",
                "evaluate",
                "review.exchange.hugging_face",
                "review.rows",
            },
        ),
    ],
)
def test_each_delicate_package_is_imported_in_one_place(package: str, only: set[str]) -> None:
    """Packages that are heavy to import, or whose behavior needs care."""
    assert importers(package) == {f"seedling.{module}" for module in only}


PATH_NAME = re.compile(r"(\S*/)?[\w{][^\s/]*\.(csv|dvc|html|json|jsonl|lock|log|parquet|pid|sqlite|yaml)")
WORKSPACE_FOLDERS = {".seedling", "generations", "models", "quarantine", "reports"}
OTHER_PATHS = {  # names that are not of a workspace, by module
    "export.dataset": {"metadata.csv", "{}.csv", "{}-{}.parquet"},  # the layout of the Hugging Face Hub
    "export.model": {"config.json", "tokenizer.json", "words.json"},  # the exported model
    "faults": {"seedling-{}.log"},  # in the system's folder for temporary files
    "features.encoder": {"config.json", "preprocessor_config.json", "sentence_bert_config.json"},  # of transformers
    "features.pretrained": {
        *("adapter_config.json", "config.json", "preprocessor_config.json"),  # of transformers and peft
        *("tokenizer.json", "tokenizer_config.json"),
    },
    "records.run_description": {"reports"},  # a section of params.yaml
    "boxes.writing": {  # the layouts of datasets of other tools
        *("annotations.json", "boxes.csv", "data.yaml", "metadata.jsonl", "tasks.json"),
    },
    "flows.server_process": {"seedling-server-start.lock"},  # in Prefect's folder
    "python_api": {"rows.parquet"},  # a temporary file that `seedling init` reads
    "report.cards": {"data/{}-*.parquet"},  # the layout of the Hugging Face Hub
    "review.exchange.csv_table": {"rows.csv"},  # an export of any folder
    "review.exchange.fiftyone": {"labels.json", "samples.json"},  # the layout of FiftyOne
    "review.exchange.hugging_face": {  # the layout of `datasets` and of the Hub
        *("dataset_dict.json", "dataset_info.json", "state.json", "{}-of-{}.parquet"),
    },
    "review.exchange.image_folder": {"metadata.csv"},  # the layout of the Hugging Face Hub
    "review.exchange.label_studio": {"tasks.json"},  # an export of any folder
    "scrape.saved_site": {"index.html"},  # a page of a site
}


def path_literals(source: str) -> set[str]:
    """The texts that name a file or a folder of a workspace, docstrings left out; an f-string's values are `{}`."""
    tree = ast.parse(source)
    skipped = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    skipped |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = set()
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant):
            texts.add("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts))
    return {
        text
        for text in texts
        if PATH_NAME.fullmatch(text) or (" " not in text and text.partition("/")[0] in WORKSPACE_FOLDERS)
    }


@pytest.mark.slow
def test_only_the_layout_names_files_of_a_workspace() -> None:
    """seedling/workspace.py has the name of every file and folder; other modules import it."""
    assert path_literals("path = workspace / 'models' / '0' / 'model.json'") == {"models", "model.json"}
    assert path_literals("path = folder / f'{name}.json'\nfolder.glob('generations/**')") == {
        "{}.json",
        "generations/**",
    }
    assert path_literals("'''Reads model.json.'''\nraise Error('model.json is missing')\nsuffix = '.json'") == set()
    named = {
        module.removeprefix("seedling."): path_literals(path.read_text(encoding="utf-8"))
        for module, path in modules().items()
        if module != "seedling.workspace"
    }
    assert {module: names for module, names in named.items() if names} == OTHER_PATHS


def test_the_layout_imports_only_the_standard_library() -> None:
    """Every module can import seedling/workspace.py."""
    assert {name.partition(".")[0] for name in imports("seedling.workspace")} <= sys.stdlib_module_names


def test_no_module_has_a_vague_name() -> None:
    """A module is named for what it holds."""
    assert {module.rpartition(".")[2] for module in modules()} & VAGUE_NAMES == set()


def test_the_command_line_starts_without_heavy_imports() -> None:
    """`seedling --help` loads none of the packages that take seconds."""
    heavy = ("torch", "prefect", "dvc", "pandas", "great_expectations")
    assert loaded_by("seedling.cli.main", heavy) == []


@pytest.mark.slow
def test_the_flow_starts_without_the_learners_and_the_crawler() -> None:
    """A run with nothing new loads no package that only a stage's work needs."""
    heavy = ("torch", "scrapy", "twisted", "sklearn", "great_expectations", "albumentations", "transformers")
    assert loaded_by("seedling.flows.grow", heavy) == []


def loaded_by(module: str, packages: tuple[str, ...]) -> list[str]:
    """Which of the packages are loaded once a new process has imported the module."""
    code = f"import sys, {module}; print(*[name for name in {packages} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()
