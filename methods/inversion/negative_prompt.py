"""Negative-prompt inversion: guidance leads away from the source prompt, not from the empty one."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Share, Steps
from latentbench.model import Condition, Convention
from latentbench.sampling.linear import slerp
from latentbench.types import Batch, Latent, Space
from methods.inversion.prompt_swap import PromptSwapEditor


class NegativePrompt(PromptSwapEditor):
    """DDIM inversion under the source prompt, which then takes the null branch of the guidance.

    Source: "Negative-prompt Inversion: Fast Image Inversion for Editing with Text-guided Diffusion
    Models", section 3. eps = eps(c_source) + w (eps(c) - eps(c_source)), which for c = c_source is
    the prediction of the inversion at every w: null-text inversion without its optimisation.
    The strength is lambda in c = (1 - lambda) c_source + lambda c_target at one guidance w: 0 is
    the reconstruction, 1 the published edit.
    Deviations: edits by prompt swap, where the paper couples prompt-to-prompt; the convention of
    the inversion (the published code's is "next").

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting.
        guidance: guidance scale w. It acts on the difference of two prompts, so it asks for less
            than guidance away from the empty prompt does.
        empty_share: share of the empty prompt in the null branch, by spherical interpolation from
            the source prompt.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = NegativePrompt(guidance=2.0)  # editor.decode(editor.invert(batch))
    """

    paper = "Negative-prompt Inversion: Fast Image Inversion for Editing, section 3"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE, Space.TEXT}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        guidance: Guidance = 3.0,
        empty_share: Share = 0.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.guidance, self.empty_share = steps, guidance, empty_share
        self.convention: Convention = convention
        self.max_strength = max_strength

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of each image under its caption, without guidance."""
        return self.model.invert(
            batch, self.cache, prompts=batch.prompts, steps=self.steps, convention=self.convention
        )

    def decode_towards(
        self, latent: Latent, target: Condition, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of codes under conditions between their own and the target."""
        model, b, s = self.model, len(latent), len(strengths)
        source, weight = model.condition_of(latent), strengths.repeat(b)
        scale = torch.full((b * s,), float(self.guidance))
        if self.empty_share == 0:  # at strength 0 both branches are one
            scale = torch.where(weight == 0, 1.0, scale)
        images = model.sample(
            Latent({Space.NOISE: latent.parts[Space.NOISE].repeat_interleave(s, 0)}),
            condition=source.repeat(s).lerp(target.repeat(s), weight),
            null=self._null(source).repeat(s),
            guidance=scale.to(model.device),
            steps=self.steps,
        )
        return images.unflatten(0, (b, s))

    def _null(self, source: Condition) -> Condition:
        """Return the source's condition with the empty one's share in it."""
        if self.empty_share == 0:
            return source
        share = torch.tensor([self.empty_share])
        rows = len(next(iter(source.tensors.values())))
        empty = self.model.unconditional(rows).tensors
        return Condition(
            {name: slerp(a, empty[name], share)[:, 0] for name, a in source.tensors.items()}
        )
