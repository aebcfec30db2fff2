-- Auditors look events up by who, by command and by cause, in a log of any length.

-- Summaries of ranges of pages (BRIN), made when a range is full: an append adds nothing to them.
-- The position is in it so that a look goes on from where another ended, and so that the planner,
-- which takes the order of rows for a measure of how many ranges a value lies in, uses the index.
CREATE INDEX events_audit ON events USING brin (
    position,
    command_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    correlation_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    causation_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    (md5(stream_id::text || ':' || version::text)::uuid)
        uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    actor text_bloom_ops (n_distinct_per_range = 64),
    topic text_bloom_ops (n_distinct_per_range = 64)
) WITH (pages_per_range = 16, autosummarize = on);
COMMENT ON INDEX events_audit IS
    'Which ranges of the table may hold events of a command, conversation, cause, event id, actor or topic.';
-- Ranges whose summary was not made at once are left to the vacuum of new rows: often, since
-- looks go through all that is not summarised. It reads new pages only.
ALTER TABLE events SET (
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000
);

-- Which answer a command got. Not the hash of its request.
GRANT SELECT (scope, key, status, id, version, position, recorded_at) ON receipts TO crm_reader;
