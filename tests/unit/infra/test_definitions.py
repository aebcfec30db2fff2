"""The definitions file: the documented one says what is built in; what is wrong is named."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from domain.definitions import BUILT_IN
from infra.definitions import load
from infra.settings import SettingsError
from infra.settings import load as load_settings

EXAMPLE = Path(__file__).parents[3] / "docs" / "definitions.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "definitions.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_it_is_what_is_built_in() -> None:
    assert load(None) is BUILT_IN


def test_the_documented_file_is_what_is_built_in() -> None:
    found = load(EXAMPLE)
    assert found == BUILT_IN
    assert {name: part.id for name, part in found.parts().items()} == {
        name: part.id for name, part in BUILT_IN.parts().items()
    }


def test_the_documented_file_has_everything() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for name, part in BUILT_IN.parts().items():
        assert f"[{name}]" in lines
        for field in part.values():
            assert any(line.startswith((f"{field} =", f"[{name}.{field}]")) for line in lines)


def test_what_it_does_not_say_stays(tmp_path: Path) -> None:
    text = "[levels]\nversion = 2\ngrowth = 0.1\n[attribution]\nu = [50, 0.0, 50]\n"
    found = load(written(tmp_path, text))
    assert (found.levels.version, found.levels.growth) == (2, Decimal("0.1"))
    assert found.levels.window_days == BUILT_IN.levels.window_days
    assert found.attribution.u == (Decimal(50), Decimal(0), Decimal(50))
    assert found.forecast == BUILT_IN.forecast


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("level = 1", "there is no level"),
        ("levels = 1", "levels is a table"),
        ("[levels]\nwindow = 1", "there is no levels.window"),
        ("[levels]\nwindow_days = 1.5", "levels.window_days is a whole number"),
        ("[levels]\nwindow_days = true", "levels.window_days is a whole number"),
        ("[levels]\nwindow_days = 0", "levels.window_days is between"),
        ("[levels]\ngrowth = 'much'", "levels.growth is a number"),
        ("[levels]\ngrowth = nan", "levels.growth is a number"),
        ("[levels]\ngrowth = inf", "levels.growth is a number"),
        ("[levels]\nnew_days = 20", "levels.new_days is at least twice window_days"),
        ("[attribution]\nu = 40", "attribution.u is a list of numbers"),
        ("[attribution]\nu = [40, 20]", "attribution.u is 3 shares"),
        ("[attribution]\nu = [40, '20', 40]", "attribution.u is a number"),
        ("[strategies]\nby_level = 1", "strategies.by_level is a table of texts"),
        ("[strategies.by_level]\nnew = 'x'", "strategies.by_level has a text for each"),
        ("[levels", "is not a TOML file"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(written(tmp_path, text))
    assert str(refused.value).startswith(f"CRM_DEFINITIONS_FILE: {reason}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not a TOML file"):
        load(tmp_path / "bytes.toml")


def test_the_setting_names_it() -> None:
    settings = load_settings({"CRM_DEFINITIONS_FILE": str(EXAMPLE)})
    assert settings.definitions_file == EXAMPLE
    assert load_settings({}).definitions_file is None
