"""The report for people: what it says, what it never does, and that other programs take it."""

import re
import socket
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.ct.series import SeriesHeader
from oarlock.facts import ModelFacts, Notice
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.pictures.overlay import worst_slice
from oarlock.pictures.slice_archive import Rendering
from oarlock.pipeline.comparison import ComparisonSet, StructureSetOnGrid
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import Making, Source
from oarlock.qa.site_file import Site
from oarlock.reporting.contents import Contents, Subject, subject_of
from oarlock.reporting.encapsulated import to_encapsulated_pdf
from oarlock.reporting.page import to_html
from oarlock.reporting.pdf import to_pdf
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.crooked import crooked_hu
from tests.fixtures.judges import dciodvfy, run
from tests.fixtures.organs import AUTHORSHIP, Series, write_series

pytestmark = pytest.mark.slow

BRAIN = BY_NAME["Brain"]
SHOUT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("ct"), patient_name="Canary^Yellow")


def drawing(masks: OARMasks, label: str) -> StructureSetOnGrid:
    return StructureSetOnGrid(Source("2.25.1", label), masks, {oar: oar.name for oar in masks.oars})


def contents_of(header: SeriesHeader, masks: OARMasks, *, label: str = "CLINICAL", name: str = "Canary, Yellow") -> Contents:
    """Our contours lie two columns beside the reference."""
    moved = OARMasks(masks.oars, np.roll(masks.bits, 2, axis=2))
    site = Site(name="St Elsewhere", action_levels={BRAIN: {"surface_dsc": 1.0}})
    panel = ComparisonSet(drawing(moved, "OURS"), header, site)
    panel.add(drawing(masks, label))
    made = Making("a-job", "2026-03-05T08:30:00+00:00", ModelFacts("a-model", "1.2", "ab" * 32), "0.1.0")
    report = panel.report(check_masks(moved, header.grid), made=made)
    rendering = Rendering.of(crooked_hu(), header.grid, moved, model="a-model 1.2")
    subject = Subject(name, "4711", "2026-03-01", "OURS", "a label")
    return Contents(report, rendering, panel.drawn, subject, [Notice("a.code", "Know this.")], "draws organs", ["children"])


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in {"src", "href"} and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_says_whose_contours_they_are_who_drew_them_and_what_is_wrong_with_them(series: Series) -> None:
    contents = contents_of(series.header, series.masks)
    page = _Page(to_html(contents))
    said = re.sub(r"\s+", " ", page.text)
    brain = next(row for row in contents.report["comparisons"][0]["oars"] if row["oar"] == "Brain")
    for words in (
        *("UNAPPROVED", "St Elsewhere", "Canary, Yellow", "4711", "a-model 1.2", "It is not for:", "children", "Know this."),
        *("Against CLINICAL", f"{brain['surface_dsc']:.3f}", "beyond the site's action levels", "Signature"),
    ):
        assert words in said, words
    red = [organ for organ in contents.report["organs"] if organ["verdict"] == "red"]
    assert red
    assert all(organ["reason"].split(": ", 1)[1][1:] in said for organ in red)


@pytest.mark.parametrize(("model", "named"), [("a-model 1.2", "a-model 1.2"), ("", "The model is not known.")])
def test_a_report_of_a_version_without_checks_does_not_read_as_all_clear(series: Series, model: str, named: str) -> None:
    found = contents_of(series.header, series.masks)
    older = {**found.report, "verdict": None, "organs": [], "checks": [], "comparisons": [], "made": None}
    said = _Page(to_html(replace(found, report=older, rendering=replace(found.rendering, model=model)))).text
    assert "Not checked" in said
    assert named in said
    assert "No check has anything to say" not in said


def test_it_names_no_address_and_what_a_sender_wrote_is_text(series: Series) -> None:
    page = _Page(to_html(contents_of(series.header, series.masks, label=SHOUT, name=SHOUT)))
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.text.count(SHOUT) == 2


def test_the_picture_is_of_the_slice_on_which_the_drawings_differ_most(series: Series) -> None:
    worn = OARMasks(series.masks.oars, series.masks.bits.copy())
    crop = series.masks.crop(BRAIN)
    assert crop is not None
    z = crop[0][0].start + 3
    worn.bits[z] &= ~series.masks.bit(BRAIN)
    rendering = Rendering.of(crooked_hu(), series.header.grid, worn, model="")
    assert worst_slice(rendering, BRAIN, {BRAIN: crop}) == z


def test_the_patient_is_read_from_the_rtstruct(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "ours.dcm", series.masks, series.header, AUTHORSHIP)
    found = subject_of((tmp_path / "ours.dcm").read_bytes(), "a label")
    assert (found.patient_name, found.label) == ("Canary, Yellow", "a label")


def test_an_encapsulated_pdf_is_valid_for_the_judge_and_of_the_same_patient_and_study(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "ours.dcm", series.masks, series.header, AUTHORSHIP)
    content = to_encapsulated_pdf(b"%PDF-1.7 odd", (tmp_path / "ours.dcm").read_bytes(), "1")
    (tmp_path / "report.dcm").write_bytes(content)
    assert [line for line in dciodvfy(tmp_path / "report.dcm") if line.startswith("Error")] == []
    ours, report = (pydicom.dcmread(tmp_path / name) for name in ("ours.dcm", "report.dcm"))
    assert (report.PatientName, report.StudyInstanceUID) == (ours.PatientName, ours.StudyInstanceUID)
    assert report.SourceInstanceSequence[0].ReferencedSOPInstanceUID == ours.SOPInstanceUID
    assert report.EncapsulatedDocument[: report.EncapsulatedDocumentLength] == b"%PDF-1.7 odd"
    assert "UNAPPROVED" in report.DocumentTitle


def test_a_pdf_says_unapproved_on_every_page_and_fetches_nothing(series: Series, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        html = to_html(contents_of(series.header, series.masks))
        asking = f'<img src="http://127.0.0.1:{listener.getsockname()[1]}/"><img src="file:///etc/hostname">'
        pdf = to_pdf(html.replace("</body>", asking + "</body>"))
        with pytest.raises(TimeoutError):
            listener.accept()
    assert pdf.startswith(b"%PDF-1.7")
    (tmp_path / "report.pdf").write_bytes(pdf)
    assert 'pdfaid:part="3"' in run("pdfinfo", "-meta", tmp_path / "report.pdf")
    pages = [page for page in run("pdftotext", tmp_path / "report.pdf", "-").split("\f") if page.strip()]
    assert len(pages) > 1
    assert all("UNAPPROVED" in page for page in pages)
