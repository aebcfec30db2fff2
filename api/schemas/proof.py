"""Shapes of proofs as they are answered. Hashes are base64 of 32 bytes."""

from typing import Annotated

from pydantic import BaseModel, Field

Hash = Annotated[str, Field(min_length=44, max_length=44)]
Path = Annotated[list[Hash], Field(description="From below, in the order of RFC 9162.")]
Size = Annotated[int, Field(ge=1, description="Number of leaves: the last position in the tree.")]


class CheckpointAnswer(BaseModel):
    """A checkpoint taken apart. What counts is `note`: its signature is over its text."""

    origin: Annotated[str, Field(description="The log, and the name of its keys.")]
    size: Size
    root: Hash
    note: Annotated[str, Field(description="The signed note, as it is published.")]
    keys: Annotated[
        list[str],
        Field(description="The vkeys that have signed for the log. Get them another way to trust."),
    ]


class InclusionAnswer(BaseModel):
    """That the event at `position` is in the tree, as leaf `index`."""

    position: Annotated[int, Field(ge=1)]
    index: Annotated[int, Field(ge=0, description="position − 1")]
    size: Size
    leaf_hash: Annotated[Hash, Field(description="SHA-256 of 0x00 and the leaf.")]
    path: Path
    root: Hash
    checkpoint: Annotated[
        str | None, Field(description="The signed note of that size, if one was signed.")
    ]


class ConsistencyAnswer(BaseModel):
    """That the tree of size `to` begins with the whole tree of size `from`."""

    from_: Annotated[Size, Field(alias="from")]
    to: Size
    from_root: Hash
    to_root: Hash
    path: Path
