"""Resolves host names, and checks whether their addresses may be connected to.

A page chooses the names that are resolved, and a name may resolve to another address a moment later (DNS rebinding). So
each connection goes to the very address that was checked, never to the result of another cache or of the system.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

from seedling.config.public_addresses import is_public

MAX_CACHED_HOSTS = 10_000  # a host beyond these is resolved and checked again
NO_SUCH_HOST, PRIVATE = "no_such_host", "private_address"


@dataclass(frozen=True, slots=True)
class CheckedHost:
    """The address to connect to, or the reason why there is none."""

    address: str | None
    reason: str | None = None


class HostChecker:
    """Resolves hosts, checks their addresses, and caches the results.

    allowed: the names whose addresses may be private, or True for all names.
    """

    def __init__(self, allowed: bool | Iterable[str]) -> None:
        self._all_allowed = allowed is True
        self._allowed = frozenset() if isinstance(allowed, bool) else frozenset(name.lower() for name in allowed)
        self._checked: OrderedDict[str, CheckedHost] = OrderedDict()

    def allows(self, host: str) -> bool:
        """Whether the host may be connected to at any address."""
        return self._all_allowed or host in self._allowed

    async def check(self, host: str) -> CheckedHost:
        """Return the host's address, or why there is none. A host that cannot be resolved is not cached."""
        host = host.lower()
        if host in self._checked:
            self._checked.move_to_end(host)
            return self._checked[host]
        addresses = await resolve(host)
        if not addresses:
            return CheckedHost(None, NO_SUCH_HOST)
        is_allowed = self.allows(host) or all(is_public(address) for address in addresses)
        checked = CheckedHost(addresses[0]) if is_allowed else CheckedHost(None, PRIVATE)
        self._checked[host] = checked
        if len(self._checked) > MAX_CACHED_HOSTS:
            self._checked.popitem(last=False)
        return checked


async def resolve(host: str) -> list[str]:
    """Return the host's IP addresses, IPv4 first; an empty list if the name cannot be resolved."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(info[4][0]) for info in sorted(infos, key=lambda info: info[0] != socket.AF_INET)]


@cache
def host_checker(allowed: bool | tuple[str, ...]) -> HostChecker:
    """Return the process's one checker for these allowed names, so that all checks and connections share its cache."""
    return HostChecker(allowed)


def proxy_hosts() -> list[str]:
    """Return the hosts of the proxies that the environment names; they may be at any address."""
    addresses = (
        address if "://" in address else f"//{address}" for name, address in getproxies().items() if name != "no"
    )
    return [host for address in addresses if (host := urlsplit(address).hostname)]
