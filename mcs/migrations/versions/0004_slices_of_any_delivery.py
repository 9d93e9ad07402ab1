"""slices of any delivery

Deliveries are numbered beyond what an integer of PostgreSQL holds, so the slices that name the
first and the last of theirs are, too.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-23 12:00:00

"""

from alembic import op

# revision identifiers, used by Alembic.
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    _number_as("bigint")


def downgrade():
    _number_as("integer")


def _number_as(type_):
    # SQLite has one kind of integer.
    if op.get_bind().dialect.name != "postgresql":
        return
    # Processes of the older release are at work, and everybody waits behind who waits for this.
    op.execute("SET LOCAL lock_timeout = '10s'")
    # Both at once: each statement writes the table anew. A statement that a process has prepared,
    # and that returns one of them, fails once: workers are better stopped before.
    op.execute(
        f"ALTER TABLE slices ALTER COLUMN low_id TYPE {type_}, ALTER COLUMN high_id TYPE {type_}"
    )
