"""RF inversion."""

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.editing.rf_inversion import RFInversion
from methods.inversion.ddim_inversion import DDIMInversion

SOURCE, TARGET = "a face with hat", "a face with smile"


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=4, guidance=3.0)


def attached(model, cls=RFInversion, **settings):
    editor = cls(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model, rows=2) -> Batch:
    if isinstance(model, toy.GaussianModel):
        prompts = (SOURCE,) * rows
        return Batch(tuple(map(str, range(rows))), model.draw(prompts), prompts)
    return toy.ToyData().batch("test", range(rows))


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("name", ["latent", "flow"])
def test_a_whole_pull_in_all_steps_returns_the_image(name, request):
    model = request.getfixturevalue(name)
    batch = batch_of(model)
    editor = attached(model, eta=1.0, window_stop=1.0)
    found = editor.edit(batch, Edit("x", target_prompts=("smile", "hat")), torch.tensor([0.0, 1.0]))
    expected = model.decode(model.encode(batch.images))
    for k in range(2):
        close(found[:, k], expected)


def test_without_pulls_it_is_plain_inversion(latent):
    batch, edit = batch_of(latent), Edit("x", target_prompts=("smile", "hat"))
    ours = attached(latent, gamma=0.0, eta=0.0, guidance=3.0)
    theirs = attached(latent, DDIMInversion, inversion_prompt="")
    strengths = torch.tensor([0.0, 1.0])
    close(ours.edit(batch, edit, strengths), theirs.edit(batch, edit, strengths), 1e-3)


def test_steps_are_the_papers(flow):
    """Equations 8 and 15 as Euler steps in t, on one grid."""
    batch, gamma, eta = batch_of(flow), 0.5, 0.9
    editor = attached(flow, gamma=gamma, eta=eta, window_stop=0.5, guidance=1.0)
    code, grid = editor.invert(batch), flow.grid()
    z_0, empty = flow.encode(batch.images), plain(flow.condition(None, 2))
    y_1 = Streams(0).normal("rf_inversion", batch.ids, flow.latent_shape)
    t = [*grid.sigma.tolist()]
    y = z_0
    for i in reversed(range(4)):
        told = grid.timesteps[i + 1].item() if i < 3 else 0
        x0, eps = predict(flow, y, grid, i + 1, empty, told)
        pulled = (1 - gamma) * (eps - x0) + gamma * (y_1 - y) / (1 - t[i + 1])
        y = y + (t[i] - t[i + 1]) * pulled
    close(code.parts[Space.NOISE], y, 1e-3)
    x, target = code.parts[Space.NOISE], plain(flow.condition(("smile", "hat"), 2))
    for i in range(4):
        x0, eps = predict(flow, x, grid, i, target)
        pull = eta if i < 2 else 0.0
        x = x + (t[i] - t[i + 1]) * (pull * (z_0 - x) / t[i] - (1 - pull) * (eps - x0))
    found = editor.edit(batch, Edit("x", target_prompts=("smile", "hat")), torch.ones(1))[:, 0]
    close(found, flow.decode(x), 1e-3)


def test_the_code_is_more_typical_the_stronger_the_pull(gaussian):
    batch = batch_of(gaussian, 16)
    spreads = [
        float(attached(gaussian, gamma=gamma).invert(batch).parts[Space.NOISE].std())
        for gamma in (0.0, 0.5, 1.0)
    ]
    gaps = [abs(spread - 1) for spread in spreads]
    assert gaps[2] < 0.05 and gaps[1] < gaps[0]


def test_a_longer_window_lowers_gain_and_error(gaussian):
    batch = batch_of(gaussian, 16)
    way, edit = (
        gaussian.mean(TARGET) - gaussian.mean(SOURCE),
        Edit("x", target_prompts=(TARGET,) * 16),
    )
    gains, errors = [], []
    for stop in (0.25, 0.5, 0.75):
        images = attached(gaussian, window_stop=stop, guidance=1.0).edit(batch, edit, torch.ones(1))
        moved = images[:, 0] - batch.images
        gain = (moved * way).sum((1, 2, 3)) / way.square().sum()
        gains.append(float(gain.mean()))
        errors.append(float((moved - gain[:, None, None, None] * way).abs().mean()))
    assert gains[0] > gains[1] > gains[2] > 0
    assert errors[0] > errors[1] > errors[2]


def test_windows_that_hold_no_step_are_refused():
    with pytest.raises(BadInput, match=r"window_stop=0.2 is before window_start=0.5"):
        RFInversion(window_start=0.5, window_stop=0.2)
    with pytest.raises(BadInput, match="holds none of 3 sampling steps"):
        RFInversion().check(toy.ToyData(), 3, [1.0])
    RFInversion(eta=0.0).check(toy.ToyData(), 3, [1.0])
