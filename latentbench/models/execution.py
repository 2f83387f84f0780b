"""How a loaded model computes: where its networks lie, in which layout, by which kernels.

Nothing here changes a figure beyond float rounding; what does (dtype, tiling) is a setting of the
model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from torch import nn

from latentbench.config import Attention, Execution
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel, LatentModel


def apply(execution: Execution, model: LatentModel, device: torch.device) -> LatentModel:
    """Return the model, set up to compute as asked.

    Args:
        execution: the options.
        model: a loaded model; on the CPU where `offload` is on.
        device: where its networks are to run.

    Raises:
        BadInput: an option that this model has no part for.
    """
    if execution.channels_last:
        for network in _networks(model, "channels_last"):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if execution.vae_slicing:
        _slice(model)
    if execution.compile:
        _compile(model)
    if execution.offload:
        _offload(_networks(model, "offload"), device)
        model.device = device
    return model


def as_if_fresh(execution: Execution, part: Any) -> None:
    """Undo what another cell of this process has left in a loaded part, and in torch.

    Args:
        execution: the options.
        part: a model, or a network that aids a method.
    """
    use_attention(execution.attention)
    if isinstance(part, DiffusionModel):
        part.remove_adapters()  # those that another cell's method has learned


def use_attention(kernel: Attention) -> None:
    """Let torch's scaled dot product attention choose among these kernels, from now on.

    Args:
        kernel: "auto" for all of them.
    """
    backends = torch.backends.cuda
    switches = {
        Attention.math: backends.enable_math_sdp,
        Attention.efficient: backends.enable_mem_efficient_sdp,
        Attention.flash: backends.enable_flash_sdp,
        Attention.cudnn: backends.enable_cudnn_sdp,
    }
    for name, switch in switches.items():
        switch(kernel in (Attention.auto, name))


def _networks(model: LatentModel, option: str) -> Sequence[nn.Module]:
    networks = model.networks()
    if not networks:
        raise BadInput(f"runtime.execution.{option} needs a model made of networks, which "
                       f"{type(model).__name__} is not; switch it off")  # fmt: skip
    return networks


def _slice(model: LatentModel) -> None:
    vae: Any = getattr(model, "vae", None)
    if not hasattr(vae, "enable_slicing"):
        raise BadInput(f"runtime.execution.vae_slicing needs an autoencoder that decodes in "
                       f"slices, which {type(model).__name__} has not; switch it off")  # fmt: skip
    vae.enable_slicing()


def _compile(model: Any) -> None:
    if not hasattr(model, "compiled"):
        raise BadInput(f"runtime.execution.compile needs a denoiser from a checkpoint, which "
                       f"{type(model).__name__} is not; switch it off")  # fmt: skip
    model.compiled = True
    model.network.compile()


def _offload(networks: Sequence[nn.Module], device: torch.device) -> None:
    """Let each network lie on the device only from its call to the next one's."""
    hooks = []
    for network in networks:
        previous = hooks[-1] if hooks else None
        hooks.append(cpu_offload_with_hook(network, device, previous)[1])
    if len(hooks) > 1:
        hooks[0].hook.prev_module_hook = hooks[-1]
