"""Every way in which the product says no has a status and a type of its own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from api import errors
from api.errors import PROBLEM, RULES, ApiError, problem_of
from domain.errors import AlreadyExists, DomainError, Invalid, NeedsApproval, NotFound, Refused
from infra.commands import CommandError
from infra.vault import WrongMasterKey


def family(cls: type[Exception]) -> Iterator[type[Exception]]:
    for child in cls.__subclasses__():
        yield child
        yield from family(child)


def made(cls: type[Exception]) -> Exception:
    """An instance, however its constructor looks."""
    error = cls.__new__(cls)
    Exception.__init__(error, "what happened")
    if isinstance(error, AlreadyExists):
        error.existing_id = uuid4()
    return error


@pytest.mark.parametrize("cls", list(family(DomainError)))
def test_every_domain_error_is_told_by_its_own_type(cls: type[DomainError]) -> None:
    problem = problem_of(made(cls))
    assert problem.slug == cls.type
    expected = {Invalid: 422, NotFound: 404, NeedsApproval: 403, Refused: 409}
    assert problem.status == next(expected[base] for base in cls.__mro__ if base in expected)


@pytest.mark.parametrize("cls", list(family(CommandError)))
def test_every_error_of_the_write_path_is_mapped(cls: type[Exception]) -> None:
    assert any(ancestor in RULES for ancestor in cls.__mro__)
    assert problem_of(made(cls)).status in (409, 412, 422, 503)


def test_no_two_rules_share_a_type() -> None:
    told = [rule.slug for rule in RULES.values() if rule.slug]
    told += [cls.type for cls in (*family(ApiError), *family(DomainError))]  # type: ignore[attr-defined]
    shared = {slug for slug in told if told.count(slug) > 1}
    assert shared <= {"not-found"}, "an unknown path and the family of unknown things"


def test_an_unknown_error_says_nothing_of_itself() -> None:
    content = problem_of(RuntimeError("password=hunter2")).content()
    assert content["status"] == 500
    assert content["type"] == PROBLEM + "internal-error"
    assert "hunter2" not in str(content)


def test_personal_data_that_cannot_be_opened_is_not_an_error_of_the_program() -> None:
    problem = problem_of(WrongMasterKey("the master key does not fit the keys in the vault"))
    assert (problem.status, problem.slug) == (503, "wrong-master-key")
    assert problem.headers["Retry-After"] == "60"


def test_a_problem_never_repeats_a_huge_value() -> None:
    detail = "x" * 1_000_000
    assert len(str(problem_of(Invalid(detail)).content())) < 2_000
    entry = {"in": "#", "code": "c", "detail": "d" * 300}
    many = errors.InvalidRequest([entry] * 10_000)
    assert len(str(problem_of(many).content())) < 20_000
