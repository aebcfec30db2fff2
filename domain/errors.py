"""Every way in which the domain says no. `type` is stable: clients may rely on it.

DomainError
├── Invalid                 a value is wrong, whatever the state
│   ├── InvalidText         empty, too long, or characters that can't be stored
│   ├── InvalidMoney        not finite, negative, too large, unknown currency, too many decimals
│   ├── InvalidProbability  outside 0..1
│   ├── InvalidAttributes   too many, or a key or value out of bounds
│   ├── InvalidChannel      not a lower-case slug
│   ├── InvalidStages       a pipeline that can't be walked
│   ├── InvalidPeriod       ends before it starts
│   ├── InvalidDate         a date or time that no business fact has
│   ├── InvalidCount        not a number of things: negative or too large
│   ├── InvalidQuantity     an amount of stock: negative, too large, too many decimals
│   ├── InvalidCycle        a length no buying cycle has, or a cycle of one-off business
│   ├── InvalidLimit        money to keep a customer who is not worth keeping
│   ├── InvalidRate         not above 0, too large, too many decimals, or of one currency only
│   ├── NaiveTime           a time without an offset
│   ├── InTheFuture         said to have happened later than now
│   ├── NotAPerson          erasing a customer who is a company
│   ├── CauseReserved       a cause of churn that only a policy finds
│   ├── UnknownStage        not a stage of the pipeline's current revision
│   └── CompetitorMissing   a loss without the winning competitor ("none", "unknown" will do)
├── NotFound
│   ├── CustomerNotFound
│   ├── ContactNotFound
│   ├── OpportunityNotFound
│   ├── CampaignNotFound
│   ├── PipelineNotFound
│   ├── ExchangeRateNotFound
│   └── MemberNotFound
├── NeedsApproval           the step must name who approved it
└── Refused                 a rule forbids it in the present state
    ├── AlreadyExists       the external id has been taken (carries `existing_id`)
    ├── SubjectErased       the person it would say something about has been erased
    ├── BeforeFirst         said to have happened before the thing existed
    ├── CurrencyDiffers     an amount in another currency than the one it belongs to
    ├── AlreadyIdentified   an identified customer can't become unknown again
    ├── NameMissing         an identified customer has a name
    ├── ContactDiffers      the contact id stands for other content
    ├── TooManyContacts
    ├── OrderDiffers        the order id stands for another amount or cost
    ├── DeliveryDiffers     the delivery id stands for another order
    ├── PaymentDiffers      the reference stands for another amount
    ├── RetentionNotPlanned nothing was decided on keeping the customer
    ├── RetentionLimitExceeded  more than may be spent on keeping the customer
    ├── NotInRelationship   levels exist inside a relationship only
    ├── NotLost             nobody to win back
    ├── AlreadyLost         lost before, for another cause
    ├── DealSuspended       resume first
    ├── DealNotSuspended    nothing to resume
    ├── DealEnded           won, lost or terminated
    ├── DealNotEnded        still open or suspended
    ├── DealClosed          closed deals take archive and purge only
    ├── DealNotClosed
    ├── DealNotArchived
    ├── ReviewMissing       a deal is reviewed before it is closed
    ├── ContractDiffers     won with another contract
    ├── SignedBeforeOpening
    ├── LossDiffers         lost for another cause or to another competitor
    ├── CampaignStepRefused the campaign is not where this step starts from
    │   └── CampaignNotApproved  running before approval
    ├── CostsNotAllowed     the campaign was never approved, or cancelled before its start
    └── CostDiffers         the reference stands for another amount
"""

from __future__ import annotations

from uuid import UUID


class DomainError(Exception):
    """The command was understood and not carried out; nothing has changed."""

    type = "domain-error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(DomainError):
    type = "invalid"


class NotAPerson(Invalid):
    type = "not-a-person"


class NotFound(DomainError):
    type = "not-found"


class NeedsApproval(DomainError):
    type = "needs-approval"


class Refused(DomainError):
    type = "refused"


class InvalidText(Invalid):
    type = "invalid-text"


class InvalidMoney(Invalid):
    type = "invalid-money"


class InvalidProbability(Invalid):
    type = "invalid-probability"


class InvalidAttributes(Invalid):
    type = "invalid-attributes"


class InvalidChannel(Invalid):
    type = "invalid-channel"


class InvalidStages(Invalid):
    type = "invalid-stages"


class InvalidPeriod(Invalid):
    type = "invalid-period"


class InvalidDate(Invalid):
    type = "invalid-date"


class InvalidCount(Invalid):
    type = "invalid-count"


class InvalidQuantity(Invalid):
    type = "invalid-quantity"


class InvalidCycle(Invalid):
    type = "invalid-cycle"


class InvalidLimit(Invalid):
    type = "invalid-limit"


class InvalidRate(Invalid):
    type = "invalid-rate"


class NaiveTime(Invalid):
    type = "naive-time"


class InTheFuture(Invalid):
    type = "in-the-future"


class CauseReserved(Invalid):
    type = "cause-reserved"


class UnknownStage(Invalid):
    type = "unknown-stage"


class CompetitorMissing(Invalid):
    type = "competitor-missing"


class CustomerNotFound(NotFound):
    type = "customer-not-found"


class OpportunityNotFound(NotFound):
    type = "opportunity-not-found"


class CampaignNotFound(NotFound):
    type = "campaign-not-found"


class PipelineNotFound(NotFound):
    type = "pipeline-not-found"


class ExchangeRateNotFound(NotFound):
    type = "exchange-rate-not-found"


class MemberNotFound(NotFound):
    type = "member-not-found"


class ContactNotFound(NotFound):
    type = "contact-not-found"


class AlreadyExists(Refused):
    type = "already-exists"

    def __init__(self, existing_id: UUID) -> None:
        super().__init__(f"already exists as {existing_id}")
        self.existing_id = existing_id


class SubjectErased(Refused):
    type = "subject-erased"


class BeforeFirst(Refused):
    type = "before-first-event"


class CurrencyDiffers(Refused):
    type = "currency-differs"


class AlreadyIdentified(Refused):
    type = "already-identified"


class NameMissing(Refused):
    type = "name-missing"


class ContactDiffers(Refused):
    type = "contact-differs"


class TooManyContacts(Refused):
    type = "too-many-contacts"


class OrderDiffers(Refused):
    type = "order-differs"


class DeliveryDiffers(Refused):
    type = "delivery-differs"


class PaymentDiffers(Refused):
    type = "payment-differs"


class RetentionNotPlanned(Refused):
    type = "retention-not-planned"


class RetentionLimitExceeded(Refused):
    type = "retention-limit-exceeded"


class NotInRelationship(Refused):
    type = "not-in-relationship"


class NotLost(Refused):
    type = "not-lost"


class AlreadyLost(Refused):
    type = "already-lost"


class DealSuspended(Refused):
    type = "deal-suspended"


class DealNotSuspended(Refused):
    type = "deal-not-suspended"


class DealEnded(Refused):
    type = "deal-ended"


class DealNotEnded(Refused):
    type = "deal-not-ended"


class DealClosed(Refused):
    type = "deal-closed"


class DealNotClosed(Refused):
    type = "deal-not-closed"


class DealNotArchived(Refused):
    type = "deal-not-archived"


class ReviewMissing(Refused):
    type = "review-missing"


class ContractDiffers(Refused):
    type = "contract-differs"


class SignedBeforeOpening(Refused):
    type = "signed-before-opening"


class LossDiffers(Refused):
    type = "loss-differs"


class CampaignStepRefused(Refused):
    type = "campaign-step-refused"


class CampaignNotApproved(CampaignStepRefused):
    type = "campaign-not-approved"


class CostsNotAllowed(Refused):
    type = "costs-not-allowed"


class CostDiffers(Refused):
    type = "cost-differs"
