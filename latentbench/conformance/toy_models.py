"""The toy models as loaded models, made in a temporary folder on first use."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from latentbench.conformance import toy
from latentbench.model import LatentModel
from latentbench.models.causal_diffusion import CausalDiffusion
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.models.gan import StyleGAN
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.vae import VariationalAutoencoder

STEPS = 5
CLASSES: Mapping[str, type[LatentModel]] = {
    "pixel": PixelDiffusion,
    "lcm": LatentConsistency,
    "latent": LatentDiffusion,
    "vae": VariationalAutoencoder,
    "gan": StyleGAN,
    "diffae": DiffusionAutoencoder,
    "causal": CausalDiffusion,
}


def save(folder: Path) -> None:
    """Write all toy checkpoints below a folder."""
    toy.save_pixel(folder / "pixel")
    toy.save_latent(folder / "latent", "v_prediction")
    toy.save_vae(folder / "vae")
    toy.save_gan(folder / "gan")
    toy.save_diffae(folder / "diffae")
    toy.save_causal(folder / "causal")


def load(name: str, folder: Path) -> LatentModel:
    """Return a toy model from its checkpoint."""
    makers: dict[str, Callable[[], LatentModel]] = {
        "pixel": lambda: PixelDiffusion(path=str(folder / "pixel"), steps=STEPS),
        "lcm": lambda: LatentConsistency(path=str(folder / "latent"), steps=4),
        "latent": lambda: LatentDiffusion(path=str(folder / "latent"), steps=STEPS, guidance=3.0),
        "vae": lambda: VariationalAutoencoder(path=str(folder / "vae")),
        "gan": lambda: StyleGAN(path=str(folder / "gan")),
        "diffae": lambda: DiffusionAutoencoder(
            path=str(folder / "diffae"), steps=STEPS, prior_steps=STEPS
        ),
        "causal": lambda: CausalDiffusion(path=str(folder / "causal"), steps=STEPS),
    }
    return makers[name]()


@functools.cache
def model(name: str) -> LatentModel:
    """Return a toy model; it is shared, so leave it as it was."""
    return load(name, _folder())


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="latentbench-toys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save(folder)
    return folder
