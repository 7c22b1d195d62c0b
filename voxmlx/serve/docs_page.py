"""The API's description as a page to read: HTML without scripts, from nowhere else."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["docs_page"]

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>API of voxmlx</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page/docs.css">
</head>
<body>
<header>
<h1>API of voxmlx</h1>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as HTML; every text of it is escaped."""
    return "".join(_parts(document))


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    about = document["info"]
    yield _HEAD
    yield f"<p>{_text(about['description'])} Version {escape(about['version'])}.</p>\n"
    yield '<p><a href="openapi.json">openapi.json</a> is the same for programs.</p>\n'
    yield "</header>\n<main>\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)
    yield "</main>\n</body>\n</html>\n"


def _operation(path: str, method: str, one: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{escape(one["operationId"])}">\n'
    shown = f"{method.upper()} {path}"
    yield f"<h2><code>{escape(shown)}</code> {_text(one['summary'])}</h2>\n"
    if "description" in one:
        yield f"<p>{_text(one['description'])}</p>\n"
    if one["security"]:
        yield "<p>It needs the key: <code>Authorization: Bearer KEY</code>.</p>\n"
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in one["parameters"]
    ]
    if rows:
        yield from _table(("parameter", "in", "meaning"), rows)
    for body in one.get("requestBody", {}).get("content", {}).values():
        schema = body["schema"]
        yield from _table(
            ("field", "type", "meaning"),
            [
                (name, _type(field), field.get("description", ""))
                for name, field in schema["properties"].items()
            ],
        )
    yield from _table(
        ("status", "content", "meaning"),
        [
            (status, ", ".join(answer.get("content", {})), answer["description"])
            for status, answer in one["responses"].items()
        ],
    )
    yield "</section>\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "<table>\n<thead><tr>"
    yield "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield "</tr></thead>\n<tbody>\n"
    for first, second, meaning in rows:
        yield f'<tr><th scope="row"><code>{escape(first)}</code></th>'
        yield f"<td>{escape(second)}</td><td>{_text(meaning)}</td></tr>\n"
    yield "</tbody>\n</table>\n"


def _type(schema: Mapping[str, Any]) -> str:
    if schema["type"] == "array":
        return f"several: {_type(schema['items'])}"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    return schema.get("format", schema["type"])


def _text(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)
    )
