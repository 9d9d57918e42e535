"""Forms: what the body of each call may hold.

And what an upload brought.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from oarlock.errors import OarlockError
from service.errors import PartMissing, UploadEmpty

FILES: Final = "files"
"""Name of the parts that are the files of a series."""

ZIP_TYPES: Final = frozenset({b"application/zip", b"application/x-zip-compressed"})


@dataclass(frozen=True, slots=True)
class Form:
    """What the body of a call may hold.

    :ivar accepted: the sentence for a sender of another content type.
    :ivar series: whether it takes the files of a series: any number of parts named ``files``, archives among them.
    :ivar parts: names of parts that are one file each, and are required.
    :ivar fields: names of text fields.
    :ivar related: whether it is DICOM files in parts without names (``multipart/related``, PS3.18 8.6.1.2), and never an archive.
    :ivar media_types: content types of a body that is one file without a form; it counts as the part ``files``, or as the one
        of ``parts``.
    """

    accepted: str
    series: bool = True
    parts: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    media_types: frozenset[bytes] = frozenset()
    related: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the parts that are files.

        A body without a form counts as the first.
        """
        return [*([FILES] if self.series else []), *sorted(self.parts)]

    def missing(self) -> OarlockError:
        """The error for a body without files."""
        return UploadEmpty() if self.series else PartMissing(name=self.names[0])


JOB: Final = Form(
    "multipart/form-data with parts named 'files', or one zip archive as application/zip",
    fields=frozenset({"model", "profile", "priority", "label", "supersedes", "callback_url"}),
    media_types=ZIP_TYPES,
)
COMPARISON: Final = Form(
    "multipart/form-data: the CT series in parts named 'files', one RTSTRUCT named 'predicted' and one named 'reference'",
    parts=frozenset({"predicted", "reference"}),
)
REFERENCE: Final = Form(
    "the RTSTRUCT as application/dicom, or multipart/form-data with one part named 'reference'",
    series=False,
    parts=frozenset({"reference"}),
    media_types=frozenset({b"application/dicom"}),
)
STOW: Final = Form('multipart/related; type="application/dicom", each part one DICOM file', related=True)


@dataclass
class Upload:
    """What a post brought.

    :ivar files: files of the series in the order of the upload, archives unpacked.
    :ivar fields: text fields.
    :ivar parts: files that have a name of their own in the form.
    """

    files: list[Path]
    fields: dict[str, str]
    parts: dict[str, Path] = field(default_factory=dict)
    file_digests: list[bytes] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of fields and files.

        The same in any order, packed or not.
        """
        whole = hashlib.sha256(b"".join(sorted(self.file_digests)))
        for name, value in sorted(self.fields.items()):
            whole.update(f"\0{name}={value}".encode())
        return whole.hexdigest()
