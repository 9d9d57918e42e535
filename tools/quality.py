"""The README's table of how well each organ is drawn.

python -m tools.quality

It is made from the model card's table of results: scans with an expert's contours, the shipped model beside a second human.
"""

import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from statistics import fmean
from typing import Final

from oarlock.organs.catalogue import OARS
from tools import marked

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "README.md"
CARD: Final = ROOT / "models" / "oarlock-hn" / "MODEL_CARD.md"

WHOLE: Final = {"OAR", "DSC mean", "n", "radiographer"}
"""Columns of the card's table of the whole-scan network; ``radiographer`` beside DSC is the second human's."""

PART: Final = {"organ", "threshold", "share", "DSC", "scans"}
"""Columns of the card's tables of organs that a part of the model draws; its DSC, scans and radiographer stand for the others."""

Row = dict[str, str]


def table() -> str:
    """Organs by falling volumetric DSC.

    Left and right of a pair are one row.

    :raises LookupError: if the card has no such table, or lacks an organ.
    """
    found: dict[str, list[Row]] = {}
    lines = CARD.read_text(encoding="utf-8").splitlines()
    of_parts = {row["organ"]: {"DSC mean": row["DSC"], "n": row["scans"]} | _human(row) for row in _rows(lines, PART)}
    for row in _rows(lines, WHOLE):
        if row["radiographer"]:
            found.setdefault(_pair(row["OAR"]), []).append(row | of_parts.get(row["OAR"], {}))
    missing = {_pair(oar.name) for oar in OARS} - set(found)
    if missing:
        msg = f"the model card has no result beside a radiographer's for {', '.join(sorted(missing))}"
        raise LookupError(msg)
    organs = sorted(found, key=lambda organ: -_mean(found[organ], "DSC mean"))
    written = ["| organ | Oarlock | second human | scans |", "| --- | ---: | ---: | ---: |"]
    for organ in organs:
        ours, theirs = (_mean(found[organ], column) for column in ("DSC mean", "radiographer"))
        written.append(f"| {organ} | {ours:.2f} | {theirs:.2f} | {max(int(row['n']) for row in found[organ])} |")
    return "\n".join(written)


def _human(row: Row) -> dict[str, str]:
    return {"radiographer": row["radiographer"]} if row["radiographer"] else {}


def _pair(name: str) -> str:
    """``Parotid`` for ``Parotid_L``."""
    return name.removesuffix("_L").removesuffix("_R")


def _mean(rows: Sequence[Row], column: str) -> float:
    return fmean(float(row[column]) for row in rows)


def _rows(lines: Sequence[str], wanted: Set[str]) -> Iterator[Row]:
    """The rows of the tables with the wanted columns; of two columns of one name, the first."""
    header: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if set(cells) >= wanted:
            header = cells
        elif not cells:
            header = []
        elif header and not cells[0].startswith("-"):
            yield dict(reversed(list(zip(header, cells, strict=True))))


def main() -> int:
    marked.write(PAGE, "quality", table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
