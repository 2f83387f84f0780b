"""LOCO Edit: the strongest directions of the posterior mean, off those of the rest of the image."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Name, Positive, Share, Steps, above, below, between
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.model import Condition, Convention, DiffusionModel
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import Term, generate, plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.part_mask import masks_for, part_mask
from methods.directions.singular import singular_directions

DIRECTIONS = "directions"


class SubspaceEdit(Editor[DiffusionModel]):
    """Moves x_t once, along a singular vector of the Jacobian of the predicted image.

    Source: "Exploring Low-Dimensional Subspaces in Diffusion Models for Controllable Image Editing"
    (LOCO Edit), algorithms 1 and 2. J = d x0_hat / d x_t at the step t_edit, inside a region where
    there is one. v is a right singular vector of J; Vn, the strongest of those of the rest of the
    image, are projected out: v' = v - Vn (Vn^T v), normalised; x_t' = x_t + lambda v'. The last
    steps, t <= t_boost, are stochastic (eta 1).

    - `transferred`: the vectors of one image of the generators' split move all images.
    - `own`: every image's own vectors.
    - `text`: v = J^T (x0_hat under the edit's text - x0_hat under the caption) (T-LOCO).

    Vectors are asked for by number, the strongest first; a text's has none. Strength is lambda in
    units of the root of x_t's dimension, 0 the reconstruction; 8 at 256 px is .018.
    Deviations: a vector has the sign that makes the region brighter; convergence is that of
    |<v, v'>|, as the elementwise test of the published code fails when a sign turns; J of `text` is
    taken under the caption alone; a vector's number is not changed by the projection.

    Args:
        variant: whose Jacobian, or the text's direction.
        part: part of the image in which directions act; null: all of it, without a projection.
        rank: directions.
        null_rank: directions of the rest that are projected out; 0: none.
        t_edit: time, as a share of the schedule, at which x_t is moved.
        t_boost: time below which the sampler is stochastic; 0: never.
        iterations: of the subspace iteration, at most.
        tolerance: of its convergence.
        guidance_edit: w_e, scale of the edit's text.
        convention: timestep that the network receives while inverting.
        steps: sampling steps; default: the model's.
        max_strength: largest strength of a benchmark's curve.

    Example:
        >>> editor = SubspaceEdit(part="mouth")  # editor.fit(data, []); editor.edit(...)
    """

    paper = "Exploring Low-Dimensional Subspaces in Diffusion Models (LOCO Edit), algorithms 1, 2"
    numbered = True
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"rank": 2, "null_rank": 1, "iterations": 3}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        variant: Literal["transferred", "own", "text"] = "transferred",
        part: Name | None = None,
        rank: Count = 8,
        null_rank: Annotated[int, between(0, 1_000_000)] = 8,
        t_edit: Annotated[Share, above(0), below(1)] = 0.6,
        t_boost: Share = 0.2,
        iterations: Count = 20,
        tolerance: Positive = 1e-3,
        guidance_edit: Positive = 4.0,
        convention: Convention = "matched",
        steps: Steps | None = None,
        max_strength: Positive = 0.1,
    ) -> None:
        if t_boost > t_edit:
            raise BadInput(f"t_boost {t_boost:g} is above t_edit {t_edit:g}; the boost comes last")
        self.variant, self.part, self.rank, self.null_rank = variant, part, rank, null_rank
        self.t_edit, self.t_boost, self.iterations = t_edit, t_boost, iterations
        self.tolerance, self.guidance_edit, self.steps = tolerance, guidance_edit, steps
        self.convention: Convention = convention
        self.max_strength = max_strength
        self.directions_: Tensor | None = None
        self._noise: Streams | None = None

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the paper, and its name for directions of a text."""
        paper = super().paper_of(config)
        return f"{paper}, T-LOCO" if config.get("variant") == "text" else paper

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what the variant asks for, a part's mask and the boost's noise as well."""
        spaces, needs = super().required(verbs, config)
        if spaces and config.get("t_boost", 0.2) > 0:
            spaces |= {Space.NOISE_MAPS}
        if spaces and config.get("variant") == "text":
            spaces |= {Space.TEXT}
            needs |= {Capability.PROMPTS}
            if "edit" in verbs:
                needs |= {Capability.TARGET_PROMPTS}
        return spaces, needs | masks_for(verbs, config)

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return the rank; what a text asks for is no direction found by itself."""
        return 0 if config.get("variant") == "text" else int(config.get("rank", 8))

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a step of the edit at either end of the schedule."""
        if steps is not None and not 0 < round((1 - self.t_edit) * steps) < steps:
            raise BadInput(
                f"method.t_edit={self.t_edit:g} is an end of the {steps} sampling steps; give a "
                f"share nearer to .5, or more steps"
            )

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Find the directions of one image, the cell's seed's choice, for all others."""
        if self.variant != "transferred":
            return
        batch = data.batch(
            "generator", self.streams.choice("fit/images", data.size("generator"), 1)
        )
        x = self.invert(batch).parts[Space.NOISE]
        self.directions_ = self._vectors(batch, x, self.fitting)[0]

    def state(self) -> dict[str, Tensor]:
        """Return the directions; every image's own ones are not kept."""
        return {} if self.directions_ is None else {DIRECTIONS: self.directions_}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the directions back."""
        self.directions_ = state[DIRECTIONS].to(self.model.device) if state else None

    def randomise(self, streams: Streams) -> None:
        """Put random unit vectors in the place of directions; every image's own likewise."""
        if self.variant == "own":
            self._noise = streams
        else:
            super().randomise(streams)

    def invert(self, batch: Batch) -> Latent:
        """Return x at the step of the edit, and the noise of the stochastic steps."""
        prompts = batch.prompts if self.variant == "text" else None
        x = ddim_trajectory(
            self.model, batch, self.cache, steps=self.steps, convention=self.convention,
            condition=self._condition(prompts, len(batch)),
        )[:, self._level()]  # fmt: skip
        parts, first, n = {Space.NOISE: x}, self._boosted(), self.model.grid(self.steps).n
        if self.t_boost > 0:
            ids = [f"{name}/{i}" for name in batch.ids for i in range(first, n)]
            z = self.streams.normal("subspace_edit/boost", ids, x.shape[1:], x.device)
            parts[Space.NOISE_MAPS] = z.reshape(len(x), n - first, *x.shape[1:])
        return Latent(parts, start=self._level(), prompts=prompts)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of a code."""
        model, grid, first = self.model, self.model.grid(self.steps), self._boosted()
        z = latent.parts.get(Space.NOISE_MAPS)
        found = generate(
            model,
            latent.parts[Space.NOISE],
            plain(self._condition(latent.prompts, len(latent))),
            grid=grid,
            start=latent.start,
            eta=0.0 if z is None else [float(i >= first) for i in range(grid.n)],
            noise=None if z is None else lambda i: z[:, i - first],
        )
        return model.decode(found)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images moved along the direction of the edit's number, or of its text."""
        latent, s = self.invert(batch), len(strengths)
        x = latent.parts[Space.NOISE]
        sign = 1 if self.variant == "text" else edit.sign
        v = self._direction(batch, edit, x).expand_as(x).repeat_interleave(s, 0)
        size = sign * strengths.to(x).repeat(len(x)) * math.sqrt(x[0].numel())
        rows = {k: part.repeat_interleave(s, 0) for k, part in latent.parts.items()}
        rows[Space.NOISE] = rows[Space.NOISE] + size.reshape(-1, *[1] * (x.dim() - 1)) * v
        prompts = latent.prompts and tuple(p for p in latent.prompts for _ in range(s))
        return self.decode(Latent(rows, latent.start, prompts)).unflatten(0, (len(x), s))

    def _direction(self, batch: Batch, edit: Edit, x: Float[Tensor, "b ..."]) -> Tensor:
        """Return a unit vector per image, or one for all."""
        if self.variant == "text":
            return self._texts_direction(batch, edit, x)
        if edit.component is None or not 0 <= edit.component < self.rank:
            raise BadInput(
                f"edit {edit.name!r} asks for no direction of subspace_edit, which are asked for "
                f"by number, 0 to {self.rank - 1}; take benchmark=direction_discovery, or "
                f"method.variant=text for an edit with captions"
            )
        if self.variant == "own":
            return self._own(batch, x)[:, edit.component]
        if self.directions_ is None:
            raise BadInput("SubspaceEdit has learned nothing yet; call fit, or load_state")
        return self.directions_[edit.component][None]

    def _own(self, batch: Batch, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b k ..."]:
        """Return every image's own directions, cached."""
        if self._noise is not None:
            shape = (self.rank, *x.shape[1:])
            drawn = self._noise.normal("random/subspace_edit", batch.ids, shape, x.device)
            return F.normalize(drawn.flatten(2), dim=2).reshape(drawn.shape)
        key = content_hash(
            self.version, self.model.fingerprint(), self.steps, x, self._mask(batch), self.rank,
            self.null_rank, self._level(), self.iterations, self.tolerance, self.streams.seed,
        )  # fmt: skip
        made = self.cache.get_or_make(
            "subspace_edit", key, lambda: {DIRECTIONS: self._vectors(batch, x)}
        )
        return made[DIRECTIONS].to(x.device)

    def _vectors(
        self, batch: Batch, x: Float[Tensor, "b ..."], fitting: Fitting | None = None
    ) -> Float[Tensor, "b k ..."]:
        """Return the unit directions of each image's region, off those of the rest."""
        mask, empty = self._mask(batch), self._condition(None, len(x))
        inside = self._posterior_mean(empty, mask)
        v = self._singular(inside, x, self.rank, "inside", fitting)
        return v if mask is None else self._projected(v, x, empty, mask, fitting)

    def _texts_direction(self, batch: Batch, edit: Edit, x: Float[Tensor, "b ..."]) -> Tensor:
        """Return J^T of the change that the edit's text makes to the predicted image."""
        b = len(x)
        source, target = (self._condition(p, b) for p in (batch.prompts, edit.target_prompts))
        mask = self._mask(batch) if edit.masks is None else edit.masks[:, None].to(x)
        inside, w = self._posterior_mean(source, mask), self.guidance_edit
        terms = (
            *plain(source),
            Term("edit", target, w),
            Term("null", self.model.unconditional(b), -w),
        )
        with torch.no_grad():
            wanted = self._posterior_mean(terms, mask)(x)
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            told = inside(at)
            (v,) = torch.autograd.grad(told, at, wanted - told.detach())
        if mask is not None:
            return self._projected(v[:, None], x, source, mask)[:, 0]
        return _unit(v[:, None])[:, 0]

    def _projected(
        self,
        v: Float[Tensor, "b k ..."],
        x: Float[Tensor, "b ..."],
        condition: Condition,
        mask: Float[Tensor, "b 1 h w"],
        fitting: Fitting | None = None,
    ) -> Float[Tensor, "b k ..."]:
        """Return v - Vn (Vn^T v), of unit length."""
        if self.null_rank == 0:
            return _unit(v)
        outside = self._posterior_mean(condition, 1 - mask)
        n = self._singular(outside, x, self.null_rank, "outside", fitting).flatten(2)
        along = torch.einsum("bkd,bnd->bkn", v.flatten(2), n)
        return _unit((v.flatten(2) - torch.einsum("bkn,bnd->bkd", along, n)).reshape(v.shape))

    def _singular(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        rank: int,
        where: str,
        fitting: Fitting | None = None,
    ) -> Float[Tensor, "b k ..."]:
        rows = [str(k) for k in range(rank)]
        start = self.streams.normal(f"subspace_edit/{where}", rows, x.shape[1:], x.device)
        run = {"iterations": self.iterations, "tolerance": self.tolerance}
        kept = {"fitting": fitting, "name": f"subspace_edit-{where}"}
        with self.model.differentiable_attention():
            return singular_directions(function, x, start, **run, **kept)[0]

    def _posterior_mean(
        self, condition: Condition | Sequence[Term], mask: Float[Tensor, "b 1 h w"] | None
    ) -> Callable[[Tensor], Tensor]:
        """Return the function from x_t to the predicted image, inside a mask."""
        terms = plain(condition) if isinstance(condition, Condition) else condition
        grid, level = self.model.grid(self.steps), self._level()

        def mean(x: Float[Tensor, "b ..."]) -> Float[Tensor, "b 3 h w"]:
            image = self.model.decode(predict(self.model, x, grid, level, terms)[0])
            return image if mask is None else image * mask

        return mean

    def _mask(self, batch: Batch) -> Float[Tensor, "b 1 h w"] | None:
        mask = part_mask(batch, self.part)
        return None if mask is None else mask.to(self.model.device)

    def _condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        return self.model.condition(prompts, rows)

    def _level(self) -> int:
        return round((1 - self.t_edit) * self.model.grid(self.steps).n)

    def _boosted(self) -> int:
        """Return the first stochastic step."""
        n = self.model.grid(self.steps).n
        return max(self._level(), round((1 - self.t_boost) * n))


def _unit(v: Float[Tensor, "b k ..."]) -> Float[Tensor, "b k ..."]:
    return F.normalize(v.flatten(2), dim=2).reshape(v.shape)
