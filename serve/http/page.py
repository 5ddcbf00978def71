"""The page at /docs: the description of the interface, static, without scripts or foreign hosts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_METHODS = ("get", "post")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1c2733; background: #fff; }
code, pre, .path { font-family: ui-monospace, monospace; font-size: .92em; }
pre { background: #f3f5f7; padding: .8rem; overflow-x: auto; border-radius: 4px; }
details { border: 1px solid #d5dbe1; border-radius: 4px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid #e4e8ec; }
.verb { display: inline-block; width: 3.4rem; font-weight: 700; color: #0b5fa5; }
.what { color: #52606d; margin-left: .6rem; }
h2 { margin-top: 2rem; text-transform: capitalize; }
@media (prefers-color-scheme: dark) {
  body { color: #dde3e9; background: #14191f; } pre { background: #1f262e; } .verb { color: #6db3f2; }
  .what { color: #9aa7b3; } details, td, th { border-color: #37424d; }
}
"""


def render(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as HTML that needs nothing else to be read."""
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if (operation := operations.get(method)) is not None:
                tag = operation.get("tags", ["other"])[0]
                groups.setdefault(tag, []).append(_operation(path, method, operation, document))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in groups.items())
    title = escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title} {escape(info['version'])}</h1><p>{_prose(info.get('description', ''))}</p>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>. Every refusal is '
        "<code>{&quot;error&quot;: &quot;…&quot;}</code>.</p>"
        f"{body}</body></html>\n"
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts: list[str] = []
    if (asked := _json_schema(operation.get("requestBody", {}))) is not None:
        schema = _resolved(asked, document)
        example = json.dumps(_example(schema, document), indent=2, ensure_ascii=False)
        parts.append(f"<h4>Body</h4>{_fields(schema, document)}<pre>{escape(example)}</pre>")
        parts.append(f"<h4>With curl</h4><pre>{escape(_curl(path, schema, document))}</pre>")
    for status, reply in operation["responses"].items():
        if status < "300" and (given := _json_schema(reply)) is not None:
            example = json.dumps(_example(given, document), indent=2, ensure_ascii=False)
            parts.append(
                f"<h4>Reply</h4>{_fields(_resolved(given, document), document)}<pre>{escape(example)}</pre>"
            )
    refused = [
        f"<tr><td>{escape(status)}</td><td>{escape(reply['description'])}</td></tr>"
        for status, reply in operation["responses"].items()
        if status >= "300"
    ]
    if refused:
        parts.append(f"<h4>Refusals</h4><table>{''.join(refused)}</table>")
    return (
        f'<details><summary><span class="verb">{method.upper()}</span>'
        f'<span class="path">{escape(path)}</span><span class="what">'
        f"{escape(operation['summary'])}</span></summary>{''.join(parts)}</details>"
    )


def _json_schema(holder: dict[str, Any]) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = holder.get("content", {}).get("application/json", {}).get("schema")
    return schema or None


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _fields(schema: dict[str, Any], document: dict[str, Any]) -> str:
    rows = []
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        said = field.get("description") or _resolved(_inner(field), document).get("description", "")
        need = "" if name in required else " (optional)"
        rows.append(f"<tr><td><code>{escape(name)}</code>{need}</td><td>{_prose(said)}</td></tr>")
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _inner(field: dict[str, Any]) -> dict[str, Any]:
    """Return what a list, or a type that may be null, is made of."""
    if "items" in field:
        items: dict[str, Any] = field["items"]
        return items
    for option in field.get("anyOf", ()):
        if option.get("type") != "null":
            return _inner(option)
    return field


def _example(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    schema = _resolved(schema, document)
    if "properties" in schema:
        return {name: _example(field, document) for name, field in schema["properties"].items()}
    if "items" in schema:
        return [_example(schema["items"], document)]
    for option in schema.get("anyOf", ()):
        return _example(option, document)
    return None


def _curl(path: str, schema: dict[str, Any], document: dict[str, Any]) -> str:
    needed = schema.get("required") or list(schema.get("properties", {}))
    value = {name: _example(schema["properties"][name], document) for name in needed}
    for tensor in value.get("inputs", ()):
        if isinstance(tensor, dict):
            tensor.pop("parameters", None)
    shown = json.dumps(value, ensure_ascii=False).replace("'", "'\\''")
    where = path.replace("{model}", "cascade").replace("{version_}", "1")
    return f"curl http://localhost:8000{where} -d '{shown}'"


def _prose(text: str) -> str:
    parts = escape(text).split("`")
    return "".join(part if index % 2 == 0 else f"<code>{part}</code>" for index, part in enumerate(parts))
