"""Leaves of the error tree that only a service over HTTP needs.

They hang on the branches of :mod:`oarlock.errors`, so :func:`oarlock.errors.leaves` walks them too.
"""

from collections.abc import Mapping, Sequence

from oarlock.errors import InputError, RequestError, TransientError

# ── addresses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class RouteNotFound(RequestError):
    code = "request.not_found"
    title = "There is nothing at this address"

    def __init__(self) -> None:
        super().__init__("This server has nothing at this address. All addresses are listed at /docs.")


class MethodNotAllowed(RequestError):
    code = "request.method_not_allowed"
    title = "The method is not allowed here"

    def __init__(self) -> None:
        super().__init__("This address does not take this method. The header Allow lists those that it takes.")


class NotAcceptable(RequestError):
    code = "request.not_acceptable"
    title = "The answer cannot be given in the form that is asked for"

    def __init__(self, *, offered: Sequence[str]) -> None:
        super().__init__(f"The header Accept allows nothing that this call can answer with. It gives {', '.join(offered)}.")


class BodyTooLarge(RequestError):
    code = "request.body_too_large"
    title = "The body is too large"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"The body of this call may have at most {limit:,} bytes.")


class BodyStalled(RequestError):
    code = "request.body_stalled"
    title = "The body came too slowly"

    def __init__(self, *, seconds: float) -> None:
        super().__init__(f"The body of this call must have come within {seconds:.0f} s. Send it again.")


class UnknownParameter(RequestError):
    code = "request.unknown_parameter"
    title = "A query parameter is not known"

    def __init__(self, *, known: Sequence[str]) -> None:
        takes = f"It takes {', '.join(known)}." if known else "It takes none."
        super().__init__(f"The address has a query parameter that this call does not take. {takes}")


class NotKept(RequestError):
    code = "dicomweb.not_kept"
    title = "Nothing is kept under these UIDs"

    def __init__(self, *, what: str) -> None:
        super().__init__(f"This server keeps no such {what}: no finished job has it, or it was deleted.")


# ── who may call ──────────────────────────────────────────────────────────────────────────────────────────────────────


class AccessError(InputError):
    """The caller may not make this call, or not now."""


class HostNotAllowed(AccessError):
    code = "access.host_not_allowed"
    title = "The server is not known by this name"

    def __init__(self) -> None:
        super().__init__(
            "The header Host does not name this server. As long as it has no key, it answers to 127.0.0.1, [::1] and localhost "
            "alone; its operator can make a key, and allow other names with OARLOCK_ALLOWED_HOSTS."
        )


class CrossSite(AccessError):
    code = "access.cross_site"
    title = "Another web page may not call this server"

    def __init__(self) -> None:
        super().__init__("A browser sent this call for a page of another origin, and a server without keys does not answer that.")


class TooManyFollowers(AccessError):
    code = "access.too_many_followers"
    title = "Too many event streams"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"This caller follows {limit} jobs and lists already, which is the limit. Close some streams first.")


class Unauthenticated(AccessError):
    code = "access.unauthenticated"
    title = "A key is needed"

    def __init__(self) -> None:
        super().__init__("This call needs a key. Send one as 'Authorization: Bearer KEY'.")


class InvalidToken(AccessError):
    code = "access.invalid_token"
    title = "The key is not valid"

    def __init__(self) -> None:
        super().__init__("The key or token is not valid here: it is unknown, revoked or expired.")


class Forbidden(AccessError):
    code = "access.forbidden"
    title = "The key does not allow this"

    def __init__(self, *, scopes: Sequence[str]) -> None:
        self.scopes = tuple(scopes)
        super().__init__(f"This call needs a key with the scope {' or '.join([*scopes, 'admin'])}.")


class RateLimited(AccessError):
    code = "access.rate_limited"
    title = "Too many calls"

    def __init__(self, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("This caller has made more calls in a minute than the server allows. Wait for the time in Retry-After.")


# ── uploads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class UploadError(InputError):
    """The body of a post cannot be used."""


class UploadEmpty(UploadError):
    code = "upload.empty"
    title = "Nothing was uploaded"

    def __init__(self) -> None:
        super().__init__("The post has no files. Send the DICOM files, or zip archives of them, as parts named 'files'.")


class PartMissing(UploadError):
    code = "upload.part_missing"
    title = "A part is missing"

    def __init__(self, *, name: str) -> None:
        super().__init__(
            f"The post has no file in a part named '{name}', and this call needs one. Send it as multipart/form-data."
        )


class UploadMalformed(UploadError):
    code = "upload.malformed"
    title = "The body cannot be parsed"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The body is not a well-formed multipart/form-data message: {reason}.")


class UploadStalled(UploadError):
    code = "upload.stalled"
    title = "The upload came too slowly"

    def __init__(self, *, received: int) -> None:
        super().__init__(
            f"The upload came too slowly and was ended after {received:,} bytes: 64 KiB a second on average, and 1 MiB within a "
            "minute, is the least. Nothing was kept; send it again."
        )


class TooManyUploads(UploadError):
    code = "upload.too_many"
    title = "Too many uploads of one caller"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"This caller has {limit} uploads under way, which is the limit. Send this one when another has ended.")


class UnsupportedMediaType(UploadError):
    code = "upload.unsupported_media_type"
    title = "The content type is not supported"

    def __init__(self, *, accepted: str) -> None:
        super().__init__(f"Send {accepted}.")


class UploadTooLarge(UploadError):
    code = "upload.too_large"
    title = "The upload is too large"

    def __init__(self, *, limit: int, unit: str) -> None:
        super().__init__(f"The upload is over this server's limit of {limit:,} {unit}. Send one CT series only.")


class ArchiveInvalid(UploadError):
    code = "upload.archive_invalid"
    title = "The archive is refused"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The archive is refused: {reason}. Nothing of it was kept.")


# ── transient ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class BrokerUnavailable(TransientError):
    code = "broker.unavailable"
    title = "The queue is not reachable"

    def __init__(self) -> None:
        super().__init__("The queue is not reachable, so the series was not accepted. Send it again in a moment.")


class IssuerUnavailable(TransientError):
    code = "access.issuer_unavailable"
    title = "The identity provider is not reachable"

    def __init__(self) -> None:
        super().__init__("The token cannot be checked because the identity provider does not answer. Try again in a moment.")


class NotReady(TransientError):
    code = "service.not_ready"
    title = "The service is not ready"

    def __init__(self, *, reasons: Mapping[str, str]) -> None:
        found = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in reasons.items())
        super().__init__(f"Not ready: {found}. Series can be processed when everything is ready.")


class ServiceBusy(TransientError):
    code = "service.busy"
    title = "Too many uploads at once"

    def __init__(self) -> None:
        super().__init__(
            "The server is receiving as many uploads as it can. Nothing of this one was kept; send it again in a moment."
        )
