"""What networks are at one moment, so that they can be given back byte for byte."""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, list, set)


class ModuleState:
    """Structure, modes and flags of networks, and the values of some of them.

    Args:
        networks: whose structure is kept: submodules, hooks, attributes, training mode, class.
        valued: the modules whose parameters and buffers are kept as well, on the CPU.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before, state = layer.weight.clone(), ModuleState([layer], [layer])
        >>> with torch.no_grad():
        ...     _ = layer.weight.zero_()
        >>> state.restore()
        >>> torch.equal(layer.weight, before)
        True
    """

    def __init__(self, networks: Iterable[nn.Module], valued: Iterable[nn.Module]) -> None:
        modules = dict.fromkeys(m for network in networks for m in network.modules())
        self._modules = [(m, type(m), _attributes(m)) for m in modules]
        self._flags = [(p, p.requires_grad, p.grad) for m in modules for p in _own(m)]
        inner = dict.fromkeys(m for part in valued for m in part.modules())
        self._values = [(t, t.detach().to("cpu", copy=True)) for m in inner for t in _own(m)]

    def restore(self) -> None:
        """Make the networks what they were."""
        for module, cls, attributes in self._modules:
            module.__class__ = cls
            _put_back(module, attributes)
        with torch.no_grad():
            for tensor, value in self._values:
                _fill(tensor, value)
        for tensor, flag, gradient in self._flags:
            tensor.requires_grad_(flag)
            tensor.grad = gradient


def _own(module: nn.Module) -> list[Tensor]:
    """Return a module's own parameters and buffers."""
    mine = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in mine if tensor is not None]


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return a module's attributes: each value, and a copy of it where it is a container."""
    held = vars(module).items()
    return {name: (v, copy.copy(v) if type(v) in CONTAINERS else v) for name, v in held}


def _put_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    vars(module).clear()
    for name, (value, content) in attributes.items():
        if type(value) in CONTAINERS:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(content)
        vars(module)[name] = value


def _fill(tensor: Tensor, value: Tensor) -> None:
    """Put a value back in place, or as a new storage where shape or type were changed."""
    if tensor.shape == value.shape and tensor.dtype == value.dtype:
        tensor.copy_(value)
    else:
        tensor.data = value.to(tensor.device)
