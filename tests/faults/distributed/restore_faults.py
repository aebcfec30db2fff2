"""A log that was restored from a backup, and so ends before what others have seen of it."""

from __future__ import annotations

from tests.faults.distributed.checker import Checker
from tests.faults.distributed.trial import Trial


def behind_the_read_models(trial: Trial) -> None:
    """Relays, sealer and workers refuse to go on, and name the way out; by it all is well again."""
    deployment = trial.deployment
    backup = deployment.directory / "log.dump"
    for number in trial.times(2):
        with trial.load() as load:
            load.answered(80)
        deployment.database.dump(backup, "log", "vault")
        with trial.load() as load:
            load.answered(120)
        Checker(deployment).caught_up()
        reached = deployment.end()
        for process in deployment.processes:
            process.stop()
        deployment.database.restore(backup)
        trial.fault()
        _forget_what_is_lost(trial)
        for api in deployment.apis:
            api.start()
        deployment.ready()
        if number:  # before anybody looks, the log is longer than it was, with other events
            with trial.load(heal=False) as load:
                while deployment.end() <= reached:
                    load.answered(20)
        _refused_with_the_way_out(trial, by_workers=not number)
        code, said = deployment.crm("relay", "--from", "0")
        assert code == 0, said
        owner = deployment.database.admin_url
        code, said = deployment.crm("seal", "--new-log", DATABASE_URL=owner)
        assert code == 0, said
        for worker in deployment.workers:
            if worker.alive:
                worker.stop()
        for model in deployment.models:
            code, said = deployment.crm("rebuild", model)
            assert code == 0, said
        deployment.heal()
        trial.check()


def _forget_what_is_lost(trial: Trial) -> None:
    """The client cannot expect what was done after the backup."""
    journal = trial.deployment.journal
    receipts = {key for (key,) in trial.deployment.database.query("SELECT key FROM log.receipts")}
    lost = [asked for asked in journal.ok() if asked.command.key not in receipts]
    assert lost
    journal.forget(lost)


def _refused_with_the_way_out(trial: Trial, *, by_workers: bool) -> None:
    deployment = trial.deployment
    for relay in deployment.relays:
        relay.start()
    # One takes the lease, looks, and refuses; then the other does.
    for relay in deployment.relays:
        code = relay.ended()
        assert code == 1, f"{relay.name} ended with {code}: {relay.last_words()}"
        assert "crm relay --from" in relay.text, relay.text
    for worker in deployment.workers:
        worker.start()
    code, said = deployment.crm("seal", "--once")
    assert code == 1, said
    assert "crm seal --new-log" in said, said
    if by_workers:
        for worker in deployment.workers:
            code = worker.ended()
            assert code == 1, f"{worker.name} ended with {code}: {worker.last_words()}"
            assert "crm rebuild" in worker.text, worker.text
