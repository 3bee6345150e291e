"""Options classes, made from the field lists in C++."""

import inspect
import pickle

import afm
import numpy as np
import pytest

ALL = [afm.TrainOptions, afm.BatchOptions, afm.FieldSpec, *(afm.options_class(name) for name in afm.model_names())]


def test_keywords_set_attributes():
    options = afm.DeepFMOptions(embedding_dim=10, hidden=[8, 4], dropout=0.5)
    assert (options.embedding_dim, options.hidden, options.dropout) == (10, (8, 4), 0.5)
    options.dropout = 0.25
    assert options.dropout == 0.25


def test_numpy_numbers_are_numbers():
    options = afm.DeepFMOptions(embedding_dim=np.int64(10), dropout=np.float32(0.5), hidden=(np.int32(7),))
    assert (options.embedding_dim, options.dropout, options.hidden) == (10, 0.5, (7,))


def test_there_are_no_positional_options():
    with pytest.raises(TypeError):
        afm.DeepFMOptions(10)


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"dropuot": 0.1}, "DeepFMOptions has no field 'dropuot'; its fields are: embedding_dim, hidden, batch_norm"),
        ({"dropout": "0.1"}, 'DeepFMOptions.dropout must be a number, got "0.1"'),
        ({"embedding_dim": 10.0}, "DeepFMOptions.embedding_dim must be an integer, got 10.0"),
        ({"embedding_dim": True}, "DeepFMOptions.embedding_dim must be an integer, got true"),
        ({"batch_norm": 1}, "DeepFMOptions.batch_norm must be true or false, got 1"),
        ({"hidden": 400}, "DeepFMOptions.hidden must be a list of integers, got 400"),
        ({"hidden": [4.5]}, "DeepFMOptions.hidden must be a list of integers, got [4.5]"),
    ],
)
def test_unknown_names_and_wrong_types_are_type_errors(keywords: dict, sentence: str):
    with pytest.raises(TypeError) as error:
        afm.DeepFMOptions(**keywords)
    assert sentence in str(error.value)


def test_wrong_type_of_an_attribute_leaves_it_as_it_was():
    options = afm.TrainOptions(epochs=3)
    with pytest.raises(TypeError, match=r"TrainOptions.epochs must be an integer, got \"four\""):
        options.epochs = "four"
    assert options.epochs == 3


def test_an_enum_is_taken_by_name():
    assert afm.TrainOptions(schedule="linear").schedule == "linear"
    with pytest.raises(ValueError, match="TrainOptions.schedule must be one of constant, plateau, linear"):
        afm.TrainOptions(schedule="cosine")


def test_not_a_number_is_a_value_error():
    with pytest.raises(ValueError, match="TrainOptions.learning_rate must be a finite number"):
        afm.TrainOptions(learning_rate=float("nan"))


def test_a_rule_is_checked_at_the_door(schema: afm.Schema):
    with pytest.raises(ValueError, match=r"DeepFMOptions.dropout must be in \[0, 1\), got 1.5"):
        afm.DeepFM(schema, dropout=1.5)


@pytest.mark.parametrize("options_class", ALL)
def test_json_pickle_repr_and_equality(options_class: type):
    options = options_class()
    assert options_class.from_json(options.to_json()) == options
    assert pickle.loads(pickle.dumps(options)) == options
    assert eval(repr(options), vars(afm)) == options
    field = options_class.fields()[0]
    other = options_class.from_json(options.to_json())
    changed = {"integer": "7", "text": "x", "number": "7", "boolean": "false"}[field.type]
    assert other.set_text(field.name, changed)
    assert other != options


@pytest.mark.parametrize("options_class", ALL)
def test_fields_document_every_option(options_class: type):
    names = [field.name for field in options_class.fields()]
    assert all(field.doc and field.type for field in options_class.fields())
    assert all(hasattr(options_class(), name) for name in names)
    assert all(f"{name}: " in options_class.__init__.__doc__ for name in names)


def test_text_of_the_command_line():
    options = afm.DeepFMOptions()
    assert options.set_text("hidden", "400,200")
    assert options.hidden == (400, 200)
    assert not options.set_text("epochs", "3")
    with pytest.raises(ValueError, match="DeepFMOptions.dropout must be a number, got"):
        options.set_text("dropout", "much")


def test_json_that_is_none_is_refused():
    with pytest.raises(ValueError, match="TrainOptions must be JSON, got '{'"):
        afm.TrainOptions.from_json("{")


def test_help_of_a_model_shows_its_options():
    parameters = inspect.signature(afm.DeepFM).parameters
    assert parameters["embedding_dim"].default == afm.DeepFMOptions().embedding_dim
    assert list(parameters)[-1] == "ranks"
    assert "dropout: " in afm.DeepFM.__doc__


def test_options_class_by_name():
    assert afm.options_class("deepfm") is afm.DeepFMOptions
    with pytest.raises(ValueError, match="model must be one of deepfm, dcn, wide_deep, got 'deepfn'"):
        afm.options_class("deepfn")


def test_every_model_has_a_class():
    kinds = [getattr(afm, name).kind for name in ("DeepFM", "DCN", "WideDeep")]
    assert sorted(kinds) == sorted(afm.model_names())
