"""E-TSDM: early timesteps share what the network is told of the time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel, LowRank
from latentbench.models.time_nodes import left_ends
from latentbench.parameterization import Grid
from latentbench.sampling.loop import (
    Step,
    Term,
    denoise,
    generate,
    guided,
    noise_to_level,
    plain,
    predict,
)
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.adapters import EVERY, Adapted, first_down, layers_of
from methods.directions.fit_images import refuse_too_few

TOLD_THE_TIME = (*EVERY, ".time_emb_proj")  # layers that are tuned
DOWN, UP = "down/", "up/"


class Early(Adapted):
    """Low-rank changes of weights below a time.

    Args:
        changes: by linear layer.
        below: the time.
    """

    def __init__(self, changes: Mapping[str, LowRank], below: float) -> None:
        super().__init__(changes)
        self.below = below

    def active(self, step: Step) -> bool:
        """Return whether the step starts below the time."""
        return step.timestep < self.below


class EarlyTimeShared(Editor[DiffusionModel]):
    """Tells the network f(t) in place of t: the left end of t's block, where t < t_tilde.

    Source: "Lipschitz Singularities in Diffusion Models", the early timestep-shared model (E-TSDM).
    There are n blocks of one length in [0, t_tilde); elsewhere f(t) = t. Noise levels and the
    sampler's coefficients are those of t. Training loss: E ||eps - eps(x_t, f(t))||^2.

    Inside a block the network does not depend on t, so that its Lipschitz constant in t is 0 there,
    while that of a network which is told t grows as t goes to 0; `time_sensitivity` measures it.

    Deviations: a trained model is tuned, not a new one trained; by low-rank changes of attention
    and of what reads the time, which act below t_tilde alone, and so learn from times below it
    alone. Above it the model is untouched. One level for all images of a step. A sampler whose
    steps below t_tilde lie at the blocks' left ends is refused: it would not show the sharing (50
    steps of 1000 visit 0, 20, 40, 60, 80).

    Args:
        below: t_tilde, in the model's timesteps.
        blocks: n; 0 shares nothing: the control that is tuned as long.
        images: of the generators' split; the cell's seed chooses them.
        batch: images of one step.
        iterations: steps of Adam.
        learning_rate: of Adam.
        rank: of each change.
        levels: noise levels that training draws from: all of the schedule, or those that its
            spacing has room for.
        steps: sampling steps.
        guidance: guidance scale; default: the model's.

    Raises:
        BadInput: a batch of more images than there are.

    Example:
        >>> method = EarlyTimeShared(below=100, blocks=5)
        >>> # method.fit(data, []); method.generate(("a",), None)
    """

    paper = "Lipschitz Singularities in Diffusion Models, early timestep-shared diffusion"
    scope = "model"
    small: ClassVar[Mapping[str, Any]] = {
        "below": 500, "blocks": 2, "images": 4, "batch": 2, "iterations": 2, "steps": 5,
    }  # fmt: skip
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "generate": frozenset({Space.NOISE, Space.WEIGHTS})
    }

    def __init__(
        self,
        *,
        below: Positive = 100.0,
        blocks: Annotated[int, between(0, 10_000)] = 5,
        images: Count = 256,
        batch: Count = 16,
        iterations: Count = 200,
        learning_rate: Positive = 1e-3,
        rank: Annotated[int, between(1, 1024)] = 4,
        levels: Steps = 999,
        steps: Steps = 100,
        guidance: Guidance | None = None,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        self.below, self.blocks, self.images, self.batch = below, blocks, images, batch
        self.iterations, self.learning_rate, self.rank = iterations, learning_rate, rank
        self.levels, self.steps, self.guidance = levels, steps, guidance
        self.changes_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Tune the network for times that it is told a block at a time.

        Raises:
            BadInput: the sampler's steps do not show it, or no level of the training is early.
        """
        self._sampled()
        model, grid = self.model, shared(self.model.grid(self.levels), self.below, self.blocks)
        early = (grid.timesteps < self.below).nonzero().flatten()
        if not len(early):
            raise BadInput(
                f"none of method.levels={self.levels} noise levels is below method.below="
                f"{self.below:g}, the earliest is at {float(grid.timesteps.min()):g}; raise either"
            )
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        learned = {k: v.to(model.device).requires_grad_() for k, v in self._first().items()}
        adam = torch.optim.Adam(learned.values(), self.learning_rate)
        for step in self.fitting.steps("etsdm", self.iterations, learned, adam):
            draw = f"etsdm/{step}"
            rows = self.streams.choice(f"{draw}/images", len(chosen), self.batch)
            batch = data.batch("generator", [chosen[k] for k in rows])
            with torch.no_grad():
                z0, told = model.encode(batch.images.to(model.device)), self._told(batch)
            drawn = torch.randint(len(early), (), generator=self.streams.generator(draw, "level"))
            level = int(early[drawn])
            eps = self.streams.normal(draw, batch.ids, z0.shape[1:], z0.device)
            _, found = denoise(
                model, noise_to_level(grid, z0, eps, level), plain(told),
                grid=grid, level=level, interventions=[self._early(learned)],
            )  # fmt: skip
            adam.zero_grad()
            (eps - found).square().mean().backward()
            adam.step()
        self.changes_ = {name: value.detach() for name, value in learned.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the changes: ``down/LAYER`` ``[1, r, in]`` and ``up/LAYER`` ``[1, out, r]``."""
        return self.changes_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the changes back."""
        self.changes_ = {name: value.to(self.model.device) for name, value in state.items()}

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given.

        Raises:
            BadInput: nothing is fitted, or the sampler's steps do not show it.
        """
        if not self.changes_:
            raise BadInput("etsdm has tuned nothing yet; call fit, or load_state")
        model, parts = self.model, dict(self.model.prior(self.streams, ids).parts)
        if noise is not None:
            parts[Space.NOISE] = noise
        latent = Latent(parts, prompts=None if prompts is None else tuple(prompts))
        scale = model.guidance if self.guidance is None else self.guidance
        terms = guided(model.condition_of(latent), model.unconditional(len(ids)), scale)
        x, early = parts[Space.NOISE].to(model.device), self._early(self.changes_)
        return model.decode(generate(model, x, terms, grid=self._sampled(), interventions=[early]))

    def _sampled(self) -> Grid:
        """Return the sampler's levels, with times as the network is told them."""
        grid = self.model.grid(self.steps)
        told, early = shared(grid, self.below, self.blocks), grid.timesteps < self.below
        if bool(early.all()):
            raise BadInput(
                f"method.below={self.below:g} is not within this model's times, "
                f"{float(grid.timesteps.min()):g} to {float(grid.timesteps.max()):g}; lower it"
            )
        if not bool(early.any()):
            raise BadInput(
                f"none of the {self.steps} steps starts below method.below={self.below:g}, the "
                f"last is at {float(grid.timesteps.min()):g}; raise method.steps or method.below"
            )
        if self.blocks and torch.equal(told.timesteps, grid.timesteps):
            raise BadInput(
                f"{self.steps} steps visit the times {grid.timesteps[early].tolist()} below "
                f"{self.below:g}, none of which is told otherwise in {self.blocks} blocks; take "
                f"another number of steps or of blocks"
            )
        return told

    def _told(self, batch: Batch) -> Condition:
        """Return the condition of images: captions or codes, as far as the model takes any."""
        prompts = batch.prompts if Capability.PROMPTS in self.model.gives else None
        known = Latent(self.model.code_of(batch.images).parts, prompts=prompts)
        if not len(known):
            return self.model.unconditional(len(batch))
        return self.model.condition_of(known)

    def _early(self, learned: Mapping[str, Tensor]) -> Early:
        names = [name.removeprefix(DOWN) for name in learned if name.startswith(DOWN)]
        changes = {n: LowRank(learned[DOWN + n], learned[UP + n]) for n in names}
        return Early(changes, self.below)

    def _first(self) -> dict[str, Tensor]:
        """Return changes that change nothing yet."""
        layers = layers_of(self.model, TOLD_THE_TIME)
        down = first_down(layers, 1, self.rank, self.streams, "etsdm/down")
        found = {DOWN + name: value for name, value in down.items()}
        return found | {UP + n: torch.zeros(1, out, self.rank) for n, (_, out) in layers.items()}


def shared(grid: Grid, below: float, blocks: int) -> Grid:
    """Return the same levels, of which the network is told f(t); none is shared by 0 blocks.

    Example:
        >>> grid = Grid(torch.tensor([150, 99, 39, 20]), torch.ones(5), torch.ones(5))
        >>> shared(grid, 100, 5).timesteps.tolist()
        [150, 80, 20, 20]
    """
    if blocks == 0:
        return grid
    nodes = [below * k / blocks for k in range(blocks + 1)]
    return replace(grid, timesteps=left_ends(grid.timesteps, nodes))


def time_sensitivity(
    model: DiffusionModel,
    grid: Grid,
    z0: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    terms: Sequence[Term],
    levels: Sequence[int],
) -> Float[Tensor, "k b"]:
    """Return K = ||eps(x_t, t) - eps(x_t, t')|| / (sqrt(d) |t - t'|) for each level and image.

    t' is the time of the next noisier level, x_t is the same in both, and d its size.

    Args:
        model: the denoiser.
        grid: levels; of `shared` to see what sharing does.
        z0: clean latents.
        noise: one for all levels.
        terms: what the network is told besides the time.
        levels: which levels, 1 to n - 1.
    """
    found, plainly = [], model.grid(grid.n)
    for level in levels:
        x = noise_to_level(grid, z0, noise, level)
        times = [grid.timesteps[k].item() for k in (level, level - 1)]
        here, there = (predict(model, x, grid, level, terms, t)[1] for t in times)
        apart = float(plainly.timesteps[level - 1] - plainly.timesteps[level])
        found.append((here - there).flatten(1).square().mean(1).sqrt() / apart)
    return torch.stack(found)
