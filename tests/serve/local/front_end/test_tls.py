"""TLS as HAProxy speaks it by the rewritten configuration: real HAProxy, real clients, an echo behind."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from contract.errors import InputError
from serve.local.front_end.certificates import CertificateWatch, install_certificate
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy
from serve.local.front_end.rewrite import UNAVAILABLE, control_socket, rewrite
from serve.settings.tls import TlsSettings
from tests.ports import free_port
from tests.serve.local.front_end.authority import Authority
from tests.serve.local.front_end.rays import PORT, rays_configuration


class _Echo(BaseHTTPRequestHandler):
    """Answers every request with its path, as a replica would."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Door:
    """An HAProxy with a certificate."""

    url: str
    port: int
    authority: Authority
    settings: TlsSettings
    pem: Path
    control: str


@contextmanager
def door(folder: Path, **more: str) -> Iterator[Door]:
    """HAProxy on loopback with a certificate by an authority of its own, a replica behind it."""
    authority = Authority(folder)
    cert, key = authority.issue("front", "127.0.0.1")
    settings = TlsSettings(cert=str(cert), key=str(key), **more)
    tls = install_certificate(settings, folder)
    assert tls is not None
    port = free_port()
    replica = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=replica.serve_forever, daemon=True).start()
    front = replace(FrontEnd("127.0.0.1", PORT, (Address("127.0.0.1"),), (), 100), tls=tls)
    unavailable = folder / "503.http"
    unavailable.write_text(UNAVAILABLE, newline="")
    written = rewrite(rays_configuration(folder), front, str(unavailable))
    written = written.replace(f"bind 127.0.0.1:{PORT}", f"bind 127.0.0.1:{port}")
    written = re.sub(
        r"server replica-(\d) 127\.0\.0\.1:\d+ check.*",
        f"server replica-\\1 127.0.0.1:{replica.server_port}",
        written,
    )
    config = folder / "haproxy.cfg"
    config.write_text(written)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([find_haproxy(), "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        _await(port, process, folder / "haproxy.log")
        yield Door(
            f"https://127.0.0.1:{port}", port, authority, settings, Path(tls.pem), control_socket(written)
        )
    finally:
        process.kill()
        process.wait()
        replica.shutdown()
        replica.server_close()


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(500):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            threading.Event().wait(0.01)
        else:
            return
    pytest.fail("HAProxy does not listen")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """TLS without client certificates."""
    with door(tmp_path_factory.mktemp("tls")) as opened:
        yield opened


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a client that knows the authority uses."""
    return ssl.create_default_context(cafile=str(authority.ca))


def test_a_client_that_knows_the_authority_is_answered_and_no_other(plain: Door) -> None:
    """The certificate is checked by the client's rules; the reply says to stay with TLS."""
    reply = httpx.get(f"{plain.url}/v2/health/live", verify=trusting(plain.authority))
    assert (reply.status_code, reply.text) == (200, "/v2/health/live")
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(plain.url)


def test_plain_http_gets_no_answer_of_ours(plain: Door) -> None:
    """Nothing is served, redirected or told on the port without TLS."""
    with pytest.raises(httpx.HTTPError):
        httpx.get(plain.url.replace("https", "http"))


@pytest.mark.parametrize(("flags", "version"), [(["--http2"], "2"), (["--http1.1"], "1.1")])
def test_curl_speaks_both_versions_of_http(plain: Door, flags: list[str], version: str) -> None:
    """HTTP/2 by ALPN, HTTP/1.1 for those without; the replica sees no difference."""
    said = subprocess.run(
        ["curl", "-s", *flags, "--cacert", plain.authority.ca, "-w", " %{http_version}", f"{plain.url}/x"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == f"/x {version}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_refused(plain: Door, version: ssl.TLSVersion) -> None:
    """TLS 1.2 is the oldest."""
    context = trusting(plain.authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", plain.port), timeout=5) as raw,
        pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"),
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_the_oldest_version_can_be_1_3(tmp_path: Path) -> None:
    """As the settings say."""
    with door(tmp_path, min_version="1.3") as opened:
        context = trusting(opened.authority)
        assert httpx.get(opened.url, verify=context).status_code == 200
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.HTTPError):
            httpx.get(opened.url, verify=context)


def test_clients_show_certificates_where_the_settings_name_who_vouches(tmp_path: Path) -> None:
    """One by the authority is answered, none is a 403 in our form but for health, a stranger's is cut off."""
    clients = Authority(tmp_path, "clients")
    strangers = Authority(tmp_path, "strangers")
    with door(tmp_path, client_ca=str(clients.ca)) as opened:
        context = trusting(opened.authority)
        assert httpx.get(f"{opened.url}/v2/health/live", verify=context).status_code == 200
        refused = httpx.get(f"{opened.url}/v1/models", verify=context)
        assert (refused.status_code, refused.json()) == (403, {"error": "a client certificate is needed"})
        known = trusting(opened.authority)
        known.load_cert_chain(*map(str, clients.issue("alice")))
        assert httpx.get(f"{opened.url}/v1/models", verify=known).status_code == 200
        stranger = trusting(opened.authority)
        stranger.load_cert_chain(*map(str, strangers.issue("mallory")))
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{opened.url}/v1/models", verify=stranger)


def test_a_new_certificate_is_in_force_without_a_restart_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """What is in order is handed on within seconds, what is not changes nothing and is told."""
    told: list[str] = []
    heard = threading.Event()

    def tell(words: str) -> None:
        told.append(words)
        heard.set()

    def wait_until_in_force() -> None:
        """Half a file, or one of two, is told as not in force, and looked at again."""
        while "the new certificate is in force" not in told[-1:]:
            assert heard.wait(10)
            heard.clear()
        told.clear()

    with door(tmp_path) as opened:
        watch = CertificateWatch(opened.settings, opened.pem, lambda: [opened.control], tell, 0.05)
        try:
            cert = Path(str(opened.settings.cert))
            kept = cert.read_bytes()
            cert.write_text("no certificate")
            assert heard.wait(10)
            assert "not in force" in told[0]
            assert httpx.get(opened.url, verify=trusting(opened.authority)).status_code == 200
            told.clear()
            cert.write_bytes(kept)
            wait_until_in_force()
            other = Authority(tmp_path, "other")
            new_cert, new_key = other.issue("new", "127.0.0.1")
            Path(str(opened.settings.key)).write_bytes(new_key.read_bytes())
            cert.write_bytes(new_cert.read_bytes())
            wait_until_in_force()
            assert httpx.get(opened.url, verify=trusting(other)).status_code == 200
        finally:
            watch.close()


def test_a_new_certificate_is_offered_again_to_an_haproxy_that_did_not_take_it(tmp_path: Path) -> None:
    """One of two does not answer: the other has it at once, and it is told as in force once both have."""
    told: list[str] = []
    heard = threading.Event()

    def tell(words: str) -> None:
        told.append(words)
        heard.set()

    with door(tmp_path) as opened:
        late = tmp_path / "late.sock"
        watch = CertificateWatch(opened.settings, opened.pem, lambda: [str(late), opened.control], tell, 0.05)
        try:
            other = Authority(tmp_path, "other")
            both = [file.read_bytes() for file in other.issue("new", "127.0.0.1")]
            Path(str(opened.settings.key)).write_bytes(both[1])
            Path(str(opened.settings.cert)).write_bytes(both[0])
            while "does not answer" not in "".join(told):
                assert heard.wait(10)
                heard.clear()
            assert httpx.get(opened.url, verify=trusting(other)).status_code == 200
            late.symlink_to(opened.control)
            while told[-1] != "the new certificate is in force":
                assert heard.wait(10)
                heard.clear()
        finally:
            watch.close()


def test_who_vouches_for_clients_can_change_without_a_restart(tmp_path: Path) -> None:
    """Clients of the new authority are answered, those of the old one no longer."""
    clients, others = Authority(tmp_path, "clients"), Authority(tmp_path, "others")
    told: list[str] = []
    heard = threading.Event()

    def tell(words: str) -> None:
        told.append(words)
        heard.set()

    with door(tmp_path, client_ca=str(clients.ca)) as opened:
        watch = CertificateWatch(opened.settings, opened.pem, lambda: [opened.control], tell, 0.05)
        try:
            old, new = trusting(opened.authority), trusting(opened.authority)
            old.load_cert_chain(*map(str, clients.issue("alice")))
            new.load_cert_chain(*map(str, others.issue("bob")))
            assert httpx.get(f"{opened.url}/v1/models", verify=old).status_code == 200
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{opened.url}/v1/models", verify=new)
            clients.ca.write_bytes(others.ca.read_bytes())
            while "the new certificate is in force" not in told:
                assert heard.wait(10)
                heard.clear()
            assert httpx.get(f"{opened.url}/v1/models", verify=new).status_code == 200
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{opened.url}/v1/models", verify=old)
        finally:
            watch.close()


def test_headers_too_long_or_too_many_are_refused_before_a_replica_sees_them(plain: Door) -> None:
    """HAProxy holds 16 KiB of them and a hundred; its refusal names nothing that is behind."""
    longer = {"x-long": "a" * 20_000}
    many = [(f"x-{n}", "a") for n in range(200)]
    for headers in (longer, many):
        reply = httpx.get(plain.url, headers=headers, verify=trusting(plain.authority))
        assert reply.status_code == 400
        assert "haproxy" not in reply.text.lower()
    kept = httpx.get(plain.url, headers={"x-long": "a" * 8_000}, verify=trusting(plain.authority))
    assert kept.status_code == 200
    assert kept.headers["x-content-type-options"] == "nosniff"
    assert kept.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/-/routes", "/%2d/routes", "/%2D%2Froutes", "/-%2fhealthz"])
def test_rays_own_paths_are_closed_however_they_are_spelled(plain: Door, path: str) -> None:
    """What a replica would decode is decoded before it is compared."""
    asked = ["curl", "-s", "--path-as-is", "--cacert", str(plain.authority.ca), f"{plain.url}{path}"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert said.stdout == '{"error": "no such path"}'


def test_wrong_certificates_are_refused_at_start_with_words(tmp_path: Path) -> None:
    """Missing, no PEM, a key of another: each names the setting and the file."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("front", "127.0.0.1")
    _, other = authority.issue("other", "127.0.0.1")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for settings, said in [
        (
            TlsSettings(cert=str(tmp_path / "none.pem")),
            r"tls\.cert .*none\.pem: cannot be read: No such file",
        ),
        (TlsSettings(cert=str(nothing)), r"tls\.cert .*nothing\.pem: is no certificate"),
        (TlsSettings(cert=str(cert)), "is no certificate with its key"),
        (TlsSettings(cert=str(cert), key=str(other)), "KEY_VALUES_MISMATCH"),
        (
            TlsSettings(cert=str(cert), key=str(key), client_ca=str(nothing)),
            r"client_ca .*no certificates",
        ),
    ]:
        with pytest.raises(InputError, match=said):
            install_certificate(settings, tmp_path)
    assert install_certificate(TlsSettings(), tmp_path) is None
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + b"\n\n" + key.read_bytes())
    found = install_certificate(TlsSettings(cert=str(both)), tmp_path)
    assert found is not None
    assert Path(found.pem).stat().st_mode & 0o777 == 0o600
