"""The record: what is on disk, and that other tools read it as it stands."""

from __future__ import annotations

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seedling.dataset.generation import (
    GenerationWriter,
    Row,
    check_counts,
    identify,
    payloads,
    read,
    read_manifest,
    read_rejected,
    rows_on_disk,
    stream,
)
from seedling.errors import IncompleteGeneration, MissingGeneration


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 9), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, rows: int = 5, rejected: int = 2) -> Path:
    with GenerationWriter(folder, stage="scrape", modality="image") as writer:
        for number in range(rows):
            row = Row(identify(str(number).encode()), label="a" if number % 2 else None, payload=png(number))
            writer.keep(row)
        for number in range(rejected):
            writer.reject(Row(identify(f"r{number}".encode()), payload=b"?"), "undecodable")
        writer.close(rows_in=rows + rejected, classes=["a"])
    return folder


def test_pandas_reads_a_generation_as_it_stands(tmp_path: Path) -> None:
    """A folder's parts are plain Parquet with the record's columns."""
    frame = pd.read_parquet(sorted(write(tmp_path / "g").glob("part-*.parquet")))
    assert len(frame) == 5
    assert {"id", "split", "fold", "label", "label_probs", "weight", "parent_ids", "recipe", "origin", "image"} <= set(
        frame
    )
    assert frame["image"].iloc[3]["bytes"] == png(3)


def test_duckdb_reads_a_generation_as_it_stands(tmp_path: Path) -> None:
    """SQL over the parts counts what was written."""
    folder = write(tmp_path / "g")
    counted = duckdb.sql(f"SELECT count(*), count(label) FROM '{folder}/part-*.parquet'").fetchall()[0]
    assert counted == (5, 2)


def test_datasets_decodes_the_images_as_they_stand(tmp_path: Path) -> None:
    """`load_dataset("parquet")` gives decoded images, by the features in the files' metadata."""
    from datasets import load_dataset

    folder = write(tmp_path / "g")
    loaded = load_dataset("parquet", data_files=str(folder / "part-*.parquet"), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded[4]["image"].size == (9, 9)
    assert loaded[4]["image"].getpixel((0, 0)) == 4


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of time or place is in a generation."""
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_a_folder_without_a_manifest_counts_for_nothing(tmp_path: Path) -> None:
    """What was broken off before its manifest is missing, not half there."""
    folder = write(tmp_path / "g")
    (folder / "manifest.json").unlink()
    with pytest.raises(MissingGeneration, match="seedling run"):
        read(folder)


def test_lost_rows_are_an_error(tmp_path: Path) -> None:
    """Rows in = kept + rejected, or the manifest is not written."""
    with GenerationWriter(tmp_path / "g", stage="scrape", modality="text") as writer:
        writer.keep(Row("00", payload="one"))
        with pytest.raises(IncompleteGeneration, match="2 in, but 1 kept"):
            writer.close(rows_in=2)
    assert not (tmp_path / "g" / "manifest.json").exists()


def test_files_that_hold_other_rows_than_the_manifest_are_an_error(tmp_path: Path) -> None:
    """The count is taken from the Parquet footers, not from what the writer says of itself."""
    folder = write(tmp_path / "g")
    assert rows_on_disk(folder) == {"kept": 5, "rejected": 2}
    with pytest.raises(IncompleteGeneration, match="files hold"):
        check_counts(read_manifest(folder), {"kept": 4, "rejected": 2})


def test_rejected_rows_are_kept_with_their_reason(tmp_path: Path) -> None:
    """Nothing disappears: the dropped rows have the same columns, and why."""
    rejected = read_rejected(write(tmp_path / "g"))
    assert rejected["reason"].tolist() == ["undecodable", "undecodable"]
    assert set(read(tmp_path / "g").columns) | {"reason"} == set(rejected.columns)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Stream gives the very rows, images and all, in their order."""
    rows = list(stream(write(tmp_path / "g")))
    assert [row.payload for row in rows] == [png(number) for number in range(5)]
    assert [row.label for row in rows] == [None, "a", None, "a", None]


def test_payloads_finds_each_wanted_image_once(tmp_path: Path) -> None:
    """Images are joined to rows by id; one that is nowhere is an error."""
    folder, wanted = write(tmp_path / "g"), [identify(b"2"), identify(b"4")]
    assert dict(payloads([folder], wanted)) == {wanted[0]: png(2), wanted[1]: png(4)}
    with pytest.raises(IncompleteGeneration, match="1 rows have no image"):
        list(payloads([folder], ["nowhere"]))


def test_rows_that_come_later_leave_earlier_parts_alone(tmp_path: Path) -> None:
    """With 3,000 more rows at the end of 30,000, all parts but the last old one stay byte for byte."""

    def parts(many: int) -> set[bytes]:
        folder = tmp_path / str(many)
        with GenerationWriter(folder, stage="scrape", modality="text") as writer:
            for number in range(many):
                writer.keep(Row(identify(str(number).encode()), payload=f"text {number}"))
            writer.close(rows_in=many)
        return {path.read_bytes() for path in folder.glob("part-*.parquet")}

    before, after = parts(30_000), parts(33_000)
    assert len(before - after) <= 1


def test_the_id_depends_on_content_parents_and_recipe() -> None:
    """The same content made another way is another row."""
    ids = {
        identify(b"x"),
        identify(b"y"),
        identify(b"x", ["p"]),
        identify(b"x", ["p"], "r"),
        identify(b"x", ["q"], "r"),
    }
    assert len(ids) == 5
    assert identify(b"x", ["p"], "r") == identify(b"x", ["p"], "r")


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    """When it is there, all parts that it names are."""
    folder = write(tmp_path / "g")
    manifest = json.loads((folder / "manifest.json").read_text())
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "manifest.json"
    assert all((folder / part["file"]).exists() for part in manifest["parts"])
