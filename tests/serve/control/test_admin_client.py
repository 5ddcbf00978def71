"""Calls to the admin interface, at addresses as operators write them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from fastapi import FastAPI

from contract.errors import EnvironmentProblem, InputError
from serve.control import admin_client
from sluicegate.policy_cmd import command
from tests.serve.parts import serving

released = threading.Event()


@pytest.fixture(scope="module")
def admin_url() -> Iterator[str]:
    """An admin interface without history, strict about its paths."""
    app = FastAPI(redirect_slashes=False)

    @app.get("/history")
    def history() -> list[str]:
        return []

    @app.put("/trials/canary")
    def begin() -> dict[str, str]:
        released.wait(10)
        return {}

    with serving(app) as url:
        yield url


@pytest.mark.parametrize("form", ["{}", "{}/", " {}// "])
@pytest.mark.parametrize("scheme", ["http://", "HTTP://", ""])
def test_every_way_to_write_the_address_reaches_it(admin_url: str, scheme: str, form: str) -> None:
    """A slash at the end, blanks around, no scheme."""
    given = form.format(scheme + admin_url.removeprefix("http://"))
    assert admin_client.policy_history(given) == []


def test_what_is_no_address_is_refused_before_anything_is_asked(admin_url: str) -> None:
    """The refusal names the option and hides the password; the command hands it on."""
    with pytest.raises(InputError, match="--admin-url") as caught:
        admin_client.policy_history(admin_url.replace("://", "://user:secret@"))
    assert "secret" not in str(caught.value)
    result = CliRunner().invoke(command, ["history", "--admin-url", f"{admin_url}/?x=1"])
    assert isinstance(result.exception, InputError)
    assert CliRunner().invoke(command, ["history", "--admin-url", f"{admin_url}/"]).exit_code == 0


def test_a_gateway_that_is_still_loading_is_not_taken_for_one_that_is_not_there(
    admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning a trial may load a family, and has the time of a push; beyond it, nothing is known."""
    assert admin_client._LOADING_TIMEOUT_S == 600.0
    monkeypatch.setattr(admin_client, "_LOADING_TIMEOUT_S", 0.05)
    with pytest.raises(EnvironmentProblem, match=r"has not answered within 0\.05 s.*may still do it"):
        admin_client.begin_trial("canary", {}, admin_url)
    released.set()
