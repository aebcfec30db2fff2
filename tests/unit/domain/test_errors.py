from __future__ import annotations

import re
from collections.abc import Iterator

import domain.errors
from domain.currencies import MINOR_UNITS
from domain.errors import DomainError, Invalid, NeedsApproval, NotFound, Refused


def _tree(cls: type[DomainError]) -> Iterator[type[DomainError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _tree(sub)


def test_every_error_has_a_type_of_its_own() -> None:
    types = [error.type for error in _tree(DomainError)]
    assert len(set(types)) == len(types)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in types)


def test_every_error_belongs_to_one_family() -> None:
    families = (Invalid, NotFound, NeedsApproval, Refused)
    assert set(DomainError.__subclasses__()) == set(families)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^([│├└─ ]*)([A-Z]\w+)", domain.errors.__doc__ or "", re.MULTILINE)
    tree = [name for _, name in drawn if name != "Every"]
    assert sorted(tree) == sorted(error.__name__ for error in _tree(DomainError))


def test_minor_units_of_well_known_currencies() -> None:
    known = {"EUR": 2, "CNY": 2, "JPY": 0, "KWD": 3, "CLF": 4}
    assert known.items() <= MINOR_UNITS.items()
    assert all(re.fullmatch("[A-Z]{3}", code) for code in MINOR_UNITS)
