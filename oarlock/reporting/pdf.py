"""The report as PDF/A-3b.

Made in a process of its own with a limit of memory and of CPU time.

What stands in a report came from outside, the libraries that set it are large, and their import takes seconds: so none of it runs
in the service, nothing that a report names is fetched, and a document that takes too much costs itself alone.
"""

from typing import Final

from oarlock.errors import ReportFailed, StructureSetTooCostly
from oarlock.pipeline.apart import Failed, Limits, run_apart

LIMITS: Final = Limits(memory_bytes=2 * 2**30, cpu_s=60)
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
    """A report names no address but those that hold their content; a text that a sender wrote must not fetch one either."""
    from weasyprint import HTML
    from weasyprint.urls import URLFetcher

    only_data = URLFetcher(allowed_protocols={"data"})
    return bytes(HTML(string=html, url_fetcher=only_data).write_pdf(pdf_variant="pdf/a-3b"))
