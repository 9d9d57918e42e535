import errno
import hashlib
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from oarlock.errors import DeviceOutOfMemory, InferenceFailed, ManifestInvalid
from oarlock.facts import ModelFacts
from oarlock.inference.models import Models, load
from oarlock.inference.network import CPU, CUDA, CUDA_OPTIONS, Network, _BoundRun, check_answer
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.manifest import ModelManifest, read_manifest, self_check_input
from oarlock.segmentation.model_folder import Installed, ModelFolder
from tests.worker.tiny_model import sigmoid_of_means, write_tiny_model

HAS_CUDA = onnxruntime.get_device() == "GPU" and Path("/dev/nvidiactl").exists()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def with_part(manifest: ModelManifest, **changes: Any) -> ModelManifest:
    return replace(manifest, parts=(replace(manifest.parts[0], **changes),))


def test_a_model_answers_as_its_definition_says(manifest: ModelManifest) -> None:
    hu = np.random.default_rng(0).normal(100, 200, (1, 1, 7, 12, 9)).astype(np.float32)
    model = load(manifest, device="cpu")
    assert model.device == "cpu"
    assert np.allclose(model.predictors["model"](hu), sigmoid_of_means(hu), atol=1e-6)


def test_an_answer_on_the_cpu_is_the_callers_own_and_holds_no_memory_of_the_session(manifest: ModelManifest) -> None:
    hu = np.random.default_rng(1).normal(100, 200, (1, 1, 7, 12, 9)).astype(np.float32)
    network = load(manifest, device="cpu").predictors["model"]
    first, second = network(hu), network(np.asfortranarray(hu) + 100)
    assert first.flags.owndata
    assert first.flags.writeable
    assert np.allclose(first, sigmoid_of_means(hu), atol=1e-6)
    assert np.allclose(second, sigmoid_of_means(hu + 100), atol=1e-6)


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_without_a_gpu_auto_is_the_cpu(manifest: ModelManifest) -> None:
    assert load(manifest, device="auto").device == "cpu"


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_cuda_that_is_insisted_on_is_never_quietly_the_cpu(manifest: ModelManifest) -> None:
    with pytest.raises(InferenceFailed):
        load(manifest, device="cuda")


@pytest.mark.parametrize(
    ("threads", "size_yx", "together"),
    [(2, (96, 96), True), (1, (96, 96), False), (2, (500, 500), True), (2, (501, 501), False), (2, None, False)],
)
def test_two_slabs_go_together_where_there_are_two_cores_and_both_are_small(
    threads: int, size_yx: tuple[int, int] | None, *, together: bool, manifest: ModelManifest
) -> None:
    fixed = replace(manifest.parts[0].input, size_yx=size_yx, context_slices=1)  # a slab has 4 slices at least: a million voxels
    sized = with_part(manifest, input=fixed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "check_answer", lambda _: None)
        assert load(sized, device="cpu", threads=threads).side_by_side == (frozenset({"model"}) if together else frozenset())


def test_another_file_under_the_same_name_is_refused(tmp_path: Path) -> None:
    manifest = write_tiny_model(tmp_path / "tiny")
    with manifest.parts[0].path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestInvalid, match="sha256"):
        load(manifest, device="cpu")


def test_another_answer_to_the_self_check_is_refused_and_the_organ_is_named(manifest: ModelManifest) -> None:
    check = manifest.parts[0].self_check
    means = (check.expected_means[0], check.expected_means[1] + 0.01)
    with pytest.raises(ManifestInvalid, match="self-check for Bone_Mandible"):
        load(with_part(manifest, self_check=replace(check, expected_means=means)), device="cpu")


@pytest.mark.parametrize(("share", "believed"), [(1 / 1.49, True), (1 / 1.51, False), (1 / 0.51, True), (1 / 0.49, False)])
def test_a_mean_is_off_by_half_of_itself_at_most_however_small_it_is(
    manifest: ModelManifest, share: float, believed: bool
) -> None:
    """A network that draws no lens is off by less than any tolerance."""
    check = manifest.parts[0].self_check
    wide = replace(check, tolerance=0.05, expected_means=(check.expected_means[0], check.expected_means[1] * share))
    assert abs(wide.expected_means[1] - check.expected_means[1]) < 0.05
    with nullcontext() if believed else pytest.raises(ManifestInvalid, match="self-check for Bone_Mandible"):
        load(with_part(manifest, self_check=wide), device="cpu")


@pytest.mark.parametrize(("far", "believed"), [(0.9e-6, True), (1.1e-6, False)])
def test_a_mean_next_to_nothing_is_off_by_a_millionth_at_most(manifest: ModelManifest, far: float, believed: bool) -> None:
    part = with_part(manifest, self_check=replace(manifest.parts[0].self_check, expected_means=(0.0, 0.0))).parts[0]
    fed = (part.self_check.slices, *part.self_check.size_yx)
    answer = np.zeros((1, 2, *part.output.shape(fed, part.input.context_slices)), np.float32)
    answer[:, 1] = far
    with nullcontext() if believed else pytest.raises(ManifestInvalid, match="self-check for Bone_Mandible"):
        check_answer("tiny", part, lambda _: answer)


def test_a_channel_too_few_is_refused(manifest: ModelManifest) -> None:
    check = replace(manifest.parts[0].self_check, expected_means=(0.1, 0.1, 0.1))
    three = with_part(manifest, oars=(*manifest.oars, BY_NAME["Eye_L"]), thresholds=(0.5, 0.5, 0.5), self_check=check)
    with pytest.raises(ManifestInvalid, match=r"shape \(1, 2, 3, 24, 20\) and not \(1, 3, 3, 24, 20\)"):
        load(three, device="cpu")


@pytest.mark.parametrize("end", ["input", "output"])
def test_a_name_that_the_file_does_not_have_is_refused(manifest: ModelManifest, end: str) -> None:
    other = with_part(manifest, **{end: replace(getattr(manifest.parts[0], end), name="other")})
    with pytest.raises(ManifestInvalid, match=rf"\[{end}\] name"):
        load(other, device="cpu")


@pytest.mark.skipif(HAS_CUDA, reason="a GPU is here")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_where_cuda_is_asked_for_and_not_had_the_cpu_answers(manifest: ModelManifest) -> None:
    """A worker whose driver is broken: the runtime gives it the CPU, with a warning of its own."""
    assert load(manifest, providers=((CUDA, CUDA_OPTIONS), CPU)).device == "cpu"


def test_too_little_memory_is_an_error_that_may_pass(tmp_path: Path) -> None:
    manifest = write_tiny_model(tmp_path / "tiny", swallow=10**9)
    network = Network("tiny", manifest.parts[0], "cpu", 1)
    with pytest.raises(DeviceOutOfMemory):
        network(np.zeros((1, 1, 64, 64, 64), np.float32))


def test_where_the_gpu_runs_out_of_memory_the_slab_runs_on_the_cpu(manifest: ModelManifest) -> None:
    class Exhausted:
        def __call__(self, *_: object) -> np.ndarray:
            raise RuntimeError("CUDA failure 2: out of memory")

    network = Network("tiny", manifest.parts[0], "auto", 1)
    network._run, network.device = Exhausted(), "cuda"
    hu = np.random.default_rng(0).normal(100, 200, (1, 1, 5, 8, 8)).astype(np.float32)
    assert np.allclose(network(hu), sigmoid_of_means(hu), atol=1e-6)
    assert network._fallback is not None
    network._insists = True
    with pytest.raises(DeviceOutOfMemory):
        network(hu)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="no GPU here"))])
def test_runs_over_bound_buffers_answer_slabs_of_any_length(manifest: ModelManifest, device: str) -> None:
    """The same code on either device; a shorter slab after a longer one, a longer one, another size in plane."""
    run = _BoundRun(Network("tiny", manifest.parts[0], device, 1)._session, manifest.parts[0], device)
    rng = np.random.default_rng(3)
    for shape in ((9, 8, 8), (5, 8, 8), (9, 8, 8), (11, 8, 8), (4, 12, 6)):
        hu = rng.normal(100, 200, (1, 1, *shape)).astype(np.float32)
        answer = run(hu)
        assert answer.shape == (1, 2, shape[0] - 2, *shape[1:])
        assert np.allclose(answer, sigmoid_of_means(hu), atol=1e-6)


@pytest.mark.skipif(not HAS_CUDA, reason="no GPU here")
def test_the_shipped_model_draws_the_same_on_both_devices() -> None:
    """At most one mask voxel in a thousand may differ."""
    shipped = read_manifest(Path(__file__).parents[2] / "models" / "oarlock-hn")
    hu = self_check_input(52, (96, 96)) + np.random.default_rng(1).normal(0, 60, (1, 1, 52, 96, 96)).astype(np.float32)
    on_cpu, on_gpu = (load(shipped, device=device).predictors["whole"](hu) > 0.5 for device in ("cpu", "cuda"))
    assert (on_cpu != on_gpu).sum() <= 1e-3 * on_cpu.sum()


def test_a_job_gets_the_very_model_that_it_was_given_to(manifest: ModelManifest) -> None:
    models = Models(lambda: Installed({"tiny": manifest}, {}, "tiny"), device="cpu")
    facts = ModelFacts("tiny", "1", manifest.sha256)
    assert models(facts) is models(facts)
    assert models(facts).facts == facts
    with pytest.raises(ManifestInvalid, match="does not have it"):
        models(replace(facts, name="other"))
    with pytest.raises(ManifestInvalid, match="was given to 000000000000"):
        models(replace(facts, sha256="0" * 64))


def test_a_model_that_is_added_made_the_default_and_retired_is_met_as_it_is_then(tmp_path: Path) -> None:
    """A retired model still draws the jobs that have it; when its folder is gone, they are refused with the reason."""
    folder = ModelFolder(tmp_path, "tiny")
    old = write_tiny_model(tmp_path / "old", name="tiny")
    models = Models(folder.now, device="cpu")
    given = ModelFacts("tiny", "1", old.sha256)
    drawn = models(given)
    copied = write_tiny_model(tmp_path / ".new", name="tiny", swallow=2)
    assert list(folder.now().offered) == ["tiny"]  # one that is still being copied is not looked at
    (tmp_path / "old" / "retired").touch()
    (tmp_path / ".new").rename(tmp_path / "new")
    assert folder.now().offered["tiny"].sha256 == copied.sha256
    assert models(given) is drawn
    assert models.default().facts.sha256 == copied.sha256
    write_tiny_model(tmp_path / "other", name="other")
    (tmp_path / "default").write_text("other\n")
    assert (folder.now().default, models.default().facts.name) == ("other", "other")
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(ManifestInvalid, match=r"was given to .* and this worker has"):
        models(given)


def test_an_error_in_reading_that_passes_is_forgotten_though_no_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModelFolder(tmp_path, "tiny")
    write_tiny_model(tmp_path / "tiny")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_text", _stale)
        assert "cannot be read" in str(folder.now().problem)
    assert folder.now().problem is None
    assert list(folder.now().offered) == ["tiny"]


def _stale(*_: object, **__: object) -> str:
    raise OSError(errno.ESTALE, "stale file handle")


def test_what_cannot_be_used_leaves_the_models_as_they_were_and_says_why(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, "tiny")
    manifest = write_tiny_model(tmp_path / "tiny")
    assert folder.now().problem is None
    (tmp_path / "half").mkdir()
    shutil.copytree(tmp_path / "tiny", tmp_path / "twin")
    twin = (tmp_path / "twin" / "manifest.toml").read_text()
    (tmp_path / "twin" / "manifest.toml").unlink()
    for file, content, reason in (
        ("default", "nobody", "no model 'nobody'"),
        ("twin/manifest.toml", twin, "two folders hold a model of this name"),
        ("half/manifest.toml", "[model", "cannot be read"),
    ):
        path = tmp_path / file
        path.write_text(content)
        now = folder.now()
        assert now.problem is not None
        assert reason in now.problem
        assert (now.default, now.offered["tiny"].sha256) == ("tiny", manifest.sha256)
        path.unlink()
        assert folder.now().problem is None


# ── networks in patches ───────────────────────────────────────────────────────────────────────────────────────────────

FOLDS = """
schema_version = 2
[model]
name = "folds"
version = "1"
licence = "Apache-2.0"
description = "two folds"
[[part]]
name = "patchy"
file = "first.onnx"
sha256 = "{first}"
input = {{ name = "patch", spacing_mm = [3.0, 2.0, 2.0], size_zyx = [4, 6, 8], padding_hu = -1000.0 }}
output = {{ name = "logits" }}
oar = [{{ name = "Brain", labels = [1] }}]
self_check = {{ expected_means = {means}, tolerance = 1e-5 }}
[part.patches]
axes = "SAR"
heads = "labels"
values = [0, 1]
normalisation = {{ scheme = "none" }}
resampling = {{ order = 3 }}
resampling_back = {{ order = 1 }}
fold = [{{ file = "second.onnx", sha256 = "{second}" }}]
[owners]
Brain = "patchy"
"""


def write_folds(folder: Path) -> ModelManifest:
    """Heads of 0, and of 0.01 or 0.03 times the density: the mean of both folds is 0.02."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for name, slope in (("first", 0.01), ("second", 0.03)):
        shape = [1, 1, 4, 6, 8]
        weights = numpy_helper.from_array(np.array([0.0, slope], np.float32).reshape(2, 1, 1, 1, 1), "weights")
        graph = helper.make_graph(
            [helper.make_node("Conv", ["patch", "weights"], ["logits"])],
            name,
            [helper.make_tensor_value_info("patch", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, *shape[2:]])],
            [weights],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / f"{name}.onnx")
        hashes[name] = hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest()
    brain = float(np.mean(1 / (1 + np.exp(-0.02 * self_check_input(4, (6, 8)).astype(np.float64)))))
    (folder / "manifest.toml").write_text(FOLDS.format(**hashes, means=[1 - brain, brain]), encoding="utf-8")
    return read_manifest(folder)


def test_the_logits_of_folds_are_averaged_and_the_self_check_asks_for_the_mean_of_each_head(tmp_path: Path) -> None:
    model = load(write_folds(tmp_path), device="cpu")
    patch = np.full((1, 1, 4, 6, 8), 50.0, np.float32)
    answer = model.predictors["patchy"](patch)
    assert answer[0, :, 0, 0, 0].tolist() == pytest.approx([0.0, 1.0])


def test_every_fold_is_verified_and_in_the_parts_fingerprint(tmp_path: Path) -> None:
    manifest = write_folds(tmp_path)
    first, second = (file.sha256 for file in manifest.parts[0].files)
    assert manifest.parts[0].fingerprint == hashlib.sha256((first + second).encode()).hexdigest()
    with (tmp_path / "second.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestInvalid, match=r"sha256 of second\.onnx"):
        load(manifest, device="cpu")


def test_another_answer_of_a_head_is_refused(tmp_path: Path) -> None:
    manifest = write_folds(tmp_path)
    check = manifest.parts[0].self_check
    other = with_part(manifest, self_check=replace(check, expected_means=(0.5, 0.5)))
    with pytest.raises(ManifestInvalid, match="self-check for head"):
        load(other, device="cpu")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="no GPU here"))])
def test_patches_run_over_bound_buffers(device: str, tmp_path: Path) -> None:
    part = write_folds(tmp_path).parts[0]
    run = _BoundRun(Network("folds", part, device, 1)._session, part, device)
    for value in (50.0, -20.0):
        answer = run(np.full((1, 1, 4, 6, 8), value, np.float32))
        assert answer.shape == (1, 2, 4, 6, 8)
        assert np.allclose(answer[0, 1], 0.01 * value)
