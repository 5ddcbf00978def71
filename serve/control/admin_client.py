"""Calls to the admin interface of a running gateway, for `sluice policy` and whoever steers one. No Ray."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from contract.errors import EnvironmentProblem, PolicyError
from contract.policy import Policy
from contract.urls import parse_base_url
from serve.access.keys import KeyLimits, Scope

DEFAULT_URL = "http://127.0.0.1:8001"
KEY = "SLUICE_ADMIN_KEY"
"""Environment variable with the key to show; a command line can be read by everybody on the machine."""
CA = "SLUICE_ADMIN_CA"
"""Environment variable with the file of certificates that vouch for an admin interface with TLS."""
CERT = "SLUICE_ADMIN_CERT"
"""Environment variable with the file of our own certificate and its key, where the interface asks for one."""
_TIMEOUT_S = 30.0
_LOADING_TIMEOUT_S = 600.0
"""For what may have every replica load a family first."""


def show_policy(admin_url: str = DEFAULT_URL, *, family: str | None = None) -> dict[str, Any]:
    """Return the revision in force: number, created_at, reason, policy, family_sha256, family_path.

    `family` is the name that it is served under; None: the only one. So in the functions below.
    """
    return _dict(_call("GET", admin_url, "/policy", params=_of(family)))


def push_policy(
    policy: Policy, admin_url: str = DEFAULT_URL, *, reason: str = "push", family: str | None = None
) -> dict[str, Any]:
    """Put a policy in force; return {"revision": {...}, "replicas": [...]}.

    Raises:
        PolicyError: the gateway refused it, and says why; nothing has changed.
    """
    return _dict(
        _call(
            "PUT",
            admin_url,
            "/policy",
            json=policy.dump(),
            params={"reason": reason, **_of(family)},
            timeout=_LOADING_TIMEOUT_S,
        )
    )


def push_family(
    folder: Path,
    admin_url: str = DEFAULT_URL,
    *,
    policy: Policy | None = None,
    new_labels: bool = False,
    reason: str = "family push",
    family: str | None = None,
) -> dict[str, Any]:
    """Put the family of a folder on the gateway's machine in force.

    Args:
        folder: read by the gateway.
        admin_url: of the gateway.
        policy: goes with it. None: the one in force if it fits, else the reference alone.
        new_labels: the label set may be another one.
        reason: for the history.
        family: name that it is served under; None: the only one.

    Returns:
        {"revision": {...}, "replicas": [...], "placed": {variant: place}, "said": [...]}.

    Raises:
        PolicyError: the gateway refused it, and says why; nothing has changed.
    """
    asked = {
        "path": str(folder.resolve()),
        "policy": None if policy is None else policy.dump(),
        "new_labels": new_labels,
        "reason": reason,
    }
    return _dict(
        _call("PUT", admin_url, "/family", json=asked, params=_of(family), timeout=_LOADING_TIMEOUT_S)
    )


def policy_history(admin_url: str = DEFAULT_URL, *, family: str | None = None) -> list[dict[str, Any]]:
    """Return the revisions, oldest first.

    Each has number, created_at, reason, policy_version, status, stages, family, family_sha256.
    """
    found = _call("GET", admin_url, "/history", params=_of(family))
    return list(found)


def rollback_policy(
    number: int, admin_url: str = DEFAULT_URL, *, family: str | None = None
) -> dict[str, Any]:
    """Put policy and family of revision `number` in force again; returns and raises as `push_policy`."""
    return _dict(
        _call("POST", admin_url, f"/rollback/{number}", params=_of(family), timeout=_LOADING_TIMEOUT_S)
    )


def shift_gear(
    name: str | None, admin_url: str = DEFAULT_URL, *, family: str | None = None
) -> dict[str, Any]:
    """Fix the gear of the policy in force; None: load decides. Returns and raises as `push_policy`."""
    return _dict(
        _call(
            "POST",
            admin_url,
            f"/gear/{_part(name or 'auto')}",
            params=_of(family),
            timeout=_LOADING_TIMEOUT_S,
        )
    )


def show_trials(admin_url: str = DEFAULT_URL, *, family: str | None = None) -> list[dict[str, Any]]:
    """Return each candidate on trial with its counts, the rates of both arms, and its verdict so far."""
    return list(_call("GET", admin_url, "/trials", params=_of(family)))


def begin_trial(
    kind: str, asked: dict[str, Any], admin_url: str = DEFAULT_URL, *, family: str | None = None
) -> dict[str, Any]:
    """Put a candidate on trial: policy, family, share, rule, auto; returns and raises as `push_policy`."""
    return _dict(
        _call("PUT", admin_url, f"/trials/{kind}", json=asked, params=_of(family), timeout=_LOADING_TIMEOUT_S)
    )


def end_trial(
    kind: str, ending: str, admin_url: str = DEFAULT_URL, *, family: str | None = None
) -> dict[str, Any]:
    """Have the candidate on trial there `promote`d or `withdraw`n; returns and raises as `push_policy`."""
    return _dict(
        _call("POST", admin_url, f"/trials/{kind}/{ending}", params=_of(family), timeout=_LOADING_TIMEOUT_S)
    )


def gateway_state(admin_url: str = DEFAULT_URL, *, family: str | None = None) -> dict[str, Any]:
    """Return the live state: revision, replicas, slots, family, ports."""
    return _dict(_call("GET", admin_url, "/state", params=_of(family)))


def list_families(admin_url: str = DEFAULT_URL) -> dict[str, Any]:
    """Return the families that are served: {"roster": N, "plain": name or null, "families": [...]}.

    Each has served_as, family, placed and revision; `plain` is the one that is asked by short names too, and
    keeps them while it is unloaded.
    """
    return _dict(_call("GET", admin_url, "/families"))


def load_family(
    folder: Path,
    admin_url: str = DEFAULT_URL,
    *,
    name: str | None = None,
    policy: Policy | None = None,
    reason: str = "family load",
) -> dict[str, Any]:
    """Serve one more family beside those that are.

    Args:
        folder: read by the gateway.
        admin_url: of the gateway.
        name: to serve it under; None: the one in its manifest.
        policy: of the family; None: its reference alone.
        reason: for the history.

    Returns:
        {"served_as": NAME, "revision": {...}, "replicas": [...], "placed": {variant: place}, "said": [...]}.

    Raises:
        PolicyError: the gateway refused it, and says why; nothing has changed.
    """
    asked = {
        "path": str(folder.resolve()),
        "policy": None if policy is None else policy.dump(),
        "reason": reason,
    }
    method, path = ("POST", "/families") if name is None else ("PUT", f"/families/{_part(name)}")
    return _dict(_call(method, admin_url, path, json=asked, timeout=_LOADING_TIMEOUT_S))


def unload_family(
    name: str, admin_url: str = DEFAULT_URL, *, reason: str = "family unload"
) -> dict[str, Any]:
    """Serve a family no longer; return {"served": [names that are left], "replicas": [...]}.

    Raises:
        PolicyError: it is not served, or the only one.
    """
    path = f"/families/{_part(name)}"
    return _dict(_call("DELETE", admin_url, path, params={"reason": reason}, timeout=_LOADING_TIMEOUT_S))


def create_key(
    name: str, scopes: Sequence[Scope], limits: KeyLimits, admin_url: str = DEFAULT_URL
) -> dict[str, Any]:
    """Make a key; return it with its record, the only time that it is shown."""
    body = {"name": name, "scopes": list(scopes), "limits": limits.model_dump(mode="json")}
    return _dict(_call("POST", admin_url, "/keys", json=body))


def list_keys(admin_url: str = DEFAULT_URL) -> list[dict[str, Any]]:
    """Return the records of all keys, revoked ones too, without hashes."""
    return list(_call("GET", admin_url, "/keys"))


def rotate_key(name: str, overlap: timedelta, admin_url: str = DEFAULT_URL) -> dict[str, Any]:
    """Make a new key for a name; the old one expires after `overlap`. Returns as `create_key`."""
    body = {"overlap_s": overlap.total_seconds()}
    return _dict(_call("POST", admin_url, f"/keys/{_part(name)}/rotate", json=body))


def revoke_key(name: str, admin_url: str = DEFAULT_URL) -> list[dict[str, Any]]:
    """Make the keys of a name invalid; returns as `list_keys`."""
    return list(_call("DELETE", admin_url, f"/keys/{_part(name)}"))


def _of(family: str | None) -> dict[str, str]:
    """Return the part of a query that says which family is meant."""
    return {} if family is None else {"family": family}


def _part(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _call(method: str, admin_url: str, path: str, **rest: Any) -> Any:
    """Raise EnvironmentProblem when nobody answers, PolicyError when the gateway refuses."""
    admin_url = str(parse_base_url(admin_url, where="--admin-url"))
    try:
        reply = httpx.request(
            method,
            admin_url + path,
            trust_env=False,
            verify=_trusted(),
            headers=_shown(),
            **{"timeout": _TIMEOUT_S} | rest,
        )
    except httpx.ReadTimeout as problem:
        seconds = problem.request.extensions["timeout"]["read"]
        raise EnvironmentProblem(
            f"the gateway at {admin_url} has not answered within {seconds:g} s: it may still do it",
            hint="sluice policy show says what is in force",
        ) from None
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
    if reply.status_code in {401, 403} and not os.environ.get(KEY):
        raise EnvironmentProblem(
            f"{admin_url} asks for a key: {value.get('error') if isinstance(value, dict) else reply.text}",
            hint=f"{KEY}=KEY in the environment, a key made with `sluice keys create NAME --scope admin`",
        )
    text = value.get("error", reply.text) if isinstance(value, dict) else reply.text
    raise PolicyError(str(text), where=admin_url)


def _shown() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"authorization": f"Bearer {key}"} if key else {}


def _trusted() -> ssl.SSLContext:
    file, own = os.environ.get(CA), os.environ.get(CERT)
    try:
        context = ssl.create_default_context(cafile=file or None)
    except OSError as problem:
        raise EnvironmentProblem(f"{CA}: {file} cannot be read: {problem}") from None
    if own:
        try:
            context.load_cert_chain(own, password=lambda: b"")
        except OSError as problem:
            raise EnvironmentProblem(f"{CERT}: {own} holds no certificate with its key: {problem}") from None
    return context


def _dict(value: Any) -> dict[str, Any]:
    return dict(value)
