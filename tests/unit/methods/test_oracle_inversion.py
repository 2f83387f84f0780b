"""Inversion that knows the sampler's own trajectory."""

from dataclasses import replace

import pytest
import torch

from benchmarks.noise_recovery import NoiseRecovery
from benchmarks.reconstruction import Reconstruction
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Recorder, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Space
from methods.inversion.ddim_inversion import DDIMInversion
from methods.inversion.oracle_inversion import OracleInversion


class Straight(toy.GaussianModel):
    """The exact denoiser on the levels of a flow: alpha = 1 - t, sigma = t."""

    def __init__(self, steps: int):
        super().__init__("flow", steps)

    def grid(self, steps=None):
        t = torch.linspace(1, 0, (steps or self.steps) + 1).double()
        return Grid(t[:-1], 1 - t, t)

    def forward(self, x, timesteps, condition, taps=None):
        t = timesteps.double().reshape(-1, 1, 1, 1)
        gap = x.double() - (1 - t) * condition.tensors["mean"].double()
        variance = (1 - t.flatten(1)) ** 2 * self.values + t.flatten(1) ** 2
        eps = t * self._scale(gap, 1 / variance)
        x0 = condition.tensors["mean"].double() + (1 - t) * self._scale(gap, self.values / variance)
        return (eps - x0).to(x.dtype)


MODELS = {"epsilon": lambda n: toy.GaussianModel(steps=n), "flow": Straight}
every_model = pytest.mark.parametrize("kind", MODELS)
every_oracle = pytest.mark.parametrize("oracle", ["prediction", "latent"])


def attached(model, cls=OracleInversion, **settings):
    editor = cls(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def samples_of(model, rows: int = 8) -> Batch:
    data = toy.ToyData(model.image_size)
    return toy.sampled(model, data.batch("test", range(rows)))


def noise_of(batch: Batch) -> torch.Tensor:
    assert batch.trajectory is not None
    return batch.trajectory[:, 0]


def error(model, batch, **settings) -> float:
    found = attached(model, **settings).invert(batch).parts[Space.NOISE]
    return float((found - noise_of(batch)).square().mean().sqrt())


@every_model
@every_oracle
def test_an_oracle_of_all_steps_finds_the_noise_exactly(kind, oracle):
    """On samples inside the range of images, of which clipping takes nothing."""
    model = MODELS[kind](20)
    batch = samples_of(model)
    assert torch.equal(batch.images, batch.trajectory[:, -1])
    code = attached(model, oracle=oracle, oracle_steps=None).invert(batch)
    assert torch.equal(code.parts[Space.NOISE], noise_of(batch))
    assert torch.equal(code.trajectory, batch.trajectory)
    assert error(model, batch, oracle=oracle, oracle_steps=0) > 1e-2


@every_model
def test_the_oracle_s_step_is_the_inversion_s_with_the_sampler_s_prediction(kind):
    """Equations 2 and 3, from a latent that has left the trajectory."""
    model = MODELS[kind](20)
    batch, grid = samples_of(model), model.grid()
    recorder = Recorder(predictions=True)
    condition = model.condition(batch.prompts, len(batch))
    generate(model, noise_of(batch), plain(condition), interventions=[recorder])
    settings = {"oracle_from": 4, "oracle_steps": 3}
    found = attached(model, **settings).invert(batch).trajectory
    y = found[:, 16]
    assert float((y - batch.trajectory[:, 16]).abs().max()) > 1e-3
    for i in (15, 14, 13):
        p, q = grid.linear_step(i)
        y = (y - q * grid.linear_direction(i, recorder.x0[i], recorder.eps[i])) / p
        torch.testing.assert_close(found[:, i], y, rtol=1e-5, atol=1e-5)


@every_model
def test_what_is_missed_before_is_carried_by_predictions_and_undone_by_latents(kind):
    model = MODELS[kind](20)
    batch = samples_of(model)
    settings = {"oracle_from": 2, "oracle_steps": None}
    assert error(model, batch, oracle="latent", **settings) == 0
    assert error(model, batch, oracle="prediction", **settings) > 1e-3


@pytest.mark.parametrize("convention", ["matched", "next"])
def test_the_error_falls_with_the_oracle_s_steps(convention):
    model = toy.GaussianModel(steps=20)
    batch = samples_of(model)
    errors = [
        error(model, batch, convention=convention, oracle_steps=k) for k in (0, 1, 2, 5, 10, 20)
    ]
    assert errors == sorted(errors, reverse=True) and errors[0] > 5 * errors[-2]


def test_the_second_and_third_step_are_what_an_oracle_of_the_first_steps_mends():
    """One step alone hardly helps; and what all of them miss by is small until it is read."""
    model = toy.GaussianModel(steps=20)
    batch = samples_of(model)
    none, one, three = (error(model, batch, oracle_steps=k) for k in (0, 1, 3))
    assert one > 0.95 * none and three < 0.2 * none
    assert error(model, batch, oracle_from=3, oracle_steps=None) < 0.05 * none


@pytest.mark.parametrize(("name", "convention"), [("pixel", "matched"), ("latent", "next")])
def test_without_an_oracle_it_is_ddim_inversion_to_the_byte(name, convention, request):
    model = request.getfixturevalue(name)
    batch = samples_of(model, 2)
    own = attached(model, convention=convention, oracle_steps=0)
    theirs = attached(model, DDIMInversion, convention=convention)
    code, other = own.invert(batch), theirs.invert(batch)
    assert torch.equal(code.parts[Space.NOISE], other.parts[Space.NOISE])
    assert torch.equal(code.trajectory, other.trajectory)
    assert torch.equal(own.decode(code), theirs.decode(other))
    untold = theirs.invert(replace(batch, trajectory=None))
    assert torch.equal(untold.parts[Space.NOISE], other.parts[Space.NOISE])
    assert untold.trajectory is None


def test_an_oracle_s_steps_cost_no_evaluations(pixel):
    batch = samples_of(pixel, 2)
    before = pixel.evaluations.forward
    attached(pixel, oracle_from=1, oracle_steps=3).invert(batch)
    assert pixel.evaluations.forward - before == 2 * (5 - 3)


def test_it_says_what_it_needs():
    model = toy.GaussianModel(steps=20)
    batch = samples_of(model)
    for trajectory in (None, batch.trajectory[:, 1:]):
        with pytest.raises(BadInput, match=r"trajectory of 21 levels .* got (none|one of 20)"):
            attached(model).invert(replace(batch, trajectory=trajectory))


@pytest.mark.parametrize("window", [{"oracle_steps": 6}, {"oracle_from": 3}, {"oracle_from": 6}])
def test_more_steps_than_there_are_are_refused(window):
    with pytest.raises(BadInput, match="reach beyond the 5 sampling steps"):
        OracleInversion(**window).check(toy.ToyData(), 5, [])
    OracleInversion(oracle_from=2).check(toy.ToyData(), 5, [])


def test_benchmarks_whose_images_have_no_trajectory_are_refused_before_work():
    def reason(benchmark):
        return Parts(OracleInversion, {}, PixelDiffusion, toy.ToyData(), benchmark).misfit()

    assert "OracleInversion needs trajectory" in str(reason(Reconstruction()))
    assert reason(NoiseRecovery()) is None
