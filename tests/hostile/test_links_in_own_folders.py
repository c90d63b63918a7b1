"""A workspace from a stranger whose own folders and files are links, or name files elsewhere: nothing outside is written, removed or read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seedling.cleaning import Keep, clean
from seedling.dataset.generation import GenerationWriter, Row, read, read_rejected
from seedling.errors import DamagedFile, InputError
from seedling.files.yaml_files import parse_yaml
from seedling.init.create import make_workspace
from seedling.lock import workspace_lock
from seedling.report.cards import Dataset


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of texts that was not run."""
    return make_workspace(tmp_path / "workspace", None, "text")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's with a file in it, beside the workspace."""
    folder = tmp_path / "home" / "Documents" / "work"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    return tmp_path / "home"


@pytest.mark.parametrize(
    "link",
    [".seedling", ".seedling/partial", ".seedling/features", "quarantine", ".dvc/cache/runs", "reports"],
)
def test_clean_removes_nothing_behind_a_link(link: str, workspace: Path, outside: Path) -> None:
    """The attack: a folder that `clean` empties is a link to the user's files."""
    path = workspace / link
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    with pytest.raises(InputError, match=r"is a link to .*, outside of the workspace"):
        clean(workspace, Keep(quarantine_days=0, feature_days=0), apply=True)
    assert (outside / "Documents/work/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("link", [".seedling/run.pid", ".seedling/run.lock", ".seedling/logs"])
def test_a_lock_writes_to_no_file_behind_a_link(link: str, workspace: Path, outside: Path) -> None:
    """The attack: every command that holds the workspace writes its process number."""
    target = outside / "Documents/work/thesis.txt"
    path = workspace / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    with pytest.raises(InputError, match="outside of the workspace"), workspace_lock(workspace):
        pass
    assert target.read_text() == "years of work"


def test_links_inside_the_workspace_stay(workspace: Path) -> None:
    """A user may put the reports elsewhere below the workspace."""
    (workspace / "pages").mkdir()
    (workspace / "reports").symlink_to("pages")
    with workspace_lock(workspace):
        pass


def generation(folder: Path, *rows: Row) -> Path:
    """A generation of these rows."""
    with GenerationWriter(folder, stage=folder.name, modality="text") as writer:
        for row in rows:
            writer.keep(row)
        writer.close(rows_in=len(rows), classes=["a"])
    return folder


def row(name: str, split: str = "train", text: str = "a text") -> Row:
    """A labeled row of this id."""
    return Row(id=name, payload=text, label="a", label_source="human", split=split, origin="o")


@pytest.mark.parametrize("name", ["../private/part-00000.parquet", "/etc/passwd", "part-0.txt"])
def test_a_generation_names_no_file_of_another_folder(name: str, tmp_path: Path) -> None:
    """The attack: a manifest whose part lies in another project, which an export would copy."""
    generation(tmp_path / "private", row("1", text="private"))
    folder = generation(tmp_path / "scrape", row("1"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parts"][0]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFile, match="not a part of a generation"):
        read(folder)


@pytest.mark.parametrize("file", ["part-00000.parquet", "rejected.parquet"])
def test_a_generation_holds_no_link_to_another_file(file: str, tmp_path: Path) -> None:
    """The same by a symbolic link."""
    generation(tmp_path / "private", row("1", text="private"))
    folder = generation(tmp_path / "scrape", row("1"))
    (folder / file).unlink()
    (folder / file).symlink_to(tmp_path / "private" / file)
    with pytest.raises(DamagedFile, match="is a link to"):
        read_rejected(folder)


@pytest.mark.parametrize(("name", "split"), [("../../x", "train"), ("/x", "train"), ("..", "train"), ("a\\b", "train")])
def test_an_export_has_no_name_that_leads_elsewhere(name: str, split: str, tmp_path: Path) -> None:
    """The attack: ids and splits are parts of the names of an export's files."""
    for stage in ("scrape", "validate"):
        generation(tmp_path / "generations" / stage, row(name, split))
    with pytest.raises(InputError, match="cannot be part of a file name"):
        Dataset.of(tmp_path, ["train"], ())


@pytest.mark.parametrize("link", ["generations", "generations/scrape", "generations/pseudo_label/1"])
def test_an_export_copies_no_rows_of_another_workspace(link: str, tmp_path: Path) -> None:
    """The attack: a generation of a stranger's workspace is a link to one of the user's."""
    private = tmp_path / "private"
    for stage in ("scrape", "validate"):
        generation(private / "generations" / stage, row("1", text="private"))
        generation(tmp_path / "stranger" / "generations" / stage, row("1"))
    path = tmp_path / "stranger" / link
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(private / "generations" / ("" if link == "generations" else "scrape"))
    with pytest.raises(InputError, match="outside of the workspace"):
        Dataset.of(tmp_path / "stranger", ["train"], ())


@pytest.mark.slow
def test_a_word_of_a_megabyte_in_a_message_takes_no_time(tmp_path: Path) -> None:
    """The parser's message repeats the name of an unknown alias: here a million letters."""
    with pytest.raises(InputError, match="not readable YAML") as caught:
        parse_yaml("a: *" + "a" * 1_000_000, tmp_path / "params.yaml")
    assert len(str(caught.value)) < 5_000
