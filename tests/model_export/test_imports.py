"""nnU-Net v2 results folders become model folders that draw what nnU-Net's own predictor draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_export.imports.nnunet import Wanted, axes_of, import_nnunet
from model_export.imports.organs import read_map
from model_export.imports.plans import read_checkpoint, read_results, resampling
from model_export.imports.refusals import CannotImport
from model_export.imports.sides import check_sides, check_turned, turns
from oarlock.inference.models import load
from oarlock.phantom.patient import Phantom, write_phantom
from oarlock.segmentation.manifest import read_manifest
from oarlock.segmentation.segment import segment
from tests.fixtures import nnunet_results
from tests.fixtures.nnunet_results import dataset, plans

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from oarlock.geometry.grid import Grid
    from oarlock.geometry.masks import OARMasks

ROOT = Path(__file__).parents[2]
MODELS = ("plain", "residual", "turned", "regions", "sheets")
ORGANS = {"Brain": ["brain"], "Bone_Mandible": ["mandible"], "Parotid_L": ["parotid_left"], "Parotid_R": ["parotid_right"]}
OF_REGIONS = {"Brain": ["head"], "Parotid_L": ["parotids"], "Parotid_R": ["parotid_right"]}
SPACING_MM = (5.0, 3.4, 2.8)

needs_nnunet = pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed (extra test)")


def map_file(folder: Path, organs: dict[str, list[str]]) -> Path:
    path = folder / "map.toml"
    path.write_text("[organs]\n" + "".join(f"{organ} = {json.dumps(labels)}\n" for organ, labels in organs.items()))
    return path


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nnU-Net made and drew, in a process of its own: it warns, and takes as long to import as to draw."""
    folder = tmp_path_factory.mktemp("nnunet")
    command = [sys.executable, "-W", "ignore", "-m", "tests.fixtures.nnunet_results", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture(scope="session")
def patient() -> Phantom:
    return nnunet_results.patient(SPACING_MM, seed=99)


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory, patient: Phantom) -> Path:
    folder = tmp_path_factory.mktemp("series")
    _, reference = write_phantom(folder, patient)
    reference.unlink()
    return folder


@pytest.fixture(scope="session")
def imported(results: Path, series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "hospital"
    wanted = Wanted(map_file(folder.parent, ORGANS), series, "RAS", compared=False, look="scan")
    import_nnunet(results / "plain", folder, wanted)
    return folder


@pytest.mark.long("oracle")
@needs_nnunet
@pytest.mark.parametrize("name", MODELS)
def test_a_network_draws_what_nnunets_own_predictor_draws(name: str, results: Path, patient: Phantom, tmp_path: Path) -> None:
    """At most 5 voxels in 10,000 may differ in nnU-Net's own arithmetic, and each of them by a hundredth of a logit."""
    from model_export.imports.compared import LARGEST_MARGIN, LARGEST_SHARE, label_map
    from model_export.imports.nnunet import write_model

    folder = tmp_path / name
    folder.mkdir()
    taken = read_results(results / name)
    organs = read_map(map_file(tmp_path, OF_REGIONS if taken.regions else ORGANS), taken.labels)
    write_model(taken, folder, name, Wanted(tmp_path, tmp_path, "RAS"), organs)
    model = load(read_manifest(folder), device="cpu", threads=1)
    hu, spacing = patient.hu.astype(np.float32), patient.grid.spacing_mm
    ours, margin = label_map(model, model.manifest.parts[0], hu, spacing)
    theirs = np.load(results / f"{name}.npy")[:, ::-1, ::-1]
    differ = ours != theirs
    assert np.count_nonzero(theirs) > 0.01 * theirs.size
    assert differ.sum() <= LARGEST_SHARE * differ.size
    assert margin[differ].max(initial=0.0) <= LARGEST_MARGIN


@pytest.mark.long("oracle")
@needs_nnunet
def test_an_imported_model_draws_each_organ_where_it_is(imported: Path, patient: Phantom) -> None:
    model = load(read_manifest(imported), device="cpu", threads=1)
    found = segment(patient.hu, patient.grid, model).masks
    for oar in found.oars:  # the network is trained for seconds: it need not draw well, but where the organ is
        drawn, true = (patient.grid.to_points(np.argwhere(masks.mask(oar)).astype(float)) for masks in (found, patient.masks))
        assert np.linalg.norm(drawn.mean(axis=0) - true.mean(axis=0)) < 25, oar  # mm; the parotids lie 96 mm apart


@pytest.mark.long("oracle")
@needs_nnunet
@pytest.mark.parametrize("orientation", ["LAS", "RPS", "RAI", "ARS", "RSA", "SAR", "LPS", "RPI"])
def test_a_wrong_orientation_is_caught_and_nothing_is_written(
    orientation: str, results: Path, series: Path, tmp_path: Path
) -> None:
    wanted = Wanted(map_file(tmp_path, ORGANS), series, orientation, compared=False, look="scan")
    with pytest.raises(CannotImport, match="orientation"):
        import_nnunet(results / "plain", tmp_path / "models" / "wrong", wanted)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.long("oracle")
@needs_nnunet
def test_the_manifest_says_where_the_network_comes_from_and_what_each_organ_is_made_of(imported: Path) -> None:
    manifest = read_manifest(imported)
    part = manifest.parts[0]
    assert [oar.name for oar in manifest.oars] == ["Brain", "Bone_Mandible", "Parotid_L", "Parotid_R"]
    assert part.patches is not None
    assert part.patches.labels == ((4,), (3,), (1,), (2,))
    assert manifest.training["nnunet"] == {
        "dataset": "Dataset901_Tiny",
        "plans": "nnUNetPlans",
        "configuration": "3d_fullres",
        "trainer": "nnUNetTrainer",
        "folds": ["0"],
        "orientation": "RAS",
    }
    assert "| Parotid_L | parotid_left |" in (imported / "MODEL_CARD.md").read_text()


@pytest.mark.long("oracle")
@needs_nnunet
def test_the_command_compares_with_nnunet_and_writes_the_figures(results: Path, series: Path, tmp_path: Path) -> None:
    """The three commands of docs/models.md are this one, the making of the network, and the post."""
    organs, out = map_file(tmp_path, ORGANS), tmp_path / "models" / "tiny"
    command = ["import", "nnunet", str(results / "plain"), "--orientation", "RAS", "--oars", str(organs)]
    command += ["--check", str(series), "--out", str(out), "--licence", "CC0-1.0"]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "model_export", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "to the left of Parotid_R" in run.stdout
    assert "left out: nothing" in run.stdout
    written = read_manifest(out)
    assert written.licence == "CC0-1.0"
    assert written.results["voxels"] == 41 * 61 * 74
    assert written.results["differing"] <= 5e-4 * written.results["voxels"]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder without nnU-Net: the plans are what counts here."""
    folder = tmp_path / "results"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans("plain")))
    (folder / "dataset.json").write_text(json.dumps(dataset("plain")))
    init = {"configuration": "3d_fullres"}
    torch.save(
        {"network_weights": {}, "init_args": init, "_best_ema": np.float64(0.5)}, folder / "fold_0" / "checkpoint_final.pth"
    )
    return folder


def changed(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads((folder / file).read_text())
    change(told)
    (folder / file).write_text(json.dumps(told))


def configuration(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told["configurations"]["3d_fullres"]
    return found


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("plans.json", lambda told: configuration(told).update(patch_size=[32, 32]), "'3d_fullres' is of two dimensions"),
        ("plans.json", lambda told: configuration(told).update(previous_stage="3d_lowres"), "second stage of a cascade"),
        ("plans.json", lambda told: configuration(told).update(preprocessor_name="Own"), "the preprocessor Own"),
        ("plans.json", lambda told: told.update(label_manager="Own"), "the label manager Own"),
        ("plans.json", lambda told: configuration(told).update(normalization_schemes=["Own"]), "the normalisation Own"),
        (
            "plans.json",
            lambda told: configuration(told).update(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True]),
            "use_mask_for_norm",
        ),
        ("dataset.json", lambda told: told.update(channel_names={"0": "CT", "1": "MR"}), "takes 2 channels"),
        ("dataset.json", lambda told: told["labels"].update(mandible=7), "not 0, 1, 2"),
        ("dataset.json", lambda told: told["labels"].update(mandible=[5, 6]), "no regions_class_order"),
        ("plans.json", lambda told: told.update(configurations={}), "has no configuration '3d_fullres'"),
        ("plans.json", lambda told: told.update(configurations={"3d_fullres": {}}), "it says nothing of 'normalization_schemes'"),
        ("plans.json", lambda told: told.update(configurations=[]), "has no configuration '3d_fullres'"),
        ("plans.json", lambda told: configuration(told).update(inherits_from="3d_fullres"), "inherits from itself"),
        ("plans.json", lambda told: configuration(told).update(patch_size=[10**6] * 3), "a patch of 1000000 x 1000000"),
        ("plans.json", lambda told: configuration(told).update(patch_size=[24, 24, "24"]), "a patch of 24 x 24 x 24"),
        ("plans.json", lambda told: configuration(told).update(spacing=[0.0, 1.0, 1.0]), "a spacing of"),
        ("plans.json", lambda told: told.update(transpose_forward=[0, 0, 1]), "not an order of three"),
        ("plans.json", lambda told: configuration(told).update(normalization_schemes=[]), "the results folder results"),
        ("dataset.json", lambda told: told.update(labels=["background", "brain"]), "the results folder results"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(
    file: str, change: Callable[[dict[str, Any]], object], named: str, folder: Path
) -> None:
    read_results(folder)
    changed(folder, file, change)
    with pytest.raises(CannotImport, match=named):
        read_results(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resampling_fn_data": "own_resampling"}, "resampling_fn_data = own_resampling"),
        ({"resampling_fn_data_kwargs": {"order": 3, "own": 1}}, "own of resample_data_or_seg_to_shape"),
        ({"resampling_fn_data": "resample_torch_fornnunet", "resampling_fn_data_kwargs": {"mode": "area"}}, "a mode of"),
    ],
)
def test_resampling_of_another_name_is_refused(change: dict[str, Any], named: str, folder: Path) -> None:
    changed(folder, "plans.json", lambda told: configuration(told).update(change))
    with pytest.raises(CannotImport, match=named):
        resampling(read_results(folder))


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(folder: Path, tmp_path: Path) -> None:
    """nnU-Net's own loader would run it."""
    path, proof = folder / "fold_0" / "checkpoint_final.pth", tmp_path / "ran"
    content = torch.load(path, weights_only=False)
    torch.save(content | {"logging": Touches(str(proof))}, path)
    with pytest.raises(CannotImport, match="more than weights, numbers and texts"):
        read_checkpoint(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()


class Touches:
    """Pickled, it makes a file wherever it is loaded as a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path(self.path).touch, ()


@pytest.mark.parametrize("name", ["os.system", "torch.hub.load", "torch.nn.functional.relu", "torch.nn.Nothing"])
def test_a_layer_that_is_not_torchs_is_refused_and_not_imported(name: str, folder: Path) -> None:
    from model_export.imports.plans import build_network

    changed(folder, "plans.json", lambda told: configuration(told)["architecture"]["arch_kwargs"].update(nonlin=name))
    with pytest.raises(CannotImport, match=r"not a layer of torch\.nn"):
        build_network(read_results(folder), {})


@pytest.mark.parametrize("key", ["n_stages", "features_per_stage", "kernel_sizes", "n_conv_per_stage"])
def test_a_network_that_no_machine_could_hold_is_refused_before_it_is_built(key: str, folder: Path) -> None:
    from model_export.imports.plans import build_network

    def enlarge(told: dict[str, Any]) -> None:
        arguments = configuration(told)["architecture"]["arch_kwargs"]
        arguments[key] = 10**9 if key == "n_stages" else [[10**9]] * 3 if key == "kernel_sizes" else [10**9] * 3

    changed(folder, "plans.json", enlarge)
    with pytest.raises(CannotImport, match=f"{key} above 2048"):
        build_network(read_results(folder), {})


def test_json_that_is_nested_without_end_is_refused(folder: Path) -> None:
    (folder / "plans.json").write_text("[" * 100_000)
    with pytest.raises(CannotImport, match=r"plans\.json cannot be read"):
        read_results(folder)


def test_a_network_of_another_name_and_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    from model_export.imports.plans import build_network

    with pytest.raises(CannotImport, match="do not fit"):
        build_network(read_results(folder), {})
    changed(folder, "plans.json", lambda told: configuration(told)["architecture"].update(network_class_name="a.b.OwnNet"))
    with pytest.raises(CannotImport, match="the network OwnNet"):
        build_network(read_results(folder), {})


def test_the_orientation_must_be_said_unless_the_reader_turned_the_files(folder: Path) -> None:
    taken = read_results(folder)
    with pytest.raises(CannotImport, match="say --orientation"):
        axes_of(taken, None)
    for wrong in ("RA", "RAX", "RLS", "RASS"):
        with pytest.raises(CannotImport, match="three letters"):
            axes_of(taken, wrong)
    assert (axes_of(taken, "RAS"), axes_of(taken, "lps")) == ("SAR", "SPL")
    assert axes_of(replace(taken, transposed=(2, 0, 1)), "RAS") == "RSA"
    turning = replace(taken, plans={**taken.plans, "image_reader_writer": "NibabelIOWithReorient"})
    assert axes_of(turning, None) == "SAR"
    with pytest.raises(CannotImport, match="contradicts"):
        axes_of(turning, "LPS")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[organs]\nLiver = 'brain'", "Liver is not an organ"),
        ("[organs]\nBrain = 'brian'", "no label 'brian'; it has background, brain"),
        ("[organs]\nBrain = []", "needs the name of a label"),
        ("[labels]\nBrain = 'brain'", r"needs a table \[organs\]"),
        ("Brain", "cannot be read"),
    ],
)
def test_a_map_with_a_mistake_is_refused_with_it(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(CannotImport, match=named):
        read_map(tmp_path / "map.toml", {"background": (0,), "brain": (1,)})


def middles_of(masks: OARMasks, grid: Grid) -> dict[str, np.ndarray]:
    return {oar.name: grid.to_points(np.argwhere(masks.mask(oar)).astype(float)).mean(axis=0) for oar in masks.oars}


def test_left_right_up_and_front_are_told_by_what_was_drawn(patient: Phantom) -> None:
    grid, masks = patient.grid, patient.masks
    middles = {name: at for name, at in middles_of(masks, grid).items() if np.isfinite(at).all()}
    seen = check_sides(middles, list(middles), middle_mm=7.3)
    assert any(line.startswith("Parotid_L lies") and line.endswith("to the left of Parotid_R") for line in seen)
    centre = grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    for axis, named in ((0, "to the (left|right) of"), (1, "in front of"), (2, "above")):
        turned = {name: np.where(np.arange(3) == axis, 2 * centre - at, at) for name, at in middles.items()}
        with pytest.raises(CannotImport, match=f"{named}.*orientation"):
            check_sides(turned, list(turned), middle_mm=7.3)


def test_a_network_that_draws_more_of_a_patient_who_was_turned_round_was_trained_that_way_round() -> None:
    """What it finds in crumbs does not count; where the two drawings are one, the way round does not matter."""
    whole, crumbs, elsewhere = (np.zeros((8, 8, 8), np.int64) for _ in range(3))
    whole[1:7, 2:6, 2:6] = 1
    crumbs[::2, ::2, ::2], crumbs[2:4, 2:4, 2:4] = 1, 1
    elsewhere[1:7, 2:6, 0:4] = 1
    assert check_turned(whole, whole.copy(), "upside down") == "upside down it draws the same"
    assert check_turned(whole, crumbs, "upside down") == "upside down it draws 11% of it"  # 8 + 3 of 96 voxels hang together
    with pytest.raises(CannotImport, match=r"turned upside down: --orientation is not that"):
        check_turned(crumbs, whole, "upside down")
    with pytest.raises(CannotImport, match="cannot be told"):
        check_turned(whole, elsewhere, "upside down")


def test_a_patient_is_turned_every_way_that_the_names_and_the_mirror_images_do_not_tell() -> None:
    assert [axes for _, axes in turns(["Brain_L", "Brain"], ())] == [(0,), (1,), (0, 1)]
    assert [axes for _, axes in turns(["Brain"], (0,))] == [(1,), (0, 1), (2,)]
    assert list(turns(["Brain_L"], (0, 1))) == []


def test_sides_are_told_by_the_names_of_labels_too() -> None:
    at = {"clavicula_left": np.array([60.0, 0, 0]), "Lung_R": np.array([-70.0, 0, 0])}
    assert check_sides(at, list(at), middle_mm=7.0) == [
        "clavicula_left lies 53 mm to the left of the middle of the body",
        "Lung_R lies 77 mm to the right of the middle of the body",
    ]
    with pytest.raises(CannotImport, match="eye_left lies 47 mm to the right of the middle"):
        check_sides({**at, "clavicula_right": np.array([7.0, 0, 0]), "eye_left": np.array([-40.0, 0, 0])}, [], middle_mm=7.0)
    brain = {"Brain": np.zeros(3)}
    assert check_sides(brain, ["Brain", "larynx"], middle_mm=0.0) == []
    spine = {f"vertebrae_{name}": np.array([-30.0, 0, 0]) for name in ("L5", "5L", "5R")}  # L is lumbar here
    assert check_sides(spine, list(spine), middle_mm=0.0) == []
    with pytest.raises(CannotImport, match="nothing of the left or the right"):
        check_sides(brain, ["Brain", "rib_left_1"], middle_mm=0.0)
    with pytest.raises(CannotImport, match="drew nothing"):
        check_sides({}, ["Brain"], middle_mm=0.0)


@pytest.mark.parametrize("path", sorted((ROOT / "model_export" / "maps").glob("*.toml")), ids=lambda path: path.stem)
def test_each_shipped_map_can_be_read(path: Path) -> None:
    told = tomllib.loads(path.read_text())["organs"]
    names = [name for value in told.values() for name in ([value] if isinstance(value, str) else value)]
    assert set(read_map(path, {name: (at,) for at, name in enumerate(dict.fromkeys(names))})) == set(told)


def test_an_image_file_lies_where_it_says(tmp_path: Path) -> None:
    """The same voxels stored three ways are at the same places of the patient."""
    import SimpleITK

    from model_export.imports.scan import read_image

    values = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin((-30.0, 12.0, 100.0))
    places = []
    for letters in ("LPS", "RAS", "PIR"):
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, letters), str(tmp_path / f"{letters}.nii.gz"))
        found, grid = read_image(tmp_path / f"{letters}.nii.gz")
        at = grid.to_points(np.argwhere(np.ones(found.shape, bool)).astype(np.float64))
        order = np.argsort(found.ravel())
        places.append(at[order])
    expected = [[-30 + 0.9 * x, 12 + 1.1 * y, 100 + 2.5 * z] for z in range(4) for y in range(5) for x in range(6)]
    for found in places:
        assert np.abs(found - expected).max() < 1e-4
