"""E-TSDM as an option of models: whoever calls the network, it is told the left ends of blocks."""

from dataclasses import replace

import pytest
import torch
import transformers_toy as small

from latentbench.cells.identity import identity
from latentbench.cells.parts import Part
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.models.dit import DiT
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.time_nodes import left_ends
from latentbench.models.vae import DiffuseVAE
from latentbench.sampling.loop import generate, invert, noise_to_level, plain, predict
from latentbench.streams import Streams
from latentbench.types import Space

NODES = [0, 250, 500]  # five steps visit 800, 600, 400, 200 and 0
IDS = ("a", "b")


@pytest.fixture(scope="module")
def told(zoo):
    return PixelDiffusion(path=str(zoo / "pixel"), steps=5, time_nodes=NODES)


def test_blocks_may_differ_in_length_and_times_lie_between_whole_numbers():
    t = torch.tensor([0.0, 0.5, 9.99, 10.0, 34.9, 35.0, 35.5])
    assert left_ends(t, [0, 10, 35]).tolist() == [0, 0, 0, 10, 10, 35, 35.5]


def test_the_network_hears_left_ends_and_levels_are_those_of_the_times(told, pixel):
    x, terms = told.prior(Streams(0), IDS).parts[Space.NOISE], plain(told.condition(None, 2))
    grid = pixel.grid(5)
    other = replace(grid, timesteps=torch.tensor([800, 600, 250, 0, 0]))
    assert torch.equal(told.grid(5).timesteps, grid.timesteps)
    assert torch.equal(generate(told, x, terms), generate(pixel, x, terms, grid=other))
    assert not torch.equal(generate(told, x, terms), generate(pixel, x, terms))


def test_inversion_hears_them_too(told, pixel):
    z0, terms = toy.ToyData().batch("test", [0, 1]).images, plain(told.condition(None, 2))
    grid = pixel.grid(5)
    other = replace(grid, timesteps=torch.tensor([800, 600, 250, 0, 0]))
    found = invert(told, z0, terms, convention="next")
    assert torch.equal(found, invert(pixel, z0, terms, grid=other, convention="next"))


def test_inside_a_block_the_network_does_not_depend_on_the_time(told):
    z0, grid = toy.ToyData().batch("test", [0]).images, told.grid(1000)
    terms = plain(told.condition(None, 1))
    x = noise_to_level(grid, z0, torch.randn(z0.shape), 700)
    (_, one), (_, same), (_, next_block) = (
        predict(told, x, grid, 700, terms, t) for t in (260, 499, 249)
    )
    assert torch.equal(one, same) and not torch.equal(one, next_block)


def models(zoo, folder, **given):
    """Yield the other families."""
    path = {name: str(zoo / name) for name in ("latent", "diffae", "diffusevae", "vae")}
    yield LatentDiffusion(path=path["latent"], steps=5, **given)
    yield DiffusionAutoencoder(path=path["diffae"], steps=5, prior_steps=5, **given)
    yield DiffuseVAE(path=path["diffusevae"], vae=path["vae"], steps=5, **given)
    yield DiT(path=small.save_dit(folder, small.DIT_XL_256, {0: "hat"}), steps=5, **given)


def test_every_family_takes_them(zoo, tmp_path):
    given = models(zoo, tmp_path / "a", time_nodes=NODES), models(zoo, tmp_path / "b")
    for told, free in zip(*given, strict=True):
        x = torch.randn(2, *told.latent_shape, generator=torch.Generator().manual_seed(0))
        none = told.condition(None, 2)
        with torch.no_grad():
            found = told.forward(x, torch.tensor([499, 700]), none)
            expected = free.forward(x, torch.tensor([250, 700]), none)
            assert torch.equal(found, expected)
            assert not torch.equal(found[0], free.forward(x, torch.tensor([499, 700]), none)[0])
        assert told.fingerprint() != free.fingerprint()


def test_a_model_without_them_is_what_it_was(pixel):
    assert len(pixel.settings()) == 4


def test_they_enter_a_cells_id_where_there_are_any(zoo):
    def found(**given):
        target = f"{PixelDiffusion.__module__}.{PixelDiffusion.__name__}"
        part = Part(
            "model", PixelDiffusion, {"_target_": target, "path": str(zoo / "pixel"), **given}
        )
        others = {"method.second": part}
        return identity(dict.fromkeys(("benchmark", "method", "model", "dataset"), part), others,
                        {}, 0, "data")["config"]  # fmt: skip

    assert found(time_nodes=None) == found()
    assert "time_nodes" not in found()["model"]
    for config in (found(time_nodes=[0, 50])["model"],
                   found(time_nodes=[0, 50])["others"]["method.second"]):  # fmt: skip
        assert config["time_nodes"] == [0, 50]


@pytest.mark.parametrize("nodes", [[], [0], [10, 20], [0, 20, 20], [0, 40, 20]])
def test_what_are_no_nodes_is_refused(zoo, nodes):
    settings = {"path": str(zoo / "pixel"), "steps": 5, "time_nodes": nodes}
    for refused in (
        lambda: PixelDiffusion.check(settings, None),
        lambda: PixelDiffusion(**settings),
    ):
        with pytest.raises(BadInput, match="are no nodes of blocks"):
            refused()


def test_a_sampler_that_would_not_show_them_is_refused_before_a_weight_is_read(zoo):
    settings = {"path": str(zoo / "pixel"), "steps": 50, "time_nodes": [0, 20, 40, 60, 80, 100]}
    with pytest.raises(BadInput, match=r"of 50 sampling steps, which visit \[80, 60, 40, 20, 0\]"):
        PixelDiffusion.check(settings, None)
    PixelDiffusion.check(settings, 100)  # the method's own number of steps counts
    with pytest.raises(BadInput, match=r"of 10 sampling steps, which visit \[0\] below 100"):
        PixelDiffusion.check(settings, 10)
    settings = {"path": str(zoo / "diffae"), "steps": 100, "prior_steps": 10, "time_nodes": [0, 50]}
    DiffusionAutoencoder.check(settings, None)  # the prior of codes is told every time as it is
