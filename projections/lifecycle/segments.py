"""A decision tree over customers' attributes and behaviour (R35).

It learns from what customers were like at an earlier time and whether they have come to a target
since; then it scores those who have not come there yet by what they are like now. Nothing that
happened after the earlier time is in what it learns from, so that it does not explain an outcome
by the outcome.

Reads the tables of the customers' profiles, too. Attributes of natural persons are theirs, and are
left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from projections.lifecycle.classifications import VALUES, Classification
from projections.reading import Connection, Moment, truth

SAMPLE: Final = 50_000
"""A tree learns from so many customers at most: those with the lowest ids, which are drawn."""
SCORED: Final = 200_000
"""At most so many are scored, likewise."""
MOST_VALUES: Final = 20
"""Texts of one attribute that are told apart, the most frequent ones."""
LONGEST_TEXT: Final = 100
"""Longer texts tell a story, not a kind of customer; they are left out."""
COLUMNS: Final = 200
"""So many features at most: behaviour and profile first, then what is known of most customers."""

_BATCH: Final = 2_000
"""Profiles in memory at once: each may have a hundred attributes."""
_NAMES: Final = 2_000
_TEXTS: Final = 1_000
"""Names, and texts of each, that are counted at once; of more the rarer half is forgotten."""
_UNKNOWN: Final = -1e30
"""Stands for a number that is not known: below all that can be."""

Profile: TypeAlias = dict[str, str | float | bool]
"""A customer's features by name; what is not known is absent."""

_BEHAVIOUR = ("responses", "deals", "purchases", "spent", "days_since_purchase")
_ALWAYS_KNOWN = _BEHAVIOUR[:4]


@dataclass(frozen=True, slots=True)
class Target:
    """A value of a classification; on the paths, those beyond it count as well."""

    classification: Classification
    value: str

    @property
    def reached(self) -> tuple[str, ...]:
        """The values that count."""
        values = VALUES[self.classification]
        if self.classification in (Classification.PATH, Classification.IDENTIFICATION):
            return values[values.index(self.value) :]
        return (self.value,)


@dataclass(frozen=True, slots=True)
class Leaf:
    """`rule`: what its customers have in common. Of `customers` learned from, `reached` came to
    the target: `probability` = reached ÷ customers. `others`: those it scores, in `members`."""

    leaf: int
    rule: tuple[str, ...]
    customers: int
    reached: int
    probability: float
    others: int
    members: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """The leaves, the most probable first. `reason` tells why there are none."""

    customers: int
    reached: int
    others: int
    leaves: list[Leaf]
    reason: str | None


def tree(
    connection: Connection,
    moment: Moment,
    *,
    target: Target,
    since: datetime,
    currency: str,
    depth: int,
    least: int,
) -> Tree:
    """Learned from the customers that had not reached the target at `since`, by whether they have
    at the moment; `least` of them in each leaf, at most `depth` questions deep."""
    earlier = replace(moment, as_of=since, latest=False)
    features = Features()
    open_then: list[UUID] = []
    for batch in _profiles(connection, earlier, target, currency, SAMPLE):
        open_then += batch
        for profile in batch.values():
            features.count(profile)
    has_come = _arrived(connection, moment, target, open_then)
    labels = np.array([customer in has_come for customer in open_then], dtype=np.int64)
    reached = int(labels.sum())
    if len(labels) < 2 * least:
        reason = f"{len(labels)} customers to learn from: a tree takes {2 * least}"
    elif reached in (0, len(labels)):
        reason = "the customers to learn from all have the same outcome"
    else:
        features.choose()
        learned = _profiles(connection, earlier, target, currency, SAMPLE)
        rows = np.concatenate([features.matrix(list(batch.values())) for batch in learned])
        others = _profiles(connection, moment, target, currency, SCORED)
        leaves = grown(features, rows, labels, others, depth=depth, least=least)
        return Tree(len(labels), reached, sum(leaf.others for leaf in leaves), leaves, None)
    count = sum(map(len, _profiles(connection, moment, target, currency, SCORED)))
    return Tree(len(labels), reached, count, [], reason)


class Features:
    """Which columns profiles become: one for each number, one for each frequent text.

    First all profiles are counted, then the columns are chosen; these are a function of the
    profiles and their order.
    """

    def __init__(self) -> None:
        self.columns: list[tuple[str, str | None]] = []
        self._profiles = 0
        self._numbers: Counter[str] = Counter()
        self._texts: dict[str, Counter[str]] = {}

    def count(self, profile: Profile) -> None:
        self._profiles += 1
        for name, value in profile.items():
            if not isinstance(value, str):
                self._numbers[name] += 1
            elif len(value) <= LONGEST_TEXT:
                texts = self._texts.setdefault(name, Counter())
                texts[value] += 1
                if len(texts) > _TEXTS:
                    self._texts[name] = Counter(dict(_most(texts, _TEXTS // 2)))
        if len(self._numbers) > _NAMES:
            self._numbers = Counter(dict(_most(self._numbers, _NAMES // 2)))
        if len(self._texts) > _NAMES:
            known = Counter({name: texts.total() for name, texts in self._texts.items()})
            self._texts = {name: self._texts[name] for name, _ in _most(known, _NAMES // 2)}

    def choose(self) -> None:
        wanted: list[tuple[bool, int, str, list[str | None]]] = []
        for name, known in self._numbers.items():
            wanted.append((name.startswith("attributes."), -known, name, [None]))
        for name, texts in self._texts.items():
            common: list[str | None] = [text for text, _ in _most(texts, MOST_VALUES)]
            if len(common) == len(texts) == 2 and texts.total() == self._profiles:
                common = common[:1]  # who is not the one is the other
            wanted.append((name.startswith("attributes."), -texts.total(), name, common))
        wanted.sort(key=lambda one: one[:3])
        self.columns = [(name, text) for _, _, name, texts in wanted for text in texts][:COLUMNS]

    def matrix(self, profiles: Sequence[Profile]) -> NDArray[np.float32]:
        """A row for each profile."""
        rows = np.zeros((len(profiles), max(len(self.columns), 1)), dtype=np.float32)
        for column, (name, text) in enumerate(self.columns):
            for row, profile in enumerate(profiles):
                value = profile.get(name)
                if text is not None:
                    rows[row, column] = value == text
                else:
                    unknown = value is None or isinstance(value, str)
                    rows[row, column] = _UNKNOWN if unknown else value
        return rows

    def questions(
        self, column: int, threshold: float, asked: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What holds below and above a split, for people, after what was `asked` before."""
        name, text = self.columns[column]
        if text is not None:
            return (*asked, f"{name} is not {text}"), (*asked, f"{name} is {text}")
        if threshold < _UNKNOWN / 10:
            return (*asked, f"{name} is not known"), (*asked, f"{name} is known")
        below = f"{name} ≤ {threshold:.6g}"
        if name not in _ALWAYS_KNOWN and not _is_known(name, asked):
            below += " or not known"
        return (*asked, below), (*asked, f"{name} > {threshold:.6g}")


def _is_known(name: str, asked: tuple[str, ...]) -> bool:
    return f"{name} is known" in asked or any(one.startswith(f"{name} > ") for one in asked)


def _most(counted: Counter[str], many: int) -> list[tuple[str, int]]:
    """The most frequent; of equally frequent ones always the same."""
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:many]


def grown(
    features: Features,
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    others: Iterable[dict[UUID, Profile]],
    *,
    depth: int,
    least: int,
) -> list[Leaf]:
    """The leaves of the tree learned from these rows, which it has scored the others by."""
    # Here, since it is large and most processes are never asked for a tree.
    from sklearn.tree import DecisionTreeClassifier

    classifier = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=least, min_impurity_decrease=1e-4, random_state=0
    )
    classifier.fit(rows, labels)
    rules = _rules(classifier.tree_, features)
    members: dict[int, list[UUID]] = {node: [] for node in rules}
    for batch in others:
        scored = classifier.apply(features.matrix(list(batch.values()))).tolist()
        for customer, node in zip(batch, scored, strict=True):
            members[node].append(customer)
    own = classifier.apply(rows)
    found = []
    for node, rule in rules.items():
        there = own == node
        size, reached = int(there.sum()), int(labels[there].sum())
        found.append(
            Leaf(
                node, rule, size, reached, reached / size, len(members[node]), tuple(members[node])
            )
        )
    return sorted(found, key=lambda leaf: (-leaf.probability, leaf.leaf))


def _rules(inner: Any, features: Features) -> dict[int, tuple[str, ...]]:
    """By leaf."""
    rules: dict[int, tuple[str, ...]] = {}
    stack: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    while stack:
        node, rule = stack.pop()
        if inner.children_left[node] < 0:
            rules[node] = rule
            continue
        column, threshold = int(inner.feature[node]), float(inner.threshold[node])
        below, above = features.questions(column, threshold, rule)
        stack.append((int(inner.children_left[node]), below))
        stack.append((int(inner.children_right[node]), above))
    return rules


def _profiles(
    connection: Connection, moment: Moment, target: Target, currency: str, most: int
) -> Iterator[dict[UUID, Profile]]:
    """The customers that had not reached the target, by id, as they were then; in batches, to be
    taken to the end before anything else is asked of the connection."""
    known_by = "" if moment.known_at is None else " AND f.position <= %(known_at)s"
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL cursor_tuple_fraction TO 1")  # all rows are wanted, not the first
    with connection.cursor(f"profiles_{uuid4().hex}") as cursor:
        cursor.execute(
            f"""WITH wanted AS (
                SELECT s.customer_id FROM standing_period AS s
                WHERE s.classification = %(classification)s AND NOT s.value = ANY(%(reached)s)
                AND {truth(moment, "s")} ORDER BY s.customer_id LIMIT {most}),
            done AS (
                SELECT f.customer_id,
                    count(*) FILTER (WHERE f.kind = 'campaign-responded') AS responses,
                    count(*) FILTER (WHERE f.kind = 'opened') AS deals
                FROM wanted JOIN standing_fact AS f USING (customer_id)
                WHERE f.occurred_at <= %(as_of)s{known_by} GROUP BY 1),
            bought AS (
                SELECT p.customer_id, count(*) AS purchases,
                    sum(p.amount) FILTER (WHERE p.currency = %(currency)s)::float8 AS spent,
                    extract(epoch FROM %(as_of)s - max(p.valid_from))::float8 / 86400 AS silent
                FROM wanted JOIN purchase_period AS p USING (customer_id)
                WHERE {truth(moment, "p")} GROUP BY 1)
            SELECT wanted.customer_id, coalesce(responses, 0), coalesce(deals, 0),
                coalesce(purchases, 0), coalesce(spent, 0), silent, c.kind, c.region, c.industry,
                c.source, CASE WHEN c.kind = 'company' THEN c.attributes END
            FROM wanted LEFT JOIN done USING (customer_id) LEFT JOIN bought USING (customer_id)
                LEFT JOIN customer_period AS c ON c.customer_id = wanted.customer_id
                AND {truth(moment, "c")}
            ORDER BY wanted.customer_id""",
            {
                **moment.parameters(),
                "classification": target.classification.value,
                "reached": list(target.reached),
                "currency": currency,
            },
        )
        while rows := cursor.fetchmany(_BATCH):
            yield {UUID(str(row[0])): _profile(row[1:]) for row in rows}


def _profile(row: tuple[Any, ...]) -> Profile:
    *behaviour, kind, region, industry, source, attributes = row
    profile: Profile = {
        name: float(value)
        for name, value in zip(_BEHAVIOUR, behaviour, strict=True)
        if value is not None
    }
    named = {"kind": kind, "region": region, "industry": industry, "source": source}
    profile.update({name: value for name, value in named.items() if value is not None})
    for name, value in (attributes or {}).items():
        profile[f"attributes.{name}"] = float(value) if isinstance(value, int) else value
    return profile


def _arrived(
    connection: Connection, moment: Moment, target: Target, customers: list[UUID]
) -> set[UUID]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT customer_id FROM standing_period
                WHERE customer_id = ANY(%(ids)s::uuid[])
                AND classification = %(classification)s AND value = ANY(%(reached)s)
                AND {truth(moment)}""",
            {
                **moment.parameters(),
                "ids": [str(one) for one in customers],
                "classification": target.classification.value,
                "reached": list(target.reached),
            },
        )
        return {UUID(str(row[0])) for row in cursor.fetchall()}
