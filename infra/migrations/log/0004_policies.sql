-- What the policies (process managers: events in, commands out) know between two runs.

CREATE TABLE policy_position (
    policy text PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0),
    left_out bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE policy_position IS 'How far each policy has read the log. Changed only from the value it was read at.';
COMMENT ON COLUMN policy_position.policy IS 'Name of the policy, with its version and configuration.';
COMMENT ON COLUMN policy_position.position IS 'Last position of the log that it has taken in.';
COMMENT ON COLUMN policy_position.left_out IS 'How many events it could not read, and went on without. The log of the process says which.';

CREATE TABLE policy_timer (
    policy text NOT NULL,
    key uuid NOT NULL,
    due_at timestamptz NOT NULL,
    cause uuid NOT NULL,
    cause_position bigint NOT NULL,
    cause_stream uuid NOT NULL,
    correlation_id uuid NOT NULL,
    PRIMARY KEY (policy, key)
);
CREATE INDEX policy_timer_due_at ON policy_timer (policy, due_at);
COMMENT ON TABLE policy_timer IS 'What a policy does when nothing happens until then.';
COMMENT ON COLUMN policy_timer.policy IS 'Name of the policy, with its version and configuration.';
COMMENT ON COLUMN policy_timer.key IS 'Whom it is about, as a customer.';
COMMENT ON COLUMN policy_timer.due_at IS 'From then on it fires.';
COMMENT ON COLUMN policy_timer.cause IS 'Id of the event that set it: the key of the command is derived from it.';
COMMENT ON COLUMN policy_timer.cause_position IS 'Position of that event in the log.';
COMMENT ON COLUMN policy_timer.cause_stream IS 'What it happened to.';
COMMENT ON COLUMN policy_timer.correlation_id IS 'The conversation it belongs to, which the command carries on.';

GRANT SELECT, INSERT, UPDATE, DELETE ON policy_position, policy_timer TO crm_writer;
GRANT SELECT ON policy_position, policy_timer TO crm_reader;
