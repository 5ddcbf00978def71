"""Who may use the admin interface: this machine's programs, no foreign page, and keys once there are some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette

from contract.errors import EnvironmentProblem, InputError
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits
from serve.control import admin_client
from serve.control.admin_guard import Guard
from serve.control.admin_keys import key_routes
from sluicegate.keys_cmd import command
from tests.serve.parts import serving


@dataclass(frozen=True)
class Admin:
    """The routes of keys behind the guard."""

    url: str
    store: KeyStore


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    """An admin interface on loopback without keys."""
    store, gate = open_keys(str(tmp_path)), Gate()
    follower = KeyFollower(store, gate)
    asyncio.run(follower.catch_up())
    app = Starlette(routes=key_routes(store, follower.catch_up))
    app.add_exception_handler(InputError, _words)
    with serving(Guard(app, gate, always_keyed=False)) as url:
        yield Admin(url, store)


def _words(_: Any, problem: Exception) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": str(problem)}, 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8001"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_others_reach_nothing(admin: Admin, headers: dict[str, str]) -> None:
    """Neither a name that was bent to 127.0.0.1 nor a form on another site reads or changes anything."""
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/web")):
        reply = httpx.request(method, admin.url + path, json={"name": "x"}, headers=headers)
        assert reply.status_code == 403
    assert admin.store.latest() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8001", "127.0.0.1:8001"])
def test_this_machines_programs_are_let_in(admin: Admin, host: str) -> None:
    """Every way to write loopback, and the interface's own pages."""
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for headers in ({"host": host}, own):
        assert httpx.get(f"{admin.url}/keys", headers=headers).json() == []


def test_keys_are_made_rotated_and_revoked_by_the_client(admin: Admin) -> None:
    """A key is in the reply that makes it and in no other; lists hold no hash."""
    first = admin_client.create_key("web", ["infer"], KeyLimits(rate_per_s=5), admin.url)
    second = admin_client.rotate_key("web", timedelta(minutes=1), admin.url)
    assert first["key"] != second["key"]
    listed = admin_client.list_keys(admin.url)
    assert [key["valid"] for key in listed] == [True, True]
    assert "sha256" not in str(listed)
    assert first["key"].split("_", 2)[2] not in str(listed)
    assert [key["valid"] for key in admin_client.revoke_key("web", admin.url)] == [False, False]


def test_the_first_admin_key_closes_the_interface_to_all_without_one(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on for ever; an inference key is not enough, and the words say what to set."""
    web = admin_client.create_key("web", ["infer"], KeyLimits(), admin.url)["key"]
    admin_client.list_keys(admin.url)
    ops = admin_client.create_key("ops", ["admin"], KeyLimits(), admin.url)["key"]
    with pytest.raises(EnvironmentProblem, match="SLUICE_ADMIN_KEY"):
        admin_client.list_keys(admin.url)
    assert httpx.get(f"{admin.url}/keys").headers["www-authenticate"].startswith("Bearer")
    assert httpx.get(f"{admin.url}/keys", headers={"authorization": f"Bearer {web}"}).status_code == 403
    monkeypatch.setenv("SLUICE_ADMIN_KEY", ops)
    assert len(admin_client.list_keys(admin.url)) == 2
    admin_client.revoke_key("ops", admin.url)
    with pytest.raises(InputError, match="not valid"):
        admin_client.list_keys(admin.url)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"name": "a/b"}', "application/json", 400),
        (b'{"name": "a", "limits": {"rate_per_s": -1}}', "application/json", 400),
        (b'{"name": "a", "limits": {"burst": 5}}', "application/json", 400),
        (b'{"name": "a", "scopes": ["root"]}', "application/json", 400),
        (b'{"name": "a", "more": 1}', "application/json", 400),
        (b'{"name": "a"}', "text/plain", 415),
        (b" " * 5000, "application/json", 413),
    ],
)
def test_wrong_bodies_make_no_key(admin: Admin, body: bytes, kind: str, status: int) -> None:
    """Each is refused, and there is no key after it."""
    reply = httpx.post(f"{admin.url}/keys", content=body, headers={"content-type": kind})
    assert reply.status_code == status
    assert admin.store.latest() is None


def test_the_command_works_on_a_folder_and_on_a_gateway(admin: Admin, tmp_path: Path) -> None:
    """The same words with --state and with --admin-url; the key alone is on stdout."""
    for place in (["--state", str(tmp_path / "new")], ["--admin-url", admin.url]):
        run = CliRunner()
        made = run.invoke(command, ["create", "web", "--rate", "5", *place])
        assert made.exit_code == 0, made.output
        assert made.stdout.startswith("sluice_")
        assert made.stdout.count("\n") == 1
        assert run.invoke(command, ["rotate", "web", "--overlap", "0s", *place]).exit_code == 0
        listed = run.invoke(command, ["list", *place]).stdout
        assert "rate_per_s" in listed
        assert "expired" in listed
        assert run.invoke(command, ["revoke", "web", *place]).exit_code == 0
        assert '"valid": true' not in run.invoke(command, ["list", "--json", *place]).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "web", "--burst", "3"], "a burst needs a rate"),
        (["create", "web", "--rate", "0"], "rate_per_s"),
        (["create", "web", "--state", "s", "--admin-url", "x"], "not both"),
        (["rotate", "web", "--overlap", "1 hour"], "no time"),
        (["rotate", "web", "--overlap", "400d"], "at most 366d"),
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], said: str) -> None:
    """Each says what is wrong, with exit code 2."""
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert said in result.output
