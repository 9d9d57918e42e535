"""Models that were imported one by one become one, and each organ has one owner."""

from pathlib import Path

import pytest

from model_export.imports.join import join
from model_export.imports.refusals import CannotImport
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME
from tests.inference.test_models import write_folds
from tests.worker.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """One of schema version 1 that draws Brain and Bone_Mandible, and one in patches, of two folds, that draws Brain."""
    write_tiny_model(tmp_path / "tiny")
    write_folds(tmp_path / "folds")
    return [tmp_path / "tiny", tmp_path / "folds"]


def test_a_joined_model_is_loaded_and_each_part_draws_what_is_its(models: list[Path], tmp_path: Path) -> None:
    made = join(models, tmp_path / "both", {"Brain": "patchy"}, version="2", licence="Apache-2.0")
    assert {oar.name: owner for oar, owner in made.owners.items()} == {"Brain": "patchy", "Bone_Mandible": "tiny"}
    assert sorted(path.name for path in (tmp_path / "both").glob("*.onnx")) == [
        "patchy-first.onnx",
        "patchy-second.onnx",
        "tiny-model.onnx",
    ]
    assert set(load(made, device="cpu").predictors) == {"tiny", "patchy"}
    assert made.part_named("patchy").oars == (BY_NAME["Brain"],)


def test_an_organ_that_two_models_draw_needs_an_owner(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CannotImport, match="Brain is drawn by tiny and patchy: say which with --owner Brain=PART"):
        join(models, tmp_path / "both", {}, version="2", licence="")
    with pytest.raises(CannotImport, match="--owner Brain=other: no such part draws Brain"):
        join(models, tmp_path / "both", {"Brain": "other"}, version="2", licence="")
    assert not (tmp_path / "both").exists()


def test_two_parts_of_one_name_and_a_file_that_changed_are_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CannotImport, match="two models have a part named patchy"):
        join([models[1], models[1]], tmp_path / "both", {}, version="2", licence="")
    (models[0] / "model.onnx").write_bytes(b"another")
    with pytest.raises(CannotImport, match="sha256"):
        join(models, tmp_path / "both", {"Brain": "patchy"}, version="2", licence="")


def test_a_model_that_shares_organs_or_moves_edges_is_not_joined(models: list[Path], tmp_path: Path) -> None:
    """Without them its parts would draw otherwise, under a card that says they draw so."""
    shipped = Path(__file__).parents[2] / "models" / "oarlock-hn"
    with pytest.raises(CannotImport, match=r"oarlock-hn has \[shares\] or \[edges\]"):
        join([models[0], shipped], tmp_path / "both", {}, version="2", licence="")
    assert not (tmp_path / "both" / "manifest.toml").exists()
