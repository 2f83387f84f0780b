"""Guidance towards several concepts at once, or away from them, each inside a mask of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Intervention, Step, denoise, plain, predict
from methods.generation.attention_guidance import TokenMaps, smoothed


@dataclass(frozen=True)
class Guide:
    """How one concept guides.

    Args:
        condition: the concept's, one per row of x.
        scale: s_e of each row, negative to lead away; rows of 0 are not evaluated.
        threshold: share of the places that each mask leaves out; 0 is no mask.
        steps: the steps in which it guides; None: all.
        region: how much each place counts, in the latents' resolution; None: all of it everywhere.
        words: 1 at the tokens of the concept's words, for the mask of the attention.
    """

    condition: Condition
    scale: Float[Tensor, " r"]
    threshold: float
    steps: range | None = None
    region: Float[Tensor, "r 1 h w"] | None = None
    words: Float[Tensor, "r m"] | None = None

    def acts(self, step: Step) -> bool:
        """Return whether it guides any row in this step."""
        return (self.steps is None or step.index in self.steps) and bool((self.scale != 0).any())


class WordMaps(TokenMaps):
    """Keeps how much each place reads a concept's words: the sum over their tokens.

    Args:
        words: 1 at the words' tokens in each row's prompt.
    """

    def __init__(self, words: Float[Tensor, "r m"]) -> None:
        super().__init__()
        self.words = words

    def kept(
        self,
        query: Float[Tensor, "r h p d"],
        key: Float[Tensor, "r h m d"],
        scale: float,
        image: int,
    ) -> Float[Tensor, "r h p 1"]:
        """Return a layer's maps, summed over the words' tokens."""
        maps = super().kept(query, key, scale, image)
        return torch.einsum("rhpm,rm->rhp", maps, self.words.to(maps))[..., None]

    def square(self) -> Float[Tensor, "r 1 h w"]:
        """Return the smoothed mean over heads and layers."""
        maps = smoothed(self.mean())
        side = round(maps.shape[1] ** 0.5)
        return maps.transpose(1, 2).unflatten(2, (side, side))


class MaskedGuidance(Intervention):
    """Adds s M (eps(c) - eps) of every concept c, all of them evaluated in one network call.

    M2 keeps the places where the concept changes the prediction most. Where a guide has words,
    M = M1 M2, and M1 keeps the places that read them most in this very call.

    Args:
        model: the denoiser.
        guides: the concepts; all of them have words, or none has.

    Raises:
        HookNeverFired: no layer of the network has maps over the prompt's tokens.
    """

    def __init__(self, model: DiffusionModel, guides: Sequence[Guide]) -> None:
        self.model, self.guides = model, guides

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) with the masked differences of the concepts added."""
        guides = [guide for guide in self.guides if guide.acts(step)]
        if not guides:
            return x0, eps
        rows = [guide.scale.nonzero().flatten() for guide in guides]
        sums = x0, eps
        for guide, own, (c_x0, c_eps, maps) in zip(
            guides, rows, self._told(step, x, guides, rows), strict=True
        ):
            d_x0, d_eps = c_x0 - x0[own], c_eps - eps[own]
            change = step.grid.direction(d_x0, d_eps).abs().sum(1, keepdim=True)
            M = largest(change, guide.threshold).to(x0)
            if maps is not None:
                reads = largest(maps, guide.threshold).to(x0)
                M = M * interpolate(reads, change.shape[-2:], mode="nearest")
            if guide.region is not None:
                M = M * guide.region[own].to(x0)
            weight = guide.scale[own].reshape(-1, 1, 1, 1) * M
            sums = tuple(
                total.index_add(0, own, weight * part)
                for total, part in zip(sums, (d_x0, d_eps), strict=True)
            )
        return sums[0], sums[1]

    def _told(
        self, step: Step, x: Tensor, guides: Sequence[Guide], rows: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Return (x0, eps) under each concept, of its own rows, and the maps of its words."""
        sizes, every = [len(own) for own in rows], torch.cat(list(rows))
        pairs = list(zip(guides, rows, strict=True))
        terms = plain(Condition.concat([guide.condition.rows(own) for guide, own in pairs]))
        words = [guide.words[own] for guide, own in pairs if guide.words is not None]
        if not words:
            told = predict(self.model, x[every], step.grid, step.level, terms, step.timestep)
            x0, eps = (part.split(sizes) for part in told)
            return [(*both, None) for both in zip(x0, eps, strict=True)]
        seen = WordMaps(torch.cat(words))
        told = denoise(
            self.model, x[every], terms, grid=step.grid, level=step.level, interventions=[seen]
        )
        parts = (part.split(sizes) for part in (*told, seen.square()))
        return list(zip(*parts, strict=True))


def largest(values: Float[Tensor, "r 1 h w"], threshold: float) -> Bool[Tensor, "r 1 h w"]:
    """Return which places of each row have a value at or above the quantile `threshold`.

    Example:
        >>> largest(torch.arange(4.0).reshape(1, 1, 2, 2), 0.5)[0, 0]
        tensor([[False, False],
                [ True,  True]])
    """
    least = values.flatten(1).quantile(threshold, dim=1)
    return values >= least.reshape(-1, 1, 1, 1)
