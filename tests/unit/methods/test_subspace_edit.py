"""Subspace edits: singular vectors against known ones, their projection, and what they move."""

import math

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, NotFinite
from latentbench.fitting import Fitting
from latentbench.sampling.loop import plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.directions.singular import singular_directions
from methods.directions.subspace_edit import SubspaceEdit

DATA = toy.ToyData()
SMALL = {"rank": 2, "null_rank": 2, "iterations": 6, "steps": 5}
BATCH = DATA.batch("test", [0, 1])
FIRST = Edit("direction 0", component=0)


class Halves(toy.ToyData):
    """The toy data with a part: the upper half of every image."""

    def batch(self, split, indices):
        found = super().batch(split, indices)
        mask = torch.zeros(len(found), self.image_size, self.image_size)
        mask[:, : self.image_size // 2] = 1
        return Batch(found.ids, found.images, found.prompts, found.factors, {"upper": mask})


def fitted(model, data=DATA, **settings):
    editor = SubspaceEdit(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(None))
    editor.fit(data, [FIRST])
    return editor


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_singular_vectors_are_those_of_a_known_map():
    maps = random(3, 12, 8)
    run = {"iterations": 500, "tolerance": 1e-9}
    V, S = singular_directions(
        lambda x: torch.einsum("boi,bi->bo", maps, x), random(3, 8), random(2, 8), **run
    )
    _, s, v = torch.linalg.svd(maps)
    torch.testing.assert_close(S, s[:, :2], rtol=1e-3, atol=1e-3)
    assert float((V * v[:, :2]).sum(2).abs().min()) > 0.999
    assert bool((torch.einsum("boi,bki->bko", maps, V).mean(2) > 0).all())


def test_each_row_stops_by_itself():
    """A row's vectors are the same bytes beside one that needs longer."""
    scales = torch.tensor([[9.0, 1.0, 0.1], [1.01, 1.0, 0.99]])
    run = {"iterations": 40, "tolerance": 1e-4}
    both, _ = singular_directions(lambda x: x * scales, torch.zeros(2, 3), random(1, 3), **run)
    one, _ = singular_directions(lambda x: x * scales[:1], torch.zeros(1, 3), random(1, 3), **run)
    assert torch.equal(both[:1], one)


@pytest.mark.parametrize("after", [4, 39])
def test_iterations_go_on_where_they_were_killed(tmp_path, after):
    """Where one row has stopped, and where both have."""
    scales, calls = torch.tensor([[9.0, 1.0, 0.1], [1.5, 1.0, 0.5]]), []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return x * scales

    def found(fitting: Fitting) -> tuple[torch.Tensor, torch.Tensor, int]:
        calls.clear()
        run = {"iterations": 40, "tolerance": 1e-5, "fitting": fitting}
        V, S = singular_directions(function, torch.zeros(2, 3), random(1, 3), **run)
        return V, S, len(calls)

    def kill(step: int, count: int) -> None:
        if step == after:
            raise KeyboardInterrupt

    V, S, made = found(Fitting(None))
    with pytest.raises(KeyboardInterrupt):
        found(Fitting(tmp_path, 0.0, kill))
    again, values, left = found(Fitting(tmp_path))
    assert torch.equal(again, V) and torch.equal(values, S)
    assert left == (made - 3 if after == 4 else 2)  # the steps that are kept; no step is left


def test_products_that_overflow_are_refused_in_words():
    run = {"iterations": 2, "tolerance": 1e-3}
    with pytest.raises(NotFinite, match="bfloat16 or float32"):
        singular_directions(lambda x: x * 1e30, torch.zeros(1, 3), random(1, 3), **run)


def test_vectors_span_the_subspace_of_a_mixture_of_low_rank_gaussians():
    """The analytic posterior mean at t = .2, near one of the subspaces (MoLRG)."""
    n, d, K, t = 64, 3, 4, 0.2
    U = torch.linalg.qr(random(K, n, d)).Q
    s, g = 1 - t, t
    x = (s * U[1] @ random(d) + g * random(n))[None]

    def mean(x: torch.Tensor) -> torch.Tensor:
        codes = torch.einsum("knd,bn->bkd", U, x)
        w = (s**2 * codes.square().sum(2) / (2 * g**2 * (s**2 + g**2))).softmax(1)
        return s / (s**2 + g**2) * torch.einsum("bk,knd,bkd->bn", w, U, codes)

    V, S = singular_directions(mean, x, random(d + 1, n), iterations=100, tolerance=1e-8)
    assert float(torch.linalg.svdvals(V[0, :d] @ U[1]).min()) > 0.999
    assert float(S[0, d] / S[0, d - 1]) < 0.01  # rank d


@pytest.mark.slow
def test_an_edit_moves_x_once(pixel):
    editor = fitted(pixel, t_boost=0.0)
    strengths = torch.tensor([0.0, 0.1, -0.1])
    images = editor.edit(BATCH, FIRST, strengths)
    latent = editor.invert(BATCH)
    x, v = latent.parts[Space.NOISE], editor.directions_[0]
    assert float(v.norm()) == pytest.approx(1, rel=1e-4)
    for k, strength in enumerate(strengths.tolist()):
        latent.parts[Space.NOISE] = x + strength * math.sqrt(x[0].numel()) * v
        torch.testing.assert_close(images[:, k], editor.decode(latent), rtol=1e-4, atol=1e-4)
    back = editor.edit(BATCH, Edit("direction 0", sign=-1, component=0), torch.tensor([0.1]))
    torch.testing.assert_close(back[:, 0], images[:, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_projection_takes_out_what_moves_the_rest_of_the_image(pixel):
    """To first order, at the step where v was found; and the rest's vectors are gone from v."""
    changes, batch = [], Halves().batch("test", [0])
    for null_rank in (0, 4):
        editor = fitted(pixel, Halves(), variant="own", part="upper", null_rank=null_rank)
        x, told = editor.invert(batch).parts[Space.NOISE], pixel.unconditional(1)
        v = editor._direction(batch, FIRST, x)
        rest = editor._posterior_mean(told, 1 - editor._mask(batch))
        with pixel.differentiable_attention():
            changes.append(float(torch.func.jvp(rest, (x,), (v,))[1].norm()))
    assert changes[1] < changes[0]
    n = editor._singular(rest, x, 4, "outside")
    assert float((n * v[:, None]).flatten(2).sum(2).abs().max()) < 1e-4


@pytest.mark.slow
def test_every_images_own_vector_is_its_own(pixel):
    editor = fitted(pixel, variant="own")
    x = editor.invert(BATCH).parts[Space.NOISE]
    both = editor._direction(BATCH, FIRST, x)
    alone = editor._direction(DATA.batch("test", [1]), FIRST, x[1:])
    assert float((both[1] * alone[0]).sum()) > 0.999
    assert abs(float((both[0] * both[1]).sum())) < 0.999
    editor.randomise(Streams(1))
    drawn = editor._direction(BATCH, FIRST, x)
    assert float(drawn[0].norm()) == pytest.approx(1, rel=1e-4)
    assert abs(float((drawn[0] * both[0]).sum())) < 0.3


def test_a_texts_direction_leads_towards_it(latent):
    """To first order, the predicted image moves the way that the text would move it."""
    editor = fitted(latent, variant="text")
    targets = DATA.edited_prompts("test", [0, 1], "hat", torch.ones(2))
    edit = Edit("hat+", "hat", 1, BATCH.prompts, targets)
    x, level, grid = editor.invert(BATCH).parts[Space.NOISE], 2, latent.grid(5)
    v = editor._direction(BATCH, edit, x)
    source, target = (latent.condition(p, 2) for p in (BATCH.prompts, targets))
    mean = editor._posterior_mean(source, None)
    with torch.no_grad():
        null = latent.decode(predict(latent, x, grid, level, plain(latent.unconditional(2)))[0])
        goal = latent.decode(predict(latent, x, grid, level, plain(target))[0]) - null
        with latent.differentiable_attention():
            rises = torch.func.jvp(mean, (x,), (v,))[1]
    assert bool(((rises * goal).flatten(1).sum(1) > 0).all())


def test_what_does_not_fit_is_refused(pixel):
    editor = fitted(pixel)
    with pytest.raises(BadInput, match="by number, 0 to 1"):
        editor.edit(BATCH, Edit("hat+", "hat"), torch.ones(1))
    with pytest.raises(BadInput, match="unknown part 'nose'"):
        fitted(pixel, Halves(), part="nose")
    with pytest.raises(BadInput, match="the boost comes last"):
        SubspaceEdit(t_edit=0.3, t_boost=0.4)
    with pytest.raises(BadInput, match="is an end of the 5 sampling steps"):
        SubspaceEdit(t_edit=0.95).check(DATA, 5, [0.1])
