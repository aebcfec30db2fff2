-- Views for business intelligence. The projections make them, each with its comments.

DO $$ BEGIN
    EXECUTE format(
        'COMMENT ON SCHEMA %I IS ''Stable, documented views for reports. Persons appear under pseudonyms only.''',
        current_schema());
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO crm_projector', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO crm_reader, crm_bi', current_schema());
END $$;
-- Set by the role itself: a login that does not inherit its rights could not.
SET LOCAL ROLE crm_projector;
DO $$ BEGIN
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO crm_reader, crm_bi', current_schema());
END $$;
RESET ROLE;
