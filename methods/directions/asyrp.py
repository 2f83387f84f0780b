"""Asyrp: a small network learns to shift h_t so that a text-image pair reads the wanted word."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Count, Name, NotNegative, Positive, Share, Steps, below
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.model import DiffusionModel
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import Intervention, Recorder, Step, denoise, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few

TIME = 128  # numbers that a timestep is told in
GROUPS = 32  # of the norm; fewer where the channels are not divisible


class Shift(nn.Module):
    """f(h_t, t): 1x1 convolution, time, group norm, SiLU, 1x1 convolution; no skip.

    Args:
        channels: of h_t.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.time = nn.Linear(TIME, channels)
        groups = next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, h: Float[Tensor, "r c h w"], timestep: float) -> Float[Tensor, "r c h w"]:
        """Return the shift of strength 1."""
        wave = get_timestep_embedding(torch.tensor([float(timestep)]), TIME).to(h)
        time = self.time(F.silu(wave))[..., None, None]
        return self.out(F.silu(self.norm(self.into(h) + time)))

    def start(self, streams: Streams, name: str) -> None:
        """Fill it as torch does, uniform up to 1 / sqrt(fan-in), from the cell's streams."""
        for key, layer in (("into", self.into), ("time", self.time), ("out", self.out)):
            reach = layer.weight[0].numel() ** -0.5
            for own, p in (("weight", layer.weight), ("bias", layer.bias)):
                assert p is not None
                draw = torch.rand(p.shape, generator=streams.generator(f"asyrp/{name}/{key}/{own}"))
                p.data = (reach * (2 * draw - 1)).to(p.device)
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)


class AddShift(Intervention):
    """h_t + c f(h_t, t), in the predicted x0 alone.

    Args:
        shift: f.
        strength: c, one number per row.
        stop: share of the steps up to which it acts.
        asymmetric: false: the direction to x_t gets it as well.
    """

    def __init__(
        self, shift: Shift, strength: Float[Tensor, " b"], stop: float, asymmetric: bool
    ) -> None:
        self.shift, self.strength = shift, strength
        self.window, self.asymmetric = (0.0, stop), asymmetric

    def bottleneck(self, step: Step, h: Float[Tensor, "k b c h w"]) -> Float[Tensor, "k b c h w"]:
        """Return h_t, shifted."""
        change = self.shift(h.flatten(0, 1), step.timestep).unflatten(0, h.shape[:2])
        return h + self.strength.to(h).reshape(1, -1, 1, 1, 1) * change


class Asyrp(Editor[DiffusionModel]):
    """An implicit direction of h-space per edit, learned from two words by a scorer.

    Source: "Diffusion Models already have a Semantic Latent Space", sections 3 and 4:
    x_{t-1} = sqrt(a_{t-1}) P_t(eps(h_t + c f)) + D_t(eps(h_t)). The shift acts while t >= t_edit,
    the last steps, t < t_boost, are stochastic (eta 1). Both chains, shifted and plain, run from
    the x_T of an image; after each step f takes one step of its optimiser, and no gradient runs
    through time. The loss is w_clip (-log((2 - L)/2)) + w_l1 cos(texts) |P~_t - P_t|_1 with
    L = 1 - cos(E(P~_t) - E(x_0), E(target) - E(source)).

    Strength is c; 0 is the reconstruction, 1 what was learned.
    Deviations: t_edit and t_boost are the published scripts' fixed shares, where the paper finds
    them by LPIPS; f is told the time in sinusoids, not in the network's own embedding; Adam in
    place of SGD; one wording per edit; training and editing take the same steps. Free tensors in
    place of f and averages over images are not implemented.

    Args:
        scorer: the text-image pair that it learns from; never a judge.
        images: of the generators' split that it learns from; the cell's seed chooses them.
        passes: times that each image is seen.
        batch: images of one step.
        learning_rate: of Adam.
        w_clip: weight of the directional loss.
        w_l1: weight of what keeps P~_t near P_t.
        t_edit: time, as a share of the schedule, down to which the shift acts.
        t_boost: time below which the sampler is stochastic; 0: never.
        symmetric: true: the shift enters the direction to x_t as well, as a control.
        steps: sampling steps; default: the model's.
        max_strength: largest c of a benchmark's curve.

    Example:
        >>> editor = Asyrp(images=16)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Diffusion Models already have a Semantic Latent Space, sections 3 and 4"
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"images": 4, "passes": 1, "batch": 2}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {  # what a fit works in
        verb: frozenset({Space.NOISE, Space.NOISE_MAPS, Space.BOTTLENECK})
        for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.SCORER}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        images: Count = 64,
        passes: Count = 4,
        batch: Count = 8,
        learning_rate: Positive = 0.001,
        w_clip: Positive = 1.0,
        w_l1: NotNegative = 3.0,
        t_edit: Annotated[Share, below(1)] = 0.5,
        t_boost: Share = 0.2,
        symmetric: bool = False,
        steps: Steps | None = None,
        max_strength: Positive = 2.0,
    ) -> None:
        if t_boost > t_edit:
            raise BadInput(f"t_boost {t_boost:g} is above t_edit {t_edit:g}; the boost comes last")
        if images % batch:
            raise BadInput(f"{images} images are no whole number of batches of {batch}")
        self.scorer, self.images, self.passes, self.batch = scorer, images, passes, batch
        self.learning_rate, self.w_clip, self.w_l1 = learning_rate, w_clip, w_l1
        self.t_edit, self.t_boost, self.symmetric = t_edit, t_boost, symmetric
        self.steps, self.max_strength = steps, max_strength
        self.shifts_: dict[str, Shift] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn a shift for each edit.

        Raises:
            BadInput: an edit that no words describe.
        """
        for edit in edits:
            if edit.words is None:
                raise BadInput(
                    f"edit {edit.name!r} has no words for before and after, from which asyrp "
                    f"learns; take a data set and a benchmark that give them, such as "
                    f"benchmark=attribute_editing of dataset=faces"
                )
        self.shifts_ = {e.name: self._learn(data, e.name, e.words) for e in edits if e.words}

    def state(self) -> dict[str, Tensor]:
        """Return the weights of all shifts."""
        return {
            f"{name}/{key}": weight
            for name, shift in self.shifts_.items()
            for key, weight in shift.state_dict().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the weights back."""
        found = {}
        for name in dict.fromkeys(key.rpartition("/")[0] for key in state):
            own = {k.rpartition("/")[2]: v for k, v in state.items() if k.startswith(f"{name}/")}
            found[name] = self._blank(len(own["into.bias"]))
            found[name].load_state_dict(own)
            found[name].requires_grad_(False)
        self.shifts_ = found

    def invert(self, batch: Batch) -> Latent:
        """Return x_T, and the noise of the stochastic steps."""
        x, n = ddim_invert(self.model, batch, self.cache, steps=self.steps), self._grid().n
        ids = [f"{name}/{i}" for name in batch.ids for i in range(self._boosted(), n)]
        shape, count = x.shape[1:], n - self._boosted()
        z = self.streams.normal("asyrp/boost", ids, shape, x.device) if ids else x.new_zeros(0)
        return Latent({Space.NOISE: x, Space.NOISE_MAPS: z.reshape(len(x), count, *shape)})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of a code."""
        return self._sample(latent)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the edit's shift at each strength."""
        if edit.name not in self.shifts_:
            raise unknown("edit", edit.name, self.shifts_)
        latent = self.invert(batch)
        rows = {k: v.repeat_interleave(len(strengths), 0) for k, v in latent.parts.items()}
        change = self._change(self.shifts_[edit.name], strengths.repeat(len(batch)))
        return self._sample(Latent(rows), change).unflatten(0, (len(batch), len(strengths)))

    def losses(
        self, shift: Shift, batch: Batch, words: tuple[str, str]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield the loss after each step of the editing interval; the caller may step between."""
        model, scorer, grid = self.model, self.parts["scorer"], self._grid()
        with torch.no_grad():
            source, target = scorer.text(words)
            before = scorer.image(batch.images)
            x = kept = ddim_invert(model, batch, self.cache, steps=self.steps)
        likeness = F.cosine_similarity(source, target, dim=0)
        terms, change = plain(model.unconditional(len(x))), self._change(shift, x.new_ones(len(x)))
        for i in range(self._edited()):
            edited, original = Recorder(predictions=True), Recorder(predictions=True)
            reach = {"grid": grid, "start": i, "stop": i + 1}
            x = generate(model, x, terms, **reach, interventions=[change, edited]).detach()
            with torch.no_grad():
                kept = generate(model, kept, terms, **reach, interventions=[original])
                plain_image = model.decode(original.x0[i])
            image = model.decode(edited.x0[i])
            cosine = F.cosine_similarity(scorer.image(image) - before, target - source)
            clip = -((1 + cosine).clamp_min(1e-6) / 2).log()  # (2 - L) / 2 with L = 1 - cosine
            near = (image - plain_image).abs().mean((1, 2, 3))
            yield (self.w_clip * clip + self.w_l1 * likeness * near).mean()

    def _learn(self, data: Dataset, name: str, words: tuple[str, str]) -> Shift:
        shift = self._blank(self._channels())
        shift.start(self.streams, name)
        shift.requires_grad_()
        adam = torch.optim.Adam(shift.parameters(), self.learning_rate)
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        batches = self.images // self.batch
        tensors = dict(shift.named_parameters())
        for number in self.fitting.steps(f"asyrp-{name}", self.passes * batches, tensors, adam):
            start = number % batches * self.batch
            batch = data.batch("generator", chosen[start : start + self.batch])
            for loss in self.losses(shift, batch, words):
                adam.zero_grad()
                loss.backward()
                adam.step()
        return shift.requires_grad_(False)

    def _change(self, shift: Shift, strength: Float[Tensor, " b"]) -> AddShift:
        return AddShift(shift, strength, self._edited() / self._grid().n, not self.symmetric)

    def _sample(self, latent: Latent, *interventions: Intervention) -> Float[Tensor, "b 3 h w"]:
        x, z = latent.parts[Space.NOISE], latent.parts[Space.NOISE_MAPS]
        grid, first = self._grid(), self._boosted()
        found = generate(
            self.model,
            x,
            plain(self.model.unconditional(len(x))),
            grid=grid,
            eta=[float(i >= first) for i in range(grid.n)],
            noise=lambda i: z[:, i - first],
            interventions=interventions,
        )
        return self.model.decode(found)

    def _grid(self) -> Any:
        return self.model.grid(self.steps)

    def _edited(self) -> int:
        """Return the number of steps that the shift acts in, at least one."""
        return max(1, round((1 - self.t_edit) * self._grid().n))

    def _boosted(self) -> int:
        """Return the first stochastic step."""
        n = self._grid().n
        return max(self._edited(), round((1 - self.t_boost) * n))

    def _blank(self, channels: int) -> Shift:
        with torch.device("meta"):
            shift = Shift(channels)
        return shift.to_empty(device=self.model.device)

    def _channels(self) -> int:
        recorder, model = Recorder(bottleneck=True), self.model
        x, terms = torch.zeros(1, *model.latent_shape), plain(model.unconditional(1))
        settings = {"grid": self._grid(), "level": 0, "interventions": [recorder]}
        with torch.no_grad():
            denoise(model, x.to(model.device), terms, **settings)
        return recorder.h[0].shape[1]
