"""Data-driven models fitted to paths, and kept for as long as the paths are the same."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import numpy as np

from domain.definitions import AttributionDefinition
from projections.attribution.markov import Floats, blocked, chain_of, removal_effects
from projections.attribution.models import Model
from projections.attribution.paths import Paths, paths
from projections.attribution.shapley import shapley
from projections.kept import Kept
from projections.reading import Connection, Moment, fetch_one

Shares = dict[UUID, float]
"""By campaign; at least 0, summing to 1, or none at all."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model made of the paths: `wins` of `paths` were won.

    `effects`: removal effects, of a Markov chain. `errors`: standard errors of the shares, of
    values from so many sampled `orders`; None: exact.
    """

    shares: Shares
    paths: int
    wins: int
    effects: dict[UUID, float] | None = None
    errors: Shares | None = None
    orders: int = 0


def fitted(model: Model, of: Paths) -> Fit:
    """Shares in proportion to the removal effects or to the Shapley values, negative ones counting
    as 0; where all are 0, those of the linear model."""
    wins = int(of.won.sum())
    if not of.campaigns:
        return Fit({}, 0, 0, {} if model is Model.MARKOV else None)
    if model is Model.MARKOV:
        _, effects = removal_effects(chain_of(of))
        return Fit(
            _shares(of, effects),
            of.count,
            wins,
            dict(zip(of.campaigns, effects.tolist(), strict=True)),
        )
    values, errors, orders = shapley(of)
    total = float(np.clip(values, 0, None).sum())
    stated = None
    if errors is not None and total > 0:
        stated = dict(zip(of.campaigns, (errors / total).tolist(), strict=True))
    return Fit(_shares(of, values), of.count, wins, None, stated, orders)


@dataclass(frozen=True, slots=True)
class Removal:
    """A Markov chain without one campaign: its removal effect, and the shares of the others in
    what is won yet."""

    effect: float
    shares: Shares


def removed(of: Paths, campaign: UUID) -> Removal:
    """What the chain says of a campaign's removal: paths through it end in nothing."""
    if campaign not in of.campaigns:
        return Removal(0.0, fitted(Model.MARKOV, of).shares)
    place = of.campaigns.index(campaign)
    chain = chain_of(of)
    _, effects = removal_effects(chain)
    chance, rest = removal_effects(blocked(chain, place))
    rest[place] = 0
    shares = _shares(of, rest) if chance > 0 else {}
    shares.pop(campaign, None)
    return Removal(float(effects[place]), shares)


def _shares(of: Paths, values: Floats) -> Shares:
    positive = np.clip(values, 0, None)
    if not positive.sum() > 0:
        weights = of.won if of.won.sum() else of.lost
        per_touch = np.repeat(weights / of.lengths, of.lengths)
        linear = np.bincount(of.touches, weights=per_touch, minlength=len(of.campaigns))
        positive = linear.astype(np.float64)
    return dict(zip(of.campaigns, (positive / positive.sum()).tolist(), strict=True))


class Fits:
    """Fits by what they rest on: the state of the read model, the moment, definition and dates."""

    def __init__(self, most: int = 64) -> None:
        self._fits: Kept[Any] = Kept(most)
        self._paths: Kept[Paths] = Kept(4)  # those of a long history are large

    def fit(
        self,
        connection: Connection,
        moment: Moment,
        model: Model,
        definition: AttributionDefinition,
        start: date | None,
        end: date | None,
        zone: str,
        without: UUID | None = None,
    ) -> Fit:
        """The data-driven model, fitted to the paths that ended in [start, end); `without` the
        touches of a campaign."""
        key = _key(connection, moment, definition, start, end, zone)

        def make() -> Fit:
            found = self._found(key, connection, moment, definition, start, end, zone)
            return fitted(model, found if without is None else found.without(without))

        return self._fits.get((*key, model, without), make)  # type: ignore[no-any-return]

    def removal(
        self,
        connection: Connection,
        moment: Moment,
        definition: AttributionDefinition,
        start: date | None,
        end: date | None,
        zone: str,
        campaign: UUID,
    ) -> Removal:
        """What the Markov chain of these paths says of the campaign's removal."""
        key = _key(connection, moment, definition, start, end, zone)

        def make() -> Removal:
            found = self._found(key, connection, moment, definition, start, end, zone)
            return removed(found, campaign)

        return self._fits.get((*key, "removal", campaign), make)  # type: ignore[no-any-return]

    def _found(
        self,
        key: tuple[Hashable, ...],
        connection: Connection,
        moment: Moment,
        definition: AttributionDefinition,
        start: date | None,
        end: date | None,
        zone: str,
    ) -> Paths:
        return self._paths.get(
            key,
            lambda: paths(
                connection,
                moment,
                look_back_days=definition.look_back_days,
                start=start,
                end=end,
                zone=zone,
            ),
        )


def _key(
    connection: Connection,
    moment: Moment,
    definition: AttributionDefinition,
    start: date | None,
    end: date | None,
    zone: str,
) -> tuple[Hashable, ...]:
    """All that the paths depend on: one filling of the tables, up to the same positions, with as
    many facts that wait. Facts never lie in the future, so the present needs no time."""
    state = fetch_one(
        connection,
        """SELECT (SELECT string_agg(filled::text, ' ' ORDER BY projection) FROM origin
                WHERE projection LIKE 'attribution/%%') AS filled,
            (SELECT string_agg(position::text, ' ' ORDER BY projection, partition) FROM position
                WHERE projection LIKE 'attribution/%%') AS positions,
            (SELECT count(*) FROM parked WHERE projection LIKE 'attribution/%%') AS parked""",
        {},
    )
    as_of = None if moment.latest else moment.as_of
    return (*(state or {}).values(), as_of, moment.known_at, definition.id, start, end, zone)
