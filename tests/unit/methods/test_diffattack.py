"""DiffAttack on an exact denoiser and a toy classifier."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput, HookNeverFired
from latentbench.model import AttentionCall
from latentbench.sampling.loop import Step
from latentbench.streams import Streams
from latentbench.types import Capability, Edit, Space
from methods.editing.diffattack import DiffAttack, LabelMaps, SelfMaps

BOTH = torch.tensor([0.0, 1.0])


def attached(model, **settings) -> DiffAttack:
    editor = DiffAttack(**{"steps": 8, "structure": 0.0, "rate": 0.05} | settings)
    parts = {"classifier": toy.PatternClassifier()}
    editor.attach(model, Streams(0), Cache(None), parts)
    return editor


def lacking(data, count=6):
    """Return images without hats."""
    found = [k for k in range(60) if data.batch("test", [k]).factors[0, 1] < 0.4]
    return data.batch("test", found[:count])


def odds(images):
    return toy.PatternClassifier().log_odds(images)[..., 1]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_what_is_sampled_is_misread_and_the_rest_is_kept(gaussian, keep):
    """The first that is misread is nearer to the source than the last."""
    batch = lacking(toy.ToyData(gaussian.image_size))
    editor = attached(gaussian, keep=keep)
    kept, moved = editor.edit(batch, Edit("hat+", "hat"), BOTH).unbind(1)
    assert bool((odds(kept) < 0).all()) and bool((odds(moved) > 0).all())
    change = (moved - kept).square().flatten(1).mean(1)
    longer = attached(gaussian, keep="last").edit(batch, Edit("hat+", "hat"), BOTH[1:])[:, 0]
    assert bool((change <= (longer - kept).square().flatten(1).mean(1) + 1e-8).all())


def test_a_random_move_of_the_same_length_is_read_rightly(gaussian):
    batch, edit = lacking(toy.ToyData(gaussian.image_size)), Edit("hat+", "hat")
    editor = attached(gaussian)
    condition = gaussian.condition(None, len(batch))
    x_t = gaussian.encode(batch.images)
    length = (editor.attacked(x_t, condition, edit) - x_t).flatten(1).norm(dim=1)
    drawn = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    drawn = drawn * (length / drawn.flatten(1).norm(dim=1))[:, None, None, None]
    read = odds(editor.image(x_t + drawn, condition).clamp(-1, 1))
    assert float((read > 0).float().mean()) < 0.5


def test_nothing_moves_without_a_loss(gaussian):
    batch = lacking(toy.ToyData(gaussian.image_size))
    kept, moved = attached(gaussian, attack=0.0).edit(batch, Edit("hat+", "hat"), BOTH).unbind(1)
    torch.testing.assert_close(kept, moved)


def test_the_structure_is_kept_where_it_counts(pixel):
    """And the maps are those of every layer and step of the chain."""
    batch, gaps = lacking(toy.ToyData(pixel.image_size), 2), []
    for structure in (1e-9, 1e7):
        editor = attached(pixel, structure=structure, keep="last", iterations=4)
        condition = pixel.condition(None, len(batch))
        x_t = pixel.encode(batch.images)
        found = editor.attacked(x_t, condition, Edit("hat+", "hat"))
        source = SelfMaps()
        editor.image(x_t, condition, source)
        assert {step for step, _ in source.maps} == {6, 7}
        maps = SelfMaps(source)
        editor.image(found, condition, maps)
        gaps.append(float(maps.gap().mean()))
    assert 0 < gaps[1] < 0.5 * gaps[0]


def test_an_edit_without_an_attribute_is_refused(gaussian):
    batch = lacking(toy.ToyData(gaussian.image_size), 2)
    with pytest.raises(BadInput, match="names no attribute to misread; choose benchmark=attack"):
        attached(gaussian).edit(batch, Edit("free"), BOTH)


def read(maps: LabelMaps, layer: str, query, key) -> AttentionCall | None:
    """Show a cross-attention layer to the maps."""
    call = AttentionCall(
        layer, True, query, key, key, 1.0, project=lambda context: (context, context),
        context=key[:, 0], text=key.shape[2],
    )  # fmt: skip
    grid = toy.GaussianModel().grid(2)
    step = Step(0, 0, 1, 2, 0, ("condition",), grid, predict=lambda x, level: (x, x))
    return maps.attention(step, call)


def test_an_even_map_has_no_variance_and_a_peaked_one_has():
    label = torch.tensor([[False, True, False], [False, True, True]])
    query, key = torch.zeros(2, 2, 16, 4), torch.randn(2, 2, 3, 4)
    even, peaked = LabelMaps(), LabelMaps()
    read(even, "down_blocks.0.attn2", query, key)
    torch.testing.assert_close(even.variance(label), torch.zeros(2))
    query[:, :, 5] = 9 * key[:, :, 1]
    read(peaked, "down_blocks.0.attn2", query, key)
    assert bool((peaked.variance(label) > 1e-3).all())


def test_the_variance_is_of_the_mean_over_heads_layers_and_steps():
    """Of the coarsest maps outside the middle block; over places and the label's tokens at once."""
    draw = torch.Generator().manual_seed(0)
    maps, coarse = LabelMaps(), []
    for _ in range(2):  # steps
        for layer, places in (("down_blocks.0", 64), ("down_blocks.1", 16), ("mid_block", 4),
                              ("up_blocks.0", 16)):  # fmt: skip
            query = torch.randn(2, 3, places, 4, generator=draw)
            key = torch.randn(2, 3, 5, 4, generator=draw)
            assert (read(maps, f"{layer}.attn2", query, key) is None) == (layer == "mid_block")
            if places == 16:
                coarse.append(torch.einsum("bhpd,bhmd->bhpm", query, key).softmax(-1))
    label = torch.tensor([[False, True, True, False, False], [False, False, False, True, False]])
    mean = torch.stack(coarse).mean((0, 2)).double()
    wanted = []
    for M, own in zip(mean, label, strict=True):
        values = M[:, own].flatten()
        wanted.append(((values - values.mean()) ** 2).sum() / (len(values) - 1))
    torch.testing.assert_close(maps.variance(label), torch.stack(wanted).float())


def captioned(latent, count=2):
    """Return images whose captions name the hat, and what asks that none is read."""
    data = toy.ToyData(latent.image_size)
    index = [k for k in range(60) if "hat" in (data.batch("test", [k]).prompts or ("",))[0]][:count]
    batch = data.batch("test", index)
    told = data.edited_prompts("test", index, "hat", torch.zeros(count))
    return batch, Edit("hat-", "hat", -1, batch.prompts, told)


def test_the_labels_attention_is_spread_where_nothing_else_counts(latent):
    batch, edit = captioned(latent)
    editor = attached(latent, attack=0.0, transfer=1e4, keep="last", iterations=3)
    label, code = editor.label(batch.prompts, edit), editor.invert(batch)
    x_t, condition = code.parts[Space.NOISE], latent.condition_of(code)
    variances = []
    for x in (x_t, editor.attacked(x_t, condition, edit, label)):
        maps = LabelMaps()
        editor.image(x, condition, maps)
        variances.append(maps.variance(label))
    before, after = variances
    assert bool((after < 0.97 * before).all()), (before, after)


def test_the_labels_tokens_are_those_of_the_words_that_go(latent):
    editor = attached(latent, transfer=1.0)
    told = Edit("hat-", "hat", -1, target_prompts=("a face with smile",))
    (tokens,) = latent.prompt_tokens("a face with hat smile")
    found = editor.label(("a face with hat smile",), told)[0].nonzero().flatten().tolist()
    assert found == tokens.of_word(3) and len(found) == 1


def test_without_weight_no_maps_and_no_words_are_asked_for(latent, monkeypatch):
    """An edit that would be refused with a weight: its captions name no hat."""
    batch = lacking(toy.ToyData(latent.image_size), 2)
    edit = Edit("hat+", "hat", target_prompts=batch.prompts)
    with pytest.raises(BadInput, match=r"has no word that .* lacks.*set method.transfer=0"):
        attached(latent, transfer=1.0, iterations=1).edit(batch, edit, BOTH)
    monkeypatch.setattr(LabelMaps, "attention", lambda *_: pytest.fail("a map was read"))
    attached(latent, transfer=0.0, iterations=1).edit(batch, edit, BOTH)


def test_a_model_without_cross_attention_is_refused_before_work(pixel, latent):
    data, asks = toy.ToyData(), toy.Asks(verb="edit")

    def misfit(model, **settings) -> str:
        config = {"structure": 100.0, "transfer": 0.0, "classifier": None} | settings
        return Parts(DiffAttack, config, type(model), data, asks).misfit() or ""

    assert "token_maps" not in misfit(pixel) and "token_maps" in misfit(pixel, transfer=1.0)
    assert "token_maps" not in misfit(latent, transfer=1.0)
    spaces, needs = DiffAttack.required(["edit"], {"transfer": 1.0})
    assert Space.TOKEN_MAPS in spaces and needs >= {Capability.PROMPTS, Capability.TARGET_PROMPTS}
    assert DiffAttack.required(["invert"], {"transfer": 1.0}) == DiffAttack.required(["invert"], {})


def test_maps_that_no_layer_gives_are_a_failure(pixel):
    editor, batch = attached(pixel, transfer=1.0), lacking(toy.ToyData(pixel.image_size), 2)
    x_t, condition = pixel.encode(batch.images), pixel.condition(None, 2)
    with pytest.raises(HookNeverFired, match=r"LabelMaps\.attention was active but never fired"):
        editor.attacked(x_t, condition, Edit("hat+", "hat"), torch.ones(2, 3, dtype=torch.bool))
