"""The AsyncAPI document: the topic, its messages with their headers, and who sends and reads."""

from __future__ import annotations

import json
from typing import Final

from domain.aggregate import LedgerAggregate
from infra.contract.bodies import (
    Schema,
    body_schema,
    dataschema,
    described,
    event_classes,
    schema_path,
    topic_of,
)
from infra.eventstore.transcoder import event_codec
from infra.kafka import CHECKPOINT_CONTENT, CHECKPOINTS, SOURCE, WATERMARK
from infra.settings import Settings

ASYNCAPI: Final = "asyncapi.json"


def asyncapi() -> Schema:
    """The AsyncAPI 3 document; it refers to the schemas by their paths."""
    settings = Settings.model_fields
    messages = {topic_of(cls): _message(cls) for cls in event_classes()}
    messages[WATERMARK] = _watermark()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:crm-ledger",
        "info": {
            "title": "crm-ledger events",
            "version": "1.0.0",
            "description": "Every event of the log, as CloudEvents 1.0 in Kafka's binary mode, and "
            "what proves that none was changed. " + _EVOLUTION,
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The cluster that the relay writes to.",
                "variables": {
                    "bootstrap": {
                        "default": "localhost:9092",
                        "description": "As in CRM_KAFKA_BOOTSTRAP.",
                    }
                },
            }
        },
        "channels": {
            "events": {
                "address": settings["kafka_topic"].default,
                "title": "The log",
                "description": f"{_ORDER} {_READER}",
                "servers": [{"$ref": "#/servers/kafka"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {
                    "kafka": {
                        "topic": settings["kafka_topic"].default,
                        "partitions": settings["partitions"].default,
                        "bindingVersion": "0.5.0",
                    }
                },
            },
            "checkpoints": {
                "address": settings["kafka_topic"].default + CHECKPOINTS,
                "title": "The log's checkpoints",
                "description": "What was signed of the log, in order of signing. None expires: "
                "whoever keeps a copy can tell whether the log was changed afterwards.",
                "servers": [{"$ref": "#/servers/kafka"}],
                "messages": {_CHECKPOINT: {"$ref": f"#/components/messages/{_CHECKPOINT}"}},
                "bindings": {
                    "kafka": {
                        "topic": settings["kafka_topic"].default + CHECKPOINTS,
                        "partitions": 1,
                        "bindingVersion": "0.5.0",
                    }
                },
            },
        },
        "operations": {
            "relay": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "title": "Relay",
                "description": "Sends the log in order of position. What it is not sure to have "
                "sent, it sends again: records may come more than once, and are then the same.",
            },
            "read": {
                "action": "receive",
                "channel": {"$ref": "#/channels/events"},
                "title": "Reader",
                "description": _READER,
            },
            "seal": {
                "action": "send",
                "channel": {"$ref": "#/channels/checkpoints"},
                "title": "Sealer",
                "description": "Sends each checkpoint once it is signed; one that begins sends the "
                "newest again.",
            },
            "audit": {
                "action": "receive",
                "channel": {"$ref": "#/channels/checkpoints"},
                "title": "Auditor",
                "description": "Checks the signature by a key it trusts, and keeps the note.",
            },
        },
        "components": {
            "messages": messages | {_CHECKPOINT: _checkpoint()},
            "correlationIds": {
                "correlation": {
                    "description": "The conversation that the event's command belongs to.",
                    "location": "$message.header#/ce_correlationid",
                }
            },
            "schemas": {"eventHeaders": _headers(_EVENT_HEADERS, _OPTIONAL_HEADERS)},
        },
    }


def documents() -> dict[str, str]:
    """Every file of the contract that the code can make: path → text. Always the same."""
    made = {
        schema_path(topic_of(cls), event_codec(cls).version): body_schema(cls)
        for cls in event_classes()
    }
    made[ASYNCAPI] = asyncapi()
    return {
        path: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for path, document in made.items()
    }


_EVOLUTION: Final = (
    "A schema only grows: within a version come new optional properties, and values of an "
    "enumeration or types that were not there before; anything else is a new version, with a "
    "schema of its own beside those of the old ones, which may be sent again at any time. "
    "ce_dataschema names the schema of a body. Amounts and other decimals are strings, and exact. "
    "An optional property without a value is absent."
)
_ORDER: Final = (
    "A record lies in partition CRC-32(the 16 bytes of ce_partitionkey) modulo the number of "
    "partitions, so all facts of one customer, its deals included, are in one partition, in order "
    "of ce_position. Positions run 1, 2, 3, … over all partitions."
)
_READER: Final = (
    "A reader that stands at position q of a partition takes a record if ce_previous <= q < "
    "ce_position, and then stands at ce_position. With ce_position <= q it has had the record. "
    "With ce_previous > q a record is missing, which will be sent again: it must not go on "
    "before. A record of another ce_epoch belongs to another log, or to one restored to an "
    "earlier point."
)
_TEXT: Final[Schema] = {"type": "string"}
_ID: Final[Schema] = {"type": "string", "format": "uuid"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time", "pattern": "Z$"}
_COUNT: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
_FROM_1: Final[Schema] = {"type": "string", "pattern": "^[1-9][0-9]*$"}
_SHARED_HEADERS: Final[dict[str, Schema]] = {
    "content-type": {"const": "application/json"},
    "ce_specversion": {"const": "1.0"},
    "ce_source": {"const": SOURCE},
    "ce_epoch": _ID | {"description": "The log that the record is from."},
}
_EVENT_HEADERS: Final[dict[str, Schema]] = {
    **_SHARED_HEADERS,
    "ce_id": _ID | {"description": "The same for ever for the same stream and version."},
    "ce_type": _TEXT | {"description": "The kind of event: its topic in the log."},
    "ce_subject": _ID | {"description": "The stream: what it happened to."},
    "ce_time": _TIME | {"description": "When it was true; may lie long before it was recorded."},
    "ce_dataschema": _TEXT | {"description": "The schema of the body, with its version."},
    "ce_version": _FROM_1 | {"description": "Place in its stream, from 1 on."},
    "ce_position": _FROM_1 | {"description": "Place in the log, from 1 on."},
    "ce_previous": _COUNT
    | {"description": "Position of the event before it in its partition; 0: there is none."},
    "ce_partitionkey": _ID
    | {"description": "What it is ordered with: its customer, otherwise its stream."},
    "ce_recordedtime": _TIME | {"description": "When it was recorded; never falls in the log."},
    "ce_actor": _TEXT | {"description": "Id of the principal that gave the command."},
    "ce_commandid": _ID | {"description": "The command; the events of one command share it."},
    "ce_correlationid": _ID | {"description": "The conversation the command belongs to."},
}
_OPTIONAL_HEADERS: Final[dict[str, Schema]] = {
    "ce_causationid": _ID
    | {"description": "What gave rise to the command, where it was not a person."},
    "ce_reason": _TEXT | {"description": "Why, in the words of who gave the command."},
    "traceparent": {
        "type": "string",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "description": "The trace of the command (W3C Trace Context).",
    },
}
_WATERMARK_HEADERS: Final[dict[str, Schema]] = {
    **_SHARED_HEADERS,
    "ce_id": _TEXT | {"pattern": "^[0-9]+-[0-9]+$", "description": "<position>-<partition>"},
    "ce_type": {"const": WATERMARK},
    "ce_time": _TIME | {"description": "When it was sent."},
    "ce_position": _COUNT
    | {"description": "Every event of the partition up to there lies before this record."},
    "ce_previous": _COUNT
    | {"description": "Position of the last event before it in its partition; 0: there is none."},
}


def _headers(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
    }


def _message(cls: type[LedgerAggregate.Event]) -> Schema:
    topic = topic_of(cls)
    versions = range(1, event_codec(cls).version + 1)
    bodies = [{"$ref": f"./{schema_path(topic, version)}"} for version in versions]
    message: Schema = {"name": topic, "title": _title(cls)}
    text = described(cls)
    if text:
        message["summary"] = text
    return message | {
        "contentType": "application/json",
        "correlationId": {"$ref": "#/components/correlationIds/correlation"},
        "headers": {
            "type": "object",
            "allOf": [{"$ref": "#/components/schemas/eventHeaders"}],
            "properties": {
                "ce_type": {"const": topic},
                "ce_dataschema": {"enum": [dataschema(topic, version) for version in versions]},
            },
        },
        "payload": bodies[0] if len(bodies) == 1 else {"anyOf": bodies},
        "bindings": {
            "kafka": {
                "key": _ID | {"description": "The same as ce_partitionkey."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _watermark() -> Schema:
    return {
        "name": WATERMARK,
        "title": "Watermark",
        "summary": "How far the partition is complete, also where nothing happens in it.",
        "contentType": "application/json",
        "headers": _headers(_WATERMARK_HEADERS, {}),
        "payload": {
            "type": "object",
            "properties": {"position": {"type": "integer", "minimum": 0}},
            "required": ["position"],
        },
        "bindings": {"kafka": {"key": {"const": WATERMARK}, "bindingVersion": "0.5.0"}},
    }


_CHECKPOINT: Final = "checkpoint"


def _checkpoint() -> Schema:
    return {
        "name": _CHECKPOINT,
        "title": "Checkpoint",
        "summary": "A signed note (C2SP signed-note) that holds a tlog-checkpoint: the log's "
        "origin, the number of its events, and the root of the tree over them (RFC 9162).",
        "contentType": CHECKPOINT_CONTENT,
        "headers": _headers({"content-type": {"const": CHECKPOINT_CONTENT}}, {}),
        "payload": _TEXT,
        "bindings": {
            "kafka": {
                "key": _TEXT | {"description": "The log's origin, the note's first line."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _title(cls: type[LedgerAggregate.Event]) -> str:
    """Opportunity stage advanced, for crm.opportunity.stage-advanced."""
    return " ".join(topic_of(cls).split(".")[1:]).replace("-", " ").capitalize()
