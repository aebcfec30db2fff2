"""The funnel's projection: its folds, and its views for BI."""

from __future__ import annotations

from projections.funnel.deals import DEAL, DEAL_FACT, DealFold
from projections.funnel.pipelines import STAGE, PipelineFold
from projections.projection import PERIOD_COMMENTS, Projection, View
from projections.reading import NEWEST

# Who referred a deal may be named there, and persons' names are not for reports.
_EVENT_COLUMNS = {c.name: c.comment for c in DEAL_FACT if c.name != "referred_by"}
_DEAL_COLUMNS = {
    "deal_id": "The deal.",
    **{column.name: column.comment for column in DEAL if column.name != "referred_by"},
}
_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"


class FunnelProjection(Projection):
    """Deals, stage visits and pipelines."""

    name = "funnel"
    version = 1
    folds = (DealFold(), PipelineFold())
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
            f"""SELECT deal_id, visit, stage, revision, valid_from,
                CASE WHEN valid_to <> 'infinity' THEN valid_to END, ended
                FROM visit_period WHERE known_to = {NEWEST}""",
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
