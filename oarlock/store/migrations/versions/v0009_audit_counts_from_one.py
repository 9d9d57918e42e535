"""Entries of the audit log are numbered from 1.

One before the first would stand outside of the chain.
"""

from typing import Final

from alembic import op

revision = "0009"
down_revision = "0008"

SQLITE: Final = (
    """
    CREATE TRIGGER audit_counts_from_one BEFORE INSERT ON audit WHEN NEW.seq < 1
    BEGIN SELECT RAISE(ABORT, 'entries of the audit log are numbered from 1'); END
    """,
)
POSTGRESQL: Final = (
    """
    CREATE FUNCTION audit_counts_from_one() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'entries of the audit log are numbered from 1'; END $$
    """,
    """
    CREATE TRIGGER audit_counts_from_one BEFORE INSERT ON audit
    FOR EACH ROW WHEN (NEW.seq < 1) EXECUTE FUNCTION audit_counts_from_one()
    """,
)


def upgrade() -> None:
    """Refuse such an entry from now on.

    ``oarlock audit verify`` finds one that is there already.
    """
    for statement in POSTGRESQL if op.get_bind().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """Let the trigger go."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_counts_from_one ON audit")
        op.execute("DROP FUNCTION audit_counts_from_one()")
    else:
        op.execute("DROP TRIGGER audit_counts_from_one")
