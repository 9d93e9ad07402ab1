"""ledger parents

On PostgreSQL a delivery's contact and emailer are looked up once for all rows that a statement
inserts, not row by row: docs/adr/0017-parents-looked-up-at-once.md.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-22 23:40:00

"""

from alembic import op

# revision identifiers, used by Alembic.
revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PARENTS = {"contact_id": "contacts", "emailer_id": "emailers"}


def upgrade():
    if op.get_bind().dialect.name != "postgresql":
        return
    _hold_still()
    for function in (_HAVE_PARENTS, _HAVE_CONTACT, _STAY_WITH_DELIVERIES, _REFUSE):
        op.execute(function)
    for trigger in _TRIGGERS:
        op.execute(f"CREATE TRIGGER {trigger}")
    for column in _PARENTS:
        op.drop_constraint(f"fk_deliveries_{column}", "deliveries")


def downgrade():
    if op.get_bind().dialect.name != "postgresql":
        return
    _hold_still()
    for column, parents in _PARENTS.items():
        op.create_foreign_key(f"fk_deliveries_{column}", "deliveries", parents, [column], ["id"])
    op.execute(
        "DROP FUNCTION deliveries_have_parents, deliveries_have_contact, emailers_stay,"
        " refuse_change CASCADE"
    )


def _hold_still():
    # Processes of the older release are at work. All that is needed at once, so that nobody can
    # come in between; and not for long, since everybody waits behind who waits for this.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("LOCK TABLE contacts, emailers, deliveries IN ACCESS EXCLUSIVE MODE")


# A foreign key looks up each row's parent by a statement of its own and locks it, which writes
# each contact anew: 16 us of a delivery's 25. So many at once are one statement here.
#
# It promises what a foreign key does. Emailers are few: they are locked until the commit, and one
# with deliveries cannot go. Contacts are as many as the deliveries: none ever goes.
#
# A plan is made once a connection, for one row or for a million. Without sequential scans it is
# the same, a probe of the key for each parent.
_HAVE_PARENTS = """
CREATE FUNCTION deliveries_have_parents() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
    named integer[] := ARRAY(SELECT DISTINCT emailer_id FROM born WHERE emailer_id IS NOT NULL);
    known bigint;
    nobody integer;
BEGIN
    PERFORM FROM emailers WHERE id = ANY (named) FOR KEY SHARE;
    GET DIAGNOSTICS known = ROW_COUNT;
    IF known < cardinality(named) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('deliveries of emailers %s, which are not all there', named),
            CONSTRAINT = 'fk_deliveries_emailer_id';
    END IF;
    SELECT contact_id INTO nobody FROM born
        WHERE (SELECT id FROM contacts WHERE id = born.contact_id) IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('a delivery for contact %s, who is not there', nobody),
            CONSTRAINT = 'fk_deliveries_contact_id';
    END IF;
    RETURN NULL;
END $$
"""

_HAVE_CONTACT = """
CREATE FUNCTION deliveries_have_contact() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM contacts WHERE id = NEW.contact_id) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('a delivery for contact %s, who is not there', NEW.contact_id),
            CONSTRAINT = 'fk_deliveries_contact_id';
    END IF;
    RETURN NULL;
END $$
"""

_STAY_WITH_DELIVERIES = """
CREATE FUNCTION emailers_stay() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    -- The row is locked by now: a delivery that was about to be committed is there to be seen.
    IF EXISTS (SELECT FROM deliveries WHERE emailer_id = OLD.id) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('emailer %s has deliveries, so it stays', OLD.id),
            CONSTRAINT = 'fk_deliveries_emailer_id';
    END IF;
    RETURN OLD;
END $$
"""

_REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING MESSAGE = TG_ARGV[0];
END $$
"""

_TRIGGERS = (
    "have_parents AFTER INSERT ON deliveries REFERENCING NEW TABLE AS born"
    " FOR EACH STATEMENT EXECUTE FUNCTION deliveries_have_parents()",
    "keep_emailer BEFORE UPDATE OF emailer_id ON deliveries"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a delivery keeps its emailer')",
    # One of an action that is brought back may go to another contact.
    "have_contact AFTER UPDATE OF contact_id ON deliveries"
    " FOR EACH ROW WHEN (OLD.contact_id <> NEW.contact_id)"
    " EXECUTE FUNCTION deliveries_have_contact()",
    "stay BEFORE DELETE OR UPDATE OF id ON contacts"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a contact stays, or leaves a tombstone')",
    "stay BEFORE DELETE ON emailers FOR EACH ROW EXECUTE FUNCTION emailers_stay()",
    "keep_id BEFORE UPDATE OF id ON emailers"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('an emailer keeps its id')",
)
