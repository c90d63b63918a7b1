"""How `seedling init` reads a table or a folder of tables: splits by file name, columns by other names, and a preview."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from seedling.config.params import load
from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.init.create import _sources
from seedling.init.data_preview import preview
from seedling.init.table_sources import TableOptions
from seedling.scrape.items import Item
from seedling.scrape.table import Table


def table(path: Path, *rows: str, header: str = "text,label") -> Path:
    """Write a file with these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def workspace(source: Path, modality: Modality = "text", options: TableOptions | None = None) -> Path:
    """A params.yaml with the sources that init would write, next to data/."""
    lines = _sources(source, modality, None, options or TableOptions())
    folder = source.parent if source.is_file() else source
    listed = "\n".join(f"    - {line}" for line in lines)
    (folder.parent / "params.yaml").write_text(
        f"pipeline_version: 18\nmodality: {modality}\nscrape:\n  sources:\n{listed}\n"
    )
    return folder.parent


def items(folder: Path) -> list[Item]:
    """All rows of all tables."""
    params, data = load(folder), folder / "data"
    tables = [source for source in params.scrape.sources if isinstance(source, TableSource)]
    return [item for source in tables for item in Table(source, data, params.modality).items(2**20)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv", "validation.csv", "test.csv"], {"train": 1, "validation": 1, "test": 1}),
        (["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv", "data/test-00000-of-00001.csv"], {"train": 2, "test": 1}),
        (["Training.tsv", "dev.tsv", "Testing.tsv"], {"train": 1, "validation": 1, "test": 1}),
        (["train/1.csv", "test/1.csv"], {"train": 1, "test": 1}),
        (["train.csv", "unlabeled.csv"], {"train": 1, "pool": 1}),
        (["latest.csv", "device.csv"], {"train": 2}),
        (["test.csv"], {"train": 1}),
    ],
)  # fmt: skip
def test_the_name_of_a_file_sets_the_split_of_its_rows(
    names: list[str], expected: dict[str, int], tmp_path: Path
) -> None:
    """For names of the Hub and of Kaggle; a single file is a training table, whatever its name."""
    for number, name in enumerate(names):
        table(tmp_path / "data" / name, f"text {number},good")
    assert Counter(item.split for item in items(workspace(tmp_path / "data"))) == expected


def test_test_files_without_a_training_file_raise_an_error(tmp_path: Path) -> None:
    """There would be no training rows."""
    for name in ("test.csv", "validation.csv"):
        table(tmp_path / "data" / name, "a,good")
    with pytest.raises(InputError, match=r"none with training rows: add one, such as train\.csv"):
        workspace(tmp_path / "data")


def test_many_parquet_shards_are_one_source_with_a_split_per_file(tmp_path: Path) -> None:
    """Thirty shards; class numbers are named by the Hub's features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data" / "data").mkdir(parents=True)
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    for number in range(30):
        rows = pa.table({"text": [f"text {number}"], "label": [number % 2]})
        rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(rows, tmp_path / "data" / "data" / f"{'test' if number < 10 else 'train'}-{number:05d}.parquet")
    new_workspace = workspace(tmp_path / "data")
    assert [source.path for source in load(new_workspace).scrape.sources] == ["data"]  # type: ignore[union-attr]
    assert Counter((item.split, item.label) for item in items(new_workspace)) == {
        ("test", "bad"): 5,
        ("test", "good"): 5,
        ("train", "bad"): 10,
        ("train", "good"): 10,
    }


def test_a_split_column_takes_precedence_over_the_file_name(tmp_path: Path) -> None:
    """The file name applies to rows with a blank split."""
    table(tmp_path / "data" / "train.csv", "a,good,test", "b,good,", header="text,label,split")
    table(tmp_path / "data" / "test.csv", "c,good,")
    assert [item.split for item in items(workspace(tmp_path / "data"))] == ["test", "test", "train"]


@pytest.mark.parametrize("header", ["text,sentiment", "Message,Category", " review ,TARGET"])
def test_columns_with_common_other_names_are_used_and_reported(header: str, tmp_path: Path) -> None:
    """Params.yaml has the column's original name."""
    table(tmp_path / "data" / "rows.csv", "a fine day,good", "a bad day,bad", header=header)
    new_workspace = workspace(tmp_path / "data")
    (source,) = load(new_workspace).scrape.sources
    assert isinstance(source, TableSource)
    assert (source.text, source.label) == tuple(name.strip() for name in header.split(","))
    preview_text = "\n".join(preview(new_workspace))
    assert f"label from the column '{source.label}'" in preview_text
    assert "Classes: bad 1, good 1." in preview_text


def test_two_possible_label_columns_raise_an_error(tmp_path: Path) -> None:
    """The message names both."""
    table(tmp_path / "data" / "rows.csv", "a,b,c", header="text,topic,sentiment")
    with pytest.raises(InputError, match=r"'topic' and 'sentiment' may hold the labels.*--column"):
        workspace(tmp_path / "data")
    new_workspace = workspace(tmp_path / "data", options=TableOptions({"label": "topic"}))
    assert [item.label for item in items(new_workspace)] == ["b"]


def test_the_preview_shows_rows_classes_splits_and_every_rejection(tmp_path: Path) -> None:
    """It reports that training rows without a label are the pool, columns that are not read, similar classes, and
    suspicious label values.
    """
    rows = [f"text {number},{label},train," for number, label in enumerate(["A", "a", "none", "", "['A']", ""])]
    table(
        tmp_path / "data" / "rows.csv",
        *rows,
        "lost,A",
        "c,,test,",
        "d,\x1b[31mred,train,",
        header="text,label,split,price",
    )
    preview_lines = preview(workspace(tmp_path / "data" / "rows.csv"))
    page = "\n".join(preview_lines)
    for part in (
        "rows.csv: 9 rows, 2 of them rejected; separated by commas.",
        "split from the column 'split'. Not read: price.",
        "  text 0  A     train",
        "  text 3  —     pool",
        "Label values: invisible or full-width characters removed (1), list of one label unpacked (1).",
        "Classes: A 2, [31mred 1, a 1, none 1.",
        "Splits: pool 2, train 5. Rows in the pool have no label.",
        "Rejected, no_label: 1 (rows.csv#8).",
        "Rejected, too_few_fields: 1 (rows.csv#line 8).",
        "'A' and 'a' differ only in case and are one class",
        "'none' (1 rows) is a class; use --no-label 'none'",
    ):
        assert part in page
    assert "\x1b" not in page
    assert sum(line.startswith("  text") for line in preview_lines) == 5


def test_the_preview_lists_files_that_no_source_reads(tmp_path: Path) -> None:
    """Documents next to a table are named with the reason; a file that keeps an empty folder in git is not."""
    table(tmp_path / "data" / "rows.csv", "a,good", "b,bad", header="text,label")
    new_workspace = workspace(tmp_path / "data")
    (new_workspace / "data" / "more").mkdir()
    for name in ("notes.docx", "more/x.pdf", "more/.gitkeep"):
        (new_workspace / "data" / name).write_bytes(b"x")
    ignored = [line for line in preview(new_workspace) if line.startswith("Ignored")]
    assert ignored == ["Ignored, no source reads it: 2 (more/x.pdf, notes.docx)."]


def test_the_preview_reports_a_word_and_a_digit_as_two_classes(tmp_path: Path) -> None:
    """`True` and `1` in one column may mean the same, which only the user knows."""
    table(tmp_path / "data" / "rows.csv", "a,True", "b,1", "c,0", header="text,label")
    doubts = [line for line in preview(workspace(tmp_path / "data" / "rows.csv")) if "two classes;" in line]
    assert doubts == ["'True' and '1' are two classes; if they mean the same, write one of them in the table."]


@pytest.mark.parametrize(
    "written",
    [
        "images\\{}.png",
        "./images/{}.png",
        " images/{}.png ",
        "images/{}.PNG",
        "{folder}/images/{}.png",
        "file://{folder}/images/{}.png",
        "C:\\Users\\somebody\\set\\images\\{}.png",
        "/home/somebody/set/images/{}.png",
        "{}.png",
    ],
)
def test_image_paths_are_resolved_in_any_notation(written: str, tmp_path: Path) -> None:
    """Backslashes, absolute paths of this and of another machine, file://, blanks, another case, another folder."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    names = ["1", "2"]
    for name in names:
        Image.new("RGB", (12, 12)).save(folder / "images" / f"{name}.png")
    rows = [f"{written.replace('{folder}', str(folder)).replace('{}', name)},{name}x" for name in names]
    table(folder / "rows.csv", *rows, header="image,label")
    table_items = items(workspace(folder, "image"))
    assert [(item.file, item.label, item.reason) for item in table_items] == [
        ("images/1.png", "1x", None),
        ("images/2.png", "2x", None),
    ]


def test_image_paths_lead_to_no_file_outside_the_data_folder(tmp_path: Path) -> None:
    """Not by dots, a drive, a URL, or a prefix that other rows do not share."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    Image.new("RGB", (12, 12)).save(folder / "images" / "1.png")
    paths = {
        "/somewhere/images/1.png": None,
        "/elsewhere/images/1.png": "path_outside_data",
        "../secret.png": "path_outside_data",
        f"{tmp_path}/secret.png": "path_outside_data",
        f"file://{tmp_path}/secret.png": "path_outside_data",
        "..\\secret.png": "path_outside_data",
        "images/../../secret.png": "path_outside_data",
        "https://example.org/1.png": "address_not_file",
        "x" * 5000: "no_such_file",
        "a\x00b": "no_such_file",
    }
    table(folder / "rows.csv", *[f"{path},a" for path in paths], header="image,label")
    source = TableSource(kind="table", path="rows.csv")
    reasons = [item.reason for item in Table(source, folder, "image").items(2**20)]
    assert reasons == list(paths.values())
