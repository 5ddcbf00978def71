"""Records on disk: immutable, open to newer keys, and read with an error that names the broken key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import InputError


class Frozen(BaseModel):
    """Base of every record on disk: immutable, and open to keys that a newer minor version adds."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, protected_namespaces=())


R = TypeVar("R", bound=BaseModel)


def parse_record(
    kind: type[R],
    raw: Any,
    *,
    where: object | None = None,
    error: Callable[..., InputError] = InputError,
    newest: int | None = None,
) -> R:
    """Return a record from its JSON form.

    Args:
        newest: the newest `schema` that this version reads, for records that carry one.

    Raises:
        InputError: (of the kind given) naming file and broken rule, or the newer schema.
    """
    if not isinstance(raw, dict):
        raise error("not a JSON object", where=where)
    schema = raw.get("schema")
    if newest is not None and isinstance(schema, int) and schema > newest:
        raise error(
            f"its schema is {schema}, this version reads up to {newest}",
            where=where,
            hint="upgrade sluicegate",
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as problem:
        raise error(first_problem(problem), where=where) from None
    except RecursionError:
        raise error("nested too deeply", where=where) from None


def first_problem(problem: ValidationError) -> str:
    """Return the first broken rule of a pydantic error as one sentence that names the key."""
    first = problem.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {problem.error_count() - 1} more)" if problem.error_count() > 1 else ""
    return f"{key}: {first['msg']}{more}"
