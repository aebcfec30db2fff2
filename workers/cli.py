"""The command ``crm``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn
from uuid import UUID

import psycopg2
import typer
from rich.console import RenderableType

from api.tokens import Scope, Tokens
from infra import crashpoints, logging
from infra.archive import ArchiveRefused
from infra.backup.manifest import BackupRefused
from infra.cluster import make_data_dir
from infra.embedded import EmbeddedPostgresError
from infra.eventstore.outbox import GapInLog, LeaseLost
from infra.kafka import KafkaUnavailable
from infra.migrations import MigrationError
from infra.proof.sealing import SealRefused
from infra.proof.sources import UnreadableExport
from infra.settings import Settings, SettingsError, load
from infra.vault import WrongMasterKey
from projections.catalogue import PROJECTIONS
from projections.rebuild import ReadersInTheWay, RebuildRunning
from projections.snapshot import NotBuilt
from workers import showing
from workers.archiving import run_archive
from workers.archiving import run_check as check_archive
from workers.asking import Api, NotAnswered
from workers.backup import run_adopt, run_backup, run_check, run_restore
from workers.demo import run_demo
from workers.doctor import examine
from workers.exporting import FORMATS, InTheWay, UnknownTable, run_export
from workers.importing import run_import, run_orders, run_responses
from workers.keys import prepare_rotation, rotate_keys
from workers.membership import Fenced, WrongPartitions
from workers.parent import end_with
from workers.policies import run_policies
from workers.project import ReadModelRefused
from workers.project import project as run_project
from workers.rebuilding import (
    How,
    forget_former,
    most_workers,
    parked_keys,
    put_back,
    rebuild_models,
    retry_key,
)
from workers.relay import relay as run_relay
from workers.relay import set_cursor
from workers.replaying import Asked, ReplayRefused, WrongOption, run_replay
from workers.resuming import NoSuchPosition, RelayRefused
from workers.sealer import new_log, rotate_key
from workers.sealer import seal as run_seal
from workers.serving import CannotListen
from workers.serving import api as run_api
from workers.up import up as run_up
from workers.verifying import Asked as Verification
from workers.verifying import CannotVerify, run_verify
from workers.wiring import NoErasuresFile, now, signing_key_file

DEMO_SEED = 1

cli = typer.Typer(
    help="An event-sourced CRM backend. Settings are environment variables named CRM_…",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _read_model(name: str) -> str:
    if name not in PROJECTIONS:
        raise typer.BadParameter(f"there is none of that name; there are {', '.join(PROJECTIONS)}")
    return name


def _read_models(names: list[str]) -> list[str]:
    return [_read_model(name) for name in names]


ReadModel = Annotated[
    str, typer.Argument(callback=_read_model, help=f"A read model: {', '.join(PROJECTIONS)}.")
]
ReadModels = Annotated[
    list[str], typer.Argument(callback=_read_models, help=f"Read models: {', '.join(PROJECTIONS)}.")
]


@cli.callback()
def crm() -> None:
    """Without it, a Typer application of one command would take that command's name away."""


@cli.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Make up a company first, as crm demo does.")
    ] = False,
) -> None:
    """Run the whole product in one process, until it is told to stop."""
    settings = _settings()
    if demo and (code := run_demo(settings, seed=DEMO_SEED)):
        raise typer.Exit(code)
    run_up(settings, typer.echo)


@cli.command()
def api() -> None:
    """Take commands and answer reads; relay and project keep the read models up."""
    run_api(_settings(), typer.echo)


@cli.command()
def relay(
    position: Annotated[
        int | None,
        typer.Option(
            "--from",
            min=0,
            help="Have the relays go on after this position of the log, and end.",
        ),
    ] = None,
) -> None:
    """Carry the log to Kafka. Any number may run: one does it, the others stand by."""
    settings = _settings()
    if position is None:
        run_relay(settings)
        return
    try:
        typer.echo(set_cursor(settings, position))
    except NoSuchPosition as error:
        raise typer.BadParameter(str(error), param_hint="--from") from None


@cli.command()
def project(
    names: ReadModels,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes for each; more than one needs Kafka.")
    ] = 1,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Keep read models up, from Kafka if CRM_KAFKA_BOOTSTRAP names one, else from the log.

    Exit code 0 after being told to stop, or when a later version of the program has taken over.
    """
    if parent is not None:
        end_with(parent)
    raise typer.Exit(run_project(_settings(), names, workers))


@cli.command()
def rebuild(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            callback=lambda names: _read_models(names or []),
            help=f"Read models: {', '.join(PROJECTIONS)}.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that share the work.")
    ] = most_workers(),
    gently: Annotated[
        bool,
        typer.Option("--gently", help="In one process, at rest most of the time: beside load."),
    ] = False,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Compare and change nothing.")
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Put back what was live before the last rebuild.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop what was live before the last rebuild.")
    ] = False,
) -> None:
    """Fill read models anew from the log, compare them with the live ones, and swap them in.

    Exit code 1 for one that was left as it is, or with --verify-only, that differs from the log.
    """
    wanted = list(PROJECTIONS) if every else names or []
    if not wanted or (every and names):
        raise typer.BadParameter("name read models, or all of them by --all", param_hint="NAMES")
    if verify_only + back + forget > 1:
        raise typer.BadParameter("only one at a time", param_hint="--verify-only --back --forget")
    settings = _settings()
    if back:
        raise typer.Exit(put_back(settings, wanted, typer.echo))
    if forget:
        raise typer.Exit(forget_former(settings, wanted, typer.echo))
    how = How(workers=workers, gently=gently, verify=verify_only)
    raise typer.Exit(rebuild_models(settings, wanted, how, typer.echo))


@cli.command()
def parked(
    name: ReadModel,
    retry: Annotated[UUID | None, typer.Option(help="Apply the events of this key now.")] = None,
) -> None:
    """Show the events that a read model could not apply, or try those of a key again."""
    settings = _settings()
    if retry is None:
        keys = parked_keys(settings, name)
        for one in keys:
            typer.echo(
                f"{one.key}  {one.events:,} events wait for position {one.position:,}"
                f" ({one.topic}) since {one.parked_at:%Y-%m-%d %H:%M}: {one.error}"
            )
        typer.echo(f"{name}: {len(keys):,} parked keys")
    else:
        try:
            applied = retry_key(settings, name, retry)
        except KeyError:
            raise typer.BadParameter(f"{retry} is not parked", param_hint="--retry") from None
        typer.echo("all events are applied" if applied else "an event failed again; the rest waits")
        raise typer.Exit(0 if applied else 1)


importing = typer.Typer(help="Load what another CRM has exported.", no_args_is_help=True)
cli.add_typer(importing, name="import")


@importing.command()
def opportunities(
    file: Annotated[Path, typer.Argument(help="CSV file, one deal a line.", show_default=False)],
    mapping: Annotated[
        str, typer.Option(help="What its columns mean: crm_sales, generic, or a TOML file.")
    ],
    source: Annotated[
        str | None, typer.Option(help="The system the ids are of, instead of the mapping's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the lines not taken here: .csv or .ndjson.")
    ] = None,
    owners: Annotated[
        Path | None, typer.Option(help="Write here, as CSV, who is behind which owner's id.")
    ] = None,
) -> None:
    """Load deals from a CSV file. Safe to stop and to run again.

    Run again, a deal that has gone on in the file goes on here; any other change is reported and
    not taken over. Exit code 1 if a line could not be taken, 2 if the file or mapping is wrong.
    """
    code = run_import(_settings(), file, mapping, source=source, report=report, owners=owners)
    raise typer.Exit(code)


@importing.command()
def orders(
    file: Annotated[Path, typer.Argument(help="One order a line.", show_default=False)],
    mapping: Annotated[
        str, typer.Option(help="What its columns mean: cdnow, orders, or a TOML file.")
    ] = "orders",
    source: Annotated[
        str | None, typer.Option(help="The system the ids are of, instead of the mapping's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the lines not taken here: .csv or .ndjson.")
    ] = None,
) -> None:
    """Load orders from a file. Safe to stop and to run again.

    Customers that are not here are registered. Run again, what is here adds nothing; an order that
    is here otherwise is reported and left. Exit codes as for opportunities.
    """
    raise typer.Exit(run_orders(_settings(), file, mapping, source=source, report=report))


@importing.command()
def responses(
    file: Annotated[Path, typer.Argument(help="One response a line.", show_default=False)],
    mapping: Annotated[
        str, typer.Option(help="What its columns mean: responses, or a TOML file.")
    ] = "responses",
    source: Annotated[
        str | None, typer.Option(help="The system the ids are of, instead of the mapping's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the lines not taken here: .csv or .ndjson.")
    ] = None,
) -> None:
    """Load customers' responses to campaigns from a file. Safe to stop and to run again.

    Customers that are not here are registered; a campaign that is not here is planned if the
    mapping says so, else its lines are reported. Exit codes as for opportunities.
    """
    raise typer.Exit(run_responses(_settings(), file, mapping, source=source, report=report))


def _format(names: list[str]) -> list[str]:
    for name in names:
        if name not in FORMATS:
            raise typer.BadParameter(f"{name} is none of {', '.join(FORMATS)}")
    return names


@cli.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; made when missing.", show_default=False)
    ],
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            callback=_format,
            help="parquet or csv; both by default.",
            show_default=False,
        ),
    ] = list(FORMATS),  # noqa: B006  (typer makes its own)
    tables: Annotated[
        str | None, typer.Option(help="Names with commas between; by default all there are.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the earlier export that is there.")
    ] = False,
) -> None:
    """Write all tables for BI to files, as they are at one position of the log.

    Each format gets a file per table, and manifest.json says what they are.
    """
    wanted = [] if tables is None else [name.strip() for name in tables.split(",")]
    try:
        code = run_export(_settings(), folder, formats=formats, tables=wanted, overwrite=overwrite)
    except UnknownTable as error:
        raise typer.BadParameter(str(error), param_hint="--tables") from None
    except InTheWay as error:
        raise typer.BadParameter(str(error), param_hint="DIR") from None
    raise typer.Exit(code)


@cli.command()
def replay(
    after: Annotated[int | None, typer.Option(help="Events after this position.")] = None,
    to: Annotated[int | None, typer.Option(help="Up to this position.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Recorded at this time or later.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Recorded before this time.")] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", help="Of this type; may be given several times.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Of commands that this principal gave.")] = None,
    correlation: Annotated[UUID | None, typer.Option(help="Of this conversation.")] = None,
    causation: Annotated[UUID | None, typer.Option(help="Caused by this.")] = None,
    limit: Annotated[int | None, typer.Option(help="So many events at most.")] = None,
    stream: Annotated[UUID | None, typer.Option(help="Of this thing.")] = None,
    state: Annotated[
        bool, typer.Option("--state", help="The thing's state instead of its events.")
    ] = False,
    version: Annotated[str | None, typer.Option(help="After this event of the thing.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Of what was true at this time.")] = None,
    known_at: KnownAt = None,
    difference: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="What changed between versions or times, and by what."),
    ] = None,
    command: Annotated[UUID | None, typer.Option(help="A command's causes and effects.")] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="Personal text in the clear; needs the master key.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write here, into a new file, instead of to the output.")
    ] = None,
) -> None:
    """Read history from the log: events as lines of JSON, states at any date, causes."""
    asked = Asked(
        filters={
            "after": after,
            "to": to,
            "from": since,
            "until": until,
            "type": kinds or [],
            "actor": actor,
            "correlation_id": correlation,
            "causation_id": causation,
            "limit": limit,
        },
        stream=stream,
        state=state,
        version=version,
        as_of=as_of,
        known_at=known_at,
        difference=difference,
        command=command,
        personal=personal,
        output=output,
    )
    try:
        raise typer.Exit(run_replay(_settings(), asked))
    except WrongOption as error:
        raise typer.BadParameter(str(error)) from None


@cli.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; made when missing.", show_default=False)
    ],
) -> None:
    """Write the log and the keys of persons to files, beside a running product or without one.

    The master key and other secrets are not in it.
    """
    try:
        code = run_backup(_settings(), folder)
    except InTheWay as error:
        raise typer.BadParameter(str(error), param_hint="DIR") from None
    raise typer.Exit(code)


@cli.command()
def restore(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A backup.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether the backup is whole and unchanged.")
    ] = False,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="Without DIR: for a database that was brought back by other means."
        ),
    ] = False,
) -> None:
    """Restore a backup into an empty database: all of it, read back, or nothing."""
    settings = _settings()
    if adopt:
        if folder is not None or check:
            raise typer.BadParameter("it goes without DIR and --check", param_hint="--adopt")
        raise typer.Exit(run_adopt(settings))
    if folder is None:
        raise typer.BadParameter("name a backup, or give --adopt", param_hint="DIR")
    raise typer.Exit(run_check(folder) if check else run_restore(settings, folder))


@cli.command()
def archive(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; made when missing.", show_default=False)
    ],
    to: Annotated[
        int | None, typer.Option(min=1, help="The last position; whole blocks up to there.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether the archive is whole and unchanged.")
    ] = False,
) -> None:
    """Write the older part of the log to Parquet files, or go on with it. Nothing is deleted."""
    settings = _settings()
    if check == (to is not None):
        raise typer.BadParameter("give either --to POSITION or --check", param_hint="--to")
    raise typer.Exit(check_archive(folder) if to is None else run_archive(settings, folder, to))


@cli.command()
def demo(
    seed: Annotated[int, typer.Option(help="Another seed makes another company.")] = DEMO_SEED,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day it ends before; at first today."),
    ] = None,
) -> None:
    """Make up a company: two years of customers, campaigns and deals. Safe to run again."""
    day = None if until is None else until.date()
    raise typer.Exit(run_demo(_settings(), seed=seed, until=day))


keys = typer.Typer(help="The keys of personal data.", no_args_is_help=True)
cli.add_typer(keys, name="keys")


@keys.callback()
def _keys() -> None:
    """Without it, a Typer application of one command would take that command's name away."""


@keys.command()
def rotate(
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Only make the next master key, to be copied elsewhere."),
    ] = False,
    keep_former: Annotated[
        bool,
        typer.Option("--keep-former", help="For backups of before; the next run destroys it."),
    ] = False,
) -> None:
    """Wrap all keys of personal data with a new master key, and destroy the former one.

    Safe to interrupt and to run again; the product goes on meanwhile. Old copies of keys, as in
    backups, cannot be opened any more without the former master key.
    """
    settings = _settings()
    if prepare:
        typer.echo(prepare_rotation(settings))
    else:
        typer.echo(rotate_keys(settings, keep_former=keep_former))


@cli.command()
def policies() -> None:
    """Do what follows by rule from events and from the passing of time, until told to stop.

    The rules are switched on by CRM_SILENCE_DAYS, CRM_LEVEL_POLICY and CRM_DEMAND_POLICY.

    Only needed beside crm api: crm up does it by itself.
    """
    run_policies(_settings(), typer.echo)


@cli.command()
def seal(
    once: Annotated[bool, typer.Option("--once", help="Seal what there is, and end.")] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate-key", help="Hand over to a new key, and end.")
    ] = False,
    new: Annotated[
        bool,
        typer.Option(
            "--new-log",
            help="Seal under another name: only for a log that has lost sealed events for good.",
        ),
    ] = False,
) -> None:
    """Sign checkpoints of the log every CRM_SEAL_SECONDS, and publish them, until told to stop.

    Only needed beside crm api: crm up does it by itself.
    """
    if once + rotate + new > 1:
        raise typer.BadParameter("--once, --rotate-key and --new-log exclude each other")
    settings = _settings()
    if rotate:
        raise typer.Exit(rotate_key(settings, typer.echo))
    if new:
        raise typer.Exit(new_log(settings, typer.echo))
    raise typer.Exit(run_seal(settings, once=once, told=typer.echo))


@cli.command()
def verify(
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A file with a checkpoint from outside; may be given several times."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A key to trust (vkey) instead of CRM_SEAL_KEY_FILE; several times."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Read the events from this file, NDJSON or .parquet, not the database."),
    ] = None,
) -> None:
    """Is the log what was signed? Exit code 1, and the first position that is not, if it is not."""
    try:
        code = run_verify(
            _settings(), Verification(checkpoint or (), key or (), export), typer.echo
        )
    except (CannotVerify, UnreadableExport) as error:
        _end(error, 2)
    raise typer.Exit(code)


@cli.command()
def token(
    subject: Annotated[
        str, typer.Argument(help="Who it is for: the actor of what is done with it.")
    ],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires; never without.")
    ] = None,
) -> None:
    """Print a bearer token for a person or a program, with no more rights than it needs."""
    settings = _settings()
    make_data_dir(settings.data_dir)
    tokens = Tokens.of_file(signing_key_file(settings), now)
    lifetime = None if days is None else timedelta(days=days)
    try:
        typer.echo(tokens.issue(subject, frozenset(scope), lifetime))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SUBJECT") from None


Url = Annotated[
    str | None, typer.Option(help="Address of the API; by default the one on this machine.")
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with a token; by default the one made at first start.")
]
AsOf = Annotated[str | None, typer.Option(help="What was true then; now by default.")]
KnownAt = Annotated[str | None, typer.Option(help="As known then: a position, or a time.")]
Picture = Annotated[
    Path | None, typer.Option(help="Write the answer here as a picture, .png or .svg.")
]


@cli.command()
def forecast(
    pipeline: Annotated[UUID | None, typer.Option(help="Another pipeline.")] = None,
    timing: Annotated[
        str | None, typer.Option(help="half_elapsed, full_duration, aged or learned.")
    ] = None,
    months: Annotated[int | None, typer.Option(help="How many months; 6 by default.")] = None,
    by: Annotated[str | None, typer.Option(help="relative or calendar months.")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    picture: Picture = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """What the funnel will bring, month by month."""
    asked = {"pipeline_id": pipeline, "timing": timing, "months": months, "by": by}
    _ask("/v1/forecast", asked, as_of, known_at, picture, url, token_file, showing.forecast)


@cli.command()
def lifecycle(
    classification: Annotated[
        str | None, typer.Option(help="type, path, identification or level.")
    ] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    picture: Picture = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """How many customers stand where in their lifecycle."""
    asked = {"classification": classification}
    _ask("/v1/lifecycle", asked, as_of, known_at, picture, url, token_file, showing.lifecycle)


@cli.command()
def attribution(
    model: Annotated[
        str | None,
        typer.Option(help="first, last, linear, u, w, full_path, time_decay, markov or shapley."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First day of wins that counts.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First day that counts no more.")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    picture: Picture = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Which campaign earned what."""
    asked = {"model": model, "from": start, "to": end}
    _ask("/v1/attribution", asked, as_of, known_at, picture, url, token_file, showing.attribution)


def _ask(
    path: str,
    asked: Mapping[str, object],
    as_of: str | None,
    known_at: str | None,
    picture: Path | None,
    url: str | None,
    token_file: Path | None,
    shown: Callable[[showing.Answer], RenderableType],
) -> None:
    service = Api.of(_settings(), url, token_file)
    parameters = {**asked, "as_of": as_of, "known_at": known_at}
    showing.show(shown(service.read(path, parameters)))
    if picture is not None:
        service.picture(path, parameters, picture)


@cli.command()
def doctor() -> None:
    """Say whether everything is all right; exit code 1 if it is not."""
    good = True
    for finding in examine(_settings()):
        good = good and finding.good
        mark = "ok     " if finding.good else "PROBLEM"
        typer.echo(f"{mark}  {finding.subject}: {finding.text}")
    raise typer.Exit(0 if good else 1)


def _settings() -> Settings:
    settings = load()
    logging.configure(settings.log_format, settings.log_level)
    if settings.crashpoint is not None:
        crashpoints.arm(settings.crashpoint)
    return settings


def main() -> None:
    """Exit code 2 for a bad setting or argument, 1 for what keeps a command from its work."""
    try:
        cli()
    except SettingsError as error:
        _end(error, 2)
    except (
        EmbeddedPostgresError,
        MigrationError,
        CannotListen,
        RebuildRunning,
        ReadersInTheWay,
        RelayRefused,
        ReplayRefused,
        GapInLog,
        LeaseLost,
        KafkaUnavailable,
        ReadModelRefused,
        Fenced,
        WrongPartitions,
        WrongMasterKey,
        NoErasuresFile,
        NotAnswered,
        NotBuilt,
        SealRefused,
        BackupRefused,
        ArchiveRefused,
    ) as error:
        _end(error, 1)
    except psycopg2.OperationalError as error:
        _end(f"the database cannot be used: {' '.join(str(error).split())}", 1)


def _end(reason: object, code: int) -> NoReturn:
    typer.echo(f"crm: {logging.without_secrets(str(reason))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
