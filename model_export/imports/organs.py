"""Which of a network's labels make which organ.

That is said by a TOML table of a few lines:

.. code-block:: toml

    [organs]
    Parotid_L = "parotid_gland_left"
    Lung_L = ["lung_upper_lobe_left", "lung_lower_lobe_left"]
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from model_export.imports.refusals import CannotImport
from oarlock.organs.catalogue import BY_NAME, OARS


def read_map(path: Path, labels: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The labels of each organ, in the catalogue's order.

    :param labels: those of the network by name, as its data set names them. Labels that no organ uses are left out.
    :raises CannotImport: for an organ or a label of an unknown name, or a table that is not of this form.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotImport(f"{path.name} cannot be read ({type(error).__name__})") from error
    organs = told.get("organs")
    if not isinstance(organs, dict) or not organs or told.keys() != {"organs"}:
        raise CannotImport(f"{path.name} needs a table [organs] and nothing else")
    if unknown := [organ for organ in organs if organ not in BY_NAME]:
        raise CannotImport(f"{path.name}: {unknown[0]} is not an organ that Oarlock knows (see oarlock/organs/catalogue.py)")
    return {oar.name: _labels_of(organs[oar.name], labels, path.name) for oar in OARS if oar.name in organs}


def _labels_of(told: object, labels: Mapping[str, tuple[int, ...]], file: str) -> tuple[int, ...]:
    names = [told] if isinstance(told, str) else told
    if not isinstance(names, list) or not names:
        raise CannotImport(f"{file}: an organ needs the name of a label, or a list of them")
    if unknown := [name for name in names if name not in labels]:
        raise CannotImport(f"{file}: the network has no label {unknown[0]!r}; it has {', '.join(labels)}")
    return tuple(sorted({value for name in names for value in labels[name]}))
