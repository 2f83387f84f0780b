"""Latents of faces under the autoencoder of ``faces_ldm``: what further latent models train on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from latentbench import store, weights
from latentbench.data import faces
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import generate, guided
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_ldm

FIRST, COUNT = 2_000_000, 24_576
SIZE = faces_ldm.SIZE


@dataclass(frozen=True)
class FaceLatents:
    """Faces of the generators' split.

    Args:
        latents: scaled means of the autoencoder's posterior.
        weights: weight of each latent pixel in a loss; 4 on eyes, nose, mouth and glasses.
        factors: factors of the faces.
    """

    latents: Float[Tensor, "n 4 16 16"]
    weights: Float[Tensor, "n 1 16 16"]
    factors: Float[Tensor, "n f"]


def autoencoder() -> AutoencoderKL:
    """Return the shipped autoencoder of ``faces_ldm``."""
    return AutoencoderKL.from_pretrained(weights.folder(faces_ldm.NAME), subfolder="vae").eval()


@torch.no_grad()
def load(root: Path, device: torch.device, count: int = COUNT) -> FaceLatents:
    """Return the latents, made once and then read from the folder of the checkpoints."""
    path = root / "face_latents" / f"{count}.safetensors"
    if not path.is_file():
        factors = faces.sample_factors("generator", torch.arange(FIRST, FIRST + count))
        vae = autoencoder().to(device)
        means, detail = faces_ldm.encode_faces(vae, factors.to(device))
        made = {"latents": means * vae.config.scaling_factor, "weights": detail, "factors": factors}
        made = {key: value.cpu().contiguous() for key, value in made.items()}
        store.write(path, safetensors.torch.save(made))
    return FaceLatents(**{k: v.to(device) for k, v in safetensors.torch.load_file(path).items()})


def recipe(
    part: str,
    network: Callable[[], training.Network],
    loss: Callable[[training.Network, training.Plan, FaceLatents], training.Loss],
    plan: training.Plan,
    save: Callable[[Path, training.Network], object],
    origin: Callable[[], dict[str, object]] = dict,
) -> Callable[..., dict[str, object]]:
    """Return the `make` of a model that is one network, trained on the latents.

    Args:
        part: What the card calls the run.
        network: Makes it.
        loss: ``loss(network, plan, data)`` gives the loss of its steps.
        plan: The whole plan.
        save: Writes the folder.
        origin: Gives further facts for the card: what the network began from.
    """

    def make(
        folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
    ) -> dict[str, object]:
        """Train (or go on training) and write the folder; gives the facts for the card.

        Args:
            folder: Where the model goes.
            device: Where to train.
            root: Folder of the checkpoints.
            share: Factor on the steps.
            count: Number of faces whose latents are cached.
        """
        data = load(root, device, count)
        module, facts = training.fit(
            network, loss, plan, data, device=device, root=root, share=share, count=count
        )
        save(folder, module)
        return {part: facts | origin()}

    return make


@torch.no_grad()
def sample(
    model: DiffusionModel,
    captions: Sequence[str],
    *,
    guidance: float,
    steps: int = 50,
    seed: int = 0,
    batch: int = 32,
) -> Float[Tensor, "n 3 64 64"]:
    """Return deterministic samples of the suite's own loop, in [-1, 1]; guidance 1 is none."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(captions), *model.latent_shape, generator=generator)
    out = []
    for first in range(0, len(captions), batch):
        prompts = list(captions[first : first + batch])
        rows = len(prompts)
        terms = guided(model.condition(prompts, rows), model.condition(None, rows), guidance)
        x = noise[first : first + rows].to(model.device)
        with training.autocast(model.device):
            images = model.decode(generate(model, x, terms, grid=model.grid(steps)))
        out.append(images.float().clamp(-1, 1).cpu())
    return torch.cat(out)


def write_index(folder: Path, pipeline: str, **parts: str | None) -> None:
    """Write a pipeline's index; its autoencoder is passed to `from_pretrained`, not stored twice.

    Args:
        folder: Where the model is.
        pipeline: Class of diffusers.
        parts: Component -> its class, or None where the pipeline may do without.
    """
    index: dict[str, object] = {"_class_name": pipeline, "vae": ["diffusers", "AutoencoderKL"]}
    for name, cls in parts.items():
        library = None if cls is None else "transformers" if cls.startswith("CLIP") else "diffusers"
        index[name] = [library, cls]
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")
