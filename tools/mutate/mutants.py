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
from cosmic_ray.operators.operator import Operator

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
    parts = list(_parts(original))
    seen = {(part.begins, _program(part.code)) for part in parts}
    for operator in operators():
        if only and not any(name in type(operator).__name__ for name in only):
            continue
        for part in parts:
            for code in part.changed(operator):
                program = (part.begins, _program(code))
                if program not in seen:
                    seen.add(program)
                    line, before, after = _changed(part.code, code)
                    source = original[: part.begins] + code + original[part.begins + len(part.code) :]
                    yield Mutant(module, part.lines_before + line, before, after, source)


@dataclass(frozen=True)
class _Part:
    """One statement of a module: it is copied and rendered in a small part of the time that the module takes.

    :param begins: where its code begins in that of the module, and after how many lines
    :param tree: its syntax tree, pickled
    """

    begins: int
    lines_before: int
    code: str
    tree: bytes

    def changed(self, operator: Operator) -> Iterator[str]:
        """Its code with each change that an operator makes of it."""
        for occurrence in count():
            visitor = MutationVisitor(occurrence, operator)
            tree = visitor.walk(pickle.loads(self.tree))  # noqa: S301 - it was made in this module
            if not visitor.mutation_applied:
                return
            yield tree.get_code()


def _parts(source: str) -> Iterator[_Part]:
    begins = 0
    for statement in get_ast(source).children:
        statement.parent = None  # else its copy is one of the whole module
        code = statement.get_code()
        yield _Part(begins, source.count("\n", 0, begins), code, pickle.dumps(statement))
        begins += len(code)


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
