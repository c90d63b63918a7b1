"""A connection is made only to a checked address, however often a name is resolved and whatever else was resolved
meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import image, site
from visiting import CRAWL

from seedling.config.sources import CrawlSource
from seedling.scrape.addresses import MAX_CACHED_HOSTS, PRIVATE, HostChecker, proxy_hosts
from seedling.scrape.downloading import CheckingResolver

PUBLIC = "93.184.216.34"


class Names:
    """An attacker's name server: each name has the public address the first time, and another one from then on."""

    def __init__(self, then: str) -> None:
        self.then, self.resolved = then, dict[str, int]()

    def __call__(self, host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        """The result of socket.getaddrinfo."""
        self.resolved[host] = self.resolved.get(host, 0) + 1
        address = PUBLIC if self.resolved[host] == 1 else self.then
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, 0))]


class Receiver:
    """Records the addresses that a connection receives for a name."""

    def __init__(self) -> None:
        self.addresses, self.done = list[str](), asyncio.Event()

    def resolutionBegan(self, _: Any) -> None:  # noqa: D102, N802
        pass

    def addressResolved(self, address: Any) -> None:  # noqa: D102, N802
        self.addresses.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: D102, N802
        self.done.set()


async def connect(hosts: HostChecker, name: str) -> list[str]:
    """The addresses that Twisted would connect to."""
    receiver = Receiver()
    CheckingResolver(hosts, [], None).resolveHostName(receiver, name, 80)
    await receiver.done.wait()
    return receiver.addresses


@pytest.mark.parametrize(
    "then", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
)
def test_a_name_that_left_the_cache_is_checked_again(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: more names than the cache holds displace the checked one, which then resolves to a private address."""
    names, hosts = Names(then), HostChecker(False)
    monkeypatch.setattr(socket, "getaddrinfo", names)

    async def attack() -> tuple[Any, list[str], list[str]]:
        before = await connect(hosts, "evil.example")
        hosts._checked.update(
            (f"{number}.evil.example", hosts._checked["evil.example"]) for number in range(MAX_CACHED_HOSTS)
        )
        await hosts.check("last.evil.example")
        return before, await connect(hosts, "evil.example"), [(await hosts.check("evil.example")).reason or ""]

    before, after, reasons = asyncio.run(attack())
    assert before == [PUBLIC]
    assert names.resolved["evil.example"] >= 2
    assert after == []
    assert reasons == [PRIVATE]


def test_a_cached_name_has_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any case of its letters, it has the address that was checked."""
    names, hosts = Names("127.0.0.1"), HostChecker(False)
    monkeypatch.setattr(socket, "getaddrinfo", names)

    async def ask() -> list[list[str]]:
        return [await connect(hosts, name) for name in ("evil.example", "EVIL.example", "evil.example")]

    assert asyncio.run(ask()) == [[PUBLIC]] * 3
    assert names.resolved == {"evil.example": 1}


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the connection could use the other one."""
    address_infos = [(socket.AF_INET, 1, 6, "", (address, 0)) for address in (PUBLIC, "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: address_infos)
    assert asyncio.run(connect(HostChecker(False), "evil.example")) == []
    assert asyncio.run(connect(HostChecker(["evil.example"]), "evil.example")) == [PUBLIC]


def test_the_proxy_of_the_environment_may_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy is in its own network; a page that requests it is refused earlier, when its address is checked."""
    monkeypatch.setenv("http_proxy", "http://proxy.corp:3128")
    monkeypatch.setenv("https_proxy", "proxy.corp:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    assert set(proxy_hosts()) == {"proxy.corp"}


REBINDING = """
import runpy, socket, seedling.scrape.addresses as addresses
addresses.MAX_CACHED_HOSTS = 0  # as after ten thousand other names
resolve, asked = socket.getaddrinfo, []
def answer(host, *rest, **named):
    asked.append(host)
    address = "127.0.0.1" if host == "evil.example" and asked.count(host) % 2 == 0 else "93.184.216.34"
    return resolve(host if host[0].isdigit() else address, *rest, **named)
socket.getaddrinfo = answer
runpy.run_module("seedling.scrape.spider", run_name="__main__")
"""


@pytest.mark.slow
def test_the_crawler_does_not_connect_to_an_unchecked_address(tmp_path: Path) -> None:
    """An image has a host name that is public when it is checked and resolves to this machine when it is connected to:
    no request arrives.
    """
    with site() as server:
        port = server.address.rpartition(":")[2]
        server.routes |= {"/": f'<figure><img src="http://evil.example:{port}/x.png"></figure>', "/x.png": image(9)}
        source = {**CRAWL, "start": server.address + "/", "allow_private_hosts": ["127.0.0.1"]}
        store = tmp_path / "store.sqlite"
        request = {
            "source": CrawlSource.model_validate(source).model_dump(),
            "store": str(store),
            "visit": 1,
            "proxy": None,
            "images": True,
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", REBINDING],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert server.paths() == ["/"], done.stderr
    assert b"private_address" in b"".join(path.read_bytes() for path in tmp_path.iterdir()), done.stderr
