"""What a bundle holds and what it says of itself; the whole of it is made and installed by ``make e2e``."""

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from oarlock import __version__
from oarlock.segmentation.manifest import read_manifests
from tools.bundle.archive import CHECKSUMS, pack, sha256_of, write_checksums
from tools.bundle.contents import COMPOSITION, copy_tree, images_of
from tools.bundle.sbom import of_debian, of_distributions, of_image, of_interpreter, of_model, of_wheel, write_sbom

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MIT = "License :: OSI Approved :: MIT License"


def wheel(folder: Path, name: str, *headers: str) -> Path:
    file = folder / f"{name}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}-1.2.dist-info/METADATA", "\n".join([f"Name: {name}", "Version: 1.2", *headers, "", ""]))
    return file


def bill(file: Path, *components: Any) -> dict[str, Any]:
    write_sbom(file, components)
    return dict(json.loads(file.read_text()))


# ── the bill of materials ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wheel_is_named_with_its_licence_and_its_hash(tmp_path: Path) -> None:
    clear = wheel(tmp_path, "clear", "License-Expression: MIT OR Apache-2.0", f"Classifier: {MIT}")
    old = wheel(tmp_path, "old_fashioned", f"Classifier: {MIT}", "Classifier: Topic :: Scientific/Engineering")
    found = {part["name"]: part for part in bill(tmp_path / "sbom", of_wheel(clear), of_wheel(old))["components"]}
    assert found["clear"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert found["old_fashioned"]["licenses"] == [{"license": {"name": "MIT License"}}]
    assert found["old_fashioned"]["purl"] == "pkg:pypi/old-fashioned@1.2"
    assert found["clear"]["hashes"] == [{"alg": "SHA-256", "content": sha256_of(clear)}]


def test_each_shipped_model_is_named_with_the_hash_of_its_manifest(tmp_path: Path) -> None:
    manifests = read_manifests(ROOT / "models")
    found = bill(tmp_path / "sbom", *map(of_model, manifests.values()))["components"]
    assert [part["type"] for part in found] == ["machine-learning-model"] * len(manifests)
    assert {part["hashes"][0]["content"] for part in found} == {manifest.sha256 for manifest in manifests.values()}


def test_the_same_package_in_two_images_is_two_parts(tmp_path: Path) -> None:
    listing = json.dumps([["NumPy", "2.0", None, [MIT]]])

    def parts() -> list[Any]:
        return [*of_debian("libc6\t2.36\tamd64\n"), *of_distributions(listing), of_interpreter("3.11.9")]

    images = [of_image(f"oarlock-{face}:1.0", "ab" * 32, parts()) for face in ("service", "worker")]
    found = bill(tmp_path / "sbom", *images)
    assert [(part["name"], part["version"], part["type"]) for part in found["components"]] == [
        ("oarlock-service", "1.0", "container"),
        ("oarlock-worker", "1.0", "container"),
    ]
    purls = {part["purl"] for image in found["components"] for part in image["components"]}
    assert purls == {"pkg:deb/debian/libc6@2.36?arch=amd64", "pkg:pypi/numpy@2.0", "pkg:generic/cpython@3.11.9"}


def test_the_bill_is_of_oarlock_and_says_so(tmp_path: Path) -> None:
    found = bill(tmp_path / "sbom")
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == "oarlock"
    assert found["metadata"]["component"]["version"] == __version__


# ── what is in it ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tree_has_the_model_the_composition_and_the_handbook_and_no_tests(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    for name in (".env", "docker-compose.yml", "docs/operations.md", "docker/prometheus/alerts.yml", "requirements/run.lock"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    assert list(read_manifests(tmp_path / "models")) == list(read_manifests(ROOT / "models"))
    assert {path.name for path in tmp_path.iterdir()} & {"tests", "model_export", "benchmarks", "oarlock"} == set()


def test_images_are_those_of_the_profiles() -> None:
    plain, watched, everything = images_of([]), images_of(["monitoring"]), images_of(["monitoring", "gpu"])
    assert {image.split(":")[0] for image in plain} == {"oarlock-service", "oarlock-worker", "postgres", "redis"}
    assert {image.split(":")[0] for image in set(watched) - set(plain)} == {"prom/prometheus", "grafana/grafana"}
    assert {image.split(":")[0] for image in set(everything) - set(watched)} == {"oarlock-worker-cuda"}
    assert all(image in COMPOSITION.read_text() for image in everything)


# ── the archive ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "oarlock-1.0"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "a model.onnx").write_bytes(b"weights")
    (folder / "LICENSE").write_text("Apache")
    write_checksums(folder)
    pack(folder, tmp_path / "oarlock-1.0.tar")
    return tmp_path / "oarlock-1.0.tar"


def check(folder: Path, sums: str) -> int:
    return subprocess.run(["sha256sum", "--quiet", "-c", sums], cwd=folder, check=False, capture_output=True).returncode


def test_every_file_is_checked_and_a_changed_one_is_found(packed: Path, tmp_path: Path) -> None:
    assert check(tmp_path, "oarlock-1.0.tar.sha256") == 0
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "oarlock-1.0"
    listed = {line.split("  ", 1)[1] for line in (folder / CHECKSUMS).read_text().splitlines()}
    assert listed == {"LICENSE", "models/a model.onnx"}
    assert check(folder, CHECKSUMS) == 0
    (folder / "models" / "a model.onnx").write_bytes(b"other weights")
    assert check(folder, CHECKSUMS) != 0


def test_the_archive_tells_nothing_of_who_made_it(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        assert {(member.uid, member.gid, member.uname, member.gname) for member in archive} == {(0, 0, "", "")}
        assert {member.name.split("/")[0] for member in archive} == {"oarlock-1.0"}
