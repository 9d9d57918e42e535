"""The page at ``/docs``: the OpenAPI document as plain HTML.

It has no script, and no style sheet or font from anywhere else.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from oarlock.errors import leaves
from service.api.problems import STATUS_BY_CODE

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccd3da; } code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: #f3f5f7; padding: .8rem; overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-top: 1px solid #e3e7eb; }
summary { cursor: pointer; } .method { color: #0b5cad; font-weight: 600; } tr:target { background: #fff3c4; }
"""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def page(document: Mapping[str, Any]) -> str:
    """The page: every call and every error code.

    Calls with their parameters and answers.
    """
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    calls = "".join(
        _call(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{escape(info['description'])}</p>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a>. Errors: <a href="#errors">all codes</a>.</p>'
        f"{calls}{_errors()}</html>"
    )


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    return (
        f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation.get('description', operation['summary']))}</p>"
        f"{_table('Parameters', _parameters(operation))}{_table('Answers', _answers(operation))}"
    )


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", []):
        what = _kind(parameter["schema"])
        yield f"<code>{escape(parameter['name'])}</code> ({escape(parameter['in'])})", what
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"body <code>{escape(media_type)}</code>", _kind(content["schema"])
        for name, schema in content["schema"].get("properties", {}).items():
            yield f"field <code>{escape(name)}</code>", _kind(schema)


def _kind(schema: Mapping[str, Any]) -> str:
    """The values that a parameter may have, in a line."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    words = [" | ".join(map(str, choice["enum"])) if "enum" in choice else choice.get("type", "object") for choice in choices]
    facts = [" or ".join(words)]
    facts += [
        f"{word} {schema[key]}" for key, word in (("default", "default"), ("description", "–")) if schema.get(key) is not None
    ]
    return escape(", ".join(facts).replace(", –", " –"))


def _answers(operation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in operation["responses"].items():
        examples = "".join(
            f"<details><summary><code>{escape(media_type)}</code> {escape(name)}</summary><pre>{escape(text)}</pre></details>"
            for media_type, content in answer.get("content", {}).items()
            for name, text in _examples(content)
        )
        yield escape(status), escape(answer["description"]) + examples


def _examples(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    named = {name: entry["value"] for name, entry in content.get("examples", {}).items()}
    named |= {"example": content["example"]} if "example" in content else {}
    for name, value in named.items():
        yield name, value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _errors() -> str:
    rows = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{STATUS_BY_CODE[code]}</td><td>{escape(title)}</td></tr>'
        for code, title in ((leaf.code, leaf.title) for leaf in leaves())
    )
    return f'<h2 id="errors">Errors</h2><table><tr><th>code</th><th>status</th><th>title</th></tr>{rows}</table>'


def _table(title: str, rows: Iterator[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{left}</td><td>{right}</td></tr>" for left, right in rows)
    return f"<h3>{title}</h3><table>{body}</table>" if body else ""
