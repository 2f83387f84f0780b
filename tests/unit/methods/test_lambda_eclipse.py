"""lambda-ECLIPSE: rows and masks, the contrastive loss, what comes of text and what of photos."""

import pytest
import torch

from benchmarks.consistency import Consistency
from benchmarks.personalisation import Personalisation
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.data.faces_dataset import FacesDataset
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.model import LatentModel
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Batch, Capability, Latent, Space
from methods.personalisation import lambda_eclipse
from methods.personalisation.lambda_eclipse import LambdaEclipse, contrastive, free_words
from methods.personalisation.textual_inversion import TextualInversion

LEARN = {"images": 128, "iterations": 120, "batch": 32, "width": 32, "learning_rate": 5e-3}
BARE, WORN, HATTED = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


class Patterns(LatentModel):
    """Images whose code is how much of each factor's pattern they hold."""

    device, image_size = torch.device("cpu"), toy.SIZE

    def fingerprint(self):
        return "patterns"

    def encode(self, images):
        return images

    def decode(self, latent):
        return latent

    def code_of(self, images):
        seen = toy.PatternScorer().read_image(images)
        norms = torch.stack([toy.pattern(n, toy.SIZE).square().sum() for n in toy.FACTORS])
        return Latent({Space.STYLE: seen / norms})

    def prior(self, streams, ids):
        return Latent({})

    def sample(self, latent, **settings):
        planted = torch.stack([toy.pattern(name, toy.SIZE) for name in toy.FACTORS])
        return torch.einsum("bf,fchw->bchw", latent.parts[Space.STYLE], planted)


class People(toy.ToyData):
    """Who somebody is: glasses or none. What may change: hat and smile."""

    attributes = ("hat", "smile")


def attached(model=None, fitting=None, cache=None, **settings):
    editor = LambdaEclipse(**{**LambdaEclipse.small, **settings})
    parts = {"scorer": toy.PatternScorer()}
    editor.attach(model or Patterns(), Streams(0), cache or Cache(None), parts, fitting)
    return editor


def fitted(*args, **settings):
    editor = attached(*args, **settings)
    with torch.enable_grad():
        editor.fit(People(), ())
    return editor


def read(editor, prompt, *photos):
    """Return the factors, -1 to 1, of images under a prompt, of photos with these factors."""
    images = People().render(torch.tensor(photos))
    names = tuple(f"photo {k}" for k in range(len(photos)))
    found = editor.personalise(Batch(names, images), ("a",), (prompt,))
    return Patterns().code_of(found).parts[Space.STYLE][0]


# ---------------------------------------------------------------- the effect


@pytest.fixture(scope="module")
def learned():
    return fitted(**LEARN)


def test_attributes_come_from_the_text_and_the_subject_from_the_photo(learned):
    for word, column in (("hat", 1), ("smile", 2)):
        asked = f"{SUBJECT} {word}"
        assert float(read(learned, asked, BARE)[column]) > 0.3  # the photo lacks it
        assert float(read(learned, asked, WORN)[0] - read(learned, asked, BARE)[0]) > 0.4
    copied = read(learned, SUBJECT, HATTED) - read(learned, SUBJECT, BARE)
    assert float(copied[1].abs()) < 0.25  # what the photo wears is no part of the subject


def test_shown_the_answer_itself_the_map_copies_what_the_photo_wears():
    same = fitted(**LEARN, photo="same")
    copied = read(same, SUBJECT, HATTED) - read(same, SUBJECT, BARE)
    assert float(copied[1]) > 0.5


def test_without_the_subject_in_the_prompt_the_photo_counts_for_nothing(learned):
    assert torch.equal(read(learned, "glasses", BARE), read(learned, "glasses", (1.0, 1.0, 1.0)))


def test_a_map_that_learned_without_photos_is_shown_none():
    blind = fitted(drop=1.0)
    found = [read(blind, f"{SUBJECT} hat", photo) for photo in (BARE, (1.0, 1.0, 1.0))]
    assert torch.equal(*found)
    assert not torch.equal(found[0], read(blind, f"{SUBJECT} smile", BARE))


@pytest.mark.parametrize("name", ["diffae", "gan"])
def test_no_code_of_the_prior_is_drawn_to_be_replaced(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    editor = fitted(model)
    references, drawn, normal = People().batch("test", [0]), [], Streams.normal

    def noted(streams, key, *rest):
        drawn.append(key)
        return normal(streams, key, *rest)

    monkeypatch.setattr(Streams, "normal", noted)
    editor.personalise(references, ("a",), (f"{SUBJECT} hat",))
    own = ["lambda_eclipse/start"]
    assert drawn == ([*own, "prior"] if name == "diffae" else own)


def test_of_several_photos_the_mean_of_what_each_gives(learned):
    one, two = WORN, (0.0, 1.0, 1.0)
    both = read(learned, f"{SUBJECT} hat", one, two)
    each = (read(learned, f"{SUBJECT} hat", one) + read(learned, f"{SUBJECT} hat", two)) / 2
    torch.testing.assert_close(both, each, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_diffusion_prior_of_the_same_network_is_learned_too():
    editor = fitted(**LEARN, prior_steps=5)
    asked = f"{SUBJECT} hat"
    assert float(read(editor, asked, WORN)[0] - read(editor, asked, BARE)[0]) > 0.4


# ---------------------------------------------------------------- what F reads


def spied(monkeypatch, **settings):
    """Return what F was given in one step, and the captions of that step."""
    seen, true = [], lambda_eclipse.predicted

    def spy(net, *given):
        seen.append(given)
        return true(net, *given)

    monkeypatch.setattr(lambda_eclipse, "predicted", spy)
    fitted(**{"iterations": 1, "batch": 512, "images": 64, **settings})
    return seen[0]


def test_rows_that_are_told_stand_in_front_and_the_rest_is_masked(monkeypatch):
    _, t, slots, _, mask = spied(monkeypatch)
    assert (t == 0).all()
    assert (mask.diff(dim=1) <= 0).all()
    assert torch.equal(mask == 0, (slots == 0).all(2))
    assert 0 < float(mask.mean()) < 1


def test_photos_are_left_out_by_chance_and_then_words_name_the_subject(monkeypatch):
    told = attached(drop=0.25)._told
    captions = lambda_eclipse.Captions(
        (), torch.zeros(2, 4, dtype=torch.long), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
        torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]]).bool(), torch.zeros(1, 1),
    )  # fmt: skip
    found = told(captions, torch.arange(2).repeat(4000), torch.Generator().manual_seed(0))
    shown, words = found[:, 0], found[:, 1:]
    assert float(shown.float().mean()) == pytest.approx(0.75, abs=0.03)
    assert not words[shown][:, [0, 3]].any()  # the photo says it
    assert not words[1::2, 2:].any()  # no word there
    rate = words[::2][~shown[::2]].float().mean(0)
    torch.testing.assert_close(rate, torch.full((4,), 0.5), rtol=0, atol=0.06)
    counts = words[::2][~shown[::2]].sum(1).bincount(minlength=5) / (~shown[::2]).sum()
    torch.testing.assert_close(counts, torch.full((5,), 0.2), rtol=0, atol=0.06)  # evenly


def test_words_that_an_edit_takes_away_are_free():
    words = [caption.split() for caption in People().batch("generator", range(20)).prompts]
    for row, free in zip(words, free_words(People(), range(20), words), strict=True):
        for word, is_free in zip(row, free, strict=True):
            if word in toy.FACTORS:
                assert is_free == (word in People.attributes)


def test_the_contrastive_loss_is_the_mean_cross_entropy_of_both_ways():
    draw = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 5, 3, generator=draw)
    cosines = torch.cosine_similarity(images[:, None], texts[None], dim=2) / 0.1
    rows, columns = cosines.softmax(1).diag().log(), cosines.softmax(0).diag().log()
    expected = -(rows + columns).mean() / 2
    torch.testing.assert_close(contrastive(images, texts, 0.1), expected)


@pytest.mark.slow
def test_a_larger_weight_of_the_contrastive_loss_brings_codes_nearer_to_the_text():
    asked, aligned = torch.tensor([0.0, 1.0, 0.0]), []
    for weight in (0.0, 3.0):
        editor = fitted(**LEARN, contrast=weight)
        found = read(editor, f"{SUBJECT} hat", (0.0, 0.0, 1.0))
        aligned.append(float(torch.cosine_similarity(found, asked, 0)))
    assert aligned[1] > aligned[0]


# ---------------------------------------------------------------- learning


def test_a_fit_goes_on_where_it_was_killed(tmp_path):
    class Killed(Exception):
        pass

    def killing(step, count):
        if step == 2:
            raise Killed

    whole = fitted(iterations=4)
    with pytest.raises(Killed):
        fitted(None, Fitting(tmp_path, seconds=0.0, report=killing), iterations=4)
    again = fitted(None, Fitting(tmp_path), iterations=4)
    assert again.state().keys() == whole.state().keys()
    assert all(torch.equal(v, whole.state()[k]) for k, v in again.state().items())


def test_codes_are_kept_by_content(tmp_path):
    class Counting(Patterns):
        count = 0

        def code_of(self, images):
            Counting.count += 1
            return super().code_of(images)

    def cost(**settings):
        before = Counting.count
        fitted(Counting(), None, Cache(tmp_path), **settings)
        return Counting.count - before

    assert cost() > 0 and cost(iterations=3) == 0
    assert cost(photo="same") > 0


def test_state_gives_equal_images_and_noise_in_its_place_others(learned):
    asked, photo = f"{SUBJECT} hat", WORN
    other = attached(**LEARN)
    other.load_state(learned.state())
    assert torch.equal(read(other, asked, photo), read(learned, asked, photo))
    other.randomise(Streams(3))
    assert not torch.allclose(read(other, asked, photo), read(learned, asked, photo), atol=0.1)
    assert torch.equal(other.state()["mean"], learned.state()["mean"])


# ---------------------------------------------------------------- what goes together, refusals


def test_a_model_without_captions_will_do_as_the_scorer_reads_them():
    model, data = DiffusionAutoencoder, FacesDataset(size=16)
    assert Capability.PROMPTS not in model.gives
    for protocol, fits in ((Personalisation(), True), (Consistency(), False)):
        parts = Parts(LambdaEclipse, {"scorer": "clip1"}, model, data, protocol)
        assert parts.fits() == fits  # there, the model itself is asked for a picture of a caption
    spoken = Parts(TextualInversion, {}, model, data, Personalisation())
    assert not spoken.fits()


def test_refusals():
    with pytest.raises(BadInput, match="a width of 30 is no multiple of the 4 heads"):
        LambdaEclipse(width=30)
    with pytest.raises(BadInput, match="learned nothing yet"):
        read(attached(), SUBJECT, BARE)
    with pytest.raises(BadInput, match="a prompt has 40 words"):
        read(fitted(), " ".join(["hat"] * 40), BARE)
