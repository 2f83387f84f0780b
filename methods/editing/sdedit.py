"""SDEdit: noise the image part of the way, denoise under the target condition."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Name, Share, Steps, above, at_most
from latentbench.cache import Cache
from latentbench.data.dataset import Dataset
from latentbench.errors import Incompatible
from latentbench.fitting import Fitting
from latentbench.model import DiffusionModel
from latentbench.sampling.blending import KeepOutside, latent_mask
from latentbench.sampling.loop import generate, guided, noise_to_level
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Space
from methods.editing.steps_back import StepsBackEditor, TranslatingEditor


class SDEdit(StepsBackEditor):
    """x = alpha_k x_0 + sigma_k n at k = floor(strength x steps) steps from the end, then denoise.

    Source: "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations",
    section 3, with the target prompt as condition. Where the edit has a mask, what is outside is
    the source at every level. Needs nothing but a denoiser: the floor that every inversion method
    must beat. Deviations: deterministic by default (the paper's sampler is ancestral: eta=1); one
    pass by default (the paper repeats three times from the last result); kept pixels are noised to
    the level that the sample has (the published code is one level behind), and a latent cell may
    change as soon as one of its pixels may.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale towards the target prompt.
        negative: prompt that guidance leads away from; default: the empty condition.
        eta: stochasticity of the sampler.
        repeats: passes, each with fresh noise, from the last one's result.
        max_strength: largest strength of a benchmark's curve; 1 starts from pure noise.

    Example:
        >>> editor = SDEdit(guidance=3.0)  # editor.edit(batch, edit, torch.tensor([0.4, 0.8]))
    """

    paper = "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, 3"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance = 3.0,
        negative: str | None = None,
        eta: Share = 0.0,
        repeats: Count = 1,
        max_strength: Annotated[float, above(0), at_most(1)] = 1.0,
    ) -> None:
        self.steps, self.guidance, self.eta = steps, guidance, eta
        self.negative = negative
        self.repeats, self.max_strength = repeats, max_strength

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength; strength 0 is decode(encode(image))."""
        x0 = self.model.encode(batch.images)
        return self.each(
            strengths, lambda start: self.model.decode(self._repeat(x0, batch, edit, start))
        )

    def _repeat(self, x0: Tensor, batch: Batch, edit: Edit, start: int) -> Tensor:
        """Return the clean latents after all passes, each from level `start` on."""
        z0, n = x0, self.model.grid(self.steps).n
        for number in range(self.repeats if start < n else 0):
            z0 = self._pass(z0, x0, batch, edit, start, self._noise(batch, x0, n, number))
        return z0

    def _pass(
        self,
        z0: Tensor,
        x0: Tensor,
        batch: Batch,
        edit: Edit,
        start: int,
        noise: Float[Tensor, "b n ..."],
    ) -> Tensor:
        """Noise z0 to level `start` and denoise it; `noise` holds the start's and each step's."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        target, null = (
            model.condition(edit.target_prompts, b),
            model.unconditional(b, self.negative),
        )
        changes = []
        if edit.masks is not None:
            changes = [KeepOutside(x0, noise[:, 0], latent_mask(edit.masks, x0))]
        return generate(
            model,
            noise_to_level(grid, z0, noise[:, 0], start),
            guided(target, null, self.guidance),
            grid=grid,
            start=start,
            eta=self.eta,
            noise=lambda i: noise[:, i + 1],
            interventions=changes,
        )

    def _noise(self, batch: Batch, x0: Tensor, n: int, number: int) -> Float[Tensor, "b n ..."]:
        """Return one pass's noise: of its start and, for a stochastic sampler, of each step."""
        shape = (n + 1 if self.eta > 0 else 1, *x0.shape[1:])
        stream = "sdedit" if number == 0 else f"sdedit/{number}"
        return self.streams.normal(stream, batch.ids, shape, x0.device)


class SDEditTranslation(TranslatingEditor, SDEdit):
    """SDEdit by a model of another domain: the source is noised, that model denoises it.

    Source: as for `SDEdit`; section 4 makes images of strokes in this way. The cell's own model
    takes no part: nothing has to be known of the source's domain. Captions, where the target model
    takes any, are the source's own.

    Args:
        steps: sampling steps; default: the target model's.
        guidance: guidance scale towards the caption.
        negative: prompt that guidance leads away from; default: the empty condition.
        eta: stochasticity of the sampler.
        repeats: passes, each with fresh noise, from the last one's result.
        target_model: a yaml of conf/model: the denoiser of the other domain.
        max_strength: largest strength of a benchmark's curve; 1 starts from pure noise.

    Raises:
        Incompatible: the target model's images have another size, or it reads no prompts that
            `guidance` or `negative` are about.

    Example:
        >>> editor = SDEditTranslation(target_model="faces_lines", max_strength=0.5)
    """

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance = 1.0,
        negative: str | None = None,
        eta: Share = 0.0,
        repeats: Count = 1,
        target_model: Name = "faces_lines",
        max_strength: Annotated[float, above(0), at_most(1)] = 0.5,
    ) -> None:
        super().__init__(
            steps=steps, guidance=guidance, negative=negative, eta=eta, repeats=repeats,
            max_strength=max_strength,
        )  # fmt: skip
        self.target_model = target_model

    def attach(
        self,
        model: DiffusionModel,
        streams: Streams,
        cache: Cache,
        parts: Mapping[str, Any] | None = None,
        fitting: Fitting | None = None,
    ) -> None:
        """Give the editor the target model in the place of the cell's."""
        target = (parts or {})["target_model"]
        if target.image_size != model.image_size:
            raise Incompatible(
                f"the target model's images have {target.image_size} pixels a side, the source "
                f"model's {model.image_size}; take two models of one size"
            )
        if Capability.PROMPTS not in target.gives and (self.guidance != 1 or self.negative):
            raise Incompatible(
                f"method.guidance={self.guidance:g} and method.negative={self.negative!r} are "
                f"about prompts, and target_model={self.target_model} reads none; take guidance 1 "
                f"and negative null"
            )
        super().attach(target, streams, cache, parts, fitting)

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse strengths of less than a step, of which the target model says how many."""
        super().check(data, self.steps, strengths)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the target model's images, under captions where it takes any."""
        told = (
            edit if Capability.PROMPTS in self.model.gives else replace(edit, target_prompts=None)
        )
        return super().edit(batch, told, strengths)
