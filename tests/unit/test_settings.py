"""Settings: their defaults, what is refused and how, and that the README describes them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import PREFIX, Settings, SettingsError, load

ROOT = Path(__file__).parents[2]
SECRET = "hunter2hunter2"


def test_defaults() -> None:
    settings = load({})
    assert settings.embedded
    assert settings.data_dir == Path.cwd() / "data"
    assert settings.token_file == settings.data_dir / "token"
    assert settings.master_key_file == settings.data_dir / "master.key"
    assert (settings.host, settings.partitions, settings.receipt_days) == ("127.0.0.1", 12, 30)
    assert settings.zone.key == "UTC"


def test_empty_values_and_other_names_count_for_nothing() -> None:
    assert load({"CRM_PORT": "", "CRM_DATABASE_URL": "", "PORT": "x", "crm_port": "1"}) == load({})


def test_files_lie_in_the_data_directory_unless_told_otherwise(tmp_path: Path) -> None:
    settings = load({"CRM_DATA_DIR": str(tmp_path), "CRM_TOKEN_FILE": "/run/crm/token"})
    assert settings.token_file == Path("/run/crm/token")
    assert settings.master_key_file == tmp_path / "master.key"


def test_an_outside_database() -> None:
    settings = load({"CRM_DATABASE_URL": f"postgresql://crm:{SECRET}@db:5432/crm"})
    assert not settings.embedded
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith("@db:5432/crm")
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRM_PORT", "http"),
        ("CRM_PORT", "65536"),
        ("CRM_PORT", "-1"),
        ("CRM_HOST", "  "),
        ("CRM_DATABASE_URL", f"mysql://crm:{SECRET}@db/crm"),
        ("CRM_DATABASE_URL", f"postgresql://crm:{SECRET}@db:abc/crm"),
        ("CRM_DATABASE_URL", f"postgresql://crm:{SECRET}@db/crm?{SECRET}=1"),
        ("CRM_READ_DATABASE_URL", f"crm:{SECRET}@db"),
        ("CRM_TIMEZONE", "Mars/Olympus"),
        ("CRM_TIMEZONE", "../../etc/passwd"),
        ("CRM_CURRENCY", "cny"),
        ("CRM_CURRENCY", "ABC"),
        ("CRM_PARTITIONS", "0"),
        ("CRM_PARTITIONS", "12.5"),
        ("CRM_MAX_BODY_BYTES", "lots"),
        ("CRM_RECEIPT_DAYS", "0"),
        ("CRM_WAIT_SECONDS", "nan"),
        ("CRM_KAFKA_BOOTSTRAP", "kafka"),
        ("CRM_KAFKA_BOOTSTRAP", f"kafka://crm:{SECRET}@kafka:9092"),
        ("CRM_KAFKA_BOOTSTRAP", "one:9092,"),
        ("CRM_KAFKA_BOOTSTRAP", "one:9092 two:9092"),
        ("CRM_KAFKA_BOOTSTRAP", "one:0"),
        ("CRM_KAFKA_BOOTSTRAP", "one:65536"),
        ("CRM_LEVEL_POLICY", "perhaps"),
        ("CRM_DEMAND_POLICY", "2"),
        ("CRM_LOG_FORMAT", "xml"),
        ("CRM_LOG_LEVEL", "loud"),
        ("CRM_DATBASE_URL", f"postgresql://crm:{SECRET}@db/crm"),
        ("CRM_", "x"),
    ],
)
def test_a_bad_setting_is_named_and_never_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({name: value})
    message = str(refused.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert SECRET not in message


@pytest.mark.parametrize("bootstrap", ["one:9092, two:9092", "[::1]:9092", "10.0.0.1:19092"])
def test_addresses_of_kafka(bootstrap: str) -> None:
    assert load({"CRM_KAFKA_BOOTSTRAP": bootstrap}).kafka_bootstrap == bootstrap


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("missing", ["CRM_KAFKA_USERNAME", "CRM_KAFKA_PASSWORD"])
def test_a_login_at_kafka_needs_name_and_password(protocol: str, missing: str) -> None:
    given = {
        "CRM_KAFKA_SECURITY_PROTOCOL": protocol,
        "CRM_KAFKA_USERNAME": "relay",
        "CRM_KAFKA_PASSWORD": SECRET,
    }
    load(given)
    with pytest.raises(SettingsError, match=f"^{missing}: is missing") as refused:
        load({**given, missing: ""})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("", "no certificates in PEM"), ("hello", "no certificates in PEM")],
)
def test_certificates_of_kafka_are_looked_at_where_kafka_is_used(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    given = {"CRM_KAFKA_CA_FILE": str(file)}
    load(given)
    with pytest.raises(SettingsError, match=f"^CRM_KAFKA_CA_FILE: .*{reason}"):
        load({**given, "CRM_KAFKA_BOOTSTRAP": "kafka:9092"})


@pytest.mark.parametrize(
    "variable", [f"CRM_DATABASE_URL=mysql://crm:{SECRET}@db/crm", f"CRM_NO_SUCH={SECRET}"]
)
def test_the_command_ends_with_2_and_one_line(variable: str) -> None:
    name, _, value = variable.partition("=")
    answer = subprocess.run(
        [sys.executable, "-m", "workers.cli", "up"],
        env={**os.environ, name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"crm: {name}: ")
    assert answer.stderr.count("\n") == 1
    assert SECRET not in answer.stderr


def test_the_readme_describes_every_setting() -> None:
    rows = re.findall(
        r"^\| `(CRM_[A-Z_]+)` \| *([^|]*?) *\| *([^|]*?) *\|$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.M,
    )
    described = {name: (default, text) for name, default, text in rows}
    assert described.keys() == {PREFIX + name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default, text = described[PREFIX + name.upper()]
        assert text == field.description
        value = str(field.default).lower() if field.annotation is bool else field.default
        wanted = "" if field.default is None else f"`{value}`"
        assert default == wanted, name
