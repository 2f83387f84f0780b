"""Blended latent diffusion as a sketch: a mask at every level, and a decoder that is tuned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.loop import Intervention, Step, generate, guided, noise_to_level
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Space


class Blend(Intervention):
    """Before each step, and at the clean end: what lies outside the mask is the noised source.

    Args:
        z_init: clean latents of the source.
        noise: fresh noise of each level, the noisiest first.
        mask: 1 where the image may change, in the latents' resolution.
    """

    def __init__(
        self,
        z_init: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b n c h w"],
        mask: Float[Tensor, "b 1 h w"],
    ) -> None:
        self.z_init, self.noise, self.mask = z_init, noise, mask

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Return z_t inside, the source at the same level outside."""
        noised = noise_to_level(step.grid, self.z_init, self.noise[:, step.level], step.level)
        return torch.where(self.mask > 0, x, noised)

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return the source itself outside, once the sample is clean."""
        return torch.where(self.mask > 0, x, self.z_init) if step.reaches == step.n else x


class BlendedLatentDiffusion(Editor[DiffusionModel]):
    """Denoises inside a mask under the target prompt, then fits the decoder to the background.

    Source: "Blended Latent Diffusion", section 4. The strength is the share of the steps that are
    made: 1 starts from noise, 0 makes none. A decoder is tuned for one image and one strength.
    """

    paper = "Blended Latent Diffusion, section 4"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.TARGET_PROMPTS, Capability.EDIT_MASKS})
    }

    def __init__(
        self,
        *,
        guidance: float = 3.0,
        iterations: int = 75,
        learning_rate: float = 1e-4,
        preserve: float = 100.0,
    ) -> None:
        self.guidance, self.iterations = guidance, iterations
        self.learning_rate, self.preserve = learning_rate, preserve

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images at each strength."""
        if edit.masks is None:
            raise BadInput(f"edit {edit.name!r} has no masks; name one mask per image")
        z_init, mask = self.model.encode(batch.images), edit.masks[:, None].to(batch.images)
        edited = [self.blended(z_init, batch, edit, edit.masks, float(s)) for s in strengths]
        rows = zip(torch.stack(edited, 1), batch.images, mask, strict=True)
        images = [self._decoded(z[None], image, m) for row, image, m in rows for z in row]
        return torch.cat(images).unflatten(0, (len(batch), len(strengths)))

    def blended(
        self, z_init: Tensor, batch: Batch, edit: Edit, masks: Tensor, strength: float
    ) -> Tensor:
        """Return the clean latents of a blended sampling chain."""
        model, grid, b = self.model, self.model.grid(), len(batch)
        start = grid.n - whole_steps(strength, grid.n)
        shape = (grid.n + 1, *z_init.shape[1:])
        noise = self.streams.normal("blended", batch.ids, shape).to(z_init)
        target, null = model.condition(edit.target_prompts, b), model.unconditional(b)
        x = z_init if start == grid.n else noise_to_level(grid, z_init, noise[:, -1], start)
        blend, terms = (
            Blend(z_init, noise, latent_mask(masks, z_init)),
            guided(target, null, self.guidance),
        )
        return generate(model, x, terms, grid=grid, start=start, interventions=[blend])

    def _decoded(
        self, z: Float[Tensor, "1 ..."], image: Float[Tensor, "3 h w"], mask: Float[Tensor, "1 h w"]
    ) -> Float[Tensor, "1 3 h w"]:
        """Return the image of one latent, by a decoder that was fitted to the source outside."""
        made = self.model.decode(z)
        if "decoder" not in self.model.tunable():
            return made
        with self.model.borrowed("decoder") as weights:
            adam = torch.optim.Adam(weights, self.learning_rate)
            for _ in range(self.iterations):
                with torch.enable_grad():
                    found = self.model.decode(z)
                    inside = ((found - made) * mask).square().mean()
                    outside = ((found - image) * (1 - mask)).square().mean()
                    adam.zero_grad()
                    (inside + self.preserve * outside).backward()
                adam.step()
            return self.model.decode(z)


# ---------------------------------------------------------------- what must hold


STRENGTHS = torch.tensor([0.0, 1.0])


def left_half(rows: int, size: int) -> Tensor:
    mask = torch.zeros(rows, size, size)
    mask[..., : size // 2] = 1
    return mask


def asked(model, rows: int) -> tuple[Batch, Edit, Tensor]:
    """Images of any model's size, an edit of their left half, and its masks."""
    size = model.image_size
    batch, masks = toy.ToyData(size).batch("test", range(rows)), left_half(rows, size)
    return batch, Edit("hat", target_prompts=("a face with hat",) * rows, masks=masks), masks


def attached(model, **settings: Any) -> BlendedLatentDiffusion:
    editor = BlendedLatentDiffusion(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_a_pixel_model_keeps_the_background_bit_by_bit(gaussian):
    batch, edit, masks = asked(gaussian, 3)
    images = attached(gaussian).edit(batch, edit, STRENGTHS)
    assert torch.equal(images[:, 0], batch.images)
    outside = masks[:, None, None].expand_as(images) == 0
    assert torch.equal(images[outside], batch.images[:, None].expand_as(images)[outside])
    assert float((images[:, 1] - images[:, 0])[~outside[:, 0]].abs().mean()) > 0.05


def test_inside_the_mask_the_prompt_is_obeyed(gaussian):
    batch, edit, masks = asked(gaussian, 8)
    way = gaussian.mean("hat") * masks[0]
    found = []
    for prompt in ("a face", "a face with hat"):
        asks = replace(edit, target_prompts=(prompt,) * 8)
        images = attached(gaussian, guidance=1.0).edit(batch, asks, STRENGTHS)
        found.append(float((images[:, 1] * way).sum((-3, -2, -1)).mean() / way.square().sum()))
    assert found[1] - found[0] == pytest.approx(1.0, abs=0.1)


def test_a_tuned_decoder_brings_the_background_back(latent):
    batch, edit, masks = asked(latent, 2)
    z_init = latent.encode(batch.images)
    z = attached(latent).blended(z_init, batch, edit, masks, 1.0)
    outside = latent_mask(masks, z).expand_as(z) == 0
    assert torch.equal(z[outside], z_init[outside])
    plain, tuned = (
        attached(latent, iterations=n, learning_rate=1e-2).edit(batch, edit, STRENGTHS)[:, 1]
        for n in (0, 20)
    )
    outside = (1 - masks)[:, None]
    errors = [float(((x - batch.images) * outside).square().mean()) for x in (plain, tuned)]
    assert errors[1] < 0.5 * errors[0], errors


def test_the_decoder_is_given_back_and_no_image_sees_another(latent):
    batch, edit, masks = asked(latent, 2)
    weights, state = latent.fingerprint(), torch.get_rng_state()
    editor = attached(latent, iterations=2)
    both = editor.edit(batch, edit, STRENGTHS)
    assert latent.fingerprint() == weights and torch.equal(torch.get_rng_state(), state)
    first = Batch(batch.ids[:1], batch.images[:1])
    alone = Edit("hat", target_prompts=("a face with hat",), masks=masks[:1])
    torch.testing.assert_close(editor.edit(first, alone, STRENGTHS), both[:1], rtol=1e-3, atol=1e-4)
