-- What the policies remember of a key beside its timer.

CREATE TABLE policy_state (
    policy text NOT NULL,
    key uuid NOT NULL,
    state jsonb NOT NULL,
    PRIMARY KEY (policy, key)
);
COMMENT ON TABLE policy_state IS 'What a policy remembers of a customer. A fold of the log up to the policy''s position: deleted, it comes back by reading the log again.';
COMMENT ON COLUMN policy_state.policy IS 'Name of the policy, with its version and configuration.';
COMMENT ON COLUMN policy_state.key IS 'Whom it is about, as a customer.';
COMMENT ON COLUMN policy_state.state IS 'In the policy''s own shape; bounded, however long the history.';

GRANT SELECT, INSERT, UPDATE, DELETE ON policy_state TO crm_writer;
GRANT SELECT ON policy_state TO crm_reader;
