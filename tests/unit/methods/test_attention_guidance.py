"""Attend-and-Excite and CONFORM."""

from dataclasses import replace

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import Step, denoise, generate, plain
from latentbench.streams import Streams
from latentbench.types import Concept
from methods.generation.attention_guidance import (
    AttendAndExcite,
    Conform,
    MovedLatent,
    Refinement,
    TokenMaps,
    nt_xent,
)
from methods.generation.composed import ComposedDiffusion

IDS = ("a", "b")
ASKED = [Concept(("a face", "a smile face")), Concept(("with hat", "glasses"))]
BOTH = pytest.mark.parametrize("cls", [AttendAndExcite, Conform])


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=2, guidance=3.0)


def attached(model, cls, **settings):
    editor = cls(**{"steps": 2} | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@BOTH
def test_without_moves_it_samples_the_joined_prompt(latent, cls):
    whole = [Concept(("a face with hat", "a smile face glasses"))]
    expected = attached(latent, ComposedDiffusion).compose(IDS, whole)
    assert torch.equal(attached(latent, cls, guided_share=0.0).compose(IDS, ASKED), expected)
    moved = attached(latent, cls, moves=1).compose(IDS, ASKED)
    assert float((moved - expected).abs().max()) > 1e-3


def test_tokens_belong_to_their_concepts(latent):
    groups = attached(latent, Conform).groups(ASKED)
    assert groups[:, :7].tolist() == [[-1, 0, 0, 1, 1, -1, -1], [-1, 0, 0, 0, 1, -1, -1]]
    assert bool((groups[:, 7:] == -1).all())


@BOTH
@pytest.mark.parametrize("name", ["latent", "flow"])
def test_a_move_lowers_the_loss(cls, name, request):
    """One network call further down the gradient of the very maps that the prompt has there."""
    model = request.getfixturevalue(name)
    editor = attached(model, cls, moves=0, scale=2.0, guided_share=0.5)
    (moving,) = editor.interventions(IDS, ASKED)
    grid, x = model.grid(2), torch.randn(2, *model.latent_shape)
    terms = plain(model.condition(("a face with hat", "a smile face glasses"), 2))

    def loss(x):
        maps = TokenMaps()
        denoise(model, x, terms, grid=grid, level=0, interventions=[maps])
        return editor.loss(editor.groups(ASKED))(maps.mean(), None)

    class Seen(type(moving)):
        def before_step(self, step, x):
            self.moved = super().before_step(step, x)
            return self.moved

    seen = Seen(model, moving.condition, moving.loss, moving.how)
    generate(model, x, terms, grid=grid, stop=1, interventions=[seen])
    torch.testing.assert_close(seen.losses[0], loss(x), rtol=1e-4, atol=1e-5)
    assert bool((loss(seen.moved) < loss(x)).all())


def test_an_image_that_reached_its_target_is_not_moved_again(latent):
    """Losses of .1 and .9, a target of .5, a slope of 1: one move, and one more per further one."""

    class Planned(MovedLatent):
        def _evaluate(self, step, x):
            return torch.tensor([0.1, 0.9]), torch.ones_like(x), x

    how = Refinement(steps=1, scale=0.5, targets={0: 0.5}, moves=3)
    planned = Planned(latent, latent.condition(None, 2), lambda maps, before: maps, how)
    step = Step(0, 0, 1, 2, 0, (), latent.grid(2), lambda x, level: (x, x))
    moved = planned.before_step(step, torch.zeros(2, 4, 8, 8))
    assert moved[:, 0, 0, 0].tolist() == [-0.5, -2.0]


@BOTH
def test_evaluations(latent, cls):
    """One forward and backward per move; a target that is never reached costs all of them."""
    editor = attached(latent, cls, steps=2, moves=2, guided_share=0.5)
    editor.targets = lambda: {0.0: -1.0}
    before = replace(latent.evaluations)
    editor.compose(IDS, ASKED)
    b, n, moves = 2, 2, 3
    assert latent.evaluations.forward - before.forward == b * (2 * n + moves)
    assert latent.evaluations.backward - before.backward == b * moves


def test_words_of_a_concept_attract_and_those_of_others_repel():
    a, b = torch.eye(2)
    together, apart = (
        nt_xent(torch.stack(v)[None], torch.tensor([[0, 0, 1, 1]]), 0.5)
        for v in ((a, a, b, b), (a, b, a, b))
    )
    assert float(together) < float(apart)
    alone = nt_xent(torch.stack((a, b))[None], torch.tensor([[0, 1]]), 0.5)
    assert float(alone) == 0  # no positive pair


def test_what_one_prompt_cannot_say_is_refused(latent):
    editor = attached(latent, AttendAndExcite)
    with pytest.raises(BadInput, match="has a region"):
        editor.compose(IDS, [Concept(("hat",) * 2, 1.0, torch.ones(2, 16, 16))])
    with pytest.raises(BadInput, match="no concept has a weight above 0"):
        editor.compose(IDS, [Concept(("hat",) * 2, -1.0)])
