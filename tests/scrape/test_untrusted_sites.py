"""Hostile web servers: malformed answers, refusals, private addresses, leaked secrets, and invalid sources."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from loopback import Reply, image, site
from pydantic import ValidationError
from visiting import CRAWL, IMAGES, QUICK, TEXTS, gallery, run

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.config.public_addresses import is_public
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError, SourceUnreachable
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ScrapeNotes


@pytest.mark.slow
@pytest.mark.parametrize("config", [IMAGES])
def test_malformed_answers_are_rejected_with_a_reason(tmp_path: Path, config: WorkspaceConfig) -> None:
    """Each malformed answer has its reason, and the valid image beside them is kept."""
    bomb = gzip.compress(b"\0" * 5_000_000)
    bad: dict[str, tuple[Any, str]] = {
        "/gone.png": (Reply("", 404), "http_404"),
        "/page.png": (Reply("<html>Sorry, not found</html>", kind="image/png"), "error_page"),
        "/shop.zip": (Reply(b"PK\x03\x04rest", kind="image/png"), "archive"),
        "/draw.svg": (Reply('<svg onload="alert(1)"/>', kind="image/svg+xml"), "svg"),
        "/none.png": (Reply(b"", kind="image/png"), "empty"),
        "/short.png": (Reply(image(9), kind="image/png", claimed_length=9_999), "truncated"),
        "/huge.png": (Reply(b"\0" * 2_000_000, kind="image/png"), "too_many_bytes"),
        "/bomb.png": (Reply(bomb, kind="image/png", headers={"Content-Encoding": "gzip"}), "too_many_bytes"),
        "/round.png": (Reply("", 302, headers={"Location": "/round2.png"}), "redirect_loop"),
        "/secret.png": (image(7), "robots_txt"),
        "/to-private.png": (Reply("", 302, headers={"Location": "http://169.254.169.254/latest"}), "private_address"),
        "/to-file.png": (Reply("", 302, headers={"Location": "file:///etc/passwd"}), "http_302"),
        "http://no-such-host.invalid/x.png": (None, "no_such_host"),
        "http://127.0.0.2:9/x.png": (None, "private_address"),
        "file:///etc/passwd": (None, "not_http"),
        "data:image/png;base64,AA==": (None, "not_http"),
    }
    with site() as server:
        server.routes |= {path: reply for path, (reply, _) in bad.items() if reply is not None}
        server.routes["/round2.png"] = Reply("", 302, headers={"Location": "/round.png"})
        server.routes["/good.png"] = image(44)
        server.routes["/robots.txt"] = Reply("User-agent: *\nDisallow: /secret", kind="text/plain")
        page = "".join(f'<figure><img src="{path}"></figure>' for path in [*bad, "/good.png"])
        port = server.address.rsplit(":", 1)[1]
        tls = f'<figure><img src="https://127.0.0.1:{port}/x.png"></figure>'  # a server that speaks no TLS
        server.routes["/"] = page + tls + "<figure>no image</figure>"
        source = {**CRAWL, "start": server.address + "/", "max_megabytes": 1, "allow_private_hosts": ["127.0.0.1"]}
        output = run(tmp_path, config, source)
    kept, rejected = read(output), read_rejected(output)
    assert [origin.rsplit("/", 1)[1] for origin in kept["origin"]] == ["good.png"]
    expected = Counter(reason for _, reason in bad.values()) + Counter(["tls_failure", "no_image"])
    assert Counter(rejected["reason"]) == expected


@pytest.mark.slow
def test_failing_pages_are_counted_and_the_crawl_continues(tmp_path: Path) -> None:
    """A broken page, an endless chain, invalid UTF-8, an error page with status 200, and one line of two million
    characters.
    """
    with site() as server:
        links = "".join(
            f'<a class="on" href="/{name}">{name}</a>' for name in ("broken", "odd", "sorry", "long", "endless/1")
        )
        server.routes["/"] = "<p>a text that is fine</p>" + links
        server.routes["/broken"] = Reply("", 500)
        server.routes["/odd"] = Reply(b"<p>caf\xe9 \xff\xfe and more</p>")
        server.routes["/sorry"] = "<h1>Sorry</h1>"
        server.routes["/long"] = "<p>" + "x" * 2_000_000 + "</p>"
        server.routes["/endless/*"] = lambda path, _: Reply(f'<a class="on" href="{path}1">on</a>')
        source = {
            **CRAWL,
            "start": server.address + "/",
            "item": "p",
            "text": "::text",
            "follow": "a.on",
            "max_pages": 20,
        }
        output = run(tmp_path, TEXTS, source)
    kept, rejected, notes = read(output), read_rejected(output), read_notes(output, ScrapeNotes)
    assert "a text that is fine" in kept["text"].tolist()
    assert any("and more" in text for text in kept["text"])
    assert sorted(rejected["reason"]) == ["page_http_500", "too_many_characters"]
    counts = next(iter(notes.no_items.values()))
    assert counts["page_without_items"] == 1
    assert counts["beyond_max_pages"] >= 1


@pytest.mark.slow
def test_a_site_that_always_refuses_is_given_up(tmp_path: Path) -> None:
    """After twelve refusals in a row no further request is sent."""
    with site() as server:
        server.routes["/*"] = Reply("slow down", 429, headers={"Retry-After": "0"})
        with pytest.raises(SourceUnreachable, match="page_rate_limited"):
            run(tmp_path, IMAGES, {**CRAWL, "start": server.address + "/"})
        assert len(server.requests) <= 30


@pytest.mark.slow
def test_one_address_that_is_always_refused_does_not_delay_the_others(tmp_path: Path) -> None:
    """An image that is always 503 is given up after four tries, one that is always 429 after six; the others are
    fetched.
    """
    with site() as server:
        names = [f"{number}.png" for number in range(30)]
        server.routes["/"] = "".join(
            f'<figure><img src="{name}"></figure>' for name in ("busy.png", "down.png", *names)
        )
        server.routes |= {f"/{name}": image(7 * number) for number, name in enumerate(names)}
        server.routes["/busy.png"] = Reply("", 429, headers={"Retry-After": "0"})
        server.routes["/down.png"] = Reply("", 503, headers={"Retry-After": "0"})
        output = run(tmp_path, IMAGES, {**CRAWL, "start": server.address + "/"})
        requests = Counter(server.paths())
    assert len(read(output)) == 30
    assert sorted(read_rejected(output)["reason"]) == ["http_503", "rate_limited"]
    assert requests["/down.png"] == 4
    assert requests["/busy.png"] == 6


@pytest.mark.slow
def test_a_robots_txt_that_disallows_everything_is_obeyed(tmp_path: Path) -> None:
    """Only robots.txt is requested, and the error names the reason."""
    with site() as server:
        server.routes["/robots.txt"] = Reply("User-agent: *\nDisallow: /", kind="text/plain")
        with pytest.raises(InputError, match="page_robots_txt"):
            run(tmp_path, IMAGES, {**CRAWL, "start": server.address + "/"})
        assert server.paths() == []


@pytest.mark.slow
def test_the_crawl_delay_of_robots_txt_is_obeyed(tmp_path: Path) -> None:
    """Half a second between requests, though the limit would allow 200 per second."""
    with site() as server:
        gallery(server)
        server.routes["/robots.txt"] = Reply("User-agent: *\nCrawl-delay: 0.5", kind="text/plain")
        run(tmp_path, IMAGES, {**CRAWL, "start": server.address + "/"})
        times = [when for when, _, path, _, _ in server.requests if path != "/robots.txt"]
    assert min(after - before for before, after in pairwise(times[1:])) > 0.45


@pytest.mark.slow
def test_the_browser_follows_no_redirect_to_a_private_host(tmp_path: Path) -> None:
    """A script's request and a navigation are redirected from an allowed host to a forbidden one, which gets no
    request.
    """
    with site() as server:
        port = server.address.rsplit(":", 1)[1]
        inside = f"http://127.0.0.1:{port}/secret"
        server.routes["/"] = (
            "<p id=a>open</p><script>fetch('/r').then(r => r.text()).then(t => { document.body.innerHTML = '<p id=a>' + t + '</p>' })</script>"
        )
        server.routes["/r"] = Reply("", 302, headers={"Location": inside})
        server.routes["/secret"] = Reply("<p>the secret</p>", headers={"Access-Control-Allow-Origin": "*"})
        source = {"kind": "crawl", "item": "p", "text": "::text", "browser": True, "browser_path": "/usr/bin/chromium"}
        source |= {"browser_sandbox": False}
        source |= {"allow_private_hosts": ["localhost"], "wait_for": "p"}
        rows = read(run(tmp_path, TEXTS, {**source, "start": f"http://localhost:{port}/"}))
        assert rows["text"].tolist() == ["open"]
        assert "/secret" not in server.paths()
        with pytest.raises(InputError):
            run(tmp_path, TEXTS, {**source, "start": f"http://localhost:{port}/r", "wait_for": None})
        assert "/secret" not in server.paths()


@pytest.mark.slow
def test_a_secret_header_is_sent_to_its_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another host drops the user's headers."""
    monkeypatch.setenv("SEEDLING_TEST_TOKEN", "s3cret")
    with site() as server, site() as other:
        other.routes["/b"] = Reply(json.dumps({"rows": ["one text", "another text"]}), kind="application/json")
        server.routes["/a"] = Reply("", 302, headers={"Location": other.address + "/b"})
        source = {
            "kind": "api",
            "url": server.address + "/a",
            "items": "rows",
            "text": "@",
            "headers": {"X-Key": "${SEEDLING_TEST_TOKEN}"},
            **QUICK,
        }
        assert len(read(run(tmp_path, TEXTS, source))) == 2
        assert [headers.get("X-Key") for _, _, path, headers, _ in server.requests if path == "/a"] == ["s3cret"]
        assert [headers.get("X-Key") for _, _, path, headers, _ in other.requests if path == "/b"] == [None]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("::1", False),
    ]
    + [
        (address, False)
        for address in (
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "fec0::1",
            "224.0.0.1",
            "100.64.0.1",
            "168.63.129.16",
            "192.0.0.8",
            "192.88.99.1",
            "3fff::1",
        )
    ],
)
def test_public_and_private_addresses_are_told_apart(address: str, public: bool) -> None:
    """Also addresses that embed an IPv4 address (RFC 4291, 6052, 3056)."""
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "crawl", "start": "http://a.example/", "item": "p["}, "item: 'p\\[' cannot be read"),
        (
            {"kind": "crawl", "start": "http://a.example/", "item": "//p[", "text": "::text"},
            "item: '//p\\[' cannot be read",
        ),
        ({"kind": "crawl", "start": "a.example", "item": "p"}, "'a.example' is not an http:// or https:// address"),
        ({"kind": "api", "url": "http://a.example/", "items": "[*", "text": "x"}, "items: '\\[\\*' cannot be read"),
        ({"kind": "api", "url": "http://a.example/", "items": "x"}, "needs `text`"),
        (
            {
                "kind": "api",
                "url": "http://a.example/",
                "items": "x",
                "text": "t",
                "headers": {"A": "${SEEDLING_NOT_SET}"},
            },
            "SEEDLING_NOT_SET, which is not set",
        ),
        (
            {"kind": "crawl", "start": "http://a.example/", "item": "p", "license": "(//b["},
            r"license: '\(//b\[' cannot be read",
        ),
    ],
)
def test_an_invalid_source_is_refused_before_any_request(tmp_path: Path, source: dict[str, Any], message: str) -> None:
    """The key, what is wrong, and where."""
    with pytest.raises(InputError, match=message):
        run(tmp_path, TEXTS, source)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"cursor": "body.page", "next": "n"}, "there is no `body`: set `body: {}`"),
        ({"cursor": "variables.after", "next": "n"}, "there is no `graphql` query"),
        ({"cursor": "query.after"}, "`next` is missing"),
    ],
)
def test_a_cursor_without_its_parameter_is_refused(more: dict[str, Any], message: str) -> None:
    """Otherwise only the first page would be requested, without a warning."""
    source = {"kind": "api", "url": "http://a.example/", "items": "x", "text": "t", **more}
    with pytest.raises(ValidationError, match=message):
        ScrapeParams.model_validate({"sources": [source]})


def test_two_sources_need_two_names(tmp_path: Path) -> None:
    """Otherwise one would overwrite the stored visits of the other."""
    source = {"kind": "crawl", "start": "http://a.example/", "item": "p", "name": "same"}
    with pytest.raises(InputError, match=r"two sources .* 'same'"):
        run(tmp_path, TEXTS, source, {**source, "start": "http://b.example/"})
