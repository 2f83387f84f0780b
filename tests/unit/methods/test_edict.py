"""EDICT."""

import shutil

import pytest
import torch
from diffusers import DDIMScheduler

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.edict import EDICT

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> EDICT:
    editor = EDICT(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.mark.parametrize("settings", [
    {"steps": 5, "depth": 1.0, "guidance": 7.5},
    {"steps": 8, "depth": 0.5, "guidance": 1.0},
    {"steps": 9, "depth": 0.8, "guidance": 3.0, "mix": 0.85},
])  # fmt: skip
def test_inversion_is_exact_whatever_the_network_and_the_scale(latent, settings):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(latent, **settings)
    code = editor.invert(batch)
    torch.testing.assert_close(
        editor.decode(code), latent.decode(latent.encode(batch.images)), rtol=0, atol=1e-5
    )
    assert code.parts[Space.NOISE].shape == (
        2,
        2 * latent.latent_shape[0],
        *latent.latent_shape[1:],
    )


def test_it_is_exact_from_a_level_without_signal(zoo, tmp_path):
    """Zero terminal SNR: x_T is noise alone."""
    folder = tmp_path / "model"
    shutil.copytree(zoo / "pixel_v", folder)
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    model, batch = PixelDiffusion(path=str(folder), steps=5), toy.ToyData().batch("test", range(2))
    assert float(model.grid(5).alpha[0]) == 0
    editor = attached(model, steps=5, depth=1.0, guidance=1.0, mix=0.9)
    found = editor.decode(editor.invert(batch))
    torch.testing.assert_close(found, batch.images, rtol=0, atol=1e-4)


def test_without_mixing_the_first_step_is_that_of_ddim(latent):
    """x' = p x + q eps(y), and y = x."""
    editor = attached(latent, steps=5, depth=0.2, mix=1.0, guidance=2.0)
    x = Streams(0).normal("x", ["0", "1"], latent.latent_shape)
    grid, prompts = latent.grid(5), ("smile", "hat")
    terms = guided(latent.condition(prompts, 2), latent.condition(None, 2), 2.0)
    moved, _ = editor._generated((x.double(), x.double()), grid, 4, terms)
    expected = generate(latent, x, terms, grid=grid, start=4)
    torch.testing.assert_close(moved.float(), expected, rtol=1e-4, atol=1e-5)


def test_the_two_swap_roles_in_every_other_step(latent):
    editor = attached(latent, steps=5, depth=0.4, mix=1.0, guidance=1.0)
    grid, x = latent.grid(5), Streams(0).normal("x", ["0"], latent.latent_shape).double()
    y = x + 0.1
    terms = guided(latent.condition(("hat",), 1), latent.condition(None, 1), 1.0)
    found = editor._generated((x, y), grid, 3, terms)
    for i, first_is_x in ((3, True), (4, False)):
        a, b = (x, y) if first_is_x else (y, x)
        (p, q), told = grid.linear_step(i), editor._direction
        a = p * a + q * told(b, grid, i, terms)
        b = p * b + q * told(a, grid, i, terms)
        x, y = (a, b) if first_is_x else (b, a)
    torch.testing.assert_close(torch.stack(found), torch.stack((x, y)))


def test_the_edit_is_the_sources_at_0_and_moves_with_the_prompt(gaussian):
    batch = Batch(("0", "1"), gaussian.draw((SOURCE,) * 2), (SOURCE,) * 2)
    editor = attached(gaussian, steps=20, depth=1.0, guidance=1.0, mix=0.85)
    edit = Edit("smile", target_prompts=(TARGET,) * 2)
    images = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(images[:, 0], batch.images, rtol=0, atol=1e-4)
    way = gaussian.mean(TARGET) - gaussian.mean(SOURCE)
    gain = (((images - images[:, :1]) * way).sum((-3, -2, -1)) / way.square().sum()).mean(0)
    assert gain.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.05)


def test_the_pair_stays_together(gaussian):
    batch = Batch(("0", "1"), gaussian.draw((SOURCE,) * 2), (SOURCE,) * 2)
    x, y = attached(gaussian, steps=20).invert(batch).parts[Space.NOISE].chunk(2, 1)
    assert 0 < float((x - y).abs().mean()) < 0.1 * float(x.abs().mean())


def test_a_depth_of_less_than_a_step_is_refused(latent):
    with pytest.raises(BadInput, match=r"depth=0.1 is 0 of 5 sampling steps; give 0.2"):
        attached(latent, depth=0.1).check(toy.ToyData(), 5, [1.0])
