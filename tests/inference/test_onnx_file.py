"""A model is its bytes: what lies elsewhere is refused, and what was hashed is what runs."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from oarlock.errors import ManifestInvalid
from oarlock.inference.models import load
from oarlock.inference.network import Network
from oarlock.inference.onnx_file import NotWhole, check_is_whole
from oarlock.segmentation.manifest import MANIFEST_NAME, read_manifest
from tests.inference.tiny_parts import write_parts
from tests.worker.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    return tensor


def graph(*tensors: TensorProto, nodes: list[onnx.NodeProto] | None = None) -> onnx.GraphProto:
    return helper.make_graph(nodes or [helper.make_node("Identity", ["x"], ["y"])], "g", [], [], list(tensors))


def in_attribute() -> onnx.GraphProto:
    return graph(nodes=[helper.make_node("Constant", [], ["y"], value=external("w.bin"))])


def in_subgraph() -> onnx.GraphProto:
    return graph(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=graph(external("w.bin")), else_branch=graph())])


def in_sparse() -> onnx.GraphProto:
    made = graph()
    made.sparse_initializer.add().values.CopyFrom(external("../w.bin"))
    return made


def of(made: onnx.GraphProto) -> bytes:
    return helper.make_model(made).SerializeToString()


def in_function() -> bytes:
    model = helper.make_model(graph())
    model.functions.add(name="f").node.append(helper.make_node("Constant", [], ["y"], value=external("/etc/passwd")))
    return model.SerializeToString()


def in_training() -> bytes:
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(external("w.bin")))
    return model.SerializeToString()


@pytest.mark.parametrize(
    "content",
    [of(graph(external("w.bin"))), of(in_attribute()), of(in_subgraph()), of(in_sparse()), in_function(), in_training()],
    ids=["initializer", "attribute", "subgraph", "sparse", "function", "training"],
)
def test_values_in_another_file_are_refused_wherever_a_tensor_may_stand(content: bytes) -> None:
    with pytest.raises(NotWhole, match="external data"):
        check_is_whole(content)


def test_a_whole_model_passes() -> None:
    check_is_whole(of(graph(numpy_helper.from_array(np.ones(4, np.float32), "w"))))
    for path in sorted((ROOT / "models").glob("*/*.onnx")):
        check_is_whole(path.read_bytes())


@pytest.mark.parametrize("content", [b"not ONNX", b"\x08", b"\x3a\xff\x01", b"\x3b\x3c", b"\x3a" + b"\xff" * 11, b"0000ORTM0000"])
def test_what_is_not_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(NotWhole):
        check_is_whole(content)


def test_a_cut_file_is_refused_at_every_length() -> None:
    whole = of(graph(numpy_helper.from_array(np.ones(4, np.float32), "w"), nodes=in_attribute().node))
    for length in range(1, len(whole)):
        try:
            check_is_whole(whole[:length])
        except NotWhole:
            continue


def test_a_model_with_external_data_is_not_loaded(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    path = tmp_path / "tiny" / "model.onnx"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0, convert_attribute=False)
    manifest = tmp_path / "tiny" / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(ManifestInvalid, match=r"model\.onnx cannot be used: it keeps values in another file"):
        load(read_manifest(tmp_path / "tiny"), device="cpu")


def test_the_bytes_that_were_hashed_are_those_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is exchanged after it was read changes nothing: it is read once."""
    manifest = write_tiny_model(tmp_path / "tiny")
    part = manifest.parts[0]
    content, reads = part.path.read_bytes(), []

    def read_once(path: Path) -> bytes:
        reads.append(path)
        return content if len(reads) == 1 else b"another file"

    monkeypatch.setattr(Path, "read_bytes", read_once)
    part.path.write_bytes(b"another file")
    Network("tiny", part, "cpu", 1).check_answer()
    assert reads == [part.path]


def test_each_part_of_a_composed_model_is_verified(tmp_path: Path) -> None:
    manifest = write_parts(tmp_path / "parts")
    assert set(load(manifest, device="cpu").predictors) == {"whole", "fine"}
    with (tmp_path / "parts" / "fine.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestInvalid, match=r"the sha256 of fine\.onnx"):
        load(manifest, device="cpu")
