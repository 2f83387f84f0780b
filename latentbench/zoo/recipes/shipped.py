"""Shipped networks from which other recipes start."""

from diffusers import UNet2DModel
from torch import Tensor

from latentbench.models.vae import VectorAutoencoder
from latentbench.zoo import training, weights
from latentbench.zoo.recipes import faces_ddpm, faces_vae


def shipped_unet(**changes: object) -> UNet2DModel:
    """The denoiser of ``faces_ddpm`` with another config; new weights are left as they start."""
    weights.verify(faces_ddpm.NAME)
    shipped = UNet2DModel.from_pretrained(weights.folder(faces_ddpm.NAME) / "unet").float()
    unet = UNet2DModel.from_config({**shipped.config, **changes})
    state, kept = unet.state_dict(), shipped.state_dict()
    fitting = {k: v for k, v in kept.items() if v.shape == state[k].shape}
    unet.load_state_dict(state | fitting)
    return training.plain_attention(unet)


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
