"""The commands `import` and `join`; `model_export.cli` adds them to its own."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_export.imports.nnunet import Imported, Wanted


def add_import_commands(commands: Any) -> None:
    """`import nnunet`, `import monai`, `join` and `compare`."""
    joining = commands.add_parser("join", help="several model folders as one model of several parts")
    joining.add_argument("models", type=Path, nargs="+", help="model folders, which stay as they are")
    joining.add_argument("--out", type=Path, required=True, help="the model folder to be written; its name is the model's")
    joining.add_argument(
        "--owner", nargs="*", default=[], metavar="ORGAN=PART", help="who draws an organ that several could draw"
    )
    joining.add_argument("--release", default="1", help="the model's version")
    joining.add_argument("--licence", required=True, help="of all of them together")
    joining.set_defaults(run=_join)
    comparing = commands.add_parser(
        "compare", help="two models on the same scans with contours: paired differences of each organ"
    )
    comparing.add_argument("models", type=Path, nargs=2, help="two model folders")
    comparing.add_argument("folder", type=Path, help="of folders, each with one CT series and RTSTRUCTs of it")
    comparing.add_argument("--threads", type=int, default=0, help="0 for all cores")
    comparing.set_defaults(run=_compare)

    importing = commands.add_parser("import", help="take over a model that others trained")
    kinds = importing.add_subparsers(required=True)
    nnunet = kinds.add_parser(
        "nnunet", help="an nnU-Net v2 results folder: plans.json, dataset.json, fold_*/checkpoint_final.pth"
    )
    nnunet.add_argument("results", type=Path)
    nnunet.add_argument("--orientation", help="of the training files, such as RAS or LPS: which way their voxels run")
    nnunet.add_argument("--folds", nargs="*", default=[], help="such as 0 1 or all; every fold that is there if left out")
    nnunet.add_argument("--step", type=float, default=0.5, help="from patch to patch, in patches")
    nnunet.add_argument("--no-mirror", action="store_true", help="leave out the mirror images that the checkpoint allows")
    _add_common(nnunet, "nnunet")
    nnunet.set_defaults(run=_nnunet)

    monai = kinds.add_parser("monai", help="a MONAI bundle: configs/inference.json, configs/metadata.json, models/model.pt")
    monai.add_argument("results", type=Path, metavar="bundle")
    monai.add_argument("--yes-evaluate", action="store_true", help="run the Python in the network's definition")
    _add_common(monai, "monai")
    monai.set_defaults(run=_monai)


def _add_common(parser: argparse.ArgumentParser, part: str) -> None:
    parser.add_argument("--oars", type=Path, required=True, help="a TOML table: which labels make which organ")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to be written; its name is the model's")
    parser.add_argument("--check", type=Path, required=True, metavar="SCAN", help="a DICOM series or an image file of a patient")
    parser.add_argument("--look", choices=["body", "scan"], default="body", help="what the network slides over")
    parser.add_argument("--no-compare", action="store_true", help="do not ask its own runtime (which must be installed)")
    parser.add_argument("--release", default="1", help="the model's version")
    parser.add_argument("--licence", default="not stated by whoever imported it")
    parser.add_argument("--part", default=part, help="name of the part in the manifest")


def _nnunet(options: argparse.Namespace) -> None:
    from model_export.imports.nnunet import import_nnunet

    more = {"orientation": options.orientation, "step": options.step, "mirror": not options.no_mirror, "folds": options.folds}
    _import(options, more, lambda wanted: import_nnunet(options.results, options.out, wanted))


def _monai(options: argparse.Namespace) -> None:
    from model_export.imports.monai import import_monai

    evaluate = options.yes_evaluate
    _import(options, {}, lambda wanted: import_monai(options.results, options.out, wanted, evaluate=evaluate))


def _import(options: argparse.Namespace, more: Mapping[str, Any], run: "Callable[[Wanted], Imported]") -> None:
    """Import, and say what was seen, or why nothing was written."""
    from model_export.imports.nnunet import Wanted
    from model_export.imports.refusals import CannotImport

    wanted = Wanted(
        organs=options.oars,
        check=options.check,
        version=options.release,
        licence=options.licence,
        part=options.part,
        look=options.look,
        compared=not options.no_compare,
        **more,
    )
    try:
        imported = run(wanted)
    except CannotImport as refusal:
        raise SystemExit(f"Nothing was written: {refusal}.") from refusal
    for line in imported.seen:
        print(line)
    print(f"left out: {', '.join(imported.left_out) or 'nothing'}")
    print(imported.comparison or "not compared with its own runtime (--no-compare)")
    print(f"{options.out}: {imported.manifest.identity}, {', '.join(oar.name for oar in imported.manifest.oars)}")


def _join(options: argparse.Namespace) -> None:
    from model_export.imports.join import join
    from model_export.imports.refusals import CannotImport

    owners = dict(choice.split("=", 1) for choice in options.owner if "=" in choice)
    try:
        manifest = join(options.models, options.out, owners, version=options.release, licence=options.licence)
    except CannotImport as refusal:
        raise SystemExit(f"Nothing was written: {refusal}.") from refusal
    for oar, owner in manifest.owners.items():
        print(f"{oar.name:16} {owner}")
    print(f"{options.out}: {manifest.identity}")


def _compare(options: argparse.Namespace) -> None:
    from model_export.compare import compare_models, to_table
    from oarlock.inference.models import load
    from oarlock.segmentation.manifest import read_manifest

    first, second = (load(read_manifest(folder), threads=options.threads) for folder in options.models)
    print(f"first: {first.manifest.identity}\nsecond: {second.manifest.identity}\n")
    print(to_table(list(compare_models(first, second, options.folder))))
