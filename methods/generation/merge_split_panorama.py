"""MAD (Merge-Attend-Diffuse): wide pictures through windows whose attention layers are one."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Share, Steps, between
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, DiffusionModel, LatentModel
from latentbench.models.semantic import SemanticDiffusion
from latentbench.models.unet import UNetDiffusion
from latentbench.option import Option
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step, generate, guided
from latentbench.types import Latent, Space
from methods.generation.views import Views

Mode = Literal["mad", "multidiffusion", "independent", "direct"]
Blocks = Literal["all", "down", "mid", "up"]
Merged = Literal["qkv", "kv"]
LogitScale = Literal["none", "entropy"]
Cells = Annotated[int, between(1, 4096)]  # of a latent


class FusedViews(Intervention):
    """MultiDiffusion's fusion: after each step every cell is the mean over the windows on it.

    Args:
        views: the windows; rows of x are (canvas, window).
    """

    def __init__(self, views: Views) -> None:
        self.views = views

    def after_step(self, step: Step, x: Float[Tensor, "v c s s"]) -> Float[Tensor, "v c s s"]:
        """Return the windows of the merged canvas."""
        return self.views.cut(self.views.merge(x))  # 3. x_{t-1} = M(y_1 .. y_m), cut again


class MergedAttention(Intervention):
    """MAD's operator: attention on the canvas, from queries, keys and values of its windows.

    Args:
        views: the windows; rows of the network are (branch, canvas, window).
        cross: act in the layers that read the prompt, or in those that read the image.
        until: number of steps, the noisiest, in which it acts.
        blocks: where in the U-Net.
        merged: which of a layer's inputs are merged where it reads the image.
        logit_scale: make up for attention being flatter over a canvas than over a window.
    """

    def __init__(
        self,
        views: Views,
        *,
        cross: bool,
        until: int,
        blocks: Blocks = "all",
        merged: Merged = "qkv",
        logit_scale: LogitScale = "none",
    ) -> None:
        self.views, self.cross, self.until = views, cross, until
        self.blocks, self.merged, self.logit_scale = blocks, merged, logit_scale

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first."""
        return step.index < self.until

    def attention(self, step: Step, call: AttentionCall) -> Tensor | None:
        """Return what the windows see of attention over the whole canvas."""
        elsewhere = self.blocks != "all" and not call.layer.startswith(f"{self.blocks}_block")
        if call.cross != self.cross or elsewhere:
            return None
        n, heads = len(self.views), call.query.shape[1]
        views = self.views.at(math.isqrt(call.query.shape[2]))

        def canvas(rows: Tensor) -> Tensor:
            return tokens(views.merge(maps(rows, views.window, views.window)), heads)

        def windows(rows: Tensor) -> Tensor:
            return tokens(views.cut(maps(rows, views.height, views.width)), heads)

        if self.cross:  # all windows have one prompt
            return windows(call.attend(canvas(call.query), call.key[::n], call.value[::n]))
        # 1. O_v = S_v(softmax(Q K^T / sqrt(d)) V)
        query = call.query * self._sharper(views)
        key, value = canvas(call.key), canvas(call.value)
        if self.merged == "kv":
            return call.attend(query, *(v.repeat_interleave(n, 0) for v in (key, value)))
        return windows(call.attend(canvas(query), key, value))

    def _sharper(self, views: Views) -> float:
        """Return sqrt(log N / log n) for N tokens on the canvas and n in a window (ours)."""
        if self.logit_scale == "none" or views.window == 1:
            return 1.0
        return math.sqrt(math.log(views.height * views.width) / math.log(views.window**2))


def maps(rows: Float[Tensor, "r k n d"], height: int, width: int) -> Float[Tensor, "r c h w"]:
    """Return tokens of all heads as maps, heads and widths one after the other in the channels."""
    return rows.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))


def tokens(rows: Float[Tensor, "r c h w"], heads: int) -> Float[Tensor, "r k n d"]:
    """Return maps as tokens of heads.

    Example:
        >>> rows = torch.rand(2, 4, 6, 8)
        >>> torch.equal(tokens(maps(rows, 2, 3), heads=4), rows)
        True
    """
    return rows.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)


class MergeSplitPanorama(Editor[DiffusionModel]):
    """Denoises a wide canvas through overlapping windows that share their attention.

    Source: "Merging and Splitting Diffusion Paths for Semantically Coherent Panoramas", and the
    authors' code. M(y_1 .. y_m) merges m windows, each cell of the canvas the mean over those on
    it; S_v cuts window v out of the canvas. In step i of n:

        1. Q = M(Q_1 .. Q_m), K = M(K_1 .. K_m), V = M(V_1 .. V_m)
           O_v = S_v(softmax(Q K^T / sqrt(d)) V)         in the attention layers, while i < tau n
        2. y_v = step(S_v(x_t); guided prediction of window v)
        3. x_{t-1} = M(y_1 .. y_m)                       ("MultiDiffusion", equation 5)

    Convolutions, norms and projections see one window each. Layers that read the prompt do so with
    the canvas's queries to the end, as in the authors' code, whose paper does not say so
    (``cross="views"``: never). Baselines, by `mode`: ``"multidiffusion"`` leaves out 1;
    ``"independent"`` makes windows side by side that know nothing of each other; ``"direct"`` hands
    the network the whole canvas. All start from one noise, which is that of the canvas.

    Deviations: one operator for each layer, so that `blocks` can choose among them (the published
    processor is one object for all, and its switch turns all of them); noise of a stochastic
    sampler is drawn on the canvas and cut (drawn for each window, as there, its variance falls
    where windows overlap); a canvas that windows do not cover is refused (there, the rest is 0);
    attention over a canvas may be made as sharp as over a window (`logit_scale`, ours).

    Args:
        mode: the method, or a baseline.
        window: cells of a window's side; default: what the model was trained on.
        stride: cells from window to window; default: a quarter of a window, if the U-Net's coarsest
            cells are not larger.
        tau: share of the steps, the noisiest, in which attention to the image is merged.
        blocks: part of the U-Net in which attention is merged.
        merge: merge queries, keys and values, or leave each window its own queries.
        cross: whether queries to the prompt are merged as well.
        logit_scale: "entropy" multiplies logits by sqrt(log N / log n), N and n being the tokens of
            canvas and window.
        eta: 0 is deterministic (DDIM), 1 as stochastic as DDPM.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Raises:
        BadInput: a canvas that windows do not cover, or canvas or windows off the U-Net's coarsest
            cells.

    Example:
        >>> method = MergeSplitPanorama(tau=0.5)
        >>> # method.panorama(("a",), ("leftlit green hat white",), width=256)
    """

    paper = "Merging and Splitting Diffusion Paths for Semantically Coherent Panoramas"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "panorama": frozenset({Space.NOISE, Space.ATTENTION})
    }

    def __init__(
        self,
        *,
        mode: Mode = "mad",
        window: Cells | None = None,
        stride: Cells | None = None,
        tau: Share = 0.5,
        blocks: Blocks = "all",
        merge: Merged = "qkv",
        cross: Literal["merged", "views"] = "merged",
        logit_scale: LogitScale = "none",
        eta: Share = 0.0,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.mode, self.window, self.stride, self.tau = mode, window, stride, tau
        self.blocks: Blocks = blocks
        self.merge: Merged = merge
        self.logit_scale: LogitScale = logit_scale
        self.cross, self.eta, self.steps, self.guidance = cross, eta, steps, guidance

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the model cannot be given windows of a canvas, or None."""
        if issubclass(model, DiffusionModel) and not issubclass(model, UNetDiffusion):
            return (
                f"{model.__name__} is no U-Net: a transformer adds to its tokens positions of one "
                f"image, and those that windows share would have several"
            )
        if issubclass(model, SemanticDiffusion):
            return f"{model.__name__} is told of one whole image, of which a window shows a part"
        return super().misfit(model, others)

    def panorama(
        self, ids: Sequence[str], prompts: Sequence[str] | None, width: int
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one wide picture per id, from the canvas noise of that id."""
        model, grid, rows = self.model, self.model.grid(self.steps), len(ids)
        shape = (model.latent_shape[0], *self.canvas(width))
        views = None if self.mode == "direct" else self.views(width)
        told = Latent({}, prompts=None if prompts is None else tuple(prompts))
        condition = model.condition_of(told) if prompts else model.condition(None, rows)
        null = model.unconditional(rows)
        canvas = self.streams.normal("prior", ids, shape, model.device)

        def sample(x: Tensor, noise: Any, times: int, changes: Sequence[Intervention]) -> Tensor:
            scale = model.guidance if self.guidance is None else self.guidance
            terms = guided(condition.repeat(times), null.repeat(times), scale)
            return generate(
                model, x, terms, grid=grid, eta=self.eta, noise=noise, interventions=changes
            )

        def drawn(i: int) -> Tensor:
            return self.streams.normal(f"panorama/{i}", ids, shape, model.device)

        if views is None:
            return model.decode(sample(canvas, drawn, 1, ()))
        changes = self.interventions(views, grid.n, condition)
        x = sample(views.cut(canvas), lambda i: views.cut(drawn(i)), len(views), changes)
        return model.decode(views.merge(x))

    def interventions(self, views: Views, n: int, condition: Condition) -> list[Intervention]:
        """Return what windows share in n steps."""
        if self.mode == "independent":
            return []
        changes: list[Intervention] = [FusedViews(views)]
        until = whole_steps(self.tau, n)
        if self.mode == "mad" and until:
            changes.append(
                MergedAttention(
                    views, cross=False, until=until, blocks=self.blocks, merged=self.merge,
                    logit_scale=self.logit_scale,
                )
            )  # fmt: skip
        if self.mode == "mad" and self.cross == "merged" and condition.tensors:
            changes.append(MergedAttention(views, cross=True, until=n, blocks=self.blocks))
        return changes

    def canvas(self, width: int) -> tuple[int, int]:
        """Return height and width, in cells, of the canvas of a picture's width in pixels.

        Raises:
            BadInput: see the class.
        """
        side = self.model.latent_shape[-1]
        cell, coarsest = self.model.image_size // side, self.coarsest
        if width % cell:
            raise BadInput(f"a picture {width} pixels wide is no whole number of latent cells of "
                           f"{cell} pixels; give a multiple of {cell}")  # fmt: skip
        if self.mode == "direct" and width // cell % coarsest:
            raise BadInput(
                f"a picture {width} pixels wide is {width // cell} latent cells, and the U-Net "
                f"sees {coarsest} of them as one; give a multiple of {cell * coarsest}"
            )
        return side, width // cell

    @property
    def coarsest(self) -> int:
        """Return how many cells of the latent are one on the U-Net's lowest level."""
        model: Any = self.model
        return 2 ** (len(model.network.config.block_out_channels) - 1)

    def views(self, width: int) -> Views:
        """Return the windows on a canvas of a width in pixels.

        Raises:
            BadInput: see the class.
        """
        (side, columns), coarsest = self.canvas(width), self.coarsest
        window = self.window or side
        stride = self.stride or coarsest * max(1, window // (4 * coarsest))
        if self.mode == "independent":
            stride = window
        for name, cells in (("window", window), ("stride", stride)):
            if cells % coarsest:
                raise BadInput(
                    f"method.{name} is {cells} cells; attention layers see {coarsest} of them as "
                    f"one, so that windows meet only at multiples of {coarsest}: give one"
                )
        return Views(side, columns, window, stride)
