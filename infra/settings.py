"""The settings: environment variables named ``CRM_…``, one class, described in the README."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import psycopg2
from psycopg2.extensions import parse_dsn
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.errors import DomainError
from domain.values import minor_units

PREFIX = "CRM_"


class SettingsError(Exception):
    """A setting that cannot be used. The message is one line and never holds a value."""


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _known_currency(currency: str) -> str:
    try:
        minor_units(currency)
    except DomainError:
        raise ValueError("is not a currency of ISO 4217") from None
    return currency


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone, as Europe/Paris") from None
    return name


def _database_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        if not re.match(r"postgres(ql)?://", text):
            raise ValueError
        port = parse_dsn(text).get("port", "5432")
        if not all(one.isdigit() for one in port.split(",")):
            raise ValueError
    except (ValueError, psycopg2.ProgrammingError):
        raise ValueError(
            "is not an address of a database, as postgresql://user:password@host:5432/name"
        ) from None
    return url


_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,/@\[\]]+):([0-9]{1,5})")


def _addresses(text: str) -> str:
    for one in text.split(","):
        match = _ADDRESS.fullmatch(one.strip())
        if match is None or not 0 < int(match[2]) < 65536:
            raise ValueError("is not a list of addresses, as kafka-1:9092,kafka-2:9092")
    return text


def _certificates(path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        pass
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    if not context.cert_store_stats()["x509"]:
        raise ValueError("holds no certificates in PEM")


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Settings(BaseSettings):
    """What can be set from outside. ``load`` reads it; nothing else reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    data_dir: AbsolutePath = Field(
        Path("data"), description="folder for everything the product keeps on disk"
    )
    database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL for the log; without it one is run in the data directory"
    )
    read_database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL for the read models; without it the log's own"
    )
    vault_database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL for the keys of personal data; without it the log's own"
    )
    host: Text = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    timezone: Annotated[str, AfterValidator(_known_timezone)] = Field(
        "UTC", description="time zone in which days and months are reckoned"
    )
    currency: Annotated[str, AfterValidator(_known_currency)] = Field(
        "CNY", description="currency that sums are given in by default"
    )
    token_file: AbsolutePath = Field(
        Path("token"),
        validate_default=True,
        description="where the admin token is written; relative to the data directory",
    )
    master_key_file: AbsolutePath = Field(
        Path("master.key"),
        validate_default=True,
        description="key that wraps the keys of personal data; relative to the data directory",
    )
    erasures_file: AbsolutePath = Field(
        Path("erasures.ndjson"),
        validate_default=True,
        description="who was erased, outside the database; relative to the data directory",
    )
    seal_key_file: AbsolutePath = Field(
        Path("seal.key"),
        validate_default=True,
        description="key that checkpoints are signed with; relative to the data directory",
    )
    seal_seconds: float = Field(
        60.0, ge=1, le=86_400, description="time between two checkpoints, in seconds"
    )
    checkpoint_dir: AbsolutePath = Field(
        Path("checkpoints"),
        validate_default=True,
        description="folder where checkpoints are published; relative to the data directory",
    )
    partitions: int = Field(
        12, ge=1, le=1024, description="partitions of the events; a change rebuilds the read models"
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, le=67_108_864, description="largest request body, in bytes"
    )
    receipt_days: int = Field(
        30, ge=1, le=3650, description="days for which a repeated command is recognised"
    )
    wait_seconds: float = Field(
        5.0, ge=0, le=60, description="longest wait of a read with min_position, in seconds"
    )
    pool_size: int = Field(
        10, ge=1, le=500, description="largest number of database connections for reading"
    )
    kafka_bootstrap: Annotated[Text, AfterValidator(_addresses)] | None = Field(
        None,
        description="Kafka, as host:port,…; without it read models are filled from the log itself",
    )
    kafka_topic: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,200}$")] = Field(
        "crm.events", description="topic of the events"
    )
    kafka_replication: int = Field(
        -1,
        ge=-1,
        le=100,
        description="replicas of a topic that is made; -1 is the broker's default",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to Kafka"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how to log in to Kafka, where the protocol is a SASL one"
    )
    kafka_username: Text | None = Field(None, validate_default=True, description="login at Kafka")
    kafka_password: SecretStr | None = Field(
        None, validate_default=True, description="password at Kafka"
    )
    kafka_ca_file: AbsolutePath | None = Field(
        None, description="certificates to trust Kafka by, in PEM; without it the system's"
    )
    lease_seconds: float = Field(
        5.0, ge=1, le=300, description="time after which a standby relay takes over, in seconds"
    )
    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")] | None = Field(
        None,
        description="name of this worker that outlives restarts; by default host and number",
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port for a worker's metrics; without it none are served"
    )
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = Field(
        None, description="where traces are sent (OTLP over HTTP), as http://127.0.0.1:4318"
    )
    silence_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="days without a purchase after which a customer is lost; without it never",
    )
    level_policy: bool = Field(
        False, description="whether customers are moved from level to level by rule"
    )
    demand_policy: bool = Field(
        False, description="whether alerts tell that a customer may need something again"
    )
    definitions_file: AbsolutePath | None = Field(
        None, description="thresholds and weights of your own, in TOML; see `docs/definitions.toml`"
    )
    crashpoint: (
        Annotated[str, StringConstraints(pattern=r"^(stop@)?[a-z_.]+(:[1-9][0-9]{0,8})?$")] | None
    ) = Field(None, description="for tests of faults: where the process kills itself, as name:3")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="layout of log lines; auto is console at a terminal, json otherwise"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least important log lines to show"
    )

    @field_validator(
        "token_file",
        "master_key_file",
        "erasures_file",
        "seal_key_file",
        "checkpoint_dir",
        mode="before",
    )
    @classmethod
    def _in_data_dir(cls, path: str | Path, info: ValidationInfo) -> Path:
        return Path(info.data.get("data_dir", ".")) / Path(path).expanduser()

    @field_validator("kafka_username", "kafka_password")
    @classmethod
    def _needed_to_log_in(
        cls, given: str | SecretStr | None, info: ValidationInfo
    ) -> str | SecretStr | None:
        protocol = info.data.get("kafka_security_protocol", "")
        if given is None and protocol.startswith("SASL"):
            raise ValueError(f"is missing, since {PREFIX}KAFKA_SECURITY_PROTOCOL is {protocol}")
        return given

    @field_validator("kafka_ca_file")
    @classmethod
    def _holds_certificates(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("kafka_bootstrap") is not None:
            _certificates(path)
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # ``load`` hands the environment in

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def embedded(self) -> bool:
        """Whether the product runs a database of its own."""
        return self.database_url is None


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in ``environment``; empty values count as not set.

    Raises ``SettingsError`` for a value that cannot be used and for a name that is not known.
    """
    given = {
        name: value for name, value in environment.items() if name.startswith(PREFIX) and value
    }
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise SettingsError(f"{unknown[0]}: there is no such setting")
    try:
        return Settings(**{known[name]: value for name, value in given.items()})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {reason}") from None
