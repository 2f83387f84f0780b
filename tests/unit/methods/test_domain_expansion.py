"""Domain expansion: dormant directions show new domains, and the rest stays as it was."""

from typing import ClassVar

import pytest
import torch
from omegaconf import OmegaConf

from latentbench.cache import Cache
from latentbench.cells.parts import Part, check_settings
from latentbench.conformance import toy
from latentbench.data import faces
from latentbench.errors import BadInput, Incompatible, NoEffect
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import Capability, Concept, Edit, Space
from methods.directions.domain_expansion import DomainExpansion, basis, pairs_of

DATA = toy.ToyData()
IDS = tuple("abcdefgh")
TAUGHT = {
    "domains": "face to hat + face to smile", "iterations": 60, "source": 0.0,
    "learning_rate": 0.001,
}  # fmt: skip
BOTH = [Concept(("hat",) * 8), Concept(("smile",) * 8)]


class Drawn(toy.ToyData):
    """Has a second domain, the stripes of hats, of fewer images."""

    gives: ClassVar = toy.ToyData.gives | {Capability.SECOND_DOMAIN}

    def second_size(self, split):
        return 20

    def second_domain(self, split, indices):
        assert max(indices) < 20
        return toy.pattern("hat", 16).expand(len(indices), -1, -1, -1)


def attached(model, fitting=None, **settings):
    editor = DomainExpansion(**DomainExpansion.small | settings)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()}, fitting)
    return editor


def fitted(model, edits=(), data=DATA, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(data, edits)
    return editor


@pytest.fixture(scope="module")
def taught(gan):
    return fitted(gan, **TAUGHT)


@pytest.fixture(scope="module")
def untaught(gan):
    return fitted(gan, **TAUGHT | {"iterations": 0})


def shown(images):
    """How much of each factor's pattern the images hold."""
    return toy.PatternScorer().read_image(images)


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_the_last_directions_of_the_basis_change_an_image_least(name, request):
    model = request.getfixturevalue(name)
    V = basis(model.tunable()["decoder"], 16)
    w = model.push(model.prior(Streams(0), IDS).parts[Space.NOISE])
    change = [float((model.decode(w + v) - model.decode(w)).square().mean()) for v in V]
    assert torch.allclose(V @ V.T, torch.eye(16), atol=1e-5)
    assert change.index(max(change)) < 4 and sum(change[-4:]) < 0.7 * sum(change[:4])


def test_a_projected_code_keeps_all_but_the_repurposed_coordinates(untaught):
    R, centre = (untaught.learned_[f"code/{k}"] for k in ("repurposed", "centre"))
    w = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    base = untaught.projected(w)
    B = torch.linalg.svd(R).Vh[2:]
    torch.testing.assert_close(base @ B.T, w @ B.T)
    torch.testing.assert_close(base @ R.T, (R @ centre).expand(5, -1))
    torch.testing.assert_close(untaught.projected(base), base)


def test_domains_take_the_last_directions_or_the_first(gan):
    V = basis(gan.tunable()["decoder"], 16)
    for repurpose, expected in (("dormant", V[[15, 14]]), ("leading", V[[0, 1]])):
        editor = fitted(gan, **TAUGHT | {"iterations": 0, "repurpose": repurpose})
        assert torch.equal(editor.learned_["code/repurposed"], expected)


def test_a_domain_shows_where_its_direction_leads(taught, untaught):
    base, before = (shown(editor.generate(IDS, None)) for editor in (taught, untaught))
    for column, name in ((1, "hat"), (2, "smile")):
        concept = [Concept((name,) * 8)]
        gain = shown(taught.compose(IDS, concept)) - base
        at_first = shown(untaught.compose(IDS, concept)) - before
        assert bool((gain[:, column] > 1.0).all())
        assert float(gain[:, column].mean()) > 2 * float(at_first[:, column].mean())


def test_domains_compose_though_no_two_were_learned_together(taught, untaught):
    """On average and on far more images than dormant directions do, though not on all."""
    ids = tuple(str(k) for k in range(64))
    both = [Concept((name,) * len(ids)) for name in ("hat", "smile")]
    after, before = (
        (shown(editor.compose(ids, both)) - shown(editor.generate(ids, None)))[:, 1:]
        for editor in (taught, untaught)
    )
    assert bool((after.mean(0) > 2 * after.std(0) / len(ids) ** 0.5).all())
    show_both, showed_both = ((gain > 0).all(1).float().mean() for gain in (after, before))
    assert float(show_both - showed_both) > 0.25


def test_an_image_that_no_concept_leads_anywhere_is_a_failure_by_name(taught):
    some = Concept(("a hat", *("green eyes",) * 7))
    with pytest.raises(NoEffect, match=r"no concept leads b, c, d, e, f into a domain"):
        taught.compose(IDS, [some])
    with pytest.raises(NoEffect, match="no concept leads a, b"):
        taught.compose(IDS, [BOTH[0], Concept(("hat",) * 8, -1.0)])
    images = taught.compose(IDS, [some, BOTH[1]])
    assert torch.equal(images[1:], taught.compose(IDS, [BOTH[1]])[1:])


def test_a_negative_weight_leads_the_other_way(taught):
    pair = taught.compose(IDS, [BOTH[0]]), taught.compose(IDS, [Concept(("hat",) * 8, -1.0)])
    base = shown(taught.generate(IDS, None))[:, 1]
    more, less = (shown(images)[:, 1] - base for images in pair)
    assert float(more.mean()) > 0 > float(less.mean())


def test_without_its_bounds_the_source_drifts(gan, taught, untaught):
    free = fitted(gan, **TAUGHT | {"l2": 0.0, "perceptual": 0.0})
    before = untaught.generate(IDS, None)
    kept, lost = (
        float((editor.generate(IDS, None) - before).square().mean()) for editor in (taught, free)
    )
    assert lost > 3 * kept


def test_an_edit_that_lowers_has_a_domain_of_its_own(gan):
    asked = [
        Edit("hat+", "hat", words=("bare", "hat")),
        Edit("hat-", "hat", -1, words=("hat", "bare")),
    ]
    editor = fitted(gan, asked)
    code = editor.projected(torch.zeros(1, 16))
    for number, edit in enumerate(asked):
        moved = editor.moved(code, edit, edit.sign * torch.ones(1)) - code
        torch.testing.assert_close(moved, editor.steps_to_domains()[number][None])


def test_the_second_domain_is_learned_from_images_of_it(gan):
    editor = fitted(gan, data=Drawn(), **TAUGHT | {"domains": "images", "iterations": 30})
    batch = DATA.batch("test", range(4))
    images = editor.edit(batch, Edit("translation"), torch.tensor([0.0, 1.0]))
    assert float((shown(images[:, 1]) - shown(images[:, 0]))[:, 1].min()) > 0
    spaces, needs = DomainExpansion.required(["edit"], {"domains": "images"})
    assert spaces == {Space.NOISE} and needs == {Capability.SCORER, Capability.SECOND_DOMAIN}


def test_the_discriminator_moves_the_generator_and_learns_by_itself(gan):
    plain = fitted(gan, **TAUGHT | {"iterations": 2})
    played = fitted(gan, **TAUGHT | {"iterations": 2, "source": 1.0})
    assert any(not torch.equal(played.state()[k], v) for k, v in plain.state().items())
    editor = attached(gan)
    critic = editor._critic()
    images = [DATA.batch("test", rows).images for rows in (range(4), range(4, 8))]
    made = images[0].clone().requires_grad_()
    with torch.enable_grad():
        for step in (0, 1):  # with the penalty and without
            editor._game(critic, made, images[1], step).backward()
    assert made.grad is not None and float(made.grad.abs().max()) > 0
    assert all(p.grad is not None for p in critic.parameters())


def test_each_player_of_the_game_moves_to_its_own_side(gan):
    editor, (real, made) = (
        attached(gan),
        (DATA.batch("test", k).images for k in (range(4), [4] * 4)),
    )
    critic, made = editor._critic(), made.clone().requires_grad_()

    def judged():
        with torch.no_grad():
            return float(critic(real).mean()), float(critic(made).mean())

    true, fooled = judged()
    with torch.enable_grad():
        editor._game(critic, made, real, 1).backward()
    assert made.grad is not None
    with torch.no_grad():
        made -= 10 * made.grad
        assert judged()[1] > fooled  # the generator's images look more real
        made += 10 * made.grad
        for weight in critic.parameters():
            assert weight.grad is not None
            weight -= 1e-3 * weight.grad
    assert judged()[0] - judged()[1] > true - fooled  # the discriminator tells them apart better


def test_noise_in_place_of_what_was_learned_leaves_the_mean_code(gan):
    editor = fitted(gan)
    centre, repurposed = (editor.state()[f"code/{k}"] for k in ("centre", "repurposed"))
    editor.randomise(Streams(3))
    assert torch.equal(editor.state()["code/centre"], centre)
    assert not torch.allclose(editor.state()["code/repurposed"], repurposed, atol=0.01)


class Killed(Exception):
    """Stops a fit."""


def test_a_killed_fit_goes_on_where_it_stopped(gan, tmp_path):
    whole = fitted(gan).state()

    def stop(step, count):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        fitted(gan, fitting=Fitting(tmp_path, seconds=0, report=stop))
    counts = []
    report = Fitting(tmp_path, seconds=0, report=lambda step, count: counts.append(step))
    again = fitted(gan, fitting=report).state()
    assert counts == [3, 4]
    assert all(torch.equal(again[k], v) for k, v in whole.items())


def test_words_of_the_defaults_are_those_of_the_faces():
    words = {word for pair in pairs_of(DomainExpansion().domains) for word in pair or ()}
    assert words <= set(faces.vocabulary())


@pytest.mark.parametrize("domains", ["", "hat", "a to b +", "a to b+c", "images + "])
def test_other_spellings_of_domains_are_refused(domains):
    target = f"{DomainExpansion.__module__}.{DomainExpansion.__name__}"
    config = OmegaConf.create({"method": {"_target_": target, "domains": domains}}).method
    with pytest.raises(BadInput, match="such as 'bareeyed to glasses"):
        check_settings([Part.of(config)])


def test_what_does_not_fit_is_refused(gan, taught):
    for twice in ("face to hat + bare to hat", "images + images"):
        with pytest.raises(BadInput, match=r"lead to '(hat|images)'"):
            DomainExpansion(domains=twice)
    with pytest.raises(BadInput, match="edit 'hat\\+' has no words"):
        fitted(gan, [Edit("hat+", "hat")])
    many = " + ".join(f"face to {k}" for k in range(16))
    with pytest.raises(BadInput, match="16 domains leave nothing of a code of 16 numbers"):
        fitted(gan, domains=many)
    with pytest.raises(BadInput, match="edit 'beard\\+'"):
        batch = DATA.batch("test", [0])
        taught.edit(batch, Edit("beard+", "beard"), torch.ones(1))
    with pytest.raises(BadInput, match="no domain shows 'beard', known: hat, smile"):
        taught.compose(("a",), [Concept(("beard",))])
    with pytest.raises(BadInput, match="a region"):
        taught.compose(("a",), [Concept(("hat",), region=torch.ones(1, 16, 16))])
    with pytest.raises(BadInput, match="images=300 is more than the 256"):
        DomainExpansion(images=300).check(DATA, None, ())
    DomainExpansion(images=300, source=0.0).check(DATA, None, ())
    with pytest.raises(BadInput, match="learned nothing"):
        attached(gan).generate(("a",), None)
    with pytest.raises(Incompatible, match="no linear layer"):
        basis(torch.nn.Conv2d(3, 3, 1), 16)
