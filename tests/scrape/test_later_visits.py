"""What a later visit to a site asks again, and what becomes of a visit whose leader is gone."""

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
def test_a_page_without_its_text_is_asked_again_in_the_next_visit(tmp_path: Path) -> None:
    """A sequence's second page answers 200 and holds no text: rejected in each visit, until it is mended; what is whole is asked once."""
    with site() as told:
        told.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        told.routes["/r/2"] = "<h1>404 Not found</h1><p></p>"
        source = {"kind": "sequence", "url": told.address + "/r/{1..3}", "text": "p::text", **QUICK}
        for visit in ("1", "2"):
            told.asked.clear()
            output = run(tmp_path, TEXTS, source, as_of=visit)
            assert (len(read(output)), read_rejected(output)["reason"].tolist()) == (2, ["empty"])
        assert told.paths() == ["/r/2"]
        told.routes["/r/2"] = "<p>it came at last</p>"
        output = run(tmp_path, TEXTS, source, as_of="3")
    assert (len(read(output)), len(read_rejected(output))) == (3, 0)


@pytest.mark.slow
def test_images_behind_a_changing_redirect_come_once_and_keep_the_page_s_address(tmp_path: Path) -> None:
    """Each visit's redirect would lead elsewhere; the image that is there is not asked for again, and one that is no image is."""
    turns = iter(range(100))
    with site() as told:
        told.routes["/"] = '<figure><img src="/signed/a.png"></figure><figure><img src="/signed/b.png"></figure>'
        told.routes["/signed/*"] = lambda path, _: Reply(
            "", 302, headers={"Location": f"/cdn/{path[8:]}?sig={next(turns)}"}
        )
        told.routes["/cdn/a.png"] = image(40)
        told.routes["/cdn/b.png"] = "<html>come back later</html>"
        source = {**CRAWL, "start": told.address + "/"}
        first = run(tmp_path, IMAGES, source, as_of="1")
        assert read(first)["origin"].tolist() == [told.address + "/signed/a.png"]
        assert read_rejected(first)[["origin", "reason"]].to_numpy().tolist() == [
            [told.address + "/signed/b.png", "error_page"]
        ]
        told.asked.clear()
        told.routes["/cdn/b.png"] = image(90)
        second = run(tmp_path, IMAGES, source, as_of="2")
        assert [path.partition("?")[0] for path in told.paths() if path != "/"] == ["/signed/b.png", "/cdn/b.png"]
    assert read(second)["origin"].tolist() == [told.address + f"/signed/{name}.png" for name in "ab"]
    with CrawlStore(next((tmp_path / "web").glob("*.sqlite"))) as store:
        assert store.fetched(told.address + "/signed/a.png") is not None


@pytest.mark.slow
def test_an_interface_that_answers_with_errors_alone_has_failed_for_now(tmp_path: Path) -> None:
    """Its second page says that the rate is limited: a row says so, and the same visit asks for that page again."""
    limited = [True]

    def answer(_: str, body: bytes) -> Reply:
        after = json.loads(body)["variables"].get("after")
        if after and limited[0]:
            return Reply(json.dumps({"errors": [{"message": "rate limited"}], "data": None}), kind="application/json")
        page = {"nodes": [{"id": after or "0", "note": f"note {after}"}], "end": None if after else "1"}
        return Reply(json.dumps({"data": page}), kind="application/json")

    with site() as told:
        told.routes["/graph"] = answer
        source: dict[str, Any] = {
            "kind": "api",
            "url": told.address + "/graph",
            "graphql": "query { nodes }",
            "items": "data.nodes",
        }
        source |= {"id": "id", "text": "note", "next": "data.end", "cursor": "variables.after", **QUICK}
        first = run(tmp_path, TEXTS, source, as_of="1")
        assert (len(read(first)), read_rejected(first)["reason"].tolist()) == (1, ["page_graphql_errors"])
        limited[0] = False
        second = run(tmp_path, TEXTS, source, as_of="1")
    assert (read(second)["text"].tolist(), len(read_rejected(second))) == (["note None", "note 1"], 0)


@pytest.mark.slow
def test_a_page_of_a_browser_is_asked_for_whole_though_it_did_not_change(tmp_path: Path) -> None:
    """Its shell has an ETag and stays; what its script asks for grows. Without that browser, or what is waited for, the remedy is said."""
    page = """<div id="list"></div><script>fetch("/notes").then(told => told.json()).then(all => all.forEach(one => {
    const p = document.createElement("p"); p.id = one; p.textContent = "note " + one; list.append(p); }))</script>"""
    with site() as told:
        told.etags = True
        told.routes["/"] = page
        told.routes["/notes"] = Reply('["a", "b"]', kind="application/json")
        source = {"kind": "crawl", "start": told.address + "/", "item": "#list p", "text": "::text", "browser": True}
        source |= {
            "browser_sandbox": False,
            "browser_path": "/usr/bin/chromium",
            "wait_for": "#list p",
            "allow_private_hosts": ["127.0.0.1"],
        }
        assert len(read(run(tmp_path, TEXTS, source, as_of="1"))) == 2
        told.routes["/notes"] = Reply('["a", "b", "c"]', kind="application/json")
        assert len(read(run(tmp_path, TEXTS, source, as_of="2"))) == 3
        for more, error, said in (
            (
                {"browser_path": "/usr/bin/no-browser"},
                InputError,
                "no_browser.*set the source's `browser_path` to Chromium's path",
            ),
            ({"wait_for": "#nothing"}, SourceUnreachable, "never_shown.*fix `wait_for`"),
        ):
            place = tmp_path / error.__name__
            place.mkdir()
            with pytest.raises(error, match=said):
                run(place, TEXTS, source | more)


@pytest.mark.slow
def test_no_site_is_asked_by_a_process_whose_leader_is_gone(tmp_path: Path) -> None:
    """Whoever began the visit is killed, and the site has its peace within seconds."""
    with site() as told:
        told.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        source = {"kind": "sequence", "url": told.address + "/r/{1..100000}", "text": "p::text", **QUICK}
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
        while len(told.paths()) < 20:
            assert time.monotonic() < deadline, "the spider requested fewer than 20 pages within a minute"
            time.sleep(0.05)
        spiders = leader.children(recursive=True)
        assert len(spiders) == 2, "the server and its spider"
        leader.kill()
        leader.wait()
        _, left = psutil.wait_procs(spiders, timeout=20)
    assert not left


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        ({"low": (0, 30), "high": (15, 60)}, "the bands of 'low' and 'high' both contain 15"),
        ({"low": (3, 1)}, "the band of 'low' is empty"),
    ],
)
def test_bands_that_overlap_or_hold_nothing_are_refused(bands: dict[str, tuple[float, float]], said: str) -> None:
    """Before anything is asked; bands that meet are two."""
    with pytest.raises(ValidationError, match=said):
        LabelRule(rule="size", field="size", bands=bands)
    assert LabelRule(rule="size", field="size", bands={"b": (4, 9), "a": (0, 4)}).bands
