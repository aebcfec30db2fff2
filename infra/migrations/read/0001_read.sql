-- What every projection shares: how far it is, and what it could not apply.
-- The tables of the read models themselves are made by their projections.

CREATE TABLE position (
    projection text NOT NULL,
    partition int NOT NULL CHECK (partition >= 0),
    position bigint NOT NULL CHECK (position >= 0),
    PRIMARY KEY (projection, partition)
);
COMMENT ON TABLE position IS 'How far each projection is. Changed in the transaction of the rows, and only from the value it was read at.';
COMMENT ON COLUMN position.projection IS 'Name of the projection, with its version.';
COMMENT ON COLUMN position.partition IS 'Partition of the events: a stable hash of their partition key.';
COMMENT ON COLUMN position.position IS 'Last position of the log that is applied in this partition.';

CREATE TABLE parked (
    projection text NOT NULL,
    key uuid NOT NULL,
    position bigint NOT NULL,
    event jsonb NOT NULL,
    error text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, key, position)
);
COMMENT ON TABLE parked IS 'Events a projection could not apply, and the later events of the same key, which wait for them.';
COMMENT ON COLUMN parked.projection IS 'Name of the projection, with its version.';
COMMENT ON COLUMN parked.key IS 'The key (customer, opportunity, campaign) whose events wait.';
COMMENT ON COLUMN parked.position IS 'Position of the event in the log.';
COMMENT ON COLUMN parked.event IS 'The event as it was read; personal fields are encrypted.';
COMMENT ON COLUMN parked.error IS 'What went wrong; empty for one that only waits.';
COMMENT ON COLUMN parked.parked_at IS 'When it was parked.';

DO $$ BEGIN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO crm_projector', current_schema());
    -- a rebuild fills a schema of its own, which takes the place of the live tables at the end
    EXECUTE format('GRANT CREATE ON DATABASE %I TO crm_projector', current_database());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_reader', current_schema());
END $$;
-- Set by the role itself: a login that does not inherit its rights could not.
SET LOCAL ROLE crm_projector;
DO $$ BEGIN
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO crm_reader', current_schema());
END $$;
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON position, parked TO crm_projector;
GRANT SELECT ON position, parked TO crm_reader;
