"""Limits on a site: headers without an end, and more bytes than a source may download."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from loopback import Reply, image, site
from visiting import CRAWL, IMAGES, QUICK, TEXTS, run

from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ScrapeNotes

MEGABYTES_SENT = 30


@contextmanager
def endless(begin: bytes, repeated: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server without robots.txt that answers each request with `begin` and then 30 megabytes of `repeated`.

    Yields its URL, and the number of bytes sent per answer.
    """
    sent = list[int]()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if b"robots.txt" in connection.recv(65_536).partition(b"\r\n")[0]:
                connection.sendall(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            number = len(sent)
            sent.append(0)
            connection.sendall(begin)
            block = repeated * (65_536 // len(repeated))
            while sent[number] < MEGABYTES_SENT * 2**20:
                connection.sendall(block)
                sent[number] += len(block)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", sent


ENDLESS_HEADS = {  # how the answer begins, and what is repeated
    "many headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 1_000 + b"\r\n"),
    "a folded header": (b"HTTP/1.1 200 OK\r\nX-A: a\r\n", b" " + b"a" * 1_000 + b"\r\n"),
    "endless 1xx answers": (b"", b"HTTP/1.1 100 Continue\r\nX-A: a\r\n\r\n"),
    "a long line": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
}


@pytest.mark.slow
def test_headers_without_an_end_are_given_up(tmp_path: Path) -> None:
    """After some hundred kilobytes, which fit in the sockets' buffers, and not when the site stops sending."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(endless(*head)) for name, head in ENDLESS_HEADS.items()}
        starts = [address + "/" for address, _ in servers.values()]
        with pytest.raises(InputError) as refused:
            run(tmp_path, TEXTS, {"kind": "crawl", "start": starts, "item": "p", **QUICK})
        assert "too_many_header_bytes (3)" in str(refused.value), "Twisted itself limits the length of a line"
        for name, (_, sent) in servers.items():
            assert sent and max(sent) < 10 * 2**20, name


def test_long_headers_are_read(tmp_path: Path) -> None:
    """Forty kilobytes of headers, which real sites may send."""
    with site() as server:
        server.routes["/"] = Reply("<p>a text</p>", headers={f"X-{number}": "a" * 1_000 for number in range(40)})
        assert (
            len(read(run(tmp_path, TEXTS, {"kind": "crawl", "start": server.address + "/", "item": "p", **QUICK}))) == 1
        )


@pytest.mark.slow
def test_a_source_downloads_no_more_than_its_limit(tmp_path: Path) -> None:
    """Twenty images of a hundred kilobytes with a limit of half a megabyte: some are kept, the rest are rejected and
    counted, and the visit is finished.
    """
    with site() as server:
        server.routes["/"] = "".join(f'<figure><img src="{number}.png"></figure>' for number in range(20))
        server.routes |= {
            f"/{number}.png": Reply(image(number * 7) + bytes(100_000), kind="image/png", hold=0.02)
            for number in range(20)
        }
        source = {
            **CRAWL,
            "start": server.address + "/",
            "max_source_megabytes": 0.5,
            "requests_per_second": 10,
            "fixed_pace": True,
        }
        output = run(tmp_path, IMAGES, source)
        request_count = len(server.requests)
        run(tmp_path, IMAGES, source)
        assert len(server.requests) == request_count, "the visit is finished"
    kept, rejected = read(output), read_rejected(output)
    assert 1 <= len(kept) <= 5
    assert set(rejected["reason"]) == {"source_too_large"}
    assert len(kept) + len(rejected) == 20


@pytest.mark.slow
def test_pages_end_at_the_limit_of_the_source(tmp_path: Path) -> None:
    """A site with endless pages: the crawl stops, and the manifest has the reason."""
    with site() as server:
        server.routes["/*"] = lambda path, _: Reply(
            f"<p>text {path}</p><!--{'x' * 100_000}--><a rel=next href='{path}1'>on</a>"
        )
        source = {
            "kind": "crawl",
            "start": server.address + "/",
            "item": "p",
            "text": "::text",
            "max_source_megabytes": 0.5,
            **QUICK,
        }
        output = run(tmp_path, TEXTS, source)
        assert 1 <= len(server.paths()) <= 6
    notes = next(iter(read_notes(output, ScrapeNotes).no_items.values()), {})
    reasons = set(read_rejected(output)["reason"])
    assert "beyond_max_source_megabytes" in notes or "page_source_too_large" in reasons
