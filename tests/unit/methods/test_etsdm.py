"""E-TSDM: the network is told a block of early times at once, and tuned for it."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.sampling.loop import denoise, generate, noise_to_level, plain
from latentbench.streams import Streams
from methods.generation.etsdm import EarlyTimeShared, shared, time_sensitivity

DATA, IDS = toy.ToyData(), ("a", "b")


def attached(model, fitting=None, **settings):
    editor = EarlyTimeShared(**{**EarlyTimeShared.small, **settings})
    editor.attach(model, Streams(0), Cache(None), fitting=fitting)
    return editor


def fitted(model, **more):
    editor = attached(model, **more)
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


def test_times_of_a_block_are_told_as_its_left_end_and_levels_stay(pixel):
    grid = pixel.grid(1000)
    told = shared(grid, 100, 5)
    assert torch.equal(told.alpha, grid.alpha) and torch.equal(told.sigma, grid.sigma)
    assert sorted(set(told.timesteps[-100:].tolist())) == [0, 20, 40, 60, 80]
    assert torch.equal(told.timesteps[:-100], grid.timesteps[:-100])
    assert (told.timesteps <= grid.timesteps).all()
    third = shared(grid, 100, 3).timesteps[-100:].unique()
    assert third.tolist() == [0, 33, 66]
    assert shared(grid, 100, 0) is grid


def test_it_samples_with_the_models_levels_and_acts_early_alone(pixel):
    editor = fitted(pixel, iterations=3, learning_rate=0.1)
    x = pixel.prior(Streams(0), IDS).parts["noise"]
    told, grid = shared(pixel.grid(5), 500, 2), pixel.grid(5)
    assert told.timesteps.tolist() == [800, 600, 250, 0, 0]
    late = generate(pixel, x, plain(pixel.condition(None, 2)), grid=grid, stop=2)
    rest = generate(
        pixel, late, plain(pixel.condition(None, 2)), grid=told, start=2,
        interventions=[editor._early(editor.state())],
    )  # fmt: skip
    found = editor.generate(IDS, None)
    assert torch.equal(found, pixel.decode(rest))
    bare = generate(pixel, late, plain(pixel.condition(None, 2)), grid=told, start=2)
    assert float((found - pixel.decode(bare)).abs().max()) > 1e-3  # what was tuned counts


def test_the_control_is_the_model_where_nothing_is_tuned(pixel):
    editor = attached(pixel, blocks=0)
    editor.load_state(editor._first())
    x = pixel.prior(Streams(0), IDS).parts["noise"]
    plainly = generate(pixel, x, plain(pixel.condition(None, 2)), grid=pixel.grid(5))
    assert torch.equal(editor.generate(IDS, None), pixel.decode(plainly))
    told = attached(pixel)
    told.load_state(told._first())
    assert float((told.generate(IDS, None) - pixel.decode(plainly)).abs().max()) > 1e-4


def test_sensitivity_is_nothing_inside_a_block_and_finite_at_its_border(pixel):
    z0 = DATA.batch("test", [0, 1]).images
    eps = Streams(0).normal("noise", IDS, z0.shape[1:])
    grid, terms, levels = pixel.grid(1000), plain(pixel.condition(None, 2)), [999, 990, 979, 950]
    assert grid.timesteps[levels].tolist() == [0, 9, 20, 49]
    free = time_sensitivity(pixel, grid, z0, eps, terms, levels)
    told = time_sensitivity(pixel, shared(grid, 100, 5), z0, eps, terms, [999, 990, 980, 950])
    assert free.shape == (4, 2) and bool((free > 0).all())
    assert told[[0, 1, 3]].abs().max() == 0  # within blocks
    assert bool((told[2] > free[2]).all())  # from 19 to 20: what a whole block changes
    by_hand = denoise(pixel, noise_to_level(grid, z0, eps, 990), terms, grid=grid, level=990)[1]
    assert by_hand.isfinite().all()


def test_a_killed_fit_goes_on_where_it_stopped(pixel, tmp_path):
    class Killed(Exception):
        pass

    def stop(step, count):
        if step == 2:
            raise Killed

    whole = fitted(pixel, iterations=3).state()
    with pytest.raises(Killed):
        fitted(pixel, iterations=3, fitting=Fitting(tmp_path, seconds=0, report=stop))
    steps = []
    report = lambda step, count: steps.append(step)  # noqa: E731
    again = fitted(pixel, iterations=3, fitting=Fitting(tmp_path, seconds=0, report=report))
    assert steps == [2, 3]
    assert all(torch.equal(again.state()[k], v) for k, v in whole.items())


@pytest.mark.slow
def test_tuning_lowers_the_error_at_shared_times(pixel):
    def error(editor):
        grid, z0 = shared(pixel.grid(1000), 500, 2), DATA.batch("test", range(8)).images
        found = []
        for level in range(505, 1000, 45):
            names = [f"{level}/{k}" for k in range(8)]
            eps = Streams(1).normal("noise", names, z0.shape[1:])
            _, said = denoise(
                pixel, noise_to_level(grid, z0, eps, level), plain(pixel.condition(None, 8)),
                grid=grid, level=level, interventions=[editor._early(editor.state())],
            )  # fmt: skip
            found.append((said - eps).square().mean())
        return float(torch.stack(found).mean())

    start = attached(pixel)
    start.load_state(start._first())
    assert error(
        fitted(pixel, iterations=60, batch=4, images=32, learning_rate=0.01)
    ) < 0.95 * error(start)


def test_what_would_not_show_is_refused(pixel):
    with pytest.raises(BadInput, match=r"50 steps visit the times .80, 60, 40, 20, 0. below 100"):
        fitted(pixel, below=100.0, blocks=5, steps=50)
    with pytest.raises(BadInput, match="below=2000 is not within this model's times, 0 to 800"):
        fitted(pixel, below=2000.0)
    with pytest.raises(BadInput, match="call fit"):
        attached(pixel).generate(IDS, None)
    with pytest.raises(BadInput, match="a batch of 16 is more than the 4 images"):
        EarlyTimeShared(images=4)


def test_a_model_without_early_times_is_refused(pixel, monkeypatch):
    grid = pixel.grid

    def later(steps=None):  # by a quarter of a step, so that no time is 0
        return replace(grid(steps), timesteps=grid(steps).timesteps + 250 // (steps or 5))

    monkeypatch.setattr(pixel, "grid", later)
    with pytest.raises(BadInput, match=r"none of the 5 steps starts below method\.below=40"):
        fitted(pixel, below=40.0, blocks=0)
    with pytest.raises(BadInput, match=r"none of method\.levels=2 noise levels is below"):
        fitted(pixel, below=100.0, blocks=0, levels=2)
