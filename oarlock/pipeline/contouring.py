"""The walk of one series, from its files to its results.

Read, segment, write and check the RTSTRUCT, compare and picture it.

Nothing that the results say depends on when, where or how often the walk is run. Pictures and self-check have threads of their
own; what is told and warned of is in one order all the same. Nothing is a result before the RTSTRUCT has been checked.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from oarlock import __version__
from oarlock.ahead import beside
from oarlock.ct.hounsfield import check_steps
from oarlock.ct.series import CTSeries, SeriesHeader, check_headers, read_ct_series
from oarlock.ct.series_geometry import write_series_geometry
from oarlock.ct.turned_over import turned_over
from oarlock.errors import ResultInvalid, StructureSetError
from oarlock.facts import ModelFacts, Notice
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import Surroundings
from oarlock.organs.catalogue import OAR
from oarlock.pictures.contact_sheet import contact_sheet
from oarlock.pictures.review import Overlay, write_review
from oarlock.pictures.slice_archive import packed_grey, save_rendering
from oarlock.pipeline.comparison import NO_SITE_FILE, ComparisonSet, StructureSetOnGrid, read_bounded
from oarlock.qa.checks.finding import Finding
from oarlock.qa.plausibility import check_masks
from oarlock.qa.report import Making, QAReport, Source
from oarlock.qa.site_file import Site
from oarlock.qa.verdict import Verdict, verdicts
from oarlock.rtstruct.profiles import GENERIC, Profile
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import Authorship, WrittenRTSTRUCT, write_rtstruct
from oarlock.segmentation.certainty import Certainty
from oarlock.segmentation.clean_up import clean_up
from oarlock.segmentation.segment import Model, segment
from oarlock.segmentation.within_skin import within_skin
from oarlock.store.files import GEOMETRY, PREVIEW, QA_REPORT, RENDERING, REVIEW, REVIEW_DATA, RTSTRUCT, reference_name
from oarlock.store.jobs import Stage

log = logging.getLogger(__name__)

Report = Callable[[Stage, float], None]


@dataclass
class Walk:
    """One run over one series.

    What it found is in its fields when it has ended.

    :param files: the upload, in its order.
    :param folder: where the results are written.
    :param job_id, created_at: the source of every UID and date in the RTSTRUCT; the same in every run of a job. ``created_at``
        is in the site's time zone.
    :param report: told the stage and its share, in [0, 1]; raises to stop the walk.
    :param site: the site's own ROI names and tolerances.
    :param profile: which organs are delivered, and how the RTSTRUCT is written.
    :param pictured: whether pictures are made of it.
    :ivar warnings: what people should know, beside the warnings of the series' header.
    :ivar scanner: what the CT came from.
    :ivar reports: the comparison with each supplied RTSTRUCT.
    :ivar checks: what the checks without a reference found, and ``verdicts``, what that comes to for each organ.
    """

    files: Sequence[Path]
    folder: Path
    job_id: str
    created_at: datetime
    report: Report
    max_slices: int = 1024
    site: Site = NO_SITE_FILE
    profile: Profile = GENERIC
    pictured: bool = True
    warnings: list[Notice] = field(default_factory=list)
    scanner: str = ""
    reports: Sequence[QAReport] = ()
    checks: Sequence[Finding] = ()
    verdicts: Sequence[Verdict] = ()
    _certainty: Mapping[OAR, Certainty] = field(default_factory=dict)

    def run(self, load_model: Callable[[], Model]) -> None:
        """Write every result into the folder.

        :param load_model: called once, first.
        :raises OarlockError: whatever a step may raise.
        """
        self.report(Stage.READING, 0.0)
        model = load_model()
        series = read_ct_series(check_headers(self.files, max_slices=self.max_slices, refuse_gaps=False))
        around = Surroundings(series.hu, series.header.grid)
        with beside() as start, beside() as start_check:
            seen = start(lambda: turned_over(series.hu, around.grid))
            stepped = start_check(lambda: check_steps(series.hu))

            @cache
            def unmasked() -> tuple[Callable[[], None], Callable[[], list[bytes]]]:
                """Begin what depends on no mask."""
                return start(around.prepare), start(lambda: packed_grey(series.hu) if self.pictured else [])

            def admit() -> None:
                stepped()
                self.warnings += seen()

            masks = self._chosen(self._segment(series, model, admit, unmasked))
            stepped()  # asked before anything was predicted; again, as nothing may be made of a series that is refused
            prepared, grey = unmasked()
            prepared()
            self._finish(masks, around)
            pictures, identity = _Pictures(self.folder, series, masks), model.manifest.identity
            drawn: list[Callable[[], Notice | None]] = []
            if self.pictured:
                drawn += [start(lambda: pictures.sheet(identity)), start(lambda: pictures.rendering(identity, grey))]
            written = self._contour(series.header, masks, model)
            checked = start_check(lambda: check_rtstruct(self.folder / RTSTRUCT, series.header, masks, self.profile))
            write_series_geometry(self.folder / GEOMETRY, series.header)
            panel, not_compared = self._compare(series.header, masks, written)
            if self.pictured:
                drawn.append(start(lambda: pictures.review(identity, panel.overlays())))
            self._judge(panel, around, not_compared, model.facts)
            self.report(Stage.COMPARING, 0.75)
            if findings := checked():
                raise ResultInvalid(findings=findings)
            self._await(drawn)

    def _segment(self, series: CTSeries, model: Model, admit: Callable[[], None], spare: Callable[[], Any]) -> OARMasks:
        """What the model draws.

        :param admit: raises if the series must not be drawn on; called before anything is predicted.
        :param spare: see :func:`oarlock.segmentation.segment.segment`.
        """
        self.report(Stage.READING, 0.7)

        def progress(share: float) -> None:
            if share == 0.0:
                admit()
            self.report(Stage.INFERRING, share)

        found = segment(series.hu, series.header.grid, model, progress=progress, spare=spare)
        self._certainty = found.certainty
        self.warnings += found.notices
        return found.masks

    def _chosen(self, masks: OARMasks) -> OARMasks:
        """The organs that the profile asks for: what is not delivered is not scored or shown either."""
        missing = [oar.name for oar in self.profile.not_drawn(masks.oars)]
        if missing:
            detail = f"The profile asks for {', '.join(missing)}, which the model does not draw."
            self.warnings.append(Notice("rtstruct.not_drawn", detail))
        return masks.select([style.oar for style in self.profile.styles_of(masks.oars)])

    def _finish(self, masks: OARMasks, around: Surroundings) -> None:
        """What is not of an organ is taken off; the masks do not change after it."""
        self.report(Stage.CONTOURING, 0.0)
        self.warnings += within_skin(masks, around, at_once=2)
        self.warnings += clean_up(masks, around.grid, at_once=2)

    def _contour(self, header: SeriesHeader, masks: OARMasks, model: Model) -> WrittenRTSTRUCT:
        self.report(Stage.CONTOURING, 0.4)
        path = self.folder / RTSTRUCT
        authorship = Authorship(self.job_id, self.created_at, model.facts, model.manifest.drawn_by())
        written = write_rtstruct(path, masks, header, authorship, self.profile)
        self.warnings += written.warnings
        self.report(Stage.CONTOURING, 0.7)
        return written

    def _compare(
        self, header: SeriesHeader, masks: OARMasks, written: WrittenRTSTRUCT
    ) -> tuple[ComparisonSet, list[dict[str, Any]]]:
        """Compare with each supplied RTSTRUCT; beside the comparisons, those that could not be compared with."""
        self.report(Stage.COMPARING, 0.0)
        names = {style.oar: style.name for style in self.profile.styles_of(masks.oars)}
        ours = StructureSetOnGrid(Source(written.sop_instance_uid, written.label), masks, names)
        panel = ComparisonSet(ours, header, self.site)
        not_compared: list[dict[str, Any]] = []
        for position, path in enumerate(header.structure_sets, start=1):
            try:
                self._compare_with(path, position, panel)
            except StructureSetError as error:
                not_compared.append({"position": position, "code": error.code, "detail": error.detail})
                detail = f"Supplied RTSTRUCT {position} was not compared with. {error.detail}"
                self.warnings.append(Notice("structure_set.not_compared", detail))
            self.report(Stage.COMPARING, 0.7 * position / len(header.structure_sets))
        self.scanner, self.reports = header.scanner, panel.reports
        return panel, not_compared

    def _judge(
        self, panel: ComparisonSet, around: Surroundings, not_compared: Sequence[Mapping[str, Any]], model: ModelFacts
    ) -> None:
        """Check the contours without a reference, and write the QA report."""
        masks = panel.predicted.masks
        self.checks = check_masks(masks, around.grid, self._certainty, around.hu, around=around)
        self.verdicts = verdicts(self.checks, masks.oars)
        made = Making(self.job_id, self.created_at.astimezone(UTC).isoformat(), model, __version__)
        report = panel.report(self.checks, not_compared, made=made)
        (self.folder / QA_REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))

    def _compare_with(self, path: Path, position: int, panel: ComparisonSet) -> None:
        supplied = read_bounded(path, panel.header, self.site)
        self.warnings += [Notice(note.code, f"Supplied RTSTRUCT {position}: {note.detail}") for note in supplied.warnings]
        panel.add(supplied, position=position)
        shutil.copyfile(path, self.folder / reference_name(position))  # stays as long as what was compared with it

    def _await(self, drawn: Sequence[Callable[[], Notice | None]]) -> None:
        """Wait for the pictures."""
        for done, picture in enumerate(drawn):
            self.report(Stage.COMPARING, 0.8 + 0.2 * done / len(drawn))
            if (failed := picture()) is not None:
                self.warnings.append(failed)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The pictures of one series and its masks.

    Each names the model, ``ModelManifest.identity``, and gives a warning if it failed.
    """

    folder: Path
    series: CTSeries
    masks: OARMasks

    def sheet(self, model: str) -> Notice | None:
        sheet, hu, grid = self.folder / PREVIEW, self.series.hu, self.series.header.grid
        return _drawn([sheet], lambda: sheet.write_bytes(contact_sheet(hu, grid, self.masks, model=model)))

    def rendering(self, model: str, grey: Callable[[], list[bytes]]) -> Notice | None:
        """The CT and the masks as a picture of any slice is made from them.

        :param grey: gives what :func:`packed_grey` made of the CT.
        """
        rendering, hu, grid = self.folder / RENDERING, self.series.hu, self.series.header.grid
        return _drawn([rendering], lambda: save_rendering(rendering, hu, grid, self.masks, model=model, grey=grey()))

    def review(self, model: str, overlays: Sequence[Overlay]) -> Notice | None:
        head, data, hu, grid = self.folder / REVIEW, self.folder / REVIEW_DATA, self.series.hu, self.series.header.grid
        return _drawn([head, data], lambda: write_review(head, data, hu, grid, self.masks, model=model, overlays=overlays))


def _drawn(files: Sequence[Path], draw: Callable[[], object]) -> Notice | None:
    """Draw a picture; one that fails is not worth the contours: it is left out, with a warning.

    :raises OSError: if the disk is full or away: the job is worth another attempt.
    """
    try:
        draw()
    except OSError:
        raise
    except Exception:
        log.exception("picture failed", extra={"what": files[0].name})
        for path in files:
            path.unlink(missing_ok=True)
        detail = f"{files[0].name} could not be drawn, and what is made of it is missing. The contours are whole."
        return Notice("picture.failed", detail)
    return None
