"""Where a network's maps can be read and changed: the places behind a model's feature layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Change = Callable[[Tensor], Tensor]  # of a map [r, c, h, w]


def first(value: Any, change: Change) -> Any:
    """Return a module's output with its map changed, which is all of it or comes first."""
    return (change(value[0]), *value[1:]) if isinstance(value, tuple) else change(value)


@dataclass(frozen=True)
class FeaturePoint:
    """One place: the output or the input of a module.

    Args:
        path: the module's name in the network, looked up whenever it is tapped.
        part: (the module's output or input, change of the map) -> the same, changed.
        before: the place is the module's input, its first argument, not its output.
    """

    path: str
    part: Callable[[Any, Change], Any] = first
    before: bool = False

    def hook(self, network: nn.Module, change: Change) -> RemovableHandle:
        """Change the map in every call of the network until the handle is removed."""
        module = network.get_submodule(self.path)
        if not self.before:
            return module.register_forward_hook(
                lambda module, inputs, output: self.part(output, change)
            )

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if inputs:
                return (self.part(inputs[0], change), *inputs[1:]), named
            own = self.part(named["hidden_states"], change)
            return inputs, {**named, "hidden_states": own}

        return module.register_forward_pre_hook(enter, with_kwargs=True)


def all_but_last(count: int) -> Callable[[Tensor, Change], Tensor]:
    """Return the part of a map that is all of its channels but the last ones."""
    return lambda value, change: torch.cat([change(value[:, :-count]), value[:, -count:]], 1)


def last(count: int) -> Callable[[Tensor, Change], Tensor]:
    """Return the part of a map that is its last channels."""
    return lambda value, change: torch.cat([value[:, :-count], change(value[:, -count:])], 1)


def change_tokens(tokens: Tensor, change: Change) -> Tensor:
    """Return tokens ``[r, side * side, width]`` after a change of the map ``[r, width, h, w]``."""
    side = round(tokens.shape[1] ** 0.5)
    maps = tokens.transpose(1, 2).unflatten(2, (side, side))
    return change(maps).flatten(2).transpose(1, 2)


def first_tokens(value: Any, change: Change) -> Any:
    """Return a module's output with its image tokens changed, which are all of it or come first."""
    return first(value, lambda tokens: change_tokens(tokens, change))


def second_tokens(value: tuple[Tensor, Tensor], change: Change) -> tuple[Tensor, Tensor]:
    """Return (text tokens, image tokens) with the image tokens changed."""
    text, image = value
    return text, change_tokens(image, change)


def last_tokens(count: int) -> Callable[[Tensor, Change], Tensor]:
    """Return the part of tokens, text before image, that is the image's."""

    def part(value: Tensor, change: Change) -> Tensor:
        text, image = value[:, :-count], value[:, -count:]
        return torch.cat([text, change_tokens(image, change)], 1)

    return part
