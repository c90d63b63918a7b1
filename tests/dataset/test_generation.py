"""Generations on disk: their content, and that other tools read them directly."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seedling.dataset.generation import (
    ROWS_PER_PART,
    GenerationWriter,
    Row,
    RowsOnDisk,
    check_counts,
    has_payloads,
    identify,
    payloads,
    read,
    read_manifest,
    read_rejected,
    rejected_payloads,
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


def test_pandas_reads_a_generation(tmp_path: Path) -> None:
    """The parts of a folder are Parquet files with the record's columns."""
    parts: Any = sorted(write(tmp_path / "g").glob("part-*.parquet"))  # pandas' stubs leave out the list of files
    frame = pd.read_parquet(parts)
    assert len(frame) == 5
    assert {"id", "split", "fold", "label", "label_probs", "weight", "parent_ids", "recipe", "origin", "image"} <= set(
        frame
    )
    assert frame["image"].iloc[3]["bytes"] == png(3)


def test_duckdb_reads_a_generation(tmp_path: Path) -> None:
    """SQL over the parts counts what was written."""
    folder = write(tmp_path / "g")
    counted = duckdb.sql(f"SELECT count(*), count(label) FROM '{folder}/part-*.parquet'")
    assert counted is not None
    assert counted.fetchall() == [(5, 2)]


def test_datasets_decodes_the_images(tmp_path: Path) -> None:
    """`load_dataset("parquet")` gives decoded images, by the features in the files' metadata."""
    from datasets import load_dataset

    folder = write(tmp_path / "g")
    loaded = load_dataset("parquet", data_files=str(folder / "part-*.parquet"), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded[4]["image"].size == (9, 9)
    assert loaded[4]["image"].getpixel((0, 0)) == 4


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """A generation contains neither times nor paths."""
    first, other = write(tmp_path / "first"), write(tmp_path / "other")
    for path in first.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_a_folder_without_a_manifest_is_missing(tmp_path: Path) -> None:
    """A generation that was interrupted before its manifest is missing, not incomplete."""
    folder = write(tmp_path / "g")
    (folder / "manifest.json").unlink()
    with pytest.raises(MissingGeneration, match="seedling run"):
        read(folder)


def test_lost_rows_are_an_error(tmp_path: Path) -> None:
    """The manifest is written only if rows in = kept + rejected."""
    with GenerationWriter(tmp_path / "g", stage="scrape", modality="text") as writer:
        writer.keep(Row("00", payload="one"))
        with pytest.raises(IncompleteGeneration, match="2 in, but 1 kept"):
            writer.close(rows_in=2)
    assert not (tmp_path / "g" / "manifest.json").exists()


def test_files_with_other_counts_than_the_manifest_are_an_error(tmp_path: Path) -> None:
    """The counts come from the Parquet footers, not from the writer."""
    folder = write(tmp_path / "g")
    assert rows_on_disk(folder) == RowsOnDisk(kept=5, rejected=2)
    with pytest.raises(IncompleteGeneration, match="files hold"):
        check_counts(read_manifest(folder), RowsOnDisk(kept=4, rejected=2))


def test_rejected_rows_are_kept_with_their_reason(tmp_path: Path) -> None:
    """The rejected rows have the same columns, and a reason."""
    rejected = read_rejected(write(tmp_path / "g"))
    assert rejected["reason"].tolist() == ["undecodable", "undecodable"]
    assert set(read(tmp_path / "g").columns) | {"reason"} == set(rejected.columns)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    """`stream` yields the same rows with their images, in order."""
    rows = list(stream(write(tmp_path / "g")))
    assert [row.payload for row in rows] == [png(number) for number in range(5)]
    assert [row.label for row in rows] == [None, "a", None, "a", None]


def test_payloads_yields_each_image_once(tmp_path: Path) -> None:
    """Images are joined to rows by id; an id without an image is an error."""
    folder, ids = write(tmp_path / "g"), [identify(b"2"), identify(b"4")]
    assert dict(payloads([folder], ids)) == {ids[0]: png(2), ids[1]: png(4)}
    with pytest.raises(IncompleteGeneration, match="1 rows have no image"):
        list(payloads([folder], ["nowhere"]))


def parts_of_noise(folder: Path, row_count: int) -> list[str]:
    """Write texts that do not compress, of 2,000 characters each, and return their ids."""
    rng = np.random.default_rng(0)
    ids = [identify(str(number).encode()) for number in range(row_count)]
    with GenerationWriter(folder, stage="scrape", modality="text") as writer:
        for row_id in ids:
            writer.keep(Row(row_id, payload=rng.bytes(1_000).hex()))
        writer.close(rows_in=row_count)
    return ids


def bytes_read_by(action: Callable[[], object]) -> int:
    """The bytes that this process reads from files during the call."""

    def total() -> int:
        return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])

    before = total()
    action()
    return total() - before


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by Linux's /proc")
def test_reading_few_rows_reads_few_bytes(tmp_path: Path) -> None:
    """Of 4,000 rows in about 20 parts, one row costs at most its part, and two rows at most two parts."""
    ids = parts_of_noise(tmp_path / "g", 4_000)
    parts = [path.stat().st_size for path in (tmp_path / "g").glob("part-*.parquet")]
    list(payloads([tmp_path / "g"], ids[:1]))  # reads the index
    one_row = bytes_read_by(lambda: list(payloads([tmp_path / "g"], [ids[-1]])))
    two_rows = bytes_read_by(lambda: list(payloads([tmp_path / "g"], [ids[0], ids[-1]])))
    all_rows = bytes_read_by(lambda: list(payloads([tmp_path / "g"], ids)))
    overhead = 100_000  # the manifest, and the footers of the parts
    assert one_row < max(parts) + overhead < 0.3 * sum(parts)
    assert two_rows < 2 * max(parts) + overhead
    assert 0.5 * sum(parts) < all_rows < 1.5 * sum(parts)


def test_payloads_of_a_generation_that_was_written_again_are_the_new_ones(tmp_path: Path) -> None:
    """The index of a generation is read again after the generation was replaced by another one with the same rows."""
    folder, reversed_folder = tmp_path / "g", tmp_path / "reversed"
    ids = [f"{number:032x}" for number in range(300)]
    for target, numbers in ((folder, range(300)), (reversed_folder, range(299, -1, -1))):
        with GenerationWriter(target, stage="scrape", modality="text") as writer:
            for number in numbers:
                writer.keep(Row(ids[number], payload=f"text {number}"))
            writer.close(rows_in=300)
    assert dict(payloads([folder], ids[:3])) == {ids[number]: f"text {number}" for number in range(3)}
    shutil.rmtree(folder)
    reversed_folder.rename(folder)
    assert dict(payloads([folder], ids[:3])) == {ids[number]: f"text {number}" for number in range(3)}


def test_rejected_payloads_are_read_by_id(tmp_path: Path) -> None:
    """Only those of rejected rows; ids of kept rows are left out."""
    folder = write(tmp_path / "g")
    assert dict(rejected_payloads(folder, [identify(b"r1"), identify(b"2")])) == {identify(b"r1"): b"?"}


def test_of_several_rows_with_one_id_the_first_is_read(tmp_path: Path) -> None:
    """A generation may have an id twice, under two origins; rows come in its order, whatever the order of the ids."""
    with GenerationWriter(tmp_path / "g", stage="scrape", modality="text") as writer:
        for row_id, text in (("b", "first"), ("a", "other"), ("b", "second")):
            writer.keep(Row(row_id.rjust(32, "0"), payload=text))
        writer.close(rows_in=3)
    ids = [row_id.rjust(32, "0") for row_id in ("a", "b")]
    assert [text for _, text in payloads([tmp_path / "g"], ids)] == ["first", "other"]


@pytest.mark.slow
def test_new_rows_do_not_change_earlier_parts(tmp_path: Path) -> None:
    """After 3,000 rows are added to 30,000, all old parts but the last have the same bytes."""

    def parts(row_count: int) -> set[bytes]:
        folder = tmp_path / str(row_count)
        with GenerationWriter(folder, stage="scrape", modality="text") as writer:
            for number in range(row_count):
                writer.keep(Row(identify(str(number).encode()), payload=f"text {number}"))
            writer.close(rows_in=row_count)
        return {path.read_bytes() for path in folder.glob("part-*.parquet")}

    before, after = parts(30_000), parts(33_000)
    assert len(before - after) <= 1


def test_the_id_depends_on_content_parents_and_recipe() -> None:
    """The same content with other parents or another recipe is another row."""
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
    """If the manifest exists, all parts that it names exist."""
    folder = write(tmp_path / "g")
    manifest = json.loads((folder / "manifest.json").read_text())
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "manifest.json"
    assert all((folder / part["file"]).exists() for part in manifest["parts"])


def test_reading_by_id_returns_all_rows_of_equal_ids(tmp_path: Path) -> None:
    """One image with two labels is two rows with one id, which may be in two parts."""
    same, other = identify(b"same"), identify(b"other")
    with GenerationWriter(tmp_path / "g", stage="scrape", modality="text") as writer:
        writer.keep(Row(same, label="a", origin="one/1", payload="x"))
        for number in range(ROWS_PER_PART):
            writer.keep(Row(identify(str(number).encode()), origin="one/2", payload="y"))
        writer.keep(Row(same, label="b", origin="two/1", payload="x"))
        writer.keep(Row(other, label="c", origin="two/2", payload="z"))
        writer.close(rows_in=ROWS_PER_PART + 3)
    assert len(read_manifest(tmp_path / "g").parts) > 1
    assert read(tmp_path / "g", ["label"], ids=[same])["label"].tolist() == ["a", "b"]
    assert read(tmp_path / "g", ["label"], ids=[other])["label"].tolist() == ["c"]
    assert read(tmp_path / "g", ["label"], ids=["f" * 32]).empty


def test_whether_a_generation_holds_its_images_or_texts(tmp_path: Path) -> None:
    """Scrape's does; validate's has no images, and one without rows has nothing."""
    assert has_payloads(write(tmp_path / "images"))
    assert not has_payloads(write(tmp_path / "none", rows=0))
    for modality, expected in (("image", False), ("text", True)):
        folder = tmp_path / modality
        with GenerationWriter(folder, stage="validate", modality=modality, images=False) as writer:  # type: ignore[arg-type]
            writer.keep(Row(identify(b"1"), payload="a text"))
            writer.close(rows_in=1)
        assert has_payloads(folder) is expected
    with GenerationWriter(tmp_path / "null", stage="scrape", modality="image") as writer:
        writer.keep(Row(identify(b"1")))
        writer.close(rows_in=1)
    assert not has_payloads(tmp_path / "null")
