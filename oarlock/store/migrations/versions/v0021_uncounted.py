"""Findings that wait to be counted; the queue in its order.

The order is that in which the queue is asked for.

Jobs that end at once no longer wait for each other's counters; a place in a long queue is read off an index.
"""

import json
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Make the table, and leave room in the pages of jobs.

    Rows change often, and then stay where they are.
    """
    op.create_table(
        "qa_uncounted",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("stream_id", sa.Integer, sa.ForeignKey("qa_streams.id"), nullable=False),
        sa.Column("shadow", sa.Boolean, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
    )
    op.drop_index("jobs_by_queue", "jobs")
    op.create_index("jobs_by_place", "jobs", ["state", "site", "rank", "queued_at", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE jobs SET (fillfactor = 70)")


def downgrade() -> None:
    """Count what waits, then drop the table."""
    connection = op.get_bind()
    op.drop_index("jobs_by_place", "jobs")
    op.create_index("jobs_by_queue", "jobs", ["state", "rank", "queued_at", "id"])
    in_all: Counter[tuple[str, ...]] = Counter()
    by_day: Counter[tuple[int | str, ...]] = Counter()
    for day, stream_id, shadow, findings in connection.execute(
        sa.text("SELECT day, stream_id, shadow, findings FROM qa_uncounted")
    ):
        found = [tuple(one) for one in json.loads(findings)]
        by_day.update((day, stream_id, *one) for one in found)
        in_all.update(() if shadow else found)
    _add("qa_checks", ("oar", "code", "level"), in_all)
    _add("qa_findings", ("day", "stream_id", "oar", "code", "level"), by_day)
    op.drop_table("qa_uncounted")
    if connection.dialect.name == "postgresql":
        op.execute("ALTER TABLE jobs RESET (fillfactor)")


def _add(table: str, names: tuple[str, ...], counted: Counter[tuple[int | str, ...]] | Counter[tuple[str, ...]]) -> None:
    same = " AND ".join(f"{name} = :{name}" for name in names)
    grow = sa.text(f"UPDATE {table} SET findings = findings + :n WHERE {same}")  # noqa: S608 - names from above
    new = sa.text(f"INSERT INTO {table} ({', '.join(names)}, findings) VALUES (:{', :'.join(names)}, :n)")  # noqa: S608
    for key, n in sorted(counted.items()):
        values = dict(zip(names, key, strict=True)) | {"n": n}
        if not op.get_bind().execute(grow, values).rowcount:
            op.get_bind().execute(new, values)
