"""Features and embeddings, on the same images and the same random network weights."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from cleanfid import inception_pytorch
from cleanfid.fid import get_folder_features
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import VisionTransformer as FidelityTower
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision import transforms
from torchvision.models import VisionTransformer as TorchvisionTransformer
from transformers import CLIPConfig, CLIPModel

from agreement.cases import Case, Measure
from agreement.images import images
from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.metric import Surroundings
from latentbench.zoo.judges import load_judge
from metrics.networks.clip import CLIP, MEAN, STD
from metrics.networks.inception import InceptionFeatures, Mode, PortedInception, ported
from metrics.networks.pixels import IMAGENET, as_bytes
from metrics.networks.vision_transformer import VisionTransformer
from metrics.pairs.dino_structure import DINOStructure

CPU = torch.device("cpu")
WIDTH, DEPTH, HEADS = 48, 3, 4


class _Pooled(nn.Module):
    """A network that takes what Inception takes."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)


def prepared(mode: Mode) -> Measure:
    """Compare how images are prepared with clean-fid's reading of their PNG files."""

    def measure() -> tuple[Any, Any]:
        x = images(size=40)[1]
        with tempfile.TemporaryDirectory() as folder:
            for k, image in enumerate(as_bytes(x).permute(0, 2, 3, 1).numpy()):
                Image.fromarray(image).save(Path(folder) / f"{k}.png")
            theirs = get_folder_features(
                folder, _Pooled(), num_workers=0, device=CPU, mode=mode, verbose=False
            )
        return InceptionFeatures(_Pooled(), "", CPU, mode).features(x), theirs

    return measure


def _random_inception(**_: Any) -> dict[str, Tensor]:
    """Return random weights under the published names, with spread batch statistics."""
    torch.manual_seed(0)
    with mock.patch.object(nn.Module, "load_state_dict"), mock.patch("torch.load"):
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="x")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            cast(Tensor, module.running_var).uniform_(0.05, 0.2)
            module.bias.data.uniform_(-0.1, 0.1)
    return network.state_dict()


def legacy_pytorch() -> tuple[Any, Any]:
    """Compare with clean-fid's port of pytorch-fid, its download replaced by random weights."""
    state = _random_inception()
    x = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 255
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: state):
        theirs = inception_pytorch.InceptionV3([3], resize_input=False).eval()
    return PortedInception(ported(state, "2048"))(x), theirs(x / 255)[0].flatten(1)


@cache
def _transformer(layer_scale: bool) -> VisionTransformer:
    torch.manual_seed(0)
    network = VisionTransformer(8, WIDTH, DEPTH, HEADS, grid=28, layer_scale=layer_scale).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


def _torchvision(network: VisionTransformer) -> TorchvisionTransformer:
    """Return torchvision's transformer with these weights, layer scales multiplied in."""
    own: Any
    theirs: Any = TorchvisionTransformer(224, 8, DEPTH, HEADS, WIDTH, 4 * WIDTH, num_classes=1)
    theirs.heads = nn.Identity()
    theirs.class_token = network.cls_token
    theirs.encoder.pos_embedding = network.pos_embed
    theirs.conv_proj, theirs.encoder.ln = network.patch_embed[0], network.norm
    for own, block in zip(network.blocks, theirs.encoder.layers, strict=True):
        block.ln_1, block.ln_2, attention = own.norm1, own.norm2, block.self_attention
        attention.in_proj_weight, attention.in_proj_bias = own.attn.qkv.weight, own.attn.qkv.bias
        _scaled(attention.out_proj, own.attn.proj, own.ls1)
        block.mlp[0] = own.mlp.fc1
        _scaled(block.mlp[3], own.mlp.fc2, own.ls2)
    return theirs.eval()


def _scaled(theirs: nn.Linear, ours: nn.Linear, scale: nn.Module) -> None:
    gamma = getattr(scale, "gamma", torch.ones(WIDTH))
    theirs.weight.data = ours.weight * gamma[:, None]
    theirs.bias.data = ours.bias * gamma


def class_token() -> tuple[Any, Any]:
    """Compare class-token features with torchvision."""
    network, x = _transformer(True), images(224, 2)[1]
    return network(x), _torchvision(network)(x)


def positions() -> tuple[Any, Any]:
    """Compare interpolated positions with the authors' lines, written out for 16 x 16 patches."""
    network = _transformer(True)
    planes = network.pos_embed[0, 1:].reshape(28, 28, WIDTH).permute(2, 0, 1)[None]
    scale = (16 + 0.1) / np.sqrt(28 * 28)
    found = nn.functional.interpolate(planes, scale_factor=(scale, scale), mode="bicubic")
    theirs = found.permute(0, 2, 3, 1).reshape(256, WIDTH)
    return network._positions(16, 16)[0, 1:], theirs


def structure(unscaled: bool) -> Measure:
    """Compare with PnPInversion's steps: keys by head, cosines, mean squared difference."""

    def measure() -> tuple[Any, Any]:
        network, pairs = _transformer(False), images(96)
        metric = DINOStructure(unscaled=unscaled)
        metric.network = network
        metric.surroundings = Surroundings(FacesDataset(), CPU, Cache(None), load_judge)
        a, b = (_similarities(network, x, unscaled) for x in pairs)
        theirs = [nn.functional.mse_loss(x, y) for x, y in zip(a, b, strict=True)]
        return metric.compare(*pairs), theirs

    return measure


def _similarities(network: VisionTransformer, x: Tensor, unscaled: bool) -> list[Tensor]:
    """Return the self-similarity of each image's keys, taken from torchvision's transformer."""
    prepare = transforms.Compose([
        transforms.Resize(224, max_size=480, antialias=False), transforms.Normalize(*IMAGENET),
    ])  # fmt: skip
    theirs, read, last = _torchvision(network), [], cast(Any, network.blocks[-1])
    hook = cast(Any, theirs.encoder.layers[-1]).ln_1.register_forward_hook(
        lambda *found: read.append(found[2])
    )
    found = []
    for image in as_bytes(x).float() / (1 if unscaled else 255):
        theirs(prepare(image)[None])
        qkv = last.attn.qkv(read.pop())[0]
        keys = qkv.reshape(-1, 3, HEADS, WIDTH // HEADS).permute(1, 2, 0, 3)[1]
        flat = keys.transpose(0, 1).reshape(-1, WIDTH)
        norms = flat.norm(dim=1, keepdim=True)
        found.append((flat @ flat.T) / (norms @ norms.T).clamp(min=1e-8))
    hook.remove()
    return found


def clip_image() -> tuple[Any, Any]:
    """Compare image embeddings with torch-fidelity's tower and torchvision's preparation."""
    torch.manual_seed(0)
    small = {
        "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
    }  # fmt: skip
    config = CLIPConfig(
        vision_config=small | {"patch_size": 32, "image_size": 224},
        text_config=small | {"vocab_size": 4, "bos_token_id": 1, "eos_token_id": 2},
        projection_dim=16,
    )  # fmt: skip
    network = CLIPModel(config)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    ours = CLIP(network, Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")), "", CPU)
    theirs = FidelityTower(224, 32, WIDTH, DEPTH, HEADS, 16).eval()
    theirs.load_state_dict(_openai_names(network.state_dict()))
    prepare: Any = transforms.Compose([
        transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
        transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    x = images(150, 2)[1][:, :, :, :131]
    pixels = [prepare(Image.fromarray(i)) for i in as_bytes(x).permute(0, 2, 3, 1).numpy()]
    return ours.features(x), theirs(torch.stack(pixels))


def _openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the image tower's weights under the names of OpenAI's code."""
    tower = {k.removeprefix("vision_model."): v for k, v in state.items() if "text" not in k}
    found = {
        "class_embedding": tower["embeddings.class_embedding"],
        "positional_embedding": tower["embeddings.position_embedding.weight"],
        "conv1.weight": tower["embeddings.patch_embedding.weight"],
        "proj": tower["visual_projection.weight"].T,
    }
    for part in ("weight", "bias"):
        found[f"ln_pre.{part}"] = tower[f"pre_layrnorm.{part}"]
        found[f"ln_post.{part}"] = tower[f"post_layernorm.{part}"]
        for k in range(DEPTH):
            own, block = f"encoder.layers.{k}.", f"transformer.resblocks.{k}."
            packed = [tower[f"{own}self_attn.{x}_proj.{part}"] for x in "qkv"]
            found[f"{block}attn.in_proj_{part}"] = torch.cat(packed)
            found[f"{block}attn.out_proj.{part}"] = tower[f"{own}self_attn.out_proj.{part}"]
            for theirs, ours in (
                ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
            ):  # fmt: skip
                found[f"{block}{theirs}.{part}"] = tower[f"{own}{ours}.{part}"]
    return found


PNG = "4 PNG files, 40 px, pooled"
SMALL = f"random transformer, {DEPTH} blocks"
MODES: tuple[Mode, ...] = ("clean", "legacy_pytorch", "legacy_tensorflow")
CASES = [
    *(
        Case(f"fid, {m} resizing", "get_folder_features", "clean-fid", PNG, 1e-3, prepared(m))
        for m in MODES
    ),
    Case(
        "fid_legacy_pytorch, features", "InceptionV3", "clean-fid", "random Inception, 2 images",
        1e-5, legacy_pytorch, relative=True, quick=False,
    ),
    Case(
        "fd_dinov2, features", "VisionTransformer", "torchvision", SMALL, 1e-5, class_token,
        relative=True,
    ),
    Case(
        "fd_dinov2, positions", "DINOv2, interpolate_pos_encoding", "", "28 to 16 patches a side",
        1e-6, positions,
    ),
    Case("dino_struct", "PnPInversion's steps", "", SMALL, 1e-4, structure(False), relative=True),
    Case(
        "dino_struct_unscaled", "PnPInversion's steps", "", SMALL, 1e-4, structure(True),
        relative=True,
    ),
    Case(
        "clip_fid, clip_score, image embeddings", "VisionTransformer", "torch-fidelity",
        f"random CLIP tower, {DEPTH} blocks, 150 x 131 px", 1e-5, clip_image, relative=True,
    ),
]  # fmt: skip
