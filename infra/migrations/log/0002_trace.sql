-- One command can be followed from its request to the read models.

ALTER TABLE events ADD COLUMN traceparent text;
COMMENT ON COLUMN events.traceparent IS
    'W3C trace context of the command, where it was traced: those who carry the event on continue its trace.';
