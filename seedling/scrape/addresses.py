"""Where a host is, and whether it may be asked: each resolution of a name is judged, and what was judged is what is connected to.

A page chooses the names that are resolved, and a name may resolve to another address a moment later. So no connection is made to what
another cache, or the system, resolved a name to.
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

MAX_REMEMBERED_HOSTS = 10_000  # one that was forgotten is resolved and judged again
NO_SUCH_HOST, PRIVATE = "no_such_host", "private_address"


@dataclass(frozen=True, slots=True)
class Judged:
    """The address to connect to, or the reason why there is none."""

    address: str | None
    reason: str | None = None


class JudgedHosts:
    """The hosts that were resolved, each with the address that was judged.

    allowed: the names whose addresses may be private, or True for all.
    """

    def __init__(self, allowed: bool | Iterable[str]) -> None:
        self._all_allowed = allowed is True
        self._allowed = frozenset() if isinstance(allowed, bool) else frozenset(name.lower() for name in allowed)
        self._judged: OrderedDict[str, Judged] = OrderedDict()

    def allows(self, host: str) -> bool:
        """Whether the host is asked wherever it is."""
        return self._all_allowed or host in self._allowed

    async def judge(self, host: str) -> Judged:
        """Where the host is. A name that is unknown just now is asked for again the next time."""
        host = host.lower()
        if host in self._judged:
            self._judged.move_to_end(host)
            return self._judged[host]
        found = await resolved(host)
        if not found:
            return Judged(None, NO_SUCH_HOST)
        public = self.allows(host) or all(is_public(address) for address in found)
        judged = Judged(found[0]) if public else Judged(None, PRIVATE)
        self._judged[host] = judged
        if len(self._judged) > MAX_REMEMBERED_HOSTS:
            self._judged.popitem(last=False)
        return judged


async def resolved(host: str) -> list[str]:
    """The host's IP addresses, those of version 4 first; none where nobody knows it."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(one[4][0]) for one in sorted(found, key=lambda one: one[0] != socket.AF_INET)]


@cache
def judged_hosts(allowed: bool | tuple[str, ...]) -> JudgedHosts:
    """The one judge of this process for what it is allowed: the check of an address and the connection share what was judged."""
    return JudgedHosts(allowed)


def proxy_hosts() -> list[str]:
    """The hosts of the proxies that the environment names, which are connected to wherever they are."""
    addresses = (
        address if "://" in address else f"//{address}" for name, address in getproxies().items() if name != "no"
    )
    return [host for address in addresses if (host := urlsplit(address).hostname)]
