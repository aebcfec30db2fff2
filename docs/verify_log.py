"""Verifies an export of the log by itself: nothing of the product is used, only `cryptography`.

    python verify_log.py EXPORT.ndjson CHECKPOINT VKEY

Prints ok and exits with 0, or says what is wrong and exits with 1. See audit.md for the format.
"""

import base64
import hashlib
import json
import struct
import sys
from datetime import datetime, timedelta, timezone
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

START = datetime(2000, 1, 1, tzinfo=timezone.utc)  # noqa: UP017


def microseconds(text):
    return (datetime.fromisoformat(text) - START) // timedelta(microseconds=1)


def counted(value):
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def leaf(e):
    text = {k: None if e[k] is None else e[k].encode() for k in ("reason", "traceparent")}
    cause = e["causation_id"]
    return (
        struct.pack(">Bq", 1, e["position"])
        + UUID(e["stream_id"]).bytes
        + struct.pack(">ih", e["version"], e["class_version"])
        + UUID(e["partition_key"]).bytes
        + struct.pack(">qq", microseconds(e["occurred_at"]), microseconds(e["recorded_at"]))
        + UUID(e["command_id"]).bytes
        + UUID(e["correlation_id"]).bytes
        + counted(None if cause is None else UUID(cause).bytes)
        + counted(e["topic"].encode())
        + counted(e["actor"].encode())
        + counted(text["reason"])
        + counted(text["traceparent"])
        + counted(base64.b64decode(e["state"]))
    )


def sha256(data):
    return hashlib.sha256(data).digest()


def signed_checkpoint(note, vkey):
    """Size and root, if the key's signature is there and right."""
    name, _, rest = vkey.partition("+")
    key_id, public = bytes.fromhex(rest[:8]), base64.b64decode(rest[9:])
    if sha256(f"{name}\n".encode() + public)[:4] != key_id or public[:1] != b"\x01":
        sys.exit("wrong: the key is not a vkey of Ed25519")
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        signature = base64.b64decode(encoded)
        if (dash, signer, signature[:4]) == ("—", name, key_id):
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text.encode())
            origin, size, root = text.splitlines()
            if origin != name:
                sys.exit("wrong: the checkpoint is of another log")
            return int(size), base64.b64decode(root)
    sys.exit("wrong: the key has not signed the checkpoint")


def root_of_export(path, size):
    """RFC 9162 over the first events; a stack of (height, hash), one for each full subtree."""
    stack, position = [], 0
    with open(path, encoding="utf-8") as lines:
        for position, line in enumerate(lines, 1):
            event = json.loads(line)
            if event["position"] != position:
                sys.exit(f"wrong: position {position} is missing or out of order")
            height, node = 0, sha256(b"\x00" + leaf(event))
            while stack and stack[-1][0] == height:
                height, node = height + 1, sha256(b"\x01" + stack.pop()[1] + node)
            stack.append((height, node))
            if position == size:
                break
    if position < size:
        sys.exit(f"wrong: the export ends at {position}, the checkpoint is of {size} events")
    root = stack.pop()[1] if stack else sha256(b"")
    while stack:
        root = sha256(b"\x01" + stack.pop()[1] + root)
    return root


def main(export, checkpoint, vkey):
    try:
        with open(checkpoint, encoding="utf-8") as file:
            size, root = signed_checkpoint(file.read(), vkey)
    except InvalidSignature:
        sys.exit("wrong: the signature is not that of the checkpoint")
    if root_of_export(export, size) != root:
        sys.exit(f"wrong: among the first {size} events is one that is not what was signed")
    print(f"ok: the first {size} events are what was signed")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
