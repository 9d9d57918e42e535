"""A model that is ready to run: its ONNX file verified, in a session on the device that it truly got, and its answer checked.

A CUDA context does not survive a fork, so a session is made in the process that uses it.
"""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from oarlock.errors import DeviceOutOfMemory, InferenceFailed, ManifestInvalid
from oarlock.facts import ModelFacts
from oarlock.segmentation.manifest import ModelManifest, check_hash, self_check_input
from oarlock.segmentation.segment import Model
from oarlock.segmentation.slabs import Predictor, Volume

log = logging.getLogger(__name__)

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
_OUT_OF_MEMORY: Final = re.compile(r"out of memory|failed to allocate|bad.alloc|smaller than requested bytes", re.IGNORECASE)
_ERRORS_ONLY: Final = 3


def load(manifest: ModelManifest, *, device: str = "auto", threads: int = 0) -> Model:
    """Open a model and see that it is what its manifest says.

    :param device: ``auto`` (CUDA where the session really gets it, else CPU), ``cpu``, or ``cuda`` (that or nothing).
    :param threads: CPU threads; 0 for all cores.
    :raises ManifestInvalid: another file, other inputs or outputs, or another answer to the self-check than in the manifest.
    :raises InferenceFailed: the session cannot be made, or not on the device that was insisted on.
    """
    check_hash(manifest)
    network = _Network(manifest, device, threads)
    _check_answer(manifest, network)
    return Model(manifest, network, network.device)


class Models:
    """The models of this process, each loaded when it is first asked for and then kept.

    :param manifests: by name (:func:`oarlock.segmentation.manifest.read_manifests`).
    """

    def __init__(self, manifests: Mapping[str, ModelManifest], *, device: str = "auto", threads: int = 0) -> None:
        self.manifests = manifests
        self._load: Callable[[ModelManifest], Model] = lambda manifest: load(manifest, device=device, threads=threads)
        self._loaded: dict[str, Model] = {}
        self._lock = Lock()

    def __call__(self, facts: ModelFacts) -> Model:
        """The very model that a job was given to.

        :raises ManifestInvalid: if this worker has none of that name, or another version of it.
        """
        manifest = self.manifests.get(facts.name)
        if manifest is None:
            raise ManifestInvalid(model=facts.name, reason="this worker does not have it")
        if manifest.sha256 != facts.sha256:
            reason = f"the job was given to {facts.sha256[:12]}… and this worker has {manifest.sha256[:12]}…"
            raise ManifestInvalid(model=facts.name, reason=reason)
        return self.named(facts.name)

    def named(self, name: str) -> Model:
        """A model by its name, loaded."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self.manifests[name])
            return self._loaded[name]


class _Network:
    """The predictor: runs one slab after the other; where CUDA runs out of memory, that slab runs on the CPU."""

    def __init__(self, manifest: ModelManifest, device: str, threads: int) -> None:
        self._manifest, self._threads, self._insists = manifest, threads, device == "cuda"
        self._session = _session(manifest, _providers(device), threads)
        self.device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if self._insists and self.device != "cuda":
            raise InferenceFailed(reason="CUDA was insisted on (OARLOCK_DEVICE=cuda) and the session did not get it")
        self._run: Predictor = _BoundRun(self._session, manifest, "cuda") if self.device == "cuda" else self._plain(self._session)
        self._fallback: Predictor | None = None
        _check_signature(manifest, self._session)

    def __call__(self, hu: Volume) -> Volume:
        try:
            return _translating(self._run, hu, self.device)
        except DeviceOutOfMemory:
            if self.device == "cpu" or self._insists:
                raise
            log.warning("the device ran out of memory; the slab runs on the CPU")
        if self._fallback is None:
            self._fallback = self._plain(_session(self._manifest, [CPU], self._threads))
        return _translating(self._fallback, hu, "cpu")

    def _plain(self, session: Any) -> Predictor:
        outputs, name = [self._manifest.output.name], self._manifest.input.name
        return lambda hu: np.asarray(session.run(outputs, {name: hu})[0], dtype=np.float32)


class _BoundRun:
    """Runs over buffers on the device that are made once, for slabs of one shape (I/O binding).

    Every new shape makes cuDNN choose its kernels anew, and every new buffer costs more than a slab's computing. So the buffers
    stay, a shorter slab (the last one) is filled up with padding, and what was predicted from padding alone is cut off.
    """

    def __init__(self, session: Any, manifest: ModelManifest, device: str) -> None:
        self._session, self._manifest, self._device = session, manifest, device
        self._shape: tuple[int, ...] = ()

    def __call__(self, hu: Volume) -> Volume:
        if not self._holds(hu.shape):
            self._make_buffers(hu.shape)
        missing = self._shape[2] - hu.shape[2]
        padding = ((0, 0), (0, 0), (0, missing), (0, 0), (0, 0))
        full = np.pad(hu, padding, constant_values=np.float32(self._manifest.input.padding_hu)) if missing else hu
        self._input.update_inplace(np.ascontiguousarray(full))
        self._session.run_with_iobinding(self._binding)
        answer: Volume = self._output.numpy()
        return answer[:, :, : answer.shape[2] - missing]

    def _holds(self, shape: tuple[int, ...]) -> bool:
        return bool(self._shape) and shape[:2] + shape[3:] == self._shape[:2] + self._shape[3:] and shape[2] <= self._shape[2]

    def _make_buffers(self, shape: tuple[int, ...]) -> None:
        batch, _, slices, rows, columns = shape
        spec, upscale = self._manifest.input, self._manifest.output.upscale
        answer = (batch, len(self._manifest.oars), slices - spec.context_slices + 1, rows * upscale, columns * upscale)
        self._shape = ()  # were there too little memory for the new ones, the old ones are gone all the same
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._input, self._output = (make(list(sizes), np.float32, self._device, 0) for sizes in (shape, answer))
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(spec.name, self._input)
        self._binding.bind_ortvalue_output(self._manifest.output.name, self._output)
        self._shape = shape


def _translating(run: Predictor, hu: Volume, device: str) -> Volume:
    try:
        return run(hu)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
        raise _translated(error, device) from error


def _providers(device: str) -> list[str]:
    if device == "cpu":
        return [CPU]
    if device == "cuda":
        return [CUDA]
    # Asking for CUDA on a machine without a device only fills the log with errors of the loader.
    seems_there = CUDA in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()
    return [CUDA, CPU] if seems_there else [CPU]


def _session(manifest: ModelManifest, providers: list[str], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.enable_cpu_mem_arena = False  # an arena keeps the peak of the largest slab for as long as the worker lives
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn the machine's cores
    if CUDA in providers:
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where the extra `cuda` put them
    try:
        return onnxruntime.InferenceSession(manifest.path, options, providers=[_with_options(name) for name in providers])
    except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
        raise _translated(error, "cuda" if CUDA in providers else "cpu") from error


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """CUDA memory grows by what is needed, not by doubling, so that several processes can share a device.

    TF32 stays off: with it 7 voxels in 10,000 of the masks differed from the CPU's, without it none, at 9 ms a scan.
    """
    return (CUDA, {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}) if provider == CUDA else provider


def _translated(error: Exception, device: str) -> DeviceOutOfMemory | InferenceFailed:
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return DeviceOutOfMemory(device=device)
    return InferenceFailed(reason=f"ONNX Runtime refused it on {device} ({type(error).__name__})")


def _check_signature(manifest: ModelManifest, session: Any) -> None:
    for kind, name, nodes in (
        ("input", manifest.input.name, session.get_inputs()),
        ("output", manifest.output.name, session.get_outputs()),
    ):
        node = next((node for node in nodes if node.name == name), None)
        if node is None:
            raise ManifestInvalid(model=manifest.name, reason=f"[{kind}] name is not an {kind} of the ONNX file")
        if node.type != "tensor(float)" or len(node.shape) != 5:
            reason = f"the {kind} of the ONNX file is not a float32 tensor of five dimensions"
            raise ManifestInvalid(model=manifest.name, reason=reason)


def _check_answer(manifest: ModelManifest, network: Predictor) -> None:
    """Ask the self-check's question and compare shape, range and mean of every channel."""
    check = manifest.self_check
    answer = network(self_check_input(check.slices, check.size_yx))
    rows, columns = (n * manifest.output.upscale for n in check.size_yx)
    expected_shape = (1, len(manifest.oars), check.slices - manifest.input.context_slices + 1, rows, columns)
    if answer.shape != expected_shape:
        reason = f"the network answers the self-check with the shape {answer.shape} and not {expected_shape}"
        raise ManifestInvalid(model=manifest.name, reason=reason)
    if not (np.isfinite(answer).all() and answer.min() >= 0.0 and answer.max() <= 1.0):
        raise ManifestInvalid(model=manifest.name, reason="the network's answer to the self-check holds no probabilities")
    found: npt.NDArray[np.float64] = answer.mean(axis=(0, 2, 3, 4), dtype=np.float64)
    worst = int(np.argmax(np.abs(found - check.expected_means)))
    if abs(found[worst] - check.expected_means[worst]) > check.tolerance:
        reason = (
            f"the network answers the self-check for {manifest.oars[worst]} with {found[worst]:.6f} "
            f"and not {check.expected_means[worst]:.6f}"
        )
        raise ManifestInvalid(model=manifest.name, reason=reason)
