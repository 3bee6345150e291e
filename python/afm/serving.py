"""Scoring with a model file alone: no LibTorch in the work, no dataset folder beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from afm import _core
from afm.plan import RankPlan

_INT32 = np.iinfo(np.int32)


def pack(model: str | PathLike[str], dataset: str | PathLike[str], packed: str | PathLike[str]) -> None:
    """Writes a model file with its encoder in it, so that raw values can be scored with that file alone.

    Args:
        model: model file.
        dataset: folder of the dataset that it was trained on.
        packed: file to write; may be `model` itself.

    Raises:
        DataError: when the folder's vocabulary belongs to another schema than the model's.
        FormatError: for a file that is no model or no vocabulary.
    """
    _core.pack(model, dataset, packed)


def _ids(ids: Any) -> np.ndarray:
    """ids as int32; a wider type must not wrap around."""
    array = np.asarray(ids)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got {array.dtype}")
    if array.dtype != np.int32 and array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
        raise _core.DataError(f"ids must fit int32, got {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, np.int32)


def _dense(dense: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Dense features as float32. None is what a model without them gets; zeros would be answers to other rows."""
    if dense is None and shape[-1] > 0:
        raise ValueError(f"dense must have the shape [{', '.join(map(str, shape))}], got None")
    return np.zeros(shape, np.float32) if dense is None else np.ascontiguousarray(dense, np.float32)


def _plain(value: Any) -> Any:
    """What json does not know: numpy's scalars and arrays, bytes that are UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a value of a row must be a text, a number, a list or None, got {type(value).__name__}")


def _json(row: Mapping[str, Any]) -> str:
    if not isinstance(row, Mapping):
        raise TypeError(f"a row must be a dict of raw values by field name, got {type(row).__name__}")
    missing = {}
    for name, value in row.items():
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            if math.isinf(value):
                raise _core.DataError(
                    f"field {name!r} must be a finite number, or None where it is missing, got {value}"
                )
            missing[name] = None
    return json.dumps({**row, **missing}, default=_plain)


class Candidates:
    """Scores many items for one user: see Scorer.candidates()."""

    def __init__(self, core: _core.CoreCandidateScorer):
        self._core = core

    def score(self, user_ids: Any, user_dense: Any, item_ids: Any, item_dense: Any) -> np.ndarray:
        """Logits float32 [items].

        Args:
            user_ids, user_dense: [S_u] and [Q_u], slots and dense features of the user's fields, in schema order.
            item_ids, item_dense: [items, S - S_u] and [items, Q - Q_u], those of all other fields.
        """
        return self._core.score(*self._arguments(user_ids, user_dense, item_ids, item_dense))

    def probabilities(self, user_ids: Any, user_dense: Any, item_ids: Any, item_dense: Any) -> np.ndarray:
        """The same as probabilities."""
        return self._core.probabilities(*self._arguments(user_ids, user_dense, item_ids, item_dense))

    def _arguments(self, user_ids: Any, user_dense: Any, item_ids: Any, item_dense: Any) -> tuple[np.ndarray, ...]:
        ids = _ids(item_ids)
        user = _dense(user_dense, (self._core.user_dense,))
        return _ids(user_ids), user, ids, _dense(item_dense, (len(ids), self._core.item_dense))


class Scorer:
    """A model file, ready to score: any model of models/, dense, factorized or folded, floats or integers.

    Opening checks the file and the rows that it carries with their logits. Any number of threads may use one scorer.

        scorer = afm.Scorer("small.safetensors")
        scorer.probabilities(ids, dense)                        # encoded rows
        afm.pack("small.safetensors", "clicks", "packed.safetensors")
        afm.Scorer("packed.safetensors").score_rows([{"user": "u7", "price": 3.5}])

    Args:
        path: model file.
        simd: instructions to use: "portable", "avx2", "avx512"; none = the best that this processor has.
        verify: compare the checksum of the file, which reads all of it once.

    Raises:
        FormatError: for a damaged or foreign file, or when this build does not give the logits that the file states.
        IoError: when it cannot be read.
    """

    def __init__(self, path: str | PathLike[str], *, simd: str | None = None, verify: bool = True):
        self._core = _core.CoreScorer.open(path, simd, verify)
        self._candidates: dict[tuple[int, ...], _core.CoreCandidateScorer] = {}

    def score(self, ids: Any, dense: Any = None) -> np.ndarray:
        """Logits float32 [rows] of encoded rows.

        Args:
            ids: [rows, S], an empty slot of a multi-valued field being -1.
            dense: [rows, Q]; None where Q is 0. Not checked: NaN gives NaN.

        Raises:
            DataError: for an id out of range.
        """
        ids = _ids(ids)
        return self._core.score(ids, _dense(dense, (len(ids), self.dense_count)))

    def probabilities(self, ids: Any, dense: Any = None) -> np.ndarray:
        """The same as probabilities of a click."""
        ids = _ids(ids)
        return self._core.probabilities(ids, _dense(dense, (len(ids), self.dense_count)))

    def score_json(self, request: str) -> float:
        """The probability of one row of raw values, a JSON object by field names. Needs a packed file.

        A field that is left out is a missing value, and an unknown value is like a missing one.

        Raises:
            DataError: for what is not JSON, a field that the schema lacks, a text where a number must be.
        """
        return self._core.score_json(request)

    def encode_rows(self, rows: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """ids int32 [rows, S] and dense float32 [rows, Q] of dicts of raw values. Needs a packed file."""
        return self._core.encode_json([_json(row) for row in rows])

    def score_rows(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """Probabilities float32 [rows] of dicts of raw values; see score_json()."""
        return self.probabilities(*self.encode_rows(rows))

    def candidates(self, user_fields: Sequence[str]) -> Candidates:
        """A scorer of many items for one user, whose share of the model is then computed once per call.

        Args:
            user_fields: names of the fields that describe the user; all others describe an item.
        """
        return Candidates(self._core_candidates(user_fields))

    def score_candidates(self, user: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Probabilities float32 [items] of raw values: the user's, and those of each item.

        Needs a packed file. The fields that `user` names, missing values too, are the user's; an item must not name
        them.
        """
        for item in items:
            if both := sorted(set(user).intersection(item)):
                raise _core.DataError(f"an item must not have the user's field '{both[0]}'")
        core = self._core_candidates(list(user))
        (user_ids,), (user_dense,) = self.encode_rows([user])
        ids, dense = self.encode_rows(items)
        slots, columns = self._places(set(user))
        return core.probabilities(
            np.ascontiguousarray(user_ids[slots]),
            np.ascontiguousarray(user_dense[columns]),
            np.ascontiguousarray(ids[:, ~slots]),
            np.ascontiguousarray(dense[:, ~columns]),
        )

    def _core_candidates(self, user_fields: Sequence[str]) -> _core.CoreCandidateScorer:
        names = [field.name for field in self.schema.fields]
        for name in user_fields:
            if name not in names:
                raise _core.DataError(f"the schema has no field '{name}'; its fields are: {', '.join(names)}")
        chosen = tuple(names.index(name) for name in user_fields)
        if chosen not in self._candidates:
            self._candidates[chosen] = self._core.candidates(list(chosen))
        return self._candidates[chosen]

    def _places(self, fields: set[str]) -> tuple[np.ndarray, np.ndarray]:
        """Which slots [S] and which dense features [Q] belong to some fields."""
        slots: list[bool] = []
        columns: list[bool] = []
        for field in self.schema.fields:
            if field.kind == "numeric":
                columns.append(field.name in fields)
            else:
                slots += [field.name in fields] * (field.max_values if field.kind == "multi" else 1)
        return np.array(slots, bool), np.array(columns, bool)

    @property
    def is_packed(self) -> bool:
        """Whether the file holds its encoder, so that raw values can be scored."""
        return self._core.is_packed

    @property
    def schema(self) -> _core.Schema:
        return self._core.schema

    @property
    def model(self) -> str:
        """The kind of the model: "deepfm", ..."""
        return self._core.model

    @property
    def ranks(self) -> RankPlan:
        return RankPlan.from_json(self._core.ranks)

    @property
    def simd(self) -> str:
        """The instructions that it uses."""
        return self._core.simd

    @property
    def slot_count(self) -> int:
        """S, id slots of a row."""
        return self._core.slot_count

    @property
    def dense_count(self) -> int:
        """Q, dense features of a row."""
        return self._core.dense_count

    @property
    def golden_rows(self) -> int:
        """Rows of the file whose logits were checked; 0 for a file that has none."""
        return self._core.golden_rows

    @property
    def file_bytes(self) -> int:
        return self._core.file_bytes

    @property
    def prepared_bytes(self) -> int:
        """Memory of the weights that do not stay in the file."""
        return self._core.prepared_bytes

    def __repr__(self) -> str:
        return f"Scorer({self.model}, {self.file_bytes} bytes, {self.simd})"
