"""Every file of data/ is a row, belongs to a source, or is listed as ignored; tables next to folders hide neither."""

from __future__ import annotations

import csv
import os
import re
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folder_trees import fill, image, scraped, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedling.config.params import ValidateParams, WorkspaceConfig, load
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.files.ignored_files import shown_name, write_ignored
from seedling.init.create import InitFindings, InitOptions, _sources, make_workspace
from seedling.init.data_layout import check_split_names
from seedling.init.table_sources import TableOptions
from seedling.records.stage_notes import FilesRecord
from seedling.report.data_page import write_data_page
from seedling.validate import validate

FOLDER = {"kind": "folder", "path": "."}


def sources_of(
    source: Path, modality: Modality = "image", by_source: bool | None = None, columns: dict[str, str] | None = None
) -> list[str]:
    """The kinds and paths that `seedling init` would write into params.yaml."""
    return [line.strip("{}") for line in _sources(source, modality, by_source, TableOptions(columns or {}))]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two class folders with five images each."""
    fill(tmp_path / "source" / "disc", 5)
    fill(tmp_path / "source" / "square", 5, 100)
    return tmp_path / "source"


def test_annotations_of_another_tool_do_not_affect_the_class_folders(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is reported, and counted as a rejected row."""
    write_table(classes / "_annotations.csv", ("file", "width", "xmin"), [("000.png", 48, 3)])
    assert sources_of(classes) == ["kind: folder, path: ."]
    assert "Not read: _annotations.csv" in capsys.readouterr().err
    result = scraped(classes, classes.parent / "out", [FOLDER])
    assert len(result.kept) == 10
    assert result.rejected == {"_annotations.csv": "outside_class_folder"}
    assert result.files == FilesRecord(files_in=11, read=11, ignored={})


def test_a_table_of_missing_images_does_not_affect_the_class_folders(classes: Path) -> None:
    """For example, a table with file names without their folder."""
    write_table(classes / "boxes.csv", ("image", "label"), [("000.png", "disc"), ("001.png", "square")])
    assert sources_of(classes) == ["kind: folder, path: ."]


def test_a_table_without_labels_does_not_affect_the_class_folders(classes: Path) -> None:
    """For example, a metadata.csv with captions."""
    write_table(classes / "m.csv", ("image", "caption"), [(f"disc/{n:03d}.png", "x") for n in range(5)])
    assert sources_of(classes) == ["kind: folder, path: ."]


def test_a_table_of_labeled_images_is_read_next_to_the_pool(tmp_path: Path) -> None:
    """Each image is one row, either of the table or of the pool."""
    source = tmp_path / "source"
    fill(source / "imgs", 6)
    fill(source / "unlabeled", 4, 100)
    write_table(source / "labels.csv", ("image", "label"), [(f"imgs/{n:03d}.png", "ab"[n % 2]) for n in range(6)])
    assert [line.split(",")[0] for line in sources_of(source)] == ["kind: folder", "kind: table"]
    result = scraped(source, tmp_path / "out", [FOLDER, {"kind": "table", "path": "labels.csv"}])
    assert sorted(result.kept.values(), key=str) == sorted(
        [("pool", None)] * 4 + [("train", "a")] * 3 + [("train", "b")] * 3, key=str
    )
    assert result.rejected == {}
    assert result.files == FilesRecord(files_in=11, read=11, ignored={})


def test_a_table_with_half_of_the_images_does_not_hide_the_other_half(classes: Path) -> None:
    """The names of the folders are the labels of the table, so the folders are read too, and no image twice."""
    rows = [(f"{kind}/{n:03d}.png", kind) for kind in ("disc", "square") for n in range(3)]
    write_table(classes / "checked.csv", ("image", "label"), rows)
    assert [line.split(",")[0] for line in sources_of(classes)] == ["kind: folder", "kind: table"]
    result = scraped(classes, classes.parent / "out", [FOLDER, {"kind": "table", "path": "checked.csv"}])
    assert len(result.kept) == 10
    assert sum(origin.startswith("checked.csv#") for origin in result.kept) == 6
    assert result.files == FilesRecord(files_in=11, read=11, ignored={})


def test_a_table_that_contradicts_a_folder_gives_both_rows(classes: Path) -> None:
    """Validate then rejects them as conflicting labels."""
    write_table(classes / "checked.csv", ("image", "label"), [("disc/000.png", "square")])
    result = scraped(classes, classes.parent / "out", [FOLDER, {"kind": "table", "path": "checked.csv"}])
    assert result.kept["disc/000.png"] == ("train", "disc")
    assert result.kept["checked.csv#1"] == ("train", "square")


def test_folders_that_are_not_classes_are_not_used_as_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images in `images` that the table does not name are ignored, and both init and scrape report their number."""
    source = tmp_path / "source"
    fill(source / "images", 6)
    write_table(source / "labels.csv", ("image", "label"), [(f"images/{n:03d}.png", "ab"[n % 2]) for n in range(4)])
    assert [line.split(",")[0] for line in sources_of(source)] == ["kind: table"]
    assert "2 files are in no table" in capsys.readouterr().err
    result = scraped(source, tmp_path / "out", [{"kind": "table", "path": "labels.csv"}])
    assert result.ignored == {"images/004.png": "no_source_reads_it", "images/005.png": "no_source_reads_it"}
    assert result.files == FilesRecord(files_in=7, read=5, ignored={"no_source_reads_it": 2})


def test_columns_that_the_user_names_must_exist(classes: Path) -> None:
    """With named columns, a table is not treated as another tool's file."""
    write_table(classes / "t.csv", ("path", "kind"), [("disc/000.png", "disc")])
    with pytest.raises(InputError, match="has no column 'file'"):
        sources_of(classes, columns={"image": "file"})


def test_texts_are_read_next_to_a_table_with_other_columns(tmp_path: Path) -> None:
    """The table is reported; without other files, the missing column is an error."""
    source = tmp_path / "source"
    for kind in ("good", "bad"):
        (source / kind).mkdir(parents=True)
        (source / kind / "1.txt").write_text(f"a {kind} text")
    write_table(source / "log.csv", ("when", "who"), [("today", "me")])
    assert sources_of(source, "text") == ["kind: folder, path: ."]
    shutil.rmtree(source / "good")
    shutil.rmtree(source / "bad")
    with pytest.raises(InputError, match="has no column 'text'"):
        make_workspace(tmp_path / "work", source, "text")


HIDDEN_FILES = {
    ".net/1.txt": "hidden",
    "good/.2.txt": "hidden",
    "good/.DS_Store": "hidden",
    "good/Thumbs.db": "system_file",
    "__MACOSX/good/1.txt": "system_file",
    ".git/config": "version_control",
    ".dvcignore": "version_control",
    "bad/.gitignore": "version_control",
    "bad/caf\udce9.txt": "name_not_utf8",
}


@pytest.mark.parametrize("pack", [True, False])
def test_names_that_begin_with_a_dot_are_counted_and_reported(tmp_path: Path, pack: bool) -> None:
    """`init` copies none of them, lists each in not_copied.csv, and DVC takes the rest."""
    source = tmp_path / "source"
    for name in [*HIDDEN_FILES, "good/1.txt", "bad/1.txt"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"text of {name!a}\n")
    findings = InitFindings()
    workspace = make_workspace(tmp_path / "work", source, "text", options=InitOptions(pack=pack), findings=findings)
    assert dict(findings.left_out) == HIDDEN_FILES
    with (workspace / "not_copied.csv").open(newline="") as file:
        listed = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {name.replace("\udce9", "\ufffd"): reason for name, reason in HIDDEN_FILES.items()}
    result = scraped(
        workspace / "data",
        tmp_path / "out",
        [source_config.model_dump() for source_config in load(workspace).scrape.sources],
        "text",
    )
    assert len(result.kept) == 2
    assert result.files.ignored == {}


def test_hidden_files_that_are_added_later_are_listed_by_scrape(tmp_path: Path) -> None:
    """Also placeholders of empty folders, and code that params.yaml does not name."""
    data = tmp_path / "data"
    fill(data / "labeled" / "a", 2)
    fill(data / ".net", 1, 50)
    (data / "labeled" / "a" / "._000.png").write_bytes(b"resource fork")
    (data / "labeled" / "b").mkdir()
    (data / "labeled" / "b" / ".keep").touch()
    (data / "augmenting.py").write_text("")
    result = scraped(data, tmp_path / "out", [FOLDER])
    assert result.ignored == {
        ".net/000.png": "hidden",
        "augmenting.py": "code",
        "labeled/a/._000.png": "hidden",
        "labeled/b/.keep": "placeholder",
    }
    assert result.files == FilesRecord(files_in=6, read=2, ignored={"code": 1, "hidden": 2, "placeholder": 1})


@pytest.mark.parametrize(
    "names", [("beach", "park", "pool"), ("valid", "invalid"), ("test", "train"), ("Train", "Bus", "Tram")]
)
def test_classes_named_like_a_split_require_an_option(tmp_path: Path, names: tuple[str, ...]) -> None:
    """`--by-class` makes each a class; without it init raises an error."""
    source = tmp_path / "source"
    for number, name in enumerate(names):
        fill(source / name, 2, 100 * number)
    with pytest.raises(InputError, match="Use --by-class"):
        sources_of(source)
    assert sources_of(source, by_source=False) == ["kind: folder, path: ., by_class: true"]
    result = scraped(source, tmp_path / "out", [{**FOLDER, "by_class": True}])
    assert sorted(result.kept.values()) == sorted([("train", name) for name in names] * 2)


def test_folders_of_splits_require_no_option(tmp_path: Path) -> None:
    """If one of them holds class folders, or a name is unambiguous."""
    for number, name in enumerate(("train/cat", "train/dog", "test/cat", "pool", "labeled/x", "unlabeled")):
        fill(tmp_path / name, 1, number)
    for names in (("train", "test", "pool"), ("train", "pool"), ("labeled", "unlabeled"), ("unlabeled", "pool")):
        check_split_names([tmp_path / name for name in names])


NAMES = [
    "cat",
    "dog",
    "labeled",
    "train",
    "test",
    "unlabeled",
    "pool",
    "val",
    ".net",
    "__MACOSX",
    "a b",
    "ü",
    "[x]",
    "{y}",
    ".git",
]
FILES = [
    "1.png",
    "2.PNG",
    ".hidden.png",
    "Thumbs.db",
    "x",
    "notes.txt",
    "t.csv",
    "labeling.py",
    "run.sh",
    "é.jpg",
    "\udce9.png",
    ".keep",
]
KINDS = [
    "image",
    "image",
    "image",
    "junk",
    "dead link",
    "link inside",
    "link outside",
    "pipe",
    "link up",
    "link to itself",
]
PATHS = st.lists(st.sampled_from(NAMES), max_size=3)
TREES = st.dictionaries(st.tuples(PATHS.map("/".join), st.sampled_from(FILES)), st.sampled_from(KINDS), max_size=14)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=TREES)
def test_files_in_are_rows_kept_rejected_and_ignored(tree: dict[tuple[str, str], str]) -> None:
    """For any folder tree, each file and link of os.walk is in exactly one of the three lists, and no special file
    blocks.
    """
    top = Path(tempfile.mkdtemp())
    try:
        data = top / "data"
        fill(data / "cat", 1, 999)
        (top / "outside.png").write_bytes(image(7))
        for number, ((folder, name), kind) in enumerate(sorted(tree.items())):
            path = data / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "image":
                path.write_bytes(image(number))
            elif kind == "junk":
                path.write_bytes(f"junk {number}".encode())
            elif kind == "dead link":
                path.symlink_to("nowhere")
            elif kind == "link inside":
                path.symlink_to(data / "cat" / "000.png")
            elif kind == "link outside":
                path.symlink_to(top / "outside.png")
            elif kind == "link to itself":
                path.symlink_to(path.name)
            elif kind == "link up":
                path.symlink_to(data)
            else:
                os.mkfifo(path)
        result = scraped(data, top / "out", [FOLDER])
        lists = [set(result.kept), set(result.rejected), set(result.ignored)]
        listed = set().union(*lists)
        assert sum(map(len, lists)) == len(listed) == result.files.files_in
        assert result.files.read == len(lists[0]) + len(lists[1])
        walked = {
            shown_name((Path(folder) / name).relative_to(data).as_posix())
            for folder, folders, names in os.walk(data)
            for name in [*names, *(folder_name for folder_name in folders if (Path(folder) / folder_name).is_symlink())]
        }
        assert {name for name in walked if ".git" not in name.split("/")} == listed
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize("embedded", [True, False])
def test_parquet_tables_of_images_and_of_paths_are_read_next_to_the_pool(tmp_path: Path, embedded: bool) -> None:
    """Images that are named by path are rows of the table; images embedded in the table do not affect the folders."""
    source = tmp_path / "source"
    fill(source / "imgs", 4)
    fill(source / "unlabeled", 2, 100)
    paths = [f"imgs/{number:03d}.png" for number in range(4)]
    cells = [{"bytes": image(500 + n) if embedded else None, "path": path} for n, path in enumerate(paths)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, kind), "label": ["a", "b"] * 2}), source / "t.parquet")
    result = scraped(source, tmp_path / "out", [FOLDER, {"kind": "table", "path": "t.parquet"}])
    assert len(result.kept) == 6
    assert set(result.rejected.values()) == ({"outside_known_folders"} if embedded else set())
    assert result.files == FilesRecord(files_in=7, read=7, ignored={})


def test_the_list_of_ignored_files_is_safe_in_a_spreadsheet(tmp_path: Path) -> None:
    """A name that a spreadsheet would execute is prefixed with an apostrophe; one that is not UTF-8 has a replacement
    character.
    """
    write_ignored(tmp_path / "ignored.csv", [("=1+1.txt", "hidden"), ("a\udce9.txt", "hidden")])
    assert (tmp_path / "ignored.csv").read_text(
        encoding="utf-8"
    ) == "file,reason\n'=1+1.txt,hidden\na\ufffd.txt,hidden\n"


def test_the_data_page_counts_ignored_files_and_files_that_init_did_not_copy(tmp_path: Path) -> None:
    """Each with its reasons and a link to the list."""
    data = tmp_path / "data"
    for number, label in enumerate(("a", "b")):
        fill(data / label, 4, 10 * number)
    (data / "a" / ".DS_Store").write_bytes(b"x")
    scraped(data, tmp_path / "generations" / "scrape", [FOLDER])
    validate(
        ValidateParams(),
        WorkspaceConfig(modality="image", seed=0),
        collected=tmp_path / "generations" / "scrape",
        output=tmp_path / "generations" / "validate",
    )
    write_ignored(tmp_path / "not_copied.csv", [("a/x", "broken_link"), ("a/y", "broken_link")])
    page = " ".join(re.sub("<[^>]*>", "", write_data_page(tmp_path).read_text(encoding="utf-8")).split())
    assert "Files ignored1 of 9 1 hidden; generations/scrape/ignored.csv lists them" in page
    assert "Files left out by init2 2 broken link; not_copied.csv lists them" in page


def test_images_of_a_flat_test_folder_are_reported_if_a_table_names_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in competition data: train.csv names the images in train/, and no table those in test/."""
    source = tmp_path / "source"
    fill(source / "train", 4)
    fill(source / "test", 3, 100)
    write_table(source / "train.csv", ("image", "label"), [(f"train/{n:03d}.png", "ab"[n % 2]) for n in range(4)])
    assert all(line.startswith("kind: table") for line in sources_of(source))
    assert "3 files are in no table, test/000.png the first" in capsys.readouterr().err


def test_a_table_may_label_images_next_to_it_and_leave_the_pool(tmp_path: Path) -> None:
    """The images that it names lie outside all class folders, and none of them is rejected."""
    source = tmp_path / "source"
    fill(source, 4)
    fill(source / "unlabeled" / "more", 3, 100)
    write_table(source / "t.csv", ("image", "label"), [(f"{n:03d}.png", "ab"[n % 2]) for n in range(4)])
    assert [line.split(",")[0] for line in sources_of(source)] == ["kind: folder", "kind: table"]
    result = scraped(source, tmp_path / "out", [FOLDER, {"kind": "table", "path": "t.csv"}])
    assert sorted(label or "" for _, label in result.kept.values()) == ["", "", "", "a", "a", "b", "b"]
    assert result.rejected == {}
    assert result.files == FilesRecord(files_in=8, read=8, ignored={})


def test_a_folder_around_the_classes_is_reported(tmp_path: Path) -> None:
    """`raw/disc` and `raw/square` make one class, `raw`: init names the subfolders and the fix."""
    for number, shape in enumerate(("disc", "square")):
        (tmp_path / "images" / "raw" / shape).mkdir(parents=True)
        (tmp_path / "images" / "raw" / shape / "1.png").write_bytes(image(number))
    findings = InitFindings()
    make_workspace(tmp_path / "workspace", tmp_path / "images", "image", encoder="none", findings=findings)
    lines = findings.preview_lines
    assert any("The folder 'raw' has disc, square: if these are the classes" in line for line in lines), lines
