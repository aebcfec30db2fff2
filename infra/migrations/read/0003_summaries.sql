-- How far the summaries of the read models' period tables reach.

CREATE TABLE summarised (
    projection text NOT NULL,
    table_name text NOT NULL,
    positions bigint NOT NULL CHECK (positions > 0),
    through bigint NOT NULL CHECK (through >= 0),
    PRIMARY KEY (projection, table_name)
);
COMMENT ON TABLE summarised IS 'How far the summary of each period table reaches. What comes after is read from the table itself.';
COMMENT ON COLUMN summarised.projection IS 'Name of the projection, with its version.';
COMMENT ON COLUMN summarised.table_name IS 'The period table that is summed up.';
COMMENT ON COLUMN summarised.positions IS 'Positions of the log in a block of the lowest level.';
COMMENT ON COLUMN summarised.through IS 'Last position of the log that is in the summary: the end of a block.';

GRANT SELECT, INSERT, UPDATE, DELETE ON summarised TO crm_projector;
GRANT SELECT ON summarised TO crm_reader;
