"""From scored cases to organs, with proposed action levels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from oarlock.commissioning.statistics import FEWEST, Statistics, paired, statistics_of
from oarlock.organs.catalogue import OARS

METRICS: Final = {"surface_dsc": True, "volumetric_dsc": True, "hausdorff_95_mm": False, "added_path_length_mm": False}
"""Which of them are shares."""

LEVELS: Final = ("surface_dsc", "hausdorff_95_mm")
"""Of which action levels are proposed."""

_TOLERANCES: Final = ("tolerance_mm", "tolerance_rounded_mm")
"""What two scores must have in common if they are subtracted."""

Case = Mapping[str, Any]
"""What is kept of one case: ``key``, ``scanner``, ``oars`` (rows of a QA report), ``verdicts``, ``pictures``."""


def summarise_cases(cases: Sequence[Case], earlier: Sequence[Case] = ()) -> list[dict[str, Any]]:
    """One entry for each organ that a reference drew.

    They are in the catalogue's order.

    :param earlier: the same patients by another model or version, with which ours is compared in pairs: those that both drew
        and that were scored with the same tolerance.
    """
    return [entry for oar in OARS if (entry := _organ(oar.name, cases, earlier)) is not None]


def _organ(oar: str, cases: Sequence[Case], earlier: Sequence[Case]) -> dict[str, Any] | None:
    rows = {case["key"]: row for case in cases for row in case["oars"] if row["oar"] == oar}
    compared = [row for row in rows.values() if row["presence"] == "both"]
    missed = _missed(rows, rows)
    if not compared and not missed:
        return None
    found = {name: statistics_of(_defined(compared, name), is_share=share) for name, share in METRICS.items()}
    before = {case["key"]: row for case in earlier for row in case["oars"] if row["oar"] == oar}
    alike = [key for key, row in rows.items() if key in before and all(row[name] == before[key][name] for name in _TOLERANCES)]
    both = [key for key in alike if _has(rows[key]) and _has(before[key])]
    change = paired([rows[key]["surface_dsc"] for key in both], [before[key]["surface_dsc"] for key in both])
    return {
        "oar": oar,
        "n": len(compared),
        "missed": missed,
        "red": sum(case["verdicts"].get(oar) == "red" for case in cases),
        **{name: _json(one) for name, one in found.items()},
        "surface_dsc_scores": _defined(compared, "surface_dsc"),
        "surface_dsc_by_scanner": _by_scanner(cases, rows),
        "action_levels": _levels(found),
        "change": _json(change),
        "missed_by": {"ours": _missed(rows, alike), "theirs": _missed(before, alike)} if alike else None,
    }


def _by_scanner(cases: Sequence[Case], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """The same scores by the scanner that the CT came from: charts are drawn for each."""
    found: dict[str, list[float]] = {}
    for case in cases:
        row = rows.get(case["key"])
        if row is not None and row["presence"] == "both" and _has(row):
            found.setdefault(case["scanner"], []).append(row["surface_dsc"])
    return found


def _levels(found: Mapping[str, Statistics | None]) -> dict[str, float]:
    """Levels that 95 % of such patients keep, rounded to the lenient side."""
    limits = {name: one.limit for name in LEVELS if (one := found[name]) is not None and one.limit is not None}
    return {
        name: math.floor(limit * 100) / 100 if METRICS[name] else math.ceil(limit * 10) / 10 for name, limit in limits.items()
    }


def scored(organ: Mapping[str, Any]) -> int:
    """How many patients stand behind the surface DSC of an organ's entry."""
    return int((organ["surface_dsc"] or {}).get("n", 0))


def _missed(rows: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> int:
    return sum(rows[key]["presence"] == "reference_only" for key in keys)


def _has(row: Mapping[str, Any]) -> bool:
    return row["surface_dsc"] is not None


def _defined(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _json(found: Statistics | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(found).items()}


def to_site_tables(organs: Sequence[Mapping[str, Any]], title: str) -> str:
    """The proposed action levels as tables of a site's file (``docs/qa.md``).

    :param title: what they come from, for a comment.
    """
    lines = [f"# Proposed by oarlock commission, from {title}. A physicist decides."]
    for organ in organs:
        if organ["action_levels"]:
            lines += ["", f"[action_levels.{organ['oar']}]  # {scored(organ)} patients"]
            lines += [f"{name} = {level}" for name, level in organ["action_levels"].items()]
        else:
            lines += ["", f"# {organ['oar']}: {scored(organ)} patients, too few for a limit (at least {FEWEST})"]
    return "\n".join(lines) + "\n"
