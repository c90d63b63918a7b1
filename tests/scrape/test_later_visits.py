"""Later visits to a site: which addresses are requested again, and what happens if the parent process is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback import Reply, image, site
from pydantic import ValidationError
from visiting import CRAWL, IMAGES, QUICK, TEXTS, run

from seedling.config.sources import LabelRule
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError, SourceUnreachable
from seedling.scrape.crawl_store import CrawlStore


@pytest.mark.slow
def test_a_page_without_its_text_is_requested_again_in_the_next_visit(tmp_path: Path) -> None:
    """The second page of a sequence answers 200 without text: it is rejected in each visit until it is fixed.

    Complete pages are requested once.
    """
    with site() as server:
        server.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        server.routes["/r/2"] = "<h1>404 Not found</h1><p></p>"
        source = {"kind": "sequence", "url": server.address + "/r/{1..3}", "text": "p::text", **QUICK}
        for visit in ("1", "2"):
            server.requests.clear()
            output = run(tmp_path, TEXTS, source, as_of=visit)
            assert (len(read(output)), read_rejected(output)["reason"].tolist()) == (2, ["empty"])
        assert server.paths() == ["/r/2"]
        server.routes["/r/2"] = "<p>it came at last</p>"
        output = run(tmp_path, TEXTS, source, as_of="3")
    assert (len(read(output)), len(read_rejected(output))) == (3, 0)


@pytest.mark.slow
def test_images_behind_a_changing_redirect_are_fetched_once_with_the_pages_address(tmp_path: Path) -> None:
    """Each visit is redirected to another address.

    A known image is not requested again; one that could not be decoded is.
    """
    turns = iter(range(100))
    with site() as server:
        server.routes["/"] = '<figure><img src="/signed/a.png"></figure><figure><img src="/signed/b.png"></figure>'
        server.routes["/signed/*"] = lambda path, _: Reply(
            "", 302, headers={"Location": f"/cdn/{path[8:]}?sig={next(turns)}"}
        )
        server.routes["/cdn/a.png"] = image(40)
        server.routes["/cdn/b.png"] = "<html>come back later</html>"
        source = {**CRAWL, "start": server.address + "/"}
        first = run(tmp_path, IMAGES, source, as_of="1")
        assert read(first)["origin"].tolist() == [server.address + "/signed/a.png"]
        assert read_rejected(first)[["origin", "reason"]].to_numpy().tolist() == [
            [server.address + "/signed/b.png", "error_page"]
        ]
        server.requests.clear()
        server.routes["/cdn/b.png"] = image(90)
        second = run(tmp_path, IMAGES, source, as_of="2")
        assert [path.partition("?")[0] for path in server.paths() if path != "/"] == ["/signed/b.png", "/cdn/b.png"]
    assert read(second)["origin"].tolist() == [server.address + f"/signed/{name}.png" for name in "ab"]
    with CrawlStore(next((tmp_path / "web").glob("*.sqlite"))) as store:
        assert store.fetched(server.address + "/signed/a.png") is not None


@pytest.mark.slow
def test_an_api_that_answers_with_errors_alone_has_failed_temporarily(tmp_path: Path) -> None:
    """Its second page answers that the rate is limited: a rejected row reports it, and the same visit requests that
    page again.
    """
    limited = [True]

    def answer(_: str, body: bytes) -> Reply:
        after = json.loads(body)["variables"].get("after")
        if after and limited[0]:
            return Reply(json.dumps({"errors": [{"message": "rate limited"}], "data": None}), kind="application/json")
        page = {"nodes": [{"id": after or "0", "note": f"note {after}"}], "end": None if after else "1"}
        return Reply(json.dumps({"data": page}), kind="application/json")

    with site() as server:
        server.routes["/graph"] = answer
        source: dict[str, Any] = {
            "kind": "api",
            "url": server.address + "/graph",
            "graphql": "query { nodes }",
            "items": "data.nodes",
        }
        source |= {"id": "id", "text": "note", "next": "data.end", "cursor": "variables.after", **QUICK}
        first = run(tmp_path, TEXTS, source, as_of="1")
        assert (len(read(first)), read_rejected(first)["reason"].tolist()) == (1, ["page_graphql_errors"])
        limited[0] = False
        second = run(tmp_path, TEXTS, source, as_of="1")
    assert (read(second)["text"].tolist(), len(read_rejected(second))) == (["note None", "note 1"], 0)


@pytest.mark.soak
def test_a_browser_page_is_loaded_completely_although_it_did_not_change(tmp_path: Path) -> None:
    """The page has an unchanged ETag, and its script loads more rows.

    Without the browser, or the awaited element, the error names the fix.
    """
    page = """<div id="list"></div><script>fetch("/notes").then(told => told.json()).then(all => all.forEach(one => {
    const p = document.createElement("p"); p.id = one; p.textContent = "note " + one; list.append(p); }))</script>"""
    with site() as server:
        server.etags = True
        server.routes["/"] = page
        server.routes["/notes"] = Reply('["a", "b"]', kind="application/json")
        source = {"kind": "crawl", "start": server.address + "/", "item": "#list p", "text": "::text", "browser": True}
        source |= {
            "browser_sandbox": False,
            "browser_path": "/usr/bin/chromium",
            "wait_for": "#list p",
            "allow_private_hosts": ["127.0.0.1"],
        }
        assert len(read(run(tmp_path, TEXTS, source, as_of="1"))) == 2
        server.routes["/notes"] = Reply('["a", "b", "c"]', kind="application/json")
        assert len(read(run(tmp_path, TEXTS, source, as_of="2"))) == 3
        for more, error, message in (
            (
                {"browser_path": "/usr/bin/no-browser"},
                InputError,
                "no_browser.*set the source's `browser_path` to Chromium's path",
            ),
            ({"wait_for": "#nothing"}, SourceUnreachable, "never_shown.*fix `wait_for`"),
        ):
            folder = tmp_path / error.__name__
            folder.mkdir()
            with pytest.raises(error, match=message):
                run(folder, TEXTS, source | more)


@pytest.mark.slow
def test_a_spider_ends_when_its_parent_process_is_killed(tmp_path: Path) -> None:
    """Requests to the site stop within seconds."""
    with site() as server:
        server.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        source = {"kind": "sequence", "url": server.address + "/r/{1..100000}", "text": "p::text", **QUICK}
        request = {"source": source, "store": str(tmp_path / "web.sqlite"), "visit": 1, "proxy": None, "images": False}
        (tmp_path / "request.json").write_text(json.dumps(request), encoding="utf-8")
        code = (
            "import json, sys\n"
            "from seedling.scrape.spider_process import spider_process\n"
            "with spider_process(json.load(open(sys.argv[1])), sys.stderr) as spider:\n"
            "    spider.wait()"
        )
        leader = psutil.Popen([sys.executable, "-c", code, str(tmp_path / "request.json")], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(server.paths()) < 20:
            assert time.monotonic() < deadline, "the spider requested fewer than 20 pages within a minute"
            time.sleep(0.05)
        spiders = leader.children(recursive=True)
        assert len(spiders) == 2, "the server and its spider"
        leader.kill()
        leader.wait()
        _, left = psutil.wait_procs(spiders, timeout=20)
    assert not left


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ({"low": (0, 30), "high": (15, 60)}, "the bands of 'low' and 'high' both contain 15"),
        ({"low": (3, 1)}, "the band of 'low' is empty"),
    ],
)
def test_overlapping_and_empty_bands_are_refused(bands: dict[str, tuple[float, float]], message: str) -> None:
    """Before any request; adjacent bands are valid."""
    with pytest.raises(ValidationError, match=message):
        LabelRule(rule="size", field="size", bands=bands)
    assert LabelRule(rule="size", field="size", bands={"b": (4, 9), "a": (0, 4)}).bands
