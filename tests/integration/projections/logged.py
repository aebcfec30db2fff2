"""Stories in a real log."""

from __future__ import annotations

from infra.eventstore.transcoder import event_codec
from infra.postgres import Pool, quote
from tests.integration.projections.story import Story


def write_log(pool: Pool, schema: str, story: Story) -> None:
    """Put what the story tells into the log of this schema, whatever was there."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL search_path TO {quote(schema)}")
        cursor.execute("DELETE FROM events")
        for event in story.events:
            codec = event_codec(type(event.event))
            cursor.execute(
                "INSERT INTO events (position, stream_id, version, topic, class_version,"
                " partition_key, occurred_at, recorded_at, actor, command_id, correlation_id,"
                " state)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    event.position,
                    str(event.stream_id),
                    event.version,
                    event.topic,
                    codec.version,
                    str(event.partition_key),
                    event.occurred_at,
                    event.recorded_at,
                    event.actor,
                    str(event.command_id),
                    str(event.correlation_id),
                    codec.encode(vars(event.event)),
                ],
            )
        cursor.execute(
            "UPDATE head SET position = %s, store_epoch = %s",
            [len(story.events), str(story.epoch)],
        )
