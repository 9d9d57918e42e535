"""A model of several parts.

The whole-scan network that finds, and box networks that draw what is theirs.

The whole-scan model keeps its file and its channels; an organ that a box network draws better is owned by that one, and the
whole-scan network only finds it.
"""

import shutil
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_export.boxes.export import FINDER, RADIOGRAPHER, SCANS, to_toml
from oarlock.segmentation.manifest import MANIFEST_NAME, ModelManifest, read_manifest

KEPT: Final = ("input", "output", "oar", "self_check")
CARD: Final = "MODEL_CARD.md"
SECTION: Final = "## Parts"
PART_SUFFIX: Final = ".part.toml"


def compose(
    whole: Path,
    boxes: Sequence[Path],
    folder: Path,
    *,
    version: str,
    kept: Collection[str] = (),
    thresholds: Mapping[str, float] | None = None,
    edges: Mapping[str, Mapping[str, Any]] | None = None,
) -> ModelManifest:
    """Write the folder of a composed model.

    :param whole: the folder of a model of one part, which stays as it is, or of a composed one, whose boxes are left out.
    :param boxes: folders or ``NAME.part.toml`` files that `box-export` wrote.
    :param kept: organs that the whole-scan network draws although a box has a channel for them.
    :param thresholds: of the whole-scan network's organs, where they differ from its manifest's.
    :param edges: of the organs whose edges move to those of tissue, the tables of a manifest; None: those of ``whole``.
    :raises ValueError: if one of these organs is not the network's.
    """
    thresholds = thresholds or {}
    tables = tomllib.loads((whole / MANIFEST_NAME).read_text(encoding="utf-8"))
    parts = [_whole_part(tables)]
    owners = {oar["name"]: FINDER for oar in parts[0]["oar"]}
    if unknown := thresholds.keys() - owners:
        raise ValueError(f"the whole-scan network has no channel for {', '.join(sorted(unknown))}")
    given = {organ: {"threshold": threshold} for organ, threshold in thresholds.items()}
    parts[0]["oar"] = [oar | given.get(oar["name"], {}) for oar in parts[0]["oar"]]
    edges = tables.get("edges", {}) if edges is None else edges
    shares: dict[str, float] = {}
    folder.mkdir(parents=True, exist_ok=True)
    _copy(whole / parts[0]["file"], folder / parts[0]["file"])
    for path in [found for box in boxes for found in part_files(box)]:
        box_tables = tomllib.loads(path.read_text(encoding="utf-8"))
        (part,) = box_tables["part"]
        _copy(path.with_name(part["file"]), folder / part["file"])
        parts.append(part)
        owned = {oar["name"] for oar in part["oar"]} - set(kept)
        owners |= dict.fromkeys(sorted(owned), part["name"])
        shares = {organ: share for organ, share in shares.items() if organ not in owned}
        shares |= {organ: share for organ, share in box_tables.get("shares", {}).items() if organ in owned}
    model = {key: tables["model"][key] for key in ("name", "licence", "description")} | {"version": version}
    text = to_composed(model, parts, owners, tables.get("limits", {}), shares=shares, edges=edges)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    card = (whole / CARD).read_text(encoding="utf-8")
    (folder / CARD).write_text(to_composed_card(card, model, parts[1:], owners, shares, edges=edges), encoding="utf-8")
    return read_manifest(folder)


def part_files(box: Path) -> list[Path]:
    """The parts' texts in a folder, or the one that is named."""
    return sorted(box.glob(f"*{PART_SUFFIX}")) if box.is_dir() else [box]


def _whole_part(tables: Mapping[str, Any]) -> dict[str, Any]:
    for part in tables.get("part", []):
        if part["name"] == FINDER:
            return dict(part)
    part = {"name": FINDER, "file": tables["model"]["file"], "sha256": tables["model"]["sha256"]}
    return part | {key: tables[key] for key in (*KEPT, "training", "results") if key in tables}


def to_composed(
    model: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    owners: Mapping[str, str],
    limits: Mapping[str, Any],
    *,
    shares: Mapping[str, float] | None = None,
    edges: Mapping[str, Mapping[str, Any]] | None = None,
    by: str = "box-compose",
) -> str:
    """The manifest's text.

    :param by: the command that writes it.
    """
    lines = [f"# Written by `python -m model_export {by}`; the schema is docs/models.md.", "", "schema_version = 2"]
    lines += ["", "[model]", *(f"{key} = {to_toml(value)}" for key, value in model.items())]
    for part in parts:
        lines += ["", "[[part]]", *(f"{key} = {to_toml(value)}" for key, value in part.items() if key != "look")]
        if "look" in part:
            lines += ["", "[part.look]", *(f"{key} = {to_toml(value)}" for key, value in part["look"].items())]
    lines += ["", "[owners]", *(f"{organ} = {to_toml(owner)}" for organ, owner in owners.items())]
    if shares:
        lines += ["", "[shares]", *(f"{organ} = {to_toml(share)}" for organ, share in shares.items())]
    for organ, edge in (edges or {}).items():
        lines += ["", f"[edges.{organ}]", *(f"{key} = {to_toml(value)}" for key, value in edge.items())]
    lines += ["", "[limits]", *(f"{key} = {to_toml(value)}" for key, value in limits.items())]
    return "\n".join(lines) + "\n"


def to_composed_card(
    card: str,
    model: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    owners: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    edges: Collection[str] = (),
) -> str:
    """The whole-scan model's card with another version.

    At its end, what the box networks are worth on their organs.
    """
    _, _, rest = card.partition("\n")
    lines = [f"# {model['name']} {model['version']}", rest.partition(f"\n{SECTION}\n")[0].rstrip(), "", SECTION, ""]
    lines += [
        "What stands above is of the whole-scan network alone. These organs are drawn by networks of their own,",
        "at 1 mm in a box; a share is that of the box in a mean of its probabilities and the whole-scan network's.",
    ]
    for part in parts:
        training, results = dict(part.get("training", {})), part.get("results", {})
        judged_on, saw = training.pop("judged_on", []), training.pop("learnt_from_judges", False)
        folds = training.pop("folds", 1)
        lines += ["", f"**{part['name']}**: {', '.join(f'{key} {value}' for key, value in training.items())}.", ""]
        if judged_on:
            lines += [f"Judged on {', '.join(judged_on)}, {_unseen(folds)}. {_what_ships(folds, saw=saw)}.", ""]
        lines += ["| organ | threshold | share | DSC | scans | radiographer |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
        for oar in part["oar"]:
            name = oar["name"]
            if owners[name] == part["name"]:
                found = [results.get(f"{name}{of}", "") for of in ("", SCANS, RADIOGRAPHER)]
                lines.append(f"| {' | '.join(map(str, [name, oar['threshold'], shares.get(name, ''), *found]))} |")
    if edges:
        lines += ["", f"The edges of {', '.join(edges)} then move to those of their tissue (docs/models.md, `[edges]`);"]
        lines += ["the figures above are of the contours before that."]
    return "\n".join(lines) + "\n"


def _unseen(folds: int) -> str:
    return "which the network had not seen" if folds == 1 else f"each by one of {folds} networks that had not seen it"


def _what_ships(folds: int, *, saw: bool) -> str:
    network = "it" if folds == 1 else "one of them"
    if saw:
        return f"What ships went on from {network} and learnt from these scans too"
    return "What ships is that network" if folds == 1 else f"What ships is {network}"


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)
