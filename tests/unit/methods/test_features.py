"""Codes of images in a model's spaces."""

import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import noise_to_level
from latentbench.streams import Streams
from methods.representation.features import Features


def codes(model, count=3, seed=0, **settings):
    editor = Features(**settings)
    editor.attach(model, Streams(seed), Cache(None))
    return editor.represent(toy.ToyData().batch("test", range(count)))


def test_bottleneck_is_the_pooled_output_of_the_middle_block(pixel):
    images = toy.ToyData().batch("test", range(3)).images
    grid, shape = pixel.grid(), pixel.latent_shape
    eps = Streams(0).normal("features", ["noise 0"], shape).expand(3, *shape)
    x = noise_to_level(grid, images, eps, 3)
    kept = []
    handle = pixel.network.mid_block.register_forward_hook(lambda m, a, h: kept.append(h))
    pixel.network(x, grid.timesteps[3])
    handle.remove()
    found = codes(pixel, noise_level=0.4)
    torch.testing.assert_close(found, kept[0].mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_code_is_the_mean_over_noises(pixel):
    one, many = codes(pixel), codes(pixel, ensemble=8)
    spread = [(c - codes(pixel, seed=1, ensemble=n)).std() for c, n in ((one, 1), (many, 8))]
    assert float(spread[1]) < 0.7 * float(spread[0])


def test_level_and_pool_are_what_they_say(pixel):
    before = pixel.evaluations.forward
    clean, noisy = codes(pixel, noise_level=0.0), codes(pixel, noise_level=1.0)
    assert pixel.evaluations.forward - before == 6
    # x_T holds no image, so codes hardly differ between images
    assert float(noisy.std(0).mean()) < 0.5 * float(clean.std(0).mean())
    assert codes(pixel, pool=2).shape[1] == 4 * clean.shape[1]


def test_the_other_spaces(latent):
    batch = toy.ToyData().batch("test", range(3))
    assert torch.equal(codes(latent, space="vae"), latent.encode(batch.images).flatten(1))
    inverted = ddim_invert(latent, batch, Cache(None))
    assert torch.equal(codes(latent, space="noise"), inverted.flatten(1))


def test_vector_codes(vae, gan, diffae):
    images = toy.ToyData().batch("test", range(3)).images
    assert torch.equal(codes(vae, space="vae"), vae.encode(images))
    assert torch.equal(codes(gan, space="style"), gan.encode(images))
    assert torch.equal(codes(diffae, space="semantic"), diffae.encode_semantic(images))


def test_inverted_noise_takes_a_sampler(gan):
    spaces, _ = Features.required(["represent"], {"space": "noise"})
    assert spaces - gan.spaces


def test_a_layer_may_be_named(pixel):
    middle, same, other = (
        codes(pixel, layer=layer) for layer in (None, "mid_block", "up_blocks.1.resnets.0")
    )
    assert torch.equal(middle, same)
    width = pixel.network.get_submodule("up_blocks.1.resnets.0").out_channels
    assert other.shape == (len(middle), width)
