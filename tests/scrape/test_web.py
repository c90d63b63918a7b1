"""Sources on the web, against servers that these tests start: what is brought, and what is asked again."""

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
    """The page states its license and author; several rules speak, and the votes are kept beside the label."""
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
    assert rows["license"].tolist()[:2] == ["https://licenses.example/by"] * 2
    assert rows["attribution"].tolist() == ["Ada", "Ada", None]
    table = {one.rule: one for one in read_notes(output, ScrapeNotes).rules}
    assert (table["caption"].coverage, table["caption"].overlap, table["caption"].conflict) == (
        0.666667,
        0.666667,
        0,
    )


@pytest.mark.slow
def test_a_later_visit_brings_only_what_is_new(tmp_path: Path) -> None:
    """Under the same as_of nothing is asked; under a new one pages are, on condition; images that are there are not; what vanished stays."""
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
        told.routes["/d.png"] = image(160)
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


@pytest.mark.slow
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
        assert manifest.rows.rejected == 0
        assert [*read_notes(output, ScrapeNotes).no_items.values()] == [{"absent": 4}]
        told.asked.clear()
        told.routes["/r/012"] = "<p>it came at last</p>"
        rows = read(run(tmp_path, TEXTS, source, as_of="2"))
        assert sorted(told.paths()) == ["/r/003", "/r/006", "/r/009", "/r/012"]
        assert len(rows) == 9


@pytest.mark.slow
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
        by_get: dict[str, Any] = {
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


@pytest.mark.slow
def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle of a sequence; the next run asks for the rest alone, but for what was on its way."""
    with site() as told:
        told.routes["/r/*"] = lambda path, _: Reply(f"<p>report {path.rsplit('/', 1)[1]} is here</p>", hold=0.01)
        (tmp_path / "data").mkdir()
        source = {"kind": "sequence", "url": told.address + "/r/{1..400}", "text": "p::text", **QUICK}
        code = (
            "import sys, json; from pathlib import Path; from seedling.config.params import *; from seedling.scrape import scrape\n"
            f"scrape(ScrapeParams.model_validate(dict(sources=[json.loads(sys.argv[1])])), WorkspaceConfig(modality='text'), data=Path({str(tmp_path / 'data')!r}), "
            f"output=Path({str(tmp_path / 'killed')!r}), crawl_stores=Path({str(tmp_path / 'web')!r}))"
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


@pytest.mark.slow
def test_a_background_source_is_the_class_nothing(tmp_path: Path) -> None:
    """Whatever it holds, each of its rows is of no class, of its own label source."""
    folder = tmp_path / "data" / "walls"
    folder.mkdir(parents=True)
    (folder / "unlabeled").mkdir()
    (folder / "unlabeled" / "w.png").write_bytes(image(30))
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
            "browser_sandbox": False,
            "wait_for": "#list p",
            "click": [".more"],
            "allow_private_hosts": ["127.0.0.1"],
        }
        rows = read(run(tmp_path, TEXTS, source))
    assert rows["text"].tolist() == [f"note {number}" for number in range(9)]
    assert rows["origin"].tolist() == [f"{told.address}/#n{number}" for number in range(9)]


@pytest.mark.slow
def test_images_that_fail_for_now_come_with_the_next_call(tmp_path: Path) -> None:
    """A sequence's image answers 500, and later does not: the same visit asks for it again, and an item that breaks the rules costs itself alone."""
    with site() as told:
        told.routes["/p/*"] = lambda path, _: Reply(
            f'<img src="/pic/{path[3:]}.png"><img class="x" src="http://[x/b.png">'
        )
        told.routes |= {f"/pic/{number}.png": image(20 * number) for number in (1, 3)}
        told.routes["/pic/2.png"] = Reply("", 500)
        source = {"kind": "sequence", "url": told.address + "/p/{1..3}", "item": "img", "image": "./@src", **QUICK}
        first = run(tmp_path, IMAGES, source)
        assert len(read(first)) == 2
        assert Counter(read_rejected(first)["reason"]) == {"http_500": 1, "not_understood": 3}
        told.routes["/pic/2.png"] = image(99)
        told.asked.clear()
        assert len(read(run(tmp_path, IMAGES, source))) == 3
        assert [path for path in told.paths() if "pic" in path] == ["/pic/2.png"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_selectors_are_xpath_too_and_depth_has_a_limit(tmp_path: Path) -> None:
    """XPath for items, fields and links; a chain of ten pages is followed three steps deep."""
    with site() as told:
        told.routes["/robots.txt"] = lambda *_: Reply(status=404)
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
    """Four labeled texts of a table, of which a rule speaks of three and is right twice."""
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(
        {"text": ["good film", "good cast", "good grief", "meh"], "label": ["pos", "pos", "neg", "neg"]}
    )
    frame.to_csv(tmp_path / "data" / "t.csv", index=False)
    rules = [{"rule": "good", "words": {"pos": ["good"]}}]
    output = run(tmp_path, TEXTS, {"kind": "table", "path": "t.csv"}, rules=rules)
    (told,) = read_notes(output, ScrapeNotes).rules
    assert (told.votes, told.evaluated) == (3, 3)
    assert told.precision is not None
    assert told.precision.value == pytest.approx(2 / 3, abs=1e-6)
    assert read(output)["label_source"].unique().tolist() == ["human"]


@pytest.mark.slow
def test_words_are_no_selectors(tmp_path: Path) -> None:
    """A license or an author given in words is taken as it is, also of a sequence of bare images; and one that is found on the page."""
    with site() as told:
        gallery(told)
        told.routes |= {f"/raw/{number}": image(130 + 40 * number) for number in (1, 2)}
        stated = {"license": "CC-BY-4.0", "attribution": "(c) Ada"}
        crawl = {**CRAWL, "start": told.address + "/", "license": "(c) all of us", "attribution": "(//i)[1]/text()"}
        raw = {"kind": "sequence", "url": told.address + "/raw/{1..2}", **QUICK, **stated}
        rows = read(run(tmp_path, IMAGES, crawl, raw))
    assert Counter(zip(rows["license"], rows["attribution"], strict=True)) == {
        ("(c) all of us", "Ada"): 2,
        ("(c) all of us", None): 1,
        ("CC-BY-4.0", "(c) Ada"): 2,
    }


@pytest.mark.slow
def test_the_pace_of_a_host_that_never_refused_is_remembered(tmp_path: Path) -> None:
    """The next visit begins where this one stopped, and need not feel its way again."""
    with site() as told:
        told.routes["/n/*"] = lambda path, _: Reply(f"<p>page {path}</p>")
        source = {"kind": "sequence", "url": told.address + "/n/{1..60}", "text": "p::text", **QUICK}
        run(tmp_path, TEXTS, source)
        (path,) = (tmp_path / "web").glob("*.sqlite")
        with CrawlStore(path) as store:
            known = store.host(told.address.removeprefix("http://"))
    assert known is not None
    rate, low, high = known
    assert rate > 4.0  # the pace at which an unknown host is asked first
    assert (low, high) == (None, None)
