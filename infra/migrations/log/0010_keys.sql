-- An erasure, and the certificate of it, look for the events of one customer's partition key.

-- As before, and the key beside it: one index more would be read and summarised by itself.
DROP INDEX events_audit;
CREATE INDEX events_audit ON events USING brin (
    position,
    partition_key uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    command_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    correlation_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    causation_id uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    (md5(stream_id::text || ':' || version::text)::uuid)
        uuid_bloom_ops (n_distinct_per_range = 512, false_positive_rate = 0.0005),
    actor text_bloom_ops (n_distinct_per_range = 64),
    topic text_bloom_ops (n_distinct_per_range = 64)
) WITH (pages_per_range = 16, autosummarize = on);
COMMENT ON INDEX events_audit IS
    'Which ranges of the table may hold events of a key, command, conversation, cause, event id, actor or topic.';
