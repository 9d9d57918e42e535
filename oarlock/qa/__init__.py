"""The QA report: surface distances, scores, plausibility, control charts. Arrays in, values out."""
