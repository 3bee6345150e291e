"""afm.prepare: from raw tables to dataset folders."""

import gzip
import math
import random
from pathlib import Path

import afm
import numpy as np
import polars as pl
import pytest
from afm import tables
from afm.prepare import prepare
from afm.tables import CRITEO_COLUMNS
from tables_of_clicks import HEADER, click_rows, everything, folder_files, write_table

FIELDS = [
    afm.FieldSpec(name="user"),
    afm.FieldSpec(name="price", kind="numeric"),
    afm.FieldSpec(name="tags", kind="multi"),
]
SCHEMA = afm.Schema(FIELDS, label="click")
SPLITS = ("train", "valid", "test")


def contents(folder: Path) -> dict[str, tuple]:
    return {split: everything(afm.Dataset.open(folder, split)) for split in SPLITS}


def three_files(folder: Path, train: list, valid: list, test: list) -> dict:
    files = [write_table(folder / f"{name}.csv", rows) for name, rows in zip(SPLITS, (train, valid, test), strict=True)]
    return {"source": files[0], "valid": files[1], "test": files[2]}


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    return write_table(tmp_path / "clicks.csv", click_rows(600))


def as_tsv(folder: Path, rows: list) -> Path:
    return write_table(folder / "form.tsv", rows, "\t")


def as_marked(folder: Path, rows: list) -> Path:
    """With the byte order mark that spreadsheets write."""
    path = write_table(folder / "form.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


def as_gzip(folder: Path, rows: list) -> Path:
    plain = write_table(folder / "plain.csv", rows)
    packed = folder / "form.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    return packed


def as_parquet(folder: Path, rows: list) -> Path:
    frame = pl.DataFrame(rows, schema=HEADER, orient="row").with_columns(pl.all().replace("", None))
    frame.write_parquet(folder / "form.parquet")
    return folder / "form.parquet"


def as_quoted(folder: Path, rows: list) -> Path:
    return write_table(folder / "form.csv", [[f'"{value}"' for value in row] for row in rows])


@pytest.mark.parametrize("write", [as_tsv, as_marked, as_gzip, as_parquet, as_quoted])
def test_every_form_of_a_table_gives_the_same_dataset(tmp_path: Path, clicks: Path, write):
    prepare(clicks, tmp_path / "csv", schema=SCHEMA)
    prepare(write(tmp_path, click_rows(600)), tmp_path / "other", schema=SCHEMA)
    assert contents(tmp_path / "other") == contents(tmp_path / "csv")
    prepare(write(tmp_path, click_rows(600, seed=2)), tmp_path / "other", schema=SCHEMA)
    assert contents(tmp_path / "other") != contents(tmp_path / "csv")


def test_a_parquet_table_may_hold_lists_numbers_and_booleans(tmp_path: Path, clicks: Path):
    frame = pl.DataFrame(click_rows(600), schema=HEADER, orient="row").select(
        pl.col("click") == "1",
        "user",
        pl.col("price").replace("", None).cast(pl.Float64),
        pl.when(pl.col("tags") == "").then(pl.lit([], pl.List(pl.String))).otherwise(pl.col("tags").str.split("|")),
    )
    frame.write_parquet(tmp_path / "typed.parquet")
    prepared = prepare(tmp_path / "typed.parquet", tmp_path / "typed", label="click")
    assert [spec.kind for spec in prepared.schema.fields] == ["categorical", "numeric", "multi"]
    rows = sum(prepared.rows.values())
    assert rows == 600
    assert sum(prepared.clicks.values()) == frame["click"].sum()
    assert prepared.schema.fields[2].max_values == 3


def test_criteos_headerless_form_is_known_by_its_shape(tmp_path: Path):
    random = np.random.default_rng(0)
    rows = [
        [
            str(random.integers(2)),
            *map(str, random.integers(0, 9, 13)),
            *(f"{v:08x}" for v in random.integers(0, 5, 26)),
        ]
        for _ in range(300)
    ]
    prepared = prepare(write_table(tmp_path / "day_0.txt", rows, "\t", header=None), tmp_path / "out")
    assert prepared.guessed
    assert sum(prepared.rows.values()) == 300  # the first line is a row
    assert prepared.schema.label == "label"
    assert [spec.name for spec in prepared.schema.fields] == CRITEO_COLUMNS[1:]
    assert {spec.kind for spec in prepared.schema.fields[:13]} == {"numeric"}
    assert {spec.kind for spec in prepared.schema.fields[13:]} == {"categorical"}


def test_the_guess_tells_label_ids_numbers_and_lists_apart(tmp_path: Path):
    rows = [[str(i % 2), f"{i:03}", str(i % 7), f"{i / 8}", "a|b" if i % 3 else "c", "x"] for i in range(300)]
    table = write_table(tmp_path / "t.csv", rows, header=["Clicked", "id", "hour", "price", "tags", "note"])
    prepared = prepare(table, tmp_path / "out", ignore=("note",))
    assert prepared.schema.label == "Clicked"
    kinds = {spec.name: spec.kind for spec in prepared.schema.fields}
    assert kinds == {"id": "categorical", "hour": "categorical", "price": "numeric", "tags": "multi"}


def test_a_schema_that_prepare_wrote_can_be_edited_and_given_back(tmp_path: Path, clicks: Path):
    prepare(clicks, tmp_path / "guessed")
    schema = afm.read_schema(tmp_path / "guessed" / "schema.json")
    prepare(clicks, tmp_path / "again", schema=schema)
    assert contents(tmp_path / "again") == contents(tmp_path / "guessed")


def test_the_split_is_about_8_1_1_and_follows_from_the_row_alone(tmp_path: Path, monkeypatch):
    rows = [[str(i % 2), f"u{i}", f"{i / 7:.3f}", "a"] for i in range(6000)]
    prepared = prepare(write_table(tmp_path / "a.csv", rows), tmp_path / "a", schema=SCHEMA)
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        deviation = math.sqrt(share * (1 - share) * 6000)
        assert abs(prepared.rows[split] - share * 6000) < 4 * deviation
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (97,))  # rows of a batch
    backwards = prepare(write_table(tmp_path / "b.csv", rows[::-1]), tmp_path / "b", schema=SCHEMA)
    assert backwards.rows == prepared.rows
    for split in SPLITS:
        prices = [everything(afm.Dataset.open(tmp_path / name, split))[1] for name in ("a", "b")]
        assert np.array(prices[1]) == pytest.approx(np.array(prices[0][::-1]), rel=1e-5)


def test_equal_rows_are_never_on_both_sides(tmp_path: Path):
    rows = [[str(i % 2), f"u{i % 40}", "1.5", "a"] for i in range(4000)]
    prepare(write_table(tmp_path / "t.csv", rows), tmp_path / "out", schema=SCHEMA, split="1:1:1")
    encoder = afm.Encoder.open(
        tmp_path / "out" / "vocabulary.safetensors", afm.read_schema(tmp_path / "out/schema.json")
    )
    in_train = set(encoder.vocabulary("user")[0])
    assert 0 < len(in_train) < 40
    test_ids = {ids[0] for ids in everything(afm.Dataset.open(tmp_path / "out", "test"))[0]}
    assert test_ids == {0}


def test_values_are_counted_on_the_training_rows_alone(tmp_path: Path):
    train, valid, test = click_rows(200), click_rows(50, 2), click_rows(50, 3)
    test[0][1], test[0][3], test[0][2] = "only in test", "only in test|a", "1000000.0"
    prepared = prepare(out=tmp_path / "out", schema=SCHEMA, **three_files(tmp_path, train, valid, test))
    assert prepared.rows == {"train": 200, "valid": 50, "test": 50}
    users = {row[1] for row in train}
    assert prepared.schema.fields[0].cardinality == len(users) + 1
    ids, _, labels = everything(afm.Dataset.open(tmp_path / "out", "test"))
    assert ids[0][0] == 0  # unknown
    assert ids[0][1] == 0 and ids[0][2] > 0
    assert all(row[0] > 0 for row in ids[1:])
    assert labels == [float(row[0]) for row in test]
    logs = [math.log1p(float(row[2])) for row in train if row[2]]
    assert prepared.schema.fields[1].mean == pytest.approx(np.mean(logs), abs=0.2)  # not moved by the million


def test_ids_follow_frequency_and_multi_fields_are_padded(tmp_path: Path):
    train = [["1", "often", "1", "a|b"]] * 3 + [["0", "seldom", "2", "b"]] * 2 + [["0", "once", "3", ""]]
    schema = afm.Schema([afm.FieldSpec(name="user", min_count=2), *FIELDS[1:]], label="click")
    prepare(out=tmp_path / "out", schema=schema, **three_files(tmp_path, train, train[:1], train[-1:]))
    ids, _, _ = everything(afm.Dataset.open(tmp_path / "out", "train"))
    assert [row[0] for row in ids] == [1, 1, 1, 2, 2, 0]  # `once` is below min_count
    assert ids[0][1:] == [2, 1]  # b is more frequent than a
    assert ids[3][1:] == [1, -1]
    assert ids[5][2] == -1


def test_missing_numbers_become_the_fill_value(tmp_path: Path):
    train = [["1", "u", price, "a"] for price in ("1.0", "", "3.0", "")]
    schema = afm.Schema([FIELDS[0], afm.FieldSpec(name="price", kind="numeric", fill=3.0), FIELDS[2]], label="click")
    prepare(out=tmp_path / "out", schema=schema, **three_files(tmp_path, train, train[:1], train[:1]))
    _, dense, _ = everything(afm.Dataset.open(tmp_path / "out", "train"))
    assert dense[1] == dense[2] == dense[3] != dense[0]


def test_the_train_rows_do_not_depend_on_the_batches(tmp_path: Path, clicks: Path, monkeypatch):
    prepare(clicks, tmp_path / "whole", schema=SCHEMA)
    monkeypatch.setattr(tables.Table.batches, "__defaults__", (37,))
    seen = []
    prepare(clicks, tmp_path / "parts", schema=SCHEMA, on_progress=lambda stage, rows: seen.append((stage, rows)))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert ("count", 37) in seen
    assert seen[-1] == ("encode", 600)


def changed(rows: list, row: int, column: int, value: str) -> list:
    rows[row][column] = value
    return rows


BAD_ROWS = [
    (lambda rows: changed(rows, 40, 0, "2"), "clicks.csv:42: label 'click' must be 0 or 1, got '2'"),
    (lambda rows: changed(rows, 40, 0, ""), "clicks.csv:42: label 'click' must be 0 or 1, got ''"),
    (lambda rows: changed(rows, 40, 2, "nan"), "clicks.csv:42: field 'price' must be a finite number, or empty"),
    (lambda rows: changed(rows, 40, 2, "inf"), "clicks.csv:42: field 'price' must be a finite number, or empty"),
    (lambda rows: changed(rows, 40, 2, "cheap"), "clicks.csv:42: field 'price' must be a finite number, or empty"),
    (lambda rows: [*rows[:40], rows[40][:3], *rows[41:]], "clicks.csv:42: 3 columns, expected 4"),
    (lambda rows: [*rows[:40], [*rows[40], "x"], *rows[41:]], "clicks.csv:42: 5 columns, expected 4"),
    (lambda rows: [], "clicks.csv: the train split has no rows"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD_ROWS, ids=[sentence[:60] for _, sentence in BAD_ROWS])
def test_a_bad_row_is_named_and_the_earlier_dataset_stays(tmp_path: Path, clicks: Path, spoil, sentence: str):
    prepare(clicks, tmp_path / "out", schema=SCHEMA)
    before = folder_files(tmp_path / "out")
    write_table(clicks, spoil(click_rows(600)))
    with pytest.raises(afm.DataError) as error:
        prepare(clicks, tmp_path / "out", schema=SCHEMA)
    assert sentence in str(error.value)
    assert folder_files(tmp_path / "out") == before


def test_a_quoted_table_names_the_line_too(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text('click,user\n1,"a,b"\n0,"two\nlines"\n1\n')
    with pytest.raises(afm.DataError, match="t.csv:5: 1 columns, expected 2"):
        prepare(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"schema": afm.Schema(FIELDS[:2], label="click")}, "has a column 'tags' that the schema lacks"),
        ({"schema": afm.Schema([*FIELDS, afm.FieldSpec(name="age")], label="click")}, "has no column 'age' that"),
        ({"schema": SCHEMA, "label": "user"}, "the label is 'click' in the schema, but 'user' was asked for"),
        ({"ignore": ("colour",)}, "has no column 'colour' to ignore"),
        ({"label": "colour"}, "has no column 'colour' for the label"),
        ({"ignore": ("click",)}, "column 'click' of clicks.csv is the label and cannot be ignored"),
        ({"separator": ";"}, "or the separator with --separator; its columns are: click,user"),
        ({"split": "1:0:0"}, "the valid split has no rows"),
        ({"split": "8:1"}, "--split must be three whole numbers such as 8:1:1"),
        ({"valid": "clicks.csv"}, "--valid and --test must be given together"),
        ({"separator": "ab"}, "separator must be one character"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, clicks: Path, options: dict, sentence: str):
    with pytest.raises(ValueError) as error:
        prepare(clicks, tmp_path / "out", **options)
    assert sentence in str(error.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("t.parquet", b"PAR1 not really", "t.parquet is not a Parquet file"),
        ("t.csv.gz", b"click,user\n1,a\n", "t.csv.gz is not a text table"),
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"click,user\n", "t.csv has no rows"),
        ("t.csv", b"click,click\n1,a\n", "t.csv:1: column names must be unique"),
        (
            "t.csv",
            b"1,a,\n0,b,\n",
            "t.csv:1: column names must be unique and not empty, got ''; is the first line a row?",
        ),
        ("t.dat", b"click,user\n1,a\n", "must end in .csv, .tsv, .txt or .parquet"),
        ("t.csv", b'click,"\n"er\n1,a\n', "t.csv:1: column names must have no quotes or line breaks"),
        ("t.csv", b"a,b\nx,y\n", "has no column that looks like a label"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, name: str, data: bytes, sentence: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(afm.DataError) as error:
        prepare(tmp_path / name, tmp_path / "out")
    assert sentence in str(error.value)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path):
    path = as_gzip(tmp_path, click_rows(600))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(afm.DataError, match="form.csv.gz"):
        prepare(path, tmp_path / "out")


@pytest.mark.parametrize("write", [as_gzip, as_parquet])
def test_a_table_with_changed_bytes_is_refused_or_read(tmp_path: Path, write):
    path = write(tmp_path, click_rows(60))
    whole, random_ = path.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(60):
        place = random_.randrange(len(whole) - 8)
        path.write_bytes(whole[:place] + random_.randbytes(8) + whole[place + 8 :])
        try:
            prepare(path, tmp_path / "out")
        except afm.DataError as error:
            assert path.name in str(error)
            refused += 1
    assert refused > 30


def test_a_panic_of_the_reader_is_refused_by_name(tmp_path: Path, monkeypatch):
    def panic(table) -> None:
        raise pl.exceptions.PanicException("assertion failed")

    path = as_parquet(tmp_path, click_rows(60))
    monkeypatch.setattr(tables.Table, "scan", panic)
    with pytest.raises(afm.DataError, match=f"{path.name} cannot be read: assertion failed"):
        prepare(path, tmp_path / "out")


@pytest.mark.parametrize("stage", ["count", "encode"])
def test_ctrl_c_leaves_the_earlier_dataset(tmp_path: Path, clicks: Path, stage: str):
    def stop(now: str, rows: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    prepare(clicks, tmp_path / "out", schema=SCHEMA)
    before = folder_files(tmp_path / "out")
    for folder in ("out", "fresh"):
        with pytest.raises(KeyboardInterrupt):
            prepare(write_table(clicks, click_rows(300)), tmp_path / folder, schema=SCHEMA, on_progress=stop)
    assert folder_files(tmp_path / "out") == before
    assert len(list((tmp_path / "out").iterdir())) == len(before)
    assert not (tmp_path / "fresh").exists()


def test_shards_of_an_earlier_dataset_do_not_survive(tmp_path: Path, clicks: Path):
    prepare(clicks, tmp_path / "out", schema=SCHEMA)
    stale = tmp_path / "out" / "train-00001.safetensors"
    stale.write_bytes((tmp_path / "out" / "train-00000.safetensors").read_bytes())
    (tmp_path / "out" / "notes.txt").write_text("mine")
    prepare(clicks, tmp_path / "out", schema=SCHEMA)
    assert not stale.exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert len(afm.Dataset.open(tmp_path / "out")) > 0
