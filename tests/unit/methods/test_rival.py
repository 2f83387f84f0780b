"""RIVAL: variation and edits beside a real image's inversion chain."""

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.models.flux import Flux
from latentbench.sampling.loop import Step, generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.rival import MatchedStatistics, Reference, Rival
from methods.inversion.ddim_inversion import DDIMInversion

SOURCES, TARGETS = ("a face with hat", "a face"), ("a face with smile", "a face with glasses")
ONE = torch.ones(1)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    path = small.save_flux(tmp_path_factory.mktemp("flux"), small.FLUX_DEV, small.DEV_SCHEDULE)
    return Flux(path=path, steps=3, image_size=16, guidance=1.0)


def attached(model, cls=Rival, **settings):
    editor = cls(**{"steps": 3} | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model) -> Batch:
    return Batch(("0", "1"), toy.ToyData(model.image_size).batch("test", [0, 1]).images, SOURCES)


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("name", ["latent", pytest.param("flux", marks=pytest.mark.slow)])
def test_strength_0_is_the_reference_and_1_is_another_image(name, request):
    model = request.getfixturevalue(name)
    editor, batch, edit = attached(model), batch_of(model), Edit("x", target_prompts=TARGETS)
    found = editor.edit(batch, edit, torch.tensor([0.0, 1.0]))
    close(found[:, 0], model.decode(model.encode(batch.images)))
    assert float((found[:, 1] - found[:, 0]).abs().max()) > 1e-3


def test_without_coupling_it_is_a_prompt_swap(latent, monkeypatch):
    """Nothing is taken over when the reference is the image itself, in as many copies as asked."""
    editor, batch = attached(latent, t_align=1.0, t_early=1.0), batch_of(latent)
    edit = Edit("x", target_prompts=TARGETS)
    swap = attached(latent, DDIMInversion).edit(batch, edit, ONE)
    assert float((editor.edit(batch, edit, ONE) - swap).abs().max()) > 1e-3
    monkeypatch.setattr("methods.editing.rival.CrossImageAttention.active", lambda *_: False)
    close(editor.edit(batch, edit, ONE), swap)


def test_variations_start_from_the_reference_s_noise_in_another_order(latent):
    editor, batch = attached(latent), batch_of(latent)
    x = editor._levels(batch)[0]
    shuffled = editor._shuffled(x, batch.ids, 3).unflatten(0, (2, 3))
    for k in range(3):
        assert torch.equal(shuffled[:, k].flatten(2).sort(-1)[0], x.flatten(2).sort(-1)[0])
        norms = shuffled[:, k].norm(dim=1).flatten(1)  # whole columns move
        close(norms.sort(-1)[0], x.norm(dim=1).flatten(1).sort(-1)[0])
    assert not torch.equal(shuffled[:, 0], shuffled[:, 1])


def test_what_is_taken_over_is_what_the_paper_says(latent):
    """One step of the whole batch, made of plain calls: R's row beside G's, in both branches."""
    model, batch = latent, batch_of(latent)
    grid, empty = model.grid(4), model.unconditional(2)
    told = model.condition(SOURCES, 2)
    for t_align, times in ((0.0, 1), (1.0, 2)):
        editor = attached(model, t_align=t_align, t_early=1.0, guidance=2.0)
        x = editor._levels(batch)[0]
        coupling = editor._coupling(4, empty)
        generate(
            model, x, guided(told, told, 1.0), grid=grid, stop=1, interventions=coupling.source
        )
        (attention, _), heard = coupling.target, []
        whole = attention.attention

        def watched(step, call, whole=whole, heard=heard):
            changed = whole(step, call)
            if changed is not None:
                heard.append((call, changed))
            return changed

        attention.attention = watched
        generate(model, x.flip(0), guided(told, empty, 2.0), grid=grid, stop=1,
                 interventions=[attention])  # fmt: skip
        call, changed = heard[0]  # the first self-attention: what comes before depends on x alone
        n = call.key.shape[2]
        assert changed.key.shape[2] == times * n
        null, condition = changed.key[:, :, :n].unflatten(0, (2, 2))
        theirs = call.key.unflatten(0, (2, 2))
        close(condition, theirs[1].flip(0))
        close(null, theirs[0].flip(0))


@pytest.mark.parametrize("name", ["latent", "flux"])
def test_statistics_of_the_prediction_are_the_reference_s(name, request):
    """Of a flow at its first level too, which holds no signal; each image has its own."""
    model = request.getfixturevalue(name)
    grid, reference = model.grid(4), Reference(None)
    step = Step(0, 0, 1, 4, 0, ("condition",), grid, lambda x, level: (x, x))
    reference.direction = 3 * torch.randn(2, *model.latent_shape) + 1
    x, x0, eps = torch.randn(3, 4, *model.latent_shape)
    made = MatchedStatistics(reference, 1).prediction(step, x, x0, eps)
    found = grid.direction(*made)
    for statistic in (torch.mean, torch.std):
        goal = statistic(reference.direction, (2, 3)).repeat_interleave(2, 0)
        close(statistic(found, (2, 3)), goal, 1e-3)
    alpha, sigma = grid.levels(0, x)
    close(alpha * made[0] + sigma * made[1], x, 1e-3)


def test_evaluations(latent):
    """The reference costs its null branch as well, once for all variations; unguided, neither."""
    batch, n, b, v = batch_of(latent), 3, 2, 3
    for guidance, rows in ((2.0, 2), (1.0, 1)):
        editor = attached(latent, guidance=guidance)
        editor._levels(batch)
        before = latent.evaluations.forward
        editor.vary(batch, v)
        assert latent.evaluations.forward - before == b * n * (1 + rows * (1 + v))
