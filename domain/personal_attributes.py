"""What is known of a person beside the name: kept as sealed changes, one for each event.

A change is a JSON object, as in RFC 7396: a value sets an attribute, null removes it. It names the
attributes inside, since a name can tell as much as a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from domain.errors import SubjectErased
from domain.values import AttributeValue, Personal


def change(
    person: UUID, values: Mapping[str, AttributeValue], removed: Sequence[str] = ()
) -> Personal | None:
    """The change as personal text; none where nothing changes."""
    changed = {**values, **dict.fromkeys(removed)}
    return Personal(person, json.dumps(changed, ensure_ascii=False)) if changed else None


def merged(
    known: Mapping[str, AttributeValue], changes: Iterable[str]
) -> dict[str, AttributeValue]:
    """The attributes after the changes, given as texts in the order in which they count."""
    result = dict(known)
    for text in changes:
        for name, value in json.loads(text).items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = value
    return result


def held(
    known: Mapping[str, AttributeValue], changes: Iterable[Personal]
) -> dict[str, AttributeValue]:
    """The attributes of a person who is there. Errors: SubjectErased where they cannot be read."""
    texts = []
    for each in changes:
        if each.text is None:
            raise SubjectErased("the person's data have been erased: nothing new is written")
        texts.append(each.text)
    return merged(known, texts)
