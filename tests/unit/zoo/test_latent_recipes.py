"""Recipes that train one network on the latents of faces_ldm: two steps each, then its model."""

import pytest
import torch

from latentbench.models.dit import DiT
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.models.lora import AdaptedDiffusion
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.zoo.recipes import faces_dit, faces_lcm, faces_mmdit, faces_smooth

VAE = "faces_ldm"
MODELS = {
    faces_dit: lambda path: DiT(path=path, vae=VAE, steps=2),
    faces_mmdit: lambda path: TransformerFlow(path=path, vae=VAE, steps=2),
    faces_lcm: lambda path: LatentConsistency(path=VAE, adapter=path, steps=2),
    faces_smooth: lambda path: AdaptedDiffusion(path=VAE, adapter=path, steps=2),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """Folder of the checkpoints, where the latents are cached as well."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", MODELS, ids=lambda r: r.NAME)
def test_a_recipe_writes_what_its_model_loads(recipe, root, tmp_path):
    told = recipe.make(tmp_path, torch.device("cpu"), root, 1e-9, count=34)
    (run,) = told.values()
    assert (run["steps"], run["indices"][1] - run["indices"][0]) == (2, 33)
    assert ("teacher" in run) == (recipe is faces_lcm)
    model = MODELS[recipe](str(tmp_path))
    assert model.latent_shape == (4, 16, 16)
    images = model.decode(torch.zeros(1, *model.latent_shape))
    assert images.shape == (1, 3, 64, 64)
