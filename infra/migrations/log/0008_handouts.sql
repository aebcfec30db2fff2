-- What was handed out, since it cannot be called back when somebody is erased later.

CREATE TABLE handouts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('export', 'replay')),
    position bigint NOT NULL CHECK (position >= 0),
    what text NOT NULL,
    personal boolean NOT NULL
);
COMMENT ON TABLE handouts IS
    'Exports and replays that left the product, one row each, kept for ever: they are named on the certificates of those who are erased later.';
COMMENT ON COLUMN handouts.number IS 'Counts them.';
COMMENT ON COLUMN handouts.at IS 'When it was handed out.';
COMMENT ON COLUMN handouts.actor IS 'Who took it: the id of a principal, or the login at the machine.';
COMMENT ON COLUMN handouts.kind IS 'export or replay.';
COMMENT ON COLUMN handouts.position IS 'Nothing recorded after this position is in it.';
COMMENT ON COLUMN handouts.what IS 'What was in it: tables, or the kind of question.';
COMMENT ON COLUMN handouts.personal IS 'Whether names, mail addresses and other personal text were in it in the clear; otherwise persons are in it under their ids.';
GRANT SELECT, INSERT ON handouts TO crm_writer, crm_reader;
