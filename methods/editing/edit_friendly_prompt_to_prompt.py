"""Prompt-to-Prompt in the edit-friendly noise space: both prompts decode the same noise maps."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Share, Steps
from latentbench.data.dataset import Dataset
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import generate, guided
from latentbench.types import Batch, Edit, Latent, Space
from methods.editing.prompt_to_prompt import PromptToPrompt
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM
from methods.inversion.noise_maps import Eta, Residual, Skip


class EditFriendlyPromptToPrompt(PromptToPrompt):
    """Decodes an image's noise maps under source and target prompt, the target under both's maps.

    Source: "An Edit Friendly DDPM Noise Space: Inversion and Manipulations", section 4, with
    "Prompt-to-Prompt Image Editing with Cross Attention Control" for the exchange of attention
    maps. The source's path is exact, whatever its guidance is, so maps are those of the image
    itself. See `EditFriendlyDDPM` for the code and `PromptToPrompt` for the exchange.

    The strength moves prompt, guidance and exchange together; 0 is the reconstruction.
    Deviations: shares of the steps are of those that are made, as in the authors' code, whose
    count begins at the first of them; guidance 1 and 5, a skip of .12 of the steps as there.

    Args:
        steps: sampling steps; default: the model's.
        eta: 1 as published; one number, or one per step, noisiest first.
        skip: how many of the noisiest steps are left out, as a count or as a share of the steps.
        mode: "replace", "refine", or "auto": replace where both prompts have as many words.
        cross_replace: share of the steps made with the source's maps over tokens.
        self_replace: share of the steps made with the source's maps over places.
        self_pixels: largest map over places that is exchanged; default: a quarter of the latents'.
        guidance_source: guidance while inverting and of the source.
        guidance_target: guidance of the target at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = EditFriendlyPromptToPrompt(skip=0.12)
        >>> # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "An Edit Friendly DDPM Noise Space: Inversion and Manipulations, section 4"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE_MAPS}),
        "edit": frozenset({Space.NOISE_MAPS, Space.TEXT, Space.TOKEN_MAPS}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Eta | Sequence[Eta] = 1.0,
        skip: Skip = 0.12,
        mode: Literal["auto", "replace", "refine"] = "auto",
        cross_replace: Share = 0.6,
        self_replace: Share = 0.2,
        self_pixels: Count | None = None,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 5.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, mode=mode, cross_replace=cross_replace, self_replace=self_replace,
            self_pixels=self_pixels, source_guidance=guidance_source, guidance=guidance_target,
            max_strength=max_strength,
        )  # fmt: skip
        self.eta, self.skip = eta, skip

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a skip that leaves no step, and shares that are less than a step."""
        self._code().check(data, steps, strengths)
        if steps is not None:
            super().check(data, steps, strengths)

    def coupled_steps(self, n: int) -> int:
        """Return in how many of n steps maps are exchanged."""
        return max(self._steps(n)) - self._code().start(n)

    def invert(self, batch: Batch) -> Latent:
        """Return the edit-friendly code."""
        return self._attached().invert(batch)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes, under the prompts that they were made with."""
        return self._attached().decode(latent)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under prompts between source and target, and both's maps."""
        assert batch.prompts is not None and edit.target_prompts is not None
        model, b, s = self.model, len(batch), len(strengths)
        latent, grid = self.invert(batch), model.grid(self.steps)
        maps, weight = latent.parts[Space.NOISE_MAPS], strengths.repeat(b).to(model.device)
        condition = model.condition(batch.prompts, b)
        ours = guided(condition, model.unconditional(b), self.source_guidance)
        theirs = guided(
            condition.repeat(s).lerp(model.condition(edit.target_prompts, b).repeat(s), weight),
            model.unconditional(b * s),
            self.source_guidance + weight * (self.guidance - self.source_guidance),
        )
        coupling = self.couple(grid.n, batch.prompts, edit.target_prompts, strengths)
        own = latent.parts[Space.NOISE]
        x = own.repeat_interleave(s, 0)
        last = maps[:, -1].repeat_interleave(s, 0)
        residual = [Residual(last)] if float(grid.sigma[-1]) == 0 else []
        for i in range(latent.start, grid.n):
            coupled, z = i < max(self._steps(grid.n)), maps[:, i - latent.start]
            if coupled:
                own = generate(
                    model, own, ours, grid=grid, start=i, stop=i + 1, eta=self.eta,
                    noise=lambda _, z=z: z, interventions=coupling.source,
                )  # fmt: skip
            x = generate(
                model, x, theirs, grid=grid, start=i, stop=i + 1, eta=self.eta,
                noise=lambda _, z=z: z.repeat_interleave(s, 0),
                interventions=[*(coupling.target if coupled else ()), *residual],
            )  # fmt: skip
        return model.decode(x).unflatten(0, (b, s))

    def _steps(self, n: int) -> tuple[int, int]:
        """Return the step before which maps over tokens, and over places, are the source's."""
        start = self._code().start(n)
        cross, own = (
            start + whole_steps(share, n - start)
            for share in (self.cross_replace, self.self_replace)
        )
        return cross, own

    def _code(self) -> EditFriendlyDDPM:
        return EditFriendlyDDPM(
            steps=self.steps, eta=self.eta, skip=self.skip, guidance_source=self.source_guidance
        )

    def _attached(self) -> EditFriendlyDDPM:
        code = self._code()
        code.attach(self.model, self.streams, self.cache)
        return code
