"""The command line as a user types it: messages, exit codes, help."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from filelock import FileLock
from in_process import seedling
from loopback import site
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

import seedling as seedling_package
from seedling.cli.main import app
from seedling.cli.options import Debug, Workspace, explained
from seedling.config.params import load
from seedling.config.sources import TableSource
from seedling.errors import InputError
from seedling.init.create import InitOptions, _sources, make_workspace
from seedling.init.table_sources import TableOptions
from seedling.versioning.ledger import open_ledger


def seedling_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "seedling.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_every_command_has_help(name: str) -> None:
    """The help has a sentence on what the command does."""
    done = seedling(name, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 10


def test_the_help_of_the_command_line_is_the_docstring_of_the_package() -> None:
    """Both have the same sentence."""
    assert str(seedling_package.__doc__) in " ".join(seedling("--help").stdout.split())


def test_init_creates_a_git_and_dvc_repository(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    """With a first commit, and nothing left to commit or to track."""
    done = seedling("init", tmp_path / "w", "--images", make_images())
    assert done.returncode == 0, done.stderr
    clean = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path / "w", capture_output=True, text=True, check=True
    )
    assert clean.stdout == ""
    assert (tmp_path / "w/data.dvc").exists()
    again = seedling("init", tmp_path / "w", "--images", make_images(tmp_path / "more"))
    assert again.returncode == 2
    assert "is a workspace already" in again.stderr


def test_init_recommends_an_encoder_for_photographs(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    """Without --encoder. With --encoder none it prints no recommendation, and texts have a default encoder."""
    images = make_images(tmp_path / "images")
    assert "No encoder is set. For photographs" in seedling("init", tmp_path / "one", "--images", images).stdout
    chosen = seedling("init", tmp_path / "two", "--images", images, "--encoder", "none").stdout
    assert "No encoder is set" not in chosen


def test_init_writes_a_tables_columns_and_encoding_into_params(tmp_path: Path) -> None:
    """Without the options the error names them; with them params.yaml has them, which a table in another encoding than
    UTF-8 needs.
    """
    table = tmp_path / "letters.csv"
    table.write_bytes("remark,kind\ncafé au lait,drink\npain,food\n".encode("latin-1"))
    for table_options, remedy in (
        (TableOptions(), "use --encoding latin-1"),
        (TableOptions(encoding="latin-1"), "--column text=NAME"),
        (TableOptions(columns={"body": "remark"}), "must be one of text, image"),
    ):
        with pytest.raises(InputError, match=remedy):
            make_workspace(tmp_path / "w", table, "text", encoder="none", options=InitOptions(table=table_options))
    options = ["--encoding", "latin-1", "--column", "text=remark", "--column", "label=kind"]
    done = seedling("init", tmp_path / "w", "--texts", table, "--encoder", "none", *options)
    assert done.returncode == 0, done.stderr
    (source,) = load(tmp_path / "w").scrape.sources
    assert isinstance(source, TableSource)
    assert (source.text, source.label, source.encoding) == ("remark", "kind", "latin-1")


@pytest.mark.parametrize(
    ("folders", "by_source", "expected"),
    [
        (["studio/house", "studio/tree", "web/house", "web/tree"], True, ["studio", "web"]),
        (["studio/house", "studio/tree", "web/house", "web/tree"], False, ["."]),
        (["studio/labeled/house", "web/unlabeled"], None, ["studio", "web"]),
        (["dog/poodle", "cat/siamese"], None, ["."]),
        (["dog/train", "dog/test", "cat/train", "cat/test"], False, ["."]),
        (["studio/labeled/house", "😀/test/house"], None, ["studio", "😀"]),
        (["labeled/house", "unlabeled"], None, ["."]),
    ],
)
def test_top_folders_are_sources_or_classes_by_option_or_by_name(
    tmp_path: Path, folders: list[str], by_source: bool | None, expected: list[str]
) -> None:
    """Folders that all contain splits are sources; folders that are splits, or have nothing in common, are one source."""
    images_in(tmp_path / "images", folders)
    lines = _sources(tmp_path / "images", "image", by_source, TableOptions())
    assert [YAML(typ="safe").load(line) for line in lines] == [{"kind": "folder", "path": path} for path in expected]


def images_in(folder: Path, folders: list[str]) -> None:
    """Write an image into each folder, and the files that a desktop adds."""
    for shade, name in enumerate(folders):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(folder / name / "one.png")
        (folder / name).parent.joinpath(".DS_Store").touch()


@pytest.mark.slow
def test_init_requires_an_option_if_top_folders_may_be_sources_or_classes(tmp_path: Path) -> None:
    """If several folders have the same class folders, the error explains both meanings and the two options; with one of
    them init succeeds.
    """
    images_in(tmp_path / "images", ["studio/house", "studio/tree", "web/house", "web/tree"])
    refused = seedling("init", tmp_path / "w", "--images", tmp_path / "images")
    assert (refused.returncode, "--by-source or --by-class" in refused.stderr) == (2, True)
    done = seedling("init", tmp_path / "w", "--images", tmp_path / "images", "--by-source")
    assert done.returncode == 0, done.stderr
    assert [getattr(source, "path", None) for source in load(tmp_path / "w").scrape.sources] == ["studio", "web"]


@pytest.mark.soak
def test_a_workspace_may_collect_all_its_rows_from_a_source(tmp_path: Path) -> None:
    """It is created without data: a source fills it, and labels that are added later join it."""
    done = seedling("init", tmp_path / "w", "--collect", "texts")
    assert done.returncode == 0, done.stderr
    assert "docs/collecting.md" in done.stdout
    with site() as server:
        server.routes["/"] = "".join(f"<li>{color} thing {n}</li>" for n in range(20) for color in ("red", "blue"))
        params = tmp_path / "w/params.yaml"
        source = (
            f"    - {{kind: crawl, start: '{server.address}/', item: li, text: '::text', allow_private_hosts: true,\n"
            "       rules: [{rule: color, words: {red: [red], blue: [blue]}}]}"
        )
        text = params.read_text(encoding="utf-8")
        listed = next(line for line in text.splitlines() if "may_be_empty: true" in line)
        params.write_text(text.replace(listed, f"{listed}\n{source}"), encoding="utf-8")
        done = seedling_process("stage", "scrape", "--workspace", tmp_path / "w")
        assert done.returncode == 0, done.stderr
        assert "40 in, 40 kept" in done.stdout
        folder = tmp_path / "w/data/labeled/red"
        folder.mkdir()
        (folder / "mine.txt").write_text("a crimson thing", encoding="utf-8")
        done = seedling_process("stage", "scrape", "--workspace", tmp_path / "w")
    assert done.returncode == 0, done.stderr
    assert "41 in, 41 kept" in done.stdout


@pytest.mark.soak
def test_a_packed_workspace_reads_loose_files_that_are_added_later(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    """The packed rows and those of data/labeled/ form one generation."""
    done = seedling("init", tmp_path / "w", "--images", make_images(labeled=3, pool=0, test=0), "--pack")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "w/data").iterdir()) == ["packed"]
    later = make_images(tmp_path / "later", labeled=5, pool=0, test=0)
    shutil.copytree(later / "labeled", tmp_path / "w/data/labeled")
    done = seedling_process("stage", "scrape", "--workspace", tmp_path / "w")
    assert done.returncode == 0, done.stderr
    assert "24 in, 24 kept" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init", "new"], "one of --images PATH, --texts PATH"),
        (["init", "new", "--images", "nowhere"], "nowhere does not exist"),
        (["init", "new", "--texts", "odd.xlsx"], "is not a .csv, .tsv, .jsonl, .parquet file"),
        (["init", "new", "--images", "empty"], "has neither images in <class>/ folders"),
        (["run"], "seedling init DIR --images PATH"),
        (["status"], "seedling init"),
        (["stage", "scrap"], "Unknown stage 'scrap'"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    """The message has the cause and the fix, without a traceback."""
    (tmp_path / "odd.xlsx").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    call = seedling_process if arguments[0] in {"run", "stage"} else seedling
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_stage_runs_alone_and_is_recorded(workspace: Path) -> None:
    """After `seedling stage scrape`, `seedling status` shows it."""
    assert seedling_process("stage", "scrape", "-w", workspace).returncode == 0
    status = seedling("status", "-w", workspace)
    assert status.returncode == 3, "the other stages are still to run"
    line = next(line for line in status.stdout.splitlines() if line.startswith("scrape"))
    assert "up to date" in line
    assert "53" in line


@pytest.mark.slow
def test_a_stage_without_its_input_names_the_stage_to_run(workspace: Path) -> None:
    """The message has the missing generation and the command that creates it."""
    done = seedling_process("stage", "validate", "-w", workspace)
    assert done.returncode == 2
    assert "seedling stage scrape" in done.stderr


@pytest.mark.slow
def test_a_failed_gate_gives_exit_code_1(workspace: Path) -> None:
    """The message goes to standard error."""
    (workspace / "gates.yaml").write_text("scrape: [expect_table_row_count_to_be_between: {min_value: 1000}]\n")
    done = seedling_process("stage", "scrape", "-w", workspace)
    assert done.returncode == 1
    assert "The gate of stage 'scrape' failed" in done.stderr


@pytest.mark.slow
def test_a_failing_expectation_of_the_user_is_shown_and_can_be_fixed(workspace: Path) -> None:
    """Exit code 1, the function's name and the rows in the terminal, and its sentence on the gates' page.

    A change of the file is detected, by `status` too; afterwards the stage passes and the page is updated.
    """
    expectations = (
        'def expect_column_values_to_be_large(width, least):\n    """are large enough"""\n    return width >= least\n'
    )
    (workspace / "expectations.py").write_text(expectations, encoding="utf-8")
    gates = workspace / "gates.yaml"
    line = "  - expect_column_values_to_be_large: {column: width, least: 1000}\n"
    gates.write_text(gates.read_text(encoding="utf-8").replace("validate:\n", "validate:\n" + line), encoding="utf-8")
    open_ledger(workspace).run("scrape")
    failed = seedling_process("stage", "validate", "-w", workspace)
    assert failed.returncode == 1
    assert "expect_column_values_to_be_large: observed 53 of 53 rows unexpected" in failed.stderr
    page = (workspace / "reports" / "gates.html").read_text(encoding="utf-8")
    assert "are large enough" in page and "53 of 53 rows unexpected" in page
    (workspace / "expectations.py").write_text(expectations.replace("width >= least", "width > 0"), encoding="utf-8")
    passed = seedling_process("stage", "validate", "-w", workspace)
    assert passed.returncode == 0, passed.stderr
    assert (workspace / "reports/data.html").is_file() and "Data page:" in passed.stdout
    (workspace / "expectations.py").write_text(expectations, encoding="utf-8")
    status = seedling("status", "-w", workspace).stdout
    assert "expectations changed" in next(line for line in status.splitlines() if line.startswith("validate"))
    assert seedling_process("stage", "validate", "-w", workspace).returncode == 1
    assert seedling_process("stage", "validate", "-w", workspace).returncode == 1


@pytest.mark.slow
def test_a_second_run_reports_the_first_and_exits(workspace: Path) -> None:
    """If another process has the lock of the workspace."""
    (workspace / ".seedling").mkdir(exist_ok=True)
    with FileLock(workspace / ".seedling/run.lock"):
        for arguments in (["run"], ["stage", "scrape"]):
            done = seedling_process(*arguments, "-w", workspace)
            assert done.returncode == 2
            assert "Another run" in done.stderr


@pytest.mark.slow
def test_an_unknown_key_is_named(workspace: Path) -> None:
    """The error has the most similar key."""
    with (workspace / "params.yaml").open("a") as file:
        file.write("sed: 3\n")
    done = seedling_process("run", "-w", workspace)
    assert done.returncode == 2
    assert "unknown key 'sed' (did you mean 'seed'?)" in done.stderr


def test_the_log_of_an_unexpected_error_is_in_the_workspace_of_the_option(tmp_path: Path) -> None:
    """With `--workspace`, and not in the working folder."""
    failing = typer.Typer()

    @failing.command()
    def fail(workspace: Workspace = Path(), debug: Debug = False) -> None:
        with explained(debug):
            np.zeros(3).reshape(2, 2)

    (tmp_path / ".seedling").mkdir()
    result = CliRunner().invoke(failing, ["--workspace", str(tmp_path)])
    assert result.exit_code == 70
    assert "test_command_line.py" in (tmp_path / ".seedling/logs/errors.log").read_text()
