"""torch.nn.Module faces of C++ module trees.

The registered tensors are the very ones that the C++ modules compute with, so state_dict, parameters(), optimizers and
autograd work on the C++ model. What would put other tensors in their place is refused: it would change what Python sees
and not what the model computes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from afm import _core

_REPLACED = (
    "{name} of a libafm model was replaced by another tensor, which its C++ code does not see "
    "(load_state_dict(assign=True), torch.func.functional_call, parametrizations); copy values in: "
    "`with torch.no_grad(): tensor.copy_(value)`"
)


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(f"{what} is not possible for a libafm model: its tensors and modules belong to C++ code")


class Part(torch.nn.Module):
    """A module of the C++ tree: its own tensors, and a Part for each child."""

    def __init__(self, view: _core.ModuleView):
        self._bind(view)

    def _bind(self, view: _core.ModuleView) -> None:
        self.__dict__["_view"] = view
        self.__dict__["_frozen"] = False
        super().__init__()
        for name, tensor in view.parameters():
            tensor._is_param = True  # an instance of torch.nn.Parameter from here on
            self.register_parameter(name, tensor)
        for name, tensor in view.buffers():
            self.register_buffer(name, tensor)
        for name, child in view.children():
            self.add_module(name, Part(child))
        # Where each tensor of the subtree is registered, for check_tensors().
        self.__dict__["_owned"] = [
            (place, name, tensor) for place in (self._parameters, self._buffers) for name, tensor in place.items()
        ]
        self.__dict__["_watched"] = [
            (f"{path}.{name}".lstrip("."), place, name, tensor)
            for path, part in self.named_modules()
            for place, name, tensor in part._owned
        ]
        self.__dict__["_frozen"] = True

    # The flag lives in C++, where forward reads it. (torch.nn.Module's constructor sets it: that is no wish.)
    @property
    def training(self) -> bool:  # type: ignore[override]
        return self._view.training

    @training.setter
    def training(self, mode: bool) -> None:
        if self._frozen:
            self._view.training = bool(mode)

    def check_tensors(self) -> None:
        """Raises RuntimeError when a registered tensor is no longer the C++ module's."""
        for path, place, name, tensor in self._watched:
            if place.get(name) is not tensor:
                raise RuntimeError(_REPLACED.format(name=f"'{path}'"))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Part":
        # .to, .double, .cuda, ...: the values change, the tensors stay. (torch would replace the buffers.)
        if recurse:
            for child in self.children():
                child._apply(fn)
        with torch.no_grad():
            for _, _, tensor in self._owned:
                gradient, converted = tensor.grad, fn(tensor.data)
                if not torch._has_compatible_shallow_copy_type(tensor, converted):
                    _refuse(f"a tensor on {converted.device} of type {type(converted).__name__}")
                tensor.data = converted
                if gradient is not None:
                    gradient.data = fn(gradient.data)
        return self

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        if assign or torch.__future__.get_swap_module_params_on_conversion():
            _refuse("load_state_dict(assign=True)")
        return super().load_state_dict(state_dict, strict)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("only the whole model can be called: its parts run in C++")

    def __setattr__(self, name: str, value: Any) -> None:
        registered = (
            name in self._parameters or name in self._buffers or name in self._modules if self._frozen else False
        )
        if registered or (self._frozen and isinstance(value, torch.nn.Parameter | torch.nn.Module)):
            _refuse(f"setting {name}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._parameters or name in self._buffers or name in self._modules:
            _refuse(f"deleting {name}")
        super().__delattr__(name)

    def register_parameter(self, name: str, param: Any) -> None:
        if self._frozen:
            _refuse("register_parameter")
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        if self._frozen:
            _refuse("register_buffer")
        super().register_buffer(name, tensor, persistent)

    def add_module(self, name: str, module: Any) -> None:
        if self._frozen:
            _refuse("add_module")
        super().add_module(name, module)

    # Parts are never called from Python, so a hook on one would never run.
    def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("a hook on a part")

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("a hook on a part")

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("a hook on a part")

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("a hook on a part")

    def _replicate_for_data_parallel(self) -> NoReturn:
        _refuse("torch.nn.DataParallel")

    def __reduce_ex__(self, protocol: Any) -> Any:
        _refuse("copying or pickling a part")

    def _get_name(self) -> str:
        return self._view.text().partition("(")[0].rpartition("::")[2].removesuffix("Impl")

    def __repr__(self) -> str:
        _, opened, arguments = self._view.text().partition("(")
        return super().__repr__() if self._modules else self._get_name() + opened + arguments


def tensors_of(part: Part) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer by its path."""
    yield from part.named_parameters()
    yield from part.named_buffers()
