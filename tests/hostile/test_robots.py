"""Robots.txt that cannot be read (RFC 9309, 2.3.1)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback import Reply, Site, site
from visiting import IMAGES, QUICK, TEXTS, gallery, run

from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError, SourceUnreachable

PAGE = {"kind": "crawl", "item": "p", "text": "::text", **QUICK}


@contextmanager
def sites_with_robots(robots: Mapping[str, Reply]) -> Iterator[dict[str, Site]]:
    """For each name, a site with this robots.txt and a page with one text."""
    with ExitStack() as stack:
        sites = {name: stack.enter_context(site()) for name in robots}
        for name, server in sites.items():
            server.routes |= {"/": f"<p>a text of {name}</p>", "/robots.txt": robots[name]}
        yield sites


def all_pages(sites: Mapping[str, Site]) -> dict[str, Any]:
    """A source that starts at every site."""
    return {**PAGE, "start": [server.address + "/" for server in sites.values()]}


@pytest.mark.slow
def test_a_robots_txt_with_a_server_error_disallows_everything(tmp_path: Path) -> None:
    """Nothing else is requested, even if the body would allow it.

    Once the file can be read, the same visit continues.
    """
    failures = {
        str(status): Reply("User-agent: *\nAllow: /", status, "text/plain", {"Retry-After": "0"})
        for status in (500, 503, 599, 429)
    }
    with sites_with_robots(failures) as sites:
        with pytest.raises(SourceUnreachable, match="Run again later") as refused:
            run(tmp_path, TEXTS, all_pages(sites))
        for reason in ("page_robots_http_500", "page_robots_http_503", "page_robots_http_599", "page_rate_limited"):
            assert f"{reason} (1)" in str(refused.value)
        assert [server.paths() for server in sites.values()] == [[]] * len(failures)
        for server in sites.values():
            server.routes["/robots.txt"] = Reply("User-agent: *\nAllow: /", kind="text/plain")
        assert len(read(run(tmp_path, TEXTS, all_pages(sites)))) == len(failures)


def test_a_missing_robots_txt_allows_everything(tmp_path: Path) -> None:
    """A 4xx status means that the file does not exist, whatever its body."""
    missing = {
        str(status): Reply("User-agent: *\nDisallow: /", status, "text/plain")
        for status in (400, 401, 403, 404, 410, 451)
    }
    with sites_with_robots(missing) as sites:
        texts = set(read(run(tmp_path, TEXTS, all_pages(sites)))["text"])
    assert texts == {f"a text of {name}" for name in missing}


@pytest.mark.slow
def test_a_robots_txt_behind_a_redirect_is_obeyed(tmp_path: Path) -> None:
    """The target of a redirect is obeyed; an endless redirect counts as a missing file."""
    with site() as server:
        server.routes |= {"/": "<p>a text</p>", "/r": Reply("User-agent: *\nDisallow: /", kind="text/plain")}
        server.routes["/robots.txt"] = Reply("", 302, headers={"Location": "/r"})
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        with pytest.raises(InputError, match="page_robots_txt"):
            run(tmp_path / "a", TEXTS, {**PAGE, "start": server.address + "/"})
        server.routes["/robots.txt"] = Reply("", 302, headers={"Location": "/robots.txt"})
        assert len(read(run(tmp_path / "b", TEXTS, {**PAGE, "start": server.address + "/"}))) == 1


@pytest.mark.slow
def test_a_truncated_robots_txt_disallows_everything(tmp_path: Path) -> None:
    """The connection is closed in the middle of it."""
    with site() as server:
        server.routes |= {
            "/": "<p>a text</p>",
            "/robots.txt": Reply("User-agent: *\nAll", kind="text/plain", claimed_length=999),
        }
        with pytest.raises(SourceUnreachable, match="page_robots_truncated"):
            run(tmp_path, TEXTS, {**PAGE, "start": server.address + "/"})
        assert server.paths() == []


@pytest.mark.slow
def test_another_host_with_an_unreadable_robots_txt_loses_its_images_alone(tmp_path: Path) -> None:
    """The site's images are fetched; those of a host with errors, and of one that does not answer, have their reasons."""
    with site() as server, site() as other, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gallery(server)
        server.routes["/2"] = (
            f'<figure><img src="{other.address}/c.png"></figure><figure><img src="http://127.0.0.1:{closed.getsockname()[1]}/d.png"></figure>'
        )
        other.routes["/robots.txt"] = Reply("", 500)
        output = run(tmp_path, IMAGES, {"kind": "crawl", "item": "figure", "start": server.address + "/", **QUICK})
        assert other.paths() == []
    assert len(read(output)) == 2
    assert sorted(read_rejected(output)["reason"]) == ["connection_refused", "robots_http_500"]


def test_a_huge_robots_txt_is_parsed_quickly(tmp_path: Path) -> None:
    """Of a million rules, the first half megabyte is read and obeyed."""
    with site() as server:
        rules = "User-agent: *\nDisallow: /secret\n" + "Disallow: /a*b*c$\n" * 1_000_000
        server.routes |= {
            "/robots.txt": Reply(rules, kind="text/plain"),
            "/": "<p>a text</p><a rel=next href=/secret>on</a>",
        }
        output = run(tmp_path, TEXTS, {**PAGE, "start": server.address + "/"})
        assert server.paths() == ["/"]
    assert len(read(output)) == 1
