"""Every embedded model that a yaml names keeps the laws of its kind, on its shipped weights."""

import cells  # noqa: F401 (puts the tests' plug-in on the path before options are first read)
import pytest
import torch
from safetensors import safe_open

from latentbench import weights
from latentbench.cache import Cache
from latentbench.cells.catalogue import options
from latentbench.data import faces
from latentbench.model import DiffusionModel, LatentModel
from latentbench.sampling.loop import Intervention, Recorder, denoise, guided
from latentbench.streams import Streams
from latentbench.types import Capability, Space
from methods.generation.consistency import ConsistencySampling
from methods.generation.plain import PlainSampling

EMBEDDED = {
    name: option
    for name, option in options("model").items()
    if option.config.get("adapter", option.config.get("path")) in weights.names()
}
SAMPLED = [n for n, option in EMBEDDED.items() if issubclass(option.cls, DiffusionModel)]
TOLD = [n for n in SAMPLED if EMBEDDED[n].cls.gives & {Capability.PROMPTS, Capability.CLASSES}]
IDS = ("a", "b", "c")


@pytest.fixture(scope="module")
def loaded():
    """Gives a model by name, loaded once, with 2 steps where it has a sampler."""
    models: dict[str, LatentModel] = {}

    def load(name: str) -> LatentModel:
        if name not in models:
            steps = {"steps": 2} if name in SAMPLED else {}
            option = EMBEDDED[name]
            models[name] = option.cls(**{**option.config, **steps})
        return models[name]

    return load


def captions(model: LatentModel, rows: int) -> tuple[str, ...] | None:
    takes = model.gives & {Capability.PROMPTS, Capability.CLASSES}
    return tuple(faces.caption(known(rows))) if takes else None


def known(rows: int) -> torch.Tensor:
    return faces.sample_factors("test", torch.arange(rows))


def sample(model: LatentModel, ids: tuple[str, ...]) -> torch.Tensor:
    """Plain samples of ids; each has its own caption where the model takes one."""
    own = Space.CONSISTENCY in model.spaces
    editor = ConsistencySampling() if own else PlainSampling()
    editor.attach(model, Streams(0), Cache(None))
    words = captions(model, len(IDS))
    return editor.generate(ids, words and tuple(words[IDS.index(i)] for i in ids))


def leaf_gradient(model: DiffusionModel, where: str) -> torch.Tensor:
    """Gradient of the squared length of x0_hat by x_t or by a shift of the bottleneck."""
    condition = model.condition(captions(model, 2), 2)
    terms, grid = guided(condition, condition, 1.0), model.grid()
    x = Streams(0).normal("x", IDS[:2], model.latent_shape)
    recorder = Recorder(bottleneck=where == "bottleneck")
    denoise(model, x, terms, grid=grid, level=1, interventions=[recorder])
    value = recorder.h[1] if where == "bottleneck" else x

    class Shift(Intervention):
        def bottleneck(self, step, h):
            return h + leaf

    with torch.enable_grad():
        leaf = torch.zeros_like(value) if where == "bottleneck" else value.clone()
        leaf.requires_grad_()
        start, hooks = (x, [Shift()]) if where == "bottleneck" else (leaf, [])
        x0, _ = denoise(model, start, terms, grid=grid, level=1, interventions=hooks)
        x0.square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_files_hold_half_precision(name):
    option = EMBEDDED[name]
    folder = weights.folder(option.config.get("adapter", option.config["path"]))
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    for file in files:
        with safe_open(file, "pt") as opened:
            kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}
        assert kinds <= {"F16", "I64"}, file


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_face_encoded_and_decoded_is_nearest_to_itself(loaded, name):
    model = loaded(name)
    images = faces.render(known(8), model.image_size)
    back = model.decode(model.encode(images))
    assert back.shape == images.shape
    gaps = (back[:, None] - images[None]).square().flatten(2).mean(2)
    assert gaps.argmin(1).tolist() == list(range(8))


@pytest.mark.parametrize("name", EMBEDDED)
def test_samples_are_the_same_bytes_again_in_another_order(loaded, name):
    model = loaded(name)
    first = sample(model, IDS)
    assert first.isfinite().all()
    assert float((first[0] - first[1]).abs().max()) > 0.1
    assert torch.equal(sample(model, IDS), first)
    assert torch.equal(sample(model, IDS[::-1]).flip(0), first)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_sample_does_not_depend_on_its_company(loaded, name):
    model = loaded(name)
    alone = torch.cat([sample(model, (i,)) for i in IDS])
    torch.testing.assert_close(alone, sample(model, IDS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLED)
def test_x0_has_a_gradient_by_x_t_and_by_the_bottleneck(loaded, name):
    model = loaded(name)
    places = ["x_t"] + ["bottleneck"] * (Space.BOTTLENECK in model.spaces)
    for where in places:
        gradient = leaf_gradient(model, where)
        assert gradient.isfinite().all(), where
        assert float(gradient.flatten(1).abs().amax(1).min()) > 0, where


@pytest.mark.parametrize("name", TOLD)
def test_a_caption_changes_the_sample(loaded, name):
    model = loaded(name)
    noise = Streams(0).normal("x", ("a",), model.latent_shape).repeat(2, 1, 1, 1)
    condition = model.condition(captions(model, 2), 2)
    x0, _ = denoise(model, noise, guided(condition, condition, 1.0), grid=model.grid(), level=0)
    assert float((x0[0] - x0[1]).abs().max()) > 1e-2
