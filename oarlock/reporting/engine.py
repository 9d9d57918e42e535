"""WeasyPrint, ready for a process that opens no more files.

Importing this module sets a document of our own: what the libraries load when they are first used is there after that.
"""

from typing import Final

from weasyprint import HTML
from weasyprint.urls import URLFetcher

_ONLY_DATA: Final = URLFetcher(allowed_protocols={"data"})
"""A report names no address but those that hold their content; a text that a sender wrote must not fetch one either."""


def render(html: str) -> bytes:
    """A page as PDF/A-3b."""
    return bytes(HTML(string=html, url_fetcher=_ONLY_DATA).write_pdf(pdf_variant="pdf/a-3b"))


_PIXEL: Final = (
    "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQEAYABgAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0"
    "Hyc5PTgyPC4zNDL/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
)
render(f'<p style="font-family: sans-serif"><b>é – ≥</b> <i>x</i></p><img src="{_PIXEL}">')
