"""``make bundle``.

Images where a container engine is at hand, else wheels for this Python and this machine.
"""

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from oarlock import __version__
from oarlock.segmentation.manifest import read_manifests
from tools.bundle.archive import pack, write_checksums
from tools.bundle.contents import ROOT, add_images, add_wheels, copy_tree, images_of
from tools.bundle.sbom import of_model, write_sbom

LOCK = ROOT / "requirements" / "run.lock"


def main() -> int:
    """Write the archive and say where it is."""
    chosen = _arguments()
    of = chosen.of or ("images" if _has_engine() else "wheels")
    try:
        archive = make_bundle(of, profiles=chosen.profile, lock=chosen.lock, out=chosen.out)
    except subprocess.CalledProcessError as error:
        print(f"The bundle could not be made: {error.cmd[0]} ended with status {error.returncode}", file=sys.stderr)
        return 1
    print(f"Written  {archive} ({archive.stat().st_size / 1e6:.0f} MB) and its checksum beside it")
    return 0


def make_bundle(of: str, *, profiles: list[str], lock: Path, out: Path) -> Path:
    """Collect everything, describe it, and pack it.

    :param of: ``images`` or ``wheels``.
    :param profiles: of the composition, whose images come along.
    :raises subprocess.CalledProcessError: if the container engine or pip fails.
    """
    machine = f"{sys.platform}-{platform.machine()}"
    tag = machine if of == "images" else f"cp{sys.version_info.major}{sys.version_info.minor}-{machine}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch, f"oarlock-{__version__}")
        folder.mkdir()
        copy_tree(folder)
        parts = add_images(folder, images_of(profiles)) if of == "images" else add_wheels(folder, lock)
        models = [of_model(manifest) for manifest in read_manifests(ROOT / "models").values()]
        write_sbom(folder / "sbom.cdx.json", [*models, *parts])
        write_checksums(folder)
        archive = out / f"{folder.name}-{of}-{tag}.tar"
        pack(folder, archive)
    return archive


def _has_engine() -> bool:
    return (
        shutil.which("docker") is not None and not subprocess.run(["docker", "info"], check=False, capture_output=True).returncode
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bundle", description=__doc__)
    parser.add_argument(
        "--of", choices=["images", "wheels"], help="what is installed from; without it, what this machine can make"
    )
    parser.add_argument("--profile", action="append", default=[], help="of the composition (monitoring, gpu); may be repeated")
    parser.add_argument("--lock", type=Path, default=LOCK, help="what wheels come along (requirements/run.lock)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder of the archive")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
