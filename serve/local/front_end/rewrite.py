"""HAProxy's configuration as Ray generates it, with our front end in place of Ray's. Pure.

Ray tells HAProxy to listen where the replicas listen, opens two pages of statistics on all interfaces, asks
for more files than a machine may allow, while no replica is there answers 404 or 500 in plain text, and sends
a line per request to a port that nobody reads. None of this can be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from contract.errors import EnvironmentProblem
from serve.local.front_end.frontend import FrontEnd

IDLE_S = 90
"""A connection that sends no request is closed after as long as one that sends no further request."""
UNAVAILABLE = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 36\r\n"
    "Retry-After: 1\r\n"
    "\r\n"
    '{"error": "not serving: try again"}\n'
)
"""What clients get where no replica can answer, in the form of our own errors."""
REQUEST_IDS = (
    "http-request set-var(txn.request_id) req.hdr(x-request-id) "
    "if { req.hdr(x-request-id) -m reg -- ^[A-Za-z0-9._:/+=@-]{1,128}$ }",
    "http-after-response set-header x-request-id %[var(txn.request_id)] "
    "if !{ res.hdr(x-request-id) -m found } { var(txn.request_id) -m found }",
    "http-after-response set-header x-request-id %[uuid()] if !{ res.hdr(x-request-id) -m found }",
)
"""What HAProxy answers itself carries a request id too, by the rule of serve/wire/request_ids.py."""
SAFE_HEADERS = (
    "http-after-response set-header x-content-type-options nosniff",
    "http-after-response set-header cache-control no-store",
    "http-after-response del-header server",
)
"""What no browser is to guess, no cache to keep, and nobody to know."""
_RAYS_PAGES = (
    "http-request return status 404 content-type application/json "
    'string \'{"error": "no such path"}\' if { path,url_dec -m beg /-/ } !{ path /-/healthz }'
)
"""What Ray tells of its applications is not for clients, however they spell it."""
_RAYS_METHODS = (
    "http-request return status 200 content-type application/grpc "
    'hdr grpc-status 12 hdr grpc-message "no such method" if { path,url_dec -m beg /ray.serve. }'
)
"""Nor by gRPC, where Ray's proxy in reserve would tell it."""
ONLY_TLS = ("http-after-response set-header strict-transport-security max-age=31536000",)
_NEEDS_CERTIFICATE = (
    "http-request return status 403 content-type application/json "
    'string \'{"error": "a client certificate is needed"}\' '
    "if !{ ssl_c_used } !{ path /v2/health/live /v2/health/ready }"
)
_GRPC_UNAVAILABLE = (
    "http-request return status 200 content-type application/grpc "
    'hdr grpc-status 14 hdr grpc-message "not serving: try again"'
)
_GRPC_NEEDS_CERTIFICATE = (
    "http-request return status 200 content-type application/grpc "
    'hdr grpc-status 16 hdr grpc-message "a client certificate is needed" if !{ ssl_c_used }'
)
_FRONT_END = "frontend http_frontend"
_GRPC = "frontend grpc_frontend"
_NO_ROUTE = "backend default_backend"
_NO_GRPC_ROUTE = "backend default_grpc_backend"
_WITHOUT = (("log",), ("option", "httplog"), ("option", "splice-request"), ("option", "splice-response"))
"""Lines of Ray's that cost every request something (docs/decisions/2026-11-29-bytes-to-bytes.md)."""
_PAGES = ("frontend prometheus", "listen stats")


@dataclass
class _Section:
    title: str
    lines: list[str] = field(default_factory=list)

    def only(self, beginning: str) -> int:
        """Return the index of the only line of this section that begins with some words."""
        words = beginning.split()
        found = [i for i, line in enumerate(self.lines) if line.split()[: len(words)] == words]
        if len(found) != 1:
            raise _unexpected(
                f"the section {self.title!r} has {len(found)} lines that begin with {beginning!r}"
            )
        return found[0]


def rewrite(config: str, front: FrontEnd, unavailable: str, binds: Sequence[str] | None = None) -> str:
    """Return the configuration with the front end's addresses and limits, and without the pages.

    `unavailable` is the path of a file with UNAVAILABLE; `binds` stand in place of the front end's addresses.

    Raises:
        EnvironmentProblem: it does not look as Ray 2.60 writes it, so a front end might stay where nobody
            asked for it.
    """
    sections = {section.title: section for section in _sections(config)}
    for title in ("global", "defaults", _FRONT_END, _NO_ROUTE, *_PAGES):
        if title not in sections:
            raise _unexpected(f"there is no section {title!r}")
    for title in _PAGES:
        sections.pop(title).only("bind")
    limits, defaults, served = sections["global"], sections["defaults"], sections[_FRONT_END]
    limits.lines[limits.only("maxconn")] = f"    maxconn {front.max_connections}"
    if any("http-request" in line.split()[1:2] for line in defaults.lines):
        raise _unexpected("it has a timeout for requests of its own")
    defaults.lines[:0] = ["    option http-ignore-probes", f"    timeout http-request {IDLE_S}s"]
    for section in sections.values():
        section.lines = [line for line in section.lines if not _is_left_out(line)]
    for code in (502, 503, 504):
        defaults.lines[defaults.only(f"errorfile {code}")] = f"    errorfile {code} {unavailable}"
    no_route = sections[_NO_ROUTE]
    no_route.lines[no_route.only("http-request return status 404")] = (
        "    http-request return status 503 default-errorfiles"
    )
    at = served.only("bind")
    if served.lines[at].split()[1:] != [f"127.0.0.1:{front.port}"]:
        raise _unexpected(f"the front end's line is {served.lines[at].strip()!r}")
    wheres = front.binds if binds is None else binds
    tls = "" if front.tls is None else f" {front.tls.words}"
    rules = [*REQUEST_IDS, *SAFE_HEADERS, _RAYS_PAGES]
    if front.tls is not None:
        rules += [*ONLY_TLS, *([] if front.tls.client_ca is None else [_NEEDS_CERTIFICATE])]
    lines = [*(f"bind {where}{tls}" for where in wheres), *rules]
    served.lines[at : at + 1] = [f"    {line}" for line in lines]
    heard = [served, *_rewrite_grpc(sections, front)]
    for section in sections.values():
        if section not in heard and any(line.split()[:1] == ["bind"] for line in section.lines):
            raise _unexpected(f"the section {section.title!r} listens too")
    return "".join(f"{line}\n" for section in sections.values() for line in [section.title, *section.lines])


def _is_left_out(line: str) -> bool:
    words = tuple(line.split())
    return any(words[: len(left_out)] == left_out for left_out in _WITHOUT)


def _rewrite_grpc(sections: dict[str, _Section], front: FrontEnd) -> list[_Section]:
    """Put the front end's addresses where Ray's own are for gRPC; return that section, if it is asked for."""
    if front.grpc_port is None:
        return []
    if (section := sections.get(_GRPC)) is None:
        raise _unexpected(f"there is no section {_GRPC!r}")
    at = section.only("bind")
    if section.lines[at].split()[1:] != [f"127.0.0.1:{front.grpc_port}", "proto", "h2"]:
        raise _unexpected(f"the front end's line for gRPC is {section.lines[at].strip()!r}")
    tls = "" if front.tls is None else f" {front.tls.words}"
    lines = [*(f"bind {where}{tls}" for where in front.grpc_binds), _RAYS_METHODS]
    if front.tls is not None and front.tls.client_ca is not None:
        lines.append(_GRPC_NEEDS_CERTIFICATE)
    section.lines[at : at + 1] = [f"    {line}" for line in lines]
    if (no_route := sections.get(_NO_GRPC_ROUTE)) is not None:
        kept = [line for line in no_route.lines if line.split()[:2] != ["http-request", "return"]]
        no_route.lines[:] = [*kept, f"    {_GRPC_UNAVAILABLE}"]
    return [section]


def has_servers(config: str) -> bool:
    """Whether a replica is named, so that requests can be answered; Ray's own proxy in reserve is none."""
    words = [line.split() for line in config.splitlines()]
    return any(line[:1] == ["server"] and "backup" not in line for line in words)


def control_socket(config: str) -> str:
    """Return the path of HAProxy's control socket. Raises EnvironmentProblem where there is none."""
    for line in config.splitlines():
        if line.split()[:2] == ["stats", "socket"]:
            return line.split()[2]
    raise _unexpected("it has no control socket")


def stand_in(config: str, control: str, unavailable: str) -> str:
    """Return a rewritten configuration for an HAProxy of our own: another control socket and error file."""
    written = []
    of_grpc = False  # its sockets are HAProxy's own: two would share them out
    for line in config.splitlines():
        words = line.split()
        if line and not line[0].isspace() and words[:1] != ["#"]:
            of_grpc = line.strip() == _GRPC
        if of_grpc:
            continue
        if words[:2] == ["stats", "socket"]:
            written.append(line.replace(words[2], control))
        elif words[:1] == ["errorfile"]:
            written.append(f"    errorfile {words[1]} {unavailable}")
        else:
            written.append(line)
    return "".join(f"{line}\n" for line in written)


def _sections(config: str) -> list[_Section]:
    """Split at the lines that are not indented; raise where one comes twice or something precedes them."""
    found: list[_Section] = []
    for line in config.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            if any(section.title == line.strip() for section in found):
                raise _unexpected(f"the section {line.strip()!r} comes twice")
            found.append(_Section(line.strip()))
        elif found:
            found[-1].lines.append(line)
        elif line.strip():
            raise _unexpected(f"it begins with {line.strip()[:60]!r}")
    return found


def _unexpected(what: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"HAProxy's configuration is not as Ray 2.60 writes it: {what}",
        hint="pip install 'sluicegate[serve]', which brings the Ray that this version is made for",
    )
