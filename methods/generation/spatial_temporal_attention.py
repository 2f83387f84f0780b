"""Spatial-temporal attention: in its place, each concept is read from a prompt of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from latentbench.bounds import Guidance, Name, NotNegative, Positive, Steps, above, at_most, between
from latentbench.errors import BadInput
from latentbench.model import AttentionCall
from latentbench.sampling.loop import Intervention, Step, Term, generate
from latentbench.types import Capability, Concept, Space
from methods.editing.coupled import rows_of
from methods.editing.prompt_to_prompt import maps_of
from methods.generation.attention_guidance import COARSE, LARGEST, joined, tokens_of_concepts
from methods.generation.composed import ComposedDiffusion
from methods.inversion.null_text import TOKENS

BRANCH = "concept 0"  # of the joined prompt, as `ComposedDiffusion.terms` names it


class WordPlaces(Intervention):
    """The mean, over steps, layers and heads, of how much each place reads each token."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}  # places of the map -> [b, p, m]

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Add the maps of a layer that is not too large; change nothing."""
        places = call.query.shape[2]
        if not call.text or places > LARGEST:
            return None
        rows = rows_of(step, call, BRANCH)
        maps = maps_of(call.query[rows], call.key[rows], call.scale).mean(1).float()
        self.sums[places] = self.sums.get(places, 0) + maps
        return call

    def maps(self) -> Float[Tensor, "b p m"]:
        """Return the maps of the largest size of at most 16 x 16."""
        return self.sums[max((n for n in self.sums if n <= COARSE), default=min(self.sums))]


@dataclass(frozen=True)
class Local:
    """One concept in its place.

    Args:
        context: embedding of its own prompt.
        place: 1 where it is.
        prompts: one per image.
    """

    context: Float[Tensor, "b m d"]
    place: Float[Tensor, "b 1 h w"]
    prompts: tuple[str, ...]


class RegionalAttention(Intervention):
    """Mixes what places read of the whole prompt with what they read of their concept's own.

    Args:
        concepts: prompts and places.
        weights: w of each image, concept and step.
    """

    def __init__(self, concepts: Sequence[Local], weights: Float[Tensor, "b k n"]) -> None:
        self.concepts, self.weights = concepts, weights

    def attention(self, step: Step, call: AttentionCall) -> Tensor | None:
        """Return the layer's output; self-attention is left alone."""
        if not call.text:
            return None
        rows, side = rows_of(step, call, BRANCH), round(call.query.shape[2] ** 0.5)
        out = call.attend().clone()
        own, mixed = out[rows], out[rows]
        for k, one in enumerate(self.concepts):
            context = one.context.to(call.context)
            local = call.attend(call.query[rows], *call.project(context))
            place = interpolate(one.place, (side, side), mode="area").flatten(2)[..., None]
            w = self.weights[:, k, step.index].reshape(-1, 1, 1, 1)
            mixed = mixed + w * place * (local - own)
        out[rows] = mixed
        return out


class SpatialTemporalAttention(ComposedDiffusion):
    """Samples one prompt of all concepts; in its place, each is read from its own prompt as well.

    Source: "Harnessing the Spatial-Temporal Attention of Diffusion Models for High-Fidelity
    Text-to-Image Synthesis", section 3. In every cross-attention layer

        out = (1 - sum_i w_it M_i) Attn(x, c) + sum_i w_it M_i Attn(x, c_i),

    M_i being the place of concept i, and w of each concept and step learned per image: `epochs`
    whole chains with Adam on 1 - s(image, prompt) + `local` sum_i (1 - s(crop_i, prompt_i)), s the
    cosine of a scorer. The image of the lowest loss is the result.

    A concept's place is its region, where it has one, and else a disc around the mean place at
    which a plain sample of the same noise reads its words: the published layout predictor was
    trained on photographs. Deviations: weights add up to one at every place, as in the paper (in
    the authors' code they do not, and the unconditional output is taken away); deterministic
    sampler; the best image, there the last one; the joined prompt has the mean of its concepts'
    weights, and concepts of negative weight stay terms of their own.

    Args:
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: the model's guidance.
        scorer: a yaml of conf/scorer.
        weight: w at first, in all steps, divided by the number of concepts.
        radius: of a disc, as a share of the image's side.
        epochs: chains with a gradient; 0 takes the first weights as they are.
        learning_rate: of Adam.
        local: weight of the crops' similarities.

    Raises:
        BadInput: no concept has a weight above 0.

    Example:
        >>> method = SpatialTemporalAttention(epochs=0)
        >>> # method.compose(("a",), [Concept(("a cat",)), Concept(("a red hat",))])
    """

    paper = "Harnessing the Spatial-Temporal Attention of Diffusion Models, section 3"
    small: ClassVar[Mapping[str, int]] = {"epochs": 2}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION, Space.TOKEN_MAPS})
        for verb in ("compose", "mixture")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.PROMPTS, Capability.SCORER}) for verb in ("compose", "mixture")
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        scorer: Name = "clip1",
        weight: NotNegative = 1.0,
        radius: Annotated[float, above(0), at_most(1)] = 0.2,
        epochs: Annotated[int, between(0, 1000)] = 3,
        learning_rate: Positive = 0.005,
        local: NotNegative = 5.0,
    ) -> None:
        super().__init__(steps=steps, guidance=guidance)
        self.scorer, self.weight, self.radius = scorer, weight, radius
        self.epochs, self.learning_rate, self.local = epochs, learning_rate, local

    def compose(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        model, n = self.model, self.model.grid(self.steps).n
        x = model.prior(self.streams, ids).parts[Space.NOISE] if noise is None else noise
        x = x.to(model.device)
        asked = [one for one in concepts if one.weight > 0]
        if not asked:
            raise BadInput("no concept has a weight above 0; ask for at least one")
        prompts = joined(asked)
        whole = Concept(prompts, sum(one.weight for one in asked) / len(asked))
        terms = self.terms([whole, *(c for c in concepts if c.weight <= 0)], len(ids))
        locals_ = self.locals(x, asked, terms)
        first = torch.full((len(ids), len(asked), n), self.weight / len(asked), device=x.device)
        if not self.epochs:
            return self._sample(x, terms, locals_, first)
        weights, best, lowest = first.requires_grad_(), None, None
        adam = torch.optim.Adam([weights], self.learning_rate)
        for epoch in range(self.epochs):
            with torch.set_grad_enabled(epoch + 1 < self.epochs):
                images = self._sample(x, terms, locals_, weights)
                losses = self.losses(images, prompts, locals_)
            if epoch + 1 < self.epochs:
                (weights.grad,) = torch.autograd.grad(losses, weights, torch.ones_like(losses))
                adam.step()
            images, losses = images.detach(), losses.detach()
            if best is None or lowest is None:
                best, lowest = images, losses
            better = losses < lowest
            best = torch.where(better.reshape(-1, 1, 1, 1), images, best)
            lowest = torch.where(better, losses, lowest)
        assert best is not None
        return best

    def locals(
        self, x: Float[Tensor, "b ..."], concepts: Sequence[Concept], terms: Sequence[Term]
    ) -> list[Local]:
        """Return the concepts in their places; one plain chain finds those without a region."""
        model, b = self.model, len(x)
        found = None
        if any(one.region is None for one in concepts):
            found = WordPlaces()
            grid = model.grid(self.steps)
            generate(model, x, terms, grid=grid, interventions=[found])
        owner = tokens_of_concepts(model, concepts).to(x.device)
        made = []
        for k, one in enumerate(concepts):
            if one.region is not None:
                place = one.region[:, None].to(x)
            else:
                assert found is not None
                place = self._disc(found.maps(), (owner == k).to(x))
            context = model.condition(one.prompts, b).tensors[TOKENS]
            made.append(Local(context, place, one.prompts))
        return made

    def losses(
        self, images: Float[Tensor, "b 3 h w"], prompts: Sequence[str], concepts: Sequence[Local]
    ) -> Float[Tensor, " b"]:
        """Return 1 - s(image, prompt) + local sum_i (1 - s(crop_i, prompt_i))."""
        scorer = self.parts["scorer"]
        total = 1 - scorer.similarity(images, prompts)
        for one in concepts:
            crops = cropped(images, interpolate(one.place, images.shape[-2:], mode="nearest"))
            total = total + self.local * (1 - scorer.similarity(crops, one.prompts))
        return total

    def _sample(
        self,
        x: Float[Tensor, "b ..."],
        terms: Sequence[Term],
        concepts: Sequence[Local],
        weights: Float[Tensor, "b k n"],
    ) -> Float[Tensor, "b 3 h w"]:
        model, grid = self.model, self.model.grid(self.steps)
        mixed = RegionalAttention(concepts, weights)
        return model.decode(generate(model, x, terms, grid=grid, interventions=[mixed]))

    def _disc(
        self, maps: Float[Tensor, "b p m"], tokens: Float[Tensor, "b m"]
    ) -> Float[Tensor, "b 1 h w"]:
        """Return 1 around the mean place of the tokens' maps, in the latents' resolution."""
        seen = torch.einsum("bpm,bm->bp", maps, tokens)
        seen = seen / seen.sum(1, keepdim=True).clamp(min=1e-12)
        own, side = _centres(round(maps.shape[1] ** 0.5)), self.model.latent_shape[-1]
        middle = torch.einsum("bp,pk->bk", seen, own.to(seen))
        away = torch.cdist(middle[:, None], _centres(side).to(seen)[None]).reshape(
            -1, 1, side, side
        )
        return (away < self.radius).to(maps)


def cropped(
    images: Float[Tensor, "b 3 h w"], places: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Return the rectangle around each image's place, in the image's size; all of it without one.

    Example:
        >>> images, places = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> images[..., 2:, 2:] = places[..., 2:, 2:] = 1
        >>> bool((cropped(images, places) == 1).all())
        True
    """
    rows = []
    for image, place in zip(images, places, strict=True):
        y, x = (place[0] > 0).nonzero(as_tuple=True)
        if len(y):
            part = image[None, :, y.min() : y.max() + 1, x.min() : x.max() + 1]
            image = interpolate(part, image.shape[-2:], mode="bilinear")[0]
        rows.append(image)
    return torch.stack(rows)


def _centres(side: int) -> Float[Tensor, "p 2"]:
    """Return the middles (y, x) of the places of a square map, as shares of its side."""
    line = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(line, line)
