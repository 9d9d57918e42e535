"""``docs/models.md`` and the schema that pydantic checks hold the same keys."""

import hashlib
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from oarlock.segmentation import manifest_file as schema
from oarlock.segmentation.anchors import AGREE_MM, FOUND_SHARE
from oarlock.segmentation.manifest import MANIFEST_NAME, read_manifest
from oarlock.segmentation.shared import FADE_MM, FAINT

DOC = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ONE, SEVERAL, PATCHES = re.findall(
    r"\n## (?:One network|Several networks|Networks in patches)(.*?)(?=\n## )", DOC, flags=re.DOTALL
)


def documented(text: str) -> set[tuple[str, str]]:
    """(table, key) of each row."""
    rows = re.findall(r"^\| (?:`(\[+[\w.]+\]+)`)? ?(?:`(\w+)`|organ = part)? ?\|", text, flags=re.MULTILINE)
    return {(table.strip("[]"), key) for table, key in rows if table or key}


def keys(table: str, model: type[BaseModel]) -> set[tuple[str, str]]:
    return {(table, name) for name in model.model_fields}


def test_each_key_of_version_1_is_explained_and_no_other() -> None:
    expected = {("", "schema_version"), ("training", ""), ("results", "")}
    expected |= keys("model", schema.FileOfOneTable) | keys("input", schema.InputTable) | keys("output", schema.OutputTable)
    expected |= keys("oar", schema.OARTable) | keys("self_check", schema.SelfCheckTable) | keys("limits", schema.LimitsTable)
    assert documented(ONE) == expected


def test_each_key_of_version_2_is_explained_and_no_other() -> None:
    expected = {("", "schema_version"), ("owners", ""), ("shares", "")}
    expected |= keys("model", schema.ModelTable) | keys("part", schema.PartTable) | keys("part.look", schema.LookTable)
    expected |= keys("part.look.around", schema.AnchorTable) | keys("edges.ORGAN", schema.EdgeTable)
    assert documented(SEVERAL) == expected


def test_each_key_of_patches_is_explained_and_no_other() -> None:
    expected = keys("part.patches", schema.PatchesTable) | keys("part.patches.fold", schema.FoldTable)
    expected |= keys("part.patches.normalisation", schema.NormalisationTable)
    expected |= keys("part.patches.resampling", schema.ResamplingTable)
    assert documented(PATCHES) == expected


def test_the_example_of_version_2_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", SEVERAL, flags=re.DOTALL)
    for name in ("whole", "orbits"):
        (tmp_path / f"{name}.onnx").touch()
    (tmp_path / MANIFEST_NAME).write_text(example.replace('sha256 = "…"', f'sha256 = "{hashlib.sha256().hexdigest()}"'))
    found = read_manifest(tmp_path)
    assert [oar.name for oar in found.oars] == ["Brain", "Lens_L", "Eye_L", "Eye_R"]
    assert found.part_named("orbits").output.size_zyx == (24, 96, 160)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("a quarter of the smallest volume", FOUND_SHARE == 0.25),
        ("more than 20 mm apart", AGREE_MM == 20.0),
        ("Over the last 10 mm before each face", FADE_MM == 10.0),
        ("probabilities below 0.001 count as 0", FAINT == 0.001),
        ("tolerance above 0.05", schema.MAX_TOLERANCE == 0.05),
    ],
)
def test_the_numbers_of_the_page_are_those_of_the_code(said: str, value: bool) -> None:
    assert said in DOC
    assert value
