"""A denoiser and its encoder, trained together: what the recipes of semantic codes share."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import DDIMScheduler, UNet2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench import weights
from latentbench.models.diffusion_autoencoder import SemanticEncoder
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_ddpm, faces_diffae
from latentbench.zoo.recipes.shipped import shipped_unet, thinned, thinned_state, unet_hash

SAFETENSORS = "diffusion_pytorch_model.safetensors"
WITHOUT_CODE = 0.1  # share of the faces that are shown without their code


class EncodedDenoiser(nn.Module):
    """A U-Net and the encoder whose embedded codes it takes.

    Args:
        unet: takes them as class embeddings.
        semantic: the encoder, with `embed`.
    """

    def __init__(self, unet: UNet2DModel, semantic: Any) -> None:
        super().__init__()
        self.unet, self.semantic = unet, semantic

    def forward(
        self, x: Float[Tensor, "b 3 h w"], t: Tensor, code: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the U-Net's output under a code."""
        return self.unet(x, t, class_labels=self.semantic.embed(code)).sample


def denoising_error(
    both: EncodedDenoiser,
    images: Float[Tensor, "b 3 h w"],
    code: Float[Tensor, "b d"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the mean squared error of v under codes, a share of which is left out."""
    noising, device, rows = faces_ddpm.scheduler(), images.device, len(images)
    noise = torch.randn(images.shape, generator=generator).to(device)
    t = (training.stratified_uniforms(rows, generator) * 1000).long().to(device)
    told = (torch.rand(rows, 1, generator=generator) >= WITHOUT_CODE).to(device)
    predicted = both(noising.add_noise(images, noise, t), t, code * told)
    return (predicted.float() - noising.get_velocity(images, noise, t)).square().mean()


def indices_of_step(plan: training.Plan, step: int, device: torch.device) -> Int[Tensor, " b"]:
    """Return the numbers of one step's faces, in the generators' split; no other step has them."""
    first = plan.fresh + step * plan.batch
    return torch.arange(first, first + plan.batch, device=device)


def start_from_diffae(semantic: Any) -> None:
    """Give a narrower encoder the thinned layers of that of ``faces_diffae``; its code leads.

    What ``faces_diffae`` divides codes by, so that their spread is 1, goes into the last layer.
    """
    folder = weights.folder(faces_diffae.NAME)
    shipped = SemanticEncoder.from_pretrained(folder / "semantic_encoder").float()
    state, head, norm = shipped.encoder.state_dict(), shipped.encoder.head, shipped.normalise
    own = semantic.encoder.state_dict()
    widths = {k: v for k, v in own.items() if not k.startswith("head.")}
    spread = (norm.running_var + norm.eps).sqrt()
    maps = shipped.config.channels[-1], semantic.config.channels[-1]
    weight = head.weight.unflatten(1, (maps[0], -1))  # code, maps, pixels
    weight = thinned(weight, (len(weight), maps[1], weight.shape[2])).flatten(1)
    code = len(weight)
    own["head.weight"][:code] = weight / spread[:, None]
    own["head.bias"][:code] = (head.bias - norm.running_mean) / spread
    semantic.encoder.load_state_dict(own | thinned_state(state, widths))
    path = semantic.projection.state_dict()
    semantic.projection.load_state_dict(thinned_state(shipped.projection.state_dict(), path))


def start_from(name: str, semantic: Any) -> UNet2DModel:
    """Give an encoder the layers of an embedded model's that fit it; returns that model's U-Net."""
    unet = shipped_unet(name)  # which verifies the files
    folder, own = weights.folder(name), semantic.state_dict()
    shipped = safetensors.torch.load_file(folder / "semantic_encoder" / SAFETENSORS)
    fitting = {k: v for k, v in shipped.items() if k in own and v.shape == own[k].shape}
    semantic.load_state_dict(own | fitting)
    return unet


def start_facts(name: str) -> dict[str, str]:
    """Return what a card says of the model that training began with."""
    return {"start": name, "start_unet_sha256": unet_hash(name)}


def save(folder: Path, both: EncodedDenoiser) -> None:
    """Write both networks and the schedule."""
    training.save_half(folder, unet=both.unet, semantic_encoder=both.semantic)
    DDIMScheduler.from_config(faces_ddpm.scheduler().config).save_pretrained(folder / "scheduler")
