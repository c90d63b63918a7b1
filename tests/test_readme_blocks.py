"""The commands and the Python code of the README and of the first pages of docs/ run as they stand there.

A block that cannot run has a comment above it, `<!-- not run by tests: REASON -->`.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from prefect_runs import own_environment
from text_workspaces import append_letters

from seedling.cli.main import app

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
SHELL_PAGES = ["README.md", "docs/quickstart.md", "docs/tutorial.md"]
PAGES_OF_SOAK = {"docs/quickstart.md", "docs/tutorial.md"}  # which have more and longer runs than the README
PYTHON_PAGES = ["docs/python.md"]
BLOCK = re.compile(
    r"(?:^<!-- not run by tests: (?P<reason>[^\n]+) -->\n)?^```(?P<language>sh|python)\n(?P<code>.*?)^```", re.M | re.S
)
PHOTOGRAPH_PIXELS = 48
RUN_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. reason: why tests do not run it, if they do not."""

    page: str
    language: str
    code: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """The shell and Python blocks of a page, in their order."""
    matches = BLOCK.finditer(page.read_text(encoding="utf-8"))
    name = page.relative_to(PROJECT).as_posix()
    return [Block(name, match["language"], match["code"], match["reason"]) for match in matches]


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def write_photographs(folder: Path) -> None:
    """Stripes in two colors as photographs of two flowers: 20 labeled and 6 test images per class, 10 unlabeled."""
    generator = np.random.default_rng(4)
    for split, count in (
        ("labeled/tulip", 20),
        ("labeled/rose", 20),
        ("test/tulip", 6),
        ("test/rose", 6),
        ("unlabeled", 10),
    ):
        for number in range(count):
            is_tulip = "tulip" in split or (split == "unlabeled" and number % 2)
            color = np.array([200, 60, 60] if is_tulip else [60, 60, 200])
            waves = np.sin(np.arange(PHOTOGRAPH_PIXELS) / generator.uniform(3, 9) + generator.uniform(0, 6))
            pixels = (
                color + 40 * waves[:, None, None] + generator.normal(scale=12, size=(PHOTOGRAPH_PIXELS,) * 2 + (3,))
            )
            path = folder / split / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def reader(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The working folder of a reader who has cloned the project, with their data, and the environment of a terminal."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "examples").symlink_to(PROJECT / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    environment = own_environment(tmp_path, HOME=str(tmp_path), PYTHONPATH=str(PROJECT))
    write_photographs(tmp_path / "images" / "flowers")
    shutil.copytree(tmp_path / "images" / "flowers" / "unlabeled", tmp_path / "images" / "shoes")
    write_photographs(folder / "flowers-of-the-tutorial")
    write_photographs(folder / "new")
    append_letters(folder / "letters.csv", 0, 60)
    return folder, environment


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.soak if page in PAGES_OF_SOAK else pytest.mark.slow) for page in SHELL_PAGES],
)
def test_the_commands_of_the_page_run_one_after_another(
    page: str, reader: tuple[Path, dict[str, str]], prefect_variables: dict[str, str]
) -> None:
    """In one shell that ends at the first command that fails; at the end there is a report."""
    folder, environment = reader
    if page == "docs/tutorial.md":
        (folder / "flowers-of-the-tutorial").rename(folder / "flowers")
    if page != "docs/quickstart.md":  # whose run starts the Prefect server of its own that a first run starts
        environment |= prefect_variables
    blocks = [block for block in blocks_of(PROJECT / page) if block.language == "sh" and block.reason is None]
    assert blocks
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(block.code for block in blocks)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert list(folder.glob("*/reports/report.html"))
    if page == "docs/quickstart.md":
        assert '"predicted":' in done.stdout.splitlines()[-1]


@pytest.mark.soak
@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_the_python_code_of_the_page_runs_in_one_process(page: str, reader: tuple[Path, dict[str, str]]) -> None:
    """Block after block, in one namespace; the predictions have a row per text."""
    folder, environment = reader
    blocks = [block for block in blocks_of(PROJECT / page) if block.language == "python" and block.reason is None]
    assert len(blocks) >= 3
    script = folder / "page.py"
    script.write_text("\n".join(block.code for block in blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=RUN_TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert re.search(r"^0 +flight", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^1 +weather", done.stdout, flags=re.MULTILINE)


def test_a_block_that_is_not_run_says_why() -> None:
    """On the pages whose blocks run, the others have a reason of several words."""
    reasons = [block.reason for block in ALL_BLOCKS if block.page in {*SHELL_PAGES, *PYTHON_PAGES} and block.reason]
    assert reasons
    assert [reason for reason in reasons if len(reason.split()) < 4] == []


@pytest.mark.parametrize("language", ["sh", "python"])
def test_every_block_of_every_page_is_well_formed(language: str) -> None:
    """Bash and Python parse them, also those that are not run."""
    blocks = [block for block in ALL_BLOCKS if block.language == language]
    assert blocks
    for block in blocks:
        if language == "python":
            ast.parse(block.code)
        else:
            parsed = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
            assert parsed.returncode == 0, f"{block.page}: {parsed.stderr}"


def seedling_calls(block: Block) -> list[list[str]]:
    """The words of each line of the block that calls seedling, without its comment."""
    lines = re.findall(r"(?:^|&& |\| )(seedling [^|&\n]*)", block.code, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_commands_and_options_in_every_block_exist() -> None:
    """Each `seedling COMMAND --option` on any page is one that the command line has."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # of a group
    checked = 0
    for block in ALL_BLOCKS:
        for _, command, *words in (call for call in seedling_calls(block) if len(call) > 1):
            assert command in commands, f"{block.page}: seedling {command}"
            options = {
                option
                for parameter in commands[command].params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            unknown = [
                word
                for word in words
                if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options | {"--help"}
            ]
            assert unknown == [], f"{block.page}: seedling {command} {unknown}"
            checked += 1
    assert checked > 40
