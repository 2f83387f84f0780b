"""What learns a subject learns by the error of what the network predicts, here v, at all levels."""

from functools import partial

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.streams import Streams
from latentbench.types import SUBJECT
from methods.personalisation.character_factory import CharacterFactory
from methods.personalisation.neti import NeuralTextualInversion
from methods.personalisation.one_actor import OneActor
from methods.personalisation.p_plus import ExtendedTextualInversion
from methods.personalisation.textual_inversion import TextualInversion

REFERENCES = toy.ToyData().batch("test", [0, 1])
NEEDED = 3  # steps, so that there are several levels
METHODS = {
    "textual_inversion": partial(TextualInversion, iterations=NEEDED),
    "p_plus": partial(ExtendedTextualInversion, iterations=NEEDED),
    "neti": partial(NeuralTextualInversion, iterations=NEEDED),
    "one_actor": partial(OneActor, iterations=NEEDED, auxiliaries=1, together=1),
    "character_factory": partial(CharacterFactory, people=2, batch=2, name_iterations=NEEDED),
}
COUNTS = {  # of each row's error in the loss
    "one_actor": (0.5, 0.5, 0.5, 0.1, 0.1),  # targets, auxiliary, targets with its offset
    "character_factory": (1.0, 1.0),
}


@pytest.fixture
def asked(latent, monkeypatch):
    """What the network was asked and said in each training step, and the loss's gradient there."""
    calls, real = [], latent.forward

    def forward(x, timesteps, condition, taps=None):
        out = real(x, timesteps, condition, taps)
        if out.requires_grad:
            out.register_hook(lambda g: calls.append((x.detach(), timesteps, out.detach(), g)))
        return out

    monkeypatch.setattr(latent, "forward", forward)
    return calls


def clean(editor, z0):
    """Let the method learn, and return the latents that its network calls noise."""
    if isinstance(editor, CharacterFactory):
        with torch.enable_grad():
            editor._names(REFERENCES.images, [f"{SUBJECT} hat", f"{SUBJECT} smile"])
        return z0
    learned = editor.learn(REFERENCES)
    return torch.cat([z0, learned["z"], z0]) if isinstance(editor, OneActor) else z0


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_that_of_the_networks_own_output(name, latent, asked):
    editor, grid = METHODS[name](), latent.grid()
    editor.attach(latent, Streams(0), Cache(None))
    z0 = clean(editor, latent.encode(REFERENCES.images))
    assert latent.prediction_type == "v_prediction" and len(asked) == NEEDED
    assert len(torch.cat([t for _, t, _, _ in asked]).unique()) > 1
    for x, timesteps, out, gradient in asked:
        level = [int((grid.timesteps == t).nonzero()) for t in timesteps]
        alpha, sigma = grid.levels(torch.tensor(level), x)
        v = (alpha * x - z0) / sigma  # alpha eps - sigma z0
        counts = torch.tensor(COUNTS.get(name, (0.5, 0.5))).reshape(-1, 1, 1, 1)
        own = counts * 2 * (out - v) / out[0].numel()  # the gradient of their mean squares
        torch.testing.assert_close(gradient, own, rtol=1e-3, atol=1e-6)
