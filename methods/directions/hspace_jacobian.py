"""Spectral directions in h-space: those in which the bottleneck changes the prediction most."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Name, Positive, Share, Steps, below
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.model import Convention, DiffusionModel
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import Intervention, Recorder, Step, denoise, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.part_mask import masks_for, part_mask
from methods.directions.singular import singular_directions

VECTORS, VALUES = "vectors", "values"


class AddToBottleneck(Intervention):
    """Adds a map to h_t, at every step a multiple of it.

    Args:
        change: map of each row.
        scale: factor of each row and step.
    """

    def __init__(
        self, change: Float[Tensor, "b ..."], scale: Float[Tensor, "b n"] | None = None
    ) -> None:
        self.change, self.scale = change, scale

    def bottleneck(self, step: Step, h: Float[Tensor, "k b ..."]) -> Float[Tensor, "k b ..."]:
        """Return h_t with its multiple of the change."""
        if self.scale is None:
            return h + self.change
        return h + self.scale[:, step.index].reshape(1, -1, *[1] * (h.dim() - 2)) * self.change


class HSpaceJacobian(Editor[DiffusionModel]):
    """Right singular vectors of d eps / d h at one step, injected at all steps.

    Source: "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models",
    section on unsupervised image-specific directions. J_t = d eps(x_t, h) / d h at h = h_t, x_t and
    what reaches the decoder beside h held fixed, inside a part of the image where one is given.
    dh_t = g s_{j,t} v_{j,t*}: the j-th direction of the step t*, at every step as long as the j-th
    singular value there.

    - `transferred`: the directions of one image of the generators' split move all images.
    - `own`: every image's own directions, the source's use.

    A direction is asked for by its number, the strongest first. Strength is g, 0 the
    reconstruction. Deviations: a direction has the sign that raises the mean of the predicted
    noise in the part; images are inverted under the empty prompt and sampled with eta 0.

    Args:
        variant: whose directions.
        part: part of the image in which the prediction is looked at; null: all of it.
        rank: directions.
        at: t*, as a share of the steps that lie behind.
        iterations: of the subspace iteration, at most.
        tolerance: of its convergence.
        convention: timestep that the network receives while inverting.
        steps: sampling steps; default: the model's.
        max_strength: largest g of a benchmark's curve.

    Example:
        >>> editor = HSpaceJacobian(part="mouth")  # editor.fit(data, []); editor.edit(...)
    """

    paper = (
        "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models, 4, "
        "image-specific directions"
    )
    numbered = True
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"rank": 2, "iterations": 2}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {  # what a fit works in
        verb: frozenset({Space.NOISE, Space.BOTTLENECK}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        variant: Literal["transferred", "own"] = "transferred",
        part: Name | None = None,
        rank: Count = 8,
        at: Annotated[Share, below(1)] = 0.6,
        iterations: Count = 10,
        tolerance: Positive = 1e-3,
        convention: Convention = "matched",
        steps: Steps | None = None,
        max_strength: Positive = 80.0,
    ) -> None:
        self.variant, self.part, self.rank, self.at = variant, part, rank, at
        self.iterations, self.tolerance, self.steps = iterations, tolerance, steps
        self.convention: Convention = convention
        self.max_strength = max_strength
        self.learned_: dict[str, Tensor] = {}
        self._noise: Streams | None = None

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what it asks for, and a part's mask where there is a part."""
        spaces, needs = super().required(verbs, config)
        return spaces, needs | masks_for(verbs, config)

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return the rank."""
        return int(config.get("rank", 8))

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Find the directions of one image, the cell's seed's choice, for all others."""
        if self.variant == "transferred":
            chosen = self.streams.choice("fit/images", data.size("generator"), 1)
            found = self._spectrum(data.batch("generator", chosen), self.fitting)
            self.learned_ = {name: value[0] for name, value in found.items()}

    def state(self) -> dict[str, Tensor]:
        """Return directions ``[k, ...]`` and singular values ``[n, k]`` of one image."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self.learned_ = {name: value.to(self.model.device) for name, value in state.items()}

    def randomise(self, streams: Streams) -> None:
        """Put random unit vectors in the place of directions; singular values stay."""
        self._noise = streams

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the empty prompt."""
        settings = {"steps": self.steps, "convention": self.convention}
        return Latent({Space.NOISE: ddim_invert(self.model, batch, self.cache, **settings)})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the direction of the edit's number at each strength."""
        if edit.component is None or not 0 <= edit.component < self.rank:
            raise BadInput(
                f"edit {edit.name!r} asks for no direction of hspace_jacobian, which are asked for "
                f"by number, 0 to {self.rank - 1}; take benchmark=direction_discovery"
            )
        j, b, s = edit.component, len(batch), len(strengths)
        v, values = self._directions(batch)
        v, values = (part.repeat_interleave(s, 0) for part in (v[:, j], values[:, :, j]))
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(s, 0)
        g = edit.sign * strengths.to(x).repeat(b)
        images = self.model.sample(
            Latent({Space.NOISE: x}), guidance=1.0, steps=self.steps,
            interventions=[AddToBottleneck(v, g[:, None] * values)],
        )  # fmt: skip
        return images.unflatten(0, (b, s))

    def _directions(self, batch: Batch) -> tuple[Float[Tensor, "b k ..."], Float[Tensor, "b n k"]]:
        """Return the directions and singular values of each image, or one image's for all."""
        if self.variant == "own":
            key = content_hash(
                self.version, self.model.fingerprint(), self.steps, batch.images, self.convention,
                part_mask(batch, self.part), self.rank, self.at, self.iterations, self.tolerance,
                self.streams.seed,
            )  # fmt: skip
            found = self.cache.get_or_make("hspace_jacobian", key, lambda: self._spectrum(batch))
            v, values = (found[name].to(self.model.device) for name in (VECTORS, VALUES))
        elif not self.learned_:
            raise BadInput("HSpaceJacobian has learned nothing yet; call fit, or load_state")
        else:
            v, values = (
                self.learned_[name].expand(len(batch), *self.learned_[name].shape)
                for name in (VECTORS, VALUES)
            )
        return (v if self._noise is None else self._drawn(v, batch)), values

    def _drawn(self, v: Float[Tensor, "b k ..."], batch: Batch) -> Float[Tensor, "b k ..."]:
        """Return unit vectors at random: one set for all images, or every image's own."""
        assert self._noise is not None
        ids = batch.ids if self.variant == "own" else ("all",) * len(batch)
        drawn = self._noise.normal("random/hspace_jacobian", ids, v.shape[1:], v.device)
        return F.normalize(drawn.flatten(2), dim=2).reshape(v.shape)

    def _spectrum(self, batch: Batch, fitting: Fitting | None = None) -> dict[str, Tensor]:
        """Return each image's directions at t* and its singular values at all steps."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        x, told = self.invert(batch).parts[Space.NOISE], plain(model.unconditional(b))
        recorder = Recorder(bottleneck=True)
        with torch.no_grad():
            generate(model, x, told, grid=grid, interventions=[recorder])
        mask = part_mask(batch, self.part)
        if mask is not None:
            mask = latent_mask(mask[:, 0].to(x.device), x)
        h, n = recorder.h[0], grid.n
        rows = [str(k) for k in range(self.rank)]
        start = self.streams.normal("hspace_jacobian/start", rows, h.shape[1:], x.device)
        found = {
            VECTORS: h.new_zeros(b, self.rank, *h.shape[1:]),
            VALUES: h.new_zeros(b, n, self.rank),
        }
        run = {"iterations": self.iterations, "tolerance": self.tolerance}
        for i in (fitting or Fitting(None)).steps("hspace_jacobian", n, found):
            function = self._prediction(recorder.x[i], i, mask)
            with model.differentiable_attention():
                v, s = singular_directions(function, torch.zeros_like(recorder.h[i]), start, **run)
            found[VALUES][:, i] = s
            if i == int(self.at * n):
                found[VECTORS].copy_(v)
        return found

    def _prediction(
        self, x: Float[Tensor, "b ..."], level: int, mask: Float[Tensor, "b 1 ..."] | None
    ) -> Callable[[Tensor], Tensor]:
        """Return the function from a change of h to the predicted noise, inside a mask."""
        told = plain(self.model.unconditional(len(x)))
        settings = {"grid": self.model.grid(self.steps), "level": level}

        def eps(change: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
            interventions = [AddToBottleneck(change)]
            _, found = denoise(self.model, x, told, **settings, interventions=interventions)
            return found if mask is None else found * mask

        return eps
