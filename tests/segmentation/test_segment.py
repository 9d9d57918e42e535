"""A model of two parts of unlike grids: a finder on the whole scan, and a part that draws finely in a box around its finds."""

import re
import weakref
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Barrier, current_thread
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oarlock.errors import ManifestInvalid
from oarlock.geometry.body import body_mask, within_body
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation import manifest as manifest_module
from oarlock.segmentation import segment as segment_module
from oarlock.segmentation.anchors import AnchorFinder
from oarlock.segmentation.certainty import CertaintyMeter
from oarlock.segmentation.manifest import InputSpec, ModelManifest, read_manifest
from oarlock.segmentation.segment import Model, Segmentation, _batches, _Run, segment
from oarlock.segmentation.shared import ClaimKeeper
from oarlock.segmentation.slabs import Volume, predict_in_slabs
from oarlock.segmentation.to_ct_grid import probabilities_to_masks
from tests.fixtures import orientations
from tests.fixtures.orientations import voxel_centres_mm
from tests.inference.tiny_parts import FED_ZYX, FINE, GIVEN_ZYX, TEXT, WHOLE, denser, divided

LEFT, RIGHT, LENS, BRAIN = (BY_NAME[name] for name in ("Eye_L", "Eye_R", "Lens_L", "Brain"))
AT_MM = {LEFT: np.array([9.5, -4.0, 3.0]), RIGHT: np.array([-9.5, -3.0, 1.0])}
RADIUS_MM = 8.5


def head(grid: Grid, *, right_hu: int = 400) -> np.ndarray:
    """A body with two eyes, the left one with a lens; x, y, z of each is said from the middle of the scan."""
    centre = grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    away = voxel_centres_mm(grid) - centre

    def ball(middle: np.ndarray, radius: float) -> np.ndarray:
        return np.linalg.norm(away - middle, axis=-1) < radius

    lens = ball(AT_MM[LEFT] + [0, -4, 0], 3.5)
    parts = [lens, ball(AT_MM[LEFT], RADIUS_MM), ball(AT_MM[RIGHT], RADIUS_MM), ball(np.zeros(3), 23)]
    return np.select(parts, [900, 200, right_hu, 60], -1000).astype(np.int16)


def manifest_of(folder: Path, text: str = TEXT) -> ModelManifest:
    """The networks are plain functions here, so the files are empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("whole", "fine"):
        (folder / f"{name}.onnx").touch()
    means = {"whole_means": [0.1, 0.1, 0.1], "fine_means": [0.1, 0.1]}
    (folder / "manifest.toml").write_text(text.format(whole="1" * 64, fine="2" * 64, **means), encoding="utf-8")
    return read_manifest(folder)


def whole(hu: Volume) -> Volume:
    return denser(hu, WHOLE).repeat(2, axis=3).repeat(2, axis=4)


def fine(hu: Volume) -> Volume:
    assert hu.shape == (1, 1, *FED_ZYX)
    return divided(denser(hu, FINE), GIVEN_ZYX)


def drawn(manifest: ModelManifest, grid: Grid, hu: np.ndarray | None = None) -> Segmentation:
    return segment(head(grid) if hu is None else hu, grid, Model(manifest, {"whole": whole, "fine": fine}, "cpu"))


def centre_mm(found: Segmentation, organ: str, grid: Grid) -> np.ndarray:
    """From the middle of the scan."""
    mask = found.masks.mask(BY_NAME[organ]) * grid.slice_thicknesses_mm[:, None, None]
    middle = grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    return (voxel_centres_mm(grid) * mask[..., None]).sum(axis=(0, 1, 2)) / mask.sum() - middle


@pytest.mark.parametrize("name", orientations.ALL)
def test_each_organ_is_drawn_by_its_owner_where_it_is(name: str, tmp_path: Path) -> None:
    grid = orientations.ALL[name]
    found = drawn(manifest_of(tmp_path), grid)
    assert [oar.name for oar in found.masks.oars] == ["Brain", "Lens_L", "Eye_L", "Eye_R"]  # the catalogue's order
    assert not found.notices
    assert set(found.certainty) == {LEFT, RIGHT, LENS, BRAIN}
    assert np.abs(centre_mm(found, "Eye_R", grid) - AT_MM[RIGHT]).max() < 0.5
    assert np.abs(centre_mm(found, "Lens_L", grid) - AT_MM[LEFT] - [0, -4, 0]).max() < 1.2  # 3.5 mm on a grid of 4 mm
    away = voxel_centres_mm(grid) - grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    left = (found.masks.mask(LEFT) | found.masks.mask(LENS)) & (away[..., 0] > 0)  # at 4 mm the right eye's rim is 200 HU too
    weights = (left * grid.slice_thicknesses_mm[:, None, None])[..., None]
    assert np.abs((away * weights).sum(axis=(0, 1, 2)) / weights.sum() - AT_MM[LEFT]).max() < 1.0


def test_neither_the_order_of_the_parts_nor_that_of_the_owners_decides_anything(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    first = manifest_of(tmp_path / "first")
    head_, one, two = TEXT.split("[[part]]")
    two, owners = two.split("[owners]")
    upside_down = f"{head_}[[part]]{two}[[part]]{one}[owners]\n" + "\n".join(reversed(owners.splitlines()))
    second = manifest_of(tmp_path / "second", upside_down)
    assert first.sha256 == second.sha256
    assert [part.name for part in first.parts] == [part.name for part in second.parts] == ["whole", "fine"]
    assert np.array_equal(drawn(first, grid).masks.bits, drawn(second, grid).masks.bits)


def test_what_the_finder_draws_of_an_organ_of_another_part_is_not_in_the_masks(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    by_fine = drawn(manifest_of(tmp_path / "a"), grid)
    by_whole = drawn(manifest_of(tmp_path / "b", TEXT.replace('Eye_L = "fine"', 'Eye_L = "whole"')), grid)
    assert not np.array_equal(by_fine.masks.mask(LEFT), by_whole.masks.mask(LEFT))
    assert np.array_equal(by_fine.masks.mask(LENS), by_whole.masks.mask(LENS))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('Eye_L = "fine"', 'Eye_L = "whole"'),
        ("threshold = 0.4", "threshold = 0.41"),
        ("padding_hu = -1000.0", "padding_hu = -1000.5"),
        ("[1.0, 0.0, 9.5]", "[1.0, 0.0, 9.6]"),
        ("{fine}", "3" * 64),
    ],
)
def test_whatever_decides_a_line_is_in_the_hash(old: str, new: str, tmp_path: Path) -> None:
    assert old in TEXT
    assert manifest_of(tmp_path / "a").sha256 != manifest_of(tmp_path / "b", TEXT.replace(old, new, 1)).sha256


def without_eyes(grid: Grid) -> np.ndarray:
    return np.where(head(grid) > 100, 60, head(grid)).astype(np.int16)


def test_where_the_finder_finds_nothing_the_box_is_left_empty_and_says_so(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    found = drawn(manifest_of(tmp_path), grid, without_eyes(grid))
    assert [(notice.code, notice.detail) for notice in found.notices] == [
        (
            "contours.not_looked_for",
            f"{organ}: not drawn, as the model found nothing of what it is looked for around (Eye_L and Eye_R).",
        )
        for organ in ("Lens_L", "Eye_L")
    ]
    assert [bool(found.masks.mask(oar).any()) for oar in (LEFT, LENS, BRAIN)] == [False, False, True]
    assert set(found.certainty) == {BRAIN, RIGHT}


def test_one_found_organ_is_enough_for_a_box_of_fixed_size(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    both, one = (drawn(manifest_of(tmp_path), grid, hu) for hu in (head(grid), head(grid, right_hu=60)))
    assert one.notices == ()
    assert np.abs(centre_mm(one, "Lens_L", grid) - centre_mm(both, "Lens_L", grid)).max() < 0.5


@pytest.mark.parametrize(("radius_mm", "codes"), [(6.5, ["contours.not_looked_for"] * 2), (8.0, [])])
def test_a_speck_is_not_a_found_organ(radius_mm: float, codes: list[str], tmp_path: Path) -> None:
    """The smallest eye that experts drew has 5.7 ml; a quarter of that is asked for. The balls have 1.2 and 2.1 ml."""
    grid = orientations.ALL["HFS"]
    hu, middle = without_eyes(grid), grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    hu[np.linalg.norm(voxel_centres_mm(grid) - middle - AT_MM[RIGHT], axis=-1) < radius_mm] = 400
    assert [notice.code for notice in drawn(manifest_of(tmp_path), grid, hu).notices] == codes


@pytest.mark.parametrize(("further_mm", "codes"), [(18.0, []), (22.0, ["contours.box_uncertain"] * 2)])
def test_organs_that_contradict_each_other_are_said_and_the_larger_decides(
    further_mm: float, codes: list[str], tmp_path: Path
) -> None:
    grid = orientations.ALL["HFS"]
    text = TEXT.replace("[1.0, 0.0, 9.5]", f"[1.0, {further_mm}, 9.5]")
    found = drawn(manifest_of(tmp_path, text), grid)
    assert [notice.code for notice in found.notices] == codes
    if codes:  # the right eye is whole and the left one has a lens in it, so the right one decides
        assert not found.masks.mask(LENS).any()


def test_nothing_is_drawn_outside_of_the_body_by_a_part_that_sees_a_box(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    everywhere = lambda hu: np.full((1, 2, *GIVEN_ZYX), 0.9, np.float32)  # noqa: E731
    found = segment(head(grid), grid, Model(manifest_of(tmp_path), {"whole": whole, "fine": everywhere}, "cpu"))
    body = body_mask(head(grid).astype(np.float32))
    assert found.masks.mask(LENS).sum() > 0.1 * body.sum()
    assert not (found.masks.mask(LENS) & ~body).sum() > 0.1 * body.sum()  # one voxel of 2.5 mm around the body may be


def test_of_two_rivals_in_two_parts_the_finer_keeps_the_voxel(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    both_eyes = lambda hu: divided(denser(hu, {0: (150.0, 500.0), 1: (800.0, 1e4)}), GIVEN_ZYX)  # noqa: E731
    found = segment(head(grid), grid, Model(manifest_of(tmp_path), {"whole": whole, "fine": both_eyes}, "cpu"))
    left, right = (found.masks.mask(oar) for oar in (LEFT, RIGHT))
    assert not (left & right).any()
    assert left.sum() > 1.5 * right.sum()


def test_progress_runs_from_0_to_1_over_all_parts(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    said: list[float] = []
    segment(head(grid), grid, Model(manifest_of(tmp_path), {"whole": whole, "fine": fine}, "cpu"), progress=said.append)
    assert said == sorted(said)
    assert (said[0], said[-1]) == (0.0, 1.0)


def test_slabs_that_are_predicted_side_by_side_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = orientations.ALL["HFS"]
    monkeypatch.setattr("oarlock.segmentation.slabs.slab_for", lambda *_: 2)
    model = Model(manifest_of(tmp_path), {"whole": whole, "fine": fine}, "cpu")
    alone = segment(head(grid), grid, model)
    met = Barrier(2, timeout=10)  # broken, with an error, unless two slabs wait at it
    calls = count()

    def meeting(hu: Volume) -> Volume:
        if next(calls) < 4:
            met.wait()
        return whole(hu)

    together = replace(model, predictors={"whole": meeting, "fine": fine}, side_by_side=frozenset({"whole", "fine"}))
    found = segment(head(grid), grid, together)
    assert np.array_equal(found.masks.bits, alone.masks.bits)
    assert (found.certainty, found.notices) == (alone.certainty, alone.notices)


def test_a_slab_is_let_go_before_the_next_one_is_asked_for() -> None:
    grid = Grid(
        rows=8,
        columns=8,
        origins_mm=np.arange(6)[:, None] * np.array([0.0, 0.0, 3.0]),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        row_spacing_mm=4.0,
        column_spacing_mm=4.0,
    )
    brain = BY_NAME["Brain"]
    kept: list[weakref.ref[Volume]] = []

    def predict(hu: Volume) -> Volume:
        assert not any(slab() is not None for slab in kept)
        answer = np.full((1, 1, 2, 8, 8), 0.75, np.float32)
        kept.append(weakref.ref(answer))
        return answer

    spec = InputSpec("hu", (3.0, 4.0, 4.0), (8, 8), 1, -1000.0)
    slabs = predict_in_slabs(np.zeros((6, 8, 8), np.float32), predict, spec, slab=2)
    slabs = within_body(slabs, np.ones((6, 8, 8), np.bool_))
    slabs = CertaintyMeter(grid, [brain], [0.5]).over(slabs)
    slabs = AnchorFinder([brain], [brain], [0.5]).over(slabs)
    slabs = ClaimKeeper([brain], [brain]).over(slabs)
    masks = OARMasks.empty([brain], grid.shape)
    probabilities_to_masks(masks, slabs, grid, grid, channels=[brain], thresholds=[0.5])
    assert len(kept) == 3
    assert masks.bits.all()


def test_whoever_is_told_of_progress_is_told_in_their_own_thread_and_can_stop_it(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    model = Model(manifest_of(tmp_path), {"whole": whole, "fine": fine}, "cpu", frozenset({"whole", "fine"}))
    before, threads = set(enumerate_threads()), set()

    def stop(share: float) -> None:
        threads.add(current_thread())
        if share > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        segment(head(grid), grid, model, progress=stop)
    assert threads == {current_thread()}
    assert set(enumerate_threads()) <= before  # none goes on


def test_boxes_go_together_but_for_one_that_looks_around_what_another_finds(tmp_path: Path) -> None:
    sliding, box = manifest_of(tmp_path).parts
    other, behind = replace(box, name="other"), replace(box, name="behind", look=replace(box.look, found_by="other"))
    batches = _batches([sliding, box, other, behind, replace(sliding, name="last")])
    assert [[part.name for part in batch] for batch in batches] == [["whole"], ["fine", "other"], ["behind"], ["last"]]


def test_of_boxes_that_go_together_the_largest_is_the_first(tmp_path: Path) -> None:
    sliding, box = manifest_of(tmp_path).parts
    larger = replace(box, name="larger", input=replace(box.input, slices=2 * (box.input.slices or 0)))
    assert [[part.name for part in batch] for batch in _batches([sliding, box, larger])] == [["whole"], ["larger", "fine"]]


def test_what_is_kept_within_the_bodys_window_draws_what_the_whole_field_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Organs fill the body to its edge, from where they are interpolated outwards."""
    grid = orientations.ALL["HFS"]
    manifest = manifest_of(tmp_path)
    everywhere = lambda hu: np.full_like(whole(hu), 0.9)  # noqa: E731
    model = Model(manifest, {"whole": everywhere, "fine": fine}, "cpu")
    sight = _Run(head(grid), grid, manifest, OARMasks.empty(manifest.oars, grid.shape)).look(manifest.part_named("whole"))
    assert sight is not None
    assert sight.body.shape == sight.lattice.shape < sight.fed.grid.shape
    assert np.count_nonzero(sight.body) == np.count_nonzero(body_mask(sight.fed.volume))
    cut = segment(head(grid), grid, model)
    monkeypatch.setattr(segment_module, "_window", lambda body: (slice(0, body.shape[1]), slice(0, body.shape[2])))
    field = segment(head(grid), grid, model)
    assert np.array_equal(cut.masks.bits, field.masks.bits)
    assert cut.certainty == field.certainty


def test_a_channel_that_nothing_is_made_of_is_left_out_and_the_others_keep_their_organs(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    found = '[{{ name = "Eye_L" }}, {{ name = "Eye_R" }}, {{ name = "Brain" }}]'
    more = TEXT.replace(found, found.replace("[", '[{{ name = "Lens_L" }}, ')).replace("{whole_means}", "[0.1, 0.1, 0.1, 0.1]")
    manifest = manifest_of(tmp_path / "more", more)

    def one_more(hu: Volume) -> Volume:
        answer = whole(hu)
        return np.concatenate([np.ones_like(answer[:, :1]), answer], axis=1)

    run = _Run(head(grid), grid, manifest, OARMasks.empty(manifest.oars, grid.shape))
    assert run._channels(manifest.part_named("whole")) == (1, 2, 3)
    assert run._channels(manifest.part_named("fine")) == (0, 1)
    drawn_with = segment(head(grid), grid, Model(manifest, {"whole": one_more, "fine": fine}, "cpu"))
    assert np.array_equal(drawn_with.masks.bits, drawn(manifest_of(tmp_path / "plain"), grid).masks.bits)


SLIDING = (
    TEXT.replace("spacing_mm = [2.5, 4.0, 4.0], size_zyx = [8, 12, 10]", "spacing_mm = [1.0, 1.0, 1.0], context_slices = 3")
    .replace(", size_zyx = [20, 48, 40]", "")
    .replace(", offset_mm = [-1.0, 1.0, -9.5]", "")
    .replace(", offset_mm = [1.0, 0.0, 9.5]", "")
    .replace('found_by = "whole" }}', 'found_by = "whole", margin_mm = [6.0, 8.0, 10.0] }}')
    .replace("self_check = {{ expected", "self_check = {{ slices = 8, size_yx = [9, 9], expected")
)


def test_a_part_that_takes_any_size_slides_over_the_box_with_true_context_around_it(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    fed: list[Volume] = []

    def sliding(hu: Volume) -> Volume:
        fed.append(hu)
        return denser(hu[:, :, 1:-1], FINE)

    found = segment(head(grid), grid, Model(manifest_of(tmp_path, SLIDING), {"whole": whole, "fine": sliding}, "cpu"))
    (box,) = fed
    eyes_mm = np.array([2 + 2 * RADIUS_MM, 1 + 2 * RADIUS_MM, 19 + 2 * RADIUS_MM])  # from the first to the last voxel of either
    assert (
        np.abs(np.array(box.shape[2:]) - [2, 0, 0] - eyes_mm - 2 * np.array([6, 8, 10])).max() < 5
    )  # as a grid of 2 mm finds it
    assert box[0, 0, [0, -1]].max() > -900  # the context is the patient and not padding
    assert np.abs(centre_mm(found, "Eye_R", grid) - AT_MM[RIGHT]).max() < 0.5
    assert np.abs(centre_mm(found, "Lens_L", grid) - AT_MM[LEFT] - [0, -4, 0]).max() < 0.3


def test_a_part_that_looks_at_the_body_is_fed_no_air_around_it(tmp_path: Path) -> None:
    grid = orientations.ALL["HFS"]
    text = TEXT.replace("size_yx = [64, 64], padding_hu", "padding_hu", 1).replace(
        'file = "whole.onnx"', 'file = "whole.onnx"\nlook = {{ at = "body" }}'
    )
    shapes: list[tuple[int, ...]] = []

    def noting(hu: Volume) -> Volume:
        shapes.append(hu.shape)
        return whole(hu)

    found = segment(head(grid), grid, Model(manifest_of(tmp_path, text), {"whole": noting, "fine": fine}, "cpu"))
    assert max(shape[3] for shape in shapes) <= (2 * 23 + 2 * 10) / 2 + 4  # 10 mm around, and a coarse voxel of 4 mm at each end
    assert np.abs(centre_mm(found, "Eye_R", grid) - AT_MM[RIGHT]).max() < 0.5


def test_slabs_without_body_are_not_predicted_and_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = orientations.ALL["HFS"]
    slices: list[int] = []

    def noting(hu: Volume) -> Volume:
        slices.append(hu.shape[2])
        return whole(hu)

    model = Model(manifest_of(tmp_path), {"whole": noting, "fine": fine}, "cpu")
    at_once = segment(head(grid), grid, model)
    slices.clear()
    monkeypatch.setattr("oarlock.segmentation.slabs.slab_for", lambda *_: 2)
    slab_by_slab = segment(head(grid), grid, model)
    assert sum(slices) <= 46 / 2.5 + 6 < 0.7 * grid.shape[0]  # a slice and half a slab more at each end
    assert np.array_equal(at_once.masks.bits, slab_by_slab.masks.bits)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "fine"', 'name = "whole"', "same name"),
        ('name = "fine"', 'name = "Fine part"', r"\[\[part\]\] 1 name must be at most 16 lower-case letters"),
        ('found_by = "whole"', 'found_by = "hole"', "'hole', which is not a part"),
        ('found_by = "whole"', 'found_by = "fine"', "does not find Eye_R"),
        ('organ = "Eye_R"', 'organ = "Lens_L"', "does not find Lens_L"),
        ("[1.0, 0.0, 9.5]", "[1.0, 0.0]", r"\[\[part\]\] 1 \[look\] \[\[around\]\] 2 offset_mm must be three numbers"),
        (', found_by = "whole"', "", "needs around and found_by"),
        ('at = "box"', 'at = "scan"', "needs around and found_by if it is a box, and only then"),
        ('found_by = "whole"', 'found_by = "whole", margin_mm = [5, 5, 5]', "needs margin_mm if"),
        ('at = "box"', 'at = "sphere"', r"\[\[part\]\] 1 \[look\] at"),
        ("size_zyx = [20, 48, 40]", "size_zyx = [20, 48, 40], upscale = 2", r"\[output\] size_zyx goes with"),
        ("size_zyx = [8, 12, 10]", "size_yx = [12, 10]", "needs margin_mm"),
        ("self_check = {{ expected", "self_check = {{ slices = 8, expected", "stand only where"),
        ("slices = 4, ", "", r"\[self_check\] slices and size_yx are missing"),
        ("size_zyx = [8, 12, 10]", "size_zyx = [8, 12, 10], context_slices = 3", "stands without size_yx and context_slices"),
        ('Brain = "whole"', 'Brain = "fine"', "Brain = 'fine': that is not a part with a channel for it"),
        ('Brain = "whole"\n', "", "says nothing of Brain"),
        ('Brain = "whole"', 'Gehirn = "whole"', "Gehirn is not an organ"),
        ('Lens_L = "fine"', 'Lens_L = "fine"\nLens_R = "fine"', "Lens_R = 'fine'"),
        ("[owners]", "[owner]", r"owners is missing"),
        ('licence = "Apache-2.0"', 'licence = "Apache-2.0"\nsha256 = "{fine}"', r"\[model\] sha256 is not a key"),
        ('Eye_L = "fine"\nEye_R = "whole"\nLens_L = "fine"', 'Eye_L = "whole"\nEye_R = "whole"\nLens_L = "fine"', ""),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_with_the_reason(old: str, new: str, reason: str, tmp_path: Path) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if not reason:
        assert manifest_of(tmp_path, text).owners[LEFT] == "whole"
        return
    with pytest.raises(ManifestInvalid, match=reason):
        manifest_of(tmp_path, text)


def test_finders_in_a_circle_are_refused(tmp_path: Path) -> None:
    look = 'look = {{ at = "box", around = [{{ organ = "Eye_L" }}], found_by = "fine", margin_mm = [9, 9, 9] }}'
    text = TEXT.replace('file = "whole.onnx"', f'file = "whole.onnx"\n{look}')
    with pytest.raises(ManifestInvalid, match="runs in a circle"):
        manifest_of(tmp_path, text)


def test_rivals_of_two_parts_of_equal_voxels_are_refused(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "a")
    assert manifest.part_named("fine").voxel_mm3 == pytest.approx(1.0)
    assert manifest.part_named("whole").voxel_mm3 == pytest.approx(2.5)
    text = TEXT.replace("spacing_mm = [2.5, 2.0, 2.0]", "spacing_mm = [1.0, 2.0, 2.0]")
    with pytest.raises(ManifestInvalid, match="Eye_L and Eye_R exclude each other"):
        manifest_of(tmp_path / "b", text)


def test_a_model_of_one_part_names_no_part(tmp_path: Path) -> None:
    composed = manifest_of(tmp_path)
    assert composed.drawn_by()["Lens_L"] == ("fine", "2" * 64)
    assert replace(composed, parts=composed.parts[:1]).drawn_by() == {}


_VALUES = st.sampled_from(
    ["", "true", "nan", "1e400", "-1", "0", '"x"', "[]", "{}", "[1, [2]]", "9" * 400, '[{ organ = "Eye_L" }]', "1979-05-27"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_manifest_holds_it_is_read_or_refused_with_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    """Any value of any key is exchanged for one of another kind."""
    places = [match.span(1) for match in re.finditer(r"= ([^\n,{}]+|\[[^\n]*\]|\{\{[^\n]*\}\})", TEXT)]
    start, stop = data.draw(st.sampled_from(places))
    text = TEXT[:start] + data.draw(_VALUES).replace("{", "{{").replace("}", "}}") + TEXT[stop:]
    with suppress(ManifestInvalid):
        manifest_of(tmp_path, text)


PATCHY = TEXT.replace(
    "[owners]",
    """[[part]]
name = "patchy"
file = "patchy.onnx"
sha256 = "4444444444444444444444444444444444444444444444444444444444444444"
look = {{ at = "box", around = [{{ organ = "Eye_L" }}, {{ organ = "Eye_R" }}], found_by = "whole", margin_mm = [9.0, 9.0, 9.0] }}
input = {{ name = "patch", spacing_mm = [1.5, 1.3, 1.2], size_zyx = [10, 16, 14], padding_hu = -1000.0 }}
output = {{ name = "logits" }}
oar = [{{ name = "Lens_R", labels = [2] }}]
self_check = {{ expected_means = [0.3, 0.3, 0.4], tolerance = 1e-3 }}
[part.patches]
axes = "ALS"
mirror = ["y"]
heads = "labels"
values = [0, 1, 2]
normalisation = {{ scheme = "none" }}
resampling = {{ order = 1 }}
resampling_back = {{ order = 1 }}

[owners]
Lens_R = "patchy"
""",
)


def patchy_manifest(folder: Path, text: str = PATCHY) -> ModelManifest:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patchy.onnx").touch()
    return manifest_of(folder, text)


def densest(hu: Volume) -> Volume:
    """Logits of background, of what is dense, and of the right eye; axes run to the front, the left and the head."""
    assert hu.shape == (1, 1, 16, 14, 10)
    return np.concatenate([np.zeros_like(hu), (hu - 500) / 50, np.minimum(hu - 300, 500 - hu) / 50], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", orientations.ALL)
def test_a_part_in_patches_draws_beside_a_slab_and_a_box_part_however_the_patient_lies(name: str, tmp_path: Path) -> None:
    grid = orientations.ALL[name]
    manifest = patchy_manifest(tmp_path)
    found = segment(head(grid), grid, Model(manifest, {"whole": whole, "fine": fine, "patchy": densest}, "cpu"))
    assert [oar.name for oar in found.masks.oars] == ["Brain", "Lens_L", "Lens_R", "Eye_L", "Eye_R"]
    assert not found.notices
    assert np.abs(centre_mm(found, "Lens_R", grid) - AT_MM[RIGHT]).max() < 0.6
    alone = drawn(manifest_of(tmp_path), grid)
    assert np.array_equal(found.masks.mask(LEFT), alone.masks.mask(LEFT))
    volume_ml = grid.volumes_ml(found.masks.mask(BY_NAME["Lens_R"]).sum(axis=(1, 2)))
    assert volume_ml == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.25)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('axes = "ALS"', 'axes = "ALP"', "axes must be three letters, one each of S or I, P or A, and L or R"),
        ('axes = "ALS"', 'axes = "ALX"', "axes must be three letters"),
        (", labels = [2] }}]\n", " }}]\n", "the part 'patchy' needs labels for each organ"),
        ("labels = [2]", "labels = [3]", r"labels of Lens_R must be among the values"),
        ("labels = [2]", "labels = []", "labels is empty"),
        ("values = [0, 1, 2]", "values = [0, 1, 1]", "values lists a label twice"),
        ("expected_means = [0.3, 0.3, 0.4]", "expected_means = [0.3]", "one number per OAR, or per head"),
        ('scheme = "none"', 'scheme = "ct"', "needs low, high, mean and std if the scheme is ct"),
        ('scheme = "none"', 'scheme = "none", mean = 3.0', "needs low, high, mean and std if the scheme is ct"),
        ('scheme = "none"', 'scheme = "other"', "scheme Input should be"),
        (", margin_mm = [9.0, 9.0, 9.0]", "", "the part 'patchy' needs margin_mm"),
        ("spacing_mm = [1.5, 1.3, 1.2]", 'spacing_mm = "native"', "goes in patches, so"),
        ("resampling = {{ order = 1 }}", "resampling = {{ order = 6 }}", "order must be at most 5"),
        (
            'mirror = ["y"]',
            'mirror = ["y"]\nfold = [{{ file = "other.onnx", sha256 = "' + "5" * 64 + '" }}]',
            "other.onnx is not a file",
        ),
    ],
)
def test_what_is_wrong_of_patches_is_named(old: str, new: str, reason: str, tmp_path: Path) -> None:
    assert old in PATCHY
    with pytest.raises(ManifestInvalid, match=reason):
        patchy_manifest(tmp_path, PATCHY.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [('axes = "ALS"', 'axes = "ALI"'), ('mirror = ["y"]', "mirror = []"), ("4" * 64, "5" * 64), ("labels = [2]", "labels = [1]")],
)
def test_whatever_decides_a_line_of_patches_is_in_the_hash(old: str, new: str, tmp_path: Path) -> None:
    first, second = (patchy_manifest(tmp_path / name, text) for name, text in (("a", PATCHY), ("b", PATCHY.replace(old, new, 1))))
    assert first.sha256 != second.sha256


def test_a_model_without_patches_keeps_the_hash_that_it_had_before_there_were_any() -> None:
    shipped = read_manifest(Path(__file__).parents[2] / "models" / "oarlock-hn")
    told = [manifest_module._told_of_part(part) for part in shipped.parts]
    assert all("patches" not in part for part in told)
