-- Erasures, and which master key wrapped which key.

ALTER TABLE keys ADD COLUMN master text;
COMMENT ON COLUMN keys.master IS
    'Fingerprint of the master key that encrypted the key; null for one of before there were fingerprints.';

CREATE TABLE master (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fingerprint text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE master IS
    'The master key in force, one row from the first key on. A key is only added while the row names the master key that wrapped it, so that none is added with a former one.';
COMMENT ON COLUMN master.one IS 'Always true: keeps the table at one row.';
COMMENT ON COLUMN master.fingerprint IS 'The first 16 hexadecimal digits of a hash of the master key, which itself is in a file.';
COMMENT ON COLUMN master.since IS 'Since when it is in force.';

CREATE TABLE erasures (
    subject uuid PRIMARY KEY,
    customer_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('contact', 'customer')),
    erased_at timestamptz NOT NULL,
    actor text NOT NULL,
    reason text,
    position bigint CHECK (position >= 1),
    since_position bigint,
    sealed_fields int,
    positions bigint[],
    in_clear bigint[]
);
COMMENT ON TABLE erasures IS
    'Persons whose keys were destroyed on request, one row each, kept for ever. The same is in a file outside the database, so that a backup from before brings nobody back.';
COMMENT ON COLUMN erasures.subject IS 'The person: a contact, or a customer of kind person.';
COMMENT ON COLUMN erasures.customer_id IS 'The customer that the person is, or belongs to.';
COMMENT ON COLUMN erasures.kind IS 'contact or customer.';
COMMENT ON COLUMN erasures.erased_at IS 'When the key was first destroyed.';
COMMENT ON COLUMN erasures.actor IS 'Id of the principal that asked for it.';
COMMENT ON COLUMN erasures.reason IS 'Why, in the words of who asked for it; not in the file, but with the event.';
COMMENT ON COLUMN erasures.position IS 'Position of the event that records it; null until there is one.';
COMMENT ON COLUMN erasures.since_position IS 'Position of the first event about the person; null until the event is recorded.';
COMMENT ON COLUMN erasures.sealed_fields IS 'How many sealed texts in the log the key had opened; null until the event is recorded.';
COMMENT ON COLUMN erasures.positions IS 'Positions of the events that hold them, the first thousand.';
COMMENT ON COLUMN erasures.in_clear IS
    'Positions of events of earlier versions of the program that hold attributes of the person in the clear, the first thousand.';

GRANT SELECT, INSERT, UPDATE ON master TO crm_vault;
GRANT SELECT, INSERT ON erasures TO crm_vault;
GRANT UPDATE (reason, position, since_position, sealed_fields, positions, in_clear)
    ON erasures TO crm_vault;
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
        GRANT MAINTAIN ON keys TO crm_vault;  -- to VACUUM what an erasure leaves behind
    END IF;
END $$;
