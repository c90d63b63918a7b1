"""What a plain installation can do without the packages of the extras, and what it says if one is needed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prefect_runs import own_environment
from short_runs import set_params
from sklearn.datasets import load_digits
from text_workspaces import TABLE, append_letters, call

from seedling.errors import MissingExtra
from seedling.extras import EXTRA_MODULES, missing_modules, require

PROJECT = Path(__file__).parents[1]
MAX_DEPENDENCIES = 25
# Packages that the code imports and pyproject.toml does not repeat, with the dependency that requires them.
BROUGHT_BY = {
    "dvc-data": "dvc",
    "dvc-objects": "dvc",
    "filelock": "torch",
    "fsspec": "dvc",
    "httpx": "prefect",
    "jsonschema": "great-expectations",
    "joblib": "scikit-learn",
    "markupsafe": "jinja2",
    "referencing": "jsonschema",
    "threadpoolctl": "scikit-learn",
    "uvicorn": "prefect",
    "huggingface-hub": "transformers",
    "playwright": "scrapy-playwright",
    "twisted": "scrapy",
    "zope-interface": "scrapy",
}
BLOCKER = '''\
"""Hides the modules of BLOCKED_MODULES, as if their packages were not installed, in every Python process."""

import os
import sys

BLOCKED = frozenset(os.environ["BLOCKED_MODULES"].split(","))


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)


sys.meta_path[:] = map(Hiding, sys.meta_path)
'''


@cache
def installed_modules() -> Mapping[str, list[str]]:
    """Top-level module → its packages. Asking all installed packages takes half a second."""
    return packages_distributions()


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    """The normalized names of packages, with those of Seedling's own extras."""
    extras = project()["optional-dependencies"]
    result = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == "seedling-ml":
            for extra in requirement.extras:
                result |= names(extras[extra])
        else:
            result.add(canonicalize_name(requirement.name))
    return result


def required_by(package: str, extras: Iterable[str] = ("",)) -> list[Requirement]:
    """What a package with these extras directly requires on this machine."""
    return [
        requirement
        for requirement in map(Requirement, requires(package) or [])
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def plain_installation() -> set[str]:
    """The packages that `pip install seedling-ml` brings, with everything that these require."""
    installed, queue = set[tuple[str, str]](), [*map(Requirement, project()["dependencies"])]
    while queue:
        requirement = queue.pop()
        for extra in ("", *requirement.extras):
            entry = (canonicalize_name(requirement.name), extra)
            if entry not in installed:
                installed.add(entry)
                queue += required_by(requirement.name, [extra])
    return {package for package, _ in installed}


def blocked_environment(folder: Path, modules: set[str]) -> dict[str, str]:
    """Environment variables with which no Python process finds these modules."""
    (folder / "blocker").mkdir()
    (folder / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(folder / "blocker"), str(PROJECT)])
    return own_environment(folder, PYTHONPATH=path, BLOCKED_MODULES=",".join(sorted(modules)))


def modules_of_extras_only() -> set[str]:
    """The top-level modules of all installed packages that a plain installation does not bring."""
    plain = plain_installation() | {"seedling-ml"}
    modules = {
        module
        for module, packages in installed_modules().items()
        if not {canonicalize_name(package) for package in packages} & plain
    }
    return {module for module in modules if module.isidentifier() and module not in {"sitecustomize", "pip"}}


def test_there_are_few_direct_dependencies() -> None:
    """Each one takes time to install, and its releases may break Seedling."""
    assert len(names(project()["dependencies"])) <= MAX_DEPENDENCIES


def imported_packages() -> set[str]:
    """The packages whose modules the code imports, anywhere in a file."""
    packages_of, result = installed_modules(), set[str]()
    for folder in ("seedling", "flows", "tasks"):
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules.append(node.module or "")
                for module in modules:
                    top = module.partition(".")[0]
                    if top not in sys.stdlib_module_names and top != "seedling":
                        # A namespace such as `google` has several packages; each import here has one.
                        package = "ruamel.yaml" if top == "ruamel" else "zope.interface" if top == "zope" else None
                        result.add(canonicalize_name(package or packages_of[top][0]))
    return result


@pytest.mark.slow
def test_every_imported_package_is_declared() -> None:
    """As a dependency, in an extra, or as one that a declared package always requires."""
    extras = project()["optional-dependencies"]
    declared = names(project()["dependencies"]) | {name for extra in EXTRA_MODULES for name in names(extras[extra])}
    undeclared = imported_packages() - declared
    assert undeclared <= BROUGHT_BY.keys()
    brought = {
        package: {canonicalize_name(entry.name) for entry in required_by(BROUGHT_BY[package])} for package in undeclared
    }
    assert {package for package, packages in brought.items() if package not in packages} == set()


@pytest.mark.parametrize("extra", EXTRA_MODULES)
def test_an_extra_of_pyproject_brings_the_modules_that_its_feature_imports(extra: str) -> None:
    """The table in seedling/extras.py agrees with pyproject.toml; the extra itself is part of `all` and `dev`."""
    extras = project()["optional-dependencies"]
    packages_of = installed_modules()
    needed = {canonicalize_name(packages_of[module][0]) for module in EXTRA_MODULES[extra]}
    assert needed <= names(extras[extra])
    assert names(extras[extra]) <= names(extras["all"])
    assert names(extras[extra]) <= names(extras["dev"])


FEATURES = {
    "boxes": (
        "from seedling.boxes.masks import compressed_mask\ncompressed_mask([[0, 0, 4, 0, 4, 4]], (8, 8))",
        "Masks of objects",
    ),
    "crawl": (
        "from seedling.config.sources import CrawlSource\n"
        "from seedling.scrape.web import collect\n"
        "source = CrawlSource(kind='crawl', start='http://example.org/', item='p')\n"
        "collect(source, Path(), None, None, False, silent).__enter__()",
        "A source of kind crawl",
    ),
    "browser": (
        "from seedling.config.sources import CrawlSource\n"
        "from seedling.scrape.web import collect\n"
        "source = CrawlSource(kind='crawl', start='http://example.org/', item='p', browser=True)\n"
        "collect(source, Path(), None, None, False, silent).__enter__()",
        "A source with `browser: true`",
    ),
    "dask": (
        "import os\n"
        "from seedling.parallel.pool import in_pieces\n"
        "os.environ['SEEDLING_DASK'] = 'tcp://127.0.0.1:1'\n"
        "list(in_pieces(len, [[1]]))",
        "SEEDLING_DASK",
    ),
    "encoder": (
        "from seedling.config.params import EncoderParams\n"
        "from seedling.features.encoder_handle import EncoderHandle\n"
        "EncoderHandle(EncoderParams(model='./encoder'), 'text', Path()).folder",
        "`encoder` in params.yaml",
    ),
    "hub": (
        "from seedling.config.sources import HuggingFaceSource\n"
        "from seedling.scrape.hub import read_hub\n"
        "source = HuggingFaceSource(kind='huggingface', dataset='a/b')\n"
        "list(read_hub(source, Path(), 'text', 1_000))",
        "A source of kind huggingface",
    ),
    "launch": (
        "from seedling.parallel.launcher import run_by_launcher\n"
        "run_by_launcher('torchrun', 'train@0', Path(), Path('output'), silent)",
        "SEEDLING_LAUNCH",
    ),
    "onnx": (
        "from seedling.export.model import export_model\n"
        "export_model(Path(), Path('exported'), number=None, license_name='MIT')",
        "The ONNX export",
    ),
    "serve": (
        "from seedling.cli.main import app\napp(['serve'])",
        "`seedling serve`",
    ),
}
"""Extra → Python code that uses its feature, and the subject of the message."""


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRA_MODULES)
def test_a_feature_without_its_extra_names_the_package_and_the_command(extra: str, tmp_path: Path) -> None:
    """In a process in which the last module of the extra cannot be imported."""
    module = EXTRA_MODULES[extra][-1]
    code, subject = FEATURES[extra]
    done = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\nfrom seedling.progress import silent\n{code}"],
        cwd=tmp_path,
        env=blocked_environment(tmp_path, {module}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    message = f"{subject} needs {module}, which is not installed: pip install 'seedling-ml[{extra}]'"
    assert " ".join(done.stderr.split()).endswith(message)


def test_the_message_lists_all_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the extra `onnx`, whose three packages are missing here."""
    for module in EXTRA_MODULES["onnx"]:
        monkeypatch.setitem(sys.modules, module, None)
    message = "The export needs onnx, onnxscript, onnxruntime, which are not installed: pip install 'seedling-ml[onnx]'"
    with pytest.raises(MissingExtra, match=f"^{re.escape(message)}$"):
        require("onnx", "The export")


def test_installed_extras_raise_nothing() -> None:
    """All of them are part of the development environment."""
    for extra in EXTRA_MODULES:
        assert missing_modules(extra) == []
        require(extra, "The feature")


@pytest.mark.parametrize(
    "modality", [pytest.param("images", marks=pytest.mark.soak), pytest.param("texts", marks=pytest.mark.slow)]
)
def test_a_plain_installation_runs_reports_and_predicts(modality: str, tmp_path: Path) -> None:
    """In processes that can import only what `pip install seedling-ml` brings: init, run and predict."""
    modules = modules_of_extras_only()
    assert {module for extra in set(EXTRA_MODULES) - {"serve"} for module in EXTRA_MODULES[extra]} <= modules
    assert "torch" not in modules
    environment = blocked_environment(tmp_path, modules)
    source = write_images(tmp_path / "digits") if modality == "images" else tmp_path / TABLE
    if modality == "texts":
        append_letters(source, 0, 40)
    workspace, seedling = tmp_path / "workspace", [sys.executable, "-P", "-m", "seedling.cli.main"]
    call([*seedling, "init", workspace, f"--{modality}", source], tmp_path, environment)
    short = {"effort": "quick", "evaluate.bootstrap_draws": 200, "evaluate.robustness_rows": 5}
    set_params(workspace, {**short, "pseudo_label.rounds": 1})
    call([*seedling, "run"], workspace, environment)
    assert "<svg" in (workspace / "reports" / "report.html").read_text(encoding="utf-8")
    rows = source / "test" if modality == "images" else source
    call([*seedling, "predict", rows, "--output", tmp_path / "answers.csv"], workspace, environment)
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert len(answers) == (20 if modality == "images" else 40)
    assert answers["predicted"].notna().all()


def write_images(folder: Path) -> Path:
    """Writes the digits 0 to 3 as an ImageFolder: five labeled and five test images per class, and a pool of 20."""
    digits = load_digits(n_class=4)
    pixels, seen = (digits.images * 255 / 16).astype(np.uint8), Counter[int]()
    for number, label in enumerate(digits.target[:400]):
        seen[label] += 1
        part = "labeled" if seen[label] <= 5 else "test" if seen[label] <= 10 else "unlabeled"
        path = folder / part / ("" if part == "unlabeled" else str(label)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if part != "unlabeled" or seen[label] <= 15:
            cv2.imwrite(str(path), pixels[number])
    return folder
