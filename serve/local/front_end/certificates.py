"""Certificates for HAProxy: checked at start, put into one file, and handed on when they change."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from contract.errors import InputError
from serve.local.front_end.frontend import Tls
from serve.settings.tls import TlsSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
CLIENTS = "clients.pem"
"""HAProxy's file, beside that of its certificate."""
_FOLDER = "tls"
_ANSWER_BYTES = 65_536


def install_certificate(settings: TlsSettings, folder: Path) -> Tls | None:
    """Check what the settings name, write HAProxy's file below a run folder, and return what it needs.

    Raises InputError: a file is missing or no PEM, or the key is not that of the certificate or locked.
    """
    if settings.cert is None:
        return None
    place = folder / _FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    target = place / "front.pem"
    _write(target, _joined(settings))
    client_ca = None
    if settings.client_ca is not None:
        client_ca = place / CLIENTS
        _write(client_ca, _vouching(settings.client_ca))
    return Tls(str(target), None if client_ca is None else str(client_ca), settings.min_version)


class CertificateWatch:
    """Hands on certificates to every HAProxy of the run, when their files have changed and are in order.

    Ours and those that vouch for clients. What did not reach every HAProxy is tried again until it does.

    Args:
        settings: where the files are.
        target: HAProxy's file.
        controls: gives the control sockets of the HAProxys that live.
        tell: told in words what was done, or why not.
        every_s: how often the files are looked at.
    """

    def __init__(
        self,
        settings: TlsSettings,
        target: Path,
        controls: Callable[[], Iterable[str]],
        tell: Callable[[str], None],
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._settings = settings
        self._target = target
        self._controls = controls
        self._tell = tell
        self._every_s = every_s
        self._seen = self._stamps()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more. Safe to call again."""
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        failed = ""
        while not self._ended.wait(self._every_s):
            stamps = self._stamps()
            if stamps == self._seen:
                continue
            problem = self._hand_on()
            with suppress(Exception):  # whoever is told may be gone; the watch goes on
                if not problem:
                    self._tell("the new certificate is in force")
                elif problem != failed:
                    self._tell(f"the new certificate is not in force: {problem}")
            failed = problem
            if not problem:
                self._seen = stamps

    def _hand_on(self) -> str:
        """Return what speaks against it at any HAProxy; empty where all have it."""
        try:
            files = {"cert": (self._target, _joined(self._settings))}
            if self._settings.client_ca is not None:
                files["ca-file"] = (self._target.with_name(CLIENTS), _vouching(self._settings.client_ca))
            for target, pem in files.values():
                _write(target, pem)
        except (InputError, OSError) as problem:
            return str(problem)
        problems = []
        for control in self._controls():
            for kind, (target, pem) in files.items():
                try:
                    _command(control, f"set ssl {kind} {target} <<\n{pem}\n")
                    said = _command(control, f"commit ssl {kind} {target}\n")
                except OSError as problem:
                    problems.append(f"HAProxy does not answer: {problem}")
                else:
                    if "Success" not in said:
                        problems.append(f"HAProxy says {said.strip()!r}")
        return "; ".join(dict.fromkeys(problems))

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        found: list[tuple[int, int] | None] = []
        for path in (self._settings.cert, self._settings.key, self._settings.client_ca):
            try:
                state = Path(path or "").stat()
                found.append((state.st_mtime_ns, state.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)


def _joined(settings: TlsSettings) -> str:
    """Return certificate, chain and key as one PEM without empty lines. Raises InputError."""
    cert, key = str(settings.cert), settings.key or str(settings.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def locked() -> str:
        raise InputError(
            "the key is locked with a password", where=f"tls.key {key}", hint="a key without one"
        )

    for name, path in (("tls.cert", cert), ("tls.key", key)):
        try:
            Path(path).read_bytes()
        except OSError as problem:
            raise InputError(f"cannot be read: {problem.strerror}", where=f"{name} {path}") from None
    try:
        context.load_cert_chain(cert, key, locked)
        texts = [Path(path).read_text() for path in dict.fromkeys((cert, key))]
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(
            f"is no certificate with its key: {_reason(problem)}",
            where=f"tls.cert {cert}" + ("" if settings.key is None else f", tls.key {key}"),
            hint="PEM files; the certificate first, then its chain",
        ) from None
    return "".join(f"{line}\n" for text in texts for line in text.splitlines() if line.strip())


def _vouching(client_ca: str) -> str:
    """Return certificates that vouch for clients as PEM without empty lines. Raises InputError."""
    try:
        ssl.create_default_context(cafile=client_ca)
        lines = Path(client_ca).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(
            f"holds no certificates: {_reason(problem)}", where=f"tls.client_ca {client_ca}"
        ) from None
    return "".join(f"{line}\n" for line in lines if line.strip())


def _reason(problem: Exception) -> str:
    return str(getattr(problem, "reason", None) or getattr(problem, "strerror", None) or problem)


def _write(target: Path, pem: str) -> None:
    beside = target.with_name(f".{target.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(pem)
    beside.replace(target)


def _command(control: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        asking.connect(control)
        asking.sendall(command.encode())
        asking.shutdown(socket.SHUT_WR)
        said = b""
        while part := asking.recv(_ANSWER_BYTES):
            said += part
    return said.decode(errors="replace")
