"""The vault: de-identifies series before the queue (ADR 15).

Whose they are is kept sealed with the service's key.
"""

import hashlib
import hmac
import threading
from collections.abc import Mapping
from dataclasses import replace

from cryptography.fernet import Fernet, InvalidToken

from oarlock.ct.deidentify import Original, check_deidentifiable, write_deidentified
from oarlock.ct.series import SeriesHeader, check_headers, read_ct_series
from oarlock.errors import IdentityLocked
from oarlock.rtstruct.reidentify import reidentified, reidentified_image
from oarlock.store.files import Incoming
from oarlock.store.jobs import Job


class Vault:
    """De-identifies series and re-identifies results; without a key it does neither.

    :param key: 32 bytes in URL-safe base64, as ``Fernet.generate_key`` makes them.
    :raises ValueError: if it is not such a key.
    """

    def __init__(self, key: str | None) -> None:
        self._fernet = None if key is None else Fernet(key)
        self._pseudonyms = b"" if key is None else hmac.digest(key.encode(), b"pseudonyms", hashlib.sha256)
        self._one_at_a_time = threading.Lock()

    def pseudonym(self, uid: str) -> str:
        """The UID that replaces a UID, always the same.

        The UID itself without a key.
        """
        if self._fernet is None:
            return uid
        return f"2.25.{int.from_bytes(hmac.digest(self._pseudonyms, uid.encode(), hashlib.sha256)[:16], 'big')}"

    def lock_away(self, incoming: Incoming, header: SeriesHeader) -> tuple[SeriesHeader, bytes | None]:
        """Replace the files of an upload by de-identified ones.

        One upload at a time: a whole series of pixels is in memory meanwhile.

        :returns: the header of the new files, and the sealed original; the same header and None without a key.
        :raises NotDeidentifiable: if it cannot be done.
        :raises UnsupportedPixelData: if a slice cannot be decoded.
        """
        if self._fernet is None:
            return header, None
        check_deidentifiable(header)
        with self._one_at_a_time:
            series = read_ct_series(header)
            with incoming.replaced() as next_file:
                original = write_deidentified(series, next_file, self.pseudonym)
        anew = check_headers(incoming.files, max_slices=len(header.instances), refuse_gaps=False)
        return replace(anew, warnings=header.warnings), self._fernet.encrypt(original.to_bytes())

    def reveal(self, job: Job) -> Job:
        """A job with the true UIDs of its series.

        :raises IdentityLocked: if it was sealed with another key; as in the methods below.
        """
        if job.identity is None:
            return job
        uids, series = self._open(job.identity).uids, job.series
        true = replace(
            series,
            study_instance_uid=uids[series.study_instance_uid],
            series_instance_uid=uids[series.series_instance_uid],
            frame_of_reference_uid=uids[series.frame_of_reference_uid],
        )
        return replace(job, series=true)

    def uids(self, job: Job) -> Mapping[str, str]:
        """The true UIDs of a job's series.

        By those that replace them; empty if none were replaced.
        """
        return {} if job.identity is None else self._open(job.identity).uids

    def rtstruct(self, job: Job, content: bytes) -> bytes:
        """The RTSTRUCT of a job with its patient.

        As the sender knows them.
        """
        return content if job.identity is None else reidentified(content, self._open(job.identity))

    def image(self, job: Job, content: bytes) -> bytes:
        """A CT image of a job with its patient.

        As the sender knows them.
        """
        return content if job.identity is None else reidentified_image(content, self._open(job.identity))

    def attributes(self, job: Job) -> bytes:
        """The attributes that were taken out of a series.

        Patient and study attributes of a job, encoded; empty if none were.
        """
        return b"" if job.identity is None else self._open(job.identity).attributes

    def report(self, job: Job, content: bytes) -> bytes:
        """The QA report of a job with the true UIDs."""
        if job.identity is not None:
            for stands, true in self._open(job.identity).uids.items():
                content = content.replace(f'"{stands}"'.encode(), f'"{true}"'.encode())
        return content

    def seal(self, job: Job, content: bytes) -> bytes:
        """What came back for a job, as it may be kept.

        Sealed if the job's own files name nobody.
        """
        if job.identity is None:
            return content
        if self._fernet is None:
            raise IdentityLocked
        return self._fernet.encrypt(content)

    def unseal(self, job: Job, content: bytes) -> bytes:
        """What :meth:`seal` was given."""
        if job.identity is None:
            return content
        if self._fernet is None:
            raise IdentityLocked
        try:
            return self._fernet.decrypt(content)
        except InvalidToken as error:
            raise IdentityLocked from error

    def seal_words(self, content: bytes) -> bytes:
        """Words of a request as they may be kept.

        Sealed with the key, if there is one.
        """
        return content if self._fernet is None else self._fernet.encrypt(content)

    def unseal_words(self, content: bytes) -> bytes:
        """What :meth:`seal_words` was given.

        JSON that was kept before there was a key is as it is.
        """
        if content.startswith(b"{"):
            return content
        if self._fernet is None:
            raise IdentityLocked
        try:
            return self._fernet.decrypt(content)
        except InvalidToken as error:
            raise IdentityLocked from error

    def _open(self, sealed: bytes) -> Original:
        if self._fernet is None:
            raise IdentityLocked
        try:
            return Original.of_bytes(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise IdentityLocked from error
