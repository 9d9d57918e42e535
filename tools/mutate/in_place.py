"""A mutant put into a module that is loaded.

Its functions get other code, its plain constants other values.
"""

import gc
import sys
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from types import CodeType, FunctionType, ModuleType


def functions_of(file: str) -> list[FunctionType]:
    """Every function in memory that this file defines.

    Methods and wrapped ones too.
    """
    return [one for one in gc.get_objects() if isinstance(one, FunctionType) and one.__code__.co_filename == file]


def put_in_place(module: ModuleType, functions: list[FunctionType], before: CodeType, mutant: str) -> bool:
    """Change what the mutant changes.

    False where that needs the module loaded anew.

    A changed constant reaches the modules that import it by name, but not what was computed from it when they were loaded.

    :param before: the module's code without the mutant
    """
    after = compile(mutant, before.co_filename, "exec")
    if _apart_from_functions(before) != _apart_from_functions(after):
        return _put_constants(module, after)
    changed = {(old.co_qualname, old.co_firstlineno): new for old, new in _functions(before, after) if old != new}
    loaded = [(one, new) for one in functions if (new := changed.get((one.__code__.co_qualname, one.__code__.co_firstlineno)))]
    if {new.co_qualname for _, new in loaded} != {new.co_qualname for new in changed.values()}:
        return False
    try:
        for function, new in loaded:
            function.__code__ = new
    except ValueError:  # it closes over other names
        return False
    return True


def _put_constants(module: ModuleType, after: CodeType) -> bool:
    fresh = dict.fromkeys(["__name__"], module.__name__) | {"__file__": module.__file__}
    exec(after, fresh)  # noqa: S102 - a mutant is run, that is what it is for
    old = {name: value for name, value in vars(module).items() if _is_plain(value)}
    changed = {name: fresh[name] for name, value in old.items() if name in fresh and fresh[name] != value}
    if not changed or not all(map(_is_plain, changed.values())):
        return False
    for other in list(sys.modules.values()):
        for name, value in changed.items():
            if getattr(other, "__dict__", {}).get(name) is old[name]:
                setattr(other, name, value)
    return True


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, tuple | frozenset):
        return all(map(_is_plain, value))
    return type(value) in {int, float, str, bool}


def _apart_from_functions(code: CodeType) -> list[object]:
    """What is run when the module is loaded: its own code and that of its classes."""
    own = [None if isinstance(value, CodeType) else (type(value), repr(value)) for value in code.co_consts]
    classes = [_apart_from_functions(value) for value in code.co_consts if _is_class(value)]
    return [code.co_code, code.co_names, own, classes]


def _functions(before: CodeType, after: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The functions of two versions of a module in pairs, outermost ones alone."""
    for old, new in zip(before.co_consts, after.co_consts, strict=True):
        if _is_class(old):
            yield from _functions(old, new)
        elif isinstance(old, CodeType):
            yield old, new


def _is_class(value: object) -> bool:
    return isinstance(value, CodeType) and not value.co_flags & CO_OPTIMIZED
