"""SliderSpace: adapters that each move the model's images along one component of an encoder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import (
    Count,
    Guidance,
    Name,
    Positive,
    SetSize,
    Share,
    Steps,
    below,
    between,
)
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel, LowRank
from latentbench.sampling.loop import denoise, generate, noise_to_level, plain
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.adapters import CROSS, EVERY, Adapted, first_down, layers_of
from methods.directions.step_window import refuse_empty

LAYERS = {"attention": EVERY, "cross_kv": CROSS}
SAMPLED = 32  # images that are sampled at once
DOWN, UP = "down/", "up/"


class SliderSpace(Editor[DiffusionModel]):
    """n low-rank adapters ("sliders"), slider i trained to move images along component v_i.

    Source: "SliderSpace: Decomposing the Visual Capabilities of Diffusion Models", section 3. The
    v_i are principal components of an encoder's features of the model's own images of a concept.
    With phi the features of the decoded prediction of x_0 with slider i at scale 1, and phi_0
    without sliders, the loss is sum_i 1 - cos(phi - phi_0, v_i).

    An edit asks for a slider by its number; the strength is its scale, signed. Real images are
    inverted with the plain model, without guidance. `generate` draws `mixed` sliders per image, at
    scale 1. On a model that takes a code of the image, an image keeps its own throughout: the one
    that the encoder gives it, or that the prior has drawn with its noise.

    Deviations: features are of finished images, and a scorer's, of unit length; latents are kept
    as they are sampled, not decoded and encoded again; the concept has one prompt, no expansion by
    a language model; all sliders of a step share one call and one level of the sampler's grid.
    Columns that write to a layer start as random unit vectors and are trained too (the published
    code keeps them as they are).

    Args:
        scorer: a yaml of conf/scorer, whose image encoder is used.
        concept: caption of the model's images; default: the empty prompt.
        directions: n.
        samples: images that the components are found on, and sliders trained on.
        drawn: sliders of one step.
        batch: images of one step.
        iterations: optimiser steps.
        learning_rate: of AdamW.
        rank: of each adapter.
        layers: "attention": all projections of attention layers, but for those that joint attention
            adds for text; "cross_kv": keys and values of cross-attention.
        mixed: sliders of one image of `generate`.
        guidance: of `generate`; default: the model's.
        start: share of the steps after which a slider acts.
        steps: sampling steps; default: the model's.
        max_strength: largest scale of a benchmark's curve.

    Raises:
        BadInput: no more samples than directions, or more sliders asked for at once than there are.

    Example:
        >>> editor = SliderSpace(directions=12)  # editor.fit(data, []); editor.edit(...)
    """

    version = 2
    paper = "SliderSpace: Decomposing the Visual Capabilities of Diffusion Models, section 3"
    numbered = True
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {
        "directions": 3, "samples": 6, "drawn": 2, "batch": 2, "iterations": 2, "mixed": 2,
    }  # fmt: skip
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.WEIGHTS}) for verb in ("invert", "edit", "generate")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.SCORER}) for verb in ("invert", "edit", "generate")
    }

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        concept: Name | None = None,
        directions: Count = 10,
        samples: SetSize = 128,
        drawn: Count = 3,
        batch: Count = 2,
        iterations: Annotated[int, between(0, 1_000_000)] = 300,
        learning_rate: Positive = 0.002,
        rank: Annotated[int, between(1, 1024)] = 1,
        layers: Literal["attention", "cross_kv"] = "attention",
        mixed: Count = 3,
        guidance: Guidance | None = None,
        start: Annotated[Share, below(1)] = 0.0,
        steps: Steps | None = None,
        max_strength: Positive = 2.0,
    ) -> None:
        if directions >= samples:
            raise BadInput(f"directions {directions} must be below samples {samples}")
        for name, value, most in (
            ("drawn", drawn, directions), ("mixed", mixed, directions), ("batch", batch, samples),
        ):  # fmt: skip
            if value > most:
                raise BadInput(f"{name} {value} is more than there are: {most}")
        self.scorer, self.concept, self.count, self.samples = scorer, concept, directions, samples
        self.drawn, self.batch, self.iterations, self.rank = drawn, batch, iterations, rank
        self.learning_rate, self.layers, self.mixed = learning_rate, layers, mixed
        self.guidance, self.start, self.steps = guidance, start, steps
        self.max_strength = max_strength
        self.sliders_: dict[str, Tensor] = {}

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what it asks for, and prompts where a setting is about them."""
        verbs = list(verbs)
        spaces, needs = super().required(verbs, config)
        if config.get("layers") == "cross_kv" and spaces:
            spaces |= {Space.TEXT, Space.ATTENTION}  # in joint attention no layer is the prompt's
        if config.get("concept") and spaces:
            needs |= {Capability.PROMPTS}
        return spaces, needs

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return n."""
        return int(config.get("directions", 10))

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a start after the last step."""
        refuse_empty(self.start, 1.0, steps)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Find the components on the model's own images, and train all sliders.

        Raises:
            BadInput: edits that name an attribute, which no slider has, or more sliders than the
                encoder's space has dimensions.
            Incompatible: the model has no such layers.
        """
        if edits and all(edit.component is None for edit in edits):
            raise self._unnumbered(edits[0].name)
        self._refuse_many()
        sliders = {k: v.to(self.model.device).requires_grad_() for k, v in self._first().items()}
        made, v = self.components()
        adamw = torch.optim.AdamW(sliders.values(), self.learning_rate)
        for step in self.fitting.steps("sliderspace", self.iterations, sliders, adamw):
            draw = f"sliderspace/{step}"
            rows = self.streams.choice(f"{draw}/images", self.samples, self.batch)
            chosen = self.streams.choice(f"{draw}/sliders", self.count, self.drawn)
            own = Latent({space: part[rows] for space, part in made.parts.items()})
            moved = self.effects(sliders, chosen, own, draw)
            adamw.zero_grad()
            (1 - (moved * v[chosen][:, None]).sum(2)).mean().backward()
            adamw.step()
        self.sliders_ = {name: value.detach() for name, value in sliders.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the sliders: ``down/LAYER`` ``[n, r, in]`` and ``up/LAYER`` ``[n, out, r]``."""
        return self.sliders_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the sliders back."""
        self.sliders_ = {name: value.to(self.model.device) for name, value in state.items()}

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of the plain model, with the code that it was found under if it takes one."""
        told = None if self.concept is None else (self.concept,) * len(batch)
        return self.model.invert(batch, self.cache, prompts=told, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the plain model's images of x_T."""
        told = self._told(latent)
        return self.model.sample(latent, condition=told, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the slider of the edit's number at each scale."""
        if edit.component is None or not 0 <= edit.component < self.count:
            raise self._unnumbered(edit.name)
        self._refuse_unfitted()
        parts, s = self.invert(batch).parts, len(strengths)
        rows = Latent({space: part.repeat_interleave(s, 0) for space, part in parts.items()})
        alpha = edit.sign * strengths.to(parts[Space.NOISE]).repeat(len(batch))
        which = torch.full((len(rows), 1), edit.component, device=alpha.device)
        images = self.model.sample(
            rows, condition=self._told(rows), guidance=1.0, steps=self.steps,
            interventions=[self._adapted(self.sliders_, which, alpha)],
        )  # fmt: skip
        return images.unflatten(0, (len(batch), len(strengths)))

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, each with sliders of its own at scale 1."""
        self._refuse_unfitted()
        parts = dict(self.model.prior(self.streams, ids).parts)
        if noise is not None:
            parts[Space.NOISE] = noise
        x = parts[Space.NOISE] = parts[Space.NOISE].to(self.model.device)
        drawn = [self.streams.choice(f"mixed/{i}", self.count, self.mixed) for i in ids]
        which = torch.tensor(drawn, device=x.device)
        latent = Latent(parts, prompts=None if prompts is None else tuple(prompts))
        told = self._told(latent) if prompts is None else None
        change = self._adapted(self.sliders_, which, x.new_ones(len(x)))
        return self.model.sample(
            latent, condition=told, guidance=self.guidance, steps=self.steps,
            interventions=[change],
        )  # fmt: skip

    def components(self) -> tuple[Latent, Float[Tensor, "n d"]]:
        """Return clean latents of the model's own images, and v of the encoder's features.

        The code that an image was made with comes beside it, where the model takes one.
        """
        scorer = self.parts["scorer"]
        known = (self.model.fingerprint(), scorer.fingerprint(), self.streams.seed, self.samples)
        key = content_hash("sliderspace", self.version, *known, self.concept, self.steps)
        made = self.cache.get_or_make("samples", key, self._sampled)
        phi = made["features"].to(self.model.device).double()
        _, _, V = torch.linalg.svd(phi - phi.mean(0), full_matrices=False)
        parts = {Space(k): v.to(self.model.device) for k, v in made.items() if k != "features"}
        return Latent(parts), V[: self.count].float()

    def effects(
        self,
        sliders: Mapping[str, Tensor],
        chosen: Sequence[int],
        own: Latent,
        draw: str,
    ) -> Float[Tensor, "k b d"]:
        """Return the way in which each slider moves each image's features, as unit vectors.

        Args:
            sliders: see `state`.
            chosen: numbers of the sliders.
            own: clean latents, with their codes; see `components`.
            draw: name of what is drawn: one level for all images, and their noise.
        """
        model, grid, b, k = self.model, self.model.grid(self.steps), len(own), len(chosen)
        z0 = own.parts[Space.VAE]
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        rows = [str(row) for row in range(b)]
        noise = self.streams.normal(f"{draw}/noise", rows, z0.shape[1:], z0.device)
        x = noise_to_level(grid, z0, noise, level)
        at = {"grid": grid, "level": level}
        with torch.no_grad():
            phi0 = self._features(denoise(model, x, plain(self._told(own)), **at)[0])
        which = torch.tensor(chosen, device=x.device).repeat_interleave(b)[:, None]
        change = self._adapted(sliders, which, x.new_ones(k * b), whole=True)
        x = _whole(x, k)
        rows = Latent({space: _whole(part, k) for space, part in own.parts.items()})
        x0, _ = denoise(model, x, plain(self._told(rows)), interventions=[change], **at)
        return F.normalize(self._features(x0).unflatten(0, (k, b)) - phi0, dim=2)

    def _adapted(
        self,
        sliders: Mapping[str, Tensor],
        which: Int[Tensor, "b m"],
        alpha: Float[Tensor, " b"],
        whole: bool = False,
    ) -> Adapted:
        """Return W + alpha sum_i B_i A_i, with sliders of each row's own."""
        names = [name.removeprefix(DOWN) for name in sliders if name.startswith(DOWN)]
        changes = {}
        for name in names:
            down = sliders[DOWN + name][which].flatten(1, 2)  # [b, m r, in]
            up = sliders[UP + name][which].transpose(1, 2).flatten(2)  # [b, out, m r]
            changes[name] = LowRank(down, alpha[:, None, None] * up)
        return Adapted(changes, (0.0 if whole else self.start, 1.0))

    def _features(self, x0: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return self.parts["scorer"].image(self.model.decode(x0)).to(x0)

    def _told(self, latent: Latent) -> Condition:
        """Return the condition of each image: its code, the concept, or the empty one."""
        if self.concept is None:
            return self.model.condition_of(Latent(latent.parts))
        return self.model.condition((self.concept,) * len(latent), len(latent))

    def _first(self) -> dict[str, Tensor]:
        """Return the sliders before training, which do move images a little."""
        layers = layers_of(self.model, LAYERS[self.layers])
        down = first_down(layers, self.count, self.rank, self.streams, "sliderspace/down")
        found = {DOWN + name: value for name, value in down.items()}
        for name, (_, width) in layers.items():
            generator = self.streams.generator("sliderspace/up", name)
            draws = torch.randn(self.count, width, self.rank, generator=generator)
            found[UP + name] = F.normalize(draws, dim=1)
        return found

    def _sampled(self) -> dict[str, Tensor]:
        model, rows = self.model, []
        with torch.no_grad():
            for index, kept in even_batches(self.samples, SAMPLED):
                own = model.prior(self.streams, [f"sample/{k}" for k in index])
                x, terms = own.parts[Space.NOISE], plain(self._told(own))
                z0 = generate(model, x, terms, grid=model.grid(self.steps))
                made = {**own.parts, Space.VAE: z0, "features": self._features(z0)}
                rows.append({k: v[:kept] for k, v in made.items() if k != Space.NOISE})
        return {str(k): torch.cat([part[k] for part in rows]) for k in rows[0]}

    def _refuse_many(self) -> None:
        """Refuse more sliders than the encoder's space, in which its words are too, has axes."""
        axes = self.parts["scorer"].text([""]).shape[1]
        if axes < self.count:
            raise BadInput(
                f"method.directions={self.count}, but features of {self.scorer!r} have {axes} "
                f"dimensions; ask for no more directions"
            )

    def _refuse_unfitted(self) -> None:
        if not self.sliders_:
            raise BadInput("SliderSpace has learned nothing yet; call fit, or load_state")

    def _unnumbered(self, name: str) -> BadInput:
        return BadInput(
            f"edit {name!r} asks for no slider of sliderspace, which are asked for by number, 0 to "
            f"{self.count - 1}; take benchmark=direction_discovery"
        )


def _whole(rows: Float[Tensor, "b ..."], times: int) -> Float[Tensor, "r ..."]:
    """Return the rows as a whole as many times."""
    return rows.repeat(times, *[1] * (rows.dim() - 1))
