"""``faces_soda``: an encoder reads one view of a person, the denoiser draws another, at 32 pixels.

Source: "SODA: Bottleneck Diffusion Models for Representation Learning". Both views are rendered:
the same identity with other attributes, such as pose, light, glasses and age. Each layer of the
U-Net reads a segment of the code of its own (layer modulation), of which some are left out in
training (layer masking), as is the whole code now and then. Both networks start from those of
``faces_infodiffusion``; the code begins with no effect.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.models.soda import SODA, SegmentedEncoder, modulations, own_segment
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes.cached_faces import SIZE
from latentbench.zoo.recipes.code_figures import code_figures
from latentbench.zoo.recipes.encoded_denoiser import (
    EncodedDenoiser,
    denoising_error,
    indices_of_step,
    save,
    start_facts,
    start_from,
)
from latentbench.zoo.recipes.semantic_figures import semantic_figures
from latentbench.zoo.recipes.shipped import NARROW, widened

NAME, START = "faces_soda", "faces_infodiffusion"
VERSION = 1
SEGMENT = 8  # numbers per layer of the U-Net
MASKED = 0.15  # share of the segments that are left out
PLAN = training.Plan(
    name=NAME, steps=500, batch=32, lr=8e-4, flat=0.4, seed=73, ema=0.996, fresh=61_400_000,
    save_every=50,
)  # fmt: skip
MEASURED = 2048  # faces by which codes are standardised


def network() -> EncodedDenoiser:
    """Return denoiser and encoder as they start."""
    semantic = SegmentedEncoder(SIZE, NARROW, segment=SEGMENT)
    start = start_from(START, semantic)
    width = {"time_embedding_dim": semantic.config.embedding}
    unet = UNet2DModel.from_config(dict(start.config) | width)
    own = unet.state_dict()
    unet.load_state_dict({k: widened(v, own[k].shape) for k, v in start.state_dict().items()})
    return EncodedDenoiser(training.plain_attention(unet), semantic)


def hold_segments(unet: UNet2DModel, semantic: SegmentedEncoder) -> None:
    """Keep gradients from the weights by which a layer would read another layer's segment."""
    for number, (_, layer) in enumerate(modulations(unet)):
        own = own_segment(layer, number, semantic.time, semantic.segment).to(layer.weight.device)
        layer.weight.register_hook(lambda gradient, own=own: gradient * own)


def views(index: Tensor) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """Return two photos of each person, whose attributes have nothing to do with each other."""
    factors = faces.identity_variants("generator", index, 2)
    source, target = (faces.render(factors[:, k], SIZE) for k in (0, 1))
    return source, target


def masked(
    code: Float[Tensor, "b d"], segment: int, generator: torch.Generator
) -> Float[Tensor, "b d"]:
    """Return codes some of whose segments are zeros."""
    kept = torch.rand(len(code), code.shape[1] // segment, generator=generator) >= MASKED
    return code * kept.repeat_interleave(segment, 1).to(code.device)


def _loss(both: EncodedDenoiser, plan: training.Plan, device: torch.device) -> training.Loss:
    hold_segments(both.unet, both.semantic)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        source, target = views(indices_of_step(plan, step, device))
        with training.autocast(device):
            code = masked(both.semantic.encode(source).float(), SEGMENT, generator)
            return denoising_error(both, target, code, generator)

    return loss


@torch.no_grad()
def standardise(semantic: SegmentedEncoder, device: torch.device) -> None:
    """Give codes mean 0 and spread 1 over photos of many people, and measure their covariance."""
    index = torch.arange(PLAN.fresh, PLAN.fresh + MEASURED, device=device)
    photos = faces.identity_variants("generator", index, 1)[:, 0]
    raw = torch.cat([semantic.encoder(faces.render(part, SIZE)) for part in photos.split(64)])
    semantic.normalise.running_mean.copy_(raw.mean(0))
    semantic.normalise.running_var.copy_(raw.var(0))
    semantic.root.copy_(root_of(semantic.normalise(raw)))


def root_of(codes: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Return a matrix that gives standard normal vectors the codes' covariance."""
    values, vectors = torch.linalg.eigh(codes.T.cov())
    return vectors * values.clamp(min=0).sqrt()


def make(folder: Path, device: torch.device, root: Path, share: float = 1.0) -> dict[str, object]:
    """Train (or go on training) and write the folder; gives the facts for the card."""
    both, facts = training.fit(
        network, _loss, PLAN, device, device=device, root=root, share=share, count=None
    )
    standardise(both.eval().semantic, device)
    save(folder, both)
    return {"encoder_and_unet": facts | start_facts(START)}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Samples, what z and x_T each hold, and what codes tell, at 50 steps."""
    model = SODA(path=str(folder), steps=50, device=str(device))
    return semantic_figures(model, judges, n) | {"codes": code_figures(model, n)}
