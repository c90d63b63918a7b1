"""DVC's cache may be linked and lie elsewhere: a workspace can be created, run, changed and moved with every type."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seedling.dataset.generation import read_manifest
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.records.manifest import RowCounts
from seedling.versioning.ledger import Ledger
from seedling.versioning.repository import renew_workspace_links
from seedling.versioning.snapshot import list_data


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two class folders with four texts each, and a table."""
    for label in ("wet", "dry"):
        (tmp_path / "texts" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "texts" / label / f"{number}.txt").write_text(f"{label} weather in region {number}")
    (tmp_path / "texts" / "more.csv").write_text("text,label\nrain again,wet\nsun again,dry\n")
    return tmp_path / "texts"


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch, cache_type: str, shared: bool) -> None:
    """Write the user's DVC settings."""
    folder.mkdir()
    lines = ["[cache]", f'    type = "{cache_type}"', *([f"    dir = {folder / 'shared'}"] if shared else [])]
    (folder / "config").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(folder))


def outcome(workspace: Path) -> tuple[str, RowCounts]:
    """How scrape was brought up to date, and its row counts."""
    how = Ledger(workspace).run("scrape").how
    return how, read_manifest(workspace / "generations" / "scrape").rows


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("cache_type", ["symlink", "hardlink", "reflink,copy", "copy", "reflink,hardlink,symlink,copy"])
def test_a_workspace_works_with_every_type_of_cache(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_type: str, shared: bool
) -> None:
    """Ten rows, then eleven; after the workspace is moved nothing is computed again."""
    configure(tmp_path / "dvc", monkeypatch, cache_type, shared)
    workspace = make_workspace(tmp_path / "work", texts, "text", encoder="none")
    assert (workspace / "data" / "wet" / "0.txt").is_symlink() == (cache_type == "symlink")
    assert outcome(workspace) == ("done", RowCounts(rows_in=10, kept=10, rejected=0))
    (workspace / "data" / "wet" / "new.txt").write_text("drizzle")
    assert outcome(workspace) == ("done", RowCounts(rows_in=11, kept=11, rejected=0))
    workspace.rename(tmp_path / "moved")
    assert outcome(tmp_path / "moved") == ("unchanged", RowCounts(rows_in=11, kept=11, rejected=0))
    (tmp_path / "moved" / "data" / "dry" / "0.txt").read_text()


@pytest.mark.parametrize("shared", [False, True])
def test_links_into_the_cache_are_valid_after_init_and_after_a_move(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """DVC's links are absolute, and `init` makes the workspace in a folder of another name."""
    configure(tmp_path / "dvc", monkeypatch, "symlink", shared)
    workspace = make_workspace(tmp_path / "work", texts, "text", encoder="none")
    assert (workspace / "data" / "wet" / "0.txt").is_symlink()
    assert (workspace / "data" / "wet" / "0.txt").read_text() == "wet weather in region 0"
    moved = workspace.rename(tmp_path / "moved")
    renew_workspace_links(moved)
    assert (moved / "data" / "wet" / "0.txt").read_text() == "wet weather in region 0"


@pytest.mark.slow
def test_a_dvcignore_in_data_is_refused(texts: Path, tmp_path: Path) -> None:
    """It would hide rows from the run; `init` does not copy it."""
    (texts / ".dvcignore").write_text("wet/\n")
    workspace = make_workspace(tmp_path / "work", texts, "text", encoder="none")
    assert outcome(workspace) == ("done", RowCounts(rows_in=10, kept=10, rejected=0))
    (workspace / "data" / ".dvcignore").write_text("wet/\n")
    with pytest.raises(InputError, match=r"data/\.dvcignore would hide files"):
        outcome(workspace)


@pytest.mark.slow
def test_files_hidden_by_the_workspaces_dvcignore_are_reported(
    texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With their number and the first of them."""
    workspace = make_workspace(tmp_path / "work", texts, "text", encoder="none")
    (workspace / ".dvcignore").write_text("data/wet/\n")
    (workspace / "data" / "dry" / "5.txt").write_text("a breeze")
    assert outcome(workspace)[1] == RowCounts(rows_in=7, kept=7, rejected=0)
    assert "4 files of data/ are hidden from DVC" in caplog.text


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so as root the block runs as another user."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_an_error() -> None:
    """Otherwise its class would be missing from the run without a message."""
    with tempfile.TemporaryDirectory() as top:
        data = Path(top, "data")
        for label in ("a", "b"):
            (data / label).mkdir(parents=True)
            (data / label / "1.txt").write_text(label)
        Path(top).chmod(0o755)  # for the other user
        with as_nobody():
            assert sorted(list_data(data).files) == ["a/1.txt", "b/1.txt"]
        (data / "b").chmod(0)
        with as_nobody(), pytest.raises(PermissionError, match=r"data/b"):
            list_data(data)
        (data / "b").chmod(0o700)
