"""The mutants of a module: its source with one thing changed."""

import ast
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from pathlib import Path

from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor

from tools.mutate.operators import operators


@dataclass(frozen=True)
class Mutant:
    """One change.

    :param line: the number of the first changed line, from 1
    :param before: that line as it was, without its indent; ``after``: as it is
    """

    module: str
    line: int
    before: str
    after: str
    source: str


def mutants(root: Path, module: str, only: Sequence[str] | None = None) -> Iterator[Mutant]:
    """Every mutant of the file ``module`` that is not the same program.

    Annotations are not part of it, nor whether a dataclass is frozen or an argument may be named.

    :param only: names of operators; None for all.
    """
    original = (root / module).read_text(encoding="utf-8")
    sys.setrecursionlimit(10_000)  # a copy of a syntax tree is as deep as the tree
    tree = pickle.dumps(get_ast(original))  # copied in a tenth of the time that it takes to parse
    seen = {_program(original)}
    for operator in operators():
        if only and not any(name in type(operator).__name__ for name in only):
            continue
        for occurrence in count():
            visitor = MutationVisitor(occurrence, operator)
            source = visitor.walk(pickle.loads(tree)).get_code()  # noqa: S301 - it was made three lines above
            if not visitor.mutation_applied:
                break
            program = _program(source)
            if program in seen:
                continue
            seen.add(program)
            yield Mutant(module, *_changed(original, source), source)


def _program(source: str) -> str:
    """The syntax tree without annotations, class decorators and the marks between arguments.

    An impossible program is its own text.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.ClassDef):
            node.decorator_list = []
        elif isinstance(node, ast.arguments):
            node.args, node.posonlyargs, node.kwonlyargs = [*node.posonlyargs, *node.args, *node.kwonlyargs], [], []
            node.defaults, node.kw_defaults = [*node.defaults, *filter(None, node.kw_defaults)], []
    return ast.dump(tree)


def _changed(original: str, source: str) -> tuple[int, str, str]:
    pairs = zip_longest(original.splitlines(), source.splitlines(), fillvalue="")
    return next((line, old.strip(), new.strip()) for line, (old, new) in enumerate(pairs, start=1) if old != new)
