"""Small random pipelines of the forms of published checkpoints, loaded as the suite loads those."""

from collections.abc import Mapping
from pathlib import Path

import real_configs
import transformers_toy

from latentbench.conformance import toy, toy_models
from latentbench.model import LatentModel
from latentbench.models.flux import Flux
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.models.transformer_flow import TransformerFlow

FORMS: Mapping[str, type[LatentModel]] = {
    "sd15": LatentDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": TransformerFlow,
    "flux": Flux,
}


def load(form: str, folder: Path, dtype: str = "float32") -> LatentModel:
    """Write a form's pipeline to a folder and load it; FLUX without a guidance of ours."""
    own = {"steps": toy_models.STEPS, "dtype": dtype}
    t5 = {"t5_tokens": toy.TOKENS}
    if form == "sd15":
        path = real_configs.save_sd(folder, "sd15")
        return LatentDiffusion(path=path, guidance=3.0, **own)
    if form == "sdxl":
        path = real_configs.save_sdxl(folder)
        return StableDiffusionXL(path=path, guidance=3.0, **own)
    if form == "sd3":
        path = transformers_toy.save_sd3(folder, transformers_toy.SD35_MEDIUM, t5=True)
        return TransformerFlow(path=path, t5=True, guidance=3.0, **t5, **own)
    config, schedule = transformers_toy.FLUX_DEV, transformers_toy.DEV_SCHEDULE
    path = transformers_toy.save_flux(folder, config, schedule)
    return Flux(path=path, image_size=toy.SIZE, guidance=1.0, **t5, **own)
