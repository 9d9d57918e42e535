"""What goes into a bundle.

Files of this tree, and either container images or wheels.
"""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cyclonedx.model.component import Component
from ruamel.yaml import YAML

from tools.bundle.sbom import of_debian, of_distributions, of_image, of_interpreter, of_wheel

ROOT: Final = Path(__file__).parents[2]
COMPOSITION: Final = ROOT / "docker-compose.yml"

FILES: Final = (
    ".env",
    "LICENSE",
    "CHANGELOG.md",
    "docs",
    "docker",
    "docker-compose.yml",
    "gateway",
    "models",
    "requirements",
    "service",
    "worker",
)
"""Of this tree. The core comes in its wheel or in the images."""

_DISTRIBUTIONS: Final = """
import json
from importlib.metadata import distributions
facts = [(found.metadata, found.metadata.get_all("Classifier") or []) for found in distributions()]
print(json.dumps([[of["Name"], of["Version"], of.get("License-Expression"), said] for of, said in facts]))
"""


def copy_tree(folder: Path) -> None:
    """Copy the committed files that a bundle needs, as they stand here."""
    listing = subprocess.run(["git", "ls-files", "-z", "--", *FILES], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listing.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def add_wheels(folder: Path, lock: Path) -> list[Component]:
    """Fetch the wheels of a lock, and make Oarlock's own.

    For the Python and the machine that this runs on.
    """
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--only-binary", ":all:", "-r", lock, "-d", wheels], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=ROOT, check=True)
    return [of_wheel(wheel) for wheel in sorted(wheels.glob("*.whl"))]


def images_of(profiles: Sequence[str]) -> list[str]:
    """The images that the composition needs, without a profile and with these."""
    services = YAML(typ="safe").load(COMPOSITION)["services"].values()
    return sorted(
        {_with_default(service["image"]) for service in services if set(service.get("profiles", profiles)) <= set(profiles)}
    )


def _with_default(image: str) -> str:
    """An image's name without the variable that may pin it: a digest does not survive ``docker save``."""
    return re.sub(r"\$\{\w+:-(.*)\}", r"\1", image)


def add_images(folder: Path, images: Sequence[str]) -> list[Component]:
    """Save images of this machine's container engine into one file.

    What is not here is pulled.
    """
    for image in images:
        if subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True).returncode:
            subprocess.run(["docker", "pull", image], check=True)
    with (
        subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving,
        gzip.GzipFile(folder / "images.tar.gz", "wb", compresslevel=1, mtime=0) as packed,
    ):
        assert saving.stdout is not None  # stdout=PIPE
        shutil.copyfileobj(saving.stdout, packed)
    if saving.returncode:
        raise subprocess.CalledProcessError(saving.returncode, saving.args)
    return [_described(image) for image in images]


def _described(image: str) -> Component:
    (facts,) = json.loads(subprocess.run(["docker", "image", "inspect", image], check=True, capture_output=True).stdout)
    parts = of_debian(_inside(image, "dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${Architecture}\\n"))
    if image.startswith("oarlock-"):
        parts += of_distributions(_inside(image, "python", "-c", _DISTRIBUTIONS))
        parts.append(of_interpreter(_inside(image, "python", "-c", "import platform; print(platform.python_version(), end='')")))
    return of_image(image, facts["Id"].removeprefix("sha256:"), parts)


def _inside(image: str, program: str, *arguments: str) -> str:
    """What a program in an image says; nothing where there is no such program."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""
