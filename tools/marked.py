"""The part of a page between two markers, which a command writes."""

from pathlib import Path


def replaced(text: str, name: str, part: str) -> str:
    """A page's text with ``part`` between its markers.

    The markers are ``<!-- name: …-->`` and ``<!-- name: end -->``.

    :raises ValueError: if the page lacks the markers.
    """
    before, begin, rest = text.partition(f"<!-- {name}: ")
    command, arrow, rest = rest.partition(" -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->")
    if not (begin and arrow and end):
        msg = f"a page has no markers named {name}"
        raise ValueError(msg)
    return f"{before}{begin}{command}{arrow}\n{part.strip()}\n\n{end}{after}"


def part_of(text: str, name: str) -> str:
    """What stands between the markers, without blank lines around it."""
    return text.partition(f"<!-- {name}: ")[2].partition(" -->\n")[2].partition(f"<!-- {name}: end -->")[0].strip()


def write(page: Path, name: str, part: str) -> None:
    """Put ``part`` between the markers of a page."""
    page.write_text(replaced(page.read_text(encoding="utf-8"), name, part), encoding="utf-8")
