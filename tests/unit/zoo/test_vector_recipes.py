"""Recipes of the models with a vector code: where they start, what they write, the GAN's game."""

from itertools import pairwise

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from latentbench import weights
from latentbench.data import faces, strips
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.models.gan import StyleGAN
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.vae import DiffuseVAE, VariationalAutoencoder
from latentbench.zoo import training
from latentbench.zoo.recipes import (
    faces_diffae,
    faces_diffusevae,
    faces_gan,
    faces_lines,
    faces_strips,
    faces_vae,
    further_ldms,
)
from latentbench.zoo.recipes.cached_faces import FIRST, SIZE, CachedFaces

CPU = torch.device("cpu")
TINY = 1e-6  # share of the steps: two of each plan


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


# ---------------------------------------------------------------- data


def test_cached_faces_are_the_rendered_ones(root):
    data = CachedFaces(root, 40, CPU)
    images = faces.render(faces.sample_factors("generator", torch.arange(FIRST, FIRST + 40)), SIZE)
    assert float((training.from_uint8(data.images) - images).abs().max()) <= 1 / 127.5
    assert 1 <= float(1 + data.weights.float().max() / 85) <= 4
    assert torch.equal(CachedFaces(root, 40, CPU).images, data.images)  # read, not drawn again


def test_an_epoch_shows_every_face_once_in_a_new_order(root):
    data = CachedFaces(root, 40, CPU)
    epochs = [
        [r for step in range(5 * e, 5 * e + 5) for r in data.rows(8, step, 0)] for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(40))
    assert epochs[0] != epochs[1]
    assert data.rows(8, 3, 0) == epochs[0][24:32]  # a function of the step


# ---------------------------------------------------------------- starts


@pytest.fixture(scope="module")
def shipped():
    return UNet2DModel.from_pretrained(weights.folder("faces_ddpm") / "unet").float().eval()


def inputs():
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([400, 900])


def test_a_diffusion_autoencoder_starts_as_the_unconditional_model(shipped):
    (x, t), both = inputs(), faces_diffae.Autoencoder().eval()
    found = both(x, t, torch.randn(2, faces_diffae.CODE))
    torch.testing.assert_close(found, shipped(x, t).sample, rtol=1e-4, atol=1e-4)
    with torch.enable_grad():
        both(x, t, torch.randn(2, faces_diffae.CODE)).square().sum().backward()
    assert float(both.semantic.projection[2].weight.grad.abs().max()) > 0  # the path can open


def test_a_refiner_starts_as_the_unconditional_model(shipped):
    (x, t), unet = inputs(), faces_diffusevae.network().eval()
    found = unet(torch.cat([x, torch.randn_like(x)], 1), t).sample
    torch.testing.assert_close(found, shipped(x, t).sample, rtol=1e-4, atol=1e-4)


def test_codes_are_standardised_exactly(root):
    semantic = faces_diffae.Autoencoder().semantic.eval()
    codes = faces_diffae.standardise(semantic, CachedFaces(root, 40, CPU))
    torch.testing.assert_close(codes.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes.std(0), torch.ones(64), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------- another domain


def test_each_stage_of_the_drawings_has_faces_of_its_own():
    plans = faces_lines.stages()
    ends = [(plan.fresh, plan.fresh + plan.images) for plan in plans]
    assert all(before[1] <= after[0] for before, after in pairwise(ends))
    assert len({plan.seed for plan in plans}) == len({plan.name for plan in plans}) == len(plans)


@pytest.mark.slow
def test_a_model_of_drawings_has_the_levels_of_the_photographs(root, tmp_path):
    told = faces_lines.make(tmp_path, CPU, root, TINY)
    starts = [stage["start"] for stage in told.values()]
    assert starts == ["faces_ddpm", "lines_0", "lines_1"] and told["lines_0"]["steps"] == 2
    shipped = weights.card("faces_lines")["training"]
    assert [shipped[stage]["start"] for stage in told] == starts
    scheduler = (tmp_path / "scheduler" / "scheduler_config.json").read_text()
    own = weights.folder("faces_ddpm") / "scheduler" / "scheduler_config.json"
    assert scheduler == own.read_text()


# ---------------------------------------------------------------- the game


class LinearScore(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.code = nn.Linear(12, 1), nn.Linear(5, 1)

    def forward(self, images, w):
        return self.image(images.flatten(1)) + self.code(w)


def test_the_penalty_of_a_linear_score_is_its_squared_length():
    score = LinearScore()
    with torch.enable_grad():
        penalty = faces_gan.gradient_penalty(score, torch.randn(3, 3, 2, 2), torch.randn(3, 5))
    length = score.image.weight.square().sum() + score.code.weight.square().sum()
    torch.testing.assert_close(penalty, length)


def test_each_side_moves_by_its_own_gradient():
    """The generator's part of the loss leaves no gradient in the discriminator's weights."""
    torch.manual_seed(0)
    game = faces_gan.Game(faces_gan.Generator())
    mapping, synthesis = game.generator.mapping, game.generator.synthesis
    with torch.enable_grad():
        w = mapping(torch.randn(2, faces_gan.CODE))
        made = synthesis(w)
        game.discriminator.held(made, w).sum().backward()
        assert all(p.grad is None for p in game.discriminator.parameters())
        assert float(mapping.layers[0].weight.grad.abs().max()) > 0
        game.zero_grad(set_to_none=True)
        game.discriminator(made.detach(), w.detach()).sum().backward()
    assert all(p.grad is None for p in game.generator.parameters())
    assert float(game.discriminator.head[0].weight.grad.abs().max()) > 0


def test_the_gans_encoder_gives_the_standardised_means_of_the_vae(root):
    data = CachedFaces(root, 40, CPU)
    encoder, codes = faces_gan.standardised_encoder(data)
    torch.testing.assert_close(codes.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes.std(0), torch.ones(64), rtol=1e-4, atol=0)
    images = training.from_uint8(data.images[:8])
    torch.testing.assert_close(encoder(images), codes[:8], rtol=0, atol=1e-3)


# ---------------------------------------------------------------- whole recipes

RECIPES = {
    faces_vae: lambda path: VariationalAutoencoder(path=path),
    faces_gan: lambda path: StyleGAN(path=path),
    faces_diffae: lambda path: DiffusionAutoencoder(path=path, steps=2),
    faces_diffusevae: lambda path: DiffuseVAE(path=path, vae="faces_vae", steps=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.NAME)
def test_a_recipe_writes_half_precision_that_its_model_loads(recipe, root, tmp_path):
    told = recipe.make(tmp_path, CPU, root, TINY, count=40)
    assert all(run["steps"] == 2 and run["split"] == "generator" for run in told.values())
    if recipe in (faces_diffae, faces_diffusevae):  # the card names what training began from
        first = next(iter(told.values()))
        shipped = weights.folder(first["start"]) / "unet" / "diffusion_pytorch_model.safetensors"
        assert first["start_unet_sha256"] == weights.sha256(shipped)
    model = RECIPES[recipe](str(tmp_path))
    images = faces.render(faces.sample_factors("test", torch.arange(2)), SIZE)
    assert model.decode(model.encode(images)).shape == images.shape
    for file in tmp_path.rglob("*.safetensors"):
        with file.open("rb") as opened:
            header = opened.read(int.from_bytes(opened.read(8), "little"))
        assert b'"F16"' in header and b'"F32"' not in header, file


@pytest.mark.slow
def test_the_model_of_crops_goes_on_from_a_shipped_one(root, tmp_path):
    told = faces_strips.make(tmp_path, CPU, root, TINY, count=8)["unet_and_text"]
    start = weights.folder(told["start"])
    unet = start / "unet" / "diffusion_pytorch_model.safetensors"
    assert told["start_unet_sha256"] == weights.sha256(unet) and told["steps"] == 2
    model = LatentDiffusion(path=str(tmp_path), steps=2)
    assert model.latent_shape == (16, 16, 16) and model.image_size == 64
    assert not any("_name_or_path" in path.read_text() for path in tmp_path.rglob("*.json"))
    for file in ("vae", "tokenizer"):
        for own in (start / file).glob("*"):
            if own.suffix == ".safetensors":
                assert (tmp_path / file / own.name).read_bytes() == own.read_bytes()
    data = faces_strips.crops(model.vae, root, 8)
    images = strips.render("generator", torch.arange(4_000_000, 4_000_002), 64)
    latents = model.vae.encode(images).latent_dist.mean
    torch.testing.assert_close(data["latents"][:2], latents, rtol=0, atol=0.1)


@pytest.mark.slow
def test_a_further_ldm_is_a_pipeline_with_its_own_latents(root, tmp_path):
    told = further_ldms.make("faces_ldm_f8", tmp_path, CPU, root, TINY, count=8)
    assert told["unet_and_text"]["steps"] == 2
    model = LatentDiffusion(path=str(tmp_path), steps=2)
    assert model.latent_shape == (4, 8, 8) and model.image_size == 64
    assert further_ldms.DESIGNS["faces_ldm_f4c16"].side == 16
