"""The sampling loop: against diffusers, against closed forms, and its interventions one by one."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig

from latentbench.conformance import toy
from latentbench.errors import BadInput, HookNeverFired, Incompatible, NotFinite
from latentbench.model import Condition
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.parameterization import Grid, split_prediction
from latentbench.sampling.loop import (
    Intervention,
    Recorder,
    Term,
    denoise,
    generate,
    guided,
    invert,
    predict,
)

PROMPTS = ("a face with hat", "a face with glasses smile")
FREE = guided(Condition(), Condition(), 1.0)


def noise(model, rows: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *model.latent_shape, generator=generator)


def prompted(model, prompts=PROMPTS, scale: float = 3.0) -> tuple[Term, ...]:
    return guided(
        model.condition(prompts, len(prompts)), model.condition(None, len(prompts)), scale
    )


def reference_scheduler(model, cls=DDIMScheduler, steps: int | None = None):
    scheduler = cls.from_config(model.scheduler.config)
    scheduler.set_timesteps(steps or model.steps)
    return scheduler


# ---------------------------------------------------------------- against diffusers


@pytest.mark.parametrize("name", ["pixel", "pixel_v"])
@pytest.mark.parametrize("steps", [7, 10])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_generation_is_ddim_schedulers(zoo, name, steps, eta):
    model = PixelDiffusion(path=str(zoo / name), steps=steps)
    x, z = noise(model), noise(model, 2 * steps, seed=1).unflatten(0, (steps, 2))
    ours = generate(model, x, FREE, eta=eta, noise=lambda i: z[i])
    scheduler = reference_scheduler(model)
    for i, t in enumerate(scheduler.timesteps):
        out = model.network(x, t).sample
        x = scheduler.step(out, t, x, eta=eta, variance_noise=z[i] if eta else None).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["latent", "latent_eps"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_generation_is_stable_diffusion_pipelines(zoo, name, scale):
    model = LatentDiffusion(path=str(zoo / name), steps=10)
    pipeline = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.network,
        reference_scheduler(model), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    z = noise(model)
    theirs = pipeline(
        list(PROMPTS), num_inference_steps=10, guidance_scale=scale, latents=z, output_type="latent"
    ).images
    ours = generate(model, z, prompted(model, scale=scale))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", ["pixel", "pixel_v"])
def test_inversion_is_ddim_inverse_schedulers(zoo, name):
    model = PixelDiffusion(path=str(zoo / name), steps=10)
    x = toy.ToyData().batch("test", range(2)).images
    ours = invert(model, x, FREE, convention="next")
    scheduler = reference_scheduler(model, DDIMInverseScheduler)
    for t in scheduler.timesteps:
        x = scheduler.step(model.network(x, t).sample, t, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_matched_inversion_tells_the_level_where_x_is(pixel):
    x = noise(pixel)
    grid = pixel.grid()
    told = []
    invert(pixel, x, FREE, convention="matched", interventions=[Log(told, "timestep")])
    assert told == [0, *grid.timesteps.flip(0).tolist()[:-1]]
    one = invert(pixel, x, FREE, start=3, stop=2, convention="matched")
    x0, eps = predict(pixel, x, grid, 3, FREE)
    alpha, sigma = grid.levels(2, x)
    torch.testing.assert_close(one, alpha * x0 + sigma * eps)


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_a_clean_x_stands_at_timestep_0(name, request):
    """Also on a grid that ends above 0, whose clean end has the alpha of timestep 0."""
    model = request.getfixturevalue(name)
    x, grid, n = noise(model), model.grid(), model.steps
    assert int(grid.timesteps[-1]) == (1 if name == "latent" else 0)
    terms = guided(model.condition(None, 2), Condition(), 1.0)
    found = invert(model, x, terms, stop=n - 1, convention="matched")
    raw = model.forward(x, torch.zeros(2, dtype=torch.long), terms[0].condition)
    alpha, sigma = grid.levels(n, x)
    x0, eps = split_prediction(model.prediction_type, raw, x, alpha, sigma)
    alpha, sigma = grid.levels(n - 1, x)
    torch.testing.assert_close(found, alpha * x0 + sigma * eps)
    if name == "latent":
        told = guided(model.condition(None, 2), Condition(), 1.0)
        x0, eps = predict(model, x, grid, n, told, timestep=1)
        assert not torch.equal(found, alpha * x0 + sigma * eps)


def test_unknown_convention_is_refused(pixel, unchecked):
    with pytest.raises(BadInput, match="did you mean next"):
        invert(pixel, noise(pixel), FREE, convention="nexxt")  # type: ignore[arg-type]


# ---------------------------------------------------------------- against closed forms


def test_generation_converges_to_the_exact_flow():
    model = toy.GaussianModel()
    x, errors = noise(model, 8), []
    terms = guided(model.condition(("hat",) * 8, 8), Condition(), 1.0)
    for steps in (25, 50, 100, 200):
        grid = model.grid(steps)
        sample = generate(model, x, terms, grid=grid)
        errors.append(float((sample - model.transport(x, grid, "hat")).abs().mean()))
    assert all(after < 0.65 * before for before, after in pairwise(errors))
    assert errors[-1] < 0.01


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow"])
def test_all_parameterizations_sample_alike(kind):
    exact, other = toy.GaussianModel(steps=10), toy.GaussianModel(kind, steps=10)
    x = noise(exact)
    terms = guided(exact.condition(("hat",) * 2, 2), exact.condition(None, 2), 2.0)
    expected = generate(exact, x, terms)
    torch.testing.assert_close(generate(other, x, terms), expected, rtol=1e-3, atol=1e-3)
    noisy, matched = generate(exact, x, terms, stop=8), {"start": 8, "convention": "matched"}
    torch.testing.assert_close(
        invert(other, noisy, terms, **matched),
        invert(exact, noisy, terms, **matched),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_predicted_x0_has_no_eps_at_the_clean_end():
    model = toy.GaussianModel("sample", steps=10)
    terms = guided(model.condition(None, 2), Condition(), 1.0)
    with pytest.raises(BadInput, match="level with noise"):
        invert(model, model.draw(("", "")), terms)
    invert(model, noise(model), terms, start=9)


def test_flow_levels_take_euler_steps(gaussian):
    """x' - x = (t' - t) (eps - x0): with alpha = 1 - t, sigma = t the DDIM step is Euler's."""
    t = torch.tensor([0.9, 0.6, 0.2, 0.0], dtype=torch.float64)
    grid = Grid(torch.tensor([900, 600, 200]), 1 - t, t)
    x = noise(gaussian)
    terms = guided(gaussian.condition(None, 2), Condition(), 1.0)
    x0, eps = predict(gaussian, x, grid, 1, terms)
    step = generate(gaussian, x, terms, grid=grid, start=1, stop=2)
    torch.testing.assert_close(step, x + float(t[2] - t[1]) * (eps - x0))


def without_signal() -> Grid:
    """Two levels of a flow, the first of noise alone."""
    t = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    return Grid(torch.tensor([999, 500]), 1 - t, t)


@pytest.mark.parametrize("weights", [(1.0, 0.5), (2.0, -0.5, -0.2), (1.5, -0.5)])
def test_a_flow_sums_velocities(weights):
    """From the first level on, where a sum of eps whose weights miss one has no x0."""
    model, grid = toy.GaussianModel("flow"), without_signal()
    x = noise(model)
    terms = [
        Term(word, model.condition((word,) * 2, 2), w)
        for word, w in zip(toy.FACTORS, weights, strict=False)
    ]
    for level, t in enumerate((1.0, 0.5)):
        told = torch.full((2,), int(grid.timesteps[level]))
        v = sum(term.weight * model.forward(x, told, term.condition) for term in terms)
        x0, eps = predict(model, x, grid, level, terms)
        torch.testing.assert_close(x0, x - t * v)
        torch.testing.assert_close(eps, x + (1 - t) * v)


def test_weights_that_miss_one_are_refused_where_there_is_no_signal(gaussian):
    hat = gaussian.condition(("hat",) * 2, 2)
    with pytest.raises(BadInput, match=r"add up to 1\.5"):
        predict(gaussian, noise(gaussian), without_signal(), 0, [Term("hat", hat, 1.5)])
    with pytest.raises(BadInput, match=r"add up to 1\.5"):  # the row that misses, not the first
        uneven = Term("hat", hat, torch.tensor([1.0, 1.5]))
        predict(gaussian, noise(gaussian), without_signal(), 0, [uneven])
    predict(gaussian, noise(gaussian), without_signal(), 1, [Term("hat", hat, 1.5)])


@pytest.mark.parametrize("convention", [pytest.param("next", marks=pytest.mark.slow), "matched"])
def test_inversion_error_falls_with_steps(gaussian, convention):
    images = gaussian.draw(("hat",) * 8)
    terms = guided(gaussian.condition(("hat",) * 8, 8), Condition(), 1.0)
    errors = []
    for steps in (20, 50, 100, 200):
        grid = gaussian.grid(steps)
        x = invert(gaussian, images, terms, grid=grid, convention=convention)
        errors.append(float((generate(gaussian, x, terms, grid=grid) - images).abs().mean()))
    assert all(after < 0.7 * before for before, after in pairwise(errors))


def test_fresh_noise_at_eta_1_gives_the_datas_variance_as_steps_grow(gaussian):
    rows, short = 128, []
    target = float(gaussian.draw([""] * rows).std())
    terms = guided(gaussian.condition(None, rows), Condition(), 1.0)
    shape = (rows, *gaussian.latent_shape)
    for steps in (50, 400):
        generator = torch.Generator().manual_seed(2)
        sample = generate(
            gaussian,
            noise(gaussian, rows, seed=1),
            terms,
            grid=gaussian.grid(steps),
            eta=1.0,
            noise=lambda i, shape=shape, g=generator: torch.randn(shape, generator=g),
        )
        short.append(abs(1 - float(sample.std()) / target))
    assert short[1] < 0.05 and short[1] < 0.5 * short[0]


# ---------------------------------------------------------------- the loop's own contract


def test_stopping_and_going_on_changes_nothing(pixel):
    x = noise(pixel)
    half = generate(pixel, x, FREE, stop=2)
    assert torch.equal(generate(pixel, half, FREE, start=2), generate(pixel, x, FREE))
    assert torch.equal(generate(pixel, x, FREE, start=3, stop=3), x)


def test_noise_is_asked_for(pixel):
    with pytest.raises(BadInput, match=r"eta 0\.5 needs noise"):
        generate(pixel, noise(pixel), FREE, eta=0.5)


def test_eta_may_differ_between_steps(pixel):
    x, z = noise(pixel), noise(pixel, 10, seed=1).unflatten(0, (5, 2))
    same = generate(pixel, x, FREE, eta=[0.4] * 5, noise=lambda i: z[i])
    assert torch.equal(same, generate(pixel, x, FREE, eta=0.4, noise=lambda i: z[i]))
    found = generate(pixel, x, FREE, eta=[0.0, 0.0, 0.7, 0.7, 0.7], noise=lambda i: z[i])
    half = generate(pixel, x, FREE, stop=2)
    assert torch.equal(found, generate(pixel, half, FREE, start=2, eta=0.7, noise=lambda i: z[i]))
    with pytest.raises(BadInput, match="got 2 values of eta for 5 steps"):
        generate(pixel, x, FREE, eta=[1.0, 1.0], noise=lambda i: z[i])


def test_nan_is_an_error(pixel):
    x = noise(pixel)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFinite):
        generate(pixel, x, FREE)


def test_rows_may_stand_at_different_levels(latent):
    x, grid = noise(latent), latent.grid()
    terms = prompted(latent)
    together = predict(latent, x, grid, torch.tensor([1, 4]), terms)
    for row, level in enumerate((1, 4)):
        apart = predict(latent, x, grid, level, terms)
        for a, b in zip(together, apart, strict=True):
            torch.testing.assert_close(a[row], b[row], rtol=1e-4, atol=1e-5)


def test_weights_per_row(latent):
    x, grid = noise(latent), latent.grid()
    yes, no = latent.condition(PROMPTS, 2), latent.condition(None, 2)
    mixed = predict(latent, x, grid, 2, guided(yes, no, torch.tensor([1.0, 5.0])))
    for row, scale in enumerate((1.0, 5.0)):
        alone = predict(latent, x, grid, 2, guided(yes, no, scale))
        for a, b in zip(mixed, alone, strict=True):
            torch.testing.assert_close(a[row], b[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inside", "rows"), [(False, 3), (True, 4)])
def test_rows_of_weight_0_enter_only_where_an_intervention_sees_them(latent, inside, rows):
    yes, no = latent.condition(PROMPTS, 2), latent.condition(None, 2)
    terms, before = guided(yes, no, torch.tensor([1.0, 5.0])), latent.evaluations.forward
    generate(latent, noise(latent), terms, stop=1, interventions=[Recorder(bottleneck=inside)])
    assert latent.evaluations.forward - before == rows


class More(Intervention):
    """A third condition, in the first half."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def terms(self, step):
        return [Term("more", self.condition, 0.5, (0.0, 0.4))]


def test_all_terms_share_one_network_call(latent):
    calls = []
    handle = latent.network.register_forward_pre_hook(lambda m, args: calls.append(len(args[0])))
    before = latent.evaluations.forward
    more = More(latent.condition(("hat",) * 2, 2))
    try:
        generate(latent, noise(latent), prompted(latent), interventions=[more])
    finally:
        handle.remove()
    assert calls == [6, 6, 4, 4, 4]  # 5 steps: three branches of two images, then two
    assert latent.evaluations.forward - before == sum(calls)


def test_a_further_term_adds_its_weighted_eps(latent):
    x, grid, other = noise(latent), latent.grid(), latent.condition(("hat",) * 2, 2)
    base = prompted(latent)
    _, found = denoise(latent, x, base, grid=grid, level=1, interventions=[More(other)])
    _, plain = predict(latent, x, grid, 1, base)
    _, added = predict(latent, x, grid, 1, guided(other, other, 1.0))
    torch.testing.assert_close(found, plain + 0.5 * added, rtol=1e-4, atol=1e-4)


def test_a_terms_window_counts_shares_of_the_steps(latent):
    yes, no = latent.condition(PROMPTS, 2), latent.condition(None, 2)
    terms = (Term("null", no, -1.0, (0.0, 0.4)), Term("condition", yes, 1.0))
    before = latent.evaluations.forward
    generate(latent, noise(latent), terms)
    assert latent.evaluations.forward - before == 2 * (2 + 2 + 1 + 1 + 1)


# ---------------------------------------------------------------- interventions


@dataclass
class Log(Intervention):
    """Writes down which hook ran, or what a step was."""

    seen: list
    what: str = "hook"
    name: str = ""
    window: tuple[float, float] = (0.0, 1.0)
    asymmetric: bool = field(default=False)

    def before_step(self, step, x):
        self.seen.append(getattr(step, self.what, (self.name, "before_step")))
        return x


class LogAll(Log):
    def note(self, hook: str) -> None:
        self.seen.append((self.name, hook))

    def terms(self, step):
        self.note("terms")
        return ()

    def adapters(self, step):
        self.note("adapters")
        return {}

    def context(self, step, layer, context):
        self.note("context")
        return context

    def attention(self, step, call):
        self.note("attention")
        return call.attend()

    def bottleneck(self, step, h):
        self.note("bottleneck")
        return h

    def prediction(self, step, x, x0, eps):
        self.note("prediction")
        return x0, eps

    def after_step(self, step, x):
        self.note("after_step")
        return x


def test_hooks_run_in_the_documented_order(latent):
    seen = []
    hooks = [LogAll(seen, name="1"), LogAll(seen, name="2")]
    generate(latent, noise(latent), prompted(latent), start=4, interventions=hooks)
    order = ["before_step", "terms", "adapters", "context", "attention", "bottleneck",
             "prediction", "after_step"]  # fmt: skip
    assert list(dict.fromkeys(seen)) == [(name, hook) for hook in order for name in "12"]
    outside = [entry for entry in seen if entry[1] not in ("context", "attention", "bottleneck")]
    assert len(outside) == len(set(outside))  # each once a step


@pytest.mark.parametrize("terms", ["free", "guided"])
def test_taps_that_change_nothing_change_nothing(pixel, latent, terms):
    """Our attention around theirs: same norm, projections, residual; and the bottleneck hook."""
    model, made = (pixel, FREE) if terms == "free" else (latent, prompted(latent))
    x = noise(model)
    plain = generate(model, x, made)
    tapped = generate(model, x, made, interventions=[LogAll([])])
    torch.testing.assert_close(tapped, plain, rtol=1e-4, atol=1e-4)


class Bump(Intervention):
    """Adds a constant to the bottleneck."""

    def __init__(self, size, window=(0.0, 1.0), asymmetric=False, times=1.0) -> None:
        self.size, self.window, self.asymmetric, self.times = size, window, asymmetric, times

    def bottleneck(self, step, h):
        return self.times * h + self.size


class Shift(Intervention):
    """Adds a constant to x at the next level."""

    def __init__(self, size: float, window=(0.0, 1.0)) -> None:
        self.size, self.window = size, window

    def after_step(self, step, x):
        return x + self.size


def test_interventions_compose_in_the_given_order(pixel):
    x = noise(pixel)
    add, double = Bump(0.5), Bump(0.0, times=2.0)
    first = generate(pixel, x, FREE, start=4, interventions=[add, double])
    second = generate(pixel, x, FREE, start=4, interventions=[double, add])
    both = generate(pixel, x, FREE, start=4, interventions=[Bump(1.0, times=2.0)])
    torch.testing.assert_close(first, both)
    assert float((first - second).abs().max()) > 1e-4


@pytest.mark.parametrize("n", [5, 7, 10])
def test_windows_count_from_the_noisy_end_both_ways(gaussian, n):
    x, grid = noise(gaussian), gaussian.grid(n)
    terms = guided(gaussian.condition(None, 2), Condition(), 1.0)
    for run, order in ((generate, 1), (invert, -1)):
        seen = []
        run(gaussian, x, terms, grid=grid, interventions=[Log(seen, "index", window=(0.2, 0.6))])
        assert seen == [i for i in range(n) if 0.2 <= i / n < 0.6][::order]


def test_outside_its_window_an_intervention_does_nothing(pixel):
    x = noise(pixel)
    late = generate(pixel, x, FREE, interventions=[Bump(1.0, (0.4, 1.0))])
    head = generate(pixel, x, FREE, stop=2)
    assert torch.equal(late, generate(pixel, head, FREE, start=2, interventions=[Bump(1.0)]))
    never = generate(pixel, x, FREE, interventions=[Bump(1.0, (0.0, 0.0))])
    assert torch.equal(never, generate(pixel, x, FREE))


def test_asymmetric_change_enters_x0_only_and_costs_a_second_call(pixel):
    x, grid = noise(pixel), pixel.grid()
    plain_x0, plain_eps = denoise(pixel, x, FREE, grid=grid, level=2)
    before = pixel.evaluations.forward
    x0, eps = denoise(
        pixel, x, FREE, grid=grid, level=2, interventions=[Bump(1.0, asymmetric=True)]
    )
    assert pixel.evaluations.forward - before == 2 * len(x)
    both_x0, _ = denoise(pixel, x, FREE, grid=grid, level=2, interventions=[Bump(1.0)])
    assert torch.equal(eps, plain_eps) and torch.equal(x0, both_x0)
    assert float((x0 - plain_x0).abs().max()) > 1e-3


def test_symmetric_change_nearly_cancels_in_long_chains(pixel):
    """Asyrp's reason: the shifts of P_t and D_t cancel, up to 1 - sigma' alpha / (alpha' sigma)."""
    ratios = []
    for steps in (10, 100):
        grid, x = pixel.grid(steps), noise(pixel)
        level = steps // 2
        span = {"grid": grid, "start": level, "stop": level + 1}
        plain = generate(pixel, x, FREE, **span)
        moved, moved_x0 = (
            generate(pixel, x, FREE, interventions=[Bump(3.0, asymmetric=a)], **span) - plain
            for a in (False, True)
        )
        a, s, a2, s2 = (v[level + k] for k in (0, 1) for v in (grid.alpha, grid.sigma))
        expected = float(1 - s2 * a / (a2 * s))
        assert float(moved.norm() / moved_x0.norm()) == pytest.approx(expected, rel=0.02)
        ratios.append(expected)
    assert ratios[1] < 0.2 * ratios[0]


def test_step_predicts_without_interventions(pixel):
    class Ask(Intervention):
        def prediction(self, step, x, x0, eps):
            self.found = step.predict(x, step.level)
            return x0, eps

    x, ask = noise(pixel), Ask()
    denoise(pixel, x, FREE, grid=pixel.grid(), level=1, interventions=[Bump(2.0), ask])
    expected = predict(pixel, x, pixel.grid(), 1, FREE)
    assert all(torch.equal(a, b) for a, b in zip(ask.found, expected, strict=True))


def test_step_predicts_while_inverting_what_the_loop_would(pixel):
    class Ask(Intervention):
        def prediction(self, step, x, x0, eps):
            for a, b in zip(step.predict(x, step.level), (x0, eps), strict=True):
                assert torch.equal(a, b)
            return x0, eps

    x = noise(pixel)
    assert torch.equal(invert(pixel, x, FREE, interventions=[Ask()]), invert(pixel, x, FREE))


def test_terms_come_after_before_step(pixel):
    """A condition may depend on the x_t that the step starts from."""

    class Condensed(Intervention):
        def before_step(self, step, x):
            self.level = step.level
            return x

        def terms(self, step):
            assert self.level == step.level
            return ()

    generate(pixel, noise(pixel), FREE, interventions=[Condensed()])


def test_recorder_keeps_x_at_every_level_and_h_at_every_step(pixel):
    x, recorder = noise(pixel), Recorder(bottleneck=True, predictions=True)
    end = generate(pixel, x, FREE, interventions=[recorder])
    for i in range(5):
        alpha, sigma = pixel.grid().levels(i + 1, x)
        assert torch.equal(recorder.x[i + 1], alpha * recorder.x0[i] + sigma * recorder.eps[i])
    assert sorted(recorder.x) == [0, 1, 2, 3, 4, 5] and sorted(recorder.h) == [0, 1, 2, 3, 4]
    assert torch.equal(recorder.x[0], x) and torch.equal(recorder.x[5], end)
    assert torch.equal(recorder.x[3], generate(pixel, x, FREE, stop=3))
    found = []
    handle = pixel.network.mid_block.register_forward_hook(lambda m, a, h: found.append(h))
    try:
        generate(pixel, x, FREE, start=0)
    finally:
        handle.remove()
    assert all(torch.equal(recorder.h[i], h) for i, h in enumerate(found))


# ---------------------------------------------------------------- attention and context


class SwapContext(Intervention):
    """Makes cross-attention read another prompt."""

    def __init__(self, context: torch.Tensor, layers: str = "attn2") -> None:
        self.other, self.layers = context, layers

    def context(self, step, layer, context):
        return self.other if self.layers in layer else None


def test_context_in_all_cross_layers_is_another_prompt(latent):
    x = noise(latent)
    other = latent.condition(("hat", "smile"), 2)
    swap = SwapContext(other.tensors["encoder_hidden_states"])
    swapped = generate(latent, x, prompted(latent, scale=1.0), interventions=[swap])
    expected = generate(latent, x, guided(other, Condition(), 1.0))
    torch.testing.assert_close(swapped, expected, rtol=1e-4, atol=1e-4)
    one = SwapContext(swap.other, "up_blocks.1.attentions.0.transformer_blocks.0.attn2")
    part = generate(latent, x, prompted(latent, scale=1.0), interventions=[one])
    plain = generate(latent, x, prompted(latent, scale=1.0))
    assert 1e-4 < float((part - plain).norm()) < float((swapped - plain).norm())


def test_attention_calls_say_what_they_are(latent):
    calls = []

    class Read(Intervention):
        def attention(self, step, call):
            calls.append(call)
            return call.probabilities() @ call.value

    x = noise(latent)
    with_maps = generate(latent, x, prompted(latent), start=4, interventions=[Read()])
    plain = generate(latent, x, prompted(latent), start=4)
    torch.testing.assert_close(with_maps, plain, rtol=1e-4, atol=1e-4)
    assert tuple(call.layer for call in calls) == latent.attention_layers()
    assert [call.cross for call in calls] == ["attn2" in call.layer for call in calls]
    maps = calls[1].probabilities()
    assert maps.shape[0] == 4 and maps.shape[-1] == toy.TOKENS
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


class Uniform(Intervention):
    """Attends to all tokens alike, in the layers whose name holds a word."""

    def __init__(self, layers: str) -> None:
        self.layers = layers

    def attention(self, step, call):
        if self.layers not in call.layer:
            return None
        return call.value.mean(2, keepdim=True).expand_as(call.query)


class Sharpen(Intervention):
    """Scales the queries, and hands the changed call on."""

    def __init__(self, by: float) -> None:
        self.by = by

    def attention(self, step, call):
        return replace(call, query=self.by * call.query)


class Halve(Intervention):
    """Halves what the layer, or an earlier intervention, makes."""

    def attention(self, step, call):
        return call.attend() / 2


class ByHand(Intervention):
    """What the two do to each other, written out."""

    def attention(self, step, call):
        return call.attend(query=3 * call.query) / 2


def test_attention_interventions_chain(latent):
    x, terms = noise(latent), prompted(latent)
    chains = [Sharpen(3.0), Halve()], [Sharpen(1.5), Sharpen(2.0), Halve()], [ByHand()]
    one, two, three = (generate(latent, x, terms, interventions=c) for c in chains)
    torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(two, three, rtol=1e-4, atol=1e-4)
    alone = generate(latent, x, terms, interventions=[Halve()])
    assert float((one - alone).abs().max()) > 1e-3
    quarter = generate(latent, x, terms, interventions=[Halve(), Halve()])
    assert float((quarter - alone).abs().max()) > 1e-3
    only = generate(latent, x, terms, interventions=[Sharpen(3.0)])
    assert float((only - generate(latent, x, terms)).abs().max()) > 1e-3


def test_a_changed_context_is_what_attention_sees(latent):
    """`context` comes first, whoever was given first."""
    x, terms = noise(latent), prompted(latent, scale=1.0)
    other = latent.condition(("hat", "smile"), 2)
    swap = SwapContext(other.tensors["encoder_hidden_states"])
    found = generate(latent, x, terms, interventions=[Halve(), swap])
    told = guided(other, Condition(), 1.0)
    expected = generate(latent, x, told, interventions=[Halve()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (Uniform(""), "Uniform would drop what an earlier"),
        (Sharpen(2.0), "Sharpen would drop what an earlier"),
        (ByHand(), "would drop it"),
    ],
    ids=["output", "call", "replaced"],
)
def test_what_an_earlier_intervention_made_is_never_dropped(pixel, second, words):
    x = noise(pixel)
    plain = generate(pixel, x, FREE)
    with pytest.raises(Incompatible, match=words):
        generate(pixel, x, FREE, interventions=[Halve(), second])
    assert torch.equal(generate(pixel, x, FREE), plain)


def test_one_that_only_looks_may_come_last(latent):
    maps = []

    class Look(Intervention):
        def attention(self, step, call):
            maps.append(call.probabilities())
            return call

    x, terms = noise(latent), prompted(latent)
    found = generate(latent, x, terms, interventions=[Halve(), Look()])
    assert torch.equal(found, generate(latent, x, terms, interventions=[Halve()]))
    assert len(maps) == 5 * len(latent.attention_layers())


class Still(Intervention):
    """Returns nothing, or the call as it was."""

    def __init__(self, hands_on: bool) -> None:
        self.hands_on = hands_on

    def attention(self, step, call):
        assert isinstance(step.index, int)
        return call if self.hands_on else None


@pytest.mark.parametrize("hands_on", [True, False])
def test_one_that_does_nothing_leaves_those_after_it(pixel, hands_on):
    x = noise(pixel)
    first = Still(hands_on)
    if not hands_on:
        first.attention = lambda step, call: call if step.index == 0 else None
    found = generate(pixel, x, FREE, interventions=[first, Halve()])
    assert torch.equal(found, generate(pixel, x, FREE, interventions=[Halve()]))


class Where(Intervention):
    """Keeps where each step is."""

    def __init__(self) -> None:
        self.before, self.after = [], []

    def before_step(self, step, x):
        self.before.append((step.index, step.level, step.reaches, step.timestep))
        return x

    def after_step(self, step, x):
        self.after.append((step.index, step.level, step.reaches, step.timestep))
        return x


def test_a_step_knows_where_it_is(pixel):
    grid, x = pixel.grid(4), noise(pixel)
    times = grid.timesteps.tolist()
    down, up, once = Where(), Where(), Where()
    generate(pixel, x, FREE, grid=grid, interventions=[down])
    assert down.before == down.after == [(i, i, i + 1, times[i]) for i in range(4)]
    invert(pixel, x, FREE, grid=grid, convention="matched", interventions=[up])
    told = [0, *reversed(times)]
    assert up.before == up.after == [(i, i + 1, i, told[3 - i]) for i in (3, 2, 1, 0)]
    denoise(pixel, x, FREE, grid=grid, level=2, interventions=[once])
    assert once.before == [(2, 2, 3, times[2])]


def test_maps_of_a_network_in_half_precision_are_given_in_full(zoo):
    """What is added to them in full goes on in the network's own precision."""
    model = LatentDiffusion(path=str(zoo / "latent"), steps=5, dtype="bfloat16")

    @dataclass
    class Shift(Intervention):
        size: torch.Tensor
        layers = ("up_blocks.0",)

        def bottleneck(self, step, h):
            return h + self.size

        def features(self, step, layer, h):
            return h + self.size

    x, seen = noise(model), []
    for size in (torch.zeros(()), torch.ones(1, 1, 1, 1, 1)):
        kept = Recorder(bottleneck=True, layers=Shift.layers)
        told = [kept, Shift(size)]
        seen.append(
            denoise(model, x, prompted(model), grid=model.grid(), level=1, interventions=told)[1]
        )
        for map_ in (kept.h[1], kept.maps["up_blocks.0"][1]):
            assert map_.dtype == torch.float32
    assert float((seen[1] - seen[0]).abs().max()) > 1e-2


def test_a_recorder_keeps_what_it_is_asked_for(pixel):
    layer = pixel.feature_layers()[0]
    for options, kept in (({}, ""), ({"bottleneck": True}, "h"), ({"predictions": True}, "x0 eps")):
        recorder = Recorder(**options)
        generate(pixel, noise(pixel), FREE, interventions=[recorder])
        assert [k for k in ("h", "x0", "eps") if getattr(recorder, k)] == kept.split()
    recorder = Recorder(layers=[layer])
    generate(pixel, noise(pixel), FREE, interventions=[recorder])
    assert sorted(recorder.maps[layer]) == list(range(5)) and not recorder.h


class Quiet(Intervention):
    """Overrides a hook and never uses it."""

    def context(self, step, layer, context):
        return None


@pytest.mark.parametrize("hook", [Uniform("no such layer"), Quiet()], ids=["attention", "context"])
def test_a_hook_that_never_fires_is_an_error(pixel, hook):
    x = noise(pixel)
    before = processors(pixel)
    plain = generate(pixel, x, FREE)
    with pytest.raises(HookNeverFired, match="attention layers"):
        generate(pixel, x, FREE, interventions=[hook])
    assert processors(pixel) == before
    assert torch.equal(generate(pixel, x, FREE), plain)
    generate(pixel, x, FREE, interventions=[Uniform("mid_block")])  # one layer is enough


def test_a_network_without_attention_says_so(zoo):
    bare = PixelDiffusion(path=str(zoo / "pixel_bare"), steps=5)
    assert bare.attention_layers() == ()
    x = noise(bare)
    plain = generate(bare, x, FREE)
    with pytest.raises(HookNeverFired, match="no attention layer"):
        generate(bare, x, FREE, interventions=[Uniform("")])
    assert torch.equal(generate(bare, x, FREE), plain)


@pytest.mark.parametrize("hook", [Bump(1.0), Uniform("")], ids=["bottleneck", "attention"])
def test_a_model_without_taps_cannot_ignore_them(gaussian, hook):
    terms = guided(gaussian.condition(None, 2), Condition(), 1.0)
    with pytest.raises(HookNeverFired):
        generate(gaussian, noise(gaussian), terms, interventions=[hook])


def processors(model) -> list:
    return [m.processor for m in model.network.modules() if hasattr(m, "processor")]


class Broken(Intervention):
    def attention(self, step, call):
        raise RuntimeError("broken")

    def bottleneck(self, step, h):
        return h


def test_the_network_is_restored_after_an_exception(pixel):
    x = noise(pixel)
    before, plain = processors(pixel), generate(pixel, x, FREE)
    with pytest.raises(RuntimeError, match="broken"):
        generate(pixel, x, FREE, interventions=[Broken()])
    assert processors(pixel) == before
    assert not pixel.network.mid_block._forward_hooks
    assert torch.equal(generate(pixel, x, FREE), plain)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_gradient_of_x0_to_x_matches_finite_differences(name, request):
    model = request.getfixturevalue(name)
    terms = FREE if name == "pixel" else prompted(model)
    x, v, u = (noise(model, seed=k) for k in range(3))
    before = model.evaluations.backward

    def x0(at: torch.Tensor) -> torch.Tensor:
        return denoise(model, at, terms, grid=model.grid(), level=2)[0]

    with torch.enable_grad():
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((x0(at) * u).sum(), at)
    assert model.evaluations.backward - before == len(x) * len(terms)
    slope = ((x0(x + 1e-2 * v) - x0(x - 1e-2 * v)) / 2e-2 * u).sum()
    assert float((gradient * v).sum()) == pytest.approx(float(slope), rel=2e-2)


def test_gradient_of_x0_to_the_bottleneck_matches_finite_differences(pixel):
    x, u = noise(pixel), noise(pixel, seed=1)
    h = Recorder(bottleneck=True)
    generate(pixel, x, FREE, start=2, stop=3, interventions=[h])
    shape = h.h[2].shape
    v = torch.randn(shape, generator=torch.Generator().manual_seed(2))

    def x0(size: torch.Tensor) -> torch.Tensor:
        bump = [Bump(size)]
        return denoise(pixel, x, FREE, grid=pixel.grid(), level=2, interventions=bump)[0]

    with torch.enable_grad():
        zero = torch.zeros(shape, requires_grad=True)
        (gradient,) = torch.autograd.grad((x0(zero) * u).sum(), zero)
    assert torch.isfinite(gradient).all() and float(gradient.norm()) > 0
    slope = ((x0(1e-2 * v) - x0(-1e-2 * v)) / 2e-2 * u).sum()
    assert float((gradient * v).sum()) == pytest.approx(float(slope), rel=2e-2)


def test_double_backward_and_forward_derivatives_under_plain_attention(latent):
    x, v = noise(latent), noise(latent, seed=1)

    def energy(at: torch.Tensor) -> torch.Tensor:
        x0, _ = denoise(latent, at, prompted(latent), grid=latent.grid(), level=2)
        return x0.square().sum()

    with latent.differentiable_attention(), torch.enable_grad():
        at = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(energy(at), at, create_graph=True)
        (second,) = torch.autograd.grad((first * v).sum(), at)
        slope = torch.func.jvp(energy, (x,), (v,))[1]
    gradients = []
    for sign in (1, -1):
        with torch.enable_grad():
            at = (x + sign * 1e-2 * v).requires_grad_()
            gradients += torch.autograd.grad(energy(at), at)
    difference = (gradients[0] - gradients[1]) / 2e-2
    assert float((second - difference).norm() / difference.norm()) < 0.05
    assert float(slope) == pytest.approx(float((first * v).sum()), rel=1e-3)


# ---------------------------------------------------------------- adapters


class Scales(Intervention):
    """An adapter's scale: one number, or one per step."""

    def __init__(self, name: str, *scales: float, window=(0.0, 1.0)) -> None:
        self.name, self.scales, self.window = name, scales, window

    def adapters(self, step):
        return {self.name: self.scales[min(step.index, len(self.scales) - 1)]}


def add_lora(model: PixelDiffusion, name: str, seed: int) -> list[torch.nn.Parameter]:
    parameters = model.add_adapter(
        name, LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"])
    )
    for p in parameters:
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(seed))
    return parameters


@pytest.fixture
def adapted(zoo):
    """A pixel model of its own with two adapters, and its output before they came."""
    model = PixelDiffusion(path=str(zoo / "pixel"), steps=5)
    bare = generate(model, noise(model), FREE)
    return model, bare, add_lora(model, "one", 1), add_lora(model, "two", 2)


def test_adapters_are_off_unless_asked_for(adapted):
    model, bare, *_ = adapted
    x = noise(model)
    assert torch.equal(generate(model, x, FREE), bare)
    off = generate(model, x, FREE, interventions=[Scales("one", 0.0)])
    torch.testing.assert_close(off, bare, rtol=1e-5, atol=1e-5)
    on = generate(model, x, FREE, interventions=[Scales("one", 1.0)])
    assert float((on - bare).abs().max()) > 1e-2
    assert torch.equal(generate(model, x, FREE), bare)


def test_adapter_scale_over_time(adapted):
    model, *_ = adapted
    x = noise(model)
    found = generate(model, x, FREE, interventions=[Scales("one", 1.0, 0.0, 0.0, 2.0, 0.0)])
    expected = x
    for i, scale in enumerate((1.0, 0.0, 0.0, 2.0, 0.0)):
        span = {"start": i, "stop": i + 1}
        expected = generate(model, expected, FREE, interventions=[Scales("one", scale)], **span)
    assert torch.equal(found, expected)
    window = generate(model, x, FREE, interventions=[Scales("one", 1.0, window=(0.4, 0.6))])
    steps = generate(model, x, FREE, interventions=[Scales("one", 0.0, 0.0, 1.0, 0.0)])
    torch.testing.assert_close(window, steps, rtol=1e-4, atol=1e-4)


def test_an_adapter_is_a_low_rank_change_of_the_weights(adapted, zoo):
    model, _, ones, twos = adapted
    x = noise(model)
    found = generate(model, x, FREE, interventions=[Scales("one", 0.7), Scales("two", -0.4)])
    merged = PixelDiffusion(path=str(zoo / "pixel"), steps=5)
    weights = dict(model.network.named_parameters())
    for name, parameter in merged.network.named_parameters():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A.one.weight" in weights:
            for adapter, scale in (("one", 0.7), ("two", -0.4)):
                a, b = (weights[f"{stem}.lora_{k}.{adapter}.weight"] for k in "AB")
                parameter.data += scale * b @ a  # lora_alpha / r = 1
    assert len(ones) == len(twos) == 16
    torch.testing.assert_close(found, generate(merged, x, FREE), rtol=1e-3, atol=1e-3)


def test_gradients_reach_adapters_and_nothing_else(adapted):
    model, _, ones, twos = adapted
    with torch.enable_grad():
        x0, _ = denoise(
            model, noise(model), FREE, grid=model.grid(), level=2,
            interventions=[Scales("one", 1.0)],
        )  # fmt: skip
        x0.square().mean().backward()
    assert all(p.grad is not None and float(p.grad.norm()) > 0 for p in ones)
    assert all(p.grad is None for p in twos)
    own = {id(p) for p in (*ones, *twos)}
    assert all(p.grad is None for p in model.network.parameters() if id(p) not in own)


def test_adapters_are_off_again_after_an_exception(adapted):
    model, bare, *_ = adapted
    with pytest.raises(RuntimeError, match="broken"):
        generate(model, noise(model), FREE, interventions=[Scales("one", 1.0), Broken()])
    assert torch.equal(generate(model, noise(model), FREE), bare)


def test_one_adapter_is_set_by_one_intervention(adapted):
    model, bare, *_ = adapted
    x = noise(model)
    with pytest.raises(Incompatible, match="two interventions set adapter 'one' in step 0"):
        generate(model, x, FREE, interventions=[Scales("one", 1.0), Scales("one", 0.5)])
    assert torch.equal(generate(model, x, FREE), bare)
    halves = [Scales("one", 1.0, window=(0.0, 0.4)), Scales("one", 0.0, window=(0.4, 1.0))]
    found = generate(model, x, FREE, interventions=halves)
    steps = generate(model, x, FREE, interventions=[Scales("one", 1.0, 1.0, 0.0, 0.0, 0.0)])
    assert torch.equal(found, steps)


def test_an_adapters_name_is_taken_once(adapted):
    model, *_ = adapted
    before = model.network.state_dict()
    with pytest.raises(BadInput, match="there is an adapter 'one' already"):
        model.add_adapter("one", LoraConfig(r=2, target_modules=["to_q"]))
    after = model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_unknown_adapter_is_an_error(adapted):
    model, *_ = adapted
    with pytest.raises((BadInput, HookNeverFired)):
        generate(model, noise(model), FREE, interventions=[Scales("onne", 1.0)])
