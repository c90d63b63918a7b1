"""What `seedling init` takes a table, or a folder of tables, for: splits by file names, columns by other names, and a preview of all of it."""

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
    """A file with these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def workspace(source: Path, modality: Modality = "text", options: TableOptions | None = None) -> Path:
    """A params.yaml with the sources that init would write, beside data/."""
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
def test_the_name_of_a_file_gives_its_rows_their_split(
    names: list[str], expected: dict[str, int], tmp_path: Path
) -> None:
    """Of the Hub and of Kaggle; a file that is alone is a training table, whatever its name."""
    for number, name in enumerate(names):
        table(tmp_path / "data" / name, f"text {number},good")
    assert Counter(item.split for item in items(workspace(tmp_path / "data"))) == expected


def test_test_files_without_a_training_file_are_asked_about(tmp_path: Path) -> None:
    """Nothing would be left to learn from."""
    for name in ("test.csv", "validation.csv"):
        table(tmp_path / "data" / name, "a,good")
    with pytest.raises(InputError, match=r"none with training rows: add one, such as train\.csv"):
        workspace(tmp_path / "data")


def test_many_parquet_shards_are_one_source_whose_files_have_their_splits(tmp_path: Path) -> None:
    """Thirty shards; class numbers have the names that the Hub's features give them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data" / "data").mkdir(parents=True)
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    for number in range(30):
        rows = pa.table({"text": [f"text {number}"], "label": [number % 2]})
        rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(rows, tmp_path / "data" / "data" / f"{'test' if number < 10 else 'train'}-{number:05d}.parquet")
    made = workspace(tmp_path / "data")
    assert [source.path for source in load(made).scrape.sources] == ["data"]  # type: ignore[union-attr]
    assert Counter((item.split, item.label) for item in items(made)) == {
        ("test", "bad"): 5,
        ("test", "good"): 5,
        ("train", "bad"): 10,
        ("train", "good"): 10,
    }


def test_a_split_column_counts_before_the_name(tmp_path: Path) -> None:
    """The name is for rows whose own split is blank."""
    table(tmp_path / "data" / "train.csv", "a,good,test", "b,good,", header="text,label,split")
    table(tmp_path / "data" / "test.csv", "c,good,")
    assert [item.split for item in items(workspace(tmp_path / "data"))] == ["test", "test", "train"]


@pytest.mark.parametrize("header", ["text,sentiment", "Message,Category", " review ,TARGET"])
def test_columns_by_their_usual_other_names_are_taken_and_said(header: str, tmp_path: Path) -> None:
    """What is taken is written into params.yaml by its own name."""
    table(tmp_path / "data" / "rows.csv", "a fine day,good", "a bad day,bad", header=header)
    made = workspace(tmp_path / "data")
    (source,) = load(made).scrape.sources
    assert isinstance(source, TableSource)
    assert (source.text, source.label) == tuple(name.strip() for name in header.split(","))
    said = "\n".join(preview(made))
    assert f"label from the column '{source.label}'" in said
    assert "Classes: bad 1, good 1." in said


def test_two_columns_that_may_hold_the_labels_are_asked_about(tmp_path: Path) -> None:
    """The sentence names both."""
    table(tmp_path / "data" / "rows.csv", "a,b,c", header="text,topic,sentiment")
    with pytest.raises(InputError, match=r"'topic' and 'sentiment' may hold the labels.*--column"):
        workspace(tmp_path / "data")
    made = workspace(tmp_path / "data", options=TableOptions({"label": "topic"}))
    assert [item.label for item in items(made)] == ["b"]


def test_the_preview_shows_rows_classes_splits_and_every_rejection(tmp_path: Path) -> None:
    """Training rows without a label are the pool, and it is said; so are columns that are not read, twins, and doubtful words."""
    rows = [f"text {number},{label},train," for number, label in enumerate(["A", "a", "none", "", "['A']", ""])]
    table(
        tmp_path / "data" / "rows.csv",
        *rows,
        "lost,A",
        "c,,test,",
        "d,\x1b[31mred,train,",
        header="text,label,split,price",
    )
    said = preview(workspace(tmp_path / "data" / "rows.csv"))
    page = "\n".join(said)
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
    assert sum(line.startswith("  text") for line in said) == 5


def test_the_preview_lists_files_that_no_source_reads(tmp_path: Path) -> None:
    """Documents beside a table are named with the reason; a file that keeps an empty folder in git is not."""
    table(tmp_path / "data" / "rows.csv", "a,good", "b,bad", header="text,label")
    made = workspace(tmp_path / "data")
    (made / "data" / "more").mkdir()
    for name in ("notes.docx", "more/x.pdf", "more/.gitkeep"):
        (made / "data" / name).write_bytes(b"x")
    ignored = [line for line in preview(made) if line.startswith("Ignored")]
    assert ignored == ["Ignored, no source reads it: 2 (more/x.pdf, notes.docx)."]


def test_the_preview_says_that_a_word_and_a_digit_are_two_classes(tmp_path: Path) -> None:
    """`True` and `1` in one column may mean the same, which nobody but the user knows."""
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
def test_paths_of_images_are_found_however_they_are_written(written: str, tmp_path: Path) -> None:
    """Back slashes, absolute paths of this and of another machine, file://, blanks, another case, another folder."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    names = ["1", "2"]
    for name in names:
        Image.new("RGB", (12, 12)).save(folder / "images" / f"{name}.png")
    rows = [f"{written.replace('{folder}', str(folder)).replace('{}', name)},{name}x" for name in names]
    table(folder / "rows.csv", *rows, header="image,label")
    found = items(workspace(folder, "image"))
    assert [(item.file, item.label, item.reason) for item in found] == [
        ("images/1.png", "1x", None),
        ("images/2.png", "2x", None),
    ]


def test_paths_of_images_lead_to_no_file_outside(tmp_path: Path) -> None:
    """Not by dots, by a drive, by an address, nor by a prefix that other rows do not share."""
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
    found = [item.reason for item in Table(source, folder, "image").items(2**20)]
    assert found == list(paths.values())
