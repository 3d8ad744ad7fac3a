"""DuckDB, Polars and pandas read the Parquet files of a table, and see the values that were appended.

`MAINSTAY_WRITE_KNOWN` names the program that writes them: the example `write_known` of `mainstay-tables`, whose formulas these
are. Without it nothing is collected: other suites beside this one need other packages.
"""

import glob
import math
import os
import struct
import subprocess

import duckdb
import pandas
import polars
import pytest

ROWS, GROWN_AT = 10_000, 6_000


def single(value):
    """The 32-bit float nearest to a value."""
    return struct.unpack("f", struct.pack("f", value))[0]


def real(row):
    return None if row % 3 == 0 else math.nan if row % 11 == 0 else row / 7


EXPECTED = {
    "at": lambda row: 1_750_000_000_000_000 + (row * 7_919 % ROWS) * 33_000_000,
    "row": lambda row: row,
    "real": real,
    "single": lambda row: single(single(row) / single(3)),
    "small": lambda row: None if row % 9 == 0 else row % 9 - 4,
    "is": lambda row: None if row % 5 == 0 else row % 2 == 0,
    "text": lambda row: None if row % 4 == 0 else f"käse {row % 5}",
    "later": lambda row: None if row < GROWN_AT else row * row,
}


def same(one, other):
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other and (one is None) == (other is None)


def check(reader, columns):
    """Columns by name, in the order of `row`, times as microseconds."""
    for name, formula in EXPECTED.items():
        values = columns[name]
        assert len(values) == ROWS, f"{reader}: {name} has {len(values)} rows"
        for row, value in enumerate(values):
            assert same(formula(row), value), f"{reader}: {name}[{row}] is {value!r}, expected {formula(row)!r}"


def with_duckdb(pattern):
    connection = duckdb.connect()
    source = f"read_parquet('{pattern}', union_by_name = true)"
    kinds = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {source})").fetchall())
    assert kinds["at"] == "TIMESTAMP WITH TIME ZONE" and kinds["single"] == "FLOAT", kinds
    # Quoted: some of them are words of the language.
    names = ", ".join(f'"{name}"' if name != "at" else 'epoch_us("at") AS "at"' for name in EXPECTED)
    table = connection.execute(f"SELECT {names} FROM {source} ORDER BY \"row\"").fetchall()
    return {name: [line[place] for line in table] for place, name in enumerate(EXPECTED)}


def with_polars(pattern):
    files = [polars.read_parquet(path) for path in sorted(glob.glob(pattern))]
    frame = polars.concat(files, how="diagonal").sort("row")
    assert frame.schema["at"] == polars.Datetime("us", "UTC"), frame.schema
    frame = frame.with_columns(polars.col("at").dt.timestamp("us"))
    return {name: frame[name].to_list() for name in EXPECTED}


def with_pandas(pattern):
    files = [pandas.read_parquet(path, dtype_backend="pyarrow") for path in sorted(glob.glob(pattern))]
    frame = pandas.concat(files).sort_values("row")
    # Arrow's own values: pandas would make one thing of missing and NaN.
    values = {name: frame[name].array.__arrow_array__().to_pylist() for name in EXPECTED if name != "at"}
    times = frame["at"].array.__arrow_array__()
    values["at"] = times.cast("int64").to_pylist()
    return values


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "known"
    subprocess.run([os.environ["MAINSTAY_WRITE_KNOWN"], folder], check=True)
    return str(folder / "tables" / "known" / "*.parquet")


@pytest.mark.parametrize("reader", [with_duckdb, with_polars, with_pandas])
def test_every_value_is_read(reader, pattern):
    check(reader.__name__, reader(pattern))
