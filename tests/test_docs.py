"""What the docs say holds: the file table, the commands, the keys, the record, the tables of benchmarks."""

from __future__ import annotations

import csv
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

from seedling.cli.main import app
from seedling.config.params import known_keys, load
from seedling.dataset.generation import COLUMNS

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((PROJECT / "docs").glob("**/*.md"))


def tracked() -> set[str]:
    """The files that git knows."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.splitlines() if (PROJECT / name).exists()}


def test_the_file_table_names_what_there_is() -> None:
    """Every row is a file or folder, and every module is in a row or in a folder that is, not only in `seedling`."""
    table = README.split("## The files")[1]
    cells = re.findall(r"^\| (`[^|]+`) \|", table, flags=re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) > 50
    assert [name for name in names if not (PROJECT / name).exists()] == []
    modules = {
        name
        for name in tracked()
        if re.fullmatch(r"(flows|tasks|seedling)/.+\.py", name) and not re.search(r"/__(init|main)__\.py$", name)
    }
    rows = [name for name in names if name != "seedling"]
    assert {module for module in modules if not any(is_below(module, row) for row in rows)} == set()


def is_below(path: str, folder: str) -> bool:
    """Whether the path is the folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def test_every_command_is_in_the_readme() -> None:
    """A command without a line in the table fails here."""
    names = [str(command.name) for command in app.registered_commands if not command.hidden]
    assert len(names) > 10
    assert [name for name in names if f"`seedling {name}`" not in README] == []


def test_every_key_is_documented() -> None:
    """docs/params.md lists each key of params.yaml."""
    text = (PROJECT / "docs/params.md").read_text(encoding="utf-8")
    sections = {"scrape", "validate", "augment", "synthesize", "train", "pseudo_label", "evaluate"}
    assert {key for key in known_keys() if key not in sections and key not in text} == set()


def test_every_column_is_documented() -> None:
    """docs/record.md has each column of the record."""
    text = (PROJECT / "docs/record.md").read_text(encoding="utf-8")
    assert [field.name for field in COLUMNS if field.name not in text] == []


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *DOCS], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_make_targets_of_the_docs_exist() -> None:
    """`make x` in any page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *DOCS]:
        for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert name in targets, f"{page.name}: make {name}"


def shown(row: dict[str, str]) -> str:
    """A row of a benchmark's results as a line of its table shows it."""
    value, low, high = (f"{float(row[name]):.4g}" for name in ("value", "low", "high"))
    interval = f"{low} to {high}" if row["n"] != "1" else ""
    return (
        f"| {row['setting']} | {row['system']} | {row['metric']} | {value} | {interval} | {row['unit']} | {row['n']} |"
    )


def test_the_benchmark_pages_show_the_committed_tables() -> None:
    """Each file of benchmarks/results is a table on exactly one page of docs/benchmarks/, line by line."""
    pages = [path.read_text(encoding="utf-8") for path in (PROJECT / "docs/benchmarks").glob("*.md")]
    tables = sorted((PROJECT / "benchmarks/results").glob("*.csv"))
    assert tables
    for path in tables:
        (page,) = [page for page in pages if f"<!-- table: {path.stem} -->" in page]
        table = page.split(f"<!-- table: {path.stem} -->")[1].split("<!-- end -->")[0]
        with path.open(encoding="utf-8", newline="") as file:
            expected = [shown(row) for row in csv.DictReader(file)]
        assert [line for line in table.splitlines() if line.startswith("| ")][1:] == expected, path.name


def results() -> list[dict[str, str]]:
    """All numbers of benchmarks/results."""
    rows: list[dict[str, str]] = []
    for path in sorted((PROJECT / "benchmarks/results").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    return rows


def test_the_headline_comparisons_are_measured_numbers() -> None:
    """Each number of the table on docs/benchmarks.md is a value or the end of an interval in benchmarks/results."""
    measured = {f"{float(row[name]):.4g}" for row in results() for name in ("value", "low", "high") if row[name]}
    page = (PROJECT / "docs/benchmarks.md").read_text(encoding="utf-8")
    table = page.split("## Headline comparisons")[1].split("## ")[0]
    lines = [line.split("|")[3:] for line in table.splitlines() if line.startswith("| [")]
    numbers = [number for line in lines for number in re.findall(r"(?<![\w.])-?\d+\.\d+", " ".join(line))]
    assert len(lines) == 10 and len(numbers) > 60
    assert [number for number in numbers if f"{float(number):.4g}" not in measured] == []


def test_what_the_benchmarks_page_says_of_few_and_wrong_labels_is_measured() -> None:
    """Seedling is ahead of every peer with few labels, and of confident learning with 20 % wrong labels, everywhere."""
    accuracy = [row for row in results() if row["metric"] == "test accuracy"]
    few = [row for row in accuracy if "few_labels.py" in row["command"] or "digits.py" in row["command"]]
    noisy = [row for row in accuracy if "label_noise.py" in row["command"] and "20" in row["setting"].partition(",")[0]]
    for rows, system in ((few, "Seedling, accepted model"), (noisy, "Seedling")):
        settings = {row["setting"] for row in rows}
        assert len(settings) >= 8
        for setting in settings:
            values = {row["system"]: float(row["value"]) for row in rows if row["setting"] == setting}
            peers = [value for name, value in values.items() if not name.startswith("Seedling")]
            assert peers and values[system] > max(peers), setting


def test_the_diagram_of_the_stages_is_the_stage_table() -> None:
    """docs/images/stages.svg is what docs/tools/stage_diagram.py draws from it."""
    drawn = runpy.run_path(str(PROJECT / "docs/tools/stage_diagram.py"))
    assert {end for _, end in drawn["edges"]()} | {"scrape"} == set(drawn["POSITIONS"])
    assert (PROJECT / "docs/images/stages.svg").read_text(encoding="utf-8") == drawn["diagram"]()


def test_links_in_code_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the site, a link to a file outside docs/ is plain text, but not in a code block or between backticks."""
    monkeypatch.syspath_prepend(str(PROJECT / "docs/tools"))
    adjust = runpy.run_path(str(PROJECT / "docs/tools/hooks.py"))["with_adjusted_links"]
    link = "[the stages](../dvc.yaml)"
    page = f"See {link}.\n\n```md\n{link}\n```\n\nWrite `{link}` or [`params`](params.md)."
    expected = f"See the stages.\n\n```md\n{link}\n```\n\nWrite `{link}` or [`params`](params.md)."
    assert adjust(page, "docs/guide.md", "guide.md") == expected


def test_images_of_the_docs_are_small_and_used() -> None:
    """Each screenshot is below 150 kB, the walk of 30 seconds is below 600 kB, and a page shows it."""
    pages = "".join(page.read_text(encoding="utf-8") for page in [PROJECT / "README.md", *DOCS])
    images = sorted((PROJECT / "docs/images").glob("*.webp"))
    assert images
    for image in images:
        assert image.stat().st_size < (600_000 if image.name == "review.webp" else 150_000), image.name
        assert f"images/{image.name}" in pages, image.name


def test_init_writes_the_gates_that_the_project_itself_uses() -> None:
    """The embedded example's gates.yaml is that of every new workspace."""
    template = (PROJECT / "seedling/init/workspace_files/gates.yaml.template").read_text(encoding="utf-8")
    assert (PROJECT / "gates.yaml").read_text(encoding="utf-8") == template


@pytest.mark.parametrize("folder", [".", "examples/intents"])
def test_params_files_are_short_and_load(folder: str) -> None:
    """Under 60 lines, no unknown keys."""
    path = PROJECT / folder
    assert len((path / "params.yaml").read_text(encoding="utf-8").splitlines()) < 60
    assert load(path).scrape.sources


def test_every_extra_that_is_named_can_be_installed() -> None:
    """`seedling[…]` in a message or on a page is an optional dependency of pyproject.toml."""
    there = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    pages = [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("docs/*.md"),
        *PROJECT.glob("seedling/**/*.py"),
        *PROJECT.glob("flows/**/*.py"),
    ]
    named = {extra for page in pages for extra in re.findall(r"seedling-ml\[(\w+)\]", page.read_text())}
    assert "minilm" in named
    assert named <= there
