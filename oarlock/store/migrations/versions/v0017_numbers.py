"""Counts that tell origins, versions and scanners apart.

And findings by organ and day.

What was counted of surface DSC is counted anew from the scores. Of the checks only their sum was known: it stays, under no organ.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

BOUNDS: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)
"""Upper bounds of the buckets but the last, as they are at this step."""

RECORD_BYTES: Final = 18
"""Of an organ in packed scores, as they are at this step."""


def upgrade() -> None:
    """Make the tables anew, from what is known."""
    op.drop_table("qa_histogram")
    op.create_table(
        "qa_histogram",
        sa.Column("stream_id", sa.Integer, sa.ForeignKey("qa_streams.id"), primary_key=True),
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cases", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Float, nullable=False),
    )
    bucket = " ".join(f"WHEN q.surface_dsc <= {bound} THEN {place}" for place, bound in enumerate(BOUNDS))
    op.execute(f"""
        INSERT INTO qa_histogram
        SELECT c.stream_id, c.origin, q.oar, CASE {bucket} ELSE {len(BOUNDS)} END AS bucket, COUNT(*), SUM(q.surface_dsc)
        FROM qa_scores q JOIN qa_cases c ON c.id = q.case_id WHERE q.surface_dsc IS NOT NULL
        GROUP BY c.stream_id, c.origin, q.oar, CASE {bucket} ELSE {len(BOUNDS)} END
    """)  # noqa: S608 - numbers of this module
    op.rename_table("qa_checks", "qa_checks_before")
    op.create_table(
        "qa_checks",
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("level", sa.Text, primary_key=True),
        sa.Column("findings", sa.BigInteger, nullable=False),
    )
    op.execute("""
        INSERT INTO qa_checks
        SELECT CASE WHEN code LIKE 'verdict:%' THEN SUBSTR(code, 9) ELSE '' END,
               CASE WHEN code LIKE 'verdict:%' THEN 'verdict' ELSE code END, level, findings
        FROM qa_checks_before
    """)
    op.drop_table("qa_checks_before")
    op.create_table(
        "qa_findings",
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stream_id", sa.Integer, sa.ForeignKey("qa_streams.id"), primary_key=True),
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("level", sa.Text, primary_key=True),
        sa.Column("findings", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Make the tables of before, with the sums of what is known.

    Packed scores said then only whether both sides drew an organ.
    """
    op.drop_table("qa_findings")
    op.rename_table("qa_histogram", "qa_histogram_after")
    op.create_table(
        "qa_histogram",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("oar", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cases", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Float, nullable=False),
    )
    op.execute("""
        INSERT INTO qa_histogram SELECT s.model, h.oar, h.bucket, SUM(h.cases), SUM(h.total)
        FROM qa_histogram_after h JOIN qa_streams s ON s.id = h.stream_id GROUP BY s.model, h.oar, h.bucket
    """)
    op.drop_table("qa_histogram_after")
    op.rename_table("qa_checks", "qa_checks_after")
    op.create_table(
        "qa_checks",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("level", sa.Text, primary_key=True),
        sa.Column("findings", sa.BigInteger, nullable=False),
    )
    code = "CASE WHEN code = 'verdict' AND oar <> '' THEN 'verdict:' || oar ELSE code END"
    op.execute(f"INSERT INTO qa_checks SELECT {code}, level, SUM(findings) FROM qa_checks_after GROUP BY {code}, level")  # noqa: S608
    op.drop_table("qa_checks_after")
    _tell_one_side_as_before()


def _tell_one_side_as_before() -> None:
    """Of each packed record the second byte: 1 for both sides, 0 for one of them."""
    days = sa.table("qa_days", *map(sa.column, ("day", "stream_id", "origin", "scores")))
    connection = op.get_bind()
    for row in connection.execute(sa.select(days)).all():
        scores = bytearray(row.scores)
        scores[1::RECORD_BYTES] = bytes(int(who == 1) for who in scores[1::RECORD_BYTES])
        same = (days.c.day == row.day) & (days.c.stream_id == row.stream_id) & (days.c.origin == row.origin)
        connection.execute(sa.update(days).where(same).values(scores=bytes(scores)))
