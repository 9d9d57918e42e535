"""The commands of box networks.

Each is a thin layer over one module; `model_export.cli` adds them to its own.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_export.boxes.data import Sources
    from model_export.boxes.train import Trained

CONFIG: Final = Path(__file__).parents[1] / "configs" / "orbits.toml"
EDGES: Final = CONFIG.with_name("edges.toml")
FOLD: Final = Path(__file__).parents[1] / "checkpoints" / "whole-without-tuning"
"""A finder that has not seen the scans that judge; what ships has."""


def add_box_commands(commands: Any) -> None:
    """`transfer`, `box-prepare`, `box-train`, `box-relabel`, `box-judge`, `box-export`, `box-compose`, `judge-edges`."""
    transfer = commands.add_parser("transfer", help="carry the released contours over to scans that lack them")
    _add_sources(transfer)
    transfer.add_argument(
        "--model", type=Path, default=Path("models/oarlock-hn"), help="the model that finds the first landmarks"
    )
    transfer.add_argument("--out", type=Path, required=True, help="a folder for one file a scan; goes on where it stopped")
    transfer.add_argument("--near", choices=("orbits", "skull-base", "brainstem"), default="orbits", help="what is carried over")
    transfer.add_argument("--judge", action="store_true", help="only judge: each matched scan from the others' contours")
    transfer.set_defaults(run=_transfer)

    prepare = commands.add_parser("box-prepare", help="public data and transferred labels to a box network's training file")
    prepare.add_argument("--config", type=Path, default=CONFIG)
    _add_sources(prepare)
    prepare.add_argument("--transferred", type=Path, nargs="*", default=[], help="what `transfer` wrote")
    prepare.add_argument("--left-out", nargs="*", default=[], help="released cases that nothing may be learnt from")
    prepare.add_argument("--splits", nargs="*", default=["train", "validation", "test"], help="of OpenKBP")
    prepare.add_argument("--out", type=Path, required=True)
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("box-train", help="train a box network, or go on from the checkpoint in the folder")
    train.add_argument("--config", type=Path, default=CONFIG)
    train.add_argument("--data", type=Path, required=True, help="what box-prepare wrote")
    train.add_argument("--folder", type=Path, required=True, help="for checkpoints and curves")
    train.add_argument("--start", type=Path, help="a checkpoint whose weights a fresh run starts from")
    train.add_argument("--until", type=int, help="stop at this step of the schedule; run again, it goes on")
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--workers", type=int, default=0, help="threads that draw boxes ahead, for a GPU that would wait for them")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.set_defaults(run=_train)

    _add_relabel(commands)

    judge = commands.add_parser("box-judge", help="score checkpoints on matched scans that they never saw")
    judge.add_argument("--config", type=Path, default=CONFIG)
    judge.add_argument("--folder", type=Path, nargs="+", required=True, help="of the run; of several their mean draws")
    _add_sources(judge)
    judge.add_argument("--cases", nargs="+", required=True, help="released cases that were left out")
    judge.add_argument("--out", type=Path, help="all figures as JSON; of one run judged.json in its folder, if left out")
    judge.add_argument("--model", type=Path, default=FOLD, help="the coarse model that lays the box, and has not seen the cases")
    judge.set_defaults(run=_judge)

    export = commands.add_parser("box-export", help="write a box's ONNX file and its part of a manifest, and check both")
    export.add_argument("--config", type=Path, default=CONFIG)
    export.add_argument("--checkpoint", type=Path, nargs="+", required=True, help="several: the file answers with their mean")
    export.add_argument("--results", type=Path, nargs="*", default=[], help="what box-judge wrote, one file a fold")
    export.add_argument("--learnt-from-judges", action="store_true", help="the checkpoint went on from the fold's with all scans")
    export.add_argument("--data", type=Path, help="what it was trained on; its hash goes into the manifest")
    export.add_argument("--commit", default="", help="of this repository; goes into the manifest")
    export.add_argument("--out", type=Path, required=True, help="a folder")
    export.set_defaults(run=_export)

    _add_compose(commands)
    _add_judge_edges(commands)


def _add_compose(commands: Any) -> None:
    compose = commands.add_parser("box-compose", help="a whole-scan model and box networks to one model folder")
    compose.add_argument("--whole", type=Path, default=Path("models/oarlock-hn"), help="the model that finds; it stays as it is")
    compose.add_argument("--boxes", type=Path, nargs="+", required=True, help="what box-export wrote")
    compose.add_argument("--keep", nargs="*", default=[], help="organs that the whole-scan network draws all the same")
    compose.add_argument("--thresholds", nargs="*", default=[], metavar="ORGAN=P", help="other ones of the whole-scan network")
    compose.add_argument("--edges", type=Path, default=EDGES, help="the organs whose edges move to those of tissue")
    compose.add_argument("--release", required=True, help="the composed model's version")
    compose.add_argument("--out", type=Path, required=True, help="another folder")
    compose.set_defaults(run=_compose)


def _add_judge_edges(commands: Any) -> None:
    edges = commands.add_parser("judge-edges", help="what edges that tissue draws are worth on the matched scans")
    edges.add_argument("--edges", type=Path, default=EDGES)
    _add_sources(edges)
    edges.add_argument("--model", type=Path, default=FOLD, help="the model that draws on the whole scan")
    edges.set_defaults(run=_judge_edges)


def _add_relabel(commands: Any) -> None:
    relabel = commands.add_parser("box-relabel", help="a second round of labels, by what a trained box network draws")
    relabel.add_argument("--config", type=Path, default=CONFIG)
    relabel.add_argument("--data", type=Path, required=True, help="what box-prepare wrote")
    relabel.add_argument("--checkpoint", type=Path, nargs="+", required=True, help="of networks that were trained on it")
    relabel.add_argument("--move", nargs="*", default=[], help="left organs whose transferred labels go where the first is drawn")
    relabel.add_argument("--add", nargs="*", default=[], help="left organs that scans without them get a label of")
    relabel.add_argument("--looks", type=int, default=1, choices=(1, 4), help="places of the box whose mean is drawn")
    relabel.add_argument("--out", type=Path, required=True, help="another training file")
    relabel.set_defaults(run=_relabel)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--openkbp", type=Path, required=True, help="clone of open-kbp, or a folder of SPLIT/pt_N.npz")
    parser.add_argument("--contours", type=Path, required=True, help="clone of tcia-ct-scan-dataset")
    parser.add_argument("--matched", type=Path, required=True, help="table of the scans that are in both")


def _transfer(options: argparse.Namespace) -> None:
    from model_export.transferred.judge import judge_transfer, to_table
    from model_export.transferred.make import transfer
    from model_export.transferred.neighbourhoods import NEIGHBOURHOODS

    near = NEIGHBOURHOODS[options.near]
    if options.judge:
        print(to_table(judge_transfer(options.openkbp, options.contours, options.matched, model=options.model, near=near)))
        return
    transfer(options.openkbp, options.contours, options.matched, model=options.model, out=options.out, near=near)


def _sources(options: argparse.Namespace) -> "Sources":
    from model_export.boxes.data import Sources

    folders = tuple(options.transferred)
    return Sources(options.openkbp, options.contours, options.matched, folders, tuple(options.left_out), tuple(options.splits))


def _prepare(options: argparse.Namespace) -> None:
    from model_export.boxes.config import read_box_run
    from model_export.boxes.data import count_box_labels, make_cases, write_box_cases
    from model_export.transferred.make import read_centres

    run = read_box_run(options.config)
    centres = {name: seen for folder in options.transferred for name, seen in read_centres(folder).items()}
    cases = make_cases(run.box, _sources(options), centres)
    write_box_cases(options.out, cases, {"box": run.box.name, "left_out": options.left_out})
    print(f"{len(cases)} scans")
    for organ, counts in count_box_labels(cases).items():
        print(f"{organ:16} " + ", ".join(f"{count} {source}" for source, count in counts.items()))


def _train(options: argparse.Namespace) -> None:
    import signal

    import torch

    from model_export.boxes.config import read_box_run
    from model_export.boxes.data import read_box_cases
    from model_export.boxes.train import CHECKPOINT, resume_box_training, start_box_training, train_boxes
    from model_export.train import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    run, checkpoint = read_box_run(options.config), options.folder / CHECKPOINT
    if checkpoint.is_file():
        training = resume_box_training(run, checkpoint, device=options.device)
    elif options.start:
        training = resume_box_training(run, options.start, device=options.device, afresh=True)
    else:
        training = start_box_training(run, device=options.device)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: asked.append(received))
    cases = read_box_cases(options.data)
    train_boxes(training, cases, options.folder, stop=lambda: bool(asked), until=options.until, workers=options.workers)


def _relabel(options: argparse.Namespace) -> None:
    import torch

    from model_export.boxes.config import read_box_run
    from model_export.boxes.data import box_data_hash, read_box_cases, write_box_cases
    from model_export.boxes.relabel import LOOKS, relabel
    from model_export.boxes.served import ServedBox
    from model_export.boxes.train import read_trained

    torch.set_num_threads(1)
    run = read_box_run(options.config)
    trained = [read_trained(path, run.box) for path in options.checkpoint]
    served = ServedBox([each.network for each in trained], run.box).eval()
    threshold = run.box.thresholds.get(options.move[0], 0.5) if options.move else 0.5
    cases = read_box_cases(options.data)
    looks = LOOKS[: options.looks]
    found = relabel(cases, run.box, served, moved=options.move, added=options.add, threshold=threshold, looks=looks)
    first = {"first_round": box_data_hash(options.data), "by_step": [each.step for each in trained], "looks": len(looks)}
    write_box_cases(options.out, found.cases, {"box": run.box.name, "moved": options.move, "added": options.add} | first)
    print("\n".join([*found.told, f"{len(found.cases)} of {len(cases)} scans"]))


def _judge(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    import torch

    from model_export.boxes.config import read_box_run
    from model_export.boxes.judge import judge, to_table
    from model_export.boxes.served import ServedBox
    from model_export.boxes.train import CHECKPOINT, read_trained
    from model_export.datasets.openkbp import find_patients
    from model_export.prepare import read_matches
    from model_export.progress import shown
    from model_export.transferred.coarse import CoarseModel
    from model_export.transferred.scans import read_scan

    torch.set_num_threads(1)
    run = read_box_run(options.config)
    trained = [read_trained(folder / CHECKPOINT, run.box) for folder in options.folder]
    served, coarse = ServedBox([each.network for each in trained], run.box).eval(), CoarseModel(options.model)
    matches = read_matches(options.matched)
    paths = [p for p in find_patients(options.openkbp) if p.stem in matches and matches[p.stem].case in options.cases]
    rows = []
    for path in shown(paths, "judge"):
        rows += judge(served, read_scan(path), matches[path.stem], options.contours, coarse=coarse, thresholds=run.box.thresholds)
    document = {"facts": _cost(trained), "organs": [asdict(row) for row in rows]}
    out = options.out or (options.folder[0] / "judged.json" if len(options.folder) == 1 else None)
    if out:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(to_table(rows))


def _judge_edges(options: argparse.Namespace) -> None:
    from model_export.datasets.openkbp import find_patients
    from model_export.edges import judge_edges, read_edges, to_table
    from model_export.prepare import read_matches
    from model_export.progress import shown
    from model_export.transferred.coarse import CoarseModel
    from model_export.transferred.scans import read_scan

    matches, edges, coarse = read_matches(options.matched), read_edges(options.edges), CoarseModel(options.model)
    paths = [path for path in find_patients(options.openkbp) if path.stem in matches]
    judged = (
        judge_edges(read_scan(path), matches[path.stem], options.contours, coarse=coarse, edges=edges)
        for path in shown(paths, "judge")
    )
    print(to_table([row for rows in judged for row in rows]))


def _export(options: argparse.Namespace) -> None:
    from model_export.boxes.config import read_box_run
    from model_export.boxes.data import box_data_hash
    from model_export.boxes.export import Facts, export_box
    from model_export.boxes.judge import read_judged, to_results
    from model_export.boxes.train import read_trained

    run = read_box_run(options.config)
    trained = [read_trained(path, run.box) for path in options.checkpoint]
    facts = _cost(trained) | {"config": options.config.name}
    if options.data:
        facts["data_sha256"] = box_data_hash(options.data)
    if options.commit:
        facts["commit"] = options.commit
    rows = [row for path in options.results for row in read_judged(path)]
    if rows:
        facts["judged_on"], facts["folds"] = sorted({row.case for row in rows}), len(options.results)
        facts["learnt_from_judges"] = options.learnt_from_judges
    agreement = export_box(
        [each.network for each in trained], run, options.out, Facts(run.box.thresholds, facts, to_results(rows))
    )
    print(f"{options.out}: probabilities within {agreement.probability:.1e}, {agreement.mask_share:.1e} of mask voxels differ")


def _cost(trained: "Sequence[Trained]") -> dict[str, Any]:
    """Of all networks of a box together."""
    cost: dict[str, Any] = {"networks": len(trained)} if len(trained) > 1 else {}
    cost["steps"] = sum(each.step for each in trained)
    return cost | {"cpu_hours": round(sum(each.cpu_s for each in trained) / 3600, 2)}


def _compose(options: argparse.Namespace) -> None:
    from model_export.boxes.compose import compose
    from model_export.edges import read_edges

    thresholds = {organ: float(p) for organ, p in (pair.split("=") for pair in options.thresholds)}
    manifest = compose(
        options.whole,
        options.boxes,
        options.out,
        version=options.release,
        kept=options.keep,
        thresholds=thresholds,
        edges=read_edges(options.edges),
    )
    print(f"{manifest.identity}: {', '.join(part.name for part in manifest.parts)}")
