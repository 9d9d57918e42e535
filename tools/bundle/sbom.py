"""What a bundle holds, as a software bill of materials.

CycloneDX 1.6 (ECMA-424).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL

from oarlock import __version__
from oarlock.segmentation.manifest import ModelManifest

LICENSE: Final = "Apache-2.0"


class SBOMInvalid(RuntimeError):
    """The bill of materials is not of CycloneDX's schema.

    A mistake of ours.
    """


def write_sbom(file: Path, components: Iterable[Component]) -> None:
    """Write the bill of materials of Oarlock and these components.

    :raises SBOMInvalid: if it is not of the schema.
    """
    bom = Bom(components=components)
    bom.metadata = BomMetaData(component=_oarlock())
    bom.register_dependency(_oarlock(), bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    from cyclonedx.validation.json import JsonStrictValidator  # it builds grammars for seconds when it is imported

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise SBOMInvalid(str(error))
    file.write_text(text + "\n", encoding="utf-8")


def of_wheel(wheel: Path) -> Component:
    """A distribution, from its wheel."""
    (distribution,) = distributions(path=[str(wheel)])
    return _of_distribution(distribution, hashlib.sha256(wheel.read_bytes()).hexdigest())


def of_model(manifest: ModelManifest) -> Component:
    """A model, by what its manifest says of it."""
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model/{manifest.name}",
        name=manifest.name,
        version=manifest.version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=manifest.sha256)],
    )


def of_image(name: str, digest: str, parts: Iterable[Component]) -> Component:
    """A container image with what is installed in it.

    :param name: repository and tag.
    :param digest: sha256 of its configuration, which names its layers.
    """
    repository, _, tag = name.partition(":")
    return Component(
        type=ComponentType.CONTAINER,
        bom_ref=name,
        name=repository,
        version=tag,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        components=[_within(name, part) for part in parts],
    )


def of_debian(listing: str) -> list[Component]:
    """Packages of the operating system.

    :param listing: lines of name, version and architecture, separated by tabs.
    """
    rows = [line.split("\t") for line in listing.splitlines()]
    return [
        Component(name=name, version=version, purl=PackageURL("deb", "debian", name, version, {"arch": architecture}))
        for name, version, architecture in rows
    ]


def of_distributions(listing: str) -> list[Component]:
    """Python distributions.

    :param listing: JSON rows of name, version, licence expression or none, and classifiers.
    """
    return [_of_python(name, version, expression, classifiers) for name, version, expression, classifiers in json.loads(listing)]


def of_interpreter(version: str) -> Component:
    """CPython itself.

    The images that ours start from hold one that is no package of their operating system.
    """
    return Component(name="cpython", version=version, purl=PackageURL("generic", None, "cpython", version))


def _oarlock() -> Component:
    return Component(
        type=ComponentType.APPLICATION,
        bom_ref="oarlock",
        name="oarlock",
        version=__version__,
        licenses=[LicenseExpression(LICENSE)],
    )


def _of_distribution(distribution: Distribution, sha256: str) -> Component:
    facts = distribution.metadata
    classifiers = facts.get_all("Classifier") or []
    expression = next(iter(facts.get_all("License-Expression") or []), None)
    return _of_python(facts["Name"], facts["Version"], expression, classifiers, sha256)


def _of_python(name: str, version: str, expression: str | None, classifiers: Sequence[str], sha256: str = "") -> Component:
    purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
    return Component(
        bom_ref=purl.to_string(),
        name=name,
        version=version,
        purl=purl,
        licenses=_licenses(expression, classifiers),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else None,
    )


def _licenses(expression: str | None, classifiers: Sequence[str]) -> list[License]:
    """An expression where the author gave one, else the names of their classifiers."""
    if expression:
        return [LicenseExpression(expression)]
    names = sorted(
        {text.rsplit(" :: ", 1)[1] for text in classifiers if text.startswith("License :: ") and text.count(" :: ") > 1}
    )
    return [DisjunctiveLicense(name=name) for name in names]


def _within(image: str, part: Component) -> Component:
    """The same package in two images is two components."""
    part.bom_ref.value = f"{image}/{part.purl}"
    return part
