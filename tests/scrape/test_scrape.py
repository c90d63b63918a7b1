"""`scrape`: folders, tables and a real crawl of a server that these tests start."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ScrapeNotes
from seedling.scrape import scrape
from seedling.scrape.packing import pack_folder

IMAGES, TEXTS = WorkspaceConfig(modality="image"), WorkspaceConfig(modality="text")


def run(data: Path, config: WorkspaceConfig, *sources: dict[str, object]) -> Path:
    output = data.parent / "out"
    scrape(ScrapeParams.model_validate({"sources": list(sources)}), config, data=data, output=output)
    return output


def test_a_folder_gives_labels_splits_and_origins(make_images: Callable[..., Path]) -> None:
    """labeled/<class> is training data, test/<class> the test split, unlabeled the pool; origins are relative."""
    rows = read(run(make_images(labeled=2, pool=4, test=1), IMAGES, {"kind": "folder"}))
    assert rows.groupby("split").size().to_dict() == {"pool": 4, "test": 3, "train": 6}
    assert rows.loc[rows["origin"] == "labeled/disc/0.png", "label"].tolist() == ["disc"]
    assert rows.loc[rows["split"] == "pool", "label"].isna().all()


def test_all_images_of_a_folder_of_classes_are_labeled(make_images: Callable[..., Path]) -> None:
    """If there is no labeled/ or test/, every folder is a class."""
    root = make_images(labeled=2, pool=0, test=0) / "labeled"
    rows = read(run(root, IMAGES, {"kind": "folder"}))
    assert rows["split"].unique().tolist() == ["train"]
    assert sorted(rows["label"].unique()) == ["bar", "cross", "disc"]


def test_invalid_files_are_rejected_or_left_for_validate(make_images: Callable[..., Path]) -> None:
    """An image outside any class and a broken link have a reason; damaged files are rejected by validate."""
    root = make_images(labeled=1, pool=0, test=0)
    (root / "labeled" / "loose.png").write_bytes((root / "labeled/disc/0.png").read_bytes())
    (root / "labeled" / "disc" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "labeled" / "disc" / "torn.jpg").write_bytes(b"\xff\xd8torn")
    output = run(root, IMAGES, {"kind": "folder"})
    assert sorted(read_rejected(output)["reason"]) == ["broken_link", "outside_class_folder"]
    assert "labeled/disc/torn.jpg" in read(output)["origin"].tolist()


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    """The error says where to put images."""
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="labeled/<class>"):
        run(tmp_path / "data", IMAGES, {"kind": "folder"})


def test_a_class_without_a_file_is_named(make_images: Callable[..., Path]) -> None:
    """A class with files in another split or source is not named, nor a hidden folder; a link to a folder is followed."""
    root = make_images(labeled=1, pool=0, test=1)
    (root / "labeled" / "ring").mkdir()
    (root / "labeled" / ".hidden").mkdir()
    (root / "labeled" / "disc" / "0.png").unlink()
    (root / "labeled" / "far").symlink_to(root / "labeled" / "bar")
    (root / "more" / "labeled" / "owl").mkdir(parents=True)
    (root / "labeled" / "owl").mkdir()
    (root / "more" / "labeled" / "owl" / "1.png").write_bytes((root / "labeled/bar/0.png").read_bytes())
    output = run(root, IMAGES, {"kind": "folder"}, {"kind": "folder", "path": "more"})
    assert read_notes(output, ScrapeNotes).empty_classes == ("ring",)


def table(tmp_path: Path, name: str, content: bytes) -> Path:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / name).write_bytes(content)
    return data


CSV = b"id,text,label,split\nx1,Hello there,greet,\nx2,bye now,leave,test\nx3,what,,\nx4,odd,greet,somewhere\nx5,,greet,\nx6,unlabeled,,train\nx7,lost,,test\n"


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_the_four_kinds_of_table_give_the_same_rows(tmp_path: Path, name: str) -> None:
    """A blank label means pool, in the training split too; an id is kept in the origin; invalid rows are rejected with
    a reason.
    """
    frame = pd.read_csv(io.BytesIO(CSV), dtype=str)
    data = table(tmp_path, name, b"")
    path = data / name
    {
        "t.csv": lambda: frame.to_csv(path, index=False),
        "t.tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "t.jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "t.parquet": lambda: frame.to_parquet(path),
    }[name]()
    output = run(data, TEXTS, {"kind": "table", "path": name})
    rows, rejected = read(output), read_rejected(output)
    assert list(zip(rows["origin"], rows["text"], rows["split"], rows["label"], strict=True)) == [
        (f"{name}#x1", "Hello there", "train", "greet"),
        (f"{name}#x2", "bye now", "test", "leave"),
        (f"{name}#x3", "what", "pool", None),
        (f"{name}#x6", "unlabeled", "pool", None),
    ]
    assert dict(zip(rejected["origin"], rejected["reason"], strict=True)) == {
        f"{name}#x4": "unknown_split",
        f"{name}#x5": "empty",
        f"{name}#x7": "no_label",
    }


def test_a_missing_column_is_reported_with_the_most_similar_name(tmp_path: Path) -> None:
    """The error lists the existing columns."""
    data = table(tmp_path, "t.csv", b"txt,label\na,b\n")
    with pytest.raises(InputError, match=r"no column 'text': did you mean 'txt'\? It has txt, label"):
        run(data, TEXTS, {"kind": "table", "path": "t.csv"})


def test_sources_define_groups_of_rows(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    """By a column of a table, where a missing one raises an error; or by the first group of a pattern over paths, where
    an invalid pattern raises one.
    """
    data = table(tmp_path, "t.csv", b"text,label,page\none,a,7\ntwo,b,7\nthree,a,\n")
    rows = read(run(data, TEXTS, {"kind": "table", "path": "t.csv", "group": "page"})).set_index("text")["group"]
    assert (rows["one"], rows["two"], rows["three"]) == ("page 7", "page 7", None)
    with pytest.raises(InputError, match="no column 'pages': did you mean 'page'"):
        run(data, TEXTS, {"kind": "table", "path": "t.csv", "group": "pages"})
    images = make_images(labeled=2, pool=0, test=0)
    named = read(run(images, IMAGES, {"kind": "folder", "group": r"/(\d)\.png$"})).set_index("origin")["group"]
    assert named["labeled/disc/1.png"] == named["labeled/bar/1.png"] == "name 1"
    with pytest.raises(ValueError, match="is not a regular expression"):
        ScrapeParams.model_validate({"sources": [{"kind": "folder", "group": "("}]})
    with pytest.raises(ValueError, match="needs brackets"):
        ScrapeParams.model_validate({"sources": [{"kind": "folder", "group": "crop"}]})


def test_latin_1_is_reported_with_its_fix_and_read_with_encoding_set(tmp_path: Path) -> None:
    """The error has the byte and the setting that fixes it."""
    data = table(tmp_path, "t.csv", "text,label\ncafé,a\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"0xe9.*encoding: latin-1"):
        run(data, TEXTS, {"kind": "table", "path": "t.csv"})
    rows = read(run(data, TEXTS, {"kind": "table", "path": "t.csv", "encoding": "latin-1"}))
    assert rows["text"].tolist() == ["café"]


def test_broken_lines_are_rejected_with_a_reason(tmp_path: Path) -> None:
    """One bad line does not reject the table."""
    data = table(tmp_path, "t.jsonl", b'{"text": "one"}\n{broken\n{"text": "two"}\n')
    output = run(data, TEXTS, {"kind": "table", "path": "t.jsonl"})
    assert read(output)["text"].tolist() == ["one", "two"]
    assert read_rejected(output)["reason"].tolist() == ["not_json"]


def test_image_paths_are_read_inside_data_alone(tmp_path: Path) -> None:
    """A table cannot make the stage read a file outside the data folder."""
    Image.new("L", (9, 9), 7).save(tmp_path / "outside.png")
    data = table(tmp_path, "t.csv", b"image,label\nin.png,a\n../outside.png,a\nnone.png,b\n")
    Image.new("L", (9, 9), 9).save(data / "in.png")
    output = run(data, IMAGES, {"kind": "table", "path": "t.csv"})
    assert read(output)["origin"].tolist() == ["t.csv#1"]
    assert read_rejected(output)["reason"].tolist() == ["path_outside_data", "no_such_file"]


def test_image_bytes_in_the_hugging_face_layout_are_read(tmp_path: Path) -> None:
    """A Parquet struct of bytes and path, as `datasets` writes it."""
    Image.new("L", (9, 9), 9).save(tmp_path / "a.png")
    data = table(tmp_path, "t.parquet", b"")
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    pd.DataFrame({"image": [image], "label": ["x"]}).to_parquet(data / "t.parquet")
    output = run(data, IMAGES, {"kind": "table", "path": "t.parquet"})
    assert read(output)["label"].tolist() == ["x"]


@contextmanager
def gallery(busy: int = 0, robots: str = "", retry_after: str = "1") -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """A real server with two pages, three images and a 404; the first `busy` image requests are answered with 429."""
    requests: list[tuple[float, str]] = []
    left = [busy]
    png = io.BytesIO()
    Image.new("L", (9, 9), 9).save(png, "PNG")
    pages = {
        "/": '<p class="i"><img src="/a.png"><b>cat</b></p><p class="i"><img src="/b.png"></p><a rel="next" href="/2">n</a>',
        "/2": '<p class="i"><img src="/c.png"><b>dog</b></p><p class="i"><img src="/gone.png"></p>'
        '<p class="i"><img src="/private/d.png"></p><a rel="next" href="/">n</a>',
    }

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((time.monotonic(), self.path))
            if self.path == "/robots.txt":
                self.reply(200, robots.encode(), "text/plain")
            elif self.path in pages:
                self.reply(200, f"<html><body>{pages[self.path]}</body></html>".encode(), "text/html")
            elif "gone" in self.path:
                self.reply(404, b"", "text/plain")
            elif left[0] > 0:
                left[0] -= 1
                self.reply(429, b"", "text/plain", {"Retry-After": retry_after})
            else:
                self.reply(200, png.getvalue() + self.path.encode(), "image/png")

        def reply(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", requests
    finally:
        server.shutdown()
        server.server_close()


def source(start: str, **more: object) -> dict[str, object]:
    return {"kind": "crawl", "start": start, "item": "p.i", "tag": "b::text", "allow_private_hosts": True, **more}


def crawled(tmp_path: Path, *sources: dict[str, object]) -> Path:
    (tmp_path / "data").mkdir(exist_ok=True)
    return run(tmp_path / "data", IMAGES, *sources)


@pytest.mark.slow
def test_a_crawl_follows_pages_and_uses_tags_as_weak_labels(tmp_path: Path) -> None:
    """Three images by address; two tags become labels with the source weak:tag; a 404 is a rejected row; items have
    their page as group.
    """
    with gallery(robots="User-agent: *\nDisallow: /private/\n") as (start, requests):
        output = crawled(tmp_path, source(start, license="CC0", group_by_page=True))
    rows, rejected = read(output), read_rejected(output)
    assert rows["group"].tolist() == [f"page {start}", f"page {start}", f"page {start}2"]
    assert [origin.rsplit("/", 1)[1] for origin in rows["origin"]] == ["a.png", "b.png", "c.png"]
    assert list(zip(rows["label"], rows["label_source"], rows["split"], strict=True)) == [
        ("cat", "weak:tag", "train"),
        (None, None, "pool"),
        ("dog", "weak:tag", "train"),
    ]
    assert set(rows["license"]) == {"CC0"}
    assert sorted(rejected["reason"]) == ["http_404", "robots_txt"]
    assert not any("private" in path for _, path in requests), "robots.txt was not obeyed"


@pytest.mark.slow
def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """After a 429 with Retry-After of two seconds, no request is sent for two seconds, and nothing is lost."""
    with gallery(busy=1, retry_after="2") as (start, requests):
        output = crawled(tmp_path, source(start))
    assert len(read(output)) == 4
    times = [when for when, path in requests if path.endswith(".png")]
    assert max(after - before for before, after in pairwise(times)) >= 1.9


@pytest.mark.slow
def test_private_addresses_are_refused_unless_allowed(tmp_path: Path) -> None:
    """Loopback requires an explicit setting; the server gets no request."""
    with gallery() as (start, requests), pytest.raises(InputError, match="private_address"):
        crawled(tmp_path, {**source(start), "allow_private_hosts": False})
    assert requests == []


def test_a_saved_site_is_crawled_under_its_original_address(tmp_path: Path) -> None:
    """Origins are those of the site, whatever the port of the copy; its rate limit answers 429 and is obeyed."""
    site = tmp_path / "data" / "site"
    site.mkdir(parents=True)
    (site / "index.html").write_text('<p class="i" id="k"><b>cat</b> hello you</p><p class="i">hi</p>')
    facts_source = source(
        "http://saved.example/index.html", saved_site="site", text="::text", allow_private_hosts=False
    )
    output = run(tmp_path / "data", TEXTS, facts_source)
    rows = read(output)
    of = dict(zip(rows["text"], rows["origin"], strict=True))
    assert of["cat hello you"] == "http://saved.example/index.html#k"
    assert re.fullmatch("http://saved.example/index.html#[0-9a-f]{12}", of["hi"]), (
        "an item without an id is known by its words"
    )
    assert json.loads((output / "manifest.json").read_text())["rows"] == {"in": 2, "kept": 2, "rejected": 0}


def test_an_item_that_a_site_shows_twice_is_rejected_once(tmp_path: Path) -> None:
    """The same line twice in a table with ids gives one row and one exact_duplicate, and does not stop the pipeline."""
    data = table(tmp_path, "t.csv", b"id,text,label\nx,hello,a\nx,hello,a\nx,hello,b\n")
    output = run(data, TEXTS, {"kind": "table", "path": "t.csv"})
    assert read(output)["origin"].tolist() == ["t.csv#x", "t.csv#x#b"]
    assert read_rejected(output)["reason"].tolist() == ["exact_duplicate"]


def test_split_folders_are_recognized_in_any_case_and_stray_files_are_rejected(
    make_images: Callable[..., Path],
) -> None:
    """Test/ is the test split; a class folder and a file next to labeled/ are rejected, not ignored."""
    root = make_images(labeled=1, pool=0, test=1)
    (root / "test").rename(root / "Test")
    (root / "cats").mkdir()
    for name in ("cats/1.png", "stray.png"):
        (root / name).write_bytes((root / "labeled/disc/0.png").read_bytes())
    output = run(root, IMAGES, {"kind": "folder"})
    assert read(output).groupby("split").size().to_dict() == {"test": 3, "train": 3}
    assert read_rejected(output)["reason"].tolist() == ["outside_known_folders"] * 2


@pytest.mark.slow
def test_the_same_crawl_gives_the_same_bytes(tmp_path: Path) -> None:
    """Rows are ordered by address, not by when they came."""
    crawls = []
    with gallery() as (start, _):
        for _ in range(2):
            output = crawled(tmp_path, source(start))
            crawls.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert crawls[0] == crawls[1]


def test_a_packed_folder_gives_the_same_rows_as_the_folder(make_images: Callable[..., Path]) -> None:
    """Same ids, labels, splits and rejected files with their reasons; the origin still has the file's name."""
    images = make_images(labeled=2, pool=4, test=1)
    (images / "labeled" / "stray.png").write_bytes(b"x")
    for plain, odd in (
        ("disc", "1.0"),
        ("bar", "nan"),
        ("cross", "-1"),
    ):  # names, although a table's labels might mean others
        (images / "labeled" / plain).rename(images / "labeled" / odd)
    loose = run(images, IMAGES, {"kind": "folder"})
    data = images.parent / "elsewhere" / "data"
    assert pack_folder(images, data, "image", 14) == []
    packed = run(data, IMAGES, {"kind": "table", "path": "packed"}, {"kind": "folder", "may_be_empty": True})
    columns = ["id", "label", "split", "label_source"]
    assert read(packed)[columns].equals(read(loose)[columns])
    assert read(packed)["origin"].tolist() == [f"packed#{origin}" for origin in read(loose)["origin"]]
    for output in (packed, loose):
        assert read_rejected(output)[["origin", "reason"]].values.tolist() == [
            ["labeled/stray.png", "outside_class_folder"]
        ]
