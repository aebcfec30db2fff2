-- How fresh a read model is, for who watches over reports.

ALTER TABLE position ADD COLUMN moved_at timestamptz NOT NULL DEFAULT clock_timestamp();
COMMENT ON COLUMN position.moved_at IS 'When the position was last changed.';
