"""Blended latent diffusion: denoise inside a mask; outside, the noised source at each level."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from latentbench.bounds import Count, Guidance, Positive, Steps, above, at_most
from latentbench.errors import BadInput
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.loop import Intervention, Step, generate, guided, noise_to_level
from latentbench.types import Batch, Capability, Edit, Space
from methods.editing.steps_back import StepsBackEditor

WIDTHS = (7, 5, 3, 1)  # of the squares that masks are dilated with while they shrink


class Blend(Intervention):
    """Before each step, and at the clean end: what lies outside the mask is the noised source.

    Args:
        z_init: clean latents of the source.
        noise: fresh noise of each level, the noisiest first.
        masks: 1 where the image may change, in the latents' resolution; the one of a step is that
            of the part of the steps that it is in.
        first: level of the first step.
    """

    def __init__(
        self,
        z_init: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b n c h w"],
        masks: Sequence[Float[Tensor, "b 1 h w"]],
        first: int,
    ) -> None:
        self.z_init, self.noise, self.masks, self.first = z_init, noise, masks, first

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Return z_t inside, the source at the same level outside."""
        part = len(self.masks) * (step.level - self.first) // (step.n - self.first)
        noised = noise_to_level(step.grid, self.z_init, self.noise[:, step.level], step.level)
        return torch.where(self.masks[part] > 0, x, noised)

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return the source itself outside, once the sample is clean."""
        return torch.where(self.masks[-1] > 0, x, self.z_init) if step.reaches == step.n else x


class BlendedLatentDiffusion(StepsBackEditor):
    """Denoises inside a mask under the target prompt; the decoder may be fitted to the background.

    Source: "Blended Latent Diffusion", section 4: before each step, what is outside the mask is
    the source under fresh noise of the same level (4.1); for thin masks, masks that shrink from a
    dilation by 7 x 7 cells to none over four parts of the steps (4.3); afterwards the decoder's
    weights are tuned, per image, to min |(D(z) - x')(m)|^2 + 100 |(D(z) - x)(1 - m)|^2 (4.2).

    The strength is the share of the steps that are made: 1 starts from noise, as published, and 0
    makes none: it is what the autoencoder makes of the image, whatever the background.

    Deviations: the source is put back at the clean end too; a latent cell may change as soon as one
    of its pixels may (the authors' code takes the nearest pixel); one candidate, no ranking.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale towards the target prompt.
        negative: prompt that guidance leads away from; default: the empty condition.
        shrinking: begin with a dilated mask, for thin ones.
        background: "none": as it is decoded; "paste": the source's pixels outside the mask;
            "decoder": by a decoder that is tuned to each image and strength.
        iterations: Adam steps of the tuning.
        learning_rate: of the tuning.
        preserve: weight of the background in the tuning.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: an edit without masks, or strengths of less than a step.

    Example:
        >>> editor = BlendedLatentDiffusion(background="paste")
        >>> # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Blended Latent Diffusion, section 4"
    version = 2
    small: ClassVar[Mapping[str, int]] = {"iterations": 2}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.TARGET_PROMPTS, Capability.EDIT_MASKS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance = 3.0,
        negative: str | None = None,
        shrinking: bool = False,
        background: Literal["none", "paste", "decoder"] = "none",
        iterations: Count = 75,
        learning_rate: Positive = 1e-4,
        preserve: Positive = 100.0,
        max_strength: Annotated[float, above(0), at_most(1)] = 1.0,
    ) -> None:
        self.steps, self.guidance, self.negative = steps, guidance, negative
        self.shrinking, self.background = shrinking, background
        self.iterations, self.learning_rate, self.preserve = iterations, learning_rate, preserve
        self.max_strength = max_strength

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength."""
        if edit.masks is None:
            raise BadInput(
                f"edit {edit.name!r} has no masks, and this method changes nothing outside of one; "
                f"choose benchmark=local_editing benchmark.give_masks=true"
            )
        model, grid, masks = self.model, self.model.grid(self.steps), edit.masks
        z_init = model.encode(batch.images)

        def from_level(start: int) -> Float[Tensor, "b 3 h w"]:
            if start == grid.n:
                return model.decode(z_init)
            z = self._blended(z_init, batch, edit, masks, start)
            return self._decoded(z, batch.images.to(z), masks[:, None].to(z))

        return self.each(strengths, from_level)

    def _blended(
        self,
        z_init: Float[Tensor, "b c h w"],
        batch: Batch,
        edit: Edit,
        masks: Float[Tensor, "b H W"],
        start: int,
    ) -> Float[Tensor, "b c h w"]:
        """Return the clean latents of a blended sampling chain from level `start`."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        shape, device = (grid.n + 1, *z_init.shape[1:]), z_init.device
        noise = self.streams.normal("blended_latent_diffusion", batch.ids, shape, device)
        exact = latent_mask(masks, z_init)
        widths = WIDTHS if self.shrinking else (1,)
        wide = [max_pool2d(exact, width, 1, width // 2) for width in widths]
        target, null = (
            model.condition(edit.target_prompts, b),
            model.unconditional(b, self.negative),
        )
        return generate(
            model,
            noise_to_level(grid, z_init, noise[:, grid.n], start),
            guided(target, null, self.guidance),
            grid=grid,
            start=start,
            interventions=[Blend(z_init, noise, wide, start)],
        )

    def _decoded(
        self,
        z: Float[Tensor, "b c h w"],
        images: Float[Tensor, "b 3 H W"],
        masks: Float[Tensor, "b 1 H W"],
    ) -> Float[Tensor, "b 3 H W"]:
        """Return the images of latents, their background as the setting says."""
        made = self.model.decode(z)
        if self.background == "paste":
            return torch.where(masks > 0, made, images)
        if self.background == "decoder" and "decoder" in self.model.tunable():
            rows = zip(z, made, images, masks, strict=True)
            return torch.cat([self._tuned(*(v[None] for v in row)) for row in rows])
        return made

    def _tuned(
        self,
        z: Float[Tensor, "1 c h w"],
        made: Float[Tensor, "1 3 H W"],
        image: Float[Tensor, "1 3 H W"],
        mask: Float[Tensor, "1 1 H W"],
    ) -> Float[Tensor, "1 3 H W"]:
        """Return one latent's image by a decoder that was fitted to the source outside the mask."""
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
