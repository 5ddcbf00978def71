"""The key of a model behind HTTP: read where it is needed, kept nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from contract.errors import EnvironmentProblem
from contract.remote import Credentials

MOST_BYTES = 1 << 16


def headers_of(credentials: Credentials | None) -> dict[str, str]:
    """Return the header that carries the key; none where a model asks for none.

    Raises:
        EnvironmentProblem: the variable is not set, or the file cannot be read or holds no key.
    """
    if credentials is None:
        return {}
    key = _from_environment(credentials.env) if credentials.file is None else _from_file(credentials.file)
    where = f"${credentials.env}" if credentials.file is None else credentials.file
    if not key or not key.isascii() or not key.isprintable():
        raise EnvironmentProblem(f"{where} holds no key: one line of printable ASCII is")
    return {credentials.header: f"{credentials.scheme} {key}" if credentials.scheme else key}


def _from_environment(name: str | None) -> str:
    value = os.environ.get(name or "")
    if value is None:
        raise EnvironmentProblem(
            f"the environment variable {name} is not set, which holds the key of a remote model",
            hint=f"export {name}=... before the command starts",
        )
    return value.strip()


def _from_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES).decode("ascii", "replace").strip()
    except OSError as problem:
        raise EnvironmentProblem(
            f"{path}: the key of a remote model cannot be read: {problem.strerror or problem}"
        ) from None
