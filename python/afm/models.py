"""The models: torch.nn.Modules over C++ models."""

import copy
import inspect
import json
from collections.abc import Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from afm import _core
from afm.modules import Part, tensors_of
from afm.plan import LayerPlanLike, RankPlan, plan_text

_CLASSES: dict[str, type["Model"]] = {}  # by kind


class Model(Part):
    """A CTR model: ids and dense features to logits. Build one of its subclasses, or load_model().

    It is a torch.nn.Module that trains in a plain PyTorch loop as well as with afm.train():

        for batch in afm.BatchStream(train_set):
            loss = afm.logloss_of(model(batch.ids, batch.dense), batch.label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    """

    kind: ClassVar[str]  # its name in model files and on the command line
    options_class: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        _CLASSES[cls.kind] = cls
        cls.__init__.__signature__ = _signature(cls.options_class)
        cls.__doc__ = f"{cls.__doc__}\n\n{_arguments(cls.options_class)}"

    def __init__(self, schema: _core.Schema, *, ranks: Mapping[str, LayerPlanLike] | None = None, **options: Any):
        options_json = self.options_class(**options).to_json()
        self._bind_core(_core.make_model(self.kind, options_json, schema, plan_text(ranks)))

    def _bind_core(self, core: _core.CoreModel) -> None:
        self.__dict__["_core"] = core
        self._bind(core.view())

    @property
    def core(self) -> _core.CoreModel:
        """The C++ model, after a check that the tensors registered here are still its own."""
        self.check_tensors()
        return self._core

    @property
    def schema(self) -> _core.Schema:
        return self._core.schema

    @property
    def options(self) -> Any:
        """The options that it was built with: a DeepFMOptions, ..."""
        return self.options_class.from_json(self._core.options_json)

    @property
    def ranks(self) -> RankPlan:
        """The layers that are factor pairs; empty for a dense model."""
        return RankPlan.from_json(self._core.ranks)

    @property
    def notes(self) -> Mapping[str, str]:
        """Text that travels with the model through copies and files. Set it as a whole."""
        return MappingProxyType(self._core.notes)

    @notes.setter
    def notes(self, notes: Mapping[str, str]) -> None:
        self._core.notes = dict(notes)

    @property
    def device(self) -> torch.device:
        return self._core.device

    def forward(self, ids: torch.Tensor, dense: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [B] of ids [B, S], int32 or int64, and dense features [B, Q]."""
        return self.core.forward(ids, dense)

    # The whole model is called from Python: hooks on it run.
    register_forward_hook = torch.nn.Module.register_forward_hook
    register_forward_pre_hook = torch.nn.Module.register_forward_pre_hook
    register_full_backward_hook = torch.nn.Module.register_full_backward_hook
    register_full_backward_pre_hook = torch.nn.Module.register_full_backward_pre_hook

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self._recipe(), {name: tensor.detach() for name, tensor in tensors_of(self)})

    def __deepcopy__(self, memo: dict[int, Any]) -> "Model":
        with torch.no_grad():
            copied = _rebuild(self._recipe(), {name: tensor.detach().clone() for name, tensor in tensors_of(self)})
        memo[id(self)] = copied
        theirs = dict(tensors_of(copied))
        for name, tensor in tensors_of(self):
            memo[id(tensor)] = theirs[name]  # an optimizer copied along finds its parameters
            if tensor.grad is not None:
                theirs[name].grad = tensor.grad.clone()
        for name, value in self.__dict__.items():
            if name not in copied.__dict__:
                copied.__dict__[name] = copy.deepcopy(value, memo)
        return copied

    def _recipe(self) -> dict[str, Any]:
        core = self.core
        return {
            "kind": core.kind,
            "options": core.options_json,
            "schema": core.schema.to_json(),
            "ranks": core.ranks,
            "notes": core.notes,
            "training": [module.training for module in self.modules()],
            "frozen": [name for name, parameter in self.named_parameters() if not parameter.requires_grad],
        }

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in json.loads(self._core.options_json).items())
        return f"{options}, factorized layers: {len(self.ranks)}" if self.ranks else options


def _rebuild(recipe: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Model:
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn and thrown away
        core = _core.make_model(
            recipe["kind"], recipe["options"], _core.Schema.from_json(recipe["schema"]), recipe["ranks"]
        )
    model = wrap(core)
    model.notes = recipe["notes"]
    for name, tensor in tensors_of(model):
        tensor.data = tensors[name]
    for module, training in zip(model.modules(), recipe["training"], strict=True):
        module.training = training
    for name in recipe["frozen"]:
        model.get_parameter(name).requires_grad_(False)
    return model


def wrap(core: _core.CoreModel) -> Model:
    """The torch.nn.Module of a C++ model."""
    cls = _CLASSES[core.kind]
    model = cls.__new__(cls)
    model._bind_core(core)
    return model


def _signature(options_class: Any) -> inspect.Signature:
    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = options_class()
    parameters = [inspect.Parameter("self", either), inspect.Parameter("schema", either)]
    parameters += [
        inspect.Parameter(field.name, keyword, default=getattr(defaults, field.name))
        for field in options_class.fields()
    ]
    return inspect.Signature([*parameters, inspect.Parameter("ranks", keyword, default=None)])


def _arguments(options_class: Any) -> str:
    lines = ["Args:", "    schema: a counted schema, such as dataset.schema."]
    lines += [f"    {field.name}: {field.doc} Default: {field.default}." for field in options_class.fields()]
    return "\n".join([*lines, "    ranks: a RankPlan; none = dense."])


class DeepFM(Model):
    """DeepFM (Guo et al., 2017): wide + factorization machine + MLP."""

    kind = "deepfm"
    options_class = _core.DeepFMOptions


class DCN(Model):
    """Deep & cross network (Wang et al., 2017), and by option its matrix form, DCN-V2 (Wang et al., 2021)."""

    kind = "dcn"
    options_class = _core.DCNOptions


class WideDeep(Model):
    """Wide & deep (Cheng et al., 2016): wide + MLP."""

    kind = "wide_deep"
    options_class = _core.WideDeepOptions


def _class_of(name: str) -> type[Model]:
    if name not in _CLASSES:
        raise ValueError(f"model must be one of {', '.join(_CLASSES)}, got '{name}'")
    return _CLASSES[name]


def options_class(name: str) -> Any:
    """The options class of a model by its name: options_class("deepfm").fields()."""
    return _class_of(name).options_class


def make_model(
    name: str, schema: _core.Schema, *, ranks: Mapping[str, LayerPlanLike] | None = None, **options: Any
) -> Model:
    """A model by its name: make_model("deepfm", schema, embedding_dim=10)."""
    return _class_of(name)(schema, ranks=ranks, **options)


def load_model(path: str | PathLike[str]) -> Model:
    """Any model file, dense or compressed, on the CPU, in evaluation mode.

    Raises:
        FormatError: for a damaged or foreign file, or one of a newer libafm.
        IoError: when it cannot be read.
    """
    return wrap(_core.load_model(path))


def core_of(model: Model) -> _core.CoreModel:
    """The C++ model of a wrapper. TypeError for anything else."""
    if not isinstance(model, Model):
        raise TypeError(f"model must be a libafm model ({', '.join(_CLASSES)}), got {type(model).__name__}")
    return model.core


def save_model(model: Model, path: str | PathLike[str]) -> None:
    """Writes a model file (safetensors): whole or not at all."""
    core_of(model).save(path)


def parameter_count(model: Model) -> int:
    """Parameters, those of factors and packed integers included; buffers are not counted."""
    return _core.parameter_count(core_of(model))


def byte_count(model: Model) -> int:
    """Bytes of parameters and buffers."""
    return _core.byte_count(core_of(model))


def size_by_group(model: Model) -> list[_core.GroupSize]:
    """Parameters and bytes of embedding, wide, mlp, cross, ..."""
    return _core.size_by_group(core_of(model))
