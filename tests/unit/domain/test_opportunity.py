from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.errors import (
    CompetitorMissing,
    ContractDiffers,
    CurrencyDiffers,
    DealClosed,
    DealEnded,
    DealNotArchived,
    DealNotClosed,
    DealNotEnded,
    DealNotSuspended,
    DealSuspended,
    DomainError,
    InvalidDate,
    InvalidProbability,
    InvalidText,
    LossDiffers,
    NeedsApproval,
    ReviewMissing,
    SignedBeforeOpening,
    UnknownStage,
)
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_STAGES, Pipeline
from domain.values import Money, OpportunityStatus, Personal
from tests.given_when_then import ID, NOW, START, fact, given
from tests.unit.domain.streams import CAMPAIGN, CUSTOMER, Stream, eur, opened_deal

UTC_ZONE = ZoneInfo("UTC")
SHANGHAI = ZoneInfo("Asia/Shanghai")


def opening(**changes: Any) -> Callable[[None], Opportunity]:
    details: dict[str, Any] = {
        "customer_id": CUSTOMER,
        "name": "new press",
        "amount": eur("1000"),
        "stage": None,
        "expected_close": None,
        "owner": None,
        "campaign_id": None,
        "referred_by": None,
        "external_id": None,
        "at": START,
    }
    return lambda _: Opportunity.open(ID, **{**details, **changes})


def to_stage(pipeline: Pipeline, stage: str, approver: str | None = None) -> Any:
    return lambda deal: deal.change_stage(stage=stage, pipeline=pipeline, approver=approver, at=NOW)


def signing(
    value: str = "900",
    on: date = date(2024, 2, 1),
    zone: ZoneInfo = UTC_ZONE,
    cost: Money | None = None,
) -> Any:
    return lambda deal: deal.sign_contract(
        amount=eur(value), signed_on=on, cost=cost, timezone=zone, at=NOW
    )


def losing(cause: str = "price", competitor: str | None = "none") -> Any:
    return lambda deal: deal.lose(cause=cause, competitor=competitor, at=NOW)


def reviewing(summary: str = "too dear", competitor: str | None = None) -> Any:
    return lambda deal: deal.review(summary=summary, competitor=competitor, at=NOW)


class TestOpening:
    def test_enters_the_first_stage_by_default(self, pipeline: Pipeline) -> None:
        deal = (
            given()
            .when(opening(pipeline=pipeline, campaign_id=CAMPAIGN))
            .then(opened_deal(owner=None, campaign_id=CAMPAIGN))
        )
        assert deal.status is OpportunityStatus.OPEN
        assert deal.partition_key == CUSTOMER
        assert deal.created_on == deal.last_occurred_on == START

    def test_enters_the_given_stage_of_the_current_revision(self, pipeline: Pipeline) -> None:
        pipeline.revise(stages=DEFAULT_STAGES[1:], approvals=(), at=NOW)
        given().when(opening(pipeline=pipeline, stage="negotiation")).then(
            opened_deal(owner=None, stage="negotiation", pipeline_revision=2)
        )
        given().when(opening(pipeline=pipeline, stage="prospect")).refused(UnknownStage)

    def test_does_not_enter_a_stage_that_needs_approval(self, strict_pipeline: Pipeline) -> None:
        given().when(opening(pipeline=strict_pipeline, stage="bid")).refused(NeedsApproval)

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"name": " "}, InvalidText),
            ({"name": "\ud800"}, InvalidText),
            ({"owner": "x" * 201}, InvalidText),
            ({"referred_by": "\x00"}, InvalidText),
            ({"expected_close": date(9999, 1, 1)}, InvalidDate),
        ],
    )
    def test_refuses_bad_values(
        self, pipeline: Pipeline, changes: dict[str, Any], error: type[DomainError]
    ) -> None:
        given().when(opening(pipeline=pipeline, **changes)).refused(error)


class TestStages:
    def test_forward(self, open_deal: Stream, pipeline: Pipeline) -> None:
        given(*open_deal).when(to_stage(pipeline, "negotiation")).then(
            fact(
                Opportunity.StageAdvanced,
                at=NOW,
                from_stage="prospect",
                to_stage="negotiation",
                pipeline_revision=1,
                approved_by=None,
            )
        )

    def test_back(self, pipeline: Pipeline) -> None:
        given(opened_deal(stage="contract")).when(to_stage(pipeline, "bid")).then(
            fact(Opportunity.StageMovedBack, from_stage="contract", to_stage="bid")
        )

    def test_the_same_adds_nothing(self, open_deal: Stream, pipeline: Pipeline) -> None:
        given(*open_deal).when(to_stage(pipeline, "prospect")).then()

    def test_unknown(self, open_deal: Stream, pipeline: Pipeline) -> None:
        given(*open_deal).when(to_stage(pipeline, "dreaming")).refused(UnknownStage)

    def test_a_move_takes_the_deal_to_the_current_revision(
        self, open_deal: Stream, pipeline: Pipeline
    ) -> None:
        pipeline.revise(stages=(DEFAULT_STAGES[2], DEFAULT_STAGES[1]), approvals=(), at=NOW)
        bidding = fact(
            Opportunity.StageAdvanced,
            from_stage="prospect",
            to_stage="bid",
            pipeline_revision=1,
            approved_by=None,
        )
        moved = given(*open_deal, bidding).when(to_stage(pipeline, "negotiation"))
        moved.then(fact(Opportunity.StageMovedBack, from_stage="bid", pipeline_revision=2))

    def test_a_stage_gone_from_the_pipeline_keeps_its_old_place(
        self, open_deal: Stream, pipeline: Pipeline
    ) -> None:
        pipeline.revise(stages=DEFAULT_STAGES[1:], approvals=(), at=NOW)
        given(*open_deal).when(to_stage(pipeline, "bid")).then(
            fact(Opportunity.StageAdvanced, from_stage="prospect", to_stage="bid")
        )
        given(opened_deal(stage="gone", pipeline_revision=1)).when(to_stage(pipeline, "bid")).then(
            fact(Opportunity.StageAdvanced, from_stage="gone", to_stage="bid")
        )

    def test_an_approval_point_needs_an_approver(
        self, open_deal: Stream, strict_pipeline: Pipeline
    ) -> None:
        given(*open_deal).when(to_stage(strict_pipeline, "bid")).refused(NeedsApproval)
        given(*open_deal).when(to_stage(strict_pipeline, "bid", " ")).refused(NeedsApproval)
        given(*open_deal).when(to_stage(strict_pipeline, "bid", "boss")).then(
            fact(Opportunity.StageAdvanced, approved_by="boss")
        )


class TestAmountAndDate:
    def test_amount(self, open_deal: Stream) -> None:
        given(*open_deal).when(lambda deal: deal.change_amount(amount=eur("5"), at=NOW)).then(
            fact(Opportunity.AmountChanged, previous=eur("1000"), amount=eur("5"))
        )
        given(*open_deal).when(lambda deal: deal.change_amount(amount=eur("1000"), at=NOW)).then()

    def test_amount_keeps_its_currency(self, open_deal: Stream) -> None:
        other = Money.of("1000", "USD")
        given(*open_deal).when(lambda deal: deal.change_amount(amount=other, at=NOW)).refused(
            CurrencyDiffers
        )

    def test_expected_close(self, open_deal: Stream) -> None:
        def change(day: date | None) -> Any:
            return lambda deal: deal.change_expected_close(expected_close=day, at=NOW)

        given(*open_deal).when(change(None)).then()
        day = date(2025, 1, 1)
        changed = fact(Opportunity.ExpectedCloseChanged, previous=None, expected_close=day)
        given(*open_deal).when(change(day)).then(changed)
        given(*open_deal, changed).when(change(None)).then(
            fact(Opportunity.ExpectedCloseChanged, previous=day, expected_close=None)
        )
        given(*open_deal).when(change(date(1066, 1, 1))).refused(InvalidDate)

    def test_chance(self, open_deal: Stream) -> None:
        def estimate(chance: str) -> Any:
            return lambda deal: deal.estimate_chance(chance=Decimal(chance), at=NOW)

        estimated = fact(Opportunity.ChanceEstimated, previous=None, chance=Decimal("0.5"))
        given(*open_deal).when(estimate("0.5")).then(estimated)
        given(*open_deal, estimated).when(estimate("0.50")).then()
        given(*open_deal).when(estimate("1.01")).refused(InvalidProbability)
        given(*open_deal).when(estimate("NaN")).refused(InvalidProbability)

    def test_a_certain_chance_is_no_outcome(self, open_deal: Stream) -> None:
        deal = given(*open_deal).when(lambda d: d.estimate_chance(chance=Decimal(1), at=NOW))
        assert not deal.then(fact(Opportunity.ChanceEstimated)).ended


class TestTransfer:
    def test_to_another_owner(self, open_deal: Stream, won_deal: Stream) -> None:
        moved = fact(Opportunity.Transferred, from_owner="ann", to_owner="bob")
        for deal in (open_deal, won_deal):
            given(*deal).when(lambda d: d.transfer(owner="bob", at=NOW)).then(moved)
            given(*deal, moved).when(lambda d: d.transfer(owner="bob", at=NOW)).then()


class TestSuspension:
    def suspend(self, pipeline: Pipeline, approver: str | None = None) -> Any:
        return lambda deal: deal.suspend(pipeline=pipeline, approver=approver, at=NOW)

    def terminate(self, pipeline: Pipeline, approver: str | None = None) -> Any:
        return lambda deal: deal.terminate(pipeline=pipeline, approver=approver, at=NOW)

    def resume(self, deal: Opportunity) -> None:
        deal.resume(at=NOW)

    def test_can_be_resumed_at_the_same_stage(self, pipeline: Pipeline) -> None:
        bidding, suspended = opened_deal(stage="bid"), fact(Opportunity.Suspended, approved_by=None)
        given(bidding).when(self.suspend(pipeline)).then(suspended)
        given(bidding, suspended).when(self.suspend(pipeline)).then()
        deal = given(bidding, suspended).when(self.resume).then(fact(Opportunity.Resumed))
        assert (deal.stage, deal.status) == ("bid", OpportunityStatus.OPEN)
        given(bidding, suspended, fact(Opportunity.Resumed)).when(self.resume).then()

    def test_resuming_what_was_never_suspended(self, open_deal: Stream) -> None:
        given(*open_deal).when(self.resume).refused(DealNotSuspended)

    def test_nothing_moves_meanwhile(self, suspended_deal: Stream, pipeline: Pipeline) -> None:
        for command in (
            to_stage(pipeline, "bid"),
            lambda deal: deal.change_amount(amount=eur("1"), at=NOW),
            signing(),
            losing(),
        ):
            given(*suspended_deal).when(command).refused(DealSuspended)

    def test_work_goes_on_meanwhile(self, suspended_deal: Stream) -> None:
        given(*suspended_deal).when(lambda deal: deal.transfer(owner="bob", at=NOW)).then(
            fact(Opportunity.Transferred)
        )
        given(*suspended_deal).when(reviewing()).then(fact(Opportunity.Reviewed))

    def test_termination_is_for_ever(
        self, open_deal: Stream, suspended_deal: Stream, terminated_deal: Stream, pipeline: Pipeline
    ) -> None:
        for deal in (open_deal, suspended_deal):
            given(*deal).when(self.terminate(pipeline)).then(
                fact(Opportunity.Terminated, approved_by=None)
            )
        given(*terminated_deal).when(self.terminate(pipeline)).then()
        for command in (
            self.resume,
            self.suspend(pipeline),
            to_stage(pipeline, "bid"),
            signing(),
            losing(),
        ):
            given(*terminated_deal).when(command).refused(DealEnded)

    def test_approval_where_the_pipeline_asks_for_it(
        self, open_deal: Stream, strict_pipeline: Pipeline
    ) -> None:
        given(*open_deal).when(self.suspend(strict_pipeline)).refused(NeedsApproval)
        given(*open_deal).when(self.terminate(strict_pipeline)).refused(NeedsApproval)
        given(*open_deal).when(self.suspend(strict_pipeline, "boss")).then(
            fact(Opportunity.Suspended, approved_by="boss")
        )
        given(*open_deal).when(self.terminate(strict_pipeline, "boss")).then(
            fact(Opportunity.Terminated, approved_by="boss")
        )

    def test_the_approvals_are_those_of_the_deals_own_revision(
        self, open_deal: Stream, pipeline: Pipeline
    ) -> None:
        pipeline.revise(stages=DEFAULT_STAGES, approvals=("suspend",), at=NOW)
        given(*open_deal).when(self.suspend(pipeline)).then(fact(Opportunity.Suspended))


class TestOutcome:
    def test_a_contract_wins(self, open_deal: Stream, won_deal: Stream) -> None:
        deal = (
            given(*open_deal)
            .when(signing())
            .then(fact(Opportunity.ContractSigned, amount=eur("900"), signed_on=date(2024, 2, 1)))
        )
        assert deal.status is OpportunityStatus.WON
        assert (deal.amount, deal.contract_amount) == (eur("1000"), eur("900"))
        given(*won_deal).when(signing()).then()
        given(*won_deal).when(signing("901")).refused(ContractDiffers)
        given(*won_deal).when(signing(on=date(2024, 2, 2))).refused(ContractDiffers)

    def test_a_contract_is_in_the_deals_currency(self, open_deal: Stream) -> None:
        given(*open_deal).when(
            lambda deal: deal.sign_contract(
                amount=Money.of("1", "USD"),
                signed_on=date(2024, 2, 1),
                cost=None,
                timezone=UTC_ZONE,
                at=NOW,
            )
        ).refused(CurrencyDiffers)
        given(*open_deal).when(signing(cost=Money.of("1", "USD"))).refused(CurrencyDiffers)

    def test_a_contract_may_have_its_cost(self, open_deal: Stream, won_deal: Stream) -> None:
        signed = fact(
            Opportunity.ContractSigned,
            amount=eur("900"),
            signed_on=date(2024, 2, 1),
            cost=eur("0"),
        )
        deal = given(*open_deal).when(signing(cost=eur("0"))).then(signed)
        assert deal.contract_cost == eur("0")
        given(*open_deal, signed).when(signing(cost=eur("0"))).then()
        given(*open_deal, signed).when(signing()).refused(ContractDiffers)
        given(*won_deal).when(signing(cost=eur("0"))).refused(ContractDiffers)

    def test_a_contract_is_not_older_than_the_deal(self) -> None:
        late = opened_deal()
        opened_at = START.replace(hour=17)  # the 2nd in Shanghai
        at = fact(late.event_class, at=opened_at, **late.fields)
        given(at).when(signing(on=date(2024, 1, 1))).then(fact(Opportunity.ContractSigned))
        given(at).when(signing(on=date(2023, 12, 31))).refused(SignedBeforeOpening)
        given(at).when(signing(on=date(2024, 1, 1), zone=SHANGHAI)).refused(SignedBeforeOpening)

    def test_a_loss_names_the_competitor(self, open_deal: Stream) -> None:
        for missing in (None, "", "  "):
            given(*open_deal).when(losing(competitor=missing)).refused(CompetitorMissing)
        for named in ("none", "unknown", "Umbra"):
            deal = (
                given(*open_deal)
                .when(losing(competitor=named))
                .then(fact(Opportunity.Lost, cause="price", competitor=named))
            )
            assert deal.status is OpportunityStatus.LOST
        given(*open_deal).when(losing(cause="")).refused(InvalidText)

    def test_a_loss_is_final(self, lost_deal: Stream, won_deal: Stream, pipeline: Pipeline) -> None:
        given(*lost_deal).when(losing()).then()
        given(*lost_deal).when(losing(cause="service")).refused(LossDiffers)
        given(*lost_deal).when(losing(competitor="Umbra")).refused(LossDiffers)
        given(*lost_deal).when(signing()).refused(DealEnded)
        given(*lost_deal).when(to_stage(pipeline, "bid")).refused(DealEnded)
        given(*won_deal).when(losing()).refused(DealEnded)


class TestTheEnd:
    def close(self, deal: Opportunity) -> None:
        deal.close(at=NOW)

    def archive(self, deal: Opportunity) -> None:
        deal.archive(at=NOW)

    def purge(self, deal: Opportunity) -> None:
        deal.purge(at=NOW)

    def test_review_before_or_after_the_end(self, open_deal: Stream, won_deal: Stream) -> None:
        reviewed = fact(
            Opportunity.Reviewed, summary=Personal(CUSTOMER, "too dear"), competitor="Umbra"
        )
        for deal in (open_deal, won_deal):
            given(*deal).when(reviewing(competitor="Umbra")).then(reviewed)
            given(*deal, reviewed).when(reviewing(competitor="Umbra")).then()
            given(*deal, reviewed).when(reviewing("second thoughts")).then(
                fact(Opportunity.Reviewed, competitor=None)
            )
        given(*open_deal).when(reviewing("x" * 10_001)).refused(InvalidText)

    def test_close_archive_purge(
        self,
        reviewed_deal: Stream,
        closed_deal: Stream,
        archived_deal: Stream,
        purged_deal: Stream,
    ) -> None:
        given(*reviewed_deal).when(self.close).then(fact(Opportunity.Closed))
        given(*closed_deal).when(self.close).then()
        given(*closed_deal).when(self.archive).then(fact(Opportunity.Archived))
        given(*archived_deal).when(self.archive).then()
        given(*archived_deal).when(self.purge).then(fact(Opportunity.Purged))
        given(*purged_deal).when(self.purge).then()

    def test_in_that_order(
        self, open_deal: Stream, lost_deal: Stream, reviewed_deal: Stream, closed_deal: Stream
    ) -> None:
        given(*open_deal).when(self.close).refused(DealNotEnded)
        given(*lost_deal).when(self.close).refused(ReviewMissing)
        given(*reviewed_deal).when(self.archive).refused(DealNotClosed)
        given(*reviewed_deal).when(self.purge).refused(DealNotArchived)
        given(*closed_deal).when(self.purge).refused(DealNotArchived)

    def test_a_closed_deal_takes_nothing_else(
        self, closed_deal: Stream, pipeline: Pipeline
    ) -> None:
        for command in (
            lambda deal: deal.transfer(owner="bob", at=NOW),
            reviewing("late"),
            lambda deal: deal.record_activity(kind="visit", result="met", at=NOW),
            lambda deal: deal.book_expense(purpose="lunch", amount=eur("5"), at=NOW),
        ):
            given(*closed_deal).when(command).refused(DealClosed)
        given(*closed_deal).when(to_stage(pipeline, "bid")).refused(DealEnded)


def test_activities_and_expenses_are_facts_of_their_own(open_deal: Stream) -> None:
    met = fact(Opportunity.ActivityRecorded, kind="visit", result="met the boss")
    spent = fact(Opportunity.ExpenseBooked, purpose="lunch", amount=Money.of("5", "USD"))
    given(*open_deal, met).when(
        lambda deal: deal.record_activity(kind="visit", result="met the boss", at=NOW)
    ).then(met)
    given(*open_deal, spent).when(
        lambda deal: deal.book_expense(purpose="lunch", amount=Money.of("5", "USD"), at=NOW)
    ).then(spent)


def test_a_back_dated_fact_does_not_turn_back_the_latest_time(open_deal: Stream) -> None:
    later = fact(Opportunity.Transferred, at=NOW, from_owner="ann", to_owner="bob")
    earlier = NOW - timedelta(days=30)
    deal = (
        given(*open_deal, later)
        .when(lambda d: d.transfer(owner="cid", at=earlier))
        .then(fact(Opportunity.Transferred, at=earlier, from_owner="bob", to_owner="cid"))
    )
    assert (deal.last_occurred_on, deal.modified_on) == (NOW, earlier)


def test_facts_never_refuse_however_odd_the_history(purged_deal: Stream) -> None:
    given(
        *purged_deal,
        fact(Opportunity.Resumed),
        fact(
            Opportunity.StageMovedBack,
            from_stage="?",
            to_stage="!",
            pipeline_revision=99,
            approved_by=None,
        ),
        fact(Opportunity.ContractSigned, amount=eur("1"), signed_on=date(1999, 1, 1)),
    ).when(lambda deal: None).then()
