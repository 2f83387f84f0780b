"""PILOT: inpainting by moving the noisy latent until the background is the source's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from latentbench.bounds import (
    Count,
    Guidance,
    NotNegative,
    Positive,
    Share,
    Steps,
    above,
    at_most,
    below,
    between,
)
from latentbench.data.edges import edges
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.loop import Intervention, Step, denoise, generate, guided, noise_to_level
from latentbench.sampling.loop import plain as unguided
from latentbench.types import Batch, Capability, Edit, Space
from methods.editing.prompt_to_prompt import maps_of
from methods.editing.steps_back import StepsBackEditor

GROWTH = 1.002**1000  # of the rate, from noise to image
EARLY, LATE = 2 / 16, 13 / 16  # attention layers between these shares of all enter the loss


class CentredAttention(Intervention):
    """Places outside the hole read no token of the prompt but the first.

    What they would have read is lost, not spread over other tokens. The maps as they were are kept.

    Args:
        hole: 1 where the image may change, in the latents' resolution.
        content: 1 at the tokens of the prompt's words.
    """

    def __init__(self, hole: Float[Tensor, "b 1 h w"], content: Float[Tensor, "b m"]) -> None:
        self.hole, self.content = hole, content
        self.outside_minus_inside: list[Float[Tensor, " b"]] = []  # of each layer

    def attention(self, step: Step, call: AttentionCall) -> Tensor | None:
        """Return the layer's output under the masked maps."""
        if not call.text:
            return None
        image = call.key.shape[2] - call.text
        places = image or call.query.shape[2]
        maps = maps_of(call.query[:, :, :places], call.key, call.scale)
        hole = hole_at(self.hole, round(places**0.5))
        if len(step.branches) == 1:
            self.outside_minus_inside.append(self._read(maps[..., image:], hole))
        kept = hole.repeat(len(step.branches), 1)[:, None, :, None].expand(-1, 1, -1, call.text)
        first = torch.arange(call.text, device=hole.device) == 0
        whole = kept.new_ones(*kept.shape[:3], image)
        masked = maps * torch.cat([whole, torch.where(first, 1.0, kept)], -1)
        out = call.attend().clone()
        out[:, :, :places] = masked.to(call.value) @ call.value
        return out

    def _read(
        self, maps: Float[Tensor, "b h p m"], hole: Float[Tensor, "b p"]
    ) -> Float[Tensor, " b"]:
        """Return how much more the words are read outside the hole than in it; 0 without either."""
        read = torch.einsum("bhpm,bm->bp", maps.to(self.content), self.content) / maps.shape[1]
        inside, outside = hole.sum(1), (1 - hole).sum(1)
        gap = ((1 - hole) * read).sum(1) / outside.clamp(min=1)
        gap = gap - (hole * read).sum(1) / inside.clamp(min=1)
        return torch.where((inside > 0) & (outside > 0), gap, 0.0)

    def loss(self) -> Float[Tensor, " b"]:
        """Return the mean over layers, the first and the last ones left out."""
        n = len(self.outside_minus_inside)
        first, last = int(EARLY * n), max(round(LATE * n), int(EARLY * n) + 1)
        return torch.stack(self.outside_minus_inside[first:last]).mean(0)


class HeldBackground(Intervention):
    """Moves x_t until the clean image that it means has the source's background.

    Args:
        model: the denoiser.
        condition: the target's.
        z_init: clean latents of the source.
        hole: 1 where the image may change.
        content: 1 at the tokens of the prompt's words; None: attention is left alone.
        method: when and how far.
        noise: fresh noise of each level, for the steps in which the background is put back.
        first: level of the first step.
    """

    def __init__(
        self,
        model: DiffusionModel,
        condition: Condition,
        z_init: Float[Tensor, "b c h w"],
        hole: Float[Tensor, "b 1 h w"],
        content: Float[Tensor, "b m"] | None,
        method: "Pilot",
        noise: Float[Tensor, "b n c h w"],
        first: int,
    ) -> None:
        self.model, self.condition, self.z_init, self.hole = model, condition, z_init, hole
        self.content, self.method, self.noise, self.first = content, method, noise, first
        self.losses: dict[int, list[Float[Tensor, " b"]]] = {}  # of each step, before each move

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x_t, moved, or with the source's background at this level."""
        method = self.method
        if step.index >= whole_steps(method.optimised, step.n):
            kept = noise_to_level(step.grid, self.z_init, self.noise[:, step.level], step.level)
            return torch.where(self.hole > 0, x, kept)
        if (step.index - self.first) % method.interval:
            return x
        rate = method.rate * GROWTH**step.progress
        rate = method.first_rate if step.index == self.first else rate
        move = torch.zeros_like(x)
        self.losses[step.index] = []
        for _ in range(method.updates):
            losses, slope = self._evaluate(step, x)
            self.losses[step.index].append(losses)
            move = method.momentum * move - rate * slope
            x = x + move
        return x

    def _evaluate(self, step: Step, x: Tensor) -> tuple[Float[Tensor, " b"], Tensor]:
        """Return each image's loss at x, and its gradient."""
        centred = [] if self.content is None else [CentredAttention(self.hole, self.content)]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0, _ = denoise(
                self.model, x, unguided(self.condition), grid=step.grid, level=step.level,
                interventions=centred,
            )  # fmt: skip
            gap = ((x0 - self.z_init) / 2 * (1 - self.hole)).square()
            losses = gap.flatten(1).sum(1)
            for one in centred:
                weight = self.method.attention * (1 - self.hole).flatten(1).sum(1)
                losses = losses + _ramp(1 - step.progress) * weight * one.loss()
            (slope,) = torch.autograd.grad(losses.sum(), x)
        return losses.detach(), slope


class Pilot(StepsBackEditor):
    """Inpaints from noise; in some steps x_t moves down the gradient of two losses.

    Source: "Coherent and Multi-modality Image Inpainting via Latent Space Optimization" and the
    authors' code. Every `interval` steps x_t takes `updates` steps with momentum down

        sum over the background of ((z - x0) / 2)^2 + lambda_t L_att,

    z being the source's latents and x0 what x_t means under the target prompt, unguided; L_att is
    how much more the background reads the prompt's words than the hole does. In every network call
    the background reads only the first token. After a share `optimised` of the steps, the source
    under fresh noise is put back outside the hole instead.

    The strength is the share of the steps that are made: 1 starts from noise, as published, and 0
    makes none: it is what the autoencoder makes of the image, whatever the background.

    Deviations: a latent cell may change as soon as one of its pixels may, and a hole that vanishes
    in a layer's resolution is kept by its cells; lambda_t is given per background cell, `attention`
    times their number (the published 150 / 1499); layers of the loss are a share of all; the rate
    grows with the share of the steps; every image has its own mask, words and loss. In joint
    attention, image tokens are masked in the same way. Of the published modalities, a ControlNet
    steers every network call, in the optimised steps and in both branches of guidance (`control`,
    on a model that has one; the background is masked in the U-Net's attention, not in the
    ControlNet's), and a LoRA comes with the model. IP-Adapter and T2I-Adapter are not here.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale towards the target prompt.
        negative: prompt that guidance leads away from; default: the empty condition.
        interval: steps from one optimised step to the next.
        updates: moves in an optimised step.
        rate: length of a move at the noisy end; it grows by 7.4 to the clean end.
        first_rate: the same in the first optimised step.
        momentum: of the moves, which begins anew in each step.
        attention: weight of L_att per background cell; it falls to a tenth of this.
        masked: whether the background reads only the first token, and L_att counts.
        optimised: share of the steps in which x_t is moved.
        control: image that steers a model with a ControlNet: "references": the edit's reference
            images, such as a sketch or a depth map; "edges": the edges of these images (Sobel);
            None: no image, also on a model that has a ControlNet.
        background: "none": as it is decoded; "paste": the source's pixels outside the mask.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: an edit without masks, or without references where `control` reads them;
            strengths of less than a step.

    Example:
        >>> editor = Pilot(interval=5)  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Coherent and Multi-modality Image Inpainting via Latent Space Optimization (PILOT)"
    version = 2
    neutral: ClassVar[Mapping[str, Any]] = {"control": None}
    small: ClassVar[Mapping[str, int]] = {"updates": 1}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.TOKEN_MAPS})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.TARGET_PROMPTS, Capability.EDIT_MASKS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance = 3.0,
        negative: str | None = None,
        interval: Count = 5,
        updates: Annotated[int, between(0, 1000)] = 10,
        rate: Positive = 0.025,
        first_rate: Positive = 0.007,
        momentum: Annotated[float, between(0, 1), below(1)] = 0.7,
        attention: NotNegative = 0.1,
        masked: bool = True,
        optimised: Share = 0.8,
        control: Literal["references", "edges"] | None = None,
        background: Literal["none", "paste"] = "none",
        max_strength: Annotated[float, above(0), at_most(1)] = 1.0,
    ) -> None:
        self.steps, self.guidance, self.negative = steps, guidance, negative
        self.interval, self.updates, self.momentum = interval, updates, momentum
        self.rate, self.first_rate = rate, first_rate
        self.attention, self.masked, self.optimised = attention, masked, optimised
        self.control = control
        self.background, self.max_strength = background, max_strength

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what `requires` and `needs` say; control needs a ControlNet and references."""
        verbs = tuple(verbs)
        spaces, needs = super().required(verbs, config)
        if "edit" in verbs and config.get("control") is not None:
            needs |= {Capability.CONTROL, Capability.REFERENCES}
        return spaces, needs

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength."""
        if edit.masks is None:
            raise BadInput(
                f"edit {edit.name!r} has no masks, and this method fills one; choose "
                f"benchmark=local_editing benchmark.give_masks=true"
            )
        if self.control is not None and edit.references is None:
            raise BadInput(
                f"edit {edit.name!r} has no references, and method.control={self.control} reads "
                f"them; choose benchmark.give_references=edges, or set method.control=null"
            )
        z_init, masks = self.model.encode(batch.images), edit.masks[:, None]

        def from_level(start: int) -> Float[Tensor, "b 3 h w"]:
            images = self.model.decode(self.filled(z_init, batch, edit, start))
            if self.background == "none" or start == self.model.grid(self.steps).n:
                return images
            return torch.where(masks.to(images) > 0, images, batch.images.to(images))

        return self.each(strengths, from_level)

    def filled(
        self, z_init: Float[Tensor, "b c h w"], batch: Batch, edit: Edit, start: int
    ) -> Float[Tensor, "b c h w"]:
        """Return the clean latents of a chain from level `start`."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        if start == grid.n:
            return z_init
        assert edit.masks is not None and edit.target_prompts is not None
        shape = (grid.n + 1, *z_init.shape[1:])
        noise = self.streams.normal("pilot", batch.ids, shape, z_init.device)
        hole = latent_mask(edit.masks, z_init)
        content = self.content(edit.target_prompts).to(z_init) if self.masked else None
        target = self.steered(model.condition(edit.target_prompts, b), edit)
        held = HeldBackground(model, target, z_init, hole, content, self, noise, start)
        centred = [] if content is None else [CentredAttention(hole, content)]
        return generate(
            model,
            noise_to_level(grid, z_init, noise[:, grid.n], start),
            guided(
                target, self.steered(model.unconditional(b, self.negative), edit), self.guidance
            ),
            grid=grid,
            start=start,
            interventions=[held, *centred],
        )

    def steered(self, condition: Condition, edit: Edit) -> Condition:
        """Return the condition with the control images that the settings ask for, if any."""
        if self.control is None:
            return condition
        assert edit.references is not None
        shown = edit.references
        images = edges(shown) if self.control == "edges" else ((shown + 1) / 2).clamp(0, 1)
        return self.model.controlled(condition, images)

    def content(self, prompts: Sequence[str]) -> Float[Tensor, "b m"]:
        """Return 1 at the tokens of each prompt's words."""
        rows = [
            [float(word is not None) for part in self.model.prompt_tokens(p) for word in part.words]
            for p in prompts
        ]
        return torch.tensor(rows)


def hole_at(hole: Float[Tensor, "b 1 h w"], side: int) -> Float[Tensor, "b p"]:
    """Return 1 at the places of a square map that lie wholly in the hole.

    Where none does, those of which a part does.

    Example:
        >>> hole = torch.zeros(1, 1, 4, 4)
        >>> hole[..., :3] = 1
        >>> hole_at(hole, 2).tolist(), hole_at(hole[..., :2, :].mean() * hole, 1).tolist()
        ([[1.0, 0.0, 1.0, 0.0]], [[1.0]])
    """
    whole = (adaptive_avg_pool2d(hole, side) > 1 - 1e-6).to(hole).flatten(1)
    part = (adaptive_max_pool2d(hole, side) > 0).to(hole).flatten(1)
    return torch.where(whole.any(1, keepdim=True), whole, part)


def _ramp(noisiness: float) -> float:
    """Return lambda_t as a share of lambda: 0.1 below 0.3 of the time, rising to 1."""
    return 0.1 + 0.9 * min(max((noisiness - 0.3) / 0.7, 0.0), 1.0)
