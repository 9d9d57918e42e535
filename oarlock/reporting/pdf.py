"""The report as PDF/A-3b.

Made in a process of its own with a limit of memory and of CPU time.

What stands in a report came from outside, the libraries that set it are large, and their import takes seconds: so none of it runs
in the service, nothing that a report names is fetched, and a document that takes too much costs itself alone.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from oarlock.errors import ReportFailed, StructureSetTooCostly
from oarlock.pipeline.apart import Failed, Limits, run_apart

_FONTS: Final = ("/usr/share/fonts", "/usr/local/share/fonts", "/etc/fonts", "/var/cache/fontconfig")


def _own_files() -> Iterator[Path]:
    """Where WeasyPrint lies, which reads its colour profile there; it is not imported for that."""
    found = find_spec("weasyprint")
    if found is not None and found.origin is not None:
        yield Path(found.origin).parent


READABLE: Final = (*map(Path, _FONTS), *_own_files())
"""Folders that the child may read: fonts, and the library's own."""

LIMITS: Final = Limits(memory_bytes=2 * 2**30, cpu_s=60, files=READABLE, prepared_by="oarlock.reporting.engine")
"""A report of six pictures takes 0.3 GB and 4 s, most of it for imports."""


def to_pdf(html: str) -> bytes:
    """A page of :func:`oarlock.reporting.page.to_html` as a PDF.

    :raises ReportFailed: if it took too much, or the libraries are not installed.
    """
    try:
        return run_apart(LIMITS, _render, html)
    except StructureSetTooCostly as error:
        raise ReportFailed(reason="it took too much memory or time") from error
    except Failed as error:
        raise ReportFailed(reason="WeasyPrint or its libraries are not installed") from error


def _render(html: str) -> bytes:
    from oarlock.reporting.engine import render

    return render(html)
