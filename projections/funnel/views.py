"""The funnel's projection: its folds, and its views for BI."""

from __future__ import annotations

from projections.funnel.deals import DEAL, DEAL_FACT, DealFold
from projections.funnel.members import MemberFold
from projections.funnel.pipelines import STAGE, PipelineFold
from projections.funnel.rates import RateFold
from projections.projection import PERIOD_COMMENTS, Projection, View
from projections.reading import NEWEST

# Who referred a deal may be named there, and persons' names are not for reports.
_EVENT_COLUMNS = {c.name: c.comment for c in DEAL_FACT if c.name != "referred_by"}
_DEAL_COLUMNS = {
    "deal_id": "The deal.",
    **{column.name: column.comment for column in DEAL if column.name != "referred_by"},
}
_STAGE_KEY = "{0}.pipeline_id || '/' || {0}.revision || '/' || {0}.stage"
_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"


class FunnelProjection(Projection):
    """Deals, stage visits, pipelines, exchange rates, and the owners' teams."""

    name = "funnel"
    version = 5
    folds = (DealFold(), PipelineFold(), RateFold(), MemberFold())
    views = (
        View(
            "deal",
            "Deals as they are now.",
            _DEAL_COLUMNS,
            f"SELECT {', '.join(_DEAL_COLUMNS)} FROM deal_period WHERE {_OPEN}",
        ),
        View(
            "deal_history",
            "States of deals over both times.",
            {**_DEAL_COLUMNS, **PERIOD_COMMENTS},
            f"SELECT {', '.join((*_DEAL_COLUMNS, *PERIOD_COMMENTS))} FROM deal_period",
        ),
        View(
            "deal_event",
            "Every change of a deal: who, when, from, to.",
            {
                "deal_id": "The deal.",
                "occurred_at": "When it was true.",
                "position": "Position of the event in the log.",
                **_EVENT_COLUMNS,
            },
            "SELECT deal_id, occurred_at, position, "
            + ", ".join(_EVENT_COLUMNS)
            + " FROM deal_fact",
        ),
        View(
            "stage_visit",
            "Stays of deals in stages, as known now.",
            {
                "deal_id": "The deal.",
                "visit": "Number of the stay within the deal, from 1.",
                "stage": "The stage.",
                "revision": "Revision of the pipeline the deal entered it under.",
                "entered_at": "When the deal entered the stage.",
                "left_at": "When it left; null while it is there.",
                "ended": "advanced, moved-back, won, lost, terminated; null while it lasts.",
            },
            f"""SELECT DISTINCT ON (deal_id, visit) deal_id, visit, stage, revision, entered_at,
                CASE WHEN valid_to <> 'infinity' THEN valid_to END, ended
                FROM visit_period WHERE known_to = {NEWEST} ORDER BY deal_id, visit, part DESC""",
        ),
        View(
            "dim_stage",
            "Stages of all revisions of the pipelines, one row each.",
            {
                "stage_key": "Pipeline, revision and name of the stage, as fact_stage_visit has"
                " it.",
                "pipeline_id": "The pipeline.",
                "pipeline": "Name of the pipeline.",
                "revision": "The revision.",
                "ordinal": "Place of the stage in the pipeline, from 1.",
                **{column.name: column.comment for column in STAGE},
            },
            f"""SELECT {_STAGE_KEY.format("s")}, s.pipeline_id,
                (SELECT p.name FROM pipeline_period AS p WHERE p.pipeline_id = s.pipeline_id
                 AND p.known_to = {NEWEST} AND p.valid_to = 'infinity'),
                s.revision, s.ordinal, {", ".join(f"s.{c.name}" for c in STAGE)}
                FROM pipeline_stage_period AS s WHERE s.known_to = {NEWEST}""",
        ),
        View(
            "fact_stage_visit",
            "Stays of deals in stages, as known now, one row each.",
            {
                "deal_id": "The deal.",
                "visit": "Number of the stay within the deal, from 1.",
                "stage_key": "The stage, of the revision that the deal entered it under.",
                "customer_id": "The deal's customer.",
                "pipeline_id": "The pipeline.",
                "stage": "Name of the stage.",
                "entered_at": "When the deal entered the stage.",
                "left_at": "When it left; null while it is there.",
                "days": "Days in the stage, with fractions; null while the deal is there.",
                "suspended_days": "Of these, days on which the deal was suspended.",
                "ended": "advanced, moved-back, won, lost, terminated; null while it lasts.",
                "to_stage": "The stage the deal went to; null if it went to none.",
                "currency": "Currency of the amounts.",
                "amount": "Amount asked at the end of the stay.",
                "won_amount": "Amount of the contract, if the deal was won from this stage.",
            },
            f"""SELECT v.deal_id, v.visit, {_STAGE_KEY.format("v")}, d.customer_id, v.pipeline_id,
                v.stage, v.entered_at, CASE WHEN v.valid_to <> 'infinity' THEN v.valid_to END,
                CASE WHEN v.valid_to <> 'infinity'
                    THEN round(extract(epoch FROM v.valid_to - v.entered_at) / 86400, 6) END,
                CASE WHEN v.valid_to <> 'infinity' THEN v.suspended_days END,
                v.ended, v.to_stage, v.currency, v.amount, v.won_amount
                FROM (
                    SELECT DISTINCT ON (deal_id, visit) *, round(coalesce(sum(
                        extract(epoch FROM valid_to - valid_from) / 86400)
                        FILTER (WHERE status = 'suspended' AND valid_to <> 'infinity')
                        OVER (PARTITION BY deal_id, visit), 0), 6) AS suspended_days
                    FROM visit_period WHERE known_to = {NEWEST}
                    ORDER BY deal_id, visit, part DESC) AS v
                JOIN deal_period AS d ON d.deal_id = v.deal_id
                    AND d.known_to = {NEWEST} AND d.valid_to = 'infinity'""",
        ),
        View(
            "dim_owner",
            "Owners of deals, and everybody else whose team was told.",
            {
                "owner": "Id of the person in our own house.",
                "team": "Its team now; null: in none, or none was told.",
                "team_since": "Since when; null: nothing was told.",
            },
            f"""SELECT o.owner, m.team, m.valid_from FROM (
                    SELECT owner FROM deal_fact WHERE owner IS NOT NULL
                    UNION SELECT owner FROM member_period) AS o
                LEFT JOIN member_period AS m ON m.owner = o.owner
                    AND m.known_to = {NEWEST} AND m.valid_to = 'infinity'""",
        ),
        View(
            "owner_history",
            "Teams of owners over both times.",
            {
                "owner": "Id of the person in our own house.",
                "team": "Its team; null: in none.",
                **PERIOD_COMMENTS,
            },
            """SELECT owner, team, valid_from, valid_to, known_from, known_to
                FROM member_period""",
        ),
        View(
            "exchange_rate",
            "Exchange rates, as known now.",
            {
                "from_currency": "What one unit of this currency is worth",
                "to_currency": "in this one.",
                "on_date": "From this day on, until the pair's next one.",
                "rate": "Units of to_currency for one of from_currency.",
            },
            f"""SELECT from_currency, to_currency, on_date, rate FROM rate_period
                WHERE {_OPEN}""",
        ),
        View(
            "pipeline_stage",
            "Stages of all revisions of the pipelines.",
            {
                "pipeline_id": "The pipeline.",
                "revision": "The revision.",
                "ordinal": "Place of the stage in the pipeline, from 1.",
                **{column.name: column.comment for column in STAGE},
            },
            f"""SELECT pipeline_id, revision, ordinal, {", ".join(c.name for c in STAGE)}
                FROM pipeline_stage_period WHERE known_to = {NEWEST}""",
        ),
        View(
            "funnel",
            "Open deals by pipeline, stage and currency, now.",
            {
                "pipeline_id": "The pipeline.",
                "stage": "The stage.",
                "currency": "Currency of the amounts.",
                "deals": "Number of open deals.",
                "amount": "Sum of their amounts.",
                "weighted": "Sum of amount × chance to win from the stage on.",
            },
            f"""SELECT d.pipeline_id, d.stage, d.currency, count(*), sum(d.amount),
                sum(d.amount * coalesce(s.chance_to_win, 0))
                FROM deal_period AS d LEFT JOIN pipeline_stage_period AS s
                ON s.pipeline_id = d.pipeline_id AND s.revision = d.revision
                AND s.stage = d.stage AND s.known_to = {NEWEST}
                WHERE d.known_to = {NEWEST} AND d.valid_to = 'infinity' AND d.status = 'open'
                GROUP BY d.pipeline_id, d.stage, d.currency""",
        ),
        View(
            "win_rate_by_competitor",
            "Deals decided, by the competitor named in the loss or the review.",
            {
                "competitor": "The competitor; unknown where none was named.",
                "won": "Deals won.",
                "lost": "Deals lost.",
                "rate": "won ÷ (won + lost).",
            },
            f"""SELECT coalesce(competitor, 'unknown'),
                count(*) FILTER (WHERE status = 'won'), count(*) FILTER (WHERE status = 'lost'),
                round(count(*) FILTER (WHERE status = 'won') / count(*)::numeric, 6)
                FROM deal_period WHERE {_OPEN} AND status IN ('won', 'lost') GROUP BY 1""",
        ),
    )
