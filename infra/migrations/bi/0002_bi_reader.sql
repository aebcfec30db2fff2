-- bi_reader may read this schema and nothing else. crm_bi is what it was called before; logins that
-- were granted that role keep it.
DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO bi_reader', current_schema());
END $$;
SET LOCAL ROLE crm_projector;
DO $$
DECLARE
    made record;
BEGIN
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO bi_reader', current_schema());
    -- the views that are there; later ones come with the right
    FOR made IN
        SELECT relname FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
            AND relowner = 'crm_projector'::regrole
    LOOP
        EXECUTE format('GRANT SELECT ON %I.%I TO bi_reader', current_schema(), made.relname);
    END LOOP;
END $$;
RESET ROLE;
