"""The commands, each a thin layer over one module."""

import argparse
import logging
from pathlib import Path
from typing import Final

CONFIG: Final = Path(__file__).parent / "configs" / "hn_4mm.toml"
THRESHOLDS: Final = "thresholds.json"


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``python -m model_export``."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.run(options)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m model_export", description=__doc__)
    commands = parser.add_subparsers(required=True)

    prepare = commands.add_parser("prepare", help="public data sets to one compact training file")
    prepare.add_argument("--openkbp", type=Path, required=True, help="clone of open-kbp, or a folder of SPLIT/pt_N.npz")
    prepare.add_argument("--contours", type=Path, required=True, help="clone of tcia-ct-scan-dataset")
    prepare.add_argument("--matched", type=Path, required=True, help="table of the scans that are in both")
    prepare.add_argument("--out", type=Path, required=True)
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train, or go on from the checkpoint in the folder")
    train.add_argument("--config", type=Path, default=CONFIG)
    train.add_argument("--data", type=Path, required=True, help="what prepare wrote")
    train.add_argument("--folder", type=Path, required=True, help="for checkpoints and curves")
    train.add_argument("--hours", type=float, help="length of the schedule in hours of training, instead of in steps")
    train.add_argument("--all", action="store_true", help="train on the tuning split too (a last run, once the design is fixed)")
    train.add_argument("--threads", type=int, default=1)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="score a checkpoint on the tuning split")
    evaluate.add_argument("--data", type=Path, required=True)
    evaluate.add_argument("--folder", type=Path, required=True, help="of the run; the results and curves are written there")
    evaluate.add_argument("--config", type=Path, default=CONFIG)
    evaluate.add_argument("--cases", type=int, help="only the first so many of each source (quick look)")
    evaluate.add_argument("--threads", type=int, default=1)
    evaluate.add_argument("--surface", action="store_true", help="surface DSC of the matched scans too (slower)")
    evaluate.set_defaults(run=_evaluate)

    calibrate = commands.add_parser(
        "calibrate", help="choose the thresholds of the OARs that only the matched training scans show"
    )
    calibrate.add_argument("--data", type=Path, required=True)
    calibrate.add_argument("--folder", type=Path, required=True, help="of the run; evaluate and export use what is written there")
    calibrate.add_argument("--config", type=Path, default=CONFIG)
    calibrate.set_defaults(run=_calibrate)

    look = commands.add_parser("look", help="pictures of what a checkpoint draws on a DICOM series")
    look.add_argument("--folder", type=Path, required=True, help="of the run")
    look.add_argument("--config", type=Path, default=CONFIG)
    look.add_argument("--series", type=Path, required=True, help="a folder of DICOM files")
    look.add_argument("--out", type=Path, required=True, help="PNG")
    look.set_defaults(run=_look)

    export = commands.add_parser("export", help="write the model folder of a checkpoint's averaged weights, and check it")
    export.add_argument("--folder", type=Path, required=True, help="of the run")
    export.add_argument("--config", type=Path, default=CONFIG)
    export.add_argument("--out", type=Path, default=Path("models/oarlock-hn"))
    export.add_argument("--data", type=Path, help="what it was trained on; its hash goes into the manifest")
    export.add_argument("--commit", default="", help="of this repository; goes into the manifest")
    export.add_argument("--release", default="0.1.0", help="the model's version")
    export.set_defaults(run=_export)
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from model_export.prepare import count_labels, prepare

    cases = prepare(options.openkbp, options.contours, options.matched, options.out)
    print(f"{'OAR':16} {'training':>8} {'tuning':>8}")
    for name, training, tuning in count_labels(cases):
        print(f"{name:16} {training:8d} {tuning:8d}")


def _train(options: argparse.Namespace) -> None:
    import signal

    import torch

    from model_export.config import read_config
    from model_export.datasets.training_file import read_cases
    from model_export.train import CHECKPOINT, resume_run, start_run, train

    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    cases = read_cases(options.data, None if options.all else "train")
    checkpoint = options.folder / CHECKPOINT
    run = resume_run(config, checkpoint) if checkpoint.is_file() else start_run(config)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: asked.append(received))
    train(run, cases, options.folder, hours=options.hours, stop=lambda: bool(asked))


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from model_export.config import read_config
    from model_export.curves import draw_curves
    from model_export.datasets.training_file import read_cases
    from model_export.evaluate import evaluate, summarise, surface_dsc, to_table, write_results
    from model_export.sampling import cases_by_source
    from model_export.train import CHECKPOINT, resume_run

    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    cases = read_cases(options.data, "tuning")
    cases = [case for source in ("matched", "openkbp") for case in cases_by_source(cases, source)[: options.cases]]
    score = surface_dsc if options.surface else None
    thresholds = _thresholds(options.folder)
    bfloat16 = config.training.bfloat16
    results = evaluate(run.average, config.grid, cases, bfloat16=bfloat16, surface_score=score, thresholds=thresholds)
    facts: dict[str, float | int | str] = {"step": run.step, "training_hours": round(run.elapsed_s / 3600, 3)}
    write_results(options.folder / f"evaluation-{run.step:06d}.json", results, facts)
    draw_curves(options.folder, options.folder / "curves.png")
    print(to_table(summarise(results)))


def _export(options: argparse.Namespace) -> None:
    import json

    from model_export.config import read_config
    from model_export.datasets.training_file import read_provenance
    from model_export.export import export_model
    from model_export.train import CHECKPOINT, resume_run

    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    evaluations = sorted(options.folder.glob("evaluation-*.json"))
    results = json.loads(evaluations[-1].read_text()) if evaluations else {}
    facts: dict[str, float | int | str] = {"steps": run.step, "hours": round(run.elapsed_s / 3600, 2)}
    facts |= {"threads": 1, "config": options.config.name}
    if options.data:
        facts["data_sha256"] = read_provenance(options.data)["sha256_of_arrays"]
    if options.commit:
        facts["commit"] = options.commit
    thresholds = _thresholds(options.folder)
    agreement = export_model(
        run.average, config, options.out, version=options.release, facts=facts, results=results, thresholds=thresholds
    )
    print(f"{options.out}: probabilities within {agreement.probability:.1e}, {agreement.mask_share:.1e} of mask voxels differ")


def _look(options: argparse.Namespace) -> None:
    import torch

    from model_export.config import read_config
    from model_export.look import look
    from model_export.train import CHECKPOINT, resume_run

    torch.set_num_threads(1)
    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    thresholds = _thresholds(options.folder)
    for name, volume in look(run.average, config.grid, options.series, options.out, thresholds).items():
        print(f"{name:16} {volume:9.2f} cm3")


def _calibrate(options: argparse.Namespace) -> None:
    import json

    import torch

    from model_export.config import read_config
    from model_export.datasets.openkbp import OAR_NAMES
    from model_export.datasets.training_file import read_cases
    from model_export.evaluate import choose_thresholds
    from model_export.sampling import cases_by_source
    from model_export.train import CHECKPOINT, resume_run

    torch.set_num_threads(1)
    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    cases = cases_by_source(read_cases(options.data, "train"), "matched")
    found = choose_thresholds(run.average, config.grid, cases, bfloat16=config.training.bfloat16)
    chosen = {name: threshold for name, threshold in found.items() if name not in OAR_NAMES.values()}
    (options.folder / THRESHOLDS).write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    for name, threshold in chosen.items():
        print(f"{name:16} {threshold}")


def _thresholds(folder: Path) -> dict[str, float]:
    """What `calibrate` left in the folder of a run, if anything."""
    import json

    path = folder / THRESHOLDS
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
