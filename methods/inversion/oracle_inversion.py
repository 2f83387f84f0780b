"""DDIM inversion some of whose steps know the sampler's own trajectory: which steps err?"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Steps, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Convention, DiffusionModel
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Recorder, invert, plain
from latentbench.types import Batch, Capability, Latent, Space

Oracle = Literal["prediction", "latent"]


class OracleInversion(Editor[DiffusionModel]):
    """DDIM inversion of samples; some of its steps take what the sampler itself went through.

    A diagnosis, not a method for images that are given: it needs the trajectory x_0..x_n of the
    sampler that made the images, x_n the clean latent (`Batch.trajectory`). Its steps are

        x_{i+1} = p_i x_i + q_i d(x_i, t_i)                                             (1)

    with d the predicted noise (a flow's velocity), and inversion undoes them from a prediction at
    the latent y_{i+1} that it has reached, which is where all of its error comes from:

        y_i = (y_{i+1} - q_i d(y_{i+1}, .)) / p_i                                       (2)

    A step of the oracle puts the sampler's d(x_i, t_i) of (1) there, so that what y_{i+1} has
    missed the trajectory by is carried along and nothing is added, or else it puts y_i back onto
    the trajectory:

        y_i = x_i + (y_{i+1} - x_{i+1}) / p_i                                           (3)
        y_i = x_i                                                                       (4)

    An oracle of the first steps (`oracle_from=0`) asks how much of the error they cause: all that
    is left comes from the others. One of all the others (`oracle_from=k, oracle_steps=null`) asks
    how far the first k miss by themselves, if no later prediction reads it: (3) shrinks a miss
    with the signal, where the model's own predictions may make it grow. The two need not add up.

    Source: "There and Back Again: On the relation between Noise and Image Inversions in Diffusion
    Models", first steps whose predictions (or latents) are replaced by the sampler's. Deviations:
    the window may start later than at the first step; predictions are read off the trajectory by
    (1), which is exact. Without steps of the oracle it is `ddim_inversion`.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives in the other steps: "matched" or "next", as
            in `ddim_inversion`.
        oracle: what the oracle knows: "prediction" as in (3), or "latent" as in (4).
        oracle_from: inversion steps, counted from the clean end, before the oracle's first one.
        oracle_steps: the oracle's steps; None: all that follow.

    Example:
        >>> editor = OracleInversion(oracle_steps=3)  # on benchmark=noise_recovery
    """

    paper = "There and Back Again: On the relation between Noise and Image Inversions, oracles"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"invert": frozenset({Space.NOISE})}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "invert": frozenset({Capability.TRAJECTORY})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        oracle: Oracle = "prediction",
        oracle_from: Annotated[int, between(0, 1000)] = 0,
        oracle_steps: Annotated[int, between(0, 1000)] | None = 3,
    ) -> None:
        self.steps, self.oracle = steps, oracle
        self.convention: Convention = convention
        self.oracle_from, self.oracle_steps = oracle_from, oracle_steps

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse an oracle of more steps than there are."""
        if steps is not None:
            self._window(steps)

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of each sample, with all levels of the inversion.

        Raises:
            BadInput: the batch comes without a trajectory on the method's levels, or the oracle has
                more steps than there are.
        """
        model, grid = self.model, self.model.grid(self.steps)
        truth, (first, last) = _levels(batch, grid), self._window(grid.n)
        told = Latent({}, prompts=batch.prompts)
        condition = model.condition_of(told) if batch.prompts else model.unconditional(len(batch))
        recorder = Recorder()

        def own(x: Tensor, start: int, stop: int) -> Tensor:
            return invert(
                model, x, plain(condition), grid=grid, start=start, stop=stop,
                convention=self.convention, interventions=[recorder],
            )  # fmt: skip

        recorder.x[grid.n] = x = model.encode(batch.images)
        x = own(x, grid.n, first)
        for i in reversed(range(last, first)):
            before, there = (truth[:, k].to(x) for k in (i + 1, i))
            carried = 0.0 if self.oracle == "latent" else (x - before) / grid.linear_step(i)[0]
            recorder.x[i] = x = there + carried  # (3), (4)
        x = own(x, last, 0)
        return Latent({Space.NOISE: x}, prompts=batch.prompts, trajectory=recorder.trajectory)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images that the sampler makes of x_T."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def _window(self, n: int) -> tuple[int, int]:
        """Return the levels where the oracle's first step starts and its last one ends."""
        steps = max(n - self.oracle_from, 0) if self.oracle_steps is None else self.oracle_steps
        last = n - self.oracle_from - steps
        if last < 0:
            raise BadInput(
                f"method.oracle_from={self.oracle_from} and method.oracle_steps={self.oracle_steps}"
                f" reach beyond the {n} sampling steps; their sum must be {n} or less"
            )
        return n - self.oracle_from, last


def _levels(batch: Batch, grid: Grid) -> Float[Tensor, "b l ..."]:
    """Return the sampler's trajectory, on the grid's levels."""
    found = batch.trajectory
    if found is None or found.shape[1] != grid.n + 1:
        came = "none" if found is None else f"one of {found.shape[1]} levels"
        raise BadInput(
            f"OracleInversion needs the sampler's own trajectory of {grid.n + 1} levels "
            f"(Batch.trajectory), got {came}; take benchmark=noise_recovery, which makes the images"
        )
    return found
