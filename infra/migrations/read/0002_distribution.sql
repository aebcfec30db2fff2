-- What read models need to be filled by several processes, by way of Kafka, and to be checked.

CREATE TABLE origin (
    projection text PRIMARY KEY,
    store_epoch uuid NOT NULL,
    filled uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON TABLE origin IS 'The log that filled each projection''s tables.';
COMMENT ON COLUMN origin.projection IS 'Name of the projection, with its version.';
COMMENT ON COLUMN origin.store_epoch IS 'Identity of that log: its head''s store_epoch.';
COMMENT ON COLUMN origin.filled IS 'Another with each filling of the tables, so that who knew the old rows notices.';

CREATE TABLE applied (
    projection text NOT NULL,
    partition int NOT NULL CHECK (partition >= 0),
    range bigint NOT NULL CHECK (range >= 0),
    events bigint NOT NULL,
    digest bigint NOT NULL,
    PRIMARY KEY (projection, partition, range)
) WITH (fillfactor = 50);
COMMENT ON TABLE applied IS 'Account of the events that each projection has taken in, to be compared with the log.';
COMMENT ON COLUMN applied.projection IS 'Name of the projection, with its version.';
COMMENT ON COLUMN applied.partition IS 'Partition of the events.';
COMMENT ON COLUMN applied.range IS 'Which 65,536 positions of the log: (position - 1) / 65536.';
COMMENT ON COLUMN applied.events IS 'How many events of them were applied or parked.';
COMMENT ON COLUMN applied.digest IS 'XOR of the first 8 bytes of the MD5 of "stream id:version" of these events.';

CREATE TABLE kafka_offset (
    projection text NOT NULL,
    partition int NOT NULL CHECK (partition >= 0),
    topic_id uuid NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (projection, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE kafka_offset IS 'Where to go on reading a partition of the topic: only a hint, positions decide what is applied.';
COMMENT ON COLUMN kafka_offset.projection IS 'Name of the projection, without its version.';
COMMENT ON COLUMN kafka_offset.partition IS 'Partition of the topic.';
COMMENT ON COLUMN kafka_offset.topic_id IS 'Id of the topic: offsets of one made anew mean nothing.';
COMMENT ON COLUMN kafka_offset.next_offset IS 'The first offset not yet read.';

GRANT SELECT, INSERT, UPDATE, DELETE ON origin, applied, kafka_offset TO crm_projector;
GRANT SELECT ON origin, applied, kafka_offset TO crm_reader;
