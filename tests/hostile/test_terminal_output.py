"""Output is literal: brackets and colons in paths are not markup, and a narrow encoding stops no command."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seedling.cli.main import app
from seedling.cli.running import RunConsole
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.terminal.console import PrintableConsole
from seedling.terminal.output_encoding import replace_unwritable

ODD_NAMES = ["[old]", "[/]", "[bold red]x[/bold red]", ":key:", "{x}", "{{y}}", "%s", "$HOME", "a b"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_printed_literally(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the consoles of all commands."""
    for console in (PrintableConsole(), RunConsole()):
        console.print(f"Report: /data/{name}/report.html", highlight=False, soft_wrap=True)
    assert capsys.readouterr().out == f"Report: /data/{name}/report.html\n" * 2


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_error_prints_the_path_literally(name: str, tmp_path: Path) -> None:
    """For a folder that is not a workspace."""
    from typer.testing import CliRunner

    folder = tmp_path / name.replace("/", "")
    folder.mkdir()
    result = CliRunner().invoke(app, ["status", "--workspace", str(folder)])
    assert result.exit_code == 2
    assert str(folder) in result.output


def test_rich_consoles_are_created_in_one_module_alone() -> None:
    """A console that interprets markup would drop brackets of a path."""
    root = Path(__file__).parents[2]
    modules = [path for folder in ("seedling", "flows", "tasks") for path in (root / folder).rglob("*.py")]
    assert len(modules) > 200
    makers = {
        path.relative_to(root).as_posix()
        for path in modules
        if re.search(r"(?<!\w)Console\(\w*=?\w*\)(?!:)", path.read_text(encoding="utf-8"))
    }
    assert makers == set()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_narrow_encoding_prints_replacement_characters(encoding: str) -> None:
    """For characters that it lacks."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    replace_unwritable(stream)
    print("→ größer 日本", file=stream, flush=True)
    assert b"gr" in written.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_the_command_line_writes_to_a_narrow_encoding(encoding: str, tmp_path: Path) -> None:
    """An error about a path that the encoding lacks is one sentence, with exit code 2."""
    command = [sys.executable, "-m", "seedling.cli.main", "status", "--workspace", str(tmp_path / "日本 ü")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"params.yaml" in done.stderr


@pytest.mark.parametrize("name", ["[old] :key: %s", "$x `y` 'z'", "größer 日本"])
def test_a_workspace_may_have_any_name_without_braces(name: str, tmp_path: Path) -> None:
    """DVC's commands would interpret a cache path with braces as a format string."""
    for label in ("[x]", "{y} %s"):
        (tmp_path / "source {y}" / label).mkdir(parents=True)
        (tmp_path / "source {y}" / label / "1.txt").write_text(f"a text of {label}")
    workspace = make_workspace(tmp_path / name, tmp_path / "source {y}", "text", encoder="none")
    assert sorted(path.name for path in (workspace / "data").iterdir()) == ["[x]", "{y} %s"]
    refused_folder = tmp_path / f"{name} {{x}}"
    with pytest.raises(InputError, match="has braces") as raised:
        make_workspace(refused_folder, tmp_path / "source {y}", "text", encoder="none")
    assert f"{refused_folder}/.dvc/cache" in str(raised.value)
    assert not refused_folder.exists()
