"""A manifest that breaks the schema is refused with the key that is wrong."""

from pathlib import Path

import pytest

from oarlock.errors import ManifestInvalid
from oarlock.segmentation.manifest import MANIFEST_NAME, read_manifest, read_manifests
from tests.worker.tiny_model import write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "hospital", name="hospital")
    return tmp_path / "hospital"


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [
        ('name = "hospital"', "", r"\[model\] name is missing"),
        ('version = "1"', "version = 1", r"\[model\] version has the wrong type"),
        ('file = "model.onnx"', 'file = "../model.onnx"', "plain file name"),
        ('file = "model.onnx"', 'file = "other.onnx"', "not a file"),
        ("context_slices = 3", "context_slices = 4", "must be odd"),
        ("context_slices = 3", "context_slices = 0", "at least 1"),
        ("spacing_mm = [2.5, 2.0, 2.0]", "spacing_mm = [2.5, 2.0]", "three positive numbers"),
        ("spacing_mm = [2.5, 2.0, 2.0]", "spacing_mm = [2.5, 2.0, -2.0]", "three positive numbers"),
        ("spacing_mm = [2.5, 2.0, 2.0]", 'spacing_mm = "natural"', '"native"'),
        ("size_yx = [64, 64]", "size_yx = [64]", "two positive whole numbers"),
        ('name = "Brain"', 'name = "Gehirn"', "Gehirn is not an organ"),
        ('name = "Brain"', 'name = "Bone_Mandible"', "lists an OAR twice"),
        ("threshold = 0.5", "threshold = 1.5", r"\[\[oar\]\] 1 threshold must be less than 1"),
        ("upscale = 1", "upscale = true", r"\[output\] upscale has the wrong type"),
        ("tolerance = 1e-4", "", r"\[self_check\] tolerance is missing"),
        ("expected_means = [", "expected_means = [0.5, ", "one number per OAR"),
        ('name = "Brain"', "name = []", r"\[\[oar\]\] 1 name has the wrong type"),
        ("threshold = 0.5", f"threshold = 1{'0' * 400}", r"\[\[oar\]\] 1 threshold"),
        ("padding_hu = -1000.0", "padding_hu = nan", r"\[input\] padding_hu is not a finite number"),
        ("padding_hu = -1000.0", f"padding_hu = 1{'0' * 400}", r"\[input\] padding_hu"),
        ("tolerance = 1e-4", "tolerance = nan", r"\[self_check\] tolerance is not a finite number"),
        ("expected_means = [", "expected_means = [nan] #[", r"expected_means 1 is not a finite number"),
        ("tolerance = 1e-4", "tolerance = 0.06", r"\[self_check\] tolerance must be at most 0.05"),
        ("tolerance = 1e-4", "tolerence = 1e-4", r"\[self_check\] tolerance is missing"),
        ("padding_hu = -1000.0", "padding_hu = -1000.0\npaddding_hu = -1000.0", r"\[input\] paddding_hu is not a key"),
        ("threshold = 0.5", "threshold = true", "threshold has the wrong type"),
        ("[model]", "schema_version = 3\n[model]", "schema_version must be one of 1, 2"),
        ("[model]", "schema_version = true\n[model]", "schema_version must be one of 1, 2"),
        ("size_yx = [64, 64]", "size_zyx = [4, 64, 64]", "needs a part that looks at a box"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, line: str, instead: str, reason: str) -> None:
    path = folder / MANIFEST_NAME
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, instead, 1))
    with pytest.raises(ManifestInvalid, match=reason):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("table", "instead", "reason"),
    [
        ("[model]", "model = 1", r"model is not a table"),
        ("[[oar]]", "oar = [1]", r"\[\[oar\]\] 1 is not a table"),
        ("[training]", "training = 1", r"training is not a table"),
        ("[results]", "results = []", r"results is not a table"),
        ("[limits]", "limits.not_for = 1", r"\[limits\] not_for is not a list"),
        ("[limits]", f"a = {'[' * 5_000}", "cannot be read"),
    ],
)
def test_what_is_no_table_is_named(folder: Path, table: str, instead: str, reason: str) -> None:
    path = folder / MANIFEST_NAME
    text = path.read_text().replace(table, table.replace("[", "[other-").replace("[other-[other-", "[[other-"))
    path.write_text(f"{instead}\n{text}")
    with pytest.raises(ManifestInvalid, match=reason):
        read_manifest(folder)


def test_a_hash_that_is_none_and_a_file_that_is_no_toml_are_refused(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    text = path.read_text()
    path.write_text(text.replace('sha256 = "', 'sha256 = "x'))
    with pytest.raises(ManifestInvalid, match="64 hexadecimal digits"):
        read_manifest(folder)
    path.write_text(text + "\n[model\n")
    with pytest.raises(ManifestInvalid, match="TOML"):
        read_manifest(folder)


def test_one_name_in_two_folders_is_refused(folder: Path) -> None:
    write_tiny_model(folder.parent / "copy", name="hospital")
    with pytest.raises(ManifestInvalid, match="two folders"):
        read_manifests(folder.parent)
