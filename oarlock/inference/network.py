"""One part of a model in an ONNX Runtime session.

Its bytes are verified, and the session names the device that it truly got.

A CUDA context does not survive a fork, so a session is made in the process that uses it.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from oarlock.errors import DeviceOutOfMemory, InferenceFailed, ManifestInvalid
from oarlock.inference.onnx_file import NotWhole, check_is_whole
from oarlock.segmentation.manifest import Fold, Part, read_checked
from oarlock.segmentation.patches import head_probabilities, question
from oarlock.segmentation.slabs import Predictor, Volume

log = logging.getLogger(__name__)

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
CUDA_OPTIONS: Final[Mapping[str, str]] = {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
"""CUDA memory grows by what is needed, not by doubling, so that several processes can share a device.

TF32 stays off: with it 7 voxels in 10,000 of the masks differed from the CPU's, without it none, at 9 ms a scan.
"""

Providers = Sequence[str | tuple[str, Mapping[str, str]]]
"""What a session may run on, the first one first, each with its options."""

_GIVE_BACK: Final = ("memory.enable_memory_arena_shrinkage", "cpu:0")
"""Within a run memory is used again and again (an arena); after it what is free goes back to the system.

Without an arena the kernel gave fresh pages to every tensor: 1.5 million page faults and a quarter of a scan's CPU seconds. One
that is never shrunk keeps the peak of the largest slab for as long as the worker lives.
"""

LARGEST_SHARE: Final = 0.5
"""By how much of itself a mean of the self-check may be off, on whatever device and in half precision."""

NEXT_TO_NOTHING: Final = 1e-6
"""Means are written with seven decimals."""

_OUT_OF_MEMORY: Final = re.compile(r"out of memory|failed to allocate|bad.alloc|smaller than requested bytes", re.IGNORECASE)
_ERRORS_ONLY: Final = 3


class Network:
    """The predictor of one ONNX file of a part.

    Where CUDA runs out of memory, a slab or a patch runs on the CPU.

    :param model: name of the model that the part belongs to.
    :param file: which of the part's files; None for its first.
    :param device, threads, providers: see :func:`oarlock.inference.models.load`.
    :ivar provider: what the session truly runs on.
    :raises ManifestInvalid: if the file is another one, not whole, or has other inputs and outputs than the manifest says.
    :raises InferenceFailed: if the session cannot be made, or not on the device that was insisted on.
    """

    def __init__(
        self, model: str, part: Part, device: str, threads: int, file: Fold | None = None, *, providers: Providers | None = None
    ) -> None:
        self._model, self._part, self._threads, self._insists = model, part, threads, device == "cuda"
        self._file, self._checked = file or part.files[0], False
        self._session = self._new_session(providers or providers_of(device))
        self.provider: str = self._session.get_providers()[0]
        self.device = "cpu" if self.provider == CPU else "cuda"
        if self._insists and self.device != "cuda":
            raise InferenceFailed(reason="CUDA was insisted on (OARLOCK_DEVICE=cuda) and the session did not get it")
        self._run: Predictor = _BoundRun(self._session, part, "cuda") if self.device == "cuda" else self._plain(self._session)
        self._fallback: Predictor | None = None
        _check_signature(model, part, self._file, self._session)

    def __call__(self, hu: Volume) -> Volume:
        try:
            return _translating(self._run, hu, self.device)
        except DeviceOutOfMemory:
            if self.device == "cpu" or self._insists:
                raise
            log.warning("the device ran out of memory; the slab runs on the CPU")
        if self._fallback is None:
            self._fallback = self._plain(self._new_session([CPU]))
        return _translating(self._fallback, hu, "cpu")

    def _plain(self, session: Any) -> Predictor:
        output, name = self._part.output.name, self._part.input.name
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(*_GIVE_BACK)

        def run(hu: Volume) -> Volume:
            if not self._checked:
                return np.asarray(session.run([output], {name: hu}, options)[0], dtype=np.float32)
            fed = np.ascontiguousarray(hu)
            answer = np.empty((len(fed), self._part.channels, *_answer_shape(self._part, hu.shape[2:])), np.float32)
            binding = session.io_binding()
            binding.bind_cpu_input(name, fed)
            binding.bind_output(output, "cpu", 0, np.float32, answer.shape, answer.ctypes.data)
            session.run_with_iobinding(binding, options)
            return answer

        return run

    def _new_session(self, providers: Providers) -> Any:
        """A session over the bytes that were verified, and over nothing else."""
        content = read_checked(self._model, self._file)
        try:
            check_is_whole(content)
        except NotWhole as error:
            raise ManifestInvalid(model=self._model, reason=f"{self._file.path.name} cannot be used: {error}") from error
        return _session(content, providers, self._threads)

    def check_answer(self) -> None:
        """See :func:`check_answer`."""
        check_answer(self._model, self._part, self)
        self.trust_the_shape()

    def trust_the_shape(self) -> None:
        """From now on the CPU's answers lie in memory of their own.

        Their shape is known once the self-check is passed. One within the arena would keep a region of it, hundreds of megabytes,
        from going back to the system.
        """
        self._checked = True


class Folds:
    """The predictor of a part of several ONNX files.

    The mean of what they answer.
    """

    def __init__(self, model: str, part: Part, device: str, threads: int, *, providers: Providers | None = None) -> None:
        self._model, self._part = model, part
        self.each = [Network(model, part, device, threads, file, providers=providers) for file in part.files]
        self.provider = next((one.provider for one in self.each if one.provider == CPU), self.each[0].provider)
        self.device = "cuda" if all(network.device == "cuda" for network in self.each) else "cpu"

    def __call__(self, hu: Volume) -> Volume:
        total = self.each[0](hu)
        for network in self.each[1:]:
            total = total + network(hu)
        return np.asarray(total / np.float32(len(self.each)), np.float32)

    def check_answer(self) -> None:
        """See :func:`check_answer`."""
        check_answer(self._model, self._part, self)
        for network in self.each:
            network.trust_the_shape()


def check_answer(model: str, part: Part, predictor: Predictor) -> None:
    """Ask a part the question of its self-check.

    Shape, range and mean of every channel are compared. A mean may be off by the manifest's tolerance, and by no more than
    ``LARGEST_SHARE`` of what it should be: a lens is a ten-thousandth of a picture, so that a network that draws none would pass
    any tolerance.

    :raises ManifestInvalid: if the answer is another one than the manifest's.
    """
    check = part.self_check
    answer = predictor(question(part))
    expected_shape = (1, part.channels, *part.output.shape((check.slices, *check.size_yx), part.input.context_slices))
    if answer.shape[:2] != expected_shape[:2] or (part.patches is None and answer.shape != expected_shape):
        raise _other_answer(model, part, f"with the shape {answer.shape} and not {expected_shape}")
    answer = answer if part.patches is None else head_probabilities(answer, part.patches)
    if not (np.isfinite(answer).all() and answer.min() >= 0.0 and answer.max() <= 1.0):
        raise _other_answer(model, part, "with what are not probabilities")
    found: npt.NDArray[np.float64] = answer.mean(axis=(0, 2, 3, 4), dtype=np.float64)
    expected = np.array(check.expected_means)
    allowed = np.minimum(check.tolerance, LARGEST_SHARE * expected + NEXT_TO_NOTHING)
    worst = int(np.argmax(np.abs(found - expected) / allowed))
    if abs(found[worst] - expected[worst]) > allowed[worst]:
        difference = f"{found[worst]:.6f} and not {check.expected_means[worst]:.6f}"
        channel = part.oars[worst] if part.patches is None else f"head {worst}"
        raise _other_answer(model, part, f"for {channel} with {difference}")


def _other_answer(model: str, part: Part, how: str) -> ManifestInvalid:
    return ManifestInvalid(model=model, reason=f"{part.path.name} answers the self-check {how}")


class _BoundRun:
    """Runs over buffers on the device that are made once, for slabs of one shape (I/O binding).

    Every new shape makes cuDNN choose its kernels anew, and every new buffer costs more than a slab's computing. So the buffers
    stay, a shorter slab (the last one) is filled up with padding, and what was predicted from padding alone is cut off.
    """

    def __init__(self, session: Any, part: Part, device: str) -> None:
        self._session, self._part, self._device = session, part, device
        self._shape: tuple[int, ...] = ()

    def __call__(self, hu: Volume) -> Volume:
        if not self._holds(hu.shape):
            self._make_buffers(hu.shape)
        missing = self._shape[2] - hu.shape[2]  # never of a box that is seen as a whole: its size is fixed
        padding = ((0, 0), (0, 0), (0, missing), (0, 0), (0, 0))
        full = np.pad(hu, padding, constant_values=np.float32(self._part.input.padding_hu)) if missing else hu
        self._input.update_inplace(np.ascontiguousarray(full))
        self._session.run_with_iobinding(self._binding)
        answer: Volume = self._output.numpy()
        return answer[:, :, : answer.shape[2] - missing]

    def _holds(self, shape: tuple[int, ...]) -> bool:
        return bool(self._shape) and shape[:2] + shape[3:] == self._shape[:2] + self._shape[3:] and shape[2] <= self._shape[2]

    def _make_buffers(self, shape: tuple[int, int, int, int, int]) -> None:
        answer = (shape[0], self._part.channels, *_answer_shape(self._part, shape[2:]))
        self._shape = ()  # were there too little memory for the new ones, the old ones are gone all the same
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._input, self._output = (make(list(sizes), np.float32, self._device, 0) for sizes in (shape, answer))
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._part.input.name, self._input)
        self._binding.bind_ortvalue_output(self._part.output.name, self._output)
        self._shape = shape


def _answer_shape(part: Part, fed: tuple[int, int, int]) -> tuple[int, int, int]:
    return fed if part.patches is not None else part.output.shape(fed, part.input.context_slices)


def _translating(run: Predictor, hu: Volume, device: str) -> Volume:
    try:
        return run(hu)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
        raise _translated(error, device) from error


def providers_of(device: str) -> Providers:
    """What a session may run on where a device is asked for."""
    if device == "cpu":
        return [CPU]
    cuda = (CUDA, CUDA_OPTIONS)
    if device == "cuda":
        return [cuda]
    return [cuda, CPU] if is_there(CUDA) else [CPU]


def is_there(provider: str) -> bool:
    """Whether a provider seems to be there.

    Asking for one without a device only fills the log with errors of the loader.
    """
    return provider in onnxruntime.get_available_providers() and (provider == CPU or Path("/dev/nvidiactl").exists())


def _session(content: bytes, providers: Providers, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn the machine's cores
    device = "cpu" if list(providers) == [CPU] else "cuda"
    if device == "cuda":
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where the extra `cuda` put them
    given = [one if isinstance(one, str) else (one[0], dict(one[1])) for one in providers]
    try:
        return onnxruntime.InferenceSession(content, options, providers=given)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
        raise _translated(error, device) from error


def _translated(error: Exception, device: str) -> DeviceOutOfMemory | InferenceFailed:
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return DeviceOutOfMemory(device=device)
    return InferenceFailed(reason=f"ONNX Runtime refused it on {device} ({type(error).__name__})")


def _check_signature(model: str, part: Part, file: Fold, session: Any) -> None:
    for kind, name, nodes in (
        ("input", part.input.name, session.get_inputs()),
        ("output", part.output.name, session.get_outputs()),
    ):
        node = next((node for node in nodes if node.name == name), None)
        if node is None:
            raise ManifestInvalid(model=model, reason=f"[{kind}] name is not an {kind} of {file.path.name}")
        if node.type != "tensor(float)" or len(node.shape) != 5:
            reason = f"the {kind} of {file.path.name} is not a float32 tensor of five dimensions"
            raise ManifestInvalid(model=model, reason=reason)
