"""Multistep sampling of consistency models."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.sampling.consistency import ConsistencyStep
from latentbench.types import Latent, Space


class ConsistencySampling(Editor[LatentConsistency]):
    """Few-step sampling: x_0 in one call, noised again between steps with the image's own stream.

    Source: "Latent Consistency Models", section 4.1 and the algorithm of multistep sampling. The
    first draw of an image is x_T, equal to that of `plain`; one more is drawn for each further
    step.

    Args:
        steps: sampling steps, 1 to 8; default: the model's.
        guidance: guidance scale on top of what the student has learned; default: the model's.

    Example:
        >>> method = ConsistencySampling(steps=4)  # method.generate(("a",), ("a face",))
    """

    paper = "Latent Consistency Models, section 4.1"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "generate": frozenset({Space.CONSISTENCY})
    }

    def __init__(self, *, steps: Steps | None = None, guidance: Guidance | None = None) -> None:
        self.steps, self.guidance = steps, guidance

    def generate(
        self,
        ids: Sequence[str],
        prompts: Sequence[str] | None,
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        model, grid = self.model, self.model.grid(self.steps)
        parts = model.prior(self.streams, ids).parts if noise is None else {Space.NOISE: noise}
        fresh = self.streams.normal("consistency", ids, (grid.n, *model.latent_shape), model.device)
        return model.sample(
            Latent(parts, prompts=None if prompts is None else tuple(prompts)),
            guidance=self.guidance,
            steps=self.steps,
            interventions=[ConsistencyStep(model, lambda i: fresh[:, i])],
        )
