"""Sources on the web, against servers that these tests start: what is brought, what is asked again, what a stranger's bytes may not do."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import Reply, Site, picture, site

from tasks.errors import InputError, SourceUnreachable
from tasks.generation import read, read_manifest, read_rejected
from tasks.params import Facts, ScrapeParams
from tasks.scrape import scrape
from tasks.scrape.politeness import is_public

IMAGES, TEXTS = Facts(modality="image"), Facts(modality="text")
QUICK = {"allow_private_hosts": True, "requests_per_second": 200}


def run(place: Path, facts: Facts, *sources: dict[str, Any], as_of: str | None = None, **more: Any) -> Path:
    (place / "data").mkdir(exist_ok=True)
    params = ScrapeParams.model_validate({"sources": list(sources), "as_of": as_of, **more})
    scrape(params, facts, data=place / "data", output=place / "out", remembered=place / "web")
    return place / "out"


def gallery(told: Site) -> None:
    """Two pages, three pictures with words beside them."""
    told.routes |= {
        "/": '<figure id="a"><img src="a.png" alt="a black cat"><b>cat</b></figure><figure><img src="b.png" alt="my dog"></figure>'
        '<a rel="next" href="/2">next</a><a rel="license" href="https://licences.example/by">by</a><i rel="author">Ada</i>',
        "/2": '<figure><img src="c.png" alt="nobody" title="a dog"><b>dog</b></figure>',
        **{f"/{name}.png": picture(level) for name, level in (("a", 10), ("b", 60), ("c", 110))},
    }


CRAWL = {"kind": "crawl", "item": "figure", **QUICK}


def test_an_item_has_its_fields_licence_and_author(tmp_path: Path) -> None:
    """The page states its licence and author; several rules speak, and the votes are kept beside the label."""
    rules = [
        {"rule": "alt", "field": "alt", "words": {"cat": ["cat", "kitten"], "dog": ["dog"]}},
        {"rule": "caption", "field": "caption"},
        {"rule": "title", "field": "title", "pattern": "(cat|dog)"},
    ]
    with site() as told:
        gallery(told)
        source = {**CRAWL, "start": told.address + "/", "fields": {"caption": "./b/text()"}, "rules": rules}
        output = run(tmp_path, IMAGES, source)
    rows = read(output)
    assert list(zip(rows["label"], rows["label_source"], rows["confidence"], rows["weight"], strict=True)) == [
        ("cat", "weak:alt+caption", 1.0, 0.5),
        ("dog", "weak:alt", 1.0, 0.5),
        ("dog", "weak:caption+title", 1.0, 0.5),
    ]
    assert [list(votes) for votes in rows["votes"]] == [
        ["alt=cat", "caption=cat"],
        ["alt=dog"],
        ["caption=dog", "title=dog"],
    ]
    assert rows["licence"].tolist()[:2] == ["https://licences.example/by"] * 2
    assert rows["attribution"].tolist() == ["Ada", "Ada", None]
    table = {one["rule"]: one for one in read_manifest(output)["notes"]["rules"]}
    assert (table["caption"]["coverage"], table["caption"]["overlap"], table["caption"]["conflict"]) == (
        0.666667,
        0.666667,
        0,
    )


def test_a_later_visit_brings_only_what_is_new(tmp_path: Path) -> None:
    """Under the same as_of nothing is asked; under a new one pages are, on condition; pictures that are there are not; what vanished stays."""
    with site() as told:
        told.etags = True
        gallery(told)
        source = {**CRAWL, "start": told.address + "/"}
        first = read(run(tmp_path, IMAGES, source, as_of="2026-01-01"))
        assert Counter(told.paths()) == dict.fromkeys(("/", "/2", "/a.png", "/b.png", "/c.png"), 1)
        told.asked.clear()
        run(tmp_path, IMAGES, source, as_of="2026-01-01")
        assert told.asked == []

        told.routes["/2"] = '<figure><img src="d.png"></figure>'  # c has gone, d is new
        told.routes["/d.png"] = picture(160)
        second = read(run(tmp_path, IMAGES, source, as_of="2026-01-08"))
        assert sorted(told.paths()) == ["/", "/2", "/d.png"]
        conditions = {path: "If-None-Match" in headers for _, _, path, headers, _ in told.asked}
        assert conditions["/"]
        assert conditions["/2"]
        assert [one.rsplit("/", 1)[1] for one in second["origin"]] == ["a.png", "b.png", "c.png", "d.png"]
        assert set(first["id"]) < set(second["id"])

        told.asked.clear()
        run(tmp_path, IMAGES, {**source, "revisit": "all"}, as_of="2026-01-15")
        assert sorted(told.paths()) == ["/", "/2", "/a.png", "/b.png", "/d.png"]
        with pytest.raises(InputError, match=r"2026-01-10.*dvc checkout"):
            run(tmp_path, IMAGES, source, as_of="2026-01-10")


def test_a_sequence_counts_what_is_absent(tmp_path: Path) -> None:
    """Numbers keep their zeros; every third is absent and no row; later only absent ones are asked for again."""

    def report(path: str, _: bytes) -> Reply:
        number = int(path.rsplit("/", 1)[1])
        return Reply("", 404) if number % 3 == 0 else Reply(f"<p>report number {number}</p><b>{'ab'[number % 2]}</b>")

    with site() as told:
        told.routes["/r/*"] = report
        source = {
            "kind": "sequence",
            "url": told.address + "/r/{001..012}",
            "text": "p::text",
            "fields": {"class": "b::text"},
            **QUICK,
        }
        source["rules"] = [{"rule": "class", "field": "class"}]
        output = run(tmp_path, TEXTS, source, as_of="1")
        assert sorted(told.paths()) == [f"/r/{number:03d}" for number in range(1, 13)]
        rows, manifest = read(output), read_manifest(output)
        assert rows["text"].tolist() == [f"report number {number}" for number in (1, 2, 4, 5, 7, 8, 10, 11)]
        assert rows["label"].tolist() == ["b", "a", "a", "b", "b", "a", "a", "b"]
        assert manifest["rows"]["rejected"] == 0
        assert [*manifest["notes"]["no_items"].values()] == [{"absent": 4}]
        told.asked.clear()
        told.routes["/r/012"] = "<p>it came at last</p>"
        rows = read(run(tmp_path, TEXTS, source, as_of="2"))
        assert sorted(told.paths()) == ["/r/003", "/r/006", "/r/009", "/r/012"]
        assert len(rows) == 9


def test_an_interface_is_asked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON by GET with a cursor in the query, a score cut into bands, and the same by GraphQL; a secret header is sent and written nowhere."""
    pages = {"": (["0.5", "5.0"], "x"), "x": (["9.8", "none"], None)}

    def found(path: str, _: bytes) -> Reply:
        after = path.partition("after=")[2]
        scores, onward = pages[after]
        rows = [
            {"name": f"flaw {score}", "note": f"a flaw of score {score}", "cvss": {"base": score}} for score in scores
        ]
        return Reply(json.dumps({"found": rows, "next": onward}), kind="application/json")

    def graph(_: str, body: bytes) -> Reply:
        after = json.loads(body)["variables"].get("after", "")
        scores, onward = pages[after]
        nodes = [{"id": score, "note": f"another flaw of score {score}", "base": score} for score in scores]
        info = {"endCursor": onward, "hasNextPage": onward is not None}
        return Reply(json.dumps({"data": {"flaws": {"nodes": nodes, "pageInfo": info}}}), kind="application/json")

    bands = {"low": [0, 4], "medium": [4, 7], "high": [7, 9], "critical": [9, 10.1]}
    rules = [{"rule": "cvss", "field": "score", "bands": bands}]
    monkeypatch.setenv("SEEDLING_TEST_TOKEN", "s3cret")
    with site() as told:
        told.routes |= {"/flaws": found, "/graph": graph}
        by_get = {
            "kind": "api",
            "url": told.address + "/flaws",
            "items": "found",
            "id": "name",
            "text": "note",
            "next": "next",
        }
        by_get |= {"cursor": "query.after", "fields": {"score": "cvss.base"}, "rules": rules, **QUICK}
        by_get |= {"headers": {"Authorization": "Bearer ${SEEDLING_TEST_TOKEN}"}}
        by_graph = {
            "kind": "api",
            "url": told.address + "/graph",
            "graphql": "query ($after: String) { flaws }",
            **QUICK,
        }
        by_graph |= {
            "items": "data.flaws.nodes",
            "id": "id",
            "text": "note",
            "fields": {"score": "base"},
            "rules": rules,
        }
        by_graph |= {
            "next": "data.flaws.pageInfo.endCursor",
            "more": "data.flaws.pageInfo.hasNextPage",
            "cursor": "variables.after",
        }
        rows = read(run(tmp_path, TEXTS, by_get, by_graph))
        sent = {headers.get("Authorization") for _, _, path, headers, _ in told.asked if path.startswith("/flaws")}
    assert sent == {"Bearer s3cret"}
    assert rows["label"].tolist() == ["low", "medium", "critical", None] * 2
    assert rows["label_source"].dropna().unique().tolist() == ["weak:cvss"]
    assert rows["origin"].tolist()[0].endswith("/flaws#flaw 0.5")
    assert not any(b"s3cret" in path.read_bytes() for path in (tmp_path / "web").iterdir())


def test_a_hub_dataset_is_read_from_a_folder(tmp_path: Path) -> None:
    """Its own splits and class names; -1 is no label; columns are read by rules; a name that is nowhere is said."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["one", "two", "three"], "label": [1, 0, -1]}, features=features)
    (tmp_path / "data" / "hub").mkdir(parents=True)
    made.to_parquet(tmp_path / "data" / "hub" / "train-00000.parquet")
    made.select([0]).to_parquet(tmp_path / "data" / "hub" / "test-00000.parquet")
    rows = read(run(tmp_path, TEXTS, {"kind": "huggingface", "dataset": "hub"}))
    assert list(zip(rows["text"], rows["split"], rows["label"], strict=True)) == [
        ("one", "train", "yes"),
        ("two", "train", "no"),
        ("three", "pool", None),
        ("one", "test", "yes"),
    ]
    assert rows["origin"].tolist()[-1] == "hub/test#0"
    with pytest.raises(InputError, match="no column 'words': it has text, label"):
        run(tmp_path, TEXTS, {"kind": "huggingface", "dataset": "hub", "text": "words"})


@pytest.mark.parametrize("facts", [IMAGES])
def test_what_strangers_send_is_refused_under_a_reason(tmp_path: Path, facts: Facts) -> None:
    """Each broken thing has its reason, and the good picture beside them is kept."""
    bomb = gzip.compress(b"\0" * 5_000_000)
    bad: dict[str, tuple[Any, str]] = {
        "/gone.png": (Reply("", 404), "http_404"),
        "/page.png": (Reply("<html>Sorry, not found</html>", kind="image/png"), "error_page"),
        "/shop.zip": (Reply(b"PK\x03\x04rest", kind="image/png"), "archive"),
        "/draw.svg": (Reply('<svg onload="alert(1)"/>', kind="image/svg+xml"), "svg"),
        "/none.png": (Reply(b"", kind="image/png"), "empty"),
        "/short.png": (Reply(picture(9), kind="image/png", told=9_999), "truncated"),
        "/huge.png": (Reply(b"\0" * 2_000_000, kind="image/png"), "too_many_bytes"),
        "/bomb.png": (Reply(bomb, kind="image/png", headers={"Content-Encoding": "gzip"}), "too_many_bytes"),
        "/round.png": (Reply("", 302, headers={"Location": "/round2.png"}), "redirect_loop"),
        "/secret.png": (picture(7), "robots_txt"),
        "/to-private.png": (Reply("", 302, headers={"Location": "http://169.254.169.254/latest"}), "private_address"),
        "/to-file.png": (Reply("", 302, headers={"Location": "file:///etc/passwd"}), "http_302"),
        "http://no-such-host.invalid/x.png": (None, "no_such_host"),
        "http://127.0.0.2:9/x.png": (None, "private_address"),
        "file:///etc/passwd": (None, "not_http"),
        "data:image/png;base64,AA==": (None, "not_http"),
    }
    with site() as told:
        told.routes |= {path: reply for path, (reply, _) in bad.items() if reply is not None}
        told.routes["/round2.png"] = Reply("", 302, headers={"Location": "/round.png"})
        told.routes["/good.png"] = picture(44)
        told.routes["/robots.txt"] = Reply("User-agent: *\nDisallow: /secret", kind="text/plain")
        shown = "".join(f'<figure><img src="{path}"></figure>' for path in [*bad, "/good.png"])
        port = told.address.rsplit(":", 1)[1]
        tls = f'<figure><img src="https://127.0.0.1:{port}/x.png"></figure>'  # a server that speaks no TLS
        told.routes["/"] = shown + tls + "<figure>no picture</figure>"
        source = {**CRAWL, "start": told.address + "/", "max_megabytes": 1, "allow_private_hosts": ["127.0.0.1"]}
        output = run(tmp_path, facts, source)
    kept, rejected = read(output), read_rejected(output)
    assert [one.rsplit("/", 1)[1] for one in kept["origin"]] == ["good.png"]
    expected = Counter(reason for _, reason in bad.values()) + Counter(["tls_failure", "no_picture"])
    assert Counter(rejected["reason"]) == expected


def test_pages_that_fail_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A broken page, one that no longer ends, one of invalid UTF-8, a 200 that says sorry, and one line of two million characters."""
    with site() as told:
        links = "".join(
            f'<a class="on" href="/{name}">{name}</a>' for name in ("broken", "odd", "sorry", "long", "endless/1")
        )
        told.routes["/"] = "<p>a text that is fine</p>" + links
        told.routes["/broken"] = Reply("", 500)
        told.routes["/odd"] = Reply(b"<p>caf\xe9 \xff\xfe and more</p>")
        told.routes["/sorry"] = "<h1>Sorry</h1>"
        told.routes["/long"] = "<p>" + "x" * 2_000_000 + "</p>"
        told.routes["/endless/*"] = lambda path, _: Reply(f'<a class="on" href="{path}1">on</a>')
        source = {
            **CRAWL,
            "start": told.address + "/",
            "item": "p",
            "text": "::text",
            "follow": "a.on",
            "max_pages": 20,
        }
        output = run(tmp_path, TEXTS, source)
    kept, rejected, notes = read(output), read_rejected(output), read_manifest(output)["notes"]
    assert "a text that is fine" in kept["text"].tolist()
    assert any("and more" in one for one in kept["text"])
    assert sorted(rejected["reason"]) == ["page_http_500", "too_many_characters"]
    counts = next(iter(notes["no_items"].values()))
    assert counts["page_without_items"] == 1
    assert counts["beyond_max_pages"] >= 1


@pytest.mark.slow
def test_a_site_that_always_refuses_is_left_alone(tmp_path: Path) -> None:
    """After twelve refusals in a row nothing more is asked."""
    with site() as told:
        told.routes["/*"] = Reply("slow down", 429, headers={"Retry-After": "0"})
        with pytest.raises(SourceUnreachable, match="page_rate_limited"):
            run(tmp_path, IMAGES, {**CRAWL, "start": told.address + "/"})
        assert len(told.asked) <= 30


@pytest.mark.slow
def test_one_address_that_is_always_refused_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    """A picture that is always 503 is given up after four tries, one that is always 429 after six; the others come."""
    with site() as told:
        names = [f"{number}.png" for number in range(30)]
        told.routes["/"] = "".join(f'<figure><img src="{name}"></figure>' for name in ("busy.png", "down.png", *names))
        told.routes |= {f"/{name}": picture(7 * number) for number, name in enumerate(names)}
        told.routes["/busy.png"] = Reply("", 429, headers={"Retry-After": "0"})
        told.routes["/down.png"] = Reply("", 503, headers={"Retry-After": "0"})
        output = run(tmp_path, IMAGES, {**CRAWL, "start": told.address + "/"})
        asked = Counter(told.paths())
    assert len(read(output)) == 30
    assert sorted(read_rejected(output)["reason"]) == ["http_503", "rate_limited"]
    assert asked["/down.png"] == 4
    assert asked["/busy.png"] == 6


def test_robots_that_forbid_all_are_obeyed(tmp_path: Path) -> None:
    """Nothing but robots.txt is asked, and the error says why nothing came."""
    with site() as told:
        told.routes["/robots.txt"] = Reply("User-agent: *\nDisallow: /", kind="text/plain")
        with pytest.raises(InputError, match="page_robots_txt"):
            run(tmp_path, IMAGES, {**CRAWL, "start": told.address + "/"})
        assert told.paths() == []


def test_a_crawl_delay_is_kept(tmp_path: Path) -> None:
    """Half a second between requests, though the ceiling would allow 200 a second."""
    with site() as told:
        gallery(told)
        told.routes["/robots.txt"] = Reply("User-agent: *\nCrawl-delay: 0.5", kind="text/plain")
        run(tmp_path, IMAGES, {**CRAWL, "start": told.address + "/"})
        times = [when for when, _, path, _, _ in told.asked if path != "/robots.txt"]
    assert min(after - before for before, after in pairwise(times[1:])) > 0.45


@pytest.mark.slow
def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle of a sequence; the next run asks for the rest alone, but for what was on its way."""
    with site() as told:
        told.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path.rsplit('/', 1)[1]} is here</p>", hold=0.01)
        (tmp_path / "data").mkdir()
        source = {"kind": "sequence", "url": told.address + "/r/{1..400}", "text": "p::text", **QUICK}
        code = (
            "import sys, json; from pathlib import Path; from tasks.params import *; from tasks.scrape import scrape\n"
            f"scrape(ScrapeParams.model_validate(dict(sources=[json.loads(sys.argv[1])])), Facts(modality='text'), data=Path({str(tmp_path / 'data')!r}), "
            f"output=Path({str(tmp_path / 'killed')!r}), remembered=Path({str(tmp_path / 'web')!r}))"
        )
        begun = subprocess.Popen([sys.executable, "-c", code, json.dumps(source)], start_new_session=True)
        while len(told.paths()) < 120:
            assert begun.poll() is None
            time.sleep(0.02)
        os.killpg(begun.pid, signal.SIGKILL)
        begun.wait()
        before = set(told.paths())
        assert len(before) < 400
        output = run(tmp_path, TEXTS, source)
        asked = Counter(told.paths())
    assert len(read(output)) == 400
    assert set(asked) == {f"/r/{number}" for number in range(1, 401)}
    assert sum(many > 1 for many in asked.values()) <= 66, "no more than were on their way are asked twice"


def test_a_background_source_is_the_class_nothing(tmp_path: Path) -> None:
    """Whatever it holds, each of its rows is of no class, of its own label source."""
    folder = tmp_path / "data" / "walls"
    folder.mkdir(parents=True)
    (folder / "unlabelled").mkdir()
    (folder / "unlabelled" / "w.png").write_bytes(picture(30))
    with site() as told:
        gallery(told)
        rows = read(
            run(
                tmp_path,
                IMAGES,
                {**CRAWL, "start": told.address + "/", "tag": "b::text"},
                {"kind": "folder", "path": "walls", "role": "background"},
            )
        )
    assert rows["label"].tolist() == ["cat", None, "dog", "nothing"]
    assert rows["label_source"].tolist()[-1] == "weak:background"


@pytest.mark.slow
def test_a_dynamic_page_is_worked_in_a_browser(tmp_path: Path) -> None:
    """Items that a script writes, more of them at each click; a script that asks a private host is not let through."""
    page = """<div id="list"></div><button class="more">show more</button><script>
    let shown = 0;
    function more() { for (let i = 0; i < 3; i++) { const p = document.createElement("p"); p.id = "n" + shown; p.textContent = "note " + shown++; list.append(p); }
      if (shown >= 9) document.querySelector(".more").remove(); }
    document.querySelector(".more").onclick = () => setTimeout(more, 50); setTimeout(more, 100);
    fetch("http://127.0.0.2:9/inside").then(() => { document.title = "open" });
    </script>"""
    with site() as told:
        told.routes["/"] = page
        source = {"kind": "crawl", "start": told.address + "/", "item": "#list p", "text": "::text", "browser": True}
        source |= {
            "browser_path": "/usr/bin/chromium",
            "wait_for": "#list p",
            "click": [".more"],
            "allow_private_hosts": ["127.0.0.1"],
        }
        rows = read(run(tmp_path, TEXTS, source))
    assert rows["text"].tolist() == [f"note {number}" for number in range(9)]
    assert rows["origin"].tolist() == [f"{told.address}/#n{number}" for number in range(9)]


@pytest.mark.slow
def test_the_browser_reaches_no_private_host_by_a_redirect(tmp_path: Path) -> None:
    """A script's request and a navigation are sent on from an allowed name to one that is not: nobody there is asked."""
    with site() as told:
        port = told.address.rsplit(":", 1)[1]
        inside = f"http://127.0.0.1:{port}/secret"
        told.routes["/"] = (
            "<p id=a>open</p><script>fetch('/r').then(r => r.text()).then(t => { document.body.innerHTML = '<p id=a>' + t + '</p>' })</script>"
        )
        told.routes["/r"] = Reply("", 302, headers={"Location": inside})
        told.routes["/secret"] = Reply("<p>the secret</p>", headers={"Access-Control-Allow-Origin": "*"})
        source = {"kind": "crawl", "item": "p", "text": "::text", "browser": True, "browser_path": "/usr/bin/chromium"}
        source |= {"allow_private_hosts": ["localhost"], "wait_for": "p"}
        rows = read(run(tmp_path, TEXTS, {**source, "start": f"http://localhost:{port}/"}))
        assert rows["text"].tolist() == ["open"]
        assert "/secret" not in told.paths()
        with pytest.raises(InputError):
            run(tmp_path, TEXTS, {**source, "start": f"http://localhost:{port}/r", "wait_for": None})
        assert "/secret" not in told.paths()


def test_a_secret_goes_to_its_own_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another host takes no header of the user's along."""
    monkeypatch.setenv("SEEDLING_TEST_TOKEN", "s3cret")
    with site() as told, site() as other:
        other.routes["/b"] = Reply(json.dumps({"rows": ["one text", "another text"]}), kind="application/json")
        told.routes["/a"] = Reply("", 302, headers={"Location": other.address + "/b"})
        source = {
            "kind": "api",
            "url": told.address + "/a",
            "items": "rows",
            "text": "@",
            "headers": {"X-Key": "${SEEDLING_TEST_TOKEN}"},
            **QUICK,
        }
        assert len(read(run(tmp_path, TEXTS, source))) == 2
        assert [headers.get("X-Key") for _, _, path, headers, _ in told.asked if path == "/a"] == ["s3cret"]
        assert [headers.get("X-Key") for _, _, path, headers, _ in other.asked if path == "/b"] == [None]


def test_pictures_that_fail_for_now_come_with_the_next_call(tmp_path: Path) -> None:
    """A sequence's picture answers 500, and later does not: the same visit asks for it again, and an item that breaks the rules costs itself alone."""
    with site() as told:
        told.routes["/p/*"] = lambda path, _: Reply(
            f'<img src="/pic/{path[3:]}.png"><img class="x" src="http://[x/b.png">'
        )
        told.routes |= {f"/pic/{number}.png": picture(20 * number) for number in (1, 3)}
        told.routes["/pic/2.png"] = Reply("", 500)
        source = {"kind": "sequence", "url": told.address + "/p/{1..3}", "item": "img", "image": "./@src", **QUICK}
        first = run(tmp_path, IMAGES, source)
        assert len(read(first)) == 2
        assert Counter(read_rejected(first)["reason"]) == {"http_500": 1, "not_understood": 3}
        told.routes["/pic/2.png"] = picture(99)
        told.asked.clear()
        assert len(read(run(tmp_path, IMAGES, source))) == 3
        assert [path for path in told.paths() if "pic" in path] == ["/pic/2.png"]


def test_what_an_earlier_visit_brought_outlives_a_failure(tmp_path: Path) -> None:
    """A page that answers 500 in the second visit: its item of the first stays. An as_of before the last one is refused."""
    with site() as told:
        told.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        source = {"kind": "sequence", "url": told.address + "/r/{1..3}", "text": "p::text", "revisit": "all", **QUICK}
        assert len(read(run(tmp_path, TEXTS, source, as_of="first"))) == 3
        told.routes["/r/2"] = Reply("", 500)
        assert len(read(run(tmp_path, TEXTS, source, as_of="second"))) == 3
        with pytest.raises(InputError, match="visited again since"):
            run(tmp_path, TEXTS, source, as_of="first")


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
        (one, False)
        for one in (
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "fec0::1",
            "224.0.0.1",
            "100.64.0.1",
        )
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    """Also those that carry an IPv4 address within (RFC 4291, 6052, 3056)."""
    assert is_public(address) is public


def test_selectors_are_xpath_too_and_depth_has_a_limit(tmp_path: Path) -> None:
    """XPath for items, fields and links; a chain of ten pages is followed three steps deep."""
    with site() as told:
        told.routes["/*"] = lambda path, _: Reply(
            f"<ul><li>text of {path}</li></ul><a href='/{int(path[1:] or 0) + 1}'>on</a>" if path != "/10" else ""
        )
        source = {
            "kind": "crawl",
            "start": told.address + "/",
            "item": "//ul/li",
            "text": "./text()",
            "follow": "//a/@href",
            "max_depth": 3,
            **QUICK,
        }
        rows = read(run(tmp_path, TEXTS, source))
    assert sorted(rows["text"]) == ["text of /", "text of /1", "text of /2", "text of /3"]


def test_human_labels_judge_the_rules(tmp_path: Path) -> None:
    """Four labelled texts of a table, of which a rule speaks of three and is right twice."""
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(
        {"text": ["good film", "good cast", "good grief", "meh"], "label": ["pos", "pos", "neg", "neg"]}
    )
    frame.to_csv(tmp_path / "data" / "t.csv", index=False)
    rules = [{"rule": "good", "words": {"pos": ["good"]}}]
    output = run(tmp_path, TEXTS, {"kind": "table", "path": "t.csv"}, rules=rules)
    (told,) = read_manifest(output)["notes"]["rules"]
    assert (told["votes"], told["judged"]) == (3, 3)
    assert told["precision"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert read(output)["label_source"].unique().tolist() == ["human"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "crawl", "start": "http://a.example/", "item": "p["}, "item: 'p\\[' cannot be read"),
        (
            {"kind": "crawl", "start": "http://a.example/", "item": "//p[", "text": "::text"},
            "item: '//p\\[' cannot be read",
        ),
        ({"kind": "crawl", "start": "a.example", "item": "p"}, "'a.example' is no http:// or https:// address"),
        ({"kind": "api", "url": "http://a.example/", "items": "[*", "text": "x"}, "items: '\\[\\*' cannot be read"),
        ({"kind": "api", "url": "http://a.example/", "items": "x"}, "needs `text`"),
        (
            {
                "kind": "api",
                "url": "http://a.example/",
                "items": "x",
                "text": "t",
                "headers": {"A": "${NOT_SET_AT_ALL}"},
            },
            "NOT_SET_AT_ALL, which is not set",
        ),
    ],
)
def test_a_source_that_cannot_work_is_said_before_anything_is_asked(
    tmp_path: Path, source: dict[str, Any], said: str
) -> None:
    """The key, what is wrong, and where."""
    with pytest.raises(InputError, match=said):
        run(tmp_path, TEXTS, source)


def test_two_sources_need_two_names(tmp_path: Path) -> None:
    """Else one would read what the other is remembered by."""
    source = {"kind": "crawl", "start": "http://a.example/", "item": "p", "name": "same"}
    with pytest.raises(InputError, match=r"two sources .* 'same'"):
        run(tmp_path, TEXTS, source, {**source, "start": "http://b.example/"})
