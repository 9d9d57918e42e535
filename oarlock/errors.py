"""The error tree: who can fix it, and would trying again help?

    OarlockError
    ├── InputError        the sender can fix it
    │   ├── RequestError
    │   ├── SeriesError
    │   └── StructureSetError
    ├── JobError          the job is not in a state that allows this
    ├── OperatorError        the operator can fix it
    └── TransientError    the same call may succeed later; the only branch ever retried

``service/errors.py`` hangs more leaves on these branches: those of access, uploads and HTTP, which the core does not know.

A leaf takes facts as keywords and writes its own sentence: what is wrong, where, and what to do. Its ``code`` is public API
(``docs/api.md`` lists them all). No message ever holds a patient's name, identifier or date, nor bytes that a sender chose.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

_Kind = TypeVar("_Kind", bound="OarlockError")


class OarlockError(Exception):
    """Root of every error that Oarlock raises on purpose."""

    code: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __reduce__(self) -> tuple[Callable[..., "OarlockError"], tuple[Any, ...]]:
        """Copy and pickle the sentence: a leaf takes facts, and the default would call it with its sentence instead."""
        return _rebuilt, (type(self), self.detail, self.__dict__)

    def reworded(self, detail: str) -> Self:
        """The same error with another sentence."""
        return _rebuilt(type(self), detail, self.__dict__ | {"detail": detail})


def _rebuilt(kind: type[_Kind], detail: str, facts: Mapping[str, Any]) -> _Kind:
    error = kind.__new__(kind)
    Exception.__init__(error, detail)
    error.__dict__.update(facts)
    return error


class InputError(OarlockError):
    """What was sent cannot be used; the sender can fix it."""


class JobError(OarlockError):
    """The job is not in a state that allows the call."""


class OperatorError(OarlockError):
    """The operator can fix it.

    A model, a profile, a result or the server itself is at fault.
    """


class TransientError(OarlockError):
    """The same call may succeed later."""


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class RequestError(InputError):
    """A parameter of the call is wrong."""


class InvalidParameter(RequestError):
    code = "request.invalid_parameter"
    title = "A parameter is not valid"

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"The parameter '{name}' {reason}.")


class UnknownModel(RequestError):
    code = "request.unknown_model"
    title = "No such model"

    def __init__(self, *, available: Sequence[str]) -> None:
        known = ", ".join(available) or "none"
        super().__init__(f"This server has no model of that name. Available: {known}.")


class UnknownProfile(RequestError):
    code = "request.unknown_profile"
    title = "No such profile"

    def __init__(self, *, available: Sequence[str]) -> None:
        super().__init__(f"This server has no profile of that name. Available: {', '.join(available)}.")


class UnknownArchive(RequestError):
    code = "gateway.unknown_archive"
    title = "No gateway knows this archive"

    def __init__(self, *, known: Sequence[str]) -> None:
        found = f"Known: {', '.join(known)}." if known else "None is known yet."
        super().__init__(
            f"No gateway that reports to this server can fetch from an archive of that name. {found} An archive is a [[peer]] "
            "with archive = true in a gateway's configuration."
        )


class UnknownGateway(RequestError):
    code = "gateway.unknown"
    title = "No such gateway"

    def __init__(self) -> None:
        super().__init__(
            "No gateway of that name has reported to this server, or it has no such series any more. See the list of gateways."
        )


class ProfileNotWritable(RequestError):
    code = "request.profile_not_writable"
    title = "The profile's names cannot be written for this series"

    def __init__(self, *, profile: str, oar: str) -> None:
        super().__init__(
            f"The profile '{profile}' gives {oar} a name with letters that the CT's Specific Character Set does not have, and an "
            "RTSTRUCT has the character set of its CT. Choose a profile with plain names."
        )


# ── CT series ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SeriesError(InputError):
    """The DICOM files are not one CT series that can be contoured."""


class NotDicom(SeriesError):
    code = "series.not_dicom"
    title = "No DICOM file was found"

    def __init__(self, *, files: int) -> None:
        super().__init__(f"None of the {files} file(s) sent is a DICOM file. Export the CT series as DICOM and send that.")


class InstanceUnreadable(SeriesError):
    code = "series.instance_unreadable"
    title = "A DICOM file is damaged"

    def __init__(self, *, position: int, reason: str) -> None:
        super().__init__(f"File {position} of the upload cannot be read: {reason}. Export the series again.")


class NoCTImages(SeriesError):
    code = "series.no_ct_images"
    title = "There is no CT image"

    def __init__(self, *, found: Sequence[str]) -> None:
        kinds = ", ".join(sorted(set(found))) or "nothing"
        super().__init__(f"There is no axial CT image in the upload (found: {kinds}). Send the planning CT series.")


class NotDeidentifiable(SeriesError):
    code = "series.not_deidentifiable"
    title = "The series cannot be de-identified"

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"This server de-identifies each series before it is contoured, and cannot de-identify this one: {reason}."
        )


class MultiFrameCT(SeriesError):
    code = "series.multi_frame_ct"
    title = "A multi-frame CT cannot be read"

    def __init__(self, *, position: int, reason: str) -> None:
        super().__init__(
            f"File {position} of the upload is a multi-frame CT that cannot be read: {reason}. "
            "If that is not the planning CT, leave it out; else export single-frame CT images (one file a slice)."
        )


class MixedSeries(SeriesError):
    code = "series.mixed_series"
    title = "The upload holds more than one CT series"

    def __init__(self, *, images: Sequence[int]) -> None:
        counts = " and ".join(str(count) for count in sorted(images, reverse=True)[:6])
        super().__init__(
            f"The CT images belong to {len(images)} different series (of {counts} images). Send the planning CT series alone."
        )


class MixedFrameOfReference(SeriesError):
    code = "series.mixed_frame_of_reference"
    title = "The slices are in different frames of reference"

    def __init__(self, *, found: int) -> None:
        super().__init__(f"The CT images name {found} different frames of reference, so their positions cannot be compared.")


class MixedPatients(SeriesError):
    code = "series.mixed_patients"
    title = "The slices name different patients"

    def __init__(self, *, first: int, second: int) -> None:
        super().__init__(
            f"Files {first} and {second} of the upload belong to one series but name different patients. "
            "Correct the patient's identity at the source and export the series again."
        )


class TooFewSlices(SeriesError):
    code = "series.too_few_slices"
    title = "The series has too few slices"

    def __init__(self, *, found: int, needed: int) -> None:
        super().__init__(f"The series has {found} slice(s); at least {needed} are needed. Was the whole series sent?")


class TooManySlices(SeriesError):
    code = "series.too_many_slices"
    title = "The series has too many slices"

    def __init__(self, *, found: int, limit: int) -> None:
        super().__init__(f"The series has {found} slices; this server takes at most {limit}.")


class SeriesTooLarge(SeriesError):
    code = "series.too_large"
    title = "The series has too many voxels"

    def __init__(self, *, slices: int, rows: int, columns: int, limit: int) -> None:
        super().__init__(
            f"The series claims {slices} slices of {rows} × {columns} voxels; this server takes at most {limit:,} voxels. "
            "Reconstruct with a smaller matrix or send fewer slices."
        )


class DuplicateInstance(SeriesError):
    code = "series.duplicate_instance"
    title = "Two different files claim the same identity"

    def __init__(self, *, first: int, second: int) -> None:
        super().__init__(f"Files {first} and {second} of the upload have the same SOP Instance UID but different content.")


class DuplicatePosition(SeriesError):
    code = "series.duplicate_position"
    title = "Two slices lie at the same position"

    def __init__(self, *, position_mm: float, count: int) -> None:
        super().__init__(
            f"{count} slices lie at the same position (z = {position_mm:.2f} mm), so it is not known which one counts. "
            "Send one phase or one reconstruction only."
        )


class MissingSlices(SeriesError):
    code = "series.missing_slices"
    title = "The series has a gap"

    def __init__(
        self,
        *,
        expected_mm: float,
        found_mm: float,
        at_slice: int = 0,
        between_mm: tuple[float, float] | None = None,
        gaps: int = 1,
        throughout: str = "",
    ) -> None:
        missing = max(1, round(found_mm / expected_mm) - 1)
        if throughout:
            share = "every second slice is" if missing == 1 else f"{missing} of every {missing + 1} slices are"
            super().__init__(
                f"The slices lie {found_mm:.3f} mm apart throughout, but {throughout}: about {share} missing. "
                "Send the complete series."
            )
            return
        place = f"; z = {between_mm[0]:.2f} mm and z = {between_mm[1]:.2f} mm" if between_mm else ""
        others = f" There are {gaps} such gaps." if gaps > 1 else ""
        super().__init__(
            f"Between slices {at_slice} and {at_slice + 1} (counted along the slice axis from 1{place}) the distance is "
            f"{found_mm:.3f} mm where {expected_mm:.3f} mm is expected: about {missing} slice(s) missing.{others} "
            "Send the complete series."
        )


class GeometryMissing(SeriesError):
    code = "series.geometry_missing"
    title = "A slice does not say where it lies"

    def __init__(self, *, position: int, keyword: str) -> None:
        super().__init__(f"File {position} of the upload has no valid {keyword}, so its place in the patient is unknown.")


class InconsistentGeometry(SeriesError):
    code = "series.inconsistent_geometry"
    title = "The slices do not fit one another"

    def __init__(self, *, keyword: str, reason: str) -> None:
        super().__init__(f"The slices do not fit one another in {keyword}: {reason}. Send one reconstruction only.")


class OrientationUnsupported(SeriesError):
    code = "series.orientation_unsupported"
    title = "The orientation of the slices is not supported"

    def __init__(self, *, degrees: float, limit: float) -> None:
        super().__init__(
            f"The axes of the slices are {degrees:.1f}° off those of the patient; this server contours up to {limit:.0f}°. "
            "Reformat to axial."
        )


class UnsupportedPixelData(SeriesError):
    code = "series.unsupported_pixel_data"
    title = "The pixel data cannot be used"

    def __init__(self, *, position: int, reason: str) -> None:
        super().__init__(f"The pixel data of file {position} of the upload cannot be used: {reason}.")


class NotHounsfield(SeriesError):
    code = "series.not_hounsfield"
    title = "The values are not Hounsfield units"

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"The values of the images are not those of a patient in Hounsfield units: {reason}. Export the series again as the "
            "scanner made it, with its Rescale Slope and Intercept."
        )


class DerivedImageRefused(SeriesError):
    code = "series.derived_image_refused"
    title = "The series is not a plain CT"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"This server takes plain CT alone (OARLOCK_DERIVED_IMAGES). {reason}")


# ── structure sets ────────────────────────────────────────────────────────────────────────────────────────────────────


class StructureSetError(InputError):
    """A supplied RTSTRUCT cannot be used."""


class StructureSetUnreadable(StructureSetError):
    code = "structure_set.unreadable"
    title = "The RTSTRUCT cannot be read"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The RTSTRUCT cannot be read: {reason}.")


class StructureSetTooCostly(StructureSetError):
    code = "structure_set.too_costly"
    title = "The RTSTRUCT takes too much memory or time"

    def __init__(self) -> None:
        super().__init__(
            "The RTSTRUCT takes more memory or time than this server gives to a structure set. "
            "Send one with fewer or simpler contours."
        )


class FrameOfReferenceMismatch(StructureSetError):
    code = "structure_set.frame_of_reference_mismatch"
    title = "The RTSTRUCT belongs to another scan"

    def __init__(self) -> None:
        super().__init__(
            "The RTSTRUCT refers to another frame of reference than the CT series, so its contours cannot be placed on it."
        )


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class JobNotFound(JobError):
    code = "job.not_found"
    title = "No such job"

    def __init__(self, *, by: str = "id") -> None:
        super().__init__(f"No job has this {by} on this server.")


class ResultNotFound(JobError):
    code = "job.result_not_found"
    title = "The job has no such result"

    def __init__(self, *, what: str) -> None:
        super().__init__(f"The job has no {what}.")


class JobExpired(JobError):
    code = "job.expired"
    title = "The job was purged"

    def __init__(self) -> None:
        super().__init__("The series of this job was deleted. Send it again.")


class JobNotFinished(JobError):
    code = "job.not_finished"
    title = "The job has no result"

    def __init__(self, *, state: str) -> None:
        super().__init__(f"The job is {state}, so it has no result.")


class JobAlreadyEnded(JobError):
    code = "job.already_ended"
    title = "The job has ended"

    def __init__(self, *, state: str) -> None:
        super().__init__(f"The job has ended already ({state}), so it cannot be cancelled.")


class JobNotRetryable(JobError):
    code = "job.not_retryable"
    title = "The job cannot be retried"

    def __init__(self, *, state: str) -> None:
        super().__init__(f"Only a failed or cancelled job can be retried; this one is {state}.")


class ModelGone(JobError):
    code = "job.model_gone"
    title = "The job's model is not on this server any more"

    def __init__(self, *, model: str, available: Collection[str]) -> None:
        super().__init__(
            f"The job was made for {model}, which is not on this server any more, so it would fail again. "
            f"Send the series anew, for one of: {', '.join(sorted(available))}."
        )


class IdempotencyConflict(JobError):
    code = "job.idempotency_conflict"
    title = "The idempotency key was used for another upload"

    def __init__(self) -> None:
        super().__init__("This idempotency key belongs to an upload with other content. Use a new key for a new series.")


class NotDelivered(JobError):
    code = "gateway.not_delivered"
    title = "No gateway has results of this job"

    def __init__(self) -> None:
        super().__init__(
            "No gateway has told of a delivery of this job to such a place, so none can send it again. Its results can be "
            "fetched here, and 'python -m gateway resend JOB' asks a gateway itself."
        )


class RequestNotFound(JobError):
    code = "gateway.request_not_found"
    title = "No such request"

    def __init__(self) -> None:
        super().__init__(
            "No gateway was asked this. A request is deleted 30 days after its end, and with the job that came of it."
        )


class RequestTaken(JobError):
    code = "gateway.request_taken"
    title = "The request cannot be cancelled any more"

    def __init__(self) -> None:
        super().__init__("A gateway is at it already, or it has ended. Cancel the job that comes of it instead.")


class RequestNotHeld(JobError):
    code = "gateway.request_not_held"
    title = "The request is not this gateway's"

    def __init__(self) -> None:
        super().__init__("The request has ended, or another gateway has it by now: this one was silent for too long. Leave it.")


class AttemptsExhausted(JobError):
    code = "job.attempts_exhausted"
    title = "The job was given up"

    def __init__(self, *, attempts: int) -> None:
        super().__init__(f"The worker was lost {attempts} times while it ran this job, so it is not tried again.")


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class IdentityLocked(OperatorError):
    code = "identity.locked"
    title = "The patient of the result cannot be put back"

    def __init__(self) -> None:
        super().__init__(
            "The series was de-identified with a key that this server does not have. Its operator can set OARLOCK_DEIDENTIFY_KEY."
        )


class ManifestInvalid(OperatorError):
    code = "model.manifest_invalid"
    title = "The model's manifest is not valid"

    def __init__(self, *, model: str, reason: str) -> None:
        super().__init__(f"The manifest of the model '{model}' is not valid: {reason}.")


class BackupInvalid(OperatorError):
    code = "backup.invalid"
    title = "The backup cannot be restored"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The backup cannot be restored: {reason}.")


class DefaultModelMissing(OperatorError):
    code = "model.default_missing"
    title = "The model that jobs get by default is missing"

    def __init__(self, *, model: str, folder: str, found: str) -> None:
        super().__init__(f"{folder} has no model '{model}' (found: {found}). Set OARLOCK_MODEL to one of them.")


class SiteFileInvalid(OperatorError):
    code = "site.file_invalid"
    title = "The site's file is not valid"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The file of the site's own names and tolerances is not valid: {reason}.")
        self.reason = reason


class InferenceFailed(OperatorError):
    code = "model.inference_failed"
    title = "The model failed"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The model could not be run: {reason}.")


class ResultInvalid(OperatorError):
    code = "model.result_invalid"
    title = "The result failed its own check"

    def __init__(self, *, findings: Sequence[str]) -> None:
        super().__init__("The RTSTRUCT was not delivered because it failed the check: " + "; ".join(findings) + ".")


class ProfileInvalid(OperatorError):
    code = "profile.invalid"
    title = "A site profile is not valid"

    def __init__(self, *, profile: str, reason: str) -> None:
        which = f"The profile '{profile}'" if profile else "The profiles"
        super().__init__(f"{which} cannot be used: {reason}.")


class TooManyPoints(OperatorError):
    code = "profile.too_many_points"
    title = "A contour has more points than the profile allows"

    def __init__(self, *, oar: str, slice_number: int, points: int, limit: int, deviation_mm: float) -> None:
        super().__init__(
            f"The contour of {oar} on slice {slice_number} (counted along the slice axis from 1) needs {points} points to stay "
            f"within {deviation_mm:.2f} mm of the exact one; the profile allows {limit}. Raise max_points or max_deviation_mm."
        )


class ReportFailed(OperatorError):
    code = "report.failed"
    title = "The report could not be made"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The report could not be made as a PDF: {reason}. The HTML report does not need it.")


class InternalError(OperatorError):
    code = "internal.error"
    title = "Something went wrong in the server"

    def __init__(self, *, reference: str) -> None:
        super().__init__(f"The server failed unexpectedly. The operator finds the cause in the log under {reference}.")


# ── transient ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class DatabaseUnavailable(TransientError):
    code = "database.unavailable"
    title = "The database is not reachable"

    def __init__(self) -> None:
        super().__init__("The job table is not reachable. Try again in a moment.")


class StorageFull(TransientError):
    code = "storage.full"
    title = "The disk is almost full"

    def __init__(self) -> None:
        super().__init__("The server has too little disk space for a series or its results. Ask the operator to purge old jobs.")


class StorageUnavailable(TransientError):
    code = "storage.unavailable"
    title = "The data folder is not reachable"

    def __init__(self) -> None:
        super().__init__("The data folder of the service is missing. Ask the operator to check that it is mounted.")


class DeviceOutOfMemory(TransientError):
    code = "device.out_of_memory"
    title = "The device ran out of memory"

    def __init__(self, *, device: str) -> None:
        super().__init__(f"The device {device} ran out of memory.")


def leaves(branch: type[OarlockError] = OarlockError) -> Iterator[type[OarlockError]]:
    """Every error with a code below a branch, in the tree's order."""
    if branch.code:
        yield branch
    for child in branch.__subclasses__():
        yield from leaves(child)
