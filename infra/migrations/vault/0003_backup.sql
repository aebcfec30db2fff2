-- A role that reads what a backup is made of, and can change nothing. Later tables come with the
-- right, as long as the same login makes them.
DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_backup', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO crm_backup', current_schema());
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO crm_backup', current_schema());
END $$;
