-- What the relay, which carries the log to Kafka, knows between two runs: one row.

CREATE TABLE relay (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    position bigint CHECK (position >= 0),
    store_epoch uuid,
    topic text,
    topic_id uuid,
    previous bigint[],
    offsets bigint[],
    saved_at timestamptz
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE relay IS 'The relay''s lease and cursor: one row.';
COMMENT ON COLUMN relay.one IS 'Always true: keeps the table at one row.';
COMMENT ON COLUMN relay.holder IS 'The process that publishes; others stand by.';
COMMENT ON COLUMN relay.epoch IS 'Rises with every taking over. The cursor is saved only under one''s own.';
COMMENT ON COLUMN relay.expires_at IS 'From then on another process may take over.';
COMMENT ON COLUMN relay.position IS 'The cursor: every event up to here was acknowledged by Kafka. NULL before anything was published.';
COMMENT ON COLUMN relay.store_epoch IS 'The log that the cursor is of.';
COMMENT ON COLUMN relay.topic IS 'The topic that the cursor is of.';
COMMENT ON COLUMN relay.topic_id IS 'Its id in Kafka: one made anew under the same name has another.';
COMMENT ON COLUMN relay.previous IS 'By partition: the last event up to the cursor, 0 if none.';
COMMENT ON COLUMN relay.offsets IS 'By partition: the topic''s end after what was acknowledged. A lower end means that Kafka lost data.';
COMMENT ON COLUMN relay.saved_at IS 'When the cursor was last saved.';
INSERT INTO relay DEFAULT VALUES;

DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_relay', current_schema());
END $$;
GRANT SELECT ON head, events TO crm_relay;
GRANT SELECT, UPDATE ON relay TO crm_relay;
GRANT SELECT ON relay TO crm_reader, crm_projector;
