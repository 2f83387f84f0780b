"""The one sampling loop: generation, inversion, and the interventions that methods are made of.

A step goes from level i to level i + 1 (noisiest first); inversion goes back. In every step, hooks
run in this order, and interventions in the order in which they were given:

1. `before_step`  changes x_t
2. `terms`        adds weighted conditions; all conditions of a step share one network call
3. `adapters`     sets adapter scales
4. `low_rank`     adds low-rank changes to linear layers, one per image
5. `context`      changes what an attention layer reads (per-layer prompts)
6. `attention`    changes an attention layer's queries, keys and values, or replaces its output
7. `bottleneck`   changes the middle block's output h_t
8. `features`     changes the maps of the layers that the intervention names
9. `prediction`   changes (x0, eps)
10. `after_step`  changes x at the next level

Hooks 5 to 8 run inside the network on rows ordered ``(branch, image)``, layer by layer as the
network runs; in the middle block, `bottleneck` comes before `features`. Both get float32 and may
return it, whatever the network's dtype.

Interventions chain: each gets what the one before it has made. Of an attention layer that is the
call as earlier ones changed it. Once one has returned an output, later ones get it from
``call.attend()``; one that returns an output without having asked for it would drop the earlier
one's and is refused (`Incompatible`), as is a changed call, which can no longer reach the output.
Two interventions that set one adapter in one step are refused as well; low-rank changes of one
layer add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.errors import BadInput, HookNeverFired, Incompatible, NotFinite, unknown
from latentbench.model import AttentionCall, Condition, Convention, DiffusionModel, LowRank
from latentbench.parameterization import Eta, Grid, split_prediction, transition
from latentbench.sampling.fixed_point import FixedPoint

Noise = Callable[[int], Tensor]  # step index -> z_i [b, ...]
Window = tuple[float, float]  # share of the steps [from, to), 0 at the noisy end


@dataclass(frozen=True)
class Term:
    """One condition in the composed prediction ``sum_k weight_k eps(x_t, condition_k)``.

    A flow's velocities are summed instead. That is the same where the weights add up to one; where
    they do not, a sum of eps has no x0 at the flow's first level, which holds no signal.

    Args:
        branch: name by which interventions know its rows ("condition", "null", ...).
        condition: one row per image.
        weight: a number, one per image, or one per image and place.
        window: share of the steps in which it counts.
    """

    branch: str
    condition: Condition
    weight: float | Float[Tensor, " b"] | Float[Tensor, "b 1 h w"] = 1.0
    window: Window = (0.0, 1.0)


def plain(condition: Condition) -> tuple[Term, ...]:
    """Return the one term of a prediction without guidance."""
    return (Term("condition", condition),)


def captioned(model: DiffusionModel, prompts: Sequence[str]) -> Condition:
    """Return the condition of captions, of which an empty one says what `unconditional` does.

    Some models are told zeros there (`force_zeros_for_empty_prompt`), and not the prompt "".
    """
    named = [k for k, prompt in enumerate(prompts) if prompt]
    silent = [k for k, prompt in enumerate(prompts) if not prompt]
    parts = [model.condition([prompts[k] for k in named], len(named))] if named else []
    parts += [model.unconditional(len(silent))] if silent else []
    return Condition.concat(parts).rows(torch.tensor([*named, *silent]).argsort())


def guided(
    condition: Condition, null: Condition, scale: float | Float[Tensor, " b"]
) -> tuple[Term, ...]:
    """Return the terms of classifier-free guidance; a scale of 1 needs no null branch.

    "Classifier-Free Diffusion Guidance": eps = (1 - w) eps(null) + w eps(condition).
    """
    if isinstance(scale, float | int) and scale == 1:
        return plain(condition)
    return (Term("null", null, 1 - scale), Term("condition", condition, scale))


@dataclass(frozen=True)
class Step:
    """Where the loop is.

    Args:
        index: i; generation goes from level i to i + 1, inversion from i + 1 to i.
        level: where x is before the step.
        reaches: where x is after it.
        n: number of steps of the grid.
        timestep: what the network receives.
        branches: names of the terms in this network call, outermost axis of its rows.
        grid: all levels.
        predict: (x, level index) -> (x0, eps), the step's own terms without interventions.
    """

    index: int
    level: int
    reaches: int
    n: int
    timestep: int | float
    branches: tuple[str, ...]
    grid: Grid
    predict: Callable[[Tensor, int], tuple[Tensor, Tensor]] = field(repr=False)

    @property
    def progress(self) -> float:
        """Share of the steps already behind, 0 at the noisy end."""
        return self.index / self.n

    def split(self, rows: Tensor) -> Tensor:
        """Return network rows as ``[branch, image, ...]``."""
        return rows.reshape(len(self.branches), -1, *rows.shape[1:])


class Intervention:
    """A change to the loop. Override the hooks that you touch; return what they were given if not.

    Attributes:
        window: share of the steps in which it acts, 0 at the noisy end.
        asymmetric: what changes inside the network enters x0 only, not the direction to x_t
            (Asyrp); the step then costs two evaluations.
        layers: feature layers that `features` is called for, names of `model.feature_layers()`.
    """

    window: Window = (0.0, 1.0)
    asymmetric: bool = False
    layers: Sequence[str] = ()

    def active(self, step: Step) -> bool:
        """Return whether it acts in this step."""
        return self.window[0] <= step.progress < self.window[1]

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x_t, changed."""
        return x

    def terms(self, step: Step) -> Sequence[Term]:
        """Return further terms of the composed prediction."""
        return ()

    def adapters(self, step: Step) -> Mapping[str, float]:
        """Return adapter scales by adapter name."""
        return {}

    def low_rank(self, step: Step) -> Mapping[str, LowRank]:
        """Return changes by linear layer (`model.linear_layers()`), for all images or one each."""
        return {}

    def context(self, step: Step, layer: str, context: Tensor) -> Tensor | None:
        """Return what the layer's keys and values are made from, or None to leave it."""
        return None

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | Tensor | None:
        """Return the layer's output ``[rows, heads, tokens, width]``, or a changed call, or None.

        A changed call (`dataclasses.replace`) is what later interventions get; the call itself says
        that the layer was looked at, None that it was not the one looked for.
        """
        return None

    def bottleneck(self, step: Step, h: Float[Tensor, "k b ..."]) -> Float[Tensor, "k b ..."]:
        """Return h_t, changed."""
        return h

    def features(
        self, step: Step, layer: str, h: Float[Tensor, "k b c h w"]
    ) -> Float[Tensor, "k b c h w"]:
        """Return the map of one of its `layers`, changed."""
        return h

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x0, eps), changed."""
        return x0, eps

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x at the level that the step reached, changed."""
        return x

    def overrides(self, hook: str) -> bool:
        """Return whether this class has its own version of a hook."""
        return getattr(type(self), hook) is not getattr(Intervention, hook)


class Recorder(Intervention):
    """Keeps inner maps of each step (first branch), its prediction, and x at every level reached.

    Args:
        bottleneck: keep h_t.
        layers: feature layers to keep.
        predictions: keep (x0, eps), as the interventions before this one have made them.

    Example:
        >>> recorder = Recorder(bottleneck=True, layers=["up_blocks.0"], predictions=True)
        >>> # generate(..., interventions=[recorder])
        >>> # recorder.h[i] is [b, c, h, w] at step i; recorder.x[i] is x at level i;
        >>> # recorder.maps["up_blocks.0"][i] is that layer's map at step i;
        >>> # recorder.x0[i] and recorder.eps[i] are what was predicted at step i
    """

    def __init__(
        self, bottleneck: bool = False, layers: Sequence[str] = (), predictions: bool = False
    ) -> None:
        self._bottleneck, self.layers, self._predictions = bottleneck, tuple(layers), predictions
        self.h: dict[int, Tensor] = {}
        self.x: dict[int, Tensor] = {}
        self.x0: dict[int, Tensor] = {}
        self.eps: dict[int, Tensor] = {}
        self.maps: dict[str, dict[int, Tensor]] = {layer: {} for layer in self.layers}

    @property
    def trajectory(self) -> Float[Tensor, "b l ..."]:
        """X at all levels that were seen, the noisiest first."""
        return torch.stack([self.x[i] for i in sorted(self.x)], 1)

    def overrides(self, hook: str) -> bool:
        """Only tap the network when the bottleneck is wanted."""
        return super().overrides(hook) and (hook != "bottleneck" or self._bottleneck)

    def bottleneck(self, step: Step, h: Tensor) -> Tensor:
        """Keep h_t of the first branch."""
        self.h[step.index] = h[0]
        return h

    def features(self, step: Step, layer: str, h: Tensor) -> Tensor:
        """Keep the layer's map of the first branch."""
        self.maps[layer][step.index] = h[0]
        return h

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Keep (x0, eps) where they are wanted."""
        if self._predictions:
            self.x0[step.index], self.eps[step.index] = x0, eps
        return x0, eps

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Keep x where the step starts."""
        self.x.setdefault(step.level, x)
        return x

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Keep x where the step ends."""
        self.x[step.reaches] = x
        return x


@dataclass
class _Taps:
    """The interventions of one network call, compiled to what the model understands."""

    step: Step
    interventions: Sequence[Intervention]
    fired: set[tuple[int, str]]

    def _own(self, *hooks: str) -> list[Intervention]:
        return [v for v in self.interventions if any(v.overrides(h) for h in hooks)]

    @property
    def inside(self) -> bool:
        """Whether anything reads or changes rows inside the network, ordered (branch, image)."""
        inner = ("bottleneck", "attention", "context", "low_rank")
        return bool(self._own(*inner) or self.layers)

    @property
    def bottleneck(self) -> Callable[[Tensor], Tensor] | None:
        return self._change_h if self._own("bottleneck") else None

    @property
    def attend(self) -> Callable[[AttentionCall], Tensor] | None:
        return self._attend if self._own("attention", "context") else None

    @property
    def layers(self) -> tuple[str, ...]:
        wanted = [layer for v in self._own("features") for layer in v.layers]
        return tuple(dict.fromkeys(wanted))

    @property
    def features(self) -> Callable[[str, Tensor], Tensor] | None:
        return self._change_map if self.layers else None

    @property
    def low_rank(self) -> Mapping[str, Sequence[LowRank]]:
        found: dict[str, list[LowRank]] = {}
        for v in self._own("low_rank"):
            for layer, change in v.low_rank(self.step).items():
                found.setdefault(layer, []).append(change.tile(len(self.step.branches)))
        return found

    def _change_h(self, rows: Tensor) -> Tensor:
        h = self.step.split(rows.float())
        for v in self._own("bottleneck"):
            h = v.bottleneck(self.step, h)
            self.fired.add((id(v), "bottleneck"))
        return h.reshape(rows.shape).to(rows)

    def _attend(self, call: AttentionCall) -> Tensor:
        for v in self._own("context"):
            context = v.context(self.step, call.layer, call.context)
            if context is not None:
                key, value = call.project(context)
                call = replace(call, context=context, key=key, value=value)
                self.fired.add((id(v), "context"))
        out = None
        for v in self._own("attention"):
            read = []
            seen = call if out is None else replace(call, made=partial(_noted, out, read))
            changed = v.attention(self.step, seen)
            if changed is None:
                continue
            self.fired.add((id(v), "attention"))
            if changed is seen:
                continue
            if out is not None and not (read and isinstance(changed, Tensor)):
                raise Incompatible(
                    f"{type(v).__name__} would drop what an earlier intervention has made of "
                    f"attention layer {call.layer}: give it first, or let it start from "
                    f"call.attend()"
                )
            if isinstance(changed, Tensor):
                out = changed
            else:
                call = changed
        return call.attend() if out is None else out

    def _change_map(self, layer: str, rows: Tensor) -> Tensor:
        h = self.step.split(rows.float())
        for v in self._own("features"):
            if layer in v.layers:
                h = v.features(self.step, layer, h)
                self.fired.add((id(v), layer))
        return h.reshape(rows.shape).to(rows)


def _noted(out: Tensor, read: list[bool]) -> Tensor:
    """Return an earlier intervention's output, and note that it was asked for."""
    read.append(True)
    return out


class _Loop:
    """What generation and inversion share: composed predictions under interventions."""

    def __init__(
        self,
        model: DiffusionModel,
        grid: Grid,
        terms: Sequence[Term],
        interventions: Sequence[Intervention],
    ) -> None:
        self.model, self.grid, self.base = model, grid, tuple(terms)
        self.interventions = tuple(interventions)
        self.fired: set[tuple[int, str]] = set()
        self.was_active: dict[int, Intervention] = {}
        self._check_layers()

    def _check_layers(self) -> None:
        """Refuse feature layers that the model lacks, before any evaluation."""
        tapping = (v for v in self.interventions if v.overrides("features"))
        wanted = [layer for v in tapping for layer in v.layers]
        known = self.model.feature_layers() if wanted else ()
        for layer in wanted:
            if layer not in known:
                raise unknown(f"feature layer of {type(self.model).__name__}", layer, known)

    def begin(
        self, level: int, reaches: int, timestep: int | float, x: Tensor
    ) -> tuple[Step, list[Intervention], tuple[Term, ...], Tensor]:
        """Return the step, the interventions active in it, its terms, and x after `before_step`.

        `before_step` knows the branches of the loop's own terms; later hooks know all.
        """
        i = min(level, reaches)
        share = i / self.grid.n
        base = tuple(t for t in self.base if t.window[0] <= share < t.window[1])
        names = tuple(t.branch for t in base)

        def own(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
            told = timestep if at == level else None
            return predict(self.model, x, self.grid, at, base, told)

        step = Step(i, level, reaches, self.grid.n, timestep, names, self.grid, own)
        active = [v for v in self.interventions if v.active(step)]
        self.was_active.update({id(v): v for v in active})
        for v in active:
            x = v.before_step(step, x)
        terms = base + tuple(
            t for v in active for t in v.terms(step) if t.window[0] <= share < t.window[1]
        )
        return replace(step, branches=tuple(t.branch for t in terms)), active, terms, x

    def predict(
        self,
        step: Step,
        active: Sequence[Intervention],
        terms: Sequence[Term],
        x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) at x, with all hooks between `terms` and `prediction`."""
        x0, eps = self._network(step, active, terms, x)
        if any(v.asymmetric for v in active):
            others = [v for v in active if not v.asymmetric]
            _, eps = self._network(step, others, terms, x)
        for v in active:
            x0, eps = v.prediction(step, x, x0, eps)
        return x0, eps

    def _network(
        self,
        step: Step,
        active: Sequence[Intervention],
        terms: Sequence[Term],
        x: Tensor,
    ) -> tuple[Tensor, Tensor]:
        taps = _Taps(step, active, self.fired)
        with self.model.adapter_scales(_adapter_scales(step, active)):
            return predict(self.model, x, self.grid, step.level, terms, step.timestep, taps)

    def finish(self, x: Tensor) -> Tensor:
        """Raise on a hook that was asked for and never ran, and on NaN."""
        for key, v in self.was_active.items():
            for layer in v.layers if v.overrides("features") else ():
                if (key, layer) not in self.fired:
                    raise HookNeverFired(
                        f"{type(v).__name__}.features was active but never called for layer "
                        f"{layer}, which {type(self.model).__name__} names and does not run"
                    )
            for hook in ("bottleneck", "attention", "context"):
                if v.overrides(hook) and (key, hook) not in self.fired:
                    raise HookNeverFired(
                        f"{type(v).__name__}.{hook} was active but never fired on "
                        f"{type(self.model.network).__name__}, which has "
                        f"{len(self.model.attention_layers())} attention layers; check the layer "
                        f"names that it looks for against model.attention_layers()"
                    )
        if not torch.isfinite(x).all():
            raise NotFinite("the sampling loop ended in NaN or infinity; lower the strength")
        return x


def _adapter_scales(step: Step, active: Sequence[Intervention]) -> dict[str, float]:
    """Return the scales of all adapters in this step; one adapter has one that sets it."""
    found: dict[str, float] = {}
    for v in active:
        scales = v.adapters(step)
        if found.keys() & scales.keys():
            name = sorted(found.keys() & scales.keys())[0]
            raise Incompatible(
                f"two interventions set adapter {name!r} in step {step.index}, the second one a "
                f"{type(v).__name__}; let one of them set the sum"
            )
        found |= scales
    return found


def predict(
    model: DiffusionModel,
    x: Float[Tensor, "b ..."],
    grid: Grid,
    level: int | Int[Tensor, " b"],
    terms: Sequence[Term],
    timestep: int | float | None = None,
    taps: _Taps | None = None,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Return (x0, eps) of the composed prediction, all terms in one network call; see `Term`.

    Rows of weight 0 do not enter the network, unless an intervention acts inside it: the null
    branch of an image whose guidance is 1.

    Args:
        model: the denoiser.
        x: noisy latents at `level`.
        grid: the levels.
        level: index of x's level, or one per row (all timesteps of an inversion in one batch).
        terms: conditions and weights.
        timestep: what to tell the network, where it differs from the level's own.
        taps: changes inside the network.

    Raises:
        BadInput: weights that do not add up to one, at a level without signal.
    """
    b, k = len(x), len(terms)
    once = [1] * (x.dim() - 1)
    w = torch.stack(torch.broadcast_tensors(*(_column(term.weight, x) for term in terms)))
    flat = w.flatten(0, 1)
    index = _entering(flat, whole=taps is not None and taps.inside)
    levels = torch.as_tensor(level).reshape(-1).expand(b)
    told = grid.timesteps[levels] if timestep is None else torch.full((b,), timestep)
    rows, told = x.repeat(k, *once)[index], told.repeat(k).to(x.device)[index]
    condition = Condition.concat([term.condition for term in terms]).rows(index)
    out = model.forward(rows, told, condition, taps)
    alpha, sigma = grid.levels(level, x)
    a, s = (v.expand(b, *v.shape[1:]).repeat(k, *once)[index] for v in (alpha, sigma))
    parts = split_prediction(model.prediction_type, out, rows, a, s)
    x0, eps = (_summed(flat[index] * part, index, k, b) for part in parts)
    rest = 1 - w.sum(0)
    if not bool((rest.abs() > 1e-6).any()):
        return x0, eps
    if model.prediction_type == "flow":
        missing = rest * x / (alpha + sigma)
        return x0 + missing, eps + missing
    if bool((alpha == 0).any()):
        worst = rest.flatten()[rest.abs().argmax()]
        raise BadInput(
            f"the terms' weights add up to {float(1 - worst):g}; at a level without "
            f"signal they must add up to one: give the rest to a term of the empty condition"
        )
    return x0 + rest * x / alpha, eps


def _entering(weights: Float[Tensor, "r ..."], whole: bool) -> Int[Tensor, " i"] | slice:
    """Return the rows of other weight than 0, or all, where what is inside wants them whole."""
    enters = (weights != 0).flatten(1).any(1)
    if whole or bool(enters.all()) or not bool(enters.any()):
        return slice(None)
    return enters.nonzero().flatten()


def _summed(
    parts: Float[Tensor, "i ..."], index: Int[Tensor, " i"] | slice, k: int, b: int
) -> Float[Tensor, "b ..."]:
    """Return the sum over k terms of rows ``(term, image)``; those that are left out are 0."""
    if isinstance(index, slice):
        return parts.unflatten(0, (k, b)).sum(0)
    every = parts.new_zeros(k * b, *parts.shape[1:])
    every[index] = parts
    return every.unflatten(0, (k, b)).sum(0)


def _column(weight: float | Tensor, x: Tensor) -> Tensor:
    """Return a weight per row, shaped to broadcast over x."""
    value = torch.as_tensor(weight, dtype=x.dtype, device=x.device)
    if value.dim() > 1:  # one weight per place
        return value
    value = value.reshape(-1).expand(len(x))
    return value.reshape(-1, *[1] * (x.dim() - 1))


def denoise(
    model: DiffusionModel,
    x: Float[Tensor, "b ..."],
    terms: Sequence[Term],
    *,
    grid: Grid,
    level: int,
    interventions: Sequence[Intervention] = (),
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Return (x0, eps) of one step with its interventions: what a `fit` optimises.

    Gradients flow to x, to conditions and to the interventions' own parameters.
    """
    loop = _Loop(model, grid, terms, interventions)
    step, active, all_terms, x = loop.begin(level, level + 1, grid.timesteps[level].item(), x)
    x0, eps = loop.predict(step, active, all_terms, x)
    loop.finish(x0)
    return x0, eps


def generate(
    model: DiffusionModel,
    x: Float[Tensor, "b ..."],
    terms: Sequence[Term],
    *,
    grid: Grid | None = None,
    start: int = 0,
    stop: int | None = None,
    eta: Eta = 0.0,
    noise: Noise | None = None,
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "b ..."]:
    """Sample from level `start` to level `stop`.

    "Denoising Diffusion Implicit Models", equation 12; flow models take the same step (Euler).

    Args:
        model: the denoiser.
        x: latents at level `start`; noise for start 0.
        terms: see `guided`.
        grid: levels; default: the model's own.
        start: first level.
        stop: last level; default: the clean end.
        eta: 0 deterministic (DDIM), 1 as stochastic as DDPM; one number, or one per step of the
            grid, the noisiest first.
        noise: step index -> z_i, needed for eta > 0.
        interventions: changes to the loop, in this order.

    Raises:
        BadInput: eta > 0 without noise, or not one eta per step.
        HookNeverFired: an intervention that was active never ran.
        NotFinite: the result is not finite.
    """
    grid = grid or model.grid()
    etas = [eta] * grid.n if isinstance(eta, float | int) else list(eta)
    if len(etas) != grid.n:
        raise BadInput(f"got {len(etas)} values of eta for {grid.n} steps; give one, or one a step")
    if max(etas) > 0 and noise is None:
        raise BadInput(f"eta {eta} needs noise: pass `noise`, a function of the step index")
    loop = _Loop(model, grid, terms, interventions)
    for i in range(start, grid.n if stop is None else stop):
        step, active, all_terms, x = loop.begin(i, i + 1, grid.timesteps[i].item(), x)
        x0, eps = loop.predict(step, active, all_terms, x)
        x, std = transition(grid, i, x0, eps, etas)
        if noise is not None and etas[i] > 0:
            x = x + std * noise(i)
        for v in active:
            x = v.after_step(step, x)
    return loop.finish(x)


def invert(
    model: DiffusionModel,
    x: Float[Tensor, "b ..."],
    terms: Sequence[Term],
    *,
    grid: Grid | None = None,
    start: int | None = None,
    stop: int = 0,
    convention: Convention = "matched",
    fixed_point: FixedPoint | None = None,
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "b ..."]:
    """Run the deterministic sampler backwards, from level `start` (clean) to level `stop`.

    Args:
        model: the denoiser.
        x: latents at level `start`; clean by default.
        terms: usually one condition at guidance 1.
        grid: levels; default: the model's own.
        start: level of x; default: the clean end n.
        stop: level to reach; 0 is x_T.
        convention: the network receives the time of the level that the step goes to ("next", as
            DDIMInverseScheduler) or of the level where x is ("matched", as "Denoising Diffusion
            Implicit Models", equation 13); a clean x is at timestep 0.
        fixed_point: refines each step, from the convention's result on, towards the latent that
            the sampler takes back to where the step began; hooks run in every iteration.
        interventions: `before_step` sees x at level i + 1, `after_step` x at level i.
    """
    grid = grid or model.grid()
    loop = _Loop(model, grid, terms, interventions)
    for i in reversed(range(stop, grid.n if start is None else start)):
        timestep = _inverse_timestep(grid, i, convention)
        step, active, all_terms, x = loop.begin(i + 1, i, timestep, x)
        x0, eps = loop.predict(step, active, all_terms, x)
        alpha, sigma = grid.levels(i, x)
        guess = alpha * x0 + sigma * eps
        if fixed_point is None:
            x = guess
        else:
            x = fixed_point.solve(_implicit(loop, step, active, all_terms, x), guess)
        for v in active:
            x = v.after_step(step, x)
    return loop.finish(x)


def _implicit(
    loop: _Loop, step: Step, active: Sequence[Intervention], terms: Sequence[Term], x: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return F: from where the sampler reaches x with the prediction at y, at the level of y."""
    grid, i = loop.grid, step.reaches
    there = replace(step, level=i, timestep=grid.timesteps[i].item())
    p, q = grid.linear_step(i)
    return lambda y: (x - q * grid.linear_direction(i, *loop.predict(there, active, terms, y))) / p


def _inverse_timestep(grid: Grid, i: int, convention: str) -> int | float:
    if convention == "next":
        return grid.timesteps[i].item()
    if convention == "matched":
        return grid.timesteps[i + 1].item() if i + 1 < grid.n else 0
    raise unknown("timestep convention", convention, ("next", "matched"))


def noise_to_level(
    grid: Grid, x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], level: int
) -> Float[Tensor, "b ..."]:
    """Return x at a level: ``alpha x0 + sigma noise`` (the forward process)."""
    alpha, sigma = grid.levels(level, x0)
    return alpha * x0 + sigma * noise
