"""``trials.json``: its numbers without parsing are those of its rows, and any change of a row is noticed."""

import json

import pytest

import se_nas.run.table_file as table_file
from se_nas.errors import RunError
from se_nas.run.table_file import read_numbers, read_table, write_table

ROWS = [
    {"number": 0, "description": "stage 0: γ=8", "accuracy": 91.25, "error": None},
    {"number": 3, "description": 'a "quoted" \\ line\nand another', "accuracy": 1e-7, "error": ""},
    {"number": 12, "description": "no SE", "accuracy": None, "error": "}, sha256"},
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "trials.json"
    write_table(path, ROWS)
    return path


@pytest.fixture
def parsed(monkeypatch):
    """Whether the file was parsed."""
    calls = []
    read = table_file.read_table
    monkeypatch.setattr(table_file, "read_table", lambda path: calls.append(path) or read(path))
    return calls


def test_rows_come_back(table):
    assert read_table(table) == ROWS


def test_numbers_of_whole_rows_need_no_parsing(table, parsed):
    assert read_numbers(table) == {0, 3, 12}
    assert not parsed


@pytest.mark.parametrize("text", ["é", "\U0001f600", "\x7f", "\u2028"])
def test_numbers_with_any_text(table, text):
    write_table(table, [{**ROWS[0], "description": text}])
    assert read_numbers(table) == {row["number"] for row in read_table(table)} == {0}


def test_no_rows_and_no_file(tmp_path):
    path = tmp_path / "trials.json"
    assert read_numbers(path) == set()
    assert read_table(path) == []
    write_table(path, [])
    assert read_numbers(path) == set()
    assert read_table(path) == []


def test_rows_of_version_0_1_0_have_no_digests(table, parsed):
    table.write_text(json.dumps(ROWS))
    assert read_numbers(table) == {0, 3, 12}
    assert parsed


def test_a_change_of_any_byte_is_refused_or_changes_nothing(table):
    content = table.read_bytes()
    for place in range(len(content)):
        table.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            rows = read_table(table)
        except RunError:
            with pytest.raises(RunError, match=r"trials\.json"):
                read_numbers(table)
        else:
            assert read_numbers(table) == {row["number"] for row in rows}


def test_a_line_that_is_lost_is_not_among_the_numbers(table):
    first, *lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([first, *lines[1:]]))
    assert read_numbers(table) == {3, 12}


@pytest.mark.parametrize(
    "change", [("},\n", "}\n"), ('"accuracy": 91.25', '"accuracy": 91.26'), ("[\n", "[[\n")]
)
def test_what_is_not_as_it_was_written_is_refused(table, change):
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(RunError, match=r"trials\.json is damaged"):
        read_numbers(table)
