from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.datasets.tables import read_table

WORDS = ["", "-", "NA", "na", "NaN", "nan", "NULL", "null", " ", '""', '"NA"']


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "id_header", "names", "values"),
    [
        ("1.5,2\n3,4\n", True, None, [[1.5, 2], [3, 4]]),
        ("1.5,2", False, None, [[1.5, 2]]),
        ("1,2,\r\n3,4,\r\n", False, None, [[1, 2], [3, 4]]),  # a comma ends each row
        ("a,b,\n3,4,\n", False, ["a", "b"], [[3, 4]]),
        ("1,2\r3,4\r", False, None, [[1, 2], [3, 4]]),
        ("\ufeffa,b\n1,2\n\n \n", False, ["a", "b"], [[1, 2]]),  # byte order mark, empty ends
        ("773869,767541\n64.4,67.6\n", True, ["773869", "767541"], [[64.4, 67.6]]),
        ("773869,767541\n64.4,67.6\n", False, None, [[773869, 767541], [64.4, 67.6]]),
        ("773869,773869\n64.4,67.6\n", True, None, [[773869, 773869], [64.4, 67.6]]),
        ("0,1\n60,61\n", True, ["0", "1"], [[60, 61]]),  # the columns counted
        ("1,2\n60,61\n", True, ["1", "2"], [[60, 61]]),
        ("60,61\n62,63\n", True, None, [[60, 61], [62, 63]]),  # whole speeds are no header
        ('"x","y"\n1e1,-2\n', False, ["x", "y"], [[10, -2]]),
        ('"1.5", 2 \n+3,.5e1\n', False, None, [[1.5, 2], [3, 5]]),
        ("Sensor 1,Straße (mph)\n1,2\n", False, ["Sensor 1", "Straße (mph)"], [[1, 2]]),
        ("7\n8\n", True, None, [[7], [8]]),
    ],
)
def test_tables(
    tmp_path: Path, text: str, id_header: bool, names: list[str] | None, values: list[list[float]]
) -> None:
    table = read_table(write(tmp_path / "t.csv", text), id_header=id_header)
    assert table.names == names
    assert table.values.tolist() == values


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("names", [None, "a,b,c", "717447,717446,717445"])
def test_a_word_for_missing_is_missing_anywhere(
    tmp_path: Path, word: str, row: int, column: int, names: str | None
) -> None:
    numbers = np.arange(9.0).reshape(3, 3) + 60.5
    fields = [[str(v) for v in line] for line in numbers]
    fields[row][column] = word
    numbers[row, column] = np.nan
    lines = [*([names] if names else []), *(",".join(line) for line in fields)]
    path = write(tmp_path / "t.csv", "\n".join(lines) + "\n")
    table = read_table(path, missing=True, id_header=True)
    assert table.names == (names.split(",") if names else None)
    np.testing.assert_array_equal(table.values, numbers)
    with pytest.raises(ValueError, match=rf"line {row + 1 + bool(names)}, column {column + 1}\)"):
        read_table(path, id_header=True)


@pytest.mark.parametrize("word", WORDS)
def test_a_first_row_without_any_reading_is_a_row(tmp_path: Path, word: str) -> None:
    path = write(tmp_path / "t.csv", f"{word},{word}\n60,61\n")
    table = read_table(path, missing=True, columns=2, id_header=True)
    assert table.names is None
    np.testing.assert_array_equal(table.values, [[np.nan, np.nan], [60, 61]])


@pytest.mark.parametrize("word", ["N/A", "None", "missing", "nil", "UNKNOWN", "Speed"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_first_row_of_one_word_is_no_header(tmp_path: Path, word: str, columns: int) -> None:
    lines = [",".join([field] * columns) for field in (word, "60.5", "61")]
    path = write(tmp_path / "t.csv", "\n".join(lines) + "\n")
    if (word, columns) == ("Speed", 1):
        assert read_table(path).names == ["Speed"]
        return
    with pytest.raises(ValueError, match=rf"got '{word}' in line 1, column 1"):
        read_table(path, missing=True)


def test_a_last_column_without_readings_stays_where_its_number_is_known(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "60,\n61,\n")
    assert read_table(path, missing=True).values.tolist() == [[60], [61]]
    table = read_table(path, missing=True, columns=2)
    np.testing.assert_array_equal(table.values, [[60, np.nan], [61, np.nan]])


@pytest.mark.parametrize(
    "field", ["5o.0", "#61", "x", "1_000", "٣", "inf", "-Infinity", "1e400", "--", "0x1f", "1 2",
              "N/A", "True", "1" * 400, "6\x001", "61;62"]
)  # fmt: skip
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("missing", [False, True])
def test_anything_else_is_refused_by_line_and_column(
    tmp_path: Path, field: str, row: int, missing: bool
) -> None:
    lines = [["60.5", "61", "62"] for _ in range(3)]
    lines[row][1] = field
    path = write(tmp_path / "t.csv", "\n".join(",".join(line) for line in lines))
    message = rf"t\.csv' must hold finite numbers.* \(got .* in line {row + 1}, column 2\)"
    with pytest.raises(ValueError, match=message):
        read_table(path, missing=missing, id_header=True)


@pytest.mark.parametrize("damage", ["", " ", "#", "# a comment", "# 60,61,62"])
@pytest.mark.parametrize("row", [0, 1, 2, 3])
@pytest.mark.parametrize("names", [None, "a,b,c"])
def test_no_line_is_passed_over(tmp_path: Path, damage: str, row: int, names: str | None) -> None:
    lines = [f"6{i},61.5,62.5" for i in range(4)]
    lines.insert(row, damage)
    lines = [names, *lines] if names else lines
    path = write(tmp_path / "t.csv", "\n".join(lines))
    place = row + 1 + bool(names)
    with pytest.raises(ValueError, match=rf"line {place}[,)]|in line 2\)"):
        read_table(path, missing=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5\n", r"must have 3 fields in each line \(got 2 in line 2\)"),
        ("1,2\n3,4,5\n", r"must have 2 fields in each line \(got 3 in line 2\)"),
        ("1,2\n3,4\n5,6,7", r"got 3 in line 3"),
        ("a,b\n1,2,3\n", r"must have 2 fields in each line \(got 3 in line 2\)"),
        ("a,b\n1,2\n3,4,\n", r"must have 2 fields in each line \(got 3 in line 3\)"),
        ("1\n\n2\n", r"must have 1 fields in each line \(got none in line 2\)"),
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("a,b\n", "must have rows below its header"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_table(write(tmp_path / "t.csv", text), missing=True)
    assert str(tmp_path / "t.csv") in str(error.value)


def test_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"1,2\n\xff\xfe\x00\n")
    with pytest.raises(ValueError, match=r"t\.csv' must be text in UTF-8"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match=r"u\.csv"):
        read_table(tmp_path / "u.csv")


def test_only_the_lines_asked_for_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "1,2\n3,4\nhello\n")
    assert read_table(path, rows=2).values.tolist() == [[1, 2], [3, 4]]
    assert read_table(path, rows=1).values.tolist() == [[1, 2]]


@given(
    values=st.lists(
        st.lists(
            st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    words=st.lists(st.sampled_from(["-", "NA", "NaN", "NULL"]), min_size=18, max_size=18),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_every_table_comes_back_in_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[list[float | None]],
    words: list[str],
    newline: str,
) -> None:
    word = iter(words)
    text = [",".join(next(word) if v is None else repr(v) for v in row) for row in values]
    path = write(tmp_path_factory.mktemp("t") / "t.csv", newline.join(text))
    expected = [[math.nan if v is None else v for v in row] for row in values]
    np.testing.assert_array_equal(read_table(path, missing=True).values, expected)


@pytest.mark.parametrize("text", ["a,b\n\n", "a\n   \n", "a,b\n \n\n", "\n"])
def test_tables_of_blank_lines_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "blank.csv", text)
    with pytest.raises(ValueError, match=r"blank\.csv"):
        read_table(path)
