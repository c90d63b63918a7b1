"""Pages in the browser run in its sandbox, and within limits on time, bytes and memory per page."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback import Reply, Site, site
from visiting import TEXTS, run

from seedling.config.sources import CrawlSource
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.scrape.web import check_selectors

CHROMIUM = "/usr/bin/chromium"
PAGE: dict[str, Any] = {
    "kind": "crawl", "item": "p", "text": "::text", "browser": True, "browser_path": CHROMIUM, "allow_private_hosts": ["127.0.0.1"],
}  # fmt: skip
UNTRUSTED = {**PAGE, "browser_sandbox": False}  # the tests' own pages; they may run as root


@pytest.mark.skipif(os.geteuid() != 0, reason="of root alone")
def test_running_as_root_requires_a_setting(tmp_path: Path) -> None:
    """The error is raised before any request, and names both ways to fix it."""
    with site() as server:
        with pytest.raises(InputError, match=r"no sandbox for root.*another user.*browser_sandbox: false"):
            run(tmp_path, TEXTS, {**PAGE, "start": server.address + "/"})
        assert server.requests == []


def test_other_users_than_root_need_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting applies to root alone."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_selectors(CrawlSource(**PAGE, start=["http://a.example/"]), images=False)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_chromium_runs_in_its_sandbox() -> None:
    """As the user `nobody`, with the spider's settings, no browser process has the option --no-sandbox, and each
    renderer filters system calls.
    """
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="seedling-nobody-"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    code = (
        "import os, subprocess, sys, time, asyncio, encodings.idna\n"
        "from playwright.sync_api import sync_playwright\n"
        "from seedling.scrape.spider import settings\nfrom seedling.config.sources import CrawlSource\nimport psutil\n"
        f"launch = settings(CrawlSource(**{PAGE!r}, start=['http://a.example/']), 1)['PLAYWRIGHT_LAUNCH_OPTIONS']\n"
        f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
        f"os.environ['HOME'] = os.environ['TMPDIR'] = {str(home)!r}\n"
        "with sync_playwright() as playwright:\n"
        "    browser = playwright.chromium.launch(**launch)\n"
        "    browser.new_page().goto('about:blank')\n"
        "    lines = [p.cmdline() for p in psutil.Process().children(recursive=True)]\n"
        "    assert any('--type=renderer' in line for line in lines)\n"
        "    assert not any('--no-sandbox' in line for line in lines), lines\n"
        "    renderer = next(p for p in psutil.Process().children(recursive=True) if '--type=renderer' in p.cmdline())\n"
        "    print([l for l in open(f'/proc/{renderer.pid}/status') if l.startswith('Seccomp:')])\n"
        "    browser.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    shutil.rmtree(home, ignore_errors=True)
    if "usable sandbox" in done.stderr:
        pytest.skip("this machine has no user namespaces")
    assert done.returncode == 0, done.stderr
    assert "Seccomp:\\t2" in done.stdout


def visit(server: Site, folder: Path, path: str, page: str, **limits: Any) -> tuple[list[str], list[str], float]:
    """Crawl a valid page that links to the hostile one and to another valid one; return the texts, the reasons and the
    seconds.
    """
    server.routes |= {
        "/": f'<p>first</p><a rel="next" href="{path}">on</a><a rel="next" href="/good">on</a>',
        "/good": "<p>second</p>",
    }
    server.routes[path] = page
    began = time.monotonic()
    output = run(folder, TEXTS, {**UNTRUSTED, "start": server.address + "/", **limits})
    return sorted(read(output)["text"]), list(read_rejected(output)["reason"]), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "while (true) {}",
        "setTimeout(() => { while (true) {} }, 200)",
        "onload = () => setTimeout(() => { while (true) {} }, 0)",
        "while (true) { alert(1) }",
        "setInterval(() => { document.body.append('x') }, 1); onbeforeunload = () => { while (true) {} }; setTimeout(() => { while (true) {} }, 600)",
        "for (let i = 0; i < 30; i++) open('/good'); while (true) {}",
    ],
)
def test_an_endless_script_is_stopped_with_its_page(script: str, tmp_path: Path) -> None:
    """After the time limit of a page the other pages are fetched, and no process is left."""
    with site() as server:
        texts, reasons, seconds = visit(
            server, tmp_path, "/bad", f"<p>bad</p><script>{script}</script>", max_page_seconds=6
        )
    assert texts == ["first", "second"]
    assert reasons == ["page_timeout"]
    assert seconds < 120
    assert not [process for process in psutil.Process().children(recursive=True) if "chrom" in process.name()]


@pytest.mark.slow
def test_a_page_loads_no_more_bytes_than_its_limit(tmp_path: Path) -> None:
    """A script that loads endlessly is stopped at the limit in megabytes, long before the time limit."""
    with site() as server:
        server.routes["/block"] = Reply(bytes(2**20), kind="application/octet-stream")
        script = "(async () => { for (let i = 0; ; i++) await (await fetch('/block?' + i)).arrayBuffer() })()"
        page = f"<p>bad</p><script>{script}; setInterval(() => document.body.append('x'), 50)</script>"
        texts, reasons, _ = visit(server, tmp_path, "/bad", page, max_page_megabytes=10, max_page_seconds=60)
        blocks = sum(path.startswith("/block") for path in server.paths())
    assert texts == ["first", "second"]
    assert reasons == ["page_too_many_bytes"]
    assert blocks < 60


@pytest.mark.slow
def test_a_page_uses_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    """Arrays outside the script's heap, which the heap limit does not count."""
    with site() as server:
        script = "const kept = []; setInterval(() => { kept.push(new Uint8Array(2e7).fill(7)); document.body.append('x') }, 50)"
        texts, reasons, _ = visit(
            server,
            tmp_path,
            "/bad",
            f"<p>bad</p><script>{script}</script>",
            max_page_memory_megabytes=400,
            max_page_seconds=60,
        )
    assert texts == ["first", "second"]
    assert reasons == ["page_too_much_memory"]


@pytest.fixture(autouse=True)
def no_browser_is_left() -> Iterator[None]:
    """After each test no browser process is left."""
    yield
    left = [process for process in psutil.Process().children(recursive=True) if "chrom" in process.name()]
    assert not left
    assert threading.active_count() < 50


@pytest.mark.slow
def test_a_page_sends_no_datagram_to_a_private_host(tmp_path: Path) -> None:
    """WebRTC sends UDP to a STUN server of the page's choice, which bypasses HTTP proxies.

    127.0.0.2 is not among the allowed hosts.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, site() as server:
        listener.bind(("127.0.0.2", 0))
        listener.setblocking(False)
        script = f"""
            const peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:127.0.0.2:{listener.getsockname()[1]}'}}]}});
            peer.createDataChannel('x');
            peer.createOffer().then(offer => peer.setLocalDescription(offer));
            setTimeout(() => {{ const p = document.createElement('p'); p.id = 'late'; p.textContent = 'late'; document.body.append(p); }}, 3000);
        """
        server.routes["/"] = f"<body><p>first</p><script>{script}</script></body>"
        output = run(tmp_path, TEXTS, {**UNTRUSTED, "start": server.address + "/", "wait_for": "#late"})
        assert sorted(read(output)["text"]) == ["first", "late"]
        with pytest.raises(BlockingIOError):
            listener.recv(2048)
