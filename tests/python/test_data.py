"""Schema, encoder, dataset, batches."""

import pickle

import afm
import numpy as np
import pytest
import torch
from planted import planted_rows, small_schema


def buffers(values: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [value.encode() for value in values]
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return data, np.cumsum([0, *(len(value) for value in encoded)], dtype=np.int64)


def built_encoder() -> afm.Encoder:
    schema = afm.Schema(
        [
            afm.FieldSpec(name="user"),
            afm.FieldSpec(name="genres", kind="multi"),
            afm.FieldSpec(name="price", kind="numeric", transform="standard"),
        ]
    )
    builder = afm.EncoderBuilder(schema)
    builder.add_counts("user", ["ann", "bob", "zoë"], [3, 5, 1])
    builder.add_counts("genres", *buffers(["drama", "war"]), [4, 2])
    builder.add_longest("genres", 2)
    builder.add_numbers("price", np.array([1.0, 3.0, np.nan]))
    return builder.build()


def test_schema_round_trips_through_json_pickle_and_files(tmp_path):
    schema = small_schema()
    assert afm.Schema.from_json(schema.to_json()) == schema
    assert pickle.loads(pickle.dumps(schema)) == schema
    afm.write_schema(tmp_path / "schema.json", schema)
    assert afm.read_schema(tmp_path / "schema.json") == schema
    assert [field.name for field in schema.fields] == ["user", "item", "genres", "price"]
    assert (schema.slot_count, schema.dense_count, schema.cardinalities) == (5, 1, [60, 40, 12])


def test_text_is_encoded_alike_from_lists_and_from_buffers():
    encoder = built_encoder()
    values = ["bob", "ann", "zoë", "eve", ""]
    ids = encoder.encode_categorical("user", values)
    assert ids.dtype == np.int32
    assert ids.tolist() == [1, 2, 3, 0, 0]
    assert encoder.encode_categorical(0, *buffers(values)).tolist() == ids.tolist()
    assert encoder.encode_categorical("user", [None, b"ann"]).tolist() == [0, 2]


def test_multi_valued_and_numeric_fields():
    encoder = built_encoder()
    expected = [[1, 2], [2, -1], [-1, -1]]
    assert encoder.encode_multi("genres", ["drama|war", "war", None]).tolist() == expected
    assert encoder.encode_multi("genres", *buffers(["drama|war", "war", ""])).tolist() == expected
    assert encoder.encode_numeric("price", [1.0, 2.0, 3.0]).tolist() == [-1.0, 0.0, 1.0]


def test_encoder_files_and_vocabularies(tmp_path):
    encoder = built_encoder()
    values, counts = encoder.vocabulary("user")
    assert (values, counts.tolist()) == (["bob", "ann", "zoë"], [5, 3, 1])
    encoder.save(tmp_path / "vocabulary.safetensors")
    again = afm.Encoder.open(tmp_path / "vocabulary.safetensors", encoder.schema)
    assert again.id_of("user", "zoë") == 3
    rebuilt = afm.Encoder(encoder.schema, [encoder.vocabulary("user"), encoder.vocabulary("genres")])
    assert rebuilt.encode_categorical("user", ["ann"]).tolist() == [2]


def test_bytes_that_are_no_utf8_survive():
    builder = afm.EncoderBuilder(afm.Schema([afm.FieldSpec(name="raw")]))
    builder.add_counts("raw", [b"\xff\xfe", b"ok"], [2, 1])
    encoder = builder.build()
    values, _ = encoder.vocabulary("raw")
    assert encoder.encode_categorical("raw", values).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("offsets", "sentence"),
    [
        ([0, 3, 2], "offsets must rise within [0, 3], got 3 and 2 for row 1"),
        ([0, 4], "offsets must rise within [0, 3], got 0 and 4 for row 0"),
        ([-1, 2], "offsets must rise within [0, 3], got -1 and 2 for row 0"),
        ([], "data must be [bytes] and offsets [rows + 1]"),
    ],
)
def test_bad_offsets_are_refused(offsets: list[int], sentence: str):
    data = np.frombuffer(b"bob", dtype=np.uint8)
    with pytest.raises(ValueError) as error:
        built_encoder().encode_categorical("user", data, np.array(offsets, dtype=np.int64))
    assert sentence in str(error.value)


def test_unknown_fields_and_wrong_values_are_refused():
    encoder = built_encoder()
    with pytest.raises(ValueError, match="the schema has no field 'usr'"):
        encoder.encode_categorical("usr", ["bob"])
    with pytest.raises(ValueError, match=r"field must be in \[0, 3\), got 3"):
        encoder.encode_categorical(3, ["bob"])
    with pytest.raises(TypeError, match="a value must be str, bytes or None, got 7"):
        encoder.encode_categorical("user", ["bob", 7])
    with pytest.raises(ValueError, match="field 'price' is numeric and has no vocabulary"):
        encoder.vocabulary("price")


def test_hashes_are_those_of_xxh3():
    expected = [0x2D06800538D394C2, 0x78AF5F94892F3950]  # published for the empty input and "abc"
    assert afm._core.hash_strings(*buffers(["", "abc"])).tolist() == expected


@pytest.mark.parametrize("convert", [lambda tensor: tensor, lambda tensor: tensor.numpy()])
def test_written_rows_are_read_back(tmp_path, convert):
    schema, rows = small_schema(), planted_rows(7, 100)
    writer = afm.DatasetWriter(tmp_path, schema, "train", rows_per_shard=30)
    for begin in range(0, 100, 25):
        part = {name: convert(tensor[begin : begin + 25]) for name, tensor in rows.items()}
        writer.append(part["ids"], part["dense"], label=part["label"])
    assert writer.finish() == 100
    afm.write_schema(tmp_path / "schema.json", schema)
    dataset = afm.Dataset.open(tmp_path, "train")
    assert len(dataset) == 100
    whole = dataset.range(0, 100)
    for name in rows:
        assert torch.equal(getattr(whole, name), rows[name])
    index = torch.tensor([99, 0, 31])
    assert torch.equal(dataset.rows(index).ids, rows["ids"][index])
    assert dataset.click_rate() == pytest.approx(rows["label"].mean().item())


def test_read_only_arrays_are_taken_without_a_warning(recwarn):
    rows = {name: tensor.numpy() for name, tensor in planted_rows(7, 10).items()}
    for array in rows.values():
        array.setflags(write=False)
    assert len(afm.Dataset.from_tensors(small_schema(), **rows)) == 10
    assert not recwarn.list


def test_arrays_of_any_layout_and_byte_order_are_read_right():
    rows = planted_rows(7, 10)
    ids = np.asfortranarray(rows["ids"].numpy().astype(">i8"))
    dataset = afm.Dataset.from_tensors(small_schema(), ids[::-1], rows["dense"].numpy()[::-1], label=rows["label"])
    assert torch.equal(dataset.range(0, 10).ids, rows["ids"].flip(0))
    with pytest.raises(TypeError, match="numpy.object_"):
        afm.Dataset.from_tensors(small_schema(), np.array([None]), label=rows["label"])


def test_an_array_outlives_its_name():
    rows = planted_rows(7, 1000)
    dataset = afm.Dataset.from_tensors(small_schema(), **{name: tensor.numpy().copy() for name, tensor in rows.items()})
    garbage = [np.zeros(5000, dtype=np.int32) for _ in range(50)]
    assert torch.equal(dataset.range(0, 1000).ids, rows["ids"]) and garbage


def test_every_epoch_is_another_order_of_all_rows(train_set):
    stream = afm.BatchStream(train_set, batch_size=700, seed=5)
    epochs = [torch.cat([batch.ids for batch in stream]) for _ in range(2)]
    assert len(stream) == 5
    assert all(len(epoch) == len(train_set) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert torch.equal(*(epoch.sort(0).values for epoch in epochs))


def test_a_stream_goes_on_from_a_position(train_set):
    stream = afm.BatchStream(train_set, batch_size=700, seed=5)
    first_epoch = [batch.ids for batch in stream]
    stream.start_epoch(0, batch=3)
    assert stream.epoch == 0
    for expected, batch in zip(first_epoch[3:], stream, strict=True):
        assert torch.equal(expected, batch.ids)


def test_a_stream_keeps_its_dataset():
    stream = afm.BatchStream(afm.Dataset.from_tensors(small_schema(), **planted_rows(7, 50)), batch_size=20)
    assert sum(len(batch) for batch in stream) == 50


def test_bad_batch_options_are_refused(train_set):
    with pytest.raises(ValueError, match="BatchOptions.batch_size must be"):
        afm.BatchStream(train_set, batch_size=0)
    with pytest.raises(TypeError, match="BatchOptions has no field 'size'"):
        afm.BatchStream(train_set, size=3)
