-- Proof that the log is whole and unchanged: a Merkle tree over its events, and signed checkpoints.

CREATE TABLE seal (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    log_id uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON TABLE seal IS 'What the log is called in checkpoints: one row.';
COMMENT ON COLUMN seal.one IS 'Always true: keeps the table at one row.';
COMMENT ON COLUMN seal.log_id IS
    'Made once with the log and carried over by restores. Only a log that lost sealed events for good gets another.';
INSERT INTO seal DEFAULT VALUES;

CREATE TABLE seal_key (
    vkey text PRIMARY KEY,
    log_id uuid NOT NULL,
    first_size bigint NOT NULL CHECK (first_size >= 0),
    last_size bigint CHECK (last_size >= first_size),
    added_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE seal_key IS
    'Keys that checkpoints were signed by. Tells which there were; whom to trust is decided outside the database.';
COMMENT ON COLUMN seal_key.vkey IS 'The public key as C2SP signed-note names it: name+hash+key.';
COMMENT ON COLUMN seal_key.log_id IS 'The log it signs for.';
COMMENT ON COLUMN seal_key.first_size IS 'Size of the first checkpoint it signed.';
COMMENT ON COLUMN seal_key.last_size IS 'Size of the checkpoint by which it handed over to the next; NULL while it signs.';
COMMENT ON COLUMN seal_key.added_at IS 'When it was first used.';

CREATE TABLE tile (
    level smallint NOT NULL CHECK (level >= 0),
    index bigint NOT NULL CHECK (index >= 0),
    hashes bytea NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, index)
);
ALTER TABLE tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE tile IS 'The Merkle tree (RFC 9162) in tiles of 256 hashes, in the manner of C2SP tlog-tiles.';
COMMENT ON COLUMN tile.level IS '0 for hashes of events; n for roots of full subtrees of 256^n events.';
COMMENT ON COLUMN tile.index IS 'Which tile of the level: 0 begins with the first event.';
COMMENT ON COLUMN tile.hashes IS 'Up to 256 hashes of 32 bytes, one after the other.';

CREATE TABLE checkpoint (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id uuid NOT NULL,
    size bigint NOT NULL CHECK (size > 0),
    note text NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX checkpoint_size ON checkpoint (log_id, size, number);
COMMENT ON TABLE checkpoint IS 'What was signed: at that size, the log had that root. Rows are only ever added.';
COMMENT ON COLUMN checkpoint.number IS 'Order of signing.';
COMMENT ON COLUMN checkpoint.log_id IS 'The log it is about.';
COMMENT ON COLUMN checkpoint.size IS 'It covers the events up to this position.';
COMMENT ON COLUMN checkpoint.note IS 'The checkpoint as a signed note (C2SP signed-note, tlog-checkpoint), as it is published.';
COMMENT ON COLUMN checkpoint.signed_at IS 'When it was signed, by the clock of the database.';

DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_sealer', current_schema());
END $$;
GRANT SELECT ON head, events, seal TO crm_sealer;
GRANT SELECT, INSERT, UPDATE ON tile, seal_key TO crm_sealer;
GRANT SELECT, INSERT ON checkpoint TO crm_sealer;
GRANT SELECT ON seal, seal_key, tile, checkpoint, snapshots TO crm_reader;
