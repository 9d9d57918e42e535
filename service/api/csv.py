"""Who wants CSV (RFC 4180)."""


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header prefers CSV to JSON.

    It names text/csv, and JSON not before it (RFC 9110, 12.5.1).
    """
    weights = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        if media_type in weights and weight.replace(".", "", 1).isdecimal():
            weights[media_type] = float(weight)
    return weights["text/csv"] > weights["application/json"]
