"""Of an untrusted folder, only regular files inside it are read; links out of it, pipes and sockets are rejected with a
reason.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from seedling.config.sources import FolderSource, TableSource
from seedling.errors import InputError
from seedling.files.data_files import fault_of, files_below, inside, read_bytes
from seedling.init.create import InitFindings, InitOptions, make_workspace
from seedling.media import images
from seedling.prediction import Files, _sources
from seedling.scrape.folder import empty_classes, read_folder
from seedling.scrape.packing import pack_folder
from seedling.scrape.saved_site import serve_folder
from seedling.scrape.table import read_table

SECRET = b"SECRET KEY MATERIAL"


def image(seed: int) -> bytes:
    """Twelve by twelve random pixels."""
    return images.encode(np.random.default_rng(seed).integers(0, 255, (12, 12, 3)).astype(np.uint8))


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with two images, links of every kind, a pipe and a socket, next to a secret file."""
    folder = tmp_path / "stranger"
    cats = folder / "labeled" / "cat"
    cats.mkdir(parents=True)
    (folder / "raw" / "dog").mkdir(parents=True)
    (cats / "1.png").write_bytes(image(1))
    (folder / "raw" / "dog" / "2.png").write_bytes(image(2))
    (folder / "labeled" / "dog").symlink_to(Path("../raw/dog"))  # a class folder inside
    (cats / "3.png").symlink_to(Path("../../raw/dog/2.png"))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.png").write_bytes(SECRET)
    (cats / "key.png").symlink_to(tmp_path / "secrets" / "key.png")
    (cats / "relative.png").symlink_to(Path("../../../secrets/key.png"))
    (cats / "secrets").symlink_to(tmp_path / "secrets")
    (folder / "labeled" / "stolen").symlink_to(tmp_path / "secrets")
    (cats / "dead.png").symlink_to("nowhere.png")
    (cats / "loop.png").symlink_to("loop.png")
    (cats / "again").symlink_to("..")
    (cats / "device.png").symlink_to("/dev/zero")
    os.mkfifo(cats / "pipe.png")
    here = Path.cwd()
    os.chdir(cats)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.png")
    finally:
        os.chdir(here)
    return folder


EXPECTED = {
    "labeled/cat/1.png": None,
    "labeled/cat/3.png": None,
    "labeled/dog/2.png": None,
    "labeled/cat/key.png": "link_outside_data",
    "labeled/cat/relative.png": "link_outside_data",
    "labeled/cat/secrets": "link_outside_data",
    "labeled/stolen": "link_outside_data",
    "labeled/cat/dead.png": "broken_link",
    "labeled/cat/loop.png": "link_loop",
    "labeled/cat/again": "link_loop",
    "labeled/cat/device.png": "link_outside_data",
    "labeled/cat/pipe.png": "not_a_regular_file",
    "labeled/cat/socket.png": "not_a_regular_file",
}


def test_scrape_reads_regular_files_inside_the_folder_and_rejects_all_others(stranger: Path) -> None:
    """A link to a class folder inside is a class; nothing blocks, and no byte of the secret is read."""
    items = list(read_folder(FolderSource(kind="folder"), stranger, "image", 2**20))
    reasons = {item.origin: item.reason for item in items}
    assert reasons == EXPECTED | {"raw/dog/2.png": "outside_known_folders"}
    assert {item.label for item in items if item.reason is None} == {"cat", "dog"}
    assert all(SECRET not in item.load() for item in items if item.reason is None)
    assert empty_classes(FolderSource(kind="folder"), stranger) == []


def test_a_file_that_becomes_a_link_after_the_listing_is_not_followed(stranger: Path, tmp_path: Path) -> None:
    """The check is repeated when the file is opened."""
    items = {item.origin: item for item in read_folder(FolderSource(kind="folder"), stranger, "image", 2**20)}
    path = stranger / "labeled" / "cat" / "1.png"
    path.unlink()
    path.symlink_to(tmp_path / "secrets" / "key.png")
    with pytest.raises(OSError, match="link_outside_data"):
        items["labeled/cat/1.png"].load()


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_init_copies_no_file_from_outside_and_lists_the_omitted_ones(
    pack: bool, stranger: Path, tmp_path: Path
) -> None:
    """Loose and packed; data/ contains no link."""
    findings = InitFindings()
    workspace = make_workspace(tmp_path / "work", stranger, "image", options=InitOptions(pack=pack), findings=findings)
    copied = [path for path in (workspace / "data").rglob("*") if path.is_file() or path.is_symlink()]
    assert not any(path.is_symlink() for path in copied)
    assert not any(SECRET in path.read_bytes() for path in copied)
    assert dict(findings.left_out) == {name: reason for name, reason in EXPECTED.items() if reason is not None}


def test_packing_loses_no_file_behind_a_link(stranger: Path, tmp_path: Path) -> None:
    """The three images are rows, two of them through links."""
    import pyarrow.parquet as pq

    pack_folder(stranger, tmp_path / "data", "image", 3)
    (part,) = (tmp_path / "data" / "packed").glob("*.parquet")
    assert pq.read_table(part)["id"].to_pylist() == ["labeled/cat/1.png", "labeled/cat/3.png", "labeled/dog/2.png"]


def test_paths_in_a_table_lead_to_no_file_outside_the_data_folder(stranger: Path) -> None:
    """By a link, by dots, by an absolute path, or to a pipe."""
    names = ["1.png", "3.png", "key.png", "../../../secrets/key.png", "/etc/passwd", "pipe.png", "secrets/key.png"]
    table = stranger / "labeled" / "cat" / "table.csv"
    table.write_text("image,label\n" + "".join(f"{name},cat\n" for name in names))
    source = TableSource(kind="table", path="labeled/cat/table.csv")
    reasons = [item.reason for item in read_table(source, stranger, "image", 2**20)]
    assert reasons == [
        None,
        None,
        "link_outside_data",
        "path_outside_data",
        "path_outside_data",
        "not_a_regular_file",
        "link_outside_data",
    ]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "parts"])
def test_a_table_that_is_a_pipe_or_an_outgoing_link_is_refused(name: str, tmp_path: Path) -> None:
    """It is neither waited for nor read."""
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.parquet").write_bytes(SECRET)
    if name == "parts":
        (data / name).mkdir()
        (data / name / "0.parquet").symlink_to(tmp_path / "secret.parquet")
    else:
        os.mkfifo(data / name)
    with pytest.raises(InputError, match="is not read"):
        next(read_table(TableSource(kind="table", path=name), data, "text", 2**20))


def test_predict_of_a_folder_reads_regular_files_inside_it(stranger: Path) -> None:
    """Files that are not read have a reason in the output."""
    (files,) = _sources([str(stranger / "labeled")], "image", None)
    assert isinstance(files, Files)
    answered = {Path(answer.source).name: answer.error for answer in files}
    assert answered["pipe.png"] == "not_a_regular_file"
    assert answered["key.png"] == answered["stolen"] == answered["3.png"] == "link_outside_data"
    assert answered["1.png"] is None


def test_a_saved_site_serves_no_file_outside_its_folder(tmp_path: Path) -> None:
    """Not by a link to a file, nor by a folder whose index.html is a link."""
    import urllib.error
    import urllib.request

    site, secret = tmp_path / "data" / "site", tmp_path / "secret.html"
    (site / "inner").mkdir(parents=True)
    secret.write_bytes(SECRET)
    (site / "index.html").write_text("<p>a site</p>")
    (site / "link.html").symlink_to(secret)
    (site / "inner" / "index.html").symlink_to(secret)
    with serve_folder(site, 1000, tmp_path / "data") as address:
        assert b"a site" in urllib.request.urlopen(f"{address}/").read()
        for path in ("/link.html", "/inner/", "/inner/index.html", "/../../secret.html", "/%2e%2e/%2e%2e/secret.html"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)


def test_links_into_dvcs_cache_are_followed(tmp_path: Path) -> None:
    """With cache.type = symlink, in the workspace's cache and in a shared one elsewhere; rows and tables."""
    for name, cache in (("own", tmp_path / "own" / ".dvc" / "cache"), ("shared", tmp_path / "everybodys")):
        workspace = tmp_path / name
        (workspace / ".dvc").mkdir(parents=True)
        (workspace / "data" / "labeled" / "cat").mkdir(parents=True)
        stored = cache / "files" / "md5" / "0a" / ("b" * 30)
        stored.parent.mkdir(parents=True)
        stored.write_bytes(image(5))
        (workspace / "data" / "labeled" / "cat" / "1.png").symlink_to(stored)
        table = cache / "files" / "md5" / "0c" / ("d" * 30)
        table.parent.mkdir(parents=True)
        table.write_text("text,label\nfine,good\n")
        (workspace / "data" / "rows.csv").symlink_to(table)
        (item,) = read_folder(FolderSource(kind="folder", path="labeled"), workspace / "data", "image", 2**20)
        assert (item.reason, item.load()) == (None, image(5))
        (row,) = read_table(TableSource(kind="table", path="rows.csv"), workspace / "data", "text", 2**20)
        assert row.load() == "fine"


def test_nested_links_do_not_multiply_files(tmp_path: Path) -> None:
    """Thirty folders with two links each to the next would be a billion files."""
    root = tmp_path / "bomb"
    for level in range(30):
        (root / f"f{level}").mkdir(parents=True)
        for name in ("a", "b"):
            (root / f"f{level}" / name).symlink_to(root / f"f{level + 1}")
    (root / "f30").mkdir()
    (root / "f30" / "x.txt").write_text("x")
    files = list(files_below(root, root.resolve()))
    assert sum(fault is None for _, fault in files) == 2  # by its own path, and by the one link that is followed
    assert len(files) < 200


def test_reading_a_pipe_does_not_wait(tmp_path: Path) -> None:
    """Nor does a check of its type."""
    os.mkfifo(tmp_path / "pipe")
    assert fault_of(tmp_path / "pipe", tmp_path.resolve()) == "not_a_regular_file"
    with pytest.raises(OSError, match="not_a_regular_file"):
        read_bytes(tmp_path / "pipe")
    with pytest.raises(InputError, match="leads out"):
        inside(tmp_path, "../elsewhere")
