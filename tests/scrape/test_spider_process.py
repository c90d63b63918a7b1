"""Spiders are forked by one server, and each is in the state of a process that the collecting process has just started."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback import Reply, Site, site
from visiting import QUICK, TEXTS, run

from seedling.dataset.generation import read
from seedling.errors import SeedlingError
from seedling.scrape.spider_process import spider_process

VARIABLE = "SEEDLING_TEST_TOKEN"
END_TIMEOUT_SECONDS = 20


@pytest.fixture
def api() -> Iterator[Site]:
    """A site whose /items is an API of one text."""
    with site() as server:
        server.routes["/items"] = Reply('{"items": [{"id": 1, "note": "a text"}]}', kind="application/json")
        yield server


def source(server: Site) -> dict[str, Any]:
    """The API as a source that sends the token of the environment."""
    return {
        "kind": "api", "url": server.address + "/items", "items": "items", "id": "id", "text": "note",
        "headers": {"Authorization": f"Bearer ${{{VARIABLE}}}"}, **QUICK,
    }  # fmt: skip


def spider_processes() -> list[psutil.Process]:
    """The processes that this one's spider servers have forked and that still run."""
    servers = [child for child in psutil.Process().children() if "seedling.scrape.spider_server" in child.cmdline()]
    return [spider for server in servers for spider in server.children()]


def when_asked(server: Site, action: Any) -> None:
    """Make the site call `action` with the running spider before it answers."""
    reply = server.routes["/items"]

    def route(_: str, __: bytes) -> Reply:
        (spider,) = spider_processes()
        action(spider)
        assert isinstance(reply, Reply)
        return reply

    server.routes["/items"] = route


@pytest.mark.slow
def test_each_spider_has_the_environment_folder_and_limits_of_its_start(
    api: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variable, working folder and limit of open files change between two crawls: the second spider has the new ones."""
    states: list[tuple[int, str, tuple[int, int]]] = []
    when_asked(api, lambda spider: states.append((spider.ppid(), spider.cwd(), spider.rlimit(psutil.RLIMIT_NOFILE))))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = (min(limits[0], 1_000) - 100, limits[1])
    try:
        for name, limit in (("first", limits), ("second", lower)):
            folder = tmp_path / name
            folder.mkdir()
            monkeypatch.setenv(VARIABLE, name)
            monkeypatch.chdir(folder)
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            run(folder, TEXTS, source(api))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    tokens = [headers["Authorization"] for _, _, path, headers, _ in api.requests if path == "/items"]
    assert tokens == ["Bearer first", "Bearer second"]
    (first_server, *first), (second_server, *second) = states
    assert (first, second) == ([str(tmp_path / "first"), limits], [str(tmp_path / "second"), lower])
    assert first_server == second_server


@pytest.mark.slow
def test_a_server_that_started_with_other_variables_of_python_is_not_used(
    api: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads its variables only when it starts."""
    servers: list[int] = []
    when_asked(api, lambda spider: servers.append(spider.ppid()))
    monkeypatch.setenv(VARIABLE, "x")
    for number in range(2):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        run(tmp_path, TEXTS, source(api), as_of=str(number))
    assert len(set(servers)) == 2


@pytest.mark.slow
def test_a_server_that_has_ended_is_replaced(api: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does after ten seconds without a crawl."""
    servers: list[psutil.Process] = []
    when_asked(api, lambda spider: servers.append(spider.parent()))
    monkeypatch.setenv(VARIABLE, "x")
    run(tmp_path, TEXTS, source(api), as_of="1")
    servers[0].kill()
    rows = read(run(tmp_path, TEXTS, source(api), as_of="2"))
    assert rows["text"].tolist() == ["a text"]
    assert servers[0].pid != servers[1].pid


def test_a_killed_spider_is_an_error_and_the_next_one_collects(
    api: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills it when memory runs out."""
    reply = api.routes["/items"]
    when_asked(api, lambda spider: spider.kill())
    monkeypatch.setenv(VARIABLE, "x")
    with pytest.raises(SeedlingError, match="was killed, most likely out of memory"):
        run(tmp_path, TEXTS, source(api))
    api.routes["/items"] = reply
    assert read(run(tmp_path, TEXTS, source(api)))["text"].tolist() == ["a text"]


def test_an_interrupted_crawl_leaves_no_process(tmp_path: Path) -> None:
    """Whatever ends the block, the spider that still waits for its site is killed, and its server ends."""
    with site() as slow, tempfile.TemporaryFile("w+") as errors:
        slow.routes["/*"] = Reply("late", hold=5)
        request = {
            "source": {"kind": "sequence", "url": slow.address + "/{1..2}", "text": "p::text", **QUICK},
            "store": str(tmp_path / "store.sqlite"), "visit": 1, "proxy": None, "images": False,
        }  # fmt: skip
        processes: list[psutil.Process] = []
        with pytest.raises(KeyboardInterrupt), spider_process(request, errors):
            deadline = time.monotonic() + END_TIMEOUT_SECONDS
            while not slow.requests and time.monotonic() < deadline:
                time.sleep(0.02)
            processes = spider_processes()
            processes += [parent for process in processes if (parent := process.parent())]
            raise KeyboardInterrupt
        _, left = psutil.wait_procs(processes, timeout=END_TIMEOUT_SECONDS)
    assert len(processes) == 2
    assert left == []


@pytest.mark.slow
def test_ctrl_c_in_the_terminal_ends_no_idle_server_with_a_traceback(
    api: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes of the terminal get the signal; what a spider does with it is as in a new process."""
    servers: list[psutil.Process] = []
    handlers: list[str] = []

    def look(spider: psutil.Process) -> None:
        server = spider.parent()
        assert server is not None
        servers.append(server)
        status = Path(f"/proc/{spider.pid}/status").read_text(encoding="utf-8")
        handlers.append(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")))

    when_asked(api, look)
    monkeypatch.setenv(VARIABLE, "x")
    run(tmp_path, TEXTS, source(api), as_of="1")
    servers[0].send_signal(signal.SIGINT)
    run(tmp_path, TEXTS, source(api), as_of="2")
    assert servers[0].pid == servers[1].pid
    assert not any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in handlers)
