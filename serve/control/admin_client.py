"""Calls to the admin interface of a running gateway, for `sluice policy` and whoever steers one. No Ray."""

from __future__ import annotations

from typing import Any

import httpx

from contract.errors import EnvironmentProblem, PolicyError
from contract.policy import Policy
from contract.urls import parse_base_url

DEFAULT_URL = "http://127.0.0.1:8001"
_TIMEOUT_S = 30.0


def show_policy(admin_url: str = DEFAULT_URL) -> dict[str, Any]:
    """Return the revision in force: number, created_at, reason, policy, family_sha256, family_path."""
    return _dict(_call("GET", admin_url, "/policy"))


def push_policy(policy: Policy, admin_url: str = DEFAULT_URL, *, reason: str = "push") -> dict[str, Any]:
    """Put a policy in force; return {"revision": {...}, "replicas": [...]}.

    Raises:
        PolicyError: the gateway refused it, and says why; nothing has changed.
    """
    return _dict(_call("PUT", admin_url, "/policy", json=policy.dump(), params={"reason": reason}))


def policy_history(admin_url: str = DEFAULT_URL) -> list[dict[str, Any]]:
    """Return number, created_at, reason, policy_version, status, stages of each revision, oldest first."""
    found = _call("GET", admin_url, "/history")
    return list(found)


def rollback_policy(number: int, admin_url: str = DEFAULT_URL) -> dict[str, Any]:
    """Put the policy of revision `number` in force again; returns and raises as `push_policy`."""
    return _dict(_call("POST", admin_url, f"/rollback/{number}"))


def gateway_state(admin_url: str = DEFAULT_URL) -> dict[str, Any]:
    """Return the live state: revision, replicas, slots, family, ports."""
    return _dict(_call("GET", admin_url, "/state"))


def _call(method: str, admin_url: str, path: str, **rest: Any) -> Any:
    """Raise EnvironmentProblem when nobody answers, PolicyError when the gateway refuses."""
    admin_url = str(parse_base_url(admin_url, where="--admin-url"))
    try:
        reply = httpx.request(method, admin_url + path, timeout=_TIMEOUT_S, trust_env=False, **rest)
    except httpx.HTTPError as problem:
        raise EnvironmentProblem(
            f"no gateway answers at {admin_url}: {problem}", hint="sluice serve, or another --admin-url"
        ) from None
    try:
        value = reply.json()
    except ValueError:
        raise EnvironmentProblem(
            f"{admin_url} does not answer as a gateway's admin interface does",
            hint="--admin-url with the admin port, not the serving port",
        ) from None
    if reply.is_success:
        return value
    text = value.get("error", reply.text) if isinstance(value, dict) else reply.text
    raise PolicyError(str(text), where=admin_url)


def _dict(value: Any) -> dict[str, Any]:
    return dict(value)
