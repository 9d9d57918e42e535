"""What a report shows.

The QA report of a contour set, what it is of, and pictures of where to look first.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.valuerep import PersonName

from oarlock.ct.series import SeriesHeader
from oarlock.errors import StructureSetError
from oarlock.facts import Notice
from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.pictures.overlay import overlay, worst_slice
from oarlock.pictures.slice_archive import Rendering
from oarlock.pipeline.comparison import read_bounded
from oarlock.qa.site_file import Site

PICTURES: Final = 6
PIXELS: Final = 340


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose contours they are, as the RTSTRUCT names them.

    Empty where it does not.
    """

    patient_name: str = ""
    patient_id: str = ""
    study_date: str = ""
    structure_set: str = ""
    label: str = ""


_NAMED: Final = ("PatientName", "PatientID", "StudyDate", "StructureSetLabel", "SpecificCharacterSet")


def subject_of(rtstruct: bytes, label: str | None = None) -> Subject:
    """What an RTSTRUCT of ours says of its patient.

    :param label: what the sender calls the job.
    """
    found = pydicom.dcmread(BytesIO(rtstruct), specific_tags=list(_NAMED))
    name, date = found.get("PatientName"), str(found.get("StudyDate") or "")
    return Subject(
        patient_name=name.family_comma_given().rstrip(", ") if isinstance(name, PersonName) and name else "",
        patient_id=str(found.get("PatientID") or ""),
        study_date=f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date,
        structure_set=str(found.get("StructureSetLabel") or ""),
        label=label or "",
    )


def drawn_in(path: Path, header: SeriesHeader, site: Site) -> Mapping[OAR, Crop]:
    """What a reference drew, each organ in its box.

    Nothing if it cannot be read any more.
    """
    try:
        return read_bounded(path, header, site).crops()
    except StructureSetError:
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """Everything that a report is made of.

    :param report: a job's QA report (``docs/qa.md``).
    :param rendering: of the series with the contours.
    :param references: of each of the report's comparisons, what the reference drew; empty where it is not known.
    :param warnings: of the job.
    :param model_description, model_limits: what the model is, and what it is not for.
    """

    report: Mapping[str, Any]
    rendering: Rendering
    references: Sequence[Mapping[OAR, Crop]] = ()
    subject: Subject = field(default_factory=Subject)
    warnings: Sequence[Notice] = ()
    model_description: str = ""
    model_limits: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A close-up, and what it shows in a sentence.

    :ivar address: a ``data:`` URL.
    """

    title: str
    caption: str
    address: str
    has_reference: bool


def pictures_of(contents: Contents) -> list[Picture]:
    """The organs to look at first.

    Those that a comparison likes least, then those whose verdict is red.
    """
    found: dict[str, Picture] = {}
    for oar, place, caption, found_on in (*_scored(contents), *_red(contents)):
        if len(found) < PICTURES and oar.name not in found:
            reference = None if place is None else contents.references[place]
            z = worst_slice(contents.rendering, oar, reference) if found_on is None else found_on
            address = data_url(overlay(contents.rendering, oar, z, reference, PIXELS), "image/jpeg")
            found[oar.name] = Picture(oar.name, caption, address, reference is not None)
    return list(found.values())


def _scored(contents: Contents) -> Iterator[tuple[OAR, int, str, None]]:
    """Organs with a score below 1, those that do not pass first, then by surface DSC; an organ of one side alone has none."""
    rows = [
        (row["passed"] is not False, row["surface_dsc"] or 0.0, BY_NAME[row["oar"]], place, caption_of(row))
        for place, comparison in enumerate(contents.report["comparisons"])
        if not comparison.get("superseded") and place < len(contents.references) and contents.references[place]
        for row in comparison["oars"]
        if row["presence"] not in {"neither", "read_in_part"} and row["surface_dsc"] != 1.0
    ]
    for _, _, oar, place, caption in sorted(rows, key=lambda row: row[:2]):
        yield oar, place, caption, None


def caption_of(row: Mapping[str, Any]) -> str:
    """An organ's score for a picture, or why there is none."""
    if row["surface_dsc"] is None:
        return str(row["reason"])
    lengths = (row["tolerance_rounded_mm"], row["hausdorff_95_mm"])
    tolerance, farthest = ("not defined" if mm is None else f"{mm:.2f}\N{NO-BREAK SPACE}mm" for mm in lengths)
    return f"Surface DSC {row['surface_dsc']:.3f} at {tolerance}, HD95 {farthest}"


def _red(contents: Contents) -> Iterator[tuple[OAR, None, str, int | None]]:
    """Organs whose verdict is red and of which something is drawn; and the slice on which it shows best, as an index."""
    volumes = dict(zip(contents.rendering.oars, contents.rendering.millilitres().tolist(), strict=True))
    for organ in contents.report["organs"]:
        oar = BY_NAME[organ["oar"]]
        if organ["verdict"] == "red" and volumes.get(oar, 0.0) > 0:
            slices = organ.get("slices")
            yield oar, None, without_name(organ["reason"], oar.name), slices and slices["best"] - 1


def without_name(reason: str, oar: str) -> str:
    """A reason without the organ's name before it.

    Where that stands beside it already.
    """
    rest = reason.removeprefix(f"{oar}: ")
    return rest[:1].upper() + rest[1:]


def data_url(content: bytes, media_type: str) -> str:
    """A file as a URL that holds it."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"
