"""The page at ``/docs``: the OpenAPI document as plain HTML.

It has no script, and no style sheet or font from anywhere else.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from oarlock.errors import leaves
from service.api.problems import STATUS_BY_CODE

_STYLE: Final = """
:root {
  --ground: #f6f7f9; --paper: #fff; --ink: #17202a; --quiet: #56626f; --line: #d9dee4; --accent: #0b6478; --mark: #fff3c4;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1115; --paper: #141a20; --ink: #e2e7ec; --quiet: #9aa7b4; --line: #29323b; --accent: #72c3d4; --mark: #352710;
  }
}
* { box-sizing: border-box; } html { scroll-padding-top: 1rem; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; margin: 0; color: var(--ink); background: var(--ground); }
main { max-width: 60rem; padding: 1rem 1.2rem 4rem; overflow-wrap: anywhere; } a { color: var(--accent); }
nav { padding: 1rem 1.2rem; background: var(--paper); border-bottom: 1px solid var(--line); }
nav h2 { font-size: .8rem; margin: 1rem 0 .2rem; border: 0; color: var(--quiet); }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li a { display: block; padding: .1rem 0; text-decoration: none; font-size: .88rem; }
nav li a:hover { text-decoration: underline; }
@media (min-width: 62rem) {
  body { display: grid; grid-template-columns: 21rem minmax(0, 1fr); }
  nav { height: 100vh; position: sticky; top: 0; overflow-y: auto; border-bottom: 0; border-right: 1px solid var(--line); }
}
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .7rem; overflow-x: auto; }
pre { margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; } h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); }
td:first-child { width: 13rem; } summary { cursor: pointer; } .quiet { color: var(--quiet); }
.method { color: var(--accent); font-weight: 650; } tr:target, h2:target { background: var(--mark); }
"""

_BODIES: Final = {
    "application/json": "-H 'Content-Type: application/json' -d @body.json",
    "application/dicom": "-H 'Content-Type: application/dicom' --data-binary @rtstruct.dcm",
}
_FILES: Final = frozenset({"application/dicom", "application/pdf", "image/png", "application/octet-stream"})
_PLACE: Final = re.compile(r"\{(\w+)\}")

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def page(document: Mapping[str, Any]) -> str:
    """The page: every call and every error code.

    Calls with who may make them, a sample, their parameters and answers; a list of them to find one's way.
    """
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    calls = [
        (method, path, operation) for path, operations in document["paths"].items() for method, operation in operations.items()
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style>{_contents(calls)}<main><h1>{title}</h1><p>{escape(info['description'])}</p>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a>. Errors: <a href="#errors">all codes</a>. In the samples '
        f"<code>S</code> is the address of this server and <code>KEY</code> a key of it (<code>oarlock keys create</code>).</p>"
        f"{''.join(_call(*call) for call in calls)}{_errors()}</main></html>"
    )


def _contents(calls: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """A link to each call, by what it is about."""
    by_tag: dict[str, list[str]] = {}
    for _, _, operation in calls:
        link = f'<li><a href="#{operation["operationId"]}">{escape(operation["summary"])}</a></li>'
        by_tag.setdefault(operation["tags"][0], []).append(link)
    lists = "".join(f"<h2>{escape(tag)}</h2><ul>{''.join(links)}</ul>" for tag, links in by_tag.items())
    return (
        f'<nav aria-label="Calls"><a href="/">Oarlock</a>{lists}<h2>more</h2><ul><li><a href="#errors">Errors</a></li></ul></nav>'
    )


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    return (
        f'<h2 id="{operation["operationId"]}"><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation.get('description', operation['summary']))}</p>"
        f'<p class="quiet">{_needs(operation)}</p><pre>{escape(_sample(method, path, operation))}</pre>'
        f"{_table('Parameters', _parameters(operation))}{_table('Answers', _answers(operation))}"
    )


def _needs(operation: Mapping[str, Any]) -> str:
    """Who may make a call."""
    if "security" not in operation:
        return "Needs no key."
    scopes = [f"<code>{escape(scope)}</code>" for entry in operation["security"] for scope in entry["bearer"]]
    return f"Needs a key with {' or '.join(scopes)}." if scopes else "Needs a key, with whatever scope."


def _sample(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """The call as a command of a shell."""
    words = ["curl -s"]
    answers = operation["responses"].get("200", {}).get("content", {})
    if "text/event-stream" in answers:
        words[0] += "N"
    if "security" in operation:
        words.append('-H "Authorization: Bearer $KEY"')
    bodies = operation.get("requestBody", {}).get("content", {})
    if method.upper() not in ("GET", "POST") or (method.upper() == "POST" and not bodies):
        words.append(f"-X {method.upper()}")
    if "multipart/form-data" in bodies:
        fields = bodies["multipart/form-data"]["schema"].get("required", ())
        words += [f"-F {name}=@{'series.zip' if name == 'files' else f'{name}.dcm'}" for name in fields]
    else:
        words += [next((sample for kind, sample in _BODIES.items() if kind in bodies), "--data-binary @file")] if bodies else []
    words.append('"$S' + _PLACE.sub(lambda place: f"${place[1].upper()}", path) + '"')
    if _FILES & set(answers):
        words.append("-OJ")
    return " ".join(words)


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
