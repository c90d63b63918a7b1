"""Distinguishes public IP addresses from private ones, which the crawler and notifications do not reach by default."""

from __future__ import annotations

import ipaddress

# Networks that `ipaddress` reports as global but that contain no public host: Azure's host service, protocol
# assignments, 6to4 relays, documentation.
NOT_PUBLIC = tuple(
    ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
)


def is_public(address: str) -> bool:
    """Whether an IP address is public; an embedded IPv4 address (mapped, NAT64, 6to4) must be public, too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if any(ip in network for network in NOT_PUBLIC):
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local or ip in ipaddress.ip_network("::/96"):
            return False
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return embedded is None or is_public(str(embedded))
    return True
