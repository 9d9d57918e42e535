"""Draw docs/architecture.md's pictures from the code.

python -m tools.map

Three parts are written between markers of the page: the packages with the first line of their docstrings, which of them imports
which, and the journey of a series: the calls of a few functions, in the order of the source.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tools import marked

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "architecture.md"
TOPS: Final = ("oarlock", "service", "worker", "gateway", "model_export")

JOURNEY: Final = (
    ("In the request: an upload becomes a job", "service", "post_job"),
    ("On the queue: a worker takes the job and does it", "worker", "contour"),
)
"""The functions whose calls are drawn; :func:`journey` fails if one is gone."""

OPENED: Final = ("submit", "run", "segment")
"""Functions whose own calls are drawn after them."""

ASIDE: Final = {
    "check_idempotency_key",
    "disk",
    "queue_position",
    "reveal",
    "to_rows",
    "not_drawn",
    "styles_of",
    "select",
    "found",
    "check_url",
    "items",
    "open",
}
"""Steps that say nothing of the way."""

MEANT: Final = {"create": "JobStore.create", "claim": "Leases.claim"}
"""Methods that more than one class has, and which of them is on the way."""

GROUND: Final = {"errors", "facts", "arrays", "logs", "settings"}
"""Calls of these modules are no step."""


@dataclass(frozen=True, eq=False)
class Place:
    """A function: its module (dotted), its name within it, and its syntax."""

    module: str
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def says(self) -> str:
        """The beginning of its docstring."""
        line = re.sub(r":\w+:|[`~]", "", (ast.get_docstring(self.node) or "").split("\n")[0])
        return re.split(r"[.;:](?: |$)", line)[0].replace('"', "'")

    @property
    def last(self) -> str:
        """Its name without its class."""
        return self.name.split(".")[-1]


def modules(*tops: str) -> dict[str, ast.Module]:
    """The syntax tree of every module below these folders."""
    paths = [path for top in tops for path in (ROOT / top).rglob("*.py") if "versions" not in path.parts]
    return {_dotted(path): _parsed(path) for path in sorted(paths)}


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    """The package that a module is drawn as: ``oarlock.ct``, ``service.api``, ``worker``."""
    parts = module.split(".")
    deep = parts[0] in {"oarlock", "service"} and len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir()
    return ".".join(parts[: 2 if deep else 1])


# ── the packages ──────────────────────────────────────────────────────────────────────────────────────────────────────


def packages() -> str:
    """A table of the packages and what their docstrings say of them."""
    rows = ["| package | what lives there |", "| --- | --- |"]
    for top in TOPS:
        for init in sorted((ROOT / top).glob("__init__.py")) + sorted((ROOT / top).glob("*/__init__.py")):
            says = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            if says and init.parent.parts[-2:] != ("store", "migrations"):
                rows.append(f"| `{init.parent.relative_to(ROOT)}/` | {says.split(chr(10))[0]} |")
    return "\n".join(rows)


# ── who imports whom ──────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def graph() -> str:
    """The core's packages in layers, with an arrow for each import.

    An arrow is left out where a longer way says the same.
    """
    arrows = {(package_of(module), package_of(name)) for module, tree in modules(*TOPS).items() for name in _imported(tree)}
    drawn = {arrow for arrow in arrows if _drawn(arrow)}
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {_id(package)}[{package}]" for package in ("service", "worker", "gateway", "model_export")]
    for number, layer in enumerate(_layers()):
        lines += [f'    subgraph L{number}[" "]', "        direction LR"]
        lines += [f"        {_id(package)}[{package.removeprefix('oarlock.')}]" for package in layer]
        lines.append("    end")
    lines += [f"    {_id(a)} --> {_id(b)}" for a, b in sorted(_reduced(drawn))]
    return "\n".join([*lines, "```"])


def _layers() -> list[list[str]]:
    """The layers of the core, as pyproject.toml's contract has them, without the ground."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "layers"]
    rows = [[name.strip() for name in row.replace("|", ":").split(":")] for row in contract["layers"]]
    return [named for row in rows if (named := [f"oarlock.{name}" for name in row if (ROOT / "oarlock" / name).is_dir()])]


def _drawn(arrow: tuple[str, str]) -> bool:
    a, b = (package.split(".")[0] if package.startswith("service") else package for package in arrow)
    known = {"service", "worker", "gateway", "model_export", *(package for layer in _layers() for package in layer)}
    return a != b and {a, b} <= known


def _reduced(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows from which all others follow."""
    short = {(a.split(".")[0] if a.startswith("service") else a, b) for a, b in arrows}
    below: dict[str, set[str]] = {a: {b for x, b in short if x == a} for a, _ in short}

    def reached(start: str) -> set[str]:
        return {found for step in below.get(start, ()) for found in {step, *reached(step)}}

    return {(a, b) for a, b in short if not any(b in reached(step) for step in below[a] - {b})}


# ── the journey of a series ───────────────────────────────────────────────────────────────────────────────────────────


@cache
def journey() -> str:
    """What the functions of :data:`JOURNEY` call, one box a call.

    In the order of the source.

    :raises LookupError: if there is not exactly one function of a name.
    """
    trees = modules("oarlock", "service", "worker")
    places = [place for module, tree in trees.items() for place in _functions(module, tree)]
    lines, number = ["```mermaid", "flowchart TD"], 0
    for part, (title, top, name) in enumerate(JOURNEY):
        lines.append(f'    subgraph P{part}["{title}"]')
        for step in _steps(_only(places, name, top), places, trees):
            number += 1
            lines.append(f'        S{number}["<b>{step.module}.{step.name}</b><br/>{step.says}"]')
        lines.append("    end")
    arrows = " --> ".join(f"S{step}" for step in range(1, number + 1))
    return "\n".join([*lines, f"    {arrows}", "```"])


def _steps(start: Place, places: list[Place], trees: dict[str, ast.Module]) -> Iterator[Place]:
    """Public functions of other modules that a function calls, itself or by functions of its own module; each once."""
    seen: set[Place] = set()
    for called in _calls(start, places, trees, (start,)):
        aside = called.last in ASIDE or called.last.startswith("_") or called.module.split(".")[-1] in GROUND
        if called not in seen and called.says and not aside:
            seen.add(called)
            yield called


def _calls(start: Place, places: list[Place], trees: dict[str, ast.Module], within: tuple[Place, ...]) -> Iterator[Place]:
    names = dict(_aliases(trees[start.module])) | dict(_made_here(start.node))
    for call in _in_order(start.node):
        place = _resolved(call, start, names, places)
        if place is None or place in within:
            continue
        if place.module != start.module:
            yield place
        if place.module == start.module or place.last in OPENED:
            yield from _calls(place, places, trees, (*within, place))


def _resolved(call: ast.Call, start: Place, names: dict[str, str], places: list[Place]) -> Place | None:
    """The function that is called: by its name, by its owner's, or by a method name that only one class has."""
    match call.func:
        case ast.Name(id=name):
            module, _, original = names.get(name, f"{start.module}.{name}").rpartition(".")
            found = [place for place in places if (place.module, place.name) == (module, original)]
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            found = [place for place in places if place.module == start.module and place.name.endswith(f".{name}")]
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in names:
            module, _, original = names.get(names[owner], names[owner]).rpartition(".")
            wanted = {(names[owner], name), (module, f"{original}.{name}")}
            found = [place for place in places if (place.module, place.name) in wanted]
        case ast.Attribute(attr=name):
            found = [
                place for place in places if (place.name == MEANT[name] if name in MEANT else place.name.endswith(f".{name}"))
            ]
        case _:
            found = []
    return found[0] if len(found) == 1 else None


def _only(places: list[Place], name: str, top: str) -> Place:
    found = [place for place in places if place.name == name and place.module.split(".")[0] == top]
    if len(found) != 1:
        msg = f"{len(found)} functions of {top} are called {name}: say in tools/map.py which one the journey goes through"
        raise LookupError(msg)
    return found[0]


# ── syntax ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _functions(module: str, tree: ast.Module) -> Iterator[Place]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Place(module, node.name, node)
        elif isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            yield from (Place(module, f"{node.name}.{method.name}", method) for method in methods)


def _in_order(node: ast.AST) -> Iterator[ast.Call]:
    """Calls as they are evaluated: what is given to a call comes before it. What happens after an error is left out."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ExceptHandler):
            yield from _in_order(child)
    if isinstance(node, ast.Call):
        yield node


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _made_here(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Variables that are made by calling a class: ``walk = Walk(…)``."""
    for assigned in ast.walk(node):
        match assigned:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=made))) if made[0].isupper():
                yield name, made


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in TOPS:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _id(package: str) -> str:
    return package.replace(".", "_")


PARTS: Final[dict[str, Callable[[], str]]] = {"packages": packages, "imports": graph, "journey": journey}


def main() -> int:
    for name, draw in PARTS.items():
        marked.write(PAGE, name, draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
