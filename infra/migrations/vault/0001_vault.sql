-- The vault: one key per natural person. Erasing a person is destroying the key.

CREATE TABLE keys (
    subject uuid PRIMARY KEY,
    wrapped bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    destroyed_at timestamptz,
    CONSTRAINT keys_destroyed CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);
COMMENT ON TABLE keys IS
    'Keys of personal data, one per natural person, each encrypted by the master key. A destroyed key stays as a row without the key, so that none is made anew.';
COMMENT ON COLUMN keys.subject IS 'The person: a contact, or a customer of kind person.';
COMMENT ON COLUMN keys.wrapped IS 'The key, encrypted by the master key; null once destroyed.';
COMMENT ON COLUMN keys.created_at IS 'When the key was made.';
COMMENT ON COLUMN keys.destroyed_at IS 'When the key was destroyed; null while it is there.';

DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_vault', current_schema());
END $$;
GRANT SELECT, INSERT, UPDATE ON keys TO crm_vault;
