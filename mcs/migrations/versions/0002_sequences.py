"""sequences

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-22 02:15:00

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Born with the tables' last rewriting on SQLite: a rewriting would copy them, which it refuses.
_EXCEPTION = sa.Computed(
    "CASE WHEN state IN ('failed', 'in_doubt', 'skipped') THEN state END", persisted=True
)
_OPEN = sa.Computed("pending + sending > 0", persisted=True)


def upgrade():
    _campaigns()
    _action_definitions()
    _schedules()
    _actions()
    _api_tokens()
    _kept_answers()
    _slices()
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.alter_column(
            "action_id",
            existing_type=sa.Integer(),
            type_=sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        )
        batch_op.create_foreign_key("fk_deliveries_action_id", "actions", ["action_id"], ["id"])
        batch_op.add_column(sa.Column("slice_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key("fk_deliveries_slice_id", "slices", ["slice_id"], ["id"])
        batch_op.add_column(sa.Column("exception", sa.String(length=10), _EXCEPTION, nullable=True))
    op.create_index(
        "ix_deliveries_slice_id",
        "deliveries",
        ["slice_id"],
        sqlite_where=sa.text("slice_id IS NOT NULL"),
        postgresql_where=sa.text("slice_id IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_exception",
        "deliveries",
        ["exception", "emailer_id", "id"],
        sqlite_where=sa.text("exception IS NOT NULL"),
        postgresql_where=sa.text("exception IS NOT NULL"),
    )


def _slices():
    # SQLite adds no stored column to a table that is there.
    with op.batch_alter_table("slices", recreate="always") as batch_op:
        batch_op.alter_column("emailer_id", existing_type=sa.Integer(), nullable=True)
        batch_op.add_column(sa.Column("scenario_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("open", sa.Boolean(), _OPEN, nullable=False))
        batch_op.create_foreign_key("fk_slices_scenario_id", "scenarios", ["scenario_id"], ["id"])
        batch_op.create_check_constraint(
            op.f("ck_slices_one_parent"), "(emailer_id IS NULL) <> (scenario_id IS NULL)"
        )
    op.create_index("ix_slices_scenario_id", "slices", ["scenario_id"])
    op.create_index(
        "ix_slices_claim_token",
        "slices",
        ["claim_token"],
        sqlite_where=sa.text("claim_token IS NOT NULL"),
        postgresql_where=sa.text("claim_token IS NOT NULL"),
    )
    op.create_index(
        "ix_slices_open",
        "slices",
        ["due_at"],
        sqlite_where=sa.text("open"),
        postgresql_where=sa.text("open"),
    )


def _campaigns():
    with op.batch_alter_table("campaigns") as batch_op:
        batch_op.add_column(
            sa.Column("enrols_added", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch_op.add_column(
            sa.Column("edition", sa.String(length=16), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("enrol_asked_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("held_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column("notice", sa.String(length=500), server_default="", nullable=False)
        )
        batch_op.add_column(sa.Column("cuts", sa.Integer(), server_default="0", nullable=False))


def _action_definitions():
    op.create_table(
        "action_definitions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("callback", sa.String(length=100), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("offset", sa.String(length=200), nullable=False),
        sa.Column("time", sa.String(length=100), nullable=False),
        sa.Column("days", sa.String(length=200), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=False),
        sa.Column("repeat", sa.String(length=200), nullable=False),
        sa.Column("after", sa.String(length=110), nullable=False),
        sa.Column("on_failure", sa.String(length=10), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "on_failure IN ('wait', 'skip', 'go_on')", name="ck_action_definitions_on_failure"
        ),
        sa.CheckConstraint("max_attempts > 0", name="ck_action_definitions_max_attempts"),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_action_definitions_campaign_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_action_definitions"),
        sa.UniqueConstraint("campaign_id", "key", name="uq_action_definitions_campaign_id_key"),
    )


def _schedules():
    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("subject_id", sa.String(length=255), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("run > 0", name="ck_schedules_run"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_schedules_campaign_id"),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name="fk_schedules_contact_id"),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint(
            "campaign_id",
            "subject",
            "subject_id",
            "run",
            name="uq_schedules_campaign_id_subject_subject_id_run",
        ),
    )
    op.create_index(
        "ix_schedules_contact_id",
        "schedules",
        ["contact_id"],
        sqlite_where=sa.text("contact_id IS NOT NULL"),
        postgresql_where=sa.text("contact_id IS NOT NULL"),
    )


def _actions():
    op.create_table(
        "actions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("schedule_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("occurrence", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("expected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim_token", sa.String(length=22), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'processing', 'completed', 'failed', 'cancelled')",
            name="ck_actions_state",
        ),
        sa.CheckConstraint(
            "state <> 'completed' OR completed_at IS NOT NULL",
            name="ck_actions_completed_has_time",
        ),
        sa.CheckConstraint(
            "state <> 'cancelled' OR reason <> ''", name="ck_actions_cancelled_has_reason"
        ),
        sa.CheckConstraint("occurrence > 0", name="ck_actions_occurrence"),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name="fk_actions_schedule_id"),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
        sa.UniqueConstraint(
            "schedule_id", "key", "occurrence", name="uq_actions_schedule_id_key_occurrence"
        ),
    )
    op.create_index(
        "ix_actions_state_due_at",
        "actions",
        ["state", "due_at"],
        postgresql_where=sa.text("state IN ('pending', 'failed')"),
    )
    op.create_index(
        "ix_actions_lease_until",
        "actions",
        ["lease_until"],
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )


def _api_tokens():
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scope", sa.String(length=10), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("ending", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('read', 'enrol', 'manage')", name="ck_api_tokens_scope"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_api_tokens_created_by"),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_tokens_token_hash"),
    )


def _kept_answers():
    op.create_table(
        "kept_answers",
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("location", sa.String(length=500), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["token_id"], ["api_tokens.id"], name="fk_kept_answers_token_id"),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_kept_answers"),
    )
    op.create_index("ix_kept_answers_first_at", "kept_answers", ["first_at"])
