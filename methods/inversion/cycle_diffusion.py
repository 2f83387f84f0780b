"""DPM-Encoder and CycleDiffusion: noise maps along one sampled chain of the forward process."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from latentbench.bounds import Count, Guidance, Name, Positive, Steps
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, Incompatible
from latentbench.model import DiffusionModel, LatentModel
from latentbench.option import Option
from latentbench.parameterization import Grid, whole_steps
from latentbench.sampling.loop import plain
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.inversion.noise_maps import Eta, NoiseMapEditor, Skip


class CycleDiffusion(NoiseMapEditor):
    """Noise maps of a chain: x_T ~ q(x_T | x_0), then x_{i-1} ~ q(x_{i-1} | x_i, x_0).

    Source: "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and
    Guidance", sections 3.1 (DPM-Encoder) and 3.2 (CycleDiffusion). With n ~ N(0, I), new at
    each level, and s_i = eta (sigma_{i-1} / sigma_i) sqrt(sigma_i^2 - (alpha_i / alpha_{i-1})^2
    sigma_{i-1}^2):

        1. x_T     = alpha_T x_0 + sigma_T n
        2. x_{i-1} = alpha_{i-1} x_0 + sqrt(sigma_{i-1}^2 - s_i^2) r + s_i n,
           r = (x_i - alpha_i x_0) / sigma_i;  the last is x_0 itself
        3. z_i     = (x_{i-1} - mu_i(x_i)) / s_i            encoding: the code is x_T and all z_i
        4. x_{i-1} = mu_i(x_i) + s_i z_i                    decoding

    mu_i is the mean of the sampler's own step, in 3 under the source prompt. The code is close to
    N(0, I); its deviation measures the model's denoising error per level. An edit decodes it under
    another prompt or, with a `target_model`, by a model of another domain: both models have the
    same levels and the same latents, and no prompt is needed.
    Deviations: the chain needs no network, so the means of all timesteps are evaluated in one
    batch; one trial, never the best of many; between prompts the strength axis is that of
    `NoiseMapEditor`, between models it is the share of the kept steps that the target model makes,
    the last ones (the paper's early stop): 0 leaves the image to the source model.

    Args:
        steps: sampling steps; default: the model's.
        eta: 0.1 as published; one number, or one per step, noisiest first.
        skip: how many of the noisiest steps are left out, as a count (12) or as a share of the
            steps (0.3).
        guidance_source: guidance while encoding.
        guidance_target: guidance at strength 1.
        target_model: a yaml of conf/model that decodes; None is the cell's own model.
        max_strength: largest strength of a benchmark's curve; with a target model at most 1.

    Example:
        >>> editor = CycleDiffusion(eta=0.1)  # editor.decode(editor.invert(batch))
    """

    paper = "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion, sec. 3"
    version = 2
    others: ClassVar[Mapping[str, str]] = {"target_model": "model"}

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Eta | Sequence[Eta] = 0.1,
        skip: Skip = 0.3,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 3.0,
        target_model: Name | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        if target_model is not None and max_strength > 1:
            raise BadInput(
                f"max_strength {max_strength:g}: a target model makes at most all steps, which is "
                f"strength 1; give 1 or less"
            )
        super().__init__(
            steps=steps, eta=eta, skip=skip, guidance_source=guidance_source,
            guidance_target=guidance_target, max_strength=max_strength,
        )  # fmt: skip
        self.target_model = target_model

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what is asked of model and data: another model takes the place of prompts."""
        spaces, needs = super().required(verbs, config)
        if config.get("target_model") is None:
            return spaces, needs
        needs = needs - {Capability.PROMPTS, Capability.TARGET_PROMPTS}
        return spaces - {Space.TEXT}, needs | {Capability.SECOND_MODEL}

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the target model cannot decode noise maps, or None."""
        target = others.get("target_model")
        if target is None or Space.NOISE_MAPS in target.cls.spaces:
            return None
        return f"target_model={target.name} ({target.cls.__name__}) lacks the space noise_maps"

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse what every such editor refuses, and shares of a translation below a step."""
        super().check(data, steps, strengths)
        if self.target_model is not None and steps is not None:
            for strength in strengths:
                _steps_of(strength, steps - self.start(steps))

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under prompts between source and target, or by another model."""
        target = self.parts.get("target_model")
        if target is None:
            return super().edit(batch, edit, strengths)
        refuse_other_levels(self.model, target, self.steps)
        code, grid = self.invert(batch), self.model.grid(self.steps)
        x = self.draw_levels(grid, self.model.encode(batch.images), batch, code.start)
        n = grid.n - code.start
        kept = [_steps_of(strength, n) for strength in strengths.tolist()]
        models = {k: target if k else self.model for k in kept}
        made = {k: self._translated(model, code, x, k, edit) for k, model in models.items()}
        return torch.stack([made[k] for k in kept], 1)

    def effective_strength(self, strength: float) -> float:
        """Return the share of the kept steps that a target model makes."""
        if self.target_model is None:
            return strength
        grid = self.model.grid(self.steps)
        n = grid.n - self.start(grid.n)
        return whole_steps(strength, n) / n

    def _translated(
        self, model: DiffusionModel, code: Latent, x: Float[Tensor, "b l ..."], k: int, edit: Edit
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images after the last k steps by a model, from where the chain was then."""
        if k == 0:
            return model.decode(x[:, -1])
        maps = code.parts[Space.NOISE_MAPS]
        parts = {Space.NOISE: x[:, -1 - k], Space.NOISE_MAPS: maps[:, -k:]}
        late = replace(code, parts=parts, start=code.start + maps.shape[1] - k)
        if Capability.PROMPTS not in model.gives:
            return self._images(model, late, plain(model.condition_of(late)))
        terms = self._terms(model, late, edit.target_prompts, torch.ones(1))
        return self._images(model, late, terms)

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n along one chain of q(x_{i-1} | x_i, x_0)."""
        shape = (grid.n - start, *x0.shape[1:])
        noise = self.streams.normal("cycle_diffusion", batch.ids, shape, x0.device)
        alpha, sigma = grid.levels(start, x0)
        levels = [alpha * x0 + sigma * noise[:, 0]]  # 1.
        for i in range(start, grid.n - 1):
            alpha, sigma = grid.levels(i, x0)  # 2. here i counts the steps: i + 1 is cleaner
            r = (levels[-1] - alpha * x0) / sigma
            s = grid.noise_std(i, self.eta, x0)
            alpha, sigma = grid.levels(i + 1, x0)
            mean = alpha * x0 + (sigma**2 - s**2).clamp(min=0).sqrt() * r
            levels.append(mean + s * noise[:, i - start + 1])
        return torch.stack([*levels, x0], 1)


class SelectedCycleDiffusion(CycleDiffusion):
    """CycleDiffusion with several codes of each image, of which a scorer takes the best edit.

    Source: as for `CycleDiffusion`, whose published figures take the best of 540 candidates by the
    cosine of scorer(output) - scorer(source) with scorer(target prompt) - scorer(source prompt).
    Here as many codes as `trials` are drawn, each strength has its own best one, and 0 is the
    first code's reconstruction. The scorer is no judge of the scores. Deviation: guidance and skip
    are settings, not candidates.

    Args:
        steps: sampling steps; default: the model's.
        eta: 0.1 as published; one number, or one per step, noisiest first.
        skip: how many of the noisiest steps are left out, as a count or as a share of the steps.
        guidance_source: guidance while encoding.
        guidance_target: guidance at strength 1.
        trials: codes per image.
        scorer: a yaml of conf/scorer.
        max_strength: largest strength of a benchmark's curve.

    Example:
        >>> editor = SelectedCycleDiffusion(trials=15)
    """

    paper = "Unifying Diffusion Models' Latent Space, sec. 3, the best of several trials"
    version = 1
    small: ClassVar[Mapping[str, int]] = {"trials": 2}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": CycleDiffusion.needs["edit"] | {Capability.SCORER}
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Eta | Sequence[Eta] = 0.1,
        skip: Skip = 0.3,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 3.0,
        trials: Count = 15,
        scorer: Name = "clip1",
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, eta=eta, skip=skip, guidance_source=guidance_source,
            guidance_target=guidance_target, max_strength=max_strength,
        )  # fmt: skip
        self.trials, self.scorer = trials, scorer

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the best edit of each image at each strength."""
        best, highest = super().edit(batch, edit, strengths), None
        for k in range(1, self.trials):
            ids = tuple(f"{i}/trial {k}" for i in batch.ids)  # whose noise is another one
            images = super().edit(replace(batch, ids=ids), edit, strengths)
            highest = self.fit_of(best, batch, edit) if highest is None else highest
            score = self.fit_of(images, batch, edit)
            better = (score > highest) & (strengths != 0).to(score.device)
            best = torch.where(better[..., None, None, None], images, best)
            highest = torch.where(better, score, highest)
        return best

    def fit_of(
        self, images: Float[Tensor, "b s 3 h w"], batch: Batch, edit: Edit
    ) -> Float[Tensor, "b s"]:
        """Return the cosine between the changes of images and of captions."""
        assert batch.prompts is not None and edit.target_prompts is not None
        scorer = self.parts["scorer"]
        told = scorer.text(edit.target_prompts) - scorer.text(batch.prompts)
        seen = scorer.image(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        change = seen - scorer.image(batch.images)[:, None]
        return cosine_similarity(change, told[:, None], -1)


def _steps_of(strength: float, n: int) -> int:
    """Return how many of n steps are a share of them."""
    k = whole_steps(strength, n)
    if strength > 1 or (k == 0 and strength > 0):
        raise BadInput(f"strength {strength:g} is not 1 to {n} of {n} steps; use {1 / n:g} to 1")
    return k


def refuse_other_levels(source: DiffusionModel, target: DiffusionModel, steps: int | None) -> None:
    """Refuse two models of which one cannot decode what the other has encoded.

    Raises:
        Incompatible: their latents have other shapes, or their noise levels differ.
    """
    if source.latent_shape != target.latent_shape:
        raise Incompatible(
            f"the target model's latents are {target.latent_shape}, the source model's "
            f"{source.latent_shape}; take two models of one latent space"
        )
    a, b = source.grid(steps), target.grid(steps)
    if not (torch.equal(a.alpha, b.alpha) and torch.equal(a.sigma, b.sigma)):
        raise Incompatible(
            f"the target model's sampler has other noise levels than the source model's ({b.n} and "
            f"{a.n} steps); set method.steps, and take two models of one schedule"
        )
