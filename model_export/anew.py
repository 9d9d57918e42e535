"""The whole-scan network of a model folder served another way.

The weights stay; the graph around them is what :mod:`model_export.served` makes of them today, and answers with the channels that
the model makes something of.
"""

import hashlib
import tomllib
from pathlib import Path

from model_export.boxes.compose import CARD
from model_export.boxes.export import FINDER, to_toml
from model_export.config import Config
from model_export.datasets.training_file import CHANNEL
from model_export.export import (
    Agreement,
    ExportDisagrees,
    check_agreement,
    compare_with_torch,
    run_onnx,
    self_check_means,
    write_onnx,
)
from model_export.network import Network
from model_export.served import Served
from model_export.start import load_onnx
from oarlock.segmentation.manifest import MANIFEST_NAME, check_hash, read_manifest, self_check_input


def serve_anew(folder: Path, config: Config, *, version: str) -> Agreement:
    """Write the whole-scan network of a composed model again.

    Its file, and what the manifest says of it. An organ that the model makes nothing of loses its channel, and gets it
    back only by composing the model from an exported checkpoint again; the file keeps its weights.

    :raises NotOurs: if the file's weights do not fit the config's network.
    :raises ExportDisagrees: if the new file does not give what torch gives; the old one then stays.
    """
    manifest = read_manifest(folder)
    part = manifest.part_named(FINDER)
    network = Network(config.network)
    load_onnx(network, part.path)
    used = manifest.used_of(part)
    organs = [CHANNEL[oar.name] for oar in part.oars if oar in used]
    served, new = Served(network.eval(), organs).eval(), part.path.with_suffix(".new")
    write_onnx(served, new, config)
    agreement = compare_with_torch(served, new, config)
    try:
        check_agreement(agreement)
    except ExportDisagrees:
        new.unlink()
        raise
    answer = run_onnx(new, self_check_input(part.self_check.slices, part.self_check.size_yx))
    means = self_check_means(answer)
    text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    (whole,) = (table for table in tables["part"] if table["name"] == FINDER)
    answered = [table for table in whole["oar"] if CHANNEL[table["name"]] in organs]
    for old, now in (
        (whole["sha256"], hashlib.sha256(new.read_bytes()).hexdigest()),
        (to_toml(whole["self_check"]["expected_means"]), to_toml(means)),
        (to_toml(whole["oar"]), to_toml(answered)),
        (f"version = {to_toml(tables['model']['version'])}", f"version = {to_toml(version)}"),
    ):
        if text.count(old) != 1:
            raise ValueError(f"{MANIFEST_NAME}: {old[:40]} does not stand there once")
        text = text.replace(old, now)
    new.replace(part.path)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    _, _, rest = (folder / CARD).read_text(encoding="utf-8").partition("\n")
    (folder / CARD).write_text(f"# {tables['model']['name']} {version}\n{rest}", encoding="utf-8")
    check_hash(read_manifest(folder))
    return agreement
