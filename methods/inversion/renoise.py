"""ReNoise and AIDI: each inversion step is solved by fixed-point iteration."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from latentbench.bounds import Guidance, Positive, Steps, between
from latentbench.errors import BadInput
from latentbench.model import Convention
from latentbench.sampling.fixed_point import FixedPoint
from methods.inversion.ddim_inversion import DDIMInversion

AIDI = "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion (AIDI)"


class ReNoise(DDIMInversion):
    """DDIM inversion whose steps are implicit: x_i = F(x_{i-1}; eps(x_i, t_i)), solved for x_i.

    Sources: "ReNoise: Real Image Inversion Through Iterative Noising", section 3 (iteration, mean
    of the predictions of several iterations); "Effective Real Image Editing with Accelerated
    Iterative Diffusion Inversion" (Anderson acceleration, `memory`). The first guess is plain
    inversion. Edits and the strength axis are those of `DDIMInversion`.
    Deviations: without an average, each image takes its iterate of the smallest residual (the
    published code takes the last one); an average that the iterations never reach is refused
    (there it is left out); the regularisation of the predictions, the correction of a stochastic
    sampler's noise and AIDI's blended guidance are not here.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep of the first guess; "next" as published.
        iterations: evaluations per step beside the first guess.
        average: iterates [from, to) whose predictions are averaged, 0 the first guess; None takes
            the best one.
        memory: earlier iterates that Anderson acceleration combines with the last; 0 is none.
        inversion_prompt: prompt of the inversion and of the reconstruction; default: each image's
            own caption. "" is the empty prompt.
        inversion_guidance: guidance scale of the inversion and of the reconstruction.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale of the edit at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = ReNoise(iterations=5)  # editor.decode(editor.invert(batch))
    """

    paper = "ReNoise: Real Image Inversion Through Iterative Noising, section 3"
    version = 1

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "next",
        iterations: Annotated[int, between(1, 1000)] = 3,
        average: Sequence[Annotated[int, between(0, 1000)]] | None = None,
        memory: Annotated[int, between(0, 100)] = 0,
        inversion_prompt: str | None = None,
        inversion_guidance: Guidance = 1.0,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, convention=convention, inversion_prompt=inversion_prompt,
            inversion_guidance=inversion_guidance, negative=negative, guidance=guidance,
            max_strength=max_strength,
        )  # fmt: skip
        window = None
        if average is not None:
            if len(average) != 2:
                raise BadInput(
                    f"method.average has {len(average)} entries; give [from, to) or null"
                )
            window = (average[0], average[1])
        self.fixed_point = FixedPoint(iterations, window, memory)

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the class's paper, or that of Anderson acceleration."""
        return AIDI if config.get("memory") else super().paper_of(config)
