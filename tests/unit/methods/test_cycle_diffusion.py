"""CycleDiffusion's codes: Gaussian, unlike the edit-friendly ones."""

from dataclasses import replace

import cells
import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.cycle_diffusion import CycleDiffusion, SelectedCycleDiffusion

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, target=None, **settings) -> CycleDiffusion:
    editor = CycleDiffusion(**settings)
    parts = {} if target is None else {"target_model": target}
    editor.attach(model, Streams(0), Cache(None), parts)
    return editor


class Brighter(toy.GaussianModel):
    """The same images on a brighter ground: another domain."""

    def mean(self, prompt):
        return super().mean(prompt) + 0.2


def exact_batch(model, rows: int = 32) -> Batch:
    prompts = (SOURCE,) * rows
    return Batch(tuple(map(str, range(rows))), model.draw(prompts), prompts)


def test_codes_are_standard_normal_on_an_exact_model():
    """std 1 and cosine 0 at eta 1; only the maps next to the clean end deviate."""
    model = toy.GaussianModel(spread=0.02)
    code = attached(model, skip=0.0, eta=1.0).invert(exact_batch(model))
    maps = code.parts[Space.NOISE_MAPS]
    assert float(code.parts[Space.NOISE].std()) == pytest.approx(1, abs=0.03)
    assert maps[:, :-3].std((0, 2, 3, 4)).tolist() == pytest.approx([1.0] * 47, abs=0.03)
    rows = maps[:, :-3].flatten(2)
    cosines = torch.cosine_similarity(rows[:, :-1], rows[:, 1:], dim=2).mean(0)
    assert float(cosines.abs().max()) < 0.06 and abs(float(cosines.mean())) < 0.01


def test_a_small_eta_amplifies_the_models_error_at_the_clean_end():
    model = toy.GaussianModel(spread=0.02)
    batch = exact_batch(model)
    one, tenth = (
        attached(model, skip=0.0, eta=eta).invert(batch).parts[Space.NOISE_MAPS].std((0, 2, 3, 4))
        for eta in (1.0, 0.1)
    )
    assert tenth[:30].tolist() == pytest.approx([1.0] * 30, abs=0.05)
    assert float(tenth[-2]) > 3 * float(one[-2])


def test_a_wrong_model_shows_as_a_std_away_from_1():
    """Seen where noise is little: the right mean, and a model that expects another."""
    model = toy.GaussianModel(spread=0.02)
    right = exact_batch(model)
    wrong = Batch(right.ids, right.images, ("",) * len(right))
    stds = [
        float(attached(model, skip=0.0, eta=1.0).invert(b).parts[Space.NOISE_MAPS][:, 47].std())
        for b in (right, wrong)
    ]
    assert abs(stds[0] - 1) < 0.05 and stds[1] > 1.5


def test_levels_are_a_chain_with_the_right_marginals(gaussian):
    batch = exact_batch(gaussian)
    editor, grid = attached(gaussian, eta=0.5), gaussian.grid()
    x = editor.draw_levels(grid, batch.images, batch, 5)
    assert x.shape[1] == 46 and torch.equal(x[:, -1], batch.images)
    alpha, sigma = grid.levels(torch.arange(5, 50), batch.images)
    n = ((x[:, :-1] - alpha * batch.images[:, None]) / sigma).flatten(2)
    assert n.std((0, 2)).tolist() == pytest.approx([1.0] * 45, abs=0.03)
    cosines = torch.cosine_similarity(n[:, :-1], n[:, 1:], dim=2).mean(0)
    assert float(cosines[:30].min()) > 0.5  # a chain, not independent draws


def test_the_edit_moves_towards_the_target(gaussian):
    batch = exact_batch(gaussian, 4)
    edit = Edit("smile", target_prompts=(TARGET,) * 4)
    editor = attached(gaussian, skip=0.0, guidance_target=1.0, eta=1.0)
    images = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    way = gaussian.mean(TARGET) - gaussian.mean(SOURCE)
    moved = ((images - batch.images[:, None]) * way).sum((-3, -2, -1)) / way.square().sum()
    assert moved.mean(0).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.01)


# ---------------------------------------------------------------- between two models


def test_the_same_model_twice_gives_the_images_back(gaussian):
    batch = exact_batch(gaussian, 3)
    editor = attached(gaussian, toy.GaussianModel("v_prediction"), guidance_target=1.0)
    images = editor.edit(batch, Edit("domain"), torch.tensor([0.0, 0.4, 1.0]))
    torch.testing.assert_close(images, batch.images[:, None].expand_as(images), rtol=0, atol=2e-4)


def test_another_model_decodes_what_the_first_has_encoded(gaussian):
    batch = exact_batch(gaussian, 3)
    editor = attached(gaussian, Brighter(), skip=0.0, eta=1.0, guidance_target=1.0)
    images = editor.edit(batch, Edit("domain"), torch.tensor([0.0, 0.5, 1.0]))
    moved = images - batch.images[:, None]
    assert torch.equal(images[:, 0], batch.images)
    assert moved[:, 2].mean() == pytest.approx(0.2, abs=0.005)
    assert 0.0 < float(moved[:, 1].mean()) < float(moved[:, 2].mean())
    assert float(moved[:, 2].std()) < 0.01  # the image is kept


def test_both_models_share_levels_and_latents(gaussian):
    class Wider(toy.GaussianModel):
        latent_shape = (3, 9, 9)

    class Noisier(toy.GaussianModel):
        def grid(self, steps=None):
            grid = super().grid(steps)
            return replace(grid, alpha=0.9 * grid.alpha)

    batch = exact_batch(gaussian, 1)
    for target, words in ((Wider(), "one latent space"), (Noisier(), "one schedule")):
        with pytest.raises(Incompatible, match=words):
            attached(gaussian, target).edit(batch, Edit("domain"), torch.tensor([1.0]))


def test_a_target_model_makes_at_least_one_step_and_at_most_all(gaussian):
    with pytest.raises(BadInput, match="give 1 or less"):
        CycleDiffusion(target_model="faces_ddpm", max_strength=2.0)
    editor, batch = attached(gaussian, Brighter()), exact_batch(gaussian, 1)
    for strength in (0.01, 1.5):
        with pytest.raises(BadInput, match="of 35 steps"):
            editor.edit(batch, Edit("domain"), torch.tensor([strength]))


def test_both_models_are_part_of_the_cell_and_metered(tmp_path, monkeypatch):
    rows, forward = {}, toy.GaussianModel.forward

    def counted(self, x, *others):
        rows[self.bright] = rows.get(self.bright, 0) + len(x)
        return forward(self, x, *others)

    monkeypatch.setattr(toy.GaussianModel, "forward", counted)
    ask = ["method=cycle_diffusion", "model=acme_planted", "benchmark=acme_half", "benchmark.n=4"]
    record, _ = cells.run(tmp_path, *ask, "method.target_model=acme_bright")
    assert record.status is Status.OK, record.reason
    named = record.config["others"]["method.target_model"]
    assert named == {"_target_": "acme.denoisers.Planted", "bright": 0.2}
    inverted = 3 * 8  # steps x images: the first model's part, the runner's own check left out
    assert record.evaluations["run"]["forward"] == inverted + rows[0.2]


def test_a_target_model_without_noise_maps_is_told_before_anything_is_loaded(tmp_path):
    ask = ["method=cycle_diffusion", "method.target_model=acme", "benchmark=acme_half"]
    record, _ = cells.run(tmp_path, *ask, "model=acme_planted")
    assert record.status is Status.SKIPPED
    assert "target_model=acme (Waves) lacks the space noise_maps" in record.reason


# ---------------------------------------------------------------- the best of several codes


def selected(model, trials) -> SelectedCycleDiffusion:
    editor = SelectedCycleDiffusion(trials=trials, eta=1.0, skip=0.0)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    return editor


@pytest.mark.slow
def test_one_code_is_cyclediffusion_and_more_fit_no_worse(latent):
    batch = toy.ToyData().batch("test", range(3))
    edit = Edit("hat", target_prompts=("a face with hat glasses",) * 3)
    strengths = torch.tensor([0.0, 1.0])
    plain = attached(latent, eta=1.0, skip=0.0).edit(batch, edit, strengths)
    fits = []
    for trials in (1, 2, 5):
        editor = selected(latent, trials)
        found = editor.edit(batch, edit, strengths)
        assert torch.equal(found[:, 0], plain[:, 0])
        assert trials > 1 or torch.equal(found, plain)
        fits.append(editor.fit_of(found, batch, edit)[:, 1])
    assert bool((fits[0] <= fits[1]).all()) and bool((fits[1] <= fits[2]).all())
    assert bool((fits[0] < fits[2]).any())
