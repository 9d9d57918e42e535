from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from model_export.boxes.compose import compose
from model_export.boxes.config import BoxRun, read_box_run
from model_export.boxes.data import EXPERT, TRANSFERRED, BoxCase, BoxLabel, box_data_hash, read_box_cases, write_box_cases
from model_export.boxes.export import Facts, export_box, run_box
from model_export.boxes.judge import BoxScore, box_middle, faded_on_native_grid, on_native_grid, to_results, where_it_judges
from model_export.boxes.network import BoxNetwork
from model_export.boxes.sampling import draw_box, labelled_outputs, no_placement, see, shares_at
from model_export.boxes.served import ServedBox
from model_export.boxes.things import Scene, ThingsConfig, distance_to_skin, paint_things
from model_export.boxes.train import (
    CHECKPOINT,
    boxes_of_step,
    drawn_ahead,
    loss_of_boxes,
    read_trained,
    resume_box_training,
    start_box_training,
    train_boxes,
)
from model_export.datasets.training_file import to_codes
from model_export.transferred.scans import Scan
from model_export.transferred.votes import joined, on_lattice
from oarlock.segmentation.manifest import Edge, check_hash

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGS = Path(__file__).parents[2] / "model_export" / "configs"
SMALL = {
    "box": {"size": [4, 8, 16], "hidden_columns": 4, "upscale": 2},
    "network": {"channels": [4, 6, 8], "blocks": [1, 1, 1]},
    "training": {"steps": 6, "slabs_per_step": 1, "bfloat16": False},
}
SPACING = (2.7, 3.9, 4.3)


@pytest.fixture
def run() -> BoxRun:
    return read_box_run(CONFIGS / "orbits.toml", SMALL)


def made_label(organ: str, at_x: int, *, source: str = EXPERT) -> BoxLabel:
    """A block of 4 x 8 x 8 voxels of a lattice twice as fine, from slice 6, row 20 and a column on."""
    shares = np.zeros((6, 10, 10), np.uint8)
    shares[1:-1, 1:-1, 1:-1] = 255
    return BoxLabel(organ, shares, (5, 19, at_x - 1), 2, source, (0, 14))


def made_case(labels: Sequence[BoxLabel], *, name: str = "made") -> BoxCase:
    """15 x 23 x 31 voxels of tissue with a margin of air, the box in the middle."""
    hu = np.full((15, 23, 31), -1000.0, np.float32)
    hu[:, 4:, 3:-3] = 20.0
    middle = tuple(count * step / 2 for count, step in zip(hu.shape, SPACING, strict=True))
    return BoxCase(
        name, "", "train", SPACING, to_codes(hu, np.ones(hu.shape, np.bool_)), (middle[0], middle[1], middle[2]), tuple(labels)
    )


@pytest.mark.parametrize("name", ["orbits", "ears", "jaw", "jaw_wide", "axis"])
def test_each_shipped_box_can_be_built_and_names_both_sides(name: str) -> None:
    run = read_box_run(CONFIGS / f"{name}.toml")
    slices, rows, columns = run.box.size
    assert slices % 2 == 0
    assert rows % 4 == 0
    assert (columns - run.box.hidden_columns) % 4 == 0
    assert {organ[:-1] + "R" for organ in run.box.organs if organ.endswith("_L")} <= set(run.box.drawn_organs)
    assert BoxNetwork(run.network).head.conv.out_channels == len(run.box.organs) * run.box.upscale**2


def test_both_lattices_of_a_box_have_the_same_edges(run: BoxRun) -> None:
    for coarse, fine, step, factor in zip(
        run.box.positions_mm(fine=False), run.box.positions_mm(fine=True), run.box.spacing_mm, (1, 2, 2), strict=True
    ):
        assert coarse[0] - step / 2 == pytest.approx(fine[0] - step / factor / 2)
        assert coarse[-1] + step / 2 == pytest.approx(fine[-1] + step / factor / 2)


def test_the_columns_that_are_hidden_lie_on_the_patients_right(run: BoxRun) -> None:
    everything, shown = run.box.positions_mm(fine=False)[2], run.box.positions_mm(fine=False, shown=True)[2]
    assert shown.tolist() == everything[4:].tolist()


def test_a_box_is_laid_at_the_mean_over_the_anchors_that_were_found(run: BoxRun) -> None:
    both = box_middle(run.box, {"Eye_L": (60.0, 10.0, 5.0), "Eye_R": (-2.0, 12.0, 7.0)})
    assert both == pytest.approx((6.0, 27.0, 29.0))  # 16 mm behind the eyes' middle, for their offsets along x cancel
    assert box_middle(run.box, {"Eye_L": (60.0, 10.0, 5.0)}) == pytest.approx((5.0, 26.0, 28.0))
    assert box_middle(run.box, {"Brainstem": (0.0, 0.0, 0.0)}) is None


def test_a_mirrored_box_gets_the_mirrored_drawing(run: BoxRun) -> None:
    torch.manual_seed(3)
    served = ServedBox([BoxNetwork(run.network)], run.box).eval()
    hu = torch.randn(1, 1, *run.box.size) * 200
    with torch.no_grad():
        plain, mirrored = served(hu)[0], served(hu.flip(-1))[0]
    names = run.box.drawn_organs
    swapped = [names.index(name[:-1] + {"L": "R", "R": "L"}[name[-1]]) for name in names]
    assert torch.allclose(plain[swapped].flip(-1), mirrored, atol=1e-6)


def test_a_served_box_smooths_its_probabilities_in_plane_alone(run: BoxRun) -> None:
    sd = 0.8
    served = ServedBox([BoxNetwork(run.network)], replace(run.box, smoothing_sd_voxels=sd)).eval()
    rows, columns = (count * run.box.upscale for count in run.box.size[1:])
    drawn = torch.rand(2, 3, rows, columns, generator=torch.Generator().manual_seed(1))
    expected = gaussian_filter(drawn.numpy(), (0, 0, sd, sd), mode="nearest", radius=(0, 0, 3, 3))
    assert served.smoothed(drawn).numpy() == pytest.approx(expected, abs=1e-6)
    as_drawn = ServedBox([BoxNetwork(run.network)], run.box).eval()
    assert torch.equal(as_drawn.smoothed(drawn), drawn)


def test_several_networks_of_a_box_whatever_their_widths_answer_with_their_mean(run: BoxRun, tmp_path: Path) -> None:
    torch.manual_seed(4)
    wider = replace(run.network, channels=(8, 12, 16))
    networks = [BoxNetwork(run.network).eval(), BoxNetwork(wider).eval()]
    hu = torch.randn(1, 1, *run.box.size) * 200
    with torch.no_grad():
        one, other, both = (ServedBox(those, run.box).eval()(hu) for those in (networks[:1], networks[1:], networks))
    assert not torch.allclose(one, other)
    assert torch.allclose(both, (one + other) / 2, atol=1e-6)
    assert export_box(networks, run, tmp_path, Facts({}, {}, {})).probability < 1e-5


@pytest.mark.parametrize("networks", [[], [{"outputs": 3}], [{}, {"upscale": 4}]])
def test_networks_of_another_box_are_refused(networks: list[dict[str, int]], run: BoxRun) -> None:
    with pytest.raises(ValueError, match="a network of another box than orbits"):
        ServedBox([BoxNetwork(replace(run.network, **changes)) for changes in networks], run.box)


def test_a_checkpoint_gives_its_averaged_network_as_wide_as_it_was_trained(run: BoxRun, tmp_path: Path) -> None:
    training = start_box_training(replace(run, network=replace(run.network, channels=(8, 12, 16))))
    train_boxes(training, [made_case([made_label("Eye_L", 30)])], tmp_path, until=2)
    trained = read_trained(tmp_path / CHECKPOINT, run.box)
    assert trained.step == 2
    assert trained.cpu_s == training.cpu_s
    for one, other in zip(training.average.state_dict().values(), trained.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"draws Eye_L, Lens_L, .*, not Cochlea_L, Brainstem"):
        read_trained(tmp_path / CHECKPOINT, read_box_run(CONFIGS / "ears.toml").box)


def test_an_unpaired_organ_is_the_mean_of_the_sides_that_are_shown_it() -> None:
    run = read_box_run(CONFIGS / "ears.toml", SMALL)
    network = BoxNetwork(run.network).eval()
    with torch.no_grad():
        network.head.conv.weight.zero_()
        assert network.head.conv.bias is not None
        network.head.conv.bias.fill_(0.0)
        drawn = ServedBox([network], run.box).eval()(torch.zeros(1, 1, *run.box.size))[0]
    assert torch.equal(drawn[run.box.drawn_organs.index("Brainstem")], torch.full((4, 16, 32), 0.5))


def test_a_right_organ_is_drawn_as_a_left_one_on_the_mirror_image(run: BoxRun) -> None:
    case = made_case([made_label("Eye_R", 20)])
    assert labelled_outputs(case, run, mirror=False) == []
    assert [(index, label.organ) for index, label in labelled_outputs(case, run, mirror=True)] == [(0, "Eye_R")]
    plain = no_placement(case).in_scan(run.box.positions_mm(fine=True))
    mirror = no_placement(case, mirror=True).in_scan(run.box.positions_mm(fine=True))
    label = case.by_organ["Eye_R"]
    assert torch.allclose(shares_at(label, case, plain).flip(-1), shares_at(label, case, mirror), atol=1e-5)


def test_a_label_keeps_its_volume_and_place_in_the_box(run: BoxRun) -> None:
    box = replace(run.box, size=(16, 24, 32), spacing_mm=(2.5, 4.0, 4.0), upscale=4)
    case = made_case([made_label("Eye_L", 30)])
    shares = shares_at(case.labels[0], case, no_placement(case).in_scan(box.positions_mm(fine=True)))
    volume_mm3 = 4 * 8 * 8 * SPACING[0] * SPACING[1] * SPACING[2] / 4
    assert float(shares.sum()) * 2.5 == pytest.approx(volume_mm3, rel=0.03)
    x_mm = torch.from_numpy(box.positions_mm(fine=True)[2])
    middle = float((shares.sum(dim=(0, 1)) * x_mm).sum() / shares.sum()) + case.middle_mm[2]
    assert middle == pytest.approx(34 * SPACING[2] / 2, abs=0.3)  # columns 30 to 37 of a lattice twice as fine


def test_what_lies_outside_of_the_scan_is_air(run: BoxRun) -> None:
    case = made_case([])
    hu, known, _ = see(case, no_placement(case, middle_mm=(-500.0, 0.0, 0.0)).in_scan(run.box.positions_mm(fine=False)))
    assert torch.equal(hu, torch.full(run.box.size, -1000.0))
    assert not known.any()


def test_a_step_depends_on_its_number_alone(run: BoxRun) -> None:
    cases = [made_case([made_label("Eye_L", 30), made_label("Lens_R", 10)], name=name) for name in ("one", "two")]
    first, again, other = (boxes_of_step(step, cases, run)[0] for step in (5, 5, 6))
    assert torch.equal(first.ct_hu, again.ct_hu)
    assert not torch.equal(first.ct_hu, other.ct_hu)


def test_a_transferred_label_weighs_less_than_an_experts(run: BoxRun) -> None:
    case = made_case([made_label("Eye_L", 30), made_label("Lens_L", 30, source=TRANSFERRED)])
    sample = draw_box(case, replace(run, augment=replace(run.augment, mirror_probability=0.0)), np.random.default_rng(1))
    assert sample.organs == (0, 1)
    assert sample.weights == (1.0, run.sampling.transferred_weight)


def test_an_organ_without_a_label_has_no_gradient(run: BoxRun) -> None:
    network = BoxNetwork(run.network)
    sample = draw_box(made_case([made_label("Eye_L", 30)]), run, np.random.default_rng(1))
    torch.autograd.backward(loss_of_boxes(network, [sample], run))
    assert network.head.conv.bias is not None
    assert network.head.conv.bias.grad is not None
    by_organ = network.head.conv.bias.grad.reshape(len(run.box.organs), -1).abs().sum(dim=1)
    assert by_organ[0] > 0
    assert by_organ[1:].tolist() == [0.0, 0.0, 0.0]


def test_two_boxes_in_a_step_have_the_mean_of_their_losses(run: BoxRun) -> None:
    """In float32, where the loss sees the network's own logits: it must not write on them."""
    network = BoxNetwork(run.network).eval()
    rng = np.random.default_rng(1)
    samples = [draw_box(made_case([made_label(organ, 30)]), run, rng) for organ in ("Eye_L", "Lens_L")]
    both = loss_of_boxes(network, samples, run)
    torch.autograd.backward(both)
    alone = [float(loss_of_boxes(network, [sample], run).detach()) for sample in samples]
    assert float(both.detach()) == pytest.approx(float(np.mean(alone)), rel=1e-4)


def test_a_label_joins_what_was_carried_over_and_what_openkbp_drew() -> None:
    shares, drawn = np.zeros((5, 24, 24), np.float32), np.zeros((5, 24, 24), np.bool_)
    shares[1:4, 4:12, 4:20] = 1.0
    drawn[1:4, 8:16, 4:20] = True
    label = joined(shares, drawn)
    assert label[2, 5, 12] >= 0.7  # what experts say stands alone
    assert label[2, 10, 12] > 0.9  # and is surer where OpenKBP agrees
    assert label[2, 14, 12] < 0.31  # what OpenKBP says alone is nothing
    finer = on_lattice(np.eye(3, dtype=np.bool_)[None].repeat(2, axis=0), (1, 4, 4), (1, 4, 8), 4)
    assert finer[0].tolist() == [[True] * 4 + [False] * 4] * 4  # voxel (1, 1) and half of (1, 2)


def test_a_training_goes_on_as_if_it_had_not_been_stopped(run: BoxRun, tmp_path: Path) -> None:
    cases = [made_case([made_label("Eye_L", 30), made_label("Eye_R", 10)])]
    whole = start_box_training(run)
    train_boxes(whole, cases, tmp_path / "whole")
    train_boxes(start_box_training(run), cases, tmp_path / "parts", until=3)
    parts = resume_box_training(run, tmp_path / "parts" / CHECKPOINT)
    assert parts.step == 3
    train_boxes(parts, cases, tmp_path / "parts")
    for one, other in zip(whole.average.state_dict().values(), parts.average.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_boxes_that_are_drawn_ahead_are_the_same_ones(run: BoxRun) -> None:
    cases = [made_case([made_label("Eye_L", 30)])]
    alone, ahead = ([boxes[0].ct_hu for boxes in drawn_ahead(2, 9, cases, run, workers)] for workers in (0, 2))
    assert len(alone) == len(ahead) == 7
    assert all(torch.equal(one, other) for one, other in zip(alone, ahead, strict=True))


def test_a_file_gives_back_its_cases(tmp_path: Path) -> None:
    case = made_case([made_label("Eye_L", 30)])
    write_box_cases(tmp_path / "boxes.npz", [case], {})
    (read,) = read_box_cases(tmp_path / "boxes.npz")
    assert read.middle_mm == case.middle_mm
    assert np.array_equal(read.ct, case.ct)
    assert np.array_equal(read.labels[0].shares, case.labels[0].shares)
    assert replace(read.labels[0], shares=case.labels[0].shares) == case.labels[0]
    assert len(box_data_hash(tmp_path / "boxes.npz")) == 64


def test_an_export_answers_as_torch_does_and_states_its_shape(run: BoxRun, tmp_path: Path) -> None:
    import tomllib

    network = BoxNetwork(run.network)
    agreement = export_box([network], run, tmp_path, Facts({"Eye_L": 0.4}, {"steps": 7}, {"Eye_L": 0.9}))
    assert agreement.probability < 1e-5
    (part,) = tomllib.loads((tmp_path / "orbits.part.toml").read_text())["part"]
    assert part["input"] == {"name": "hu", "spacing_mm": [2.5, 4.0, 4.0], "size_zyx": [4, 8, 16], "padding_hu": -1000.0}
    assert part["oar"][:2] == [{"name": "Eye_L", "threshold": 0.4}, {"name": "Eye_R", "threshold": 0.5}]
    assert part["look"]["around"][1] == {"organ": "Eye_R", "offset_mm": [0.0, 16.0, 32.0]}
    answer = run_box(tmp_path / part["file"], np.zeros((1, 1, 4, 8, 16), np.float32))
    assert answer.shape == (1, 8, 4, 16, 32)


def test_a_composed_model_is_one_that_the_product_reads_and_its_boxes_own_their_organs(run: BoxRun, tmp_path: Path) -> None:
    export_box([BoxNetwork(run.network)], run, tmp_path / "boxes", Facts({}, {"steps": 7}, {}))
    whole = Path(__file__).parents[2] / "models" / "oarlock-hn"
    manifest = compose(
        whole, [tmp_path / "boxes"], tmp_path / "composed", version="9.9.9", kept=["Eye_L", "Eye_R"], thresholds={"Brain": 0.61}
    )
    assert [part.name for part in manifest.parts] == ["whole", "orbits"]
    assert manifest.parts[0].thresholds[:2] == (0.61, 0.4)  # brain, and the brainstem as it was
    owners = {oar.name: owner for oar, owner in manifest.owners.items()}
    assert owners["Lens_R"] == "orbits"
    assert owners["Brain"] == owners["Eye_L"] == "whole"
    check_hash(manifest)
    card = (tmp_path / "composed" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# oarlock-hn 9.9.9\n")
    assert card.count("**orbits**: steps 7.") == 1
    assert "\n| Lens_L | 0.5 |  |  |  |  |\n" in card
    assert "\n| Eye_L | 0.5 |" not in card


def test_a_threshold_of_an_organ_that_the_whole_scan_network_does_not_draw_is_refused(tmp_path: Path) -> None:
    whole = Path(__file__).parents[2] / "models" / "oarlock-hn"
    with pytest.raises(ValueError, match="no channel for Brian"):
        compose(whole, [], tmp_path / "composed", version="9.9.9", thresholds={"Brian": 0.5})
    assert not (tmp_path / "composed").exists()


def test_a_composed_card_says_on_which_scans_it_was_judged_and_what_is_shared(run: BoxRun, tmp_path: Path) -> None:
    eyes = {"Eye_L": 0.5, "Eye_R": 0.5}
    facts = {"steps": 7, "judged_on": ["A", "B"], "learnt_from_judges": True}
    results = {"Eye_L": 0.61, "Eye_L_scans": 2, "Eye_L_radiographer": 0.8}
    shared = replace(run, box=replace(run.box, shares=eyes))
    export_box([BoxNetwork(run.network)], shared, tmp_path / "boxes", Facts({}, facts, results))
    whole = Path(__file__).parents[2] / "models" / "oarlock-hn"
    edges = {f"Lung_{side}": {"hu": [-1100.0, -300.0], "outwards_mm": 3.0} for side in "LR"}
    kept = compose(whole, [tmp_path / "boxes"], tmp_path / "kept", version="9.9.9", kept=[*eyes])
    assert not kept.shares
    manifest = compose(whole, [tmp_path / "boxes"], tmp_path / "composed", version="9.9.9", edges=edges)
    assert {oar.name: edge for oar, edge in manifest.edges.items()} == dict.fromkeys(edges, Edge((-1100.0, -300.0), 0.0, 3.0))
    assert {oar.name: share for oar, share in manifest.shares.items()} == eyes
    card = (tmp_path / "composed" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Judged on A, B, which the network had not seen. What ships went on from it and learnt from these scans too." in card
    assert "| organ | threshold | share | DSC | scans | radiographer |" in card
    assert "\nThe edges of Lung_L, Lung_R then move to those of their tissue (docs/models.md, `[edges]`);\n" in card
    assert "\n| Eye_L | 0.5 | 0.5 | 0.61 | 2 | 0.8 |\n" in card
    assert "cross-validated" not in card.rpartition("## Parts")[2]


@pytest.mark.parametrize(
    ("learnt", "ships"),
    [
        (False, "What ships is one of them."),
        (True, "What ships went on from one of them and learnt from these scans too."),
    ],
)
def test_a_card_says_that_each_scan_was_judged_by_a_fold_of_its_own(
    learnt: bool, ships: str, run: BoxRun, tmp_path: Path
) -> None:
    facts = {"steps": 7, "judged_on": ["A", "B"], "folds": 2, "learnt_from_judges": learnt}
    export_box([BoxNetwork(run.network)], run, tmp_path / "boxes", Facts({}, facts, {}))
    whole = Path(__file__).parents[2] / "models" / "oarlock-hn"
    compose(whole, [tmp_path / "boxes"], tmp_path / "composed", version="9.9.9")
    card = (tmp_path / "composed" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"Judged on A, B, each by one of 2 networks that had not seen it. {ships}" in card


def test_an_organ_that_was_judged_twice_on_a_scan_is_no_result() -> None:
    row = BoxScore("A", "Eye_L", 0.9, None, 0.8, 7.0, 7.1)
    assert to_results([row, replace(row, case="B", dsc=0.7)]) == {"Eye_L": 0.8, "Eye_L_scans": 2, "Eye_L_radiographer": 0.8}
    assert "Eye_L_radiographer" not in to_results([row, replace(row, case="B", human_dsc=None)])
    with pytest.raises(ValueError, match="judged twice: A Eye_L"):
        to_results([row, row])


def test_a_drawing_comes_back_to_the_place_that_it_was_drawn_at(run: BoxRun) -> None:
    hu = np.zeros((20, 30, 40), np.float32)
    scan = Scan("made", "train", hu, np.ones(hu.shape, np.bool_), (2.5, 4.0, 4.0), {})
    ramp = np.broadcast_to(run.box.positions_mm(fine=True)[2], (1, 4, 16, 32)).astype(np.float32)
    found, spans = on_native_grid(ramp, run.box, (25.0, 60.0, 80.0), scan)
    x_mm = ((np.arange(160) + 0.5) / 4 - 0.5)[spans[2]] * 4.0 - 80.0
    inside = np.abs(x_mm) < 30.0
    assert np.allclose(found[0, 2, 10, inside], x_mm[inside], atol=1e-3)


def test_a_share_fades_on_the_native_grid_as_in_the_product(run: BoxRun) -> None:
    """1 at 10 mm and more from each face; half-way there at 5 mm, and a quarter where two faces are 5 mm away."""
    box = replace(run.box, size=(10, 8, 8), hidden_columns=0)
    hu = np.zeros((20, 30, 40), np.float32)
    scan = Scan("made", "train", hu, np.ones(hu.shape, np.bool_), (2.5, 4.0, 4.0), {})
    fade = faded_on_native_grid(box, (25.0, 60.0, 80.0), scan)  # 25 x 32 x 32 mm, voxels of 2.5 x 1 x 1 mm
    z, y, x = (int(n) for n in np.argwhere(fade == fade.max())[0])
    assert fade.max() == 1.0
    assert np.allclose(np.diff(fade[z, y, :8]), 0.1)
    assert fade[z, 3, 3] == pytest.approx(fade[z, y, 3] * fade[z, 3, x])


def test_a_cord_is_judged_from_its_lowest_drawn_slice_and_other_organs_where_they_are_known() -> None:
    reference, known = np.zeros((8, 4, 4), np.bool_), np.ones((8, 4, 4), np.bool_)
    reference[3:, 1:3, 1:3], known[6:] = True, False
    counted = where_it_judges("SpinalCord", reference, known)
    assert counted is not None
    assert counted.any(axis=(1, 2)).tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert where_it_judges("Brainstem", reference, known) is None  # three of its five slices are known
    known[6:] = True
    assert where_it_judges("Brainstem", reference, known) is known


def test_things_touch_the_skin_and_change_nothing_within_it() -> None:
    hu = np.full((9, 21, 23), -1000.0, np.float32)
    hu[:, 6:16, 5:18] = 40.0
    hu[:, 9:12, 9:12] = -1000.0  # an airway
    skin = torch.from_numpy(distance_to_skin(hu, (2.5, 4.0, 4.0)))
    places = tuple((np.arange(n, dtype=np.float32) - n / 2) * step for n, step in zip(hu.shape, (2.5, 4.0, 4.0), strict=True))
    scene = Scene(skin, (places[0], places[1], places[2]))
    every = ThingsConfig(mask=1.0, bolus=1.0, pad=1.0, tube=1.0, rest=1.0)
    for seed in range(5):
        painted = paint_things(torch.from_numpy(hu), scene, every, np.random.default_rng(seed)).numpy()
        inside = skin.numpy() == 0
        assert np.array_equal(painted[inside], hu[inside])
        touching = (skin.numpy() > 0) & (skin.numpy() < 4.5)
        assert (painted[touching] > -900).mean() > 0.2


def test_no_organ_is_in_a_thing_on_the_skin_although_the_air_there_was_unknown() -> None:
    still = dict.fromkeys(("rotation_deg", "shear", "elastic_sd_mm", "noise_sd_hu", "shift_hu"), 0.0)
    still |= dict.fromkeys(("mirror_probability", "cut_probability", "blur_probability"), 0.0)
    tables = SMALL | {"box": SMALL["box"] | {"size": [8, 16, 32]}, "augment": still}
    none = {"mask": 0.0, "bolus": 0.0, "pad": 0.0, "tube": 0.0}
    bare, dressed = (read_box_run(CONFIGS / "orbits.toml", tables | {"things": none | {"pad": pad}}) for pad in (0.0, 1.0))
    case = made_case([made_label("Eye_L", 30)])
    case = replace(case, ct=np.where(case.ct > to_codes(np.float32(-500.0), np.True_), case.ct, 0).astype(np.uint8))
    counts: list[list[torch.Tensor]] = [[], []]
    for seed in range(6):
        without, seen = (draw_box(case, run, np.random.default_rng(seed)) for run in (bare, dressed))
        thing = (seen.ct_hu - without.ct_hu).abs() > 100.0
        thing = thing.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert not seen.target[0][thing].any()
        for found, sample in zip(counts, (without, seen), strict=True):
            found.append(sample.counts[0][thing])
    before, now = (torch.cat(found).float() for found in counts)
    assert len(now) > 1000
    assert before.mean() < 0.2
    assert now.mean() > 0.8


def test_a_box_of_air_can_be_painted() -> None:
    skin = torch.from_numpy(distance_to_skin(np.full((4, 8, 8), -1000.0, np.float32), (2.5, 4.0, 4.0)))
    places = np.arange(8, dtype=np.float32)
    every = ThingsConfig(mask=1.0, bolus=1.0, pad=1.0, tube=1.0, rest=1.0)
    scene = Scene(skin, (places[:4], places, places))
    painted = paint_things(torch.full((4, 8, 8), -1000.0), scene, every, np.random.default_rng(0))
    assert torch.isfinite(painted).all()
