"""The settings file: YAML with the names of `Settings`, and the command line's word over it.

A Ray cluster reads the same names as `args.settings` of a Serve config file.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from contract.errors import InputError
from contract.records import first_problem
from contract.yamls import line_of, read_yaml
from serve.settings.gateway import PATHS, S3, Settings

Keys = tuple[str, ...]
EXAMPLE = (
    "see deploy/settings.example.yaml; sluice serve --settings FILE --dry-run shows what would be in force"
)


@dataclass(frozen=True)
class Flag:
    """An option of the command line: its name, where it belongs, its value.

    A default is one that was not typed: it holds where the file says nothing.
    """

    option: str
    keys: Keys
    value: Any
    default: bool = False


def settings_of(flags: tuple[Flag, ...]) -> Settings:
    """Return the settings of flags alone. Raises ValidationError."""
    raw: dict[Any, Any] = {}
    for flag in flags:
        _overlay(raw, flag)
    return Settings.model_validate(raw)


def read_settings(
    path: Path, flags: tuple[Flag, ...] = (), *, without: tuple[str, ...] = ()
) -> tuple[Settings, tuple[str, ...]]:
    """Read a settings file; flags win over it. Return the settings, and what each flag replaced in words.

    Relative paths in the file are from the file's folder. `without` are names that the file's word on is
    left out, because the flags say the opposite.

    Raises:
        InputError: the file is not there, not YAML, or breaks a rule; names file, line, rule and next step.
    """
    raw = read_yaml(path)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InputError("settings are names with values, such as `port: 8000`", where=path, hint=EXAMPLE)
    _resolve_paths(raw, path.resolve().parent)
    said = tuple(words for flag in flags for words in _overlay(raw, flag))
    for name in without:
        if raw.pop(name, None) is not None:
            said = (f"the command line wins over {name} of the settings file", *said)
    try:
        return Settings.model_validate(raw), said
    except ValidationError as problem:
        first = problem.errors()[0]
        line = line_of(path.read_text(encoding="utf-8-sig"), first["loc"])
        where = path if line is None else f"{path}:{line}"
        raise InputError(
            first_problem(problem), where=where, hint=_hint(first["loc"], first["type"])
        ) from None


def _resolve_paths(raw: dict[Any, Any], folder: Path) -> None:
    families = raw.get("families")
    several = families if isinstance(families, list) else []
    for holder, keys in [
        *((raw, keys) for keys in PATHS),
        *((family, (name,)) for family in several for name in ("path", "policy")),
    ]:
        inner: Any = holder
        for key in keys[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        found = inner.get(keys[-1]) if isinstance(inner, dict) else None
        if isinstance(found, str) and not found.startswith(S3):
            inner[keys[-1]] = str(folder / Path(found).expanduser())


def _overlay(raw: dict[Any, Any], flag: Flag) -> list[str]:
    """Set a flag's value; say what it replaces. One for every stage wins over single stages too."""
    places = [flag.keys]
    if flag.keys[0] == "stage" and isinstance(raw.get("stages"), dict):
        places += [("stages", str(name), *flag.keys[1:]) for name in raw["stages"]]
    said = []
    for keys in places:
        inner: Any = raw
        for key in keys[:-1]:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        before = inner.get(keys[-1])
        if flag.default and before is not None:
            continue
        if before is not None and before != flag.value:
            told = "" if isinstance(before, list) else f": {before}"
            given = flag.option if isinstance(before, list) else f"{flag.option} {flag.value}"
            said.append(f"{given} wins over {'.'.join(keys)}{told} of the settings file")
        if keys is flag.keys or before is not None:
            inner[keys[-1]] = flag.value
    return said


def _hint(loc: tuple[int | str, ...], kind: str) -> str:
    """Return the next step: the name that was meant, where one is near, else where all names are."""
    if kind != "extra_forbidden":
        return EXAMPLE
    model: type[BaseModel] | None = Settings
    for part in loc[:-1]:
        model = _inner(model, str(part)) if model is not None else None
    near = get_close_matches(str(loc[-1]), model.model_fields, n=1) if model is not None else []
    return f"{near[0]}? {EXAMPLE}" if near else EXAMPLE


def _inner(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the record behind a key; a part of the location that is no key leaves us where we are."""
    field = model.model_fields.get(key)
    if field is None:
        return model
    kinds = [field.annotation]
    while kinds:
        kind: Any = kinds.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        kinds += getattr(kind, "__args__", ())
    return None
