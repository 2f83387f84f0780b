"""RF inversion: inversion pulled towards a typical noise, edits pulled towards the image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Share, Steps, above, at_most
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step, generate, guided, invert, plain
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.inversion.own_prompts import prompts_of


class PulledNoise(Intervention):
    """eps <- (1 - gamma) eps + gamma y_1: the controlled velocity's end is y_1, gamma of the way.

    Args:
        y_1: the noise that the inversion is pulled to.
        gamma: how strongly.
    """

    def __init__(self, y_1: Float[Tensor, "b ..."], gamma: float) -> None:
        self.y_1, self.gamma = y_1, gamma

    def prediction(
        self, step: Step, x: Tensor, x0: Tensor, eps: Tensor
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
        """Return the mixed eps, and the x0 that goes with it at x."""
        alpha, sigma = step.grid.levels(step.level, x)
        eps = (1 - self.gamma) * eps + self.gamma * self.y_1
        return (x - sigma * eps) / alpha, eps


class PulledImage(Intervention):
    """Mixes the prediction with that of the line from x to z_0 at the clean end, in a window.

    That line's x0 is z_0 where the clean end holds no noise; some schedules leave a little.

    Args:
        z_0: the image's clean latents.
        eta: share of the line.
        window: shares of the steps, counted in whole steps, noisy end first.
    """

    def __init__(
        self, z_0: Float[Tensor, "b ..."], eta: float, window: tuple[float, float]
    ) -> None:
        self.z_0, self.eta, self.window = z_0, eta, window

    def active(self, step: Step) -> bool:
        """Return whether the step is in the window."""
        first, last = (whole_steps(share, step.n) for share in self.window)
        return first <= step.index < last

    def prediction(
        self, step: Step, x: Tensor, x0: Tensor, eps: Tensor
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
        """Return the mixed x0 and eps, which go together at x as both pairs do."""
        (a, s), (a_n, s_n) = (step.grid.levels(level, x) for level in (step.level, step.n))
        line_x0 = (s * self.z_0 - s_n * x) / (a_n * s - a * s_n)
        line_eps = (a_n * x - a * self.z_0) / (a_n * s - a * s_n)
        eta = self.eta
        return (1 - eta) * x0 + eta * line_x0, (1 - eta) * eps + eta * line_eps


class RFInversion(Editor[DiffusionModel]):
    """Inverts by a controlled ODE that ends near a noise y_1 ~ N(0, I), and edits by another.

    Source: "Semantic Image Inversion and Editing using Rectified Stochastic Differential
    Equations", equations 8 and 15. For a flow, with t its noise level and v its velocity:
    dy/dt = (1 - gamma) v(y, t; inversion prompt) + gamma (y_1 - y) / (1 - t) from the image up, and
    dx/dt = (1 - eta) v(x, t; target) + eta (x - z_0) / t from there down, eta in a window of steps.
    As x = (1 - t) x0 + t eps, the first mixes the predicted eps with y_1 and the second the
    predicted x0 with z_0; put so, both hold for any denoiser.

    Deviations: one grid gives times, divisions and steps (diffusers' community pipeline reads its
    steps from the other end of the schedule, which fits even levels only, and its inversion tells
    the network times i / (n + 1)); y_1 is drawn per image;
    the strength lambda moves the condition from the inversion's to the target and the guidance from
    1 to `guidance`, so that 0 is the reconstruction.

    Args:
        steps: sampling steps; default: the model's.
        gamma: pull towards y_1 while inverting; 0 is plain inversion.
        eta: pull towards the image while editing; 1 in all steps is the image itself.
        window_start: share of the steps before the pull to the image.
        window_stop: share of the steps at which it ends.
        inversion_prompt: prompt of the inversion and of the reconstruction; None: each image's own
            caption. "" is the empty prompt.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Raises:
        BadInput: a window that ends before it starts.

    Example:
        >>> editor = RFInversion(gamma=0.5, eta=0.9)  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = (
        "Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations, "
        "section 3"
    )
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        gamma: Share = 0.5,
        eta: Share = 0.9,
        window_start: Share = 0.0,
        window_stop: Annotated[float, above(0), at_most(1)] = 0.25,
        inversion_prompt: str | None = "",
        negative: str | None = None,
        guidance: Guidance = 3.5,
        max_strength: Positive = 1.0,
    ) -> None:
        if window_stop < window_start:
            raise BadInput(
                f"window_stop={window_stop:g} is before window_start={window_start:g}; give shares "
                f"of the steps, the noisy end first"
            )
        self.steps, self.gamma, self.eta = steps, gamma, eta
        self.window_start, self.window_stop = window_start, window_stop
        self.inversion_prompt, self.negative = inversion_prompt, negative
        self.guidance, self.max_strength = guidance, max_strength

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class, and text for prompts of the method's own."""
        spaces, needs = super().required(verbs, config)
        own = config.get("inversion_prompt") or config.get("negative") is not None
        return spaces | ({Space.TEXT} if own else frozenset()), needs

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a window of less than a step where there is a pull to the image."""
        window = (self.window_start, self.window_stop)
        if steps is not None and self.eta > 0 and window[0] < window[1]:
            first, last = (whole_steps(share, steps) for share in window)
            if first == last:
                raise BadInput(
                    f"the window from {window[0]:g} to {window[1]:g} holds none of {steps} "
                    f"sampling steps; widen it, raise method.steps, or give method.eta=0"
                )

    def invert(self, batch: Batch) -> Latent:
        """Return y at t = 1, and the clean latents z_0."""
        model, grid = self.model, self.model.grid(self.steps)
        z_0 = model.encode(batch.images)
        told = Latent({Space.VAE: z_0}, prompts=prompts_of(batch, self.inversion_prompt))
        terms = plain(model.condition_of(told))
        y_1 = self.streams.normal("rf_inversion", batch.ids, model.latent_shape, model.device)
        pull = [PulledNoise(y_1, self.gamma)] if self.gamma > 0 else []
        key = content_hash(
            model.fingerprint(), grid.timesteps, batch.images, terms[0].condition.tensors,
            self.gamma, y_1 if pull else None,
        )  # fmt: skip
        made = self.cache.get_or_make(
            "rf_inversion", key,
            lambda: {"y": invert(model, z_0, terms, grid=grid, interventions=pull)},
        )  # fmt: skip
        y = made["y"].to(model.device)
        return Latent({Space.NOISE: y, Space.VAE: z_0}, prompts=told.prompts)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images under the inversion's prompt, pulled to z_0 as edits are."""
        return self.model.sample(
            latent, guidance=1.0, steps=self.steps, interventions=self._pull(latent, 1)
        )

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images under prompts between the inversion's and the target."""
        model, b, s = self.model, len(batch), len(strengths)
        latent, weight = self.invert(batch), strengths.repeat(b)
        target = model.condition(edit.target_prompts, b).repeat(s)
        z = generate(
            model,
            latent.parts[Space.NOISE].repeat_interleave(s, 0),
            guided(
                model.condition_of(latent).repeat(s).lerp(target, weight),
                model.unconditional(b * s, self.negative),
                1 + weight * (self.guidance - 1),
            ),
            grid=model.grid(self.steps),
            interventions=self._pull(latent, s),
        )
        return model.decode(z).unflatten(0, (b, s))

    def _pull(self, latent: Latent, times: int) -> list[Intervention]:
        z_0 = latent.parts[Space.VAE].to(self.model.device).repeat_interleave(times, 0)
        window = (self.window_start, self.window_stop)
        return [PulledImage(z_0, self.eta, window)] if self.eta > 0 else []
