"""Loading an embedded network of the suite's own: config.json, checked safetensors, no gradient."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import nn

from latentbench import weights

Network = TypeVar("Network", bound=nn.Module)


def load_network(
    name: str, architectures: Mapping[str, Callable[..., Network]], device: str | torch.device
) -> Network:
    """Load an embedded network after checking its hash.

    Args:
        name: folder of the embedded weights.
        architectures: class name -> class; ``config.json`` says which, and its arguments.
        device: where to put it.

    Returns:
        The network in evaluation mode, float32, without gradients on its weights.

    Raises:
        BadInput: Unknown name.
        MissingWeights: A file is absent or differs from its card.
    """
    config = checked_config(name)
    network = architectures[config.pop("architecture")](**config)
    found = safetensors.torch.load_file(weights.folder(name) / "model.safetensors")
    network.load_state_dict(found)
    return network.float().eval().requires_grad_(False).to(device)


def checked_config(name: str) -> dict[str, Any]:
    """Return what an embedded network is built with, after checking the hashes of its files.

    Raises:
        BadInput: Unknown name.
        MissingWeights: A file is absent or differs from its card.
    """
    weights.verify(name)
    return json.loads((weights.folder(name) / "config.json").read_text(encoding="utf-8"))
