"""Shipped networks from which other recipes start."""

from collections.abc import Mapping, Sequence

import torch
from diffusers import UNet2DModel
from torch import Tensor

from latentbench import weights
from latentbench.models.vae import VectorAutoencoder
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_ddpm, faces_vae

NARROW = (24, 48, 72)  # widths of the models whose start is thinned: 3/4 of (32, 64, 96)
HEAD = 12  # width of their attention heads: 3/4 of 16


def shipped_unet(name: str = faces_ddpm.NAME, **changes: object) -> UNet2DModel:
    """An embedded model's denoiser with another config; new weights are left as they start."""
    weights.verify(name)
    shipped = UNet2DModel.from_pretrained(weights.folder(name) / "unet").float()
    config = {k: v for k, v in shipped.config.items() if k != "_name_or_path"} | changes
    unet = UNet2DModel.from_config(config)
    state, kept = unet.state_dict(), shipped.state_dict()
    fitting = {k: v for k, v in kept.items() if v.shape == state[k].shape}
    unet.load_state_dict(state | fitting)
    return training.plain_attention(unet)


def unet_hash(name: str) -> str:
    """The sha256 of an embedded model's U-Net, for the card of a model that was made from it."""
    return weights.card(name)["sha256"]["unet/diffusion_pytorch_model.safetensors"]


def unet_start() -> dict[str, str]:
    """What a card says of the network that `shipped_unet` gave."""
    return {"start": faces_ddpm.NAME, "start_unet_sha256": unet_hash(faces_ddpm.NAME)}


def shipped_autoencoder() -> VectorAutoencoder:
    """The frozen networks of ``faces_vae``."""
    weights.verify(faces_vae.NAME)
    vae = VectorAutoencoder.from_pretrained(weights.folder(faces_vae.NAME) / "vae")
    return vae.float().eval().requires_grad_(False)


def shipped_means() -> dict[str, Tensor]:
    """State of an `ImageEncoder` that gives the means of ``faces_vae``'s posterior."""
    vae = shipped_autoencoder()
    state = vae.encoder.state_dict()
    return {k: v[: vae.config.code] if k.startswith("head.") else v for k, v in state.items()}


def thinned(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a weight of another shape: of each axis that is shorter, evenly spaced entries.

    If all widths shrink by one share, the entries that are left belong together, in concatenated
    maps, norm groups and attention heads too. What a layer sums over fewer inputs is scaled up.

    Example:
        >>> thinned(torch.ones(4, 8), (2, 4))
        tensor([[2., 2., 2., 2.],
                [2., 2., 2., 2.]])
    """
    for axis, (before, after) in enumerate(zip(weight.shape, shape, strict=True)):
        if after < before:
            kept = weight.index_select(axis, torch.arange(after) * before // after)
            weight = kept * (before / after) if axis == 1 else kept
    return weight


def thinned_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a narrower network of the same layers."""
    return {key: thinned(found[key].float(), value.shape) for key, value in wanted.items()}


def narrow_unet(name: str, **changes: object) -> UNet2DModel:
    """Return an embedded model's denoiser with three quarters of its width, evenly thinned."""
    weights.verify(name)
    shipped = UNet2DModel.from_pretrained(weights.folder(name) / "unet").float()
    own = {"block_out_channels": NARROW, "attention_head_dim": HEAD}
    config = {k: v for k, v in shipped.config.items() if k != "_name_or_path"} | own | changes
    unet = UNet2DModel.from_config(config)
    unet.load_state_dict(thinned_state(shipped.state_dict(), unet.state_dict()))
    return training.plain_attention(unet)


def widened(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a weight of a larger shape: zeros but for the old entries, which come first."""
    wide = torch.zeros(tuple(shape))
    wide[tuple(slice(n) for n in weight.shape)] = weight
    return wide
