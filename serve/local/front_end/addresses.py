"""From `--host` as an operator writes it to addresses of this machine, or to a refusal that lists them."""

from __future__ import annotations

import ipaddress
import re
import socket

import psutil

from contract.errors import InputError
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.ports import check_port_free, probe

_FLAG = "--host"
_ALL, _ALL_V4, _LOOPBACK_V6 = Address("::"), Address("0.0.0.0"), Address("::1")


def resolve_front_end(host: str, port: int, max_connections: int) -> FrontEnd:
    """Return where HAProxy is to listen: an address, `0.0.0.0`, `::`, or every address that a name means.

    `::` is every IPv4 address alone where this machine has no IPv6.

    Raises InputError unless that is on this machine.
    """
    text = host.strip()
    if re.fullmatch(r"\[.*\]", text):
        text = text[1:-1]
    literal = _literal(text)
    meant = [literal] if literal is not None else _looked_up(text)
    if meant == [_ALL] and not _is_here(_LOOPBACK_V6):  # listening there can succeed, and reach nobody
        meant = [_ALL_V4, _LOOPBACK_V6]
    there = tuple(address for address in meant if _is_here(address))
    if not there:
        shown = ", ".join(str(address) for address in meant)
        what = shown if literal is not None else f"{text} means {shown}, which"
        raise InputError(f"{what} is no address of this machine", where=_FLAG, hint=_remedy())
    left_out = tuple(address for address in meant if address not in there)
    return FrontEnd(text, port, there, left_out, max_connections)


def check_free(front: FrontEnd) -> None:
    """Raise EnvironmentProblem unless HAProxy could listen on every address now."""
    for address in front.addresses:
        check_port_free(address, front.port, "--port")


def machine_addresses() -> list[Address]:
    """Return the addresses of this machine's network cards: IPv4 first, link-local last."""
    found = []
    for card, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family in {socket.AF_INET, socket.AF_INET6}:
                ip = entry.address.partition("%")[0]
                found.append(_with_zone(ip, card))
    return sorted(found, key=lambda address: (address.is_link_local, address.is_v6))


def _with_zone(ip: str, zone: str) -> Address:
    plain = Address(str(ipaddress.ip_address(ip)))
    return Address(plain.ip, zone) if plain.is_link_local else plain


def _literal(text: str) -> Address | None:
    """Return the address that is written out; None for a name. Raises InputError where nothing can listen."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if ip.is_multicast or text in _broadcasts():
        raise InputError(f"{text} is for sending to many, not for listening", where=_FLAG, hint=_remedy())
    if isinstance(ip, ipaddress.IPv4Address):
        return Address(str(ip))
    if ip.ipv4_mapped is not None:
        return Address(str(ip.ipv4_mapped))
    zone = ip.scope_id or ""
    plain = str(ip).partition("%")[0]
    if not ip.is_link_local:
        if zone:
            raise InputError(f"{text}: only link-local addresses have a zone", where=_FLAG, hint=plain)
        return Address(plain)
    cards = [known.zone for known in machine_addresses() if known.ip == plain]
    if zone.isdigit():
        zone = next((name for index, name in socket.if_nameindex() if index == int(zone)), zone)
    if not zone and len(cards) > 1:
        hint = " or ".join(f"{plain}%{card}" for card in cards)
        raise InputError(f"{text} is on several network cards", where=_FLAG, hint=hint)
    return Address(plain, zone or (cards[0] if cards else ""))


def _broadcasts() -> set[str]:
    entries = [entry for card in psutil.net_if_addrs().values() for entry in card]
    own = {"0.0.0.0", *(entry.address for entry in entries)}
    return {"255.255.255.255", *(str(entry.broadcast) for entry in entries if entry.broadcast)} - own


def _looked_up(name: str) -> list[Address]:
    if not name or re.search(r"[\s/*@]", name) or re.search(r":\d*$", name):
        raise InputError(
            f"{name!r} is no address and no name; the port goes to --port", where=_FLAG, hint=_remedy()
        )
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not a host name"
        raise InputError(f"{name} does not resolve: {reason}", where=_FLAG, hint=_remedy()) from None
    meant = []
    for family, _, _, _, place in found:
        if family in {socket.AF_INET, socket.AF_INET6}:
            ip, _, zone = str(place[0]).partition("%")
            if not zone and len(place) == 4 and place[3]:  # where Python leaves the zone
                zone = str(place[3])
            meant.append(_literal(f"{ip}%{zone}" if zone else ip))
    return list(dict.fromkeys(address for address in meant if address is not None))


def _is_here(address: Address) -> bool:
    """Whether something can listen there; what else may be wrong with a port is asked later."""
    if address.is_link_local and not address.zone:
        return False
    return probe(address, 0) is None


def _remedy() -> str:
    listed = ", ".join(str(address) for address in machine_addresses())
    return f"one of {listed}, or 0.0.0.0 for every IPv4 address, :: for all"
