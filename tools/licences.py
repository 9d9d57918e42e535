"""Licences of everything that ships.

python -m tools.licences           refuses a licence that is not allowed
python -m tools.licences --write   and writes the list into docs/safety.md

What ships is in the locks of the images and of the installation from wheels. A licence is read from the distribution that is
installed here; those of other systems and of the GPU are written down below.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from tools import marked

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "safety.md"
SHIPPED: Final = {
    "run": "wheels",
    "service": "service",
    "gateway": "gateway",
    "worker": "worker",
    "worker-cuda": "worker on a GPU",
}
"""The locks, and what is installed from each."""

ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
    }
    | {"Unlicense", "Zlib"}
)
"""Permissive; and MPL-2.0, whose terms end at its own files, which are shipped unchanged."""

EXCEPTED: Final = {
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "pyphen": "GPL-2.0-or-later OR LGPL-2.1-or-later OR MPL-1.1",
    **dict.fromkeys(
        ["cublas", "cuda-nvrtc", "cuda-runtime", "cudnn-cu13", "cufft", "curand", "nvjitlink"], "LicenseRef-NVIDIA-Proprietary"
    ),
}
"""Others, each for a reason; NVIDIA's names stand without their ``nvidia-``.

psycopg is a library of its own that anybody may replace, and ships unchanged. pyphen lets its user choose: it ships under MPL
1.1, unchanged. NVIDIA's libraries are in the image for GPUs alone; their terms allow them to be handed on with an application.
"""


CHOICES: Final = {"pyphen": EXCEPTED["pyphen"]}
"""Distributions whose classifiers list licences of which one may be chosen; classifiers alone cannot say so."""

NOT_INSTALLED_HERE: Final = {
    "async-timeout": "Apache-2.0",
    "brotlicffi": "MIT",
    "onnxruntime": "MIT",
    "colorama": "BSD-3-Clause",
    "greenlet": "MIT AND PSF-2.0",
}

_AS_SPDX: Final = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "New BSD": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "Other/Proprietary License": "LicenseRef-Other",
}


@dataclass(frozen=True)
class Component:
    """A distribution that ships.

    :param licence: an SPDX expression.
    :param purpose: what it says of itself.
    :param ships_in: names of :data:`SHIPPED`.
    """

    name: str
    version: str
    licence: str
    purpose: str
    ships_in: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        excepted = EXCEPTED.get(self.name.removeprefix("nvidia-"))
        return self.licence == excepted or is_allowed(self.licence)


def components() -> list[Component]:
    """Everything in the locks of what ships, by name."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock, where in SHIPPED.items():
        for name, version in _locked(ROOT / "requirements" / f"{lock}.lock"):
            found.setdefault((name, version), []).append(where)
    return [Component(name, version, *_facts(name), tuple(ships_in)) for (name, version), ships_in in sorted(found.items())]


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone.

    Of each OR one, of each AND all.
    """
    words = re.findall(r"[()]|[^\s()]+", expression)
    known = {"(", ")", "AND", "OR"}
    python = " ".join(
        word.lower() if word in {"AND", "OR"} else word if word in known else str(word in ALLOWED) for word in words
    )
    return bool(words) and bool(_value(python.split()))


def _value(words: list[str]) -> bool:
    """The value of ``True``, ``False``, ``and``, ``or`` and brackets; consumes the words."""
    value = _all_of(words)
    while words and words[0] == "or":
        words.pop(0)
        value = _all_of(words) or value
    return value


def _all_of(words: list[str]) -> bool:
    value = _one(words)
    while words and words[0] == "and":
        words.pop(0)
        value = _one(words) and value
    return value


def _one(words: list[str]) -> bool:
    word = words.pop(0)
    if word != "(":
        return word == "True"
    value = _value(words)
    words.pop(0)
    return value


def _locked(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line):
            yield match[1].lower(), match[2]


def _facts(name: str) -> tuple[str, str]:
    """Licence and summary of a distribution."""
    if name in CHOICES:
        return CHOICES[name], _fact(distribution(name), "Summary").rstrip(".")
    if name.startswith("nvidia-"):
        return "LicenseRef-NVIDIA-Proprietary", "CUDA for ONNX Runtime"
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return NOT_INSTALLED_HERE.get(name, "not known"), "not needed on this system"
    return licence_of(installed), _fact(installed, "Summary").rstrip(".")


def licence_of(installed: Distribution) -> str:
    """The SPDX expression of a distribution; ``not known`` without one.

    From whichever of the three places it uses.
    """
    if expression := _fact(installed, "License-Expression"):
        return expression
    classifiers = installed.metadata.get_all("Classifier") or []
    classified = [line.split("::")[-1].strip() for line in classifiers if line.startswith("License ::")]
    stated = _fact(installed, "License").splitlines()[:1]
    names = [_AS_SPDX.get(name, name) for name in classified or stated]
    return " AND ".join(dict.fromkeys(names)) or "not known"


def _fact(installed: Distribution, name: str) -> str:
    return str(installed.metadata[name]).strip() if name in installed.metadata else ""


def table(found: list[Component]) -> str:
    """The list as Markdown."""
    rows = [
        f"| {part.name} {part.version} | {part.licence} | {part.purpose.replace('|', '/')} | {', '.join(part.ships_in)} |"
        for part in found
    ]
    return "\n".join(["| component | licence | what it says of itself | ships in |", "| --- | --- | --- | --- |", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.licences", description="Licences of everything that ships.")
    parser.add_argument("--write", action="store_true", help="write the list into docs/safety.md")
    found = components()
    if parser.parse_args().write:
        marked.write(PAGE, "shipped", table(found))
    refused = [part for part in found if not part.allowed]
    for part in refused:
        print(f"{part.name} {part.version} ships under {part.licence}, which is not allowed (tools/licences.py)")
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main())
