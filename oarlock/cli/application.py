"""oarlock application: the worker's image in other platforms.

As a module of mercure or a MONAI Application Package, without service or queue.

The folders come from the variables that these set. Beside the images mercure lays files of its own: ``task.json``, whose settings
may name ``model`` and ``profile``, and a ``.tags`` file for each image. What is not DICOM by its content is left out.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oarlock.errors import InvalidParameter

INPUTS: Final = ("MERCURE_IN_DIR", "HOLOSCAN_INPUT_PATH", "MONAI_INPUTPATH")
OUTPUTS: Final = ("MERCURE_OUT_DIR", "HOLOSCAN_OUTPUT_PATH", "MONAI_OUTPUTPATH")
TASK: Final = "task.json"
_CHOICES: Final = ("model", "profile")


def add_command(commands: Any, main: Callable[[Sequence[str]], int]) -> None:
    """Add the command to the subparsers of ``oarlock``.

    :param main: the command line, which contours the folder.
    """
    parser = commands.add_parser("application", help="contour the folder that mercure or a MONAI runner names, into another")
    parser.set_defaults(run=lambda chosen: _run(chosen, main))


def _run(chosen: argparse.Namespace, main: Callable[[Sequence[str]], int]) -> int:
    del chosen
    folder, out = folder_of(INPUTS, os.environ), folder_of(OUTPUTS, os.environ)
    return main(["contour", str(folder), "--out", str(out), "--dicom-only", *choices(folder)])


def folder_of(names: Sequence[str], environment: Mapping[str, str]) -> Path:
    """The folder that the first of these variables names.

    :raises InvalidParameter: if none of them is set.
    """
    found = next((environment[name] for name in names if environment.get(name)), None)
    if found is None:
        raise InvalidParameter(name=names[0], reason=f"is not set, and neither is {' or '.join(names[1:])}")
    return Path(found)


def choices(folder: Path) -> list[str]:
    """Options of ``oarlock contour`` from mercure's task.

    :raises InvalidParameter: if the task cannot be read, or a choice is not text.
    """
    try:
        task = json.loads((folder / TASK).read_bytes())
        settings = task["process"]["settings"]
        chosen = [(name, settings[name]) for name in _CHOICES if name in settings]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidParameter(name=TASK, reason="is not a task of mercure: it has no process.settings") from error
    if not all(isinstance(value, str) for _, value in chosen):
        raise InvalidParameter(name=TASK, reason="names a model or a profile that is not text")
    return [word for name, value in chosen for word in (f"--{name}", value)]
