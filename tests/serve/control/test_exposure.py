"""Listening beyond loopback: only with a key that is asked for, or when told that none is wanted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from contract.errors import InputError
from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.control.admin_address import admin_url, asks_admins, check_admin
from serve.control.exposure import beyond_loopback, check_guarded
from serve.settings.access import AccessSettings
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings
from serve.settings.tls import TlsSettings


def settings(state: Path | None = None, *, insecure: bool = False) -> Settings:
    """Settings with that state."""
    return Settings(
        fake=FakeSettings(),
        state=None if state is None else str(state),
        access=AccessSettings(insecure=insecure),
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "fe80::1%eth0", "gateway.example"])
def test_without_a_key_other_machines_are_kept_out(host: str, tmp_path: Path) -> None:
    """The refusal names the flag, the command that helps, and the way to insist."""
    assert beyond_loopback(host)
    with pytest.raises(InputError, match=r"--host: .*no key[^\n]*\n.*keys create.*--state DIR.*--insecure"):
        check_guarded("--host", host, settings())
    with pytest.raises(InputError, match=f"--state {tmp_path}"):
        check_guarded("--host", host, settings(tmp_path))


def test_the_admin_interface_leaves_loopback_with_key_and_tls_alone(tmp_path: Path) -> None:
    """Without a key of its scope, or with one that would travel in the clear, it does not start."""
    plain = settings(tmp_path).model_copy(update={"admin_host": "192.0.2.7"})
    with pytest.raises(InputError, match=r"admin_host: .*scope admin"):
        check_admin(plain)
    open_keys(str(tmp_path)).create("ops", ("admin",), KeyLimits())
    with pytest.raises(InputError, match=r"in the clear\n.*--tls-cert"):
        check_admin(plain)
    encrypted = plain.model_copy(update={"tls": TlsSettings(cert="/c.pem")})
    check_admin(encrypted)
    assert admin_url(encrypted) == "https://192.0.2.7:8001"
    check_admin(settings(tmp_path))


def test_the_word_insecure_opens_the_front_door_and_not_the_admin_interface(tmp_path: Path) -> None:
    """Whoever changes policies and keys from elsewhere shows a key, by TLS, whatever else is open."""
    opened = settings(tmp_path, insecure=True).model_copy(update={"admin_host": "192.0.2.7"})
    check_guarded("--host", "192.0.2.7", opened)
    with pytest.raises(InputError, match=r"scope admin to show\n(?!.*--insecure)"):
        check_admin(opened)
    open_keys(str(tmp_path)).create("ops", ("admin",), KeyLimits())
    with pytest.raises(InputError, match="in the clear"):
        check_admin(opened)


def test_the_table_says_what_the_admin_interface_asks_for_now(tmp_path: Path) -> None:
    """Nothing on loopback until there is a key for it, a key for ever then, and always off loopback."""
    store = open_keys(str(tmp_path))
    here = settings(tmp_path)
    _, book = store.create("web", ("infer",), KeyLimits())
    assert not asks_admins(here, None)
    assert not asks_admins(here, book)
    assert asks_admins(here.model_copy(update={"admin_host": "0.0.0.0"}), None)
    store.create("ops", ("admin",), KeyLimits())
    assert asks_admins(here, store.revoke("ops"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    """What only this machine reaches starts as it is."""
    assert not beyond_loopback(host)
    check_guarded("--host", host, settings())


def test_a_valid_key_or_the_word_insecure_is_enough(tmp_path: Path) -> None:
    """One key of the scope; a revoked one, or one of another scope, is none."""
    check_guarded("--host", "0.0.0.0", settings(insecure=True))
    store = open_keys(str(tmp_path))
    store.create("ops", ("admin",), KeyLimits())
    with pytest.raises(InputError):
        check_guarded("--host", "0.0.0.0", settings(tmp_path))
    check_guarded("admin_host", "0.0.0.0", settings(tmp_path), "admin")
    store.create("web", ("infer",), KeyLimits())
    check_guarded("--host", "0.0.0.0", settings(tmp_path))
    store.rotate("web", timedelta(0))
    check_guarded("--host", "0.0.0.0", settings(tmp_path))
    store.revoke("web")
    with pytest.raises(InputError):
        check_guarded("--host", "0.0.0.0", settings(tmp_path))
