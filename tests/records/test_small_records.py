"""The records of pushes, visits and crawl rates, and the messages of a spider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedling.errors import DamagedFile
from seedling.records.crawl_rates import CrawlRatePoint, CrawlRates
from seedling.records.pushes import PushRecord
from seedling.records.record import Record
from seedling.records.visits import OpenVisit
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.spider_messages import HostRate, SpiderEnd, SpiderProgress, receive, send
from seedling.scrape.web import progress_line
from seedling.versioning.pushing import read_push_state
from seedling.web_visits import has_open_visit
from seedling.workspace import Workspace

POINT = CrawlRatePoint(visit=1, host="a.example", seconds=2.5, rate=4.0, low=None, high=8.0, answers=9, refusals=1)
RECORDS: list[tuple[Record, dict[str, object]]] = [
    (
        PushRecord(complete=True, message="Pushed.", time="2026-11-29T06:00:00+00:00", fingerprint="ab"),
        {"complete": True, "message": "Pushed.", "time": "2026-11-29T06:00:00+00:00", "fingerprint": "ab"},
    ),
    (OpenVisit(as_of="2026-11-29", state="refused"), {"as_of": "2026-11-29", "state": "refused"}),
    (
        CrawlRates(source="site", ceiling=16.0, points=(POINT,)),
        {
            "source": "site",
            "ceiling": 16.0,
            "points": [
                {
                    "visit": 1,
                    "host": "a.example",
                    "seconds": 2.5,
                    "rate": 4.0,
                    "low": None,
                    "high": 8.0,
                    "answers": 9,
                    "refusals": 1,
                }
            ],
        },
    ),
]


@pytest.mark.parametrize(("record", "content"), RECORDS)
def test_a_record_is_written_and_read(tmp_path: Path, record: Record, content: dict[str, object]) -> None:
    """With its version; files of earlier versions have none; a later version is named."""
    path = tmp_path / "record.json"
    record.write(path)
    written = path.read_bytes()
    assert json.loads(written) == {**content, "version": 1}
    again = type(record).read(path)
    assert again == record
    again.write(path)
    assert path.read_bytes() == written
    path.write_text(json.dumps(content), encoding="utf-8")
    assert type(record).read(path) == record
    path.write_text(json.dumps({**content, "version": 2}), encoding="utf-8")
    with pytest.raises(DamagedFile, match="version 2 is of a later Seedling"):
        type(record).read(path)


def test_a_push_is_unknown_before_the_first_one_and_after_damage(tmp_path: Path) -> None:
    """The next run then pushes again."""
    assert read_push_state(tmp_path) is None
    assert not has_open_visit(tmp_path)
    Workspace(tmp_path).push_state.parent.mkdir(parents=True)
    Workspace(tmp_path).push_state.write_text('{"complete": tr', encoding="utf-8")
    assert read_push_state(tmp_path) is None


def test_a_spiders_messages_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress with and without a host, and the end; other lines, such as warnings of a library, are passed over."""
    host = HostRate(rate=4.0, low=2.0, high=8.0, answers=9, refusals=1)
    messages: list[SpiderProgress | SpiderEnd] = [
        SpiderProgress(done=0, total=None, host=None),
        SpiderProgress(done=3, total=9, host=host),
        SpiderEnd(closed="finished", counts={"absent": 4}, failed=1),
    ]
    for message in messages:
        send(message)
    lines = capsys.readouterr().out.splitlines()
    assert [receive(line) for line in lines] == messages
    assert receive("a warning") is None
    assert progress_line("site", None) == "site"
    assert progress_line("site", host) == "site 4/s (limit 2 to 8), 1 refused"
    assert progress_line("site", host.model_copy(update={"high": None, "refusals": 0})) == "site 4/s"


def test_the_rates_of_the_last_visit_are_read_from_the_store(tmp_path: Path) -> None:
    """Two visits: only the second one's points are returned."""
    with CrawlStore(tmp_path / "site.sqlite") as store:
        store.store_rate(1, "a.example", 1.0, (2.0, None, None, 1, 0))
        store.store_rate(2, "a.example", 1.5, (3.0, 1.0, None, 4, 2))
        assert store.rates() == (
            CrawlRatePoint(visit=2, host="a.example", seconds=1.5, rate=3.0, low=1.0, high=None, answers=4, refusals=2),
        )
