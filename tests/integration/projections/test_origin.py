"""A read model is carried on from the log that filled it, and by no earlier program."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.eventstore.feed import Recorded, partition_of
from projections import origin
from projections.funnel import FunnelProjection
from projections.projector import LateOwner, LogBehind, NewerProgram, OtherLog, RebuildNeeded
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story, named
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_projector import drain

pytestmark = pytest.mark.database

WAY_OUT = "crm rebuild funnel"
TOPIC = UUID("11111111-0000-4000-8000-000000000000")


class Later(FunnelProjection):
    version = FunnelProjection.version + 1


@pytest.fixture
def story() -> Story:
    return random_story(41, 100)


def restored(story: Story, end: int) -> Story:
    """The same log as it was at an earlier point."""
    earlier = Story()
    earlier.events = story.events[:end]
    return earlier


def positions(models: Models) -> set[int]:
    return {row[0] for row in models.run("SELECT position FROM position")}


def test_a_new_read_model_is_of_the_log_it_is_filled_from(models: Models, story: Story) -> None:
    story.epoch = uuid4()
    projector = models.projector(FunnelProjection(), story)
    assert projector.epoch == story.epoch
    drain(projector)
    [(epoch,)] = models.run(
        "SELECT store_epoch FROM origin WHERE projection = %s", FunnelProjection().id
    )
    assert epoch == story.epoch


@pytest.mark.parametrize("way", ["step", "own", "look", "rebuild by itself"])
def test_another_log_is_refused_until_somebody_decides(
    models: Models, story: Story, way: str
) -> None:
    drain(models.projector(FunnelProjection(), story))
    rows = models.rows("deal_fact")
    other = random_story(42, 150)
    other.epoch = uuid4()
    # A later version of the projection would be filled anew: not from another log, unasked.
    wanted = Later() if way == "rebuild by itself" else FunnelProjection()
    projector = models.projector(wanted, other)
    with pytest.raises(OtherLog, match=WAY_OUT):
        {"own": lambda: projector.own([1]), "look": projector.look}.get(way, projector.step)()
    assert models.rows("deal_fact") == rows
    models.rebuild(FunnelProjection(), other).run()
    after = models.projector(FunnelProjection(), other)
    assert after.step() == 0
    assert after.epoch == other.epoch


def test_a_log_that_ends_before_the_read_model_is_refused(models: Models, story: Story) -> None:
    drain(models.projector(FunnelProjection(), story))
    earlier = restored(story, 60)
    with pytest.raises(LogBehind, match=WAY_OUT):
        models.projector(FunnelProjection(), earlier).step()
    with pytest.raises(LogBehind):
        models.projector(FunnelProjection(), earlier, owned=[3]).prepare()
    with pytest.raises(LogBehind):
        models.projector(Later(), earlier).step()
    assert positions(models) == {100}


def test_a_log_restored_while_the_projector_runs_is_noticed(models: Models, story: Story) -> None:
    idle = models.projector(FunnelProjection(), story)
    drain(idle)
    del story.events[60:]
    with pytest.raises(LogBehind, match=WAY_OUT):
        idle.step()
    with pytest.raises(LogBehind):
        idle.step()


def test_a_broker_s_reader_that_idles_notices_too(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=1)
    projector.own([0])
    projector.apply(story.events, {0: 100})
    projector.look()
    del story.events[60:]
    with pytest.raises(LogBehind, match=WAY_OUT):
        projector.look()


def test_a_log_given_another_epoch_while_it_runs_is_noticed(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story)
    drain(projector)
    story.epoch = uuid4()
    with pytest.raises(OtherLog):
        projector.step()


def test_a_rebuild_takes_a_live_set_back_to_a_log_that_ends_before_it(
    models: Models, story: Story
) -> None:
    live = models.projector(FunnelProjection(), story)
    drain(live)
    earlier = restored(story, 60)
    result = models.rebuild(FunnelProjection(), earlier).run()
    assert result.position == 60
    assert positions(models) == {60}
    assert models.run("SELECT max(position) FROM deal_fact")[0][0] <= 60
    # The log goes on from there, differently, to the same position; nothing of before is left.
    while len(earlier.events) < 100:
        earlier.customer(f"another {len(earlier.events)}", START)
    drain(models.projector(FunnelProjection(), earlier))
    assert positions(models) == {100}
    assert models.rebuild(FunnelProjection(), earlier).run().same


def test_an_empty_read_model_follows_whatever_log_there_is(models: Models) -> None:
    empty = Story()
    models.projector(FunnelProjection(), empty).prepare()
    story = random_story(43, 30)
    story.epoch = uuid4()
    projector = models.projector(FunnelProjection(), story)
    drain(projector)
    assert projector.epoch == story.epoch
    assert models.run("SELECT store_epoch FROM origin")[0][0] == story.epoch


def of_partition(story: Story, partition: int) -> list[Recorded]:
    return [one for one in story.events if partition_of(one.partition_key, 2) == partition]


def another_log() -> Story:
    other = random_story(42, 150)
    other.epoch = uuid4()
    return other


def test_who_was_about_to_apply_the_former_log_does_not_once_the_next_is_taken(
    models: Models, story: Story
) -> None:
    late = models.projector(FunnelProjection(), story, partitions=2)
    late.own([0])
    models.projector(FunnelProjection(), another_log(), partitions=2).own([1])
    with pytest.raises(LateOwner):
        late.apply(of_partition(story, 0), {0: 100})
    assert positions(models) == {0}


def test_the_next_log_is_not_taken_while_the_former_is_being_applied(
    models: Models, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = models.projector(FunnelProjection(), story, partitions=2)
    late.own([0])
    events = of_partition(story, 0)
    examined, looked = origin.examined, []

    def then_applied(*of: Any) -> Any:
        found = examined(*of)
        if not looked:
            looked.append(True)
            late.apply(events, {0: 100})
        return found

    monkeypatch.setattr(origin, "examined", then_applied)
    with pytest.raises(OtherLog):
        models.projector(FunnelProjection(), another_log(), partitions=2).own([1])
    assert models.run("SELECT store_epoch FROM origin") == [(story.epoch,)]


def test_the_next_log_is_read_from_its_beginning_in_the_topic(models: Models) -> None:
    empty = Story()
    projector = models.projector(FunnelProjection(), empty, partitions=2)
    projector.own([0])
    projector.apply([], {0: 0}, {0: (TOPIC, 70)})
    models.projector(FunnelProjection(), another_log(), partitions=2).own([0])
    assert hints(models) == 0


def test_a_projector_at_the_beginning_follows_a_log_that_gets_another_identity(
    models: Models,
) -> None:
    story = Story()
    projector = models.projector(FunnelProjection(), story)
    assert projector.step() == 0
    story.events = another_log().events
    for way in (projector.step, projector.look):
        story.epoch = uuid4()
        with pytest.raises(LateOwner, match="identity"):
            way()
        projector.prepare()
    drain(projector)
    assert models.run("SELECT store_epoch FROM origin") == [(story.epoch,)]
    assert projector.step() == 0


def test_a_read_model_from_before_there_were_accounts_is_rebuilt(
    models: Models, story: Story
) -> None:
    drain(models.projector(FunnelProjection(), story))
    models.run("DELETE FROM origin")
    models.run("DELETE FROM applied")
    with pytest.raises(RebuildNeeded, match="account"):
        models.projector(FunnelProjection(), story).step()
    models.rebuild(FunnelProjection(), story).run()
    assert models.projector(FunnelProjection(), story).step() == 0


def test_a_log_without_an_event_for_it_needs_no_rebuild(models: Models) -> None:
    story = Story()
    for number in range(5):
        story.campaign(f"fair {number}")
    drain(models.projector(FunnelProjection(), story))
    assert models.run("SELECT * FROM applied") == []
    assert models.projector(FunnelProjection(), story).step() == 0


def test_a_lost_origin_is_found_again_by_the_account(models: Models, story: Story) -> None:
    drain(models.projector(FunnelProjection(), story))
    models.run("DELETE FROM origin")
    assert models.projector(FunnelProjection(), story).step() == 0
    assert models.run("SELECT store_epoch FROM origin")[0][0] == story.epoch


def test_the_earlier_program_ends_when_the_later_one_has_taken_over(
    models: Models, story: Story
) -> None:
    old = models.projector(FunnelProjection(), story)
    drain(old)
    models.rebuild(Later(), story).run()
    story.customer(str(named("one more")), START)
    errors = []
    for _ in range(2):  # first it finds its positions gone, then whose they are now
        with pytest.raises(RuntimeError) as caught:
            old.step()
        errors.append(type(caught.value).__name__)
    assert errors == ["LateOwner", "NewerProgram"]


def test_a_rebuild_that_is_overtaken_by_a_later_program_gives_up(
    models: Models, story: Story
) -> None:
    drain(models.projector(FunnelProjection(), story))

    def overtaken(_: int) -> None:
        later = f"funnel/{FunnelProjection.version + 1}"
        models.run("UPDATE position SET projection = %s", later)

    with pytest.raises(NewerProgram):
        models.rebuild(FunnelProjection(), story, on_progress=overtaken).run()
    assert positions(models) == {100}


def test_a_live_projector_does_not_go_on_with_rows_of_before_a_rebuild(
    models: Models, story: Story
) -> None:
    live = models.projector(FunnelProjection(), story, partitions=1)
    live.own([0])
    live.apply(story.events, {0: 100})
    models.rebuild(FunnelProjection(), story, partitions=1).run()
    story.customer("one more", START)
    with pytest.raises(RuntimeError, match="another owner"):
        live.apply(story.events[100:], {0: 101})
    assert live.own([0]) == {0: 100}
    live.apply(story.events[100:], {0: 101})


# ---- where to go on reading the topic ----


def with_hints(models: Models, story: Story, partitions: int = 2) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=partitions)
    numbers = range(partitions)
    projector.own(numbers)
    hints = {number: (TOPIC, 70 + number) for number in numbers}
    projector.apply(story.events, dict.fromkeys(numbers, len(story.events)), hints)


def hints(models: Models) -> int:
    count: int = models.run("SELECT count(*) FROM kafka_offset")[0][0]
    return count


def test_a_rebuild_keeps_offsets_behind_which_it_has_everything(
    models: Models, story: Story
) -> None:
    with_hints(models, story)
    models.rebuild(FunnelProjection(), story, partitions=2).run()
    assert hints(models) == 2
    models.rebuild(Later(), story, partitions=2).run()
    assert hints(models) == 2


def test_a_rebuild_for_other_partitions_forgets_offsets(models: Models, story: Story) -> None:
    with_hints(models, story)
    models.rebuild(FunnelProjection(), story, partitions=3).run()
    assert hints(models) == 0


def test_a_rebuild_from_a_log_that_ends_earlier_forgets_offsets(
    models: Models, story: Story
) -> None:
    with_hints(models, story)
    models.rebuild(FunnelProjection(), restored(story, 60), partitions=2).run()
    assert hints(models) == 0


def test_a_rebuild_from_another_log_forgets_offsets(models: Models, story: Story) -> None:
    with_hints(models, story)
    story.epoch = uuid4()
    models.rebuild(FunnelProjection(), story, partitions=2).run()
    assert hints(models) == 0
