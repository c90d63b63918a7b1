"""Identifies the client of a request, for limits per client, and checks the Host header."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from seedling.errors import InputError

EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  (compared with, not bound)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
IPV6_NETWORK_BITS = 64  # the smallest network that a provider assigns to a customer
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
ALLOWED_HOST = re.compile(r"\[?[0-9A-Za-z:._-]{1,253}\]?")


def client_of(address: str) -> str:
    """Returns the client of an address: the IPv4 address, its IPv6 /64 network, or `loopback` for 127/8 and ::1."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return "loopback"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
    return str(parsed)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this address."""
    return host == "localhost" or client_of(host) == "loopback"


class AllowedHosts:
    """The Host headers that a server accepts: a protection against DNS rebinding.

    A foreign site can make its own name point to this server; the browser then sends that name as Host. A name is
    accepted if it is a loopback name, the local address of the connection, the name that the server listens on, or
    one of `names`.
    """

    def __init__(self, bound_host: str, names: Iterable[str] = ()) -> None:
        self._names = {*LOOPBACK_NAMES, *(_bare(name) for name in names)}
        if bound_host in EVERY_ADDRESS:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()} - {""}
        else:
            self._names.add(_bare(bound_host))

    def refusal(self, headers: Iterable[tuple[bytes, bytes]], local_address: str) -> str | None:
        """Returns why a request with these headers is refused, or None if its Host is allowed."""
        values = [value for name, value in headers if name == b"host"]
        match = HOST.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
        if match is None:
            return "The request has no valid Host header: set it to the name or address of this server."
        name = _bare(match["name"])
        if name in self._names or name == _bare(local_address):
            return None
        return f"The host {name!r} is not a name of this server: start it with --allow-host {name}."


def checked_hosts(names: Iterable[str]) -> list[str]:
    """Returns the names of --allow-host. Raises InputError if one is not a host name or address."""
    checked = list(names)
    for name in checked:
        if not ALLOWED_HOST.fullmatch(name) or (":" in name and client_of(name.strip("[]")) == name.strip("[]")):
            raise InputError(
                f"--allow-host {name!r} is not a host: pass a name or address without http:// and port, "
                "for example --allow-host models.example."
            )
    return checked


def _bare(name: str) -> str:
    """Normalizes a host: lower case, no brackets, no final dot, and IPv6 addresses in their shortest form."""
    bare = name.strip("[]").rstrip(".").lower().partition("%")[0]
    if ":" not in bare:
        return bare
    try:
        parsed = ipaddress.IPv6Address(bare)
    except ValueError:
        return bare
    return str(parsed.ipv4_mapped or parsed)
