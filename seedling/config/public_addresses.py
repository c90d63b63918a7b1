"""Tells addresses of the public internet from private ones; the crawler and notifications ask no private address unasked."""

from __future__ import annotations

import ipaddress

# Addresses that Python calls global and that lead to no public host: Azure's host service, protocol assignments, 6to4 relays, documentation.
NOT_PUBLIC = tuple(
    ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that carries an IPv4 address (mapped, NAT64, 6to4) is judged by that too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if any(ip in network for network in NOT_PUBLIC):
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local or ip in ipaddress.ip_network("::/96"):
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return inner is None or is_public(str(inner))
    return True
