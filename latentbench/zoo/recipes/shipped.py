"""Shipped networks from which other recipes start."""

from diffusers import UNet2DModel
from torch import Tensor

from latentbench import weights
from latentbench.models.vae import VectorAutoencoder
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_ddpm, faces_vae


def shipped_unet(**changes: object) -> UNet2DModel:
    """The denoiser of ``faces_ddpm`` with another config; new weights are left as they start."""
    weights.verify(faces_ddpm.NAME)
    shipped = UNet2DModel.from_pretrained(weights.folder(faces_ddpm.NAME) / "unet").float()
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
