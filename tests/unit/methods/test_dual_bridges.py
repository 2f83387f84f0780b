"""DDIB: through noise to another model's domain, and back."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.sdedit import SDEditTranslation
from methods.inversion.dual_bridges import DualBridges

DOMAIN, WORDS = Edit("domain"), "a face with hat"


def attached(source, target, **settings) -> DualBridges:
    editor = DualBridges(**settings)
    editor.attach(source, Streams(0), Cache(None), {"target_model": target})
    return editor


class Brighter(toy.GaussianModel):
    """The same images on a brighter ground: another domain."""

    def mean(self, prompt):
        return super().mean(prompt) + 0.2


def batch_of(model, rows: int = 3) -> Batch:
    return Batch(tuple(map(str, range(rows))), model.draw((WORDS,) * rows), (WORDS,) * rows)


def edited(source, target, batch, strengths=(1.0,), **settings):
    words = Edit("domain", target_prompts=batch.prompts)
    return attached(source, target, **settings).edit(batch, words, torch.tensor(strengths))


def test_one_model_inverts_and_the_other_decodes(gaussian):
    batch, target = batch_of(gaussian), Brighter()
    words = gaussian.condition(batch.prompts, 3)
    x = ddim_invert(gaussian, batch, Cache(None), condition=words)
    made = generate(target, x, plain(target.condition(batch.prompts, 3)))
    assert torch.equal(edited(gaussian, target, batch)[:, 0], made)


def test_the_image_is_kept_and_the_domain_changes(gaussian):
    batch = batch_of(gaussian)
    moved = edited(gaussian, Brighter(), batch, (0.0, 0.4, 1.0)) - batch.images[:, None]
    assert float(moved[:, 0].abs().max()) < 1e-6
    assert 0 < float(moved[:, 1].mean()) < float(moved[:, 2].mean())
    assert moved[:, 2].mean() == pytest.approx(0.2, abs=0.01)
    assert float(moved[:, 2].std()) < 0.06  # the spread of the images is 0.2


def test_there_and_back_is_exact_up_to_the_steps(gaussian):
    """Cycle consistency, the paper's proposition: the error falls with the number of steps."""
    batch, errors = batch_of(gaussian), []
    for steps in (10, 40):
        there = edited(gaussian, Brighter(), batch, steps=steps)[:, 0]
        back = edited(
            Brighter(), gaussian, Batch(batch.ids, there, batch.prompts), steps=steps
        )[:, 0]  # fmt: skip
        errors.append(float((back - batch.images).square().mean().sqrt()))
    assert errors[0] > 1.5 * errors[1]


def test_both_models_share_latents_and_a_step_is_the_least(gaussian):
    class Wider(toy.GaussianModel):
        latent_shape = (3, 9, 9)

    with pytest.raises(Incompatible, match="one latent space"):
        edited(gaussian, Wider(), batch_of(gaussian))
    with pytest.raises(BadInput, match="of 50 sampling steps"):
        edited(gaussian, Brighter(), batch_of(gaussian), (0.01,))


def test_a_target_model_that_gets_no_code_is_refused():
    """A translation gives it noise alone, and it would denoise under a code of zeros."""
    coded, vae = (option("model", name) for name in ("faces_diffae", "faces_vae"))
    for cls in (DualBridges, SDEditTranslation):
        said = cls.misfit(toy.GaussianModel, {"target_model": coded})
        assert "needs a code of its image" in str(said)
        assert "is no denoiser" in str(cls.misfit(toy.GaussianModel, {"target_model": vae}))
        assert cls.misfit(toy.GaussianModel, {}) is None


def test_a_source_that_inverts_under_a_code_is_refused():
    """Its x_T holds what the code leaves out, and the code has no place in the other model."""
    coded, lines = (option("model", name) for name in ("faces_diffae", "faces_lines"))
    said = DualBridges.misfit(coded.cls, {"target_model": lines})
    assert "inverts images under a code of each" in str(said)
    assert DualBridges.misfit(lines.cls, {"target_model": lines}) is None
