import hashlib
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips as functional_lpips
import torchvision
from cleanfid.fid import get_folder_features
from PIL import Image
from planted import outputs_of

from latentbench.errors import MissingWeights
from metrics.arcface_id import IRSE50, ArcFaceIdentity, face_crop
from metrics.fid import FrechetInceptionDistance, InceptionFeatures
from metrics.lpips_alex import LPIPSAlex, lpips_with
from metrics.published import PublishedWeights

NAMED = [FrechetInceptionDistance, LPIPSAlex, ArcFaceIdentity]


def images(n=4, size=64, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("metric", NAMED)
def test_off_without_weights_and_says_what_to_do(metric, tmp_path, surroundings):
    assert "sha256" in metric().missing(None) and "set it" in metric().missing(None)
    why = metric().missing(tmp_path)
    assert "does not exist" in why and "sha256" in why
    with pytest.raises(MissingWeights):
        metric().prepare(surroundings)


@pytest.mark.parametrize("metric", NAMED)
def test_off_with_a_file_of_another_hash(metric, tmp_path):
    path = Path(metric().missing(tmp_path).split(" does not exist")[0])
    path.write_bytes(b"something else")
    assert hashlib.sha256(b"something else").hexdigest() in metric().missing(tmp_path)


def test_on_with_the_right_file(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    weights = PublishedWeights("net.pth", digest, "here")
    assert weights.missing(tmp_path) is None
    assert weights.state(tmp_path)["w"].tolist() == [1, 1]


def test_a_file_with_code_in_it_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"w": Code()}, tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        PublishedWeights("net.pth", digest, "here").state(tmp_path)


@pytest.fixture(scope="module")
def alexnet():
    torch.manual_seed(0)
    return torchvision.models.alexnet(weights=None).state_dict()


def test_lpips_equals_the_package_with_the_same_trunk(alexnet, surroundings):
    a, b = images(), images(seed=1)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    convolutions = [m for m in theirs.net.modules() if isinstance(m, torch.nn.Conv2d)]
    for layer, place in zip(convolutions, (0, 3, 6, 8, 10), strict=True):
        layer.weight.data = alexnet[f"features.{place}.weight"]
        layer.bias.data = alexnet[f"features.{place}.bias"]
    metric = LPIPSAlex()
    metric.network, metric.surroundings = lpips_with(alexnet), surroundings
    metric.update(outputs_of(a, truths=b[:, None]))
    found = metric.table()["lpips_alex"][:, 0]
    assert torch.allclose(found, theirs(a, b).flatten().double(), atol=1e-6)


def test_lpips_equals_torchmetrics_with_the_same_trunk(alexnet):
    theirs = functional_lpips._LPIPS(net="alex", pnet_rand=True)
    theirs.net.load_state_dict(lpips_with(alexnet).net.state_dict())
    a, b = images(), images(seed=1)
    assert torch.allclose(lpips_with(alexnet)(a, b), theirs(a, b), atol=1e-6)


def test_lpips_of_small_images_is_that_of_enlarged_ones(alexnet, surroundings):
    a, b = images(size=16), images(size=16, seed=1)
    metric = LPIPSAlex()
    metric.network, metric.surroundings = lpips_with(alexnet), surroundings
    metric.update(outputs_of(a, truths=b[:, None]))
    large = [torch.nn.functional.interpolate(x, 64, mode="bilinear") for x in (a, b)]
    expected = lpips_with(alexnet)(*large).flatten().double()
    assert torch.allclose(metric.table()["lpips_alex"][:, 0], expected, atol=1e-6)


class Small(torch.nn.Module):
    """Takes what clean-fid gives to Inception."""

    def forward(self, x):
        assert x.shape[-2:] == (299, 299) and x.max() > 100
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_fid_reads_images_as_clean_fid_reads_their_png_files(tmp_path):
    x = images(size=32)
    for k, image in enumerate(x):
        whole = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(whole).save(tmp_path / f"{k}.png")
    theirs = get_folder_features(
        str(tmp_path), Small(), num_workers=0, device=torch.device("cpu"), mode="clean",
        verbose=False,
    )  # fmt: skip
    ours = InceptionFeatures(Small(), "", torch.device("cpu")).features(x)
    assert np.allclose(ours.numpy(), theirs, atol=1e-3)


class TestArcFace:
    def test_parameters_have_the_published_names(self):
        with torch.device("meta"):
            names = IRSE50().state_dict().keys()
        assert {
            "input_layer.0.weight", "body.0.res_layer.5.fc1.weight", "body.23.res_layer.4.bias",
            "body.3.shortcut_layer.0.weight", "output_layer.3.weight", "output_layer.4.running_var",
        } <= names  # fmt: skip
        assert sum(k.endswith("res_layer.0.weight") for k in names) == 24

    def test_crop_is_the_fixed_region(self):
        x = torch.zeros(1, 3, 256, 256)
        x[:, :, 35:223, 32:220] = 1
        assert face_crop(x).min() == 1 and face_crop(1 - x).max() == 0

    def test_embeddings_have_unit_length(self):
        found = IRSE50().eval()(images(1, size=112))
        assert found.shape == (1, 512) and float(found.norm()) == pytest.approx(1, abs=1e-5)

    def test_best_and_worst(self, surroundings):
        class Colours(torch.nn.Module):
            def forward(self, x):
                return torch.nn.functional.normalize(x.mean((2, 3)), dim=1)

        x = images(2)
        for source, cosine in ((x, 1), (-x, -1)):
            metric = ArcFaceIdentity()
            metric.network, metric.surroundings = Colours(), surroundings
            metric.update(outputs_of(x, sources=source))
            assert metric.compute()["arcface_id"].value == pytest.approx(cosine, abs=1e-5)
