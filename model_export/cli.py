"""The commands, each a thin layer over one module."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from model_export.boxes.commands import add_box_commands
from model_export.imports.commands import add_import_commands

if TYPE_CHECKING:
    from model_export.progress import Kept

CONFIG: Final = Path(__file__).parent / "configs" / "hn_4mm.toml"
THRESHOLDS: Final = "thresholds.json"

Commands: TypeAlias = Any  # what `add_subparsers` gives; argparse keeps the type to itself


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

    for add in (_add_training, _add_judging, _add_writing, add_box_commands, add_import_commands):
        add(commands)
    return parser


def _add_training(commands: Commands) -> None:
    prepare = commands.add_parser("prepare", help="public data sets to one compact training file")
    prepare.add_argument("--openkbp", type=Path, required=True, help="clone of open-kbp, or a folder of SPLIT/pt_N.npz")
    prepare.add_argument("--contours", type=Path, required=True, help="clone of tcia-ct-scan-dataset")
    prepare.add_argument("--matched", type=Path, required=True, help="table of the scans that are in both")
    prepare.add_argument("--lower-brain", type=Path, help="what `transfer --near skull-base` wrote")
    prepare.add_argument("--out", type=Path, required=True)
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train, or go on from the checkpoint in the folder")
    train.add_argument("--config", type=Path, default=CONFIG)
    train.add_argument("--data", type=Path, required=True, help="what prepare wrote")
    train.add_argument("--folder", type=Path, required=True, help="for checkpoints and curves")
    train.add_argument("--start", type=Path, help="a model folder whose weights a fresh run starts from")
    train.add_argument("--hours", type=float, help="length of the schedule in hours of training, instead of in steps")
    train.add_argument("--all", action="store_true", help="train on the tuning split too (a last run, once the design is fixed)")
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.set_defaults(run=_train)

    average = commands.add_parser("average", help="the mean of several runs that started from one model")
    average.add_argument("--config", type=Path, default=CONFIG)
    average.add_argument("--runs", type=Path, nargs="+", required=True, help="their folders")
    average.add_argument("--folder", type=Path, required=True, help="for the checkpoint of the mean")
    average.set_defaults(run=_average)


def _add_judging(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="score a checkpoint on the tuning split")
    evaluate.add_argument("--data", type=Path, required=True)
    evaluate.add_argument("--folder", type=Path, required=True, help="of the run; the results and curves are written there")
    evaluate.add_argument("--config", type=Path, default=CONFIG)
    evaluate.add_argument("--cases", type=int, help="only the first so many of each source (quick look)")
    evaluate.add_argument("--threads", type=int, default=1)
    evaluate.add_argument("--surface", action="store_true", help="surface DSC of the matched scans too (slower)")
    evaluate.set_defaults(run=_evaluate)

    calibrate = commands.add_parser(
        "calibrate", help="choose the thresholds on training scans: every matched one, and some of OpenKBP's"
    )
    calibrate.add_argument("--data", type=Path, required=True)
    calibrate.add_argument("--folder", type=Path, required=True, help="of the run; evaluate and export use what is written there")
    calibrate.add_argument("--config", type=Path, default=CONFIG)
    calibrate.add_argument("--openkbp", type=int, default=24, help="how many of OpenKBP's training scans to judge by")
    calibrate.set_defaults(run=_calibrate)

    judge = commands.add_parser("judge", help="score a model folder on public scans, as a job delivers its contours")
    judge.add_argument("--model", type=Path, required=True, help="a fold's: its parts have not seen the scans")
    judge.add_argument("--openkbp", type=Path, required=True, help="clone of open-kbp, or a folder of SPLIT/pt_N.npz")
    judge.add_argument("--contours", type=Path, required=True, help="clone of tcia-ct-scan-dataset")
    judge.add_argument("--matched", type=Path, required=True, help="table of the scans that are in both")
    judge.add_argument("--cases", nargs="*", default=[], help="released cases; without any, OpenKBP's validation")
    judge.add_argument("--wrong-too", action="store_true", help="the scans of the validation whose contours are wrong, too")
    judge.add_argument("--out", type=Path, help="all figures as JSON")
    judge.set_defaults(run=_judge)

    look = commands.add_parser("look", help="pictures of what a checkpoint draws on a DICOM series")
    look.add_argument("--folder", type=Path, required=True, help="of the run")
    look.add_argument("--config", type=Path, default=CONFIG)
    look.add_argument("--series", type=Path, required=True, help="a folder of DICOM files")
    look.add_argument("--out", type=Path, required=True, help="PNG")
    look.set_defaults(run=_look)


def _add_writing(commands: Commands) -> None:
    export = commands.add_parser("export", help="write the model folder of a checkpoint's averaged weights, and check it")
    export.add_argument("--folder", type=Path, required=True, help="of the run")
    export.add_argument("--judged", type=Path, help="of the run that it went on from with all scans: whose figures hold for it")
    export.add_argument("--config", type=Path, default=CONFIG)
    export.add_argument("--out", type=Path, default=Path("models/oarlock-hn"))
    export.add_argument("--data", type=Path, help="what it was trained on; its hash goes into the manifest")
    export.add_argument("--commit", default="", help="of this repository; goes into the manifest")
    export.add_argument("--picture", type=Path, help="what `look` made, for the card")
    export.add_argument("--robustness", type=Path, help="the table of tools.studies.robustness, for the card")
    export.add_argument("--release", default="0.1.0", help="the model's version")
    export.set_defaults(run=_export)

    halve = commands.add_parser(
        "halve", help="write the half-precision twin of a model folder, and measure it against its source"
    )
    halve.add_argument("--model", type=Path, default=Path("models/oarlock-hn"))
    halve.add_argument("--out", type=Path, required=True, help="a model folder of its own; its name is the twin's")
    halve.add_argument("--series", type=Path, help="a folder of DICOM files to compare on, instead of the self-check's picture")
    halve.set_defaults(run=_halve)

    anew = commands.add_parser("serve-anew", help="write a model folder's whole-scan network again as a config serves it")
    anew.add_argument("--model", type=Path, default=Path("models/oarlock-hn"), help="of several parts; it is changed")
    anew.add_argument("--config", type=Path, default=CONFIG)
    anew.add_argument("--release", required=True, help="the model's version")
    anew.set_defaults(run=_serve_anew)


def _prepare(options: argparse.Namespace) -> None:
    from model_export.prepare import count_labels, prepare
    from model_export.transferred.brain import LowerBrains

    more = LowerBrains(options.lower_brain) if options.lower_brain else None
    cases = prepare(options.openkbp, options.contours, options.matched, options.out, more)
    print(f"{'OAR':16} {'training':>8} {'tuning':>8}")
    for name, training, tuning in count_labels(cases):
        print(f"{name:16} {training:8d} {tuning:8d}")


def _train(options: argparse.Namespace) -> None:
    import signal

    import torch

    from model_export.config import read_config
    from model_export.datasets.training_file import read_cases
    from model_export.start import start_from_model
    from model_export.train import CHECKPOINT, keep_freed_memory, resume_run, start_run, train

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    cases = read_cases(options.data, None if options.all else "train")
    checkpoint = options.folder / CHECKPOINT
    if checkpoint.is_file():
        run = resume_run(config, checkpoint, device=options.device)
    elif options.start:
        run = start_from_model(config, options.start, cases, device=options.device)
    else:
        run = start_run(config, device=options.device)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: asked.append(received))
    train(run, cases, options.folder, hours=options.hours, stop=lambda: bool(asked))


def _average(options: argparse.Namespace) -> None:
    from model_export.average import mean_of_runs
    from model_export.config import read_config
    from model_export.train import CHECKPOINT, resume_run, write_checkpoint

    config = read_config(options.config)
    mean = mean_of_runs([resume_run(config, folder / CHECKPOINT) for folder in options.runs], config)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(mean, options.folder / CHECKPOINT)
    print(f"{options.folder}: the mean of {len(options.runs)} runs, {mean.step} steps in {mean.elapsed_s / 3600:.2f} hours")


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from model_export.config import read_config
    from model_export.curves import draw_curves
    from model_export.datasets.training_file import read_cases
    from model_export.evaluate import evaluate, summarise, surface_dsc, to_table, write_results
    from model_export.sampling import cases_by_source
    from model_export.train import CHECKPOINT, CURVE, computes_in_bfloat16, resume_run

    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    cases = read_cases(options.data, "tuning")
    cases = [case for source in ("matched", "openkbp") for case in cases_by_source(cases, source)[: options.cases]]
    score = surface_dsc if options.surface else None
    thresholds = _thresholds(options.folder)
    bfloat16 = computes_in_bfloat16(config.training)
    kept = _kept(options, "evaluation", thresholds, options.surface, bfloat16)
    results = evaluate(run.average, config.grid, cases, bfloat16=bfloat16, surface_score=score, thresholds=thresholds, kept=kept)
    facts: dict[str, float | int | str] = {"step": run.step, "training_hours": round(run.elapsed_s / 3600, 3)}
    write_results(options.folder / f"evaluation-{run.step:06d}.json", results, facts)
    kept.forget()
    if (options.folder / CURVE).is_file():
        draw_curves(options.folder, options.folder / "curves.png")
    print(to_table(summarise(results)))


def _judge(options: argparse.Namespace) -> None:
    from model_export.datasets.openkbp import find_patients
    from model_export.evaluate import OrganResult, summarise, to_table, write_results
    from model_export.judge import WRONG_REFERENCES, judge, shown_matched, shown_openkbp
    from model_export.prepare import read_matches
    from model_export.progress import shown
    from model_export.transferred.scans import read_scan
    from oarlock.inference.models import load
    from oarlock.segmentation.manifest import read_manifest

    manifest, matches, rows = read_manifest(options.model), read_matches(options.matched), list[OrganResult]()
    by_case = {match.case: patient for patient, match in matches.items()}
    model, left_out = load(manifest), {*matches, *(() if options.wrong_too else WRONG_REFERENCES)}
    paths = find_patients(options.openkbp)
    for path in shown([path for path in paths if path.stem in {by_case[case] for case in options.cases}], "matched"):
        rows += judge(model, shown_matched(read_scan(path), matches[path.stem], options.contours))
    validation = [] if options.cases else [path for path in paths if path.parent.name.startswith("validation")]
    for path in shown([path for path in validation if path.stem not in left_out], "validation"):
        rows += judge(model, shown_openkbp(read_scan(path)))
    if options.out:
        write_results(options.out, rows, {"model": manifest.identity})
    print(to_table(summarise(rows)))


def _export(options: argparse.Namespace) -> None:
    import json

    from model_export.config import read_config
    from model_export.datasets.training_file import read_provenance
    from model_export.export import Seen, export_model
    from model_export.train import CHECKPOINT, resume_run

    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    judged = options.judged or options.folder
    evaluations = sorted(judged.glob("evaluation-*.json"))
    results = json.loads(evaluations[-1].read_text()) if evaluations else {}
    facts: dict[str, float | int | str] = {"steps": run.step, "hours": round(run.elapsed_s / 3600, 2)}
    facts |= {"config": options.config.name, **run.origin}
    if options.data:
        facts["data_sha256"] = read_provenance(options.data)["sha256_of_arrays"]
    if options.commit:
        facts["commit"] = options.commit
    if options.judged:
        facts["learnt_from_judges"] = True
    thresholds = _thresholds(judged)
    agreement = export_model(
        run.average,
        config,
        options.out,
        version=options.release,
        facts=facts,
        results=results,
        thresholds=thresholds,
        seen=Seen(options.picture, options.robustness),
    )
    print(f"{options.out}: probabilities within {agreement.probability:.1e}, {agreement.mask_share:.1e} of mask voxels differ")


def _halve(options: argparse.Namespace) -> None:
    from model_export.halve import halve
    from model_export.look import slabs_of_series
    from oarlock.segmentation.manifest import read_manifest

    slabs = slabs_of_series(options.series, read_manifest(options.model).parts[0].input) if options.series else None
    agreement = halve(options.model, options.out, slabs=slabs)
    megabytes = [(folder / "model.onnx").stat().st_size / 1e6 for folder in (options.model, options.out)]
    print(f"{megabytes[0]:.1f} MB to {megabytes[1]:.1f} MB: probabilities within {agreement.probability:.1e}, ", end="")
    print(f"{agreement.mask_share:.1e} of the drawn voxels differ")


def _serve_anew(options: argparse.Namespace) -> None:
    from model_export.anew import serve_anew
    from model_export.config import read_config

    agreement = serve_anew(options.model, read_config(options.config), version=options.release)
    print(f"{options.model}: within {agreement.probability:.1e} of torch, {agreement.mask_share:.1e} of mask voxels differ")


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
    from model_export.datasets.training_file import read_cases
    from model_export.evaluate import choose_thresholds
    from model_export.sampling import cases_by_source
    from model_export.train import CHECKPOINT, computes_in_bfloat16, resume_run

    torch.set_num_threads(1)
    config = read_config(options.config)
    run = resume_run(config, options.folder / CHECKPOINT)
    cases = read_cases(options.data, "train")
    openkbp = cases_by_source(cases, "openkbp")
    some = openkbp[:: max(1, len(openkbp) // options.openkbp)]
    cases, bfloat16 = cases_by_source(cases, "matched") + some, computes_in_bfloat16(config.training)
    kept = _kept(options, "calibration", bfloat16)
    chosen = choose_thresholds(run.average, config.grid, cases, bfloat16=bfloat16, kept=kept)
    (options.folder / THRESHOLDS).write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    kept.forget()
    for name, threshold in chosen.items():
        print(f"{name:16} {threshold}")


def _kept(options: argparse.Namespace, name: str, *settings: object) -> "Kept":
    """Where a command over many scans keeps what it has, so that it can be stopped and run again."""
    from model_export.progress import Kept, fingerprint
    from model_export.train import CHECKPOINT

    work = fingerprint(options.folder / CHECKPOINT, str(options.data.resolve()), *settings)
    return Kept(options.folder / f"{name}.part.jsonl", work)


def _thresholds(folder: Path) -> dict[str, float]:
    """What `calibrate` left in the folder of a run, if anything."""
    import json

    path = folder / THRESHOLDS
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
