"""Calls to the admin interface, at addresses as operators write them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from fastapi import FastAPI

from contract.errors import InputError
from serve.control import admin_client
from sluicegate.policy_cmd import command
from tests.serve.parts import serving


@pytest.fixture(scope="module")
def admin_url() -> Iterator[str]:
    """An admin interface without history, strict about its paths."""
    app = FastAPI(redirect_slashes=False)

    @app.get("/history")
    def history() -> list[str]:
        return []

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
