"""LEDITS++."""

from typing import ClassVar

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from small_flows import small_flow

from latentbench.cache import Cache
from latentbench.cells.constructors import of_class
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.errors import BadInput, HookNeverFired
from latentbench.model import Condition
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.prompt_tokens import Tokens, words_of
from latentbench.sampling.loop import denoise, generate, plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Concept, Edit, Space
from methods.generation.attention_guidance import TokenMaps, smoothed
from methods.inversion.ledits_pp import LEDITSPlusPlus, MaskedConcept, SecondOrder
from methods.inversion.masked_guidance import Guide, MaskedGuidance

DATA = toy.ToyData()
SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> LEDITSPlusPlus:
    editor = LEDITSPlusPlus(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.mark.parametrize("model", ["latent", "pixel"])
@pytest.mark.parametrize("steps", [3, 8])
def test_reconstruction_is_exact_at_every_number_of_steps(model, steps, request):
    """Also where the clean end has no noise (the pixel model's)."""
    model, batch = request.getfixturevalue(model), DATA.batch("test", range(2))
    editor = attached(model, steps=steps, skip=1)
    code = editor.invert(batch)
    torch.testing.assert_close(
        editor.decode(code), model.decode(model.encode(batch.images)), rtol=0, atol=1e-4
    )


def test_the_sampler_is_sde_dpm_solver_2m(gaussian):
    """Against diffusers' scheduler, up to the step to the clean end."""
    n, grid = 10, gaussian.grid(10)
    config = {**gaussian.schedule.config, "timestep_spacing": "leading"}
    reference = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="sde-dpmsolver++", solver_order=2, lower_order_final=False
    )
    reference.set_timesteps(timesteps=grid.timesteps.tolist())
    noise = Streams(0).normal("z", [str(i) for i in range(n)], (2, *gaussian.latent_shape))
    terms = plain(gaussian.condition(("hat", "smile"), 2))
    x = start = Streams(0).normal("x", ["0", "1"], gaussian.latent_shape)
    for i in range(n - 1):
        _, eps = predict(gaussian, x, grid, i, terms)
        t = grid.timesteps[i]
        x = reference.step(eps, t, x, variance_noise=noise[i]).prev_sample
    found = generate(
        gaussian, start, terms, grid=grid, stop=n - 1, eta=1.0, noise=lambda i: noise[i],
        interventions=[SecondOrder()],
    )  # fmt: skip
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    first = generate(
        gaussian, start, terms, grid=grid, stop=n - 1, eta=1.0, noise=lambda i: noise[i]
    )
    assert float((first - x).abs().max()) > 1e-2


def test_the_concept_acts_where_it_changes_most(gaussian):
    grid, level = gaussian.grid(), 20
    x = Streams(0).normal("x", ["0", "1", "2"], gaussian.latent_shape)
    null, concept = gaussian.condition(None, 3), gaussian.condition((TARGET,) * 3, 3)
    scale = torch.tensor([0.0, 1.0, 3.0])
    guidance = MaskedGuidance(gaussian, [Guide(concept, scale, 0.75)])
    _, away = predict(gaussian, x, grid, level, plain(null))
    _, told = predict(gaussian, x, grid, level, plain(concept))
    _, eps = denoise(gaussian, x, plain(null), grid=grid, level=level, interventions=[guidance])
    size = (told - away).abs().sum(1)
    for k, s in enumerate(scale):
        inside = (size[k] >= size[k].quantile(0.75)) * s
        torch.testing.assert_close(eps[k], away[k] + inside * (told - away)[k])
    assert float((eps[2] != away[2]).float().mean()) < 0.4


def test_it_costs_one_evaluation_for_the_concept(latent):
    batch = DATA.batch("test", range(2))
    editor = attached(latent, skip=1)
    before = latent.evaluations.forward
    editor.edit(batch, Edit("x", target_prompts=("smile", "hat")), torch.tensor([0.0, 3.0]))
    assert latent.evaluations.forward - before == 2 * 4 * (1 + 2 + 1)  # maps, null twice, concept


def test_a_concept_in_words_is_the_edits_own(latent):
    batch = DATA.batch("test", range(2))
    targets = ("a face with hat",) * 2
    words = Edit("x", target_prompts=targets, words=("bareheaded", "a face with hat"))
    strength = torch.tensor([3.0])
    by_words = attached(latent, concept="words").edit(batch, words, strength)
    torch.testing.assert_close(by_words, attached(latent).edit(batch, words, strength))
    opposed = attached(latent, concept="opposed").concepts(batch, words)
    assert [(c.prompts[0], c.weight) for c in opposed] == [(targets[0], 1), ("bareheaded", -1)]


@pytest.mark.parametrize("concept", ["words", "opposed"])
def test_an_edit_without_words_has_those_in_which_captions_differ(concept):
    batch = Batch(("0", "1"), torch.zeros(2, 3, 16, 16), ("a face with hat", "a face"))
    editor = LEDITSPlusPlus(concept=concept)
    found = editor.concepts(batch, Edit("x", target_prompts=("a face with smile", "a hat face")))
    expected = [(("smile", "hat"), 1.0), (("hat", ""), -1.0)][: len(found)]
    assert [(c.prompts, c.weight) for c in found] == expected
    assert len(found) == 1 + (concept == "opposed")
    with pytest.raises(BadInput, match="'x' has no words of its own"):
        editor.concepts(batch, Edit("x", target_prompts=("a face with smile", "a face")))


def test_maps_of_neighbouring_steps_are_anticorrelated(gaussian):
    batch = Batch(tuple("0123"), gaussian.draw((SOURCE,) * 4), (SOURCE,) * 4)
    maps = attached(gaussian, steps=20).invert(batch).parts[Space.NOISE_MAPS][:, :-1].flatten(2)
    neighbours = torch.cosine_similarity(maps[:, 1:], maps[:, :-1], dim=2).mean()
    assert float(neighbours) < -0.3 and float(maps.std()) > 1


# ---------------------------------------------------------------- several concepts, two masks

TWO = [Concept(("a smile",) * 3), Concept(("hat", "", "glasses"), -0.5)]
STRENGTHS = torch.tensor([0.0, 3.0])


def test_strength_0_is_exact_with_two_concepts_and_both_masks(latent):
    batch = DATA.batch("test", range(3))
    editor = attached(latent, skip=1, masks="both")
    images = editor.edit_concepts(batch, TWO, STRENGTHS)
    expected = latent.decode(latent.encode(batch.images))
    torch.testing.assert_close(images[:, 0], expected, rtol=0, atol=1e-4)
    assert bool(((images[:, 1] - images[:, 0]).abs().amax((1, 2, 3)) > 1e-2).all())


def test_an_image_alone_is_the_one_among_three(latent):
    batch = DATA.batch("test", range(3))
    editor = attached(latent, steps=3, skip=1, masks="both")
    images = editor.edit_concepts(batch, TWO, STRENGTHS)
    for k in range(3):
        alone = [Concept(one.prompts[k : k + 1], one.weight) for one in TWO]
        found = editor.edit_concepts(DATA.batch("test", [k]), alone, STRENGTHS)
        torch.testing.assert_close(found, images[k : k + 1], rtol=1e-3, atol=1e-3)


def test_two_concepts_add_up_in_a_step_and_only_rows_with_a_scale_are_evaluated(latent):
    grid, x = latent.grid(), Streams(0).normal("x", list("012"), latent.latent_shape)
    null = plain(latent.unconditional(3))
    a = Guide(latent.condition((SOURCE,) * 3, 3), torch.tensor([0.0, 2.0, 3.0]), 0.0)
    b = Guide(latent.condition((TARGET,) * 3, 3), torch.tensor([0.0, 0.0, -1.0]), 0.0)

    def changed(*guides: Guide) -> torch.Tensor:
        guidance = [MaskedGuidance(latent, guides)]
        return torch.stack(denoise(latent, x, null, grid=grid, level=2, interventions=guidance))

    plainly, first, second = changed(), changed(a), changed(b)
    before = latent.evaluations.forward
    both = changed(a, b)
    assert latent.evaluations.forward - before == 3 + 2 + 1
    torch.testing.assert_close(both - plainly, first + second - 2 * plainly, rtol=0, atol=1e-4)
    assert torch.equal(both[:, 0], plainly[:, 0])
    torch.testing.assert_close(both[:, 1], first[:, 1], rtol=0, atol=1e-4)
    assert float((both - first)[:, 2].abs().amax()) > 1e-2


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return small_flow(tmp_path_factory.mktemp("flow"))


@pytest.mark.parametrize("name", ["latent", "flow"])
def test_both_masks_keep_what_reads_the_words_and_changes_most(name, request):
    """M1 of a guide's words alone, from the maps of its own call."""
    model = request.getfixturevalue(name)
    grid, x = model.grid(), Streams(0).normal("x", ["0", "1"], model.latent_shape)
    null, told = model.unconditional(2), model.condition((TARGET, SOURCE), 2)
    words = torch.stack([
        torch.tensor([float(w == 3) for part in model.prompt_tokens(text) for w in part.words])
        for text in (TARGET, SOURCE)
    ])  # fmt: skip
    seen = TokenMaps()
    parts = {"grid": grid, "level": 1}
    plainly = denoise(model, x, plain(null), **parts)
    towards = denoise(model, x, plain(told), **parts, interventions=[seen])
    maps, side = seen.mean(), model.latent_shape[-1]
    reads = smoothed(torch.einsum("bpm,bm->bp", maps, words)[..., None])[..., 0]
    reads = reads.reshape(2, 1, round(maps.shape[1] ** 0.5), -1)
    size = grid.direction(towards[0] - plainly[0], towards[1] - plainly[1]).abs().sum(1, True)
    kept = [
        (v.flatten(1) >= v.flatten(1).quantile(0.5, 1, True)).reshape(v.shape)
        for v in (reads, size)
    ]
    times = side // reads.shape[-1]
    M = kept[0].repeat_interleave(times, 2).repeat_interleave(times, 3) & kept[1]
    guide = Guide(told, torch.tensor([2.0, 1.0]), 0.5, words=words)
    guidance = [MaskedGuidance(model, [guide])]
    found = denoise(model, x, plain(null), **parts, interventions=guidance)
    scale = torch.tensor([2.0, 1.0]).reshape(2, 1, 1, 1)
    for out, c, own in zip(found, towards, plainly, strict=True):
        torch.testing.assert_close(out, own + scale * M * (c - own), rtol=1e-3, atol=1e-3)
    assert 0 < int(M.sum()) < int(kept[1].sum())


def test_maps_of_the_attention_are_asked_for_before_work_starts():
    needed = [
        LEDITSPlusPlus.required(["edit"], {"masks": masks})[0] for masks in ("prediction", "both")
    ]
    assert needed[1] - needed[0] == {Space.TOKEN_MAPS}


def test_a_network_that_no_attention_is_read_of_is_a_typed_failure():
    class Deaf(toy.GaussianModel):
        """Takes tokens, and never calls what reads its maps."""

        def prompt_tokens(self, prompt):
            words = tuple(range(len(words_of(prompt))))
            return (Tokens(words, words, len(words)),)

    batch = Batch(("0",), torch.zeros(1, 3, 8, 8), (SOURCE,))
    editor, edit = attached(Deaf(steps=3), masks="both"), Edit("x", target_prompts=(TARGET,))
    assert bool(editor.edit(batch, edit, torch.zeros(1)).isfinite().all())
    with pytest.raises(HookNeverFired, match=r"WordMaps\.attention"):
        editor.edit(batch, edit, torch.ones(1))


def test_a_mask_of_the_attention_is_made_of_all_words_and_of_nothing_else(latent):
    editor = attached(latent, masks="both")
    (guide,) = editor._guides([Concept((TARGET, ""))], 2, torch.ones(2))
    tokens = latent.prompt_tokens(TARGET)[0]
    expected = [float(word is not None) for word in tokens.words]
    assert guide.words is not None and guide.words.tolist()[:2] == [expected] * 2
    assert 0 < sum(expected) < tokens.count and float(guide.words[2:].sum()) == 0
    assert guide.scale.tolist() == [1, 1, 0, 0]


def test_a_window_is_of_the_steps_that_are_made(gaussian):
    """The third of the four steps that a skip of one leaves, which is step 3."""
    batch = Batch(("0",), gaussian.draw((SOURCE,)), (SOURCE,))
    before = gaussian.evaluations.forward
    editor = attached(gaussian, steps=5, skip=1, warmup=0.5, cooldown=0.75)
    (guide,) = editor._guides([Concept((TARGET,))], 1, torch.ones(1))
    assert guide.steps == range(3, 4)
    edit = Edit("x", target_prompts=(TARGET,))
    images = editor.edit(batch, edit, torch.ones(1))
    assert gaussian.evaluations.forward - before == 4 + 4 + 1
    whole = attached(gaussian, steps=5, skip=1)
    own = [MaskedConcept((TARGET,), window=(0.5, 0.75))]
    assert torch.equal(whole.edit_concepts(batch, own, torch.ones(1)), images)
    assert float((whole.edit(batch, edit, torch.ones(1)) - images).abs().amax()) > 1e-3


def test_settings_that_came_later_are_neutral_by_default():
    defaults = {k: p.default for k, p in of_class(LEDITSPlusPlus).items()}
    assert LEDITSPlusPlus.neutral.items() <= defaults.items()


def test_settings_and_concepts_that_cannot_guide_are_refused(gaussian):
    with pytest.raises(BadInput, match=r"warmup=0.5 is not below method.cooldown=0.5"):
        LEDITSPlusPlus(warmup=0.5, cooldown=0.5)
    with pytest.raises(BadInput, match=r"0.1 to 0.2 of 4 steps acts in none"):
        LEDITSPlusPlus(skip=1, warmup=0.1, cooldown=0.2).check(DATA, 5, [1.0])
    batch = Batch(("0",), gaussian.draw((SOURCE,)), (SOURCE,))
    for concept, said in (
        (Concept((TARGET,) * 2), "2 captions for 1 images"),
        (MaskedConcept((TARGET,), threshold=1.0), "threshold must be 0 or more and below 1"),
        (MaskedConcept((TARGET,), window=(0.5, 0.5)), "acts in none"),
    ):
        with pytest.raises(BadInput, match=said):
            attached(gaussian).edit_concepts(batch, [concept], torch.ones(1))
    with pytest.raises(BadInput, match=r"'!' has no word"):
        attached(gaussian, masks="both").edit_concepts(batch, [Concept(("!",))], torch.ones(1))


class Halves(toy.GaussianModel):
    """The exact denoiser of images whose halves are marked or plain, each on its own.

    A caption makes a mark of its half nearly certain, and one of the other half likelier.
    """

    MARK = 0.15
    CHANCES: ClassVar = {"": (0.5, 0.5), "left": (0.95, 0.7), "right": (0.7, 0.95)}

    def condition(self, prompts, rows):
        texts = [""] * rows if prompts is None else prompts
        return Condition({"odds": torch.tensor([self.CHANCES[t] for t in texts]).logit()})

    def forward(self, x, timesteps, condition, taps=None):
        a = self.schedule.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        alpha, sigma, v = a.sqrt(), (1 - a).sqrt(), a * self.spread**2 + 1 - a
        ratio = alpha * self.MARK * (x - alpha * self.MARK / 2) / v  # of the two, by pixel
        odds = condition.tensors["odds"] + ratio.unflatten(3, (2, 4)).sum((1, 2, 4))
        mean = (odds.sigmoid() * self.MARK).repeat_interleave(4, 1)[:, None, None]
        return sigma * (x - alpha * mean) / v


def interaction(editor, batch, first: Concept, second: Concept, strength: float) -> float:
    """How far two edits at once are from the sum of both, as a share of the sum."""
    scale = torch.tensor([0.0, strength])
    a, b, both = (
        (images[:, 1] - images[:, 0]).flatten(1)
        for images in (
            editor.edit_concepts(batch, told, scale)
            for told in ([first], [second], [first, second])
        )
    )
    return float(((both - a - b).norm(dim=1) / (a + b).norm(dim=1)).mean())


def of_halves(strength: float, threshold: float, regions: torch.Tensor | None = None) -> float:
    ids = tuple(str(k) for k in range(8))
    batch = Batch(ids, 0.2 * Streams(0).normal("x0", ids, (3, 8, 8)))
    places = (None, None) if regions is None else (regions, 1 - regions)
    left, right = (
        Concept((word,) * 8, region=place)
        for word, place in zip(("left", "right"), places, strict=True)
    )
    return interaction(
        attached(Halves(steps=20), threshold=threshold), batch, left, right, strength
    )


def test_masked_edits_of_two_places_are_their_sum_more_nearly_than_unmasked_ones():
    """At a scale of 1; see below for what larger ones do."""
    assert of_halves(1.0, 0.5) < 0.5 * of_halves(1.0, 0.0)


def test_regions_keep_two_edits_apart_where_masks_wander():
    """At a scale of 5 a half is soon marked, and M2 goes on to the half that is not."""
    inside = torch.zeros(8, 8, 8)
    inside[..., :4] = 1
    assert of_halves(5.0, 0.5) > 0.3
    assert of_halves(5.0, 0.0, inside) < 1e-4


@pytest.mark.slow
def test_both_masks_bring_a_hat_and_a_shirt_nearer_to_their_sum_than_none():
    """At a scale of 1, of a trained model."""
    model, batch = (
        LatentDiffusion(path="faces_ldm", steps=10),
        FacesDataset().batch("test", range(4)),
    )
    hat, shirt = Concept(("hat",) * 4), Concept(("maroon",) * 4)
    masked, plainly = (
        interaction(attached(model, **settings), batch, hat, shirt, 1.0)
        for settings in ({"masks": "both"}, {"threshold": 0.0})
    )
    assert masked < plainly
