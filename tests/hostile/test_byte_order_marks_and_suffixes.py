"""A byte order mark is not part of a text, and `seedling predict FOLDER` reads the files that training reads."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from folder_trees import image, scraped

from seedling.files.data_files import decode_text, read_text
from seedling.media import texts
from seedling.prediction import Files, _lines, _sources

MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
def test_a_marked_text_file_is_read_without_the_mark(tmp_path: Path, encoding: str) -> None:
    """In training and in predict, the row is that of the file without the mark."""
    content = MARKS[encoding] + "größer\r\nals 5 €".encode(encoding)
    assert decode_text(content) == "größer\r\nals 5 €"
    data = tmp_path / "data"
    for kind in ("a", "b"):
        (data / kind).mkdir(parents=True)
        (data / kind / "1.txt").write_bytes(content)
    assert read_text(data / "a" / "1.txt") == "größer\nals 5 €"
    result = scraped(data, tmp_path / "out", [{"kind": "folder"}], "text")
    assert set(result.kept) == {"a/1.txt", "b/1.txt"}
    (files,) = _sources([str(data)], "text", None)
    assert {question.payload for question in files} == {"größer\r\nals 5 €"}


def test_bytes_that_are_not_text_are_rejected(tmp_path: Path) -> None:
    """Also with a UTF-16 mark and an incomplete last character."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.txt").write_bytes(codecs.BOM_UTF16_LE + b"a\x00b")
    result = scraped(tmp_path / "data", tmp_path / "out", [{"kind": "folder"}], "text")
    assert result.rejected == {"a/1.txt": "not_utf8"}


def test_a_mark_on_standard_input_is_not_part_of_the_first_line() -> None:
    """Neither of a text nor of an image's path."""
    file = io.TextIOWrapper(io.BytesIO(codecs.BOM_UTF8 + b"first\r\nsecond\n"), encoding="ascii")
    assert [question.payload for question in _lines(file, "text")] == ["first", "second"]


def test_a_path_on_standard_input_may_have_any_bytes(tmp_path: Path) -> None:
    """Also after a mark."""
    name = tmp_path / "caf\udce9.png"
    name.write_bytes(image(1))
    file = io.TextIOWrapper(io.BytesIO(codecs.BOM_UTF8 + str(name).encode("utf-8", "surrogateescape") + b"\n"))
    (question,) = _lines(file, "image")
    assert question.payload == image(1)


def test_a_mark_inside_a_table_or_a_request_is_dropped_too() -> None:
    """The row is the same for every kind of input."""
    assert texts.clean("\ufeff\ufeffgood") == texts.clean("good")
    assert texts.clean("go\ufeffod") == "go\ufeffod"  # inside, it is a character of the text


def test_predict_reads_the_images_of_a_folder_by_content(tmp_path: Path) -> None:
    """Any suffix, no suffix, and links; hidden files and files that are not images are counted as omitted."""
    done, jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8))
    assert done
    top = tmp_path / "images"
    (top / "below").mkdir(parents=True)
    for name in ("a.jfif", "b.jpe", "c", "d.JPG", "below/e.image"):
        (top / name).write_bytes(jpeg.tobytes())
    (top / "link").symlink_to("c")
    (top / "broken.png").write_bytes(b"no image at all")
    for name in ("notes.txt", "t.csv", "._a.jfif"):
        (top / name).write_bytes(b"no image")
    (top / ".cache").mkdir()
    (top / ".cache" / "f.png").write_bytes(jpeg.tobytes())
    (files,) = _sources([str(top)], "image", None)
    assert isinstance(files, Files)
    assert [path.relative_to(top).as_posix() for path in files.paths] == [
        *("a.jfif", "b.jpe", "broken.png", "c", "d.JPG", "link", "below/e.image")
    ]
    assert sorted(Path(name).name for name in files.skipped) == ["._a.jfif", "f.png", "notes.txt", "t.csv"]
