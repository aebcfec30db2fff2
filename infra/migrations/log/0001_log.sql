-- The log: every event for ever, in commit order.

CREATE TABLE head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL CHECK (position >= 0),
    recorded_at timestamptz NOT NULL,
    store_epoch uuid NOT NULL DEFAULT gen_random_uuid()
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE head IS
    'The end of the log: one row. An append locks it, takes its positions from it and gives them back if it rolls back, so positions have no gaps and follow the order of commits.';
COMMENT ON COLUMN head.one IS 'Always true: keeps the table at one row.';
COMMENT ON COLUMN head.position IS 'Position of the last event; 0 in an empty log.';
COMMENT ON COLUMN head.recorded_at IS 'recorded_at of the last event; the next one is never earlier.';
COMMENT ON COLUMN head.store_epoch IS
    'Identity of this log. A log restored to an earlier point or begun anew gets another, so that readers of the old one notice.';
INSERT INTO head (position, recorded_at) VALUES (0, 'epoch');

CREATE TABLE events (
    position bigint PRIMARY KEY CHECK (position >= 1),
    stream_id uuid NOT NULL,
    version int NOT NULL CHECK (version >= 0),
    topic text NOT NULL,
    class_version smallint NOT NULL,
    partition_key uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor text NOT NULL,
    command_id uuid NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id uuid,
    reason text,
    state bytea NOT NULL,
    CONSTRAINT events_stream_id_version_key UNIQUE (stream_id, version)
);
ALTER TABLE events ALTER COLUMN state SET STORAGE MAIN;
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN state SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;  -- this server was built without lz4: its own method serves as well
END $$;
COMMENT ON TABLE events IS 'What happened, one row per event. Rows are only ever added.';
COMMENT ON COLUMN events.position IS
    'Place in the whole log: 1, 2, 3, ... without gaps, in commit order. Who has seen position p has seen everything up to p.';
COMMENT ON COLUMN events.stream_id IS 'The aggregate (customer, opportunity, campaign, pipeline) it happened to.';
COMMENT ON COLUMN events.version IS 'Place in its stream, 1 for the first event.';
COMMENT ON COLUMN events.topic IS 'Kind of event, as crm.opportunity.stage-advanced.';
COMMENT ON COLUMN events.class_version IS 'Version of the layout of state; older ones are brought up to date when read.';
COMMENT ON COLUMN events.partition_key IS
    'What it is ordered with outside the log: the customer the fact belongs to, otherwise the stream itself.';
COMMENT ON COLUMN events.occurred_at IS 'When it was true in the world; may lie long before recorded_at.';
COMMENT ON COLUMN events.recorded_at IS 'When it was recorded; never falls from one position to the next.';
COMMENT ON COLUMN events.actor IS 'Id of the principal that gave the command.';
COMMENT ON COLUMN events.command_id IS 'The command; events of one command share it.';
COMMENT ON COLUMN events.correlation_id IS 'The conversation the command belongs to.';
COMMENT ON COLUMN events.causation_id IS 'What gave rise to the command, where it was not a person.';
COMMENT ON COLUMN events.reason IS 'Why, in the words of who gave the command.';
COMMENT ON COLUMN events.state IS 'The rest of the event as plain JSON in UTF-8; personal fields are encrypted.';

CREATE TABLE receipts (
    scope text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint NOT NULL,
    id uuid NOT NULL,
    version int NOT NULL,
    position bigint NOT NULL,
    extra jsonb,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX receipts_recorded_at ON receipts USING brin (recorded_at);
COMMENT ON TABLE receipts IS
    'Answers to commands done, stored in the transaction of their events: a command sent again gets its first answer.';
COMMENT ON COLUMN receipts.scope IS 'Whose key it is: the principal.';
COMMENT ON COLUMN receipts.key IS 'The idempotency key the client gave.';
COMMENT ON COLUMN receipts.request_hash IS 'Keyed hash of method, path, body and If-Match: the same key with another request is refused.';
COMMENT ON COLUMN receipts.status IS 'HTTP status of the answer.';
COMMENT ON COLUMN receipts.id IS 'The aggregate in the answer.';
COMMENT ON COLUMN receipts.version IS 'Its version in the answer.';
COMMENT ON COLUMN receipts.position IS 'The position in the answer.';
COMMENT ON COLUMN receipts.extra IS 'What else the answer held, as the id of a contact that was added.';
COMMENT ON COLUMN receipts.recorded_at IS 'Receipts are deleted by age (CRM_RECEIPT_DAYS).';

CREATE TABLE tracking (
    application_name text PRIMARY KEY,
    notification_id bigint NOT NULL
);
COMMENT ON TABLE tracking IS 'How far other applications'' notifications were processed into this log, for the library''s process recorder.';
COMMENT ON COLUMN tracking.application_name IS 'The other application.';
COMMENT ON COLUMN tracking.notification_id IS 'The last notification of it that was processed; never falls.';

CREATE TABLE snapshots (
    stream_id uuid NOT NULL,
    version int NOT NULL CHECK (version >= 0),
    topic text NOT NULL,
    class_version smallint NOT NULL,
    state bytea NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream_id, version)
);
COMMENT ON TABLE snapshots IS 'States of long streams, to load them faster. Can be deleted at any time: all of it follows from the events.';
COMMENT ON COLUMN snapshots.stream_id IS 'The aggregate.';
COMMENT ON COLUMN snapshots.version IS 'The version of the aggregate that this is the state of.';
COMMENT ON COLUMN snapshots.topic IS 'Kind of aggregate, as crm.customer.';
COMMENT ON COLUMN snapshots.class_version IS 'Version of the layout of state; older ones are brought up to date when read.';
COMMENT ON COLUMN snapshots.state IS 'The state as plain JSON in UTF-8; personal fields are encrypted.';
COMMENT ON COLUMN snapshots.taken_at IS 'When it was taken.';

CREATE FUNCTION position_at(instant timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT AS $$
DECLARE
    low bigint := 0;  -- up to here all was recorded by then
    high bigint := (SELECT head.position FROM head);  -- after here all was recorded later
    middle bigint;
    seen timestamptz;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        SELECT events.recorded_at INTO STRICT seen FROM events WHERE events.position = middle;
        IF seen <= instant THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
COMMENT ON FUNCTION position_at(timestamptz) IS
    'The last position recorded by that instant, 0 if none: a binary search on the primary key, which serves because positions have no gaps and recorded_at never falls.';

CREATE VIEW outbox AS
SELECT
    md5(stream_id::text || ':' || version::text)::uuid AS id,
    coalesce(nullif(split_part(topic, '.', 2), ''), topic) AS aggregatetype,
    stream_id::text AS aggregateid,
    topic AS type,
    state AS payload,
    position
FROM events;
COMMENT ON VIEW outbox IS 'The events under the names that Debezium''s outbox event router expects.';
COMMENT ON COLUMN outbox.id IS 'Id of the event, always the same for the same stream and version.';
COMMENT ON COLUMN outbox.aggregatetype IS 'Kind of aggregate, as opportunity.';
COMMENT ON COLUMN outbox.aggregateid IS 'The stream.';
COMMENT ON COLUMN outbox.type IS 'Kind of event: its topic.';
COMMENT ON COLUMN outbox.payload IS
    'The event as it is stored, JSON in UTF-8. Bytes, not jsonb: a view that converted them would fail as a whole on one bad row.';
COMMENT ON COLUMN outbox.position IS 'Place in the log, to read on from.';

DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_writer, crm_projector, crm_reader', current_schema());
END $$;
GRANT SELECT, UPDATE ON head TO crm_writer;
GRANT SELECT, INSERT ON events TO crm_writer;
GRANT SELECT, INSERT, DELETE ON receipts TO crm_writer;
GRANT SELECT, INSERT, UPDATE ON tracking TO crm_writer;
GRANT SELECT, INSERT, DELETE ON snapshots TO crm_writer;
GRANT SELECT ON head, events TO crm_projector, crm_reader;
GRANT SELECT ON outbox TO crm_projector, crm_reader;
