"""Web sources, against servers that these tests start: which rows they give, and which addresses are requested again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import Reply, image, site
from visiting import CRAWL, IMAGES, QUICK, TEXTS, gallery, run

from seedling.dataset.generation import read, read_manifest, read_rejected
from seedling.errors import InputError
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ScrapeNotes
from seedling.scrape.crawl_store import CrawlStore


@pytest.mark.slow
def test_an_item_has_its_fields_license_and_author(tmp_path: Path) -> None:
    """The page states its license and author; several rules vote, and the votes are stored beside the label."""
    rules = [
        {"rule": "alt", "field": "alt", "words": {"cat": ["cat", "kitten"], "dog": ["dog"]}},
        {"rule": "caption", "field": "caption"},
        {"rule": "title", "field": "title", "pattern": "(cat|dog)"},
    ]
    with site() as server:
        gallery(server)
        source = {**CRAWL, "start": server.address + "/", "fields": {"caption": "./b/text()"}, "rules": rules}
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
    assert rows["license"].tolist()[:2] == ["https://licenses.example/by"] * 2
    assert rows["attribution"].tolist() == ["Ada", "Ada", None]
    table = {rule.rule: rule for rule in read_notes(output, ScrapeNotes).rules}
    assert (table["caption"].coverage, table["caption"].overlap, table["caption"].conflict) == (
        0.666667,
        0.666667,
        0,
    )


@pytest.mark.slow
def test_a_later_visit_fetches_only_new_items(tmp_path: Path) -> None:
    """With the same as_of nothing is requested.

    With a new one, pages are requested with If-None-Match, known images are not, and rows of vanished items stay.
    """
    with site() as server:
        server.etags = True
        gallery(server)
        source = {**CRAWL, "start": server.address + "/"}
        first = read(run(tmp_path, IMAGES, source, as_of="2026-01-01"))
        assert Counter(server.paths()) == dict.fromkeys(("/", "/2", "/a.png", "/b.png", "/c.png"), 1)
        server.requests.clear()
        run(tmp_path, IMAGES, source, as_of="2026-01-01")
        assert server.requests == []

        server.routes["/2"] = '<figure><img src="d.png"></figure>'  # c has gone, d is new
        server.routes["/d.png"] = image(160)
        second = read(run(tmp_path, IMAGES, source, as_of="2026-01-08"))
        assert sorted(server.paths()) == ["/", "/2", "/d.png"]
        conditions = {path: "If-None-Match" in headers for _, _, path, headers, _ in server.requests}
        assert conditions["/"]
        assert conditions["/2"]
        assert [origin.rsplit("/", 1)[1] for origin in second["origin"]] == ["a.png", "b.png", "c.png", "d.png"]
        assert set(first["id"]) < set(second["id"])

        server.requests.clear()
        run(tmp_path, IMAGES, {**source, "revisit": "all"}, as_of="2026-01-15")
        assert sorted(server.paths()) == ["/", "/2", "/a.png", "/b.png", "/d.png"]
        with pytest.raises(InputError, match=r"2026-01-10.*dvc checkout"):
            run(tmp_path, IMAGES, source, as_of="2026-01-10")


@pytest.mark.slow
def test_a_sequence_counts_absent_items(tmp_path: Path) -> None:
    """Numbers keep their leading zeros.

    Every third is absent and gives no row; a later visit requests only absent ones.
    """

    def report(path: str, _: bytes) -> Reply:
        number = int(path.rsplit("/", 1)[1])
        return Reply("", 404) if number % 3 == 0 else Reply(f"<p>report number {number}</p><b>{'ab'[number % 2]}</b>")

    with site() as server:
        server.routes["/r/*"] = report
        source = {
            "kind": "sequence",
            "url": server.address + "/r/{001..012}",
            "text": "p::text",
            "fields": {"class": "b::text"},
            **QUICK,
        }
        source["rules"] = [{"rule": "class", "field": "class"}]
        output = run(tmp_path, TEXTS, source, as_of="1")
        assert sorted(server.paths()) == [f"/r/{number:03d}" for number in range(1, 13)]
        rows, manifest = read(output), read_manifest(output)
        assert rows["text"].tolist() == [f"report number {number}" for number in (1, 2, 4, 5, 7, 8, 10, 11)]
        assert rows["label"].tolist() == ["b", "a", "a", "b", "b", "a", "a", "b"]
        assert manifest.rows.rejected == 0
        assert [*read_notes(output, ScrapeNotes).no_items.values()] == [{"absent": 4}]
        server.requests.clear()
        server.routes["/r/012"] = "<p>it came at last</p>"
        rows = read(run(tmp_path, TEXTS, source, as_of="2"))
        assert sorted(server.paths()) == ["/r/003", "/r/006", "/r/009", "/r/012"]
        assert len(rows) == 9


@pytest.mark.slow
def test_an_api_is_requested_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON by GET with a cursor in the query, a score cut into bands, and the same by GraphQL; a secret header is sent
    and never written.
    """
    pages = {"": (["0.5", "5.0"], "x"), "x": (["9.8", "none"], None)}

    def flaws(path: str, _: bytes) -> Reply:
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
    with site() as server:
        server.routes |= {"/flaws": flaws, "/graph": graph}
        by_get: dict[str, Any] = {
            "kind": "api",
            "url": server.address + "/flaws",
            "items": "found",
            "id": "name",
            "text": "note",
            "next": "next",
        }
        by_get |= {"cursor": "query.after", "fields": {"score": "cvss.base"}, "rules": rules, **QUICK}
        by_get |= {"headers": {"Authorization": "Bearer ${SEEDLING_TEST_TOKEN}"}}
        by_graph = {
            "kind": "api",
            "url": server.address + "/graph",
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
        sent = {headers.get("Authorization") for _, _, path, headers, _ in server.requests if path.startswith("/flaws")}
    assert sent == {"Bearer s3cret"}
    assert rows["label"].tolist() == ["low", "medium", "critical", None] * 2
    assert rows["label_source"].dropna().unique().tolist() == ["weak:cvss"]
    assert rows["origin"].tolist()[0].endswith("/flaws#flaw 0.5")
    assert not any(b"s3cret" in path.read_bytes() for path in (tmp_path / "web").iterdir())


def test_a_hub_dataset_is_read_from_a_folder(tmp_path: Path) -> None:
    """Its splits and class names are used; -1 means no label; columns are read by rules; a missing column raises an
    error.
    """
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    dataset = datasets.Dataset.from_dict({"text": ["one", "two", "three"], "label": [1, 0, -1]}, features=features)
    (tmp_path / "data" / "hub").mkdir(parents=True)
    dataset.to_parquet(tmp_path / "data" / "hub" / "train-00000.parquet")
    dataset.select([0]).to_parquet(tmp_path / "data" / "hub" / "test-00000.parquet")
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


@pytest.mark.slow
def test_a_kill_loses_nothing_and_repeats_only_requests_in_flight(tmp_path: Path) -> None:
    """After SIGKILL in the middle of a sequence, the next run requests the rest and what was in flight."""
    with site() as server:
        server.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path.rsplit('/', 1)[1]} is here</p>", hold=0.01)
        (tmp_path / "data").mkdir()
        source = {"kind": "sequence", "url": server.address + "/r/{1..400}", "text": "p::text", **QUICK}
        code = (
            "import sys, json; from pathlib import Path; from seedling.config.params import *; from seedling.scrape import scrape\n"
            f"scrape(ScrapeParams.model_validate(dict(sources=[json.loads(sys.argv[1])])), WorkspaceConfig(modality='text'), data=Path({str(tmp_path / 'data')!r}), "
            f"output=Path({str(tmp_path / 'killed')!r}), crawl_stores=Path({str(tmp_path / 'web')!r}))"
        )
        begun = subprocess.Popen([sys.executable, "-c", code, json.dumps(source)], start_new_session=True)
        while len(server.paths()) < 120:
            assert begun.poll() is None
            time.sleep(0.02)
        os.killpg(begun.pid, signal.SIGKILL)
        begun.wait()
        before = set(server.paths())
        assert len(before) < 400
        output = run(tmp_path, TEXTS, source)
        requests = Counter(server.paths())
    assert len(read(output)) == 400
    assert set(requests) == {f"/r/{number}" for number in range(1, 401)}
    assert sum(count > 1 for count in requests.values()) <= 66, "no more than were on their way are asked twice"


@pytest.mark.slow
def test_rows_of_a_background_source_have_the_class_nothing(tmp_path: Path) -> None:
    """Whatever the source holds, its rows have no other class, and a label source of their own."""
    folder = tmp_path / "data" / "walls"
    folder.mkdir(parents=True)
    (folder / "unlabeled").mkdir()
    (folder / "unlabeled" / "w.png").write_bytes(image(30))
    with site() as server:
        gallery(server)
        rows = read(
            run(
                tmp_path,
                IMAGES,
                {**CRAWL, "start": server.address + "/", "tag": "b::text"},
                {"kind": "folder", "path": "walls", "role": "background"},
            )
        )
    assert rows["label"].tolist() == ["cat", None, "dog", "nothing"]
    assert rows["label_source"].tolist()[-1] == "weak:background"


@pytest.mark.slow
def test_a_dynamic_page_is_rendered_in_a_browser(tmp_path: Path) -> None:
    """A script writes items, and more at each click; a script's request to a private host is blocked."""
    page = """<div id="list"></div><button class="more">show more</button><script>
    let shown = 0;
    function more() { for (let i = 0; i < 3; i++) { const p = document.createElement("p"); p.id = "n" + shown; p.textContent = "note " + shown++; list.append(p); }
      if (shown >= 9) document.querySelector(".more").remove(); }
    document.querySelector(".more").onclick = () => setTimeout(more, 50); setTimeout(more, 100);
    fetch("http://127.0.0.2:9/inside").then(() => { document.title = "open" });
    </script>"""
    with site() as server:
        server.routes["/"] = page
        source = {"kind": "crawl", "start": server.address + "/", "item": "#list p", "text": "::text", "browser": True}
        source |= {
            "browser_path": "/usr/bin/chromium",
            "browser_sandbox": False,
            "wait_for": "#list p",
            "click": [".more"],
            "allow_private_hosts": ["127.0.0.1"],
        }
        rows = read(run(tmp_path, TEXTS, source))
    assert rows["text"].tolist() == [f"note {number}" for number in range(9)]
    assert rows["origin"].tolist() == [f"{server.address}/#n{number}" for number in range(9)]


@pytest.mark.slow
def test_images_that_fail_temporarily_are_fetched_by_the_next_call(tmp_path: Path) -> None:
    """An image of a sequence answers 500, and later 200: the same visit requests it again.

    An item with an invalid address is rejected alone.
    """
    with site() as server:
        server.routes["/p/*"] = lambda path, _: Reply(
            f'<img src="/pic/{path[3:]}.png"><img class="x" src="http://[x/b.png">'
        )
        server.routes |= {f"/pic/{number}.png": image(20 * number) for number in (1, 3)}
        server.routes["/pic/2.png"] = Reply("", 500)
        source = {"kind": "sequence", "url": server.address + "/p/{1..3}", "item": "img", "image": "./@src", **QUICK}
        first = run(tmp_path, IMAGES, source)
        assert len(read(first)) == 2
        assert Counter(read_rejected(first)["reason"]) == {"http_500": 1, "not_understood": 3}
        server.routes["/pic/2.png"] = image(99)
        server.requests.clear()
        assert len(read(run(tmp_path, IMAGES, source))) == 3
        assert [path for path in server.paths() if "pic" in path] == ["/pic/2.png"]


@pytest.mark.slow
def test_rows_of_an_earlier_visit_survive_a_failure(tmp_path: Path) -> None:
    """A page answers 500 in the second visit: its item of the first stays. An as_of before the last one is refused."""
    with site() as server:
        server.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path}</p>")
        source = {"kind": "sequence", "url": server.address + "/r/{1..3}", "text": "p::text", "revisit": "all", **QUICK}
        assert len(read(run(tmp_path, TEXTS, source, as_of="first"))) == 3
        server.routes["/r/2"] = Reply("", 500)
        assert len(read(run(tmp_path, TEXTS, source, as_of="second"))) == 3
        with pytest.raises(InputError, match="visited again since"):
            run(tmp_path, TEXTS, source, as_of="first")


@pytest.mark.slow
def test_selectors_may_be_xpath_and_depth_has_a_limit(tmp_path: Path) -> None:
    """XPath for items, fields and links; a chain of ten pages is followed three steps deep."""
    with site() as server:
        server.routes["/robots.txt"] = lambda *_: Reply(status=404)
        server.routes["/*"] = lambda path, _: Reply(
            f"<ul><li>text of {path}</li></ul><a href='/{int(path[1:] or 0) + 1}'>on</a>" if path != "/10" else ""
        )
        source = {
            "kind": "crawl",
            "start": server.address + "/",
            "item": "//ul/li",
            "text": "./text()",
            "follow": "//a/@href",
            "max_depth": 3,
            **QUICK,
        }
        rows = read(run(tmp_path, TEXTS, source))
    assert sorted(rows["text"]) == ["text of /", "text of /1", "text of /2", "text of /3"]


def test_human_labels_evaluate_the_rules(tmp_path: Path) -> None:
    """A rule votes on three of four labeled texts of a table and is correct twice."""
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(
        {"text": ["good film", "good cast", "good grief", "meh"], "label": ["pos", "pos", "neg", "neg"]}
    )
    frame.to_csv(tmp_path / "data" / "t.csv", index=False)
    rules = [{"rule": "good", "words": {"pos": ["good"]}}]
    output = run(tmp_path, TEXTS, {"kind": "table", "path": "t.csv"}, rules=rules)
    (rule,) = read_notes(output, ScrapeNotes).rules
    assert (rule.votes, rule.evaluated) == (3, 3)
    assert rule.precision is not None
    assert rule.precision.value == pytest.approx(2 / 3, abs=1e-6)
    assert read(output)["label_source"].unique().tolist() == ["human"]


@pytest.mark.slow
def test_text_that_is_not_a_selector_is_taken_literally(tmp_path: Path) -> None:
    """A license or author given as text is stored unchanged, also for a sequence of images; a selector is read from the
    page.
    """
    with site() as server:
        gallery(server)
        server.routes |= {f"/raw/{number}": image(130 + 40 * number) for number in (1, 2)}
        stated = {"license": "CC-BY-4.0", "attribution": "(c) Ada"}
        crawl = {**CRAWL, "start": server.address + "/", "license": "(c) all of us", "attribution": "(//i)[1]/text()"}
        raw = {"kind": "sequence", "url": server.address + "/raw/{1..2}", **QUICK, **stated}
        rows = read(run(tmp_path, IMAGES, crawl, raw))
    assert Counter(zip(rows["license"], rows["attribution"], strict=True)) == {
        ("(c) all of us", "Ada"): 2,
        ("(c) all of us", None): 1,
        ("CC-BY-4.0", "(c) Ada"): 2,
    }


@pytest.mark.slow
def test_the_request_rate_of_a_host_that_never_refused_is_stored(tmp_path: Path) -> None:
    """The next visit begins with the rate at which this one stopped."""
    with site() as server:
        server.routes["/n/*"] = lambda path, _: Reply(f"<p>page {path}</p>")
        source = {"kind": "sequence", "url": server.address + "/n/{1..60}", "text": "p::text", **QUICK}
        run(tmp_path, TEXTS, source)
        (path,) = (tmp_path / "web").glob("*.sqlite")
        with CrawlStore(path) as store:
            pace = store.host(server.address.removeprefix("http://"))
    assert pace is not None
    rate, low, high = pace
    assert rate > 4.0  # the pace at which an unknown host is asked first
    assert (low, high) == (None, None)
