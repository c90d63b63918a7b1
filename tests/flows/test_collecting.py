"""A workspace with a source of each kind through all stages, with a real server and a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from in_process import seedling
from loopback import Reply, Site, site
from short_runs import run_all_stages, shorten_runs

from seedling.config.params import load, set_value
from seedling.dataset.generation import read
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ScrapeNotes
from seedling.versioning.ledger import open_ledger

WEATHER = {
    "rain": ("it pours on", "wet boots in", "umbrellas over"),
    "sun": ("bright light on", "dry sand in", "blue skies over"),
}


def sentence(kind: str, number: int) -> str:
    """A sentence of a class; no two are equal."""
    return f"{WEATHER[kind][number % 3]} the {('hills', 'docks', 'fields', 'roofs', 'lanes')[number % 5]}, day {kind} {number}"


def written(server: Site, data: Path) -> list[dict[str, object]]:
    """Write the contents of each source, eight texts per class, and return the sources."""
    classes = tuple(WEATHER)
    lines = [(kind, sentence(kind, number)) for number in range(100) for kind in classes]
    rows = {
        name: lines[20 * index : 20 * (index + 1)]
        for index, name in enumerate(("folder", "table", "hub", "crawl", "sequence", "api", "browser"))
    }
    for number, (kind, text) in enumerate(rows["folder"]):
        path = data / "notes" / "labeled" / kind / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    pd.DataFrame(rows["table"], columns=["label", "text"]).to_csv(data / "table.csv", index=False)
    (data / "hub").mkdir()
    pd.DataFrame(rows["hub"], columns=["label", "text"]).to_parquet(data / "hub" / "train.parquet")
    server.routes["/"] = "".join(f"<p><q>{text}</q><b>{kind}</b></p>" for kind, text in rows["crawl"])

    def page(path: str, _: bytes) -> Reply:
        number = int(path.rsplit("/", 1)[1])
        if number > len(rows["sequence"]):
            return Reply("", 404)
        kind, text = rows["sequence"][number - 1]
        return Reply(f"<p>{text}</p><i>{80 if kind == 'rain' else 10}</i>")

    server.routes["/day/*"] = page
    nodes = [{"id": number, "note": text, "kind": kind} for number, (kind, text) in enumerate(rows["api"])]
    server.routes["/api"] = lambda path, _: Reply(
        json.dumps({"notes": nodes[:10], "next": "/api?page=2"} if "page" not in path else {"notes": nodes[10:]}),
        kind="application/json",
    )
    server.routes["/live"] = (
        "<div id=l></div><script>setTimeout(() => { for (const [k, t] of "
        + json.dumps(rows["browser"])
        + ") { const p = document.createElement('p'); p.innerHTML = `<q>${t}</q><b>${k}</b>`; l.append(p); } }, 200)</script>"
    )
    web = {"allow_private_hosts": ["127.0.0.1"], "requests_per_second": 200}
    bands = {"sun": [0, 50], "rain": [50, 101]}
    return [
        {"kind": "folder", "path": "notes"},
        {"kind": "table", "path": "table.csv"},
        {"kind": "huggingface", "dataset": "hub"},
        {"kind": "crawl", "start": server.address + "/", "item": "p", "text": "q::text", "tag": "b::text", **web},
        {"kind": "sequence", "url": server.address + "/day/{1..25}", "text": "p::text", "fields": {"wet": "i::text"},
         "rules": [{"rule": "wetness", "field": "wet", "bands": bands}], **web},
        {"kind": "api", "url": server.address + "/api", "items": "notes", "id": "id", "text": "note", "next": "next", "fields": {"kind": "kind"},
         "rules": [{"rule": "kind", "field": "kind"}], **web},
        {"kind": "crawl", "name": "live", "start": server.address + "/live", "item": "#l p", "text": "q::text", "tag": "b::text", "browser": True,
         "browser_path": "/usr/bin/chromium", "browser_sandbox": False, "wait_for": "#l p", **web},
    ]  # fmt: skip


@pytest.mark.slow
def test_sources_of_each_kind_train_a_model(example: Callable[[str], Path]) -> None:
    """Seven sources, 140 rows, all labeled.

    `why` explains one of them; a visit with a later as_of requests pages alone and adds new rows.
    """
    workspace = example("intents")
    with site() as server:
        server.etags = True
        sources = written(server, workspace / "data")
        shorten_runs(workspace, scrape__sources=sources, scrape__as_of="2026-01-01", synthesize__templates=[])
        assert load(workspace).scrape.as_of == "2026-01-01"
        run_all_stages(workspace)
        rows, notes = read(workspace / "generations/scrape"), read_notes(workspace / "generations/scrape", ScrapeNotes)
        assert len(rows) == 140
        assert rows["label"].value_counts().to_dict() == {"rain": 70, "sun": 70}
        assert (rows["label"] == [("rain" if "rain" in text else "sun") for text in rows["text"]]).all()
        assert rows["label_source"].value_counts().to_dict() == {
            "human": 60,
            "weak:tag": 40,
            "weak:wetness": 20,
            "weak:kind": 20,
        }
        assert {no_item for counts in notes.no_items.values() for no_item in counts.items()} == {("absent", 5)}
        page = (workspace / "reports/report.html").read_text(encoding="utf-8")
        assert "What was collected" in page
        assert "5 absent" in page

        origin = rows.loc[rows["label_source"] == "weak:kind", "origin"].iloc[0]
        why = seedling("why", origin, "-w", workspace)
        assert "fetched 20" in why.stdout
        assert "votes kind=" in why.stdout

        server.requests.clear()
        server.routes["/day/21"] = f"<p>{sentence('sun', 777)}</p><i>3</i>"
        open_ledger(workspace).run("scrape")
        assert server.paths() == [], "the same day asks nothing"
        set_value(workspace, ["scrape", "as_of"], "2026-01-02")
        open_ledger(workspace).run("scrape")
        assert len(read(workspace / "generations/scrape")) == 141
        assert {path for path in server.paths() if path.startswith("/day")} == {
            f"/day/{number}" for number in range(21, 26)
        }
