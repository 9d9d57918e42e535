"""Several model folders as one model, each organ with one owner."""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_export.boxes.compose import KEPT, to_composed
from model_export.imports.nnunet import put_in_place
from model_export.imports.refusals import CannotImport
from oarlock.errors import OarlockError
from oarlock.organs.catalogue import OARS
from oarlock.segmentation.manifest import MANIFEST_NAME, ModelManifest, check_hash, read_manifest

_CARD: Final = "MODEL_CARD.md"


def join(models: Sequence[Path], folder: Path, owners: Mapping[str, str], *, version: str, licence: str) -> ModelManifest:
    """Write a model folder that holds the parts of others.

    :param owners: for organs that several of the models draw, the part that shall draw them.
    :raises CannotImport: if two parts have one name, an organ has several owners and none was chosen, or a model is not valid.
    """
    try:
        with put_in_place(folder) as written:
            _write(models, written, folder.name, owners, version=version, licence=licence)
    except OarlockError as error:
        raise CannotImport(str(error)) from error
    return read_manifest(folder)


def _write(models: Sequence[Path], folder: Path, name: str, owners: Mapping[str, str], *, version: str, licence: str) -> None:
    parts: list[dict[str, Any]] = []
    drawn: dict[str, list[str]] = {}
    limits: list[str] = []
    for model in models:
        manifest = read_manifest(model)
        check_hash(manifest)
        if manifest.shares or manifest.edges:
            raise CannotImport(f"{manifest.name} has [shares] or [edges]: joined without them it would draw otherwise")
        limits += [limit for limit in manifest.limits if limit not in limits]
        for oar, owner in manifest.owners.items():
            drawn.setdefault(oar.name, []).append(_part_name(model, manifest, owner))
        for part in _parts(model, manifest):
            if part["name"] in {other["name"] for other in parts}:
                raise CannotImport(f"two models have a part named {part['name']}: import one of them with another --part")
            parts.append(_moved(part, model, folder))
    told = {"name": name, "version": version, "licence": licence, "description": "parts of " + _names(models)}
    text = to_composed(told, parts, _owners(drawn, owners), {"not_for": limits}, by="join")
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    (folder / _CARD).write_text(_card(told, models), encoding="utf-8")
    read_manifest(folder)


def _part_name(model: Path, manifest: ModelManifest, owner: str) -> str:
    """A model of schema version 1 has one part without a name: it gets that of its folder."""
    schema = tomllib.loads((model / MANIFEST_NAME).read_text(encoding="utf-8")).get("schema_version", 1)
    return owner if schema == 2 else manifest.name.lower()[:16]


def _parts(model: Path, manifest: ModelManifest) -> list[dict[str, Any]]:
    """The tables of a model's parts, as its manifest has them."""
    tables = tomllib.loads((model / MANIFEST_NAME).read_text(encoding="utf-8"))
    if tables.get("schema_version", 1) == 2:
        results = tables.get("results", {})
        return [{**part, **({"results": results} if results and len(tables["part"]) == 1 else {})} for part in tables["part"]]
    part = {"name": _part_name(model, manifest, ""), "file": tables["model"]["file"], "sha256": tables["model"]["sha256"]}
    return [part | {key: tables[key] for key in (*KEPT, "training", "results") if key in tables}]


def _moved(part: Mapping[str, Any], model: Path, folder: Path) -> dict[str, Any]:
    """The part with its files copied, each named after the part so that none replaces another."""
    made = dict(part)
    files = [made]
    if "fold" in made.get("patches", {}):
        folds = [dict(fold) for fold in made["patches"]["fold"]]
        made["patches"] = {**made["patches"], "fold": folds}
        files += folds
    for file in files:
        name = file["file"] if file["file"].startswith(part["name"]) else f"{part['name']}-{file['file']}"
        shutil.copyfile(model / file["file"], folder / name)
        file["file"] = name
    return made


def _owners(drawn: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> dict[str, str]:
    """One owner for each organ, in the catalogue's order."""
    for organ, owner in chosen.items():
        if owner not in drawn.get(organ, ()):
            raise CannotImport(f"--owner {organ}={owner}: no such part draws {organ}")
    undecided = {organ: parts for organ, parts in drawn.items() if len(parts) > 1 and organ not in chosen}
    if undecided:
        organ, parts = next(iter(undecided.items()))
        raise CannotImport(f"{organ} is drawn by {' and '.join(parts)}: say which with --owner {organ}=PART")
    return {oar.name: chosen.get(oar.name, drawn[oar.name][0]) for oar in OARS if oar.name in drawn}


def _names(models: Sequence[Path]) -> str:
    return ", ".join(read_manifest(model).identity for model in models)


def _card(told: Mapping[str, Any], models: Sequence[Path]) -> str:
    cards = [(model / _CARD).read_text(encoding="utf-8") for model in models if (model / _CARD).is_file()]
    head = f"# {told['name']} {told['version']}\n\n{told['description']}. Licence: {told['licence']}.\n"
    return "\n".join([head, *(card.replace("\n# ", "\n## ").replace("# ", "## ", 1) for card in cards)])
