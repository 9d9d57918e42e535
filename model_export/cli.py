"""The four commands, each a thin layer over one module."""

import argparse
import logging
from pathlib import Path
from typing import Final

CONFIG: Final = Path(__file__).parent / "configs" / "hn_4mm.toml"


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
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from model_export.prepare import count_labels, prepare

    cases = prepare(options.openkbp, options.contours, options.matched, options.out)
    print(f"{'OAR':16} {'training':>8} {'tuning':>8}")
    for name, training, tuning in count_labels(cases):
        print(f"{name:16} {training:8d} {tuning:8d}")


def _train(options: argparse.Namespace) -> None:
    import torch

    from model_export.config import read_config
    from model_export.datasets.training_file import read_cases
    from model_export.train import CHECKPOINT, resume_run, start_run, train

    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    cases = read_cases(options.data, None if options.all else "train")
    checkpoint = options.folder / CHECKPOINT
    run = resume_run(config, checkpoint) if checkpoint.is_file() else start_run(config)
    train(run, cases, options.folder, hours=options.hours)
