"""Reading CSV as it comes: one bad record spoils no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.importing.records import LONGEST_LINE, MOST_LINES, FileError, Table


def table(folder: Path, content: bytes, **options: str) -> Table:
    path = folder / "deals.csv"
    path.write_bytes(content)
    return Table(path, **options)


def read(folder: Path, content: bytes, **options: str) -> list[tuple[int, list[str] | str]]:
    """Line and fields of each record, or line and problem."""
    return [
        (record.line, record.fields if record.error is None else record.error.problem)
        for record in table(folder, content, **options).records()
    ]


def test_plain(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,b\n1,2\n3,4") == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_crlf_and_a_byte_order_mark(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa,b\r\n1,2\r\n"
    assert table(tmp_path, content).header == ["a", "b"]
    assert read(tmp_path, content) == [(2, ["1", "2"])]


def test_quotes_with_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    content = b'a,b\n"x, ""y""","two\nlines\n"\n3,4\n'
    assert read(tmp_path, content) == [(2, ['x, "y"', "two\nlines\n"]), (5, ["3", "4"])]


def test_unusual_line_separators_are_text(tmp_path: Path) -> None:
    content = "a,b\nx\u2028y,\x0bz\n".encode()
    assert read(tmp_path, content) == [(2, ["x\u2028y", "\x0bz"])]


def test_a_quotation_mark_inside_a_word_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, b'a,b\n5" pipe,2\n3,4\n') == [(2, ['5" pipe', "2"]), (3, ["3", "4"])]


def test_a_quotation_mark_that_is_not_closed_spoils_its_line_only(tmp_path: Path) -> None:
    rest = [(n, [str(n), "x"]) for n in range(3, 3 + MOST_LINES + 5)]
    lines = b"".join(b"%d,x\n" % n for n, _ in rest)
    assert read(tmp_path, b'a,b\n"1,2\n' + lines) == [(2, "quotes"), *rest]


def test_the_next_lines_quotes_do_not_heal_it(tmp_path: Path) -> None:
    content = b'a,b\n"1,2\n"x, y",4\n5,6\n'
    assert read(tmp_path, content) == [(2, "quotes"), (3, ["x, y", "4"]), (4, ["5", "6"])]


def test_invalid_utf8(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,b\n\xff,2\n3,4\n") == [(2, "encoding"), (3, ["3", "4"])]


def test_another_encoding(tmp_path: Path) -> None:
    content = "a;b\nMüller;2\n".encode("cp1252")
    assert read(tmp_path, content, encoding="cp1252", delimiter=";") == [(2, ["Müller", "2"])]


def test_wrong_number_of_columns(tmp_path: Path) -> None:
    content = b"a,b\n1\n1,2,3\n3,4\n"
    assert read(tmp_path, content) == [(2, "columns"), (3, "columns"), (4, ["3", "4"])]


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,b\n\n , \n3,4\n\r\n") == [(4, ["3", "4"])]


def test_a_line_without_end(tmp_path: Path) -> None:
    content = b"a,b\n" + b"x" * (3 * LONGEST_LINE) + b"\n3,4\n"
    assert read(tmp_path, content) == [(2, "too-long"), (3, ["3", "4"])]


def test_a_field_that_is_too_long_for_csv(tmp_path: Path) -> None:
    content = b"a,b\n" + b"x" * 200_000 + b",2\n3,4\n"
    assert read(tmp_path, content) == [(2, "quotes"), (3, ["3", "4"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("a,b\n".encode("utf-16"), "line 1: byte 1 of the line is not utf-8"),
        (b'"a,b\n1,2\n', "line 1: is not CSV"),
    ],
)
def test_no_header(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        table(tmp_path, content)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a file"):
        Table(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.csv: No such file"):
        Table(tmp_path / "none.csv")


def test_a_missing_and_a_doubled_column(tmp_path: Path) -> None:
    found = table(tmp_path, b"id,name,name\n")
    assert found.column("id", "columns.id") == 0
    with pytest.raises(FileError, match=r"no column 'stage' \(columns\.stage of the mapping\)"):
        found.column("stage", "columns.stage")
    with pytest.raises(FileError, match="two columns 'name'"):
        found.column("name", "columns.name")
