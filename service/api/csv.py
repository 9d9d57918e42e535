"""Rows of scores as CSV (RFC 4180)."""

import csv
import io
from collections.abc import Iterable

from service.api.schemas.qa import ScoreRow


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) names text/csv, and JSON not before it."""
    weights = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        if media_type in weights and weight.replace(".", "", 1).isdecimal():
            weights[media_type] = float(weight)
    return weights["text/csv"] > weights["application/json"]


def to_csv(rows: Iterable[ScoreRow]) -> str:
    """A header, then one line a row; an undefined number is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ScoreRow.model_fields))
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.model_dump(mode="json").items()} for row in rows)
    return text.getvalue()


def _safe(value: object) -> object:
    """The value; text that begins like a formula is quoted (OWASP, "CSV Injection")."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value
