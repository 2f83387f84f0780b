"""Composable diffusion: several concepts at once, as a weighted sum of their scores."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import Intervention, Term, generate
from latentbench.streams import Streams
from latentbench.types import Capability, Concept, Space


class ComposedDiffusion(Editor[DiffusionModel]):
    """eps = eps(x_t) + sum_k w_k (eps(x_t, c_k) - eps(x_t)): conjunction, and negation by w_k < 0.

    Source: "Compositional Visual Generation with Composable Diffusion Models", equations 11 and 13.
    A concept with a region counts there alone, as in layouts by masks. Deviations: deterministic
    sampler; one scale multiplies the concepts' weights, as guidance does for a single prompt.

    A mixture, p(x) = (1/m) sum_k p(x | c_k), is sampled by drawing k for each image: the noised
    mixture is the mixture of the noised parts, so this is its reverse process, at the cost of one
    part. Its score, sum_k r_k eps(x_t, c_k) with the share r_k of p(x_t | c_k), asks for log
    densities instead, which a model of energies has ("Reduce, Reuse, Recycle", section 3).

    Args:
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: the model's guidance.

    Example:
        >>> method = ComposedDiffusion(guidance=3.0)
        >>> # method.compose(("a",), [Concept(("a hat",)), Concept(("glasses",), -1.0)])
    """

    paper = "Compositional Visual Generation with Composable Diffusion Models, section 4"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.TEXT}) for verb in ("compose", "mixture")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.PROMPTS}) for verb in ("compose", "mixture")
    }

    def __init__(self, *, steps: Steps | None = None, guidance: Guidance | None = None) -> None:
        self.steps, self.guidance = steps, guidance

    def compose(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        model = self.model
        x = model.prior(self.streams, ids).parts[Space.NOISE] if noise is None else noise
        z0 = generate(
            model, x.to(model.device), self.terms(concepts, len(ids)),
            grid=model.grid(self.steps), interventions=self.interventions(ids, concepts),
        )  # fmt: skip
        return model.decode(z0)

    def mixture(
        self, ids: Sequence[str], concepts: Sequence[Concept], alternatives: Sequence[Concept]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, of all concepts and of the alternative that the id draws.

        Raises:
            BadInput: alternatives of different weights, or with regions.
        """
        return self.compose(ids, [*concepts, drawn(alternatives, self.streams, ids)])

    def interventions(
        self, ids: Sequence[str], concepts: Sequence[Concept]
    ) -> Sequence[Intervention]:
        """Return changes to the loop; none here."""
        del ids, concepts
        return ()

    def terms(self, concepts: Sequence[Concept], rows: int) -> Sequence[Term]:
        """Return the terms of the composed prediction, the empty condition's first."""
        return composed_terms(self.model, concepts, rows, self.guidance)


def drawn(alternatives: Sequence[Concept], streams: Streams, ids: Sequence[str]) -> Concept:
    """Return one concept that is, in each row, an alternative drawn for the id.

    Args:
        alternatives: of one weight, without regions.
        streams: the method's streams.
        ids: one name per row.

    Raises:
        BadInput: alternatives of different weights, or with regions.

    Example:
        >>> drawn([Concept(("hat",)), Concept(("glasses",))], Streams(0), ["a"]).weight
        1.0
    """
    weights = {one.weight for one in alternatives}
    if len(weights) != 1 or any(one.region is not None for one in alternatives):
        raise BadInput(
            f"alternatives are parts of equal weight, everywhere in the image; got the weights "
            f"{sorted(weights)}; give them one weight and no region"
        )
    draws = [streams.choice(f"mixture/{name}", len(alternatives), 1)[0] for name in ids]
    return Concept(
        tuple(alternatives[k].prompts[row] for row, k in enumerate(draws)), weights.pop()
    )


def composed_terms(
    model: DiffusionModel, concepts: Sequence[Concept], rows: int, guidance: float | None
) -> list[Term]:
    """Return the terms of concepts, the empty condition's first.

    Args:
        model: the denoiser that they are for.
        concepts: what an image should show.
        rows: number of images.
        guidance: scale of all weights; None is the model's guidance.
    """
    scale = model.guidance if guidance is None else guidance
    terms = [
        Term(f"concept {k}", model.condition(one.prompts, rows), _weight(model, one, scale))
        for k, one in enumerate(concepts)
    ]
    total = sum(term.weight for term in terms)
    return [Term("null", model.condition(None, rows), 1 - total), *terms]


def _weight(
    model: DiffusionModel, concept: Concept, scale: float
) -> float | Float[Tensor, "b 1 h w"]:
    """Return w_k, in the latents' resolution where the concept has a region."""
    w = scale * concept.weight
    if concept.region is None:
        return w
    size = model.latent_shape[-2:]
    return w * F.interpolate(concept.region[:, None], size, mode="area").to(model.device)
