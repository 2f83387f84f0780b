"""Class-conditional diffusion transformers, on real configs shrunk by their size fields alone."""

import pytest
import torch
import transformers_toy as small
from diffusers import DiTPipeline, DiTTransformer2DModel

from latentbench.errors import BadInput, MissingWeights
from latentbench.model import Condition
from latentbench.models.dit import DiT
from latentbench.sampling.loop import Intervention, generate, guided, invert, predict

CLASSES = {0: "tench", 207: "golden retriever", 208: "Labrador retriever", 292: "tiger, big cat"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.save_dit(tmp_path_factory.mktemp("dit"), small.DIT_XL_256, CLASSES)


@pytest.fixture(scope="module")
def dit(folder):
    return DiT(path=folder, steps=4)


def noise(model, rows=2):
    return torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def terms(model, scale=3.0):
    prompts = ("a photo of a golden retriever", "tench")
    return guided(model.condition(prompts, 2), model.condition(None, 2), scale)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_generation_is_dit_pipelines(dit, folder, scale):
    pipeline = DiTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        [207, 0], guidance_scale=scale, num_inference_steps=4, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    ours = dit.decode(generate(dit, noise(dit), terms(dit, scale)))
    assert float(((ours / 2 + 0.5).clamp(0, 1) - theirs).abs().max()) < 1e-5


def test_the_network_hears_its_class(dit):
    x, grid = noise(dit), dit.grid()
    _, tench = predict(dit, x, grid, 1, guided(dit.condition(("tench",) * 2, 2), Condition(), 1.0))
    _, tiger = predict(dit, x, grid, 1, guided(dit.condition(("tiger",) * 2, 2), Condition(), 1.0))
    assert float((tench - tiger).abs().max()) > 1e-3


def test_a_prompt_names_a_class_by_its_words(dit):
    assert dit.class_of("A photo of a golden retriever") == 207
    assert dit.class_of("one big cat on a sofa") == dit.class_of("tiger") == 292
    with pytest.raises(BadInput, match="known: Labrador retriever"):
        dit.class_of("a face")
    with pytest.raises(BadInput, match="several classes"):
        dit.class_of("golden Labrador retriever")
    with pytest.raises(BadInput, match="got 1 prompts for 2 images"):
        dit.condition(("tench",), 2)


def test_half_way_between_classes_lies_the_mean_of_their_embeddings(dit):
    a, b = dit.condition(("tench",), 1), dit.condition(("tiger",), 1)
    middle = a.lerp(b, torch.tensor([0.5])).tensors["class_labels"]
    table = dit.network.transformer_blocks[0].norm1.emb.class_embedder
    expected = (table(torch.tensor([0])) + table(torch.tensor([292]))) / 2
    torch.testing.assert_close(table(middle), expected)


class Watch(Intervention):
    """Keeps h_t and changes nothing."""

    def bottleneck(self, step, h):
        self.h = h
        return h

    def attention(self, step, call):
        assert not call.cross
        return call.attend()

    def context(self, step, layer, context):
        return context


def test_taps_that_change_nothing_change_nothing(dit):
    watch = Watch()
    plain = generate(dit, noise(dit), terms(dit))
    torch.testing.assert_close(generate(dit, noise(dit), terms(dit), interventions=[watch]), plain)
    assert watch.h.shape == (2, 2, 32, 4, 4)  # branch, image, width, and the patches as a map
    assert len(dit.attention_layers()) == 3


def test_gradients_reach_x_and_the_bottleneck(dit):
    shift = torch.zeros(1, 1, 32, 4, 4, requires_grad=True)

    class Shift(Intervention):
        def bottleneck(self, step, h):
            return h + shift

    x = noise(dit).requires_grad_()
    with torch.enable_grad():
        generate(dit, x, terms(dit), start=3, interventions=[Shift()]).square().sum().backward()
    assert x.grad is not None and shift.grad is not None
    assert float(x.grad.abs().sum()) > 0 and float(shift.grad.abs().sum()) > 0


def test_a_row_does_not_depend_on_its_neighbours(dit):
    x, both = noise(dit), terms(dit)
    other = torch.cat([x[:1], x[:1]])
    assert torch.equal(generate(dit, x, both)[0], generate(dit, other, both)[0])
    assert torch.equal(generate(dit, x, both), generate(dit, x, both))


def test_inversion_leads_back(dit):
    free = guided(dit.condition(None, 2), Condition(), 1.0)
    grid, z = dit.grid(400), 0.5 * noise(dit)
    level = 240  # an untrained eps-network would blow x_T up
    noisy = invert(dit, z, free, grid=grid, stop=level)
    found = generate(dit, noisy, free, grid=grid, start=level)
    assert float((found - z).abs().mean()) < 0.05 * float(z.abs().mean())


@pytest.mark.parametrize("config", [small.DIT_XL_256, small.DIT_XL_512])
def test_the_real_size(config):
    """675,129,632 in the published code, which counts 294,912 fixed positions as parameters."""
    with torch.device("meta"):
        network = DiTTransformer2DModel(**config)
        x = torch.zeros(2, 4, config["sample_size"], config["sample_size"])
        out = network(x, torch.zeros(2), torch.zeros(2, dtype=torch.long)).sample
    assert out.shape == (2, 8, *x.shape[2:])
    copies = [p for b in network.transformer_blocks[1:] for p in b.norm1.emb.parameters()]
    count = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in copies)
    assert count == 675_129_632 - 294_912


def test_an_absent_checkpoint_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="hf download facebook/DiT-XL-2-256"):
        DiT(path="facebook/DiT-XL-2-256")
    with pytest.raises(MissingWeights, match="Give a local folder"):
        DiT(path=str(tmp_path))
