import hashlib
from pathlib import Path

import pytest
import torch
from planted import PlantedData, outputs_of
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.functional import interpolate, normalize
from torchvision.models import alexnet
from torchvision.models.vgg import cfgs, make_layers
from transformers import CLIPModel

from latentbench.cache import Cache
from latentbench.cells.catalogue import options
from latentbench.errors import MissingWeights
from latentbench.metric import Surroundings
from latentbench.zoo.judges import load_judge
from latentbench.zoo.published_weights import PublishedWeights
from metrics.edits.clip_direction import CaptionDirection, direction_cosine
from metrics.edits.clip_score_edit import EditedClipScore
from metrics.networks import clip
from metrics.networks.vision_transformer import VisionTransformer
from metrics.pairs.arcface_id import IRSE50, ArcFaceIdentity, face_crop
from metrics.pairs.clip_score import CaptionScore
from metrics.pairs.dino_structure import DINOStructure, vit_b8
from metrics.pairs.dists import StructureAndTexture
from metrics.pairs.lpips import LPIPSDistance, lpips_with
from metrics.sets.fd_dinov2 import vit_l14
from metrics.sets.inception_score import inception_scores

NAMED = [o for o in options("metric").values() if o.build().weights]
KNOWN = [o for o in NAMED if all(file.digest for file in o.build().weights)]


def images(n=4, size=64, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def published(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PublishedWeights(path.name, digest, "https://here")


@pytest.mark.parametrize("option", KNOWN, ids=lambda option: option.name)
def test_off_without_weights_and_says_what_to_do(option, tmp_path, surroundings):
    metric = option.build()
    assert "sha256" in metric.missing(None) and "set it" in metric.missing(None)
    why = metric.missing(tmp_path)
    assert "does not exist" in why and "sha256" in why
    with pytest.raises(MissingWeights):
        metric.prepare(surroundings)


@pytest.mark.parametrize("option", KNOWN, ids=lambda option: option.name)
def test_off_with_a_file_of_another_hash(option, tmp_path):
    path = Path(option.build().missing(tmp_path).split(" does not exist")[0])
    path.write_bytes(b"something else")
    assert hashlib.sha256(b"something else").hexdigest() in option.build().missing(tmp_path)


@pytest.mark.parametrize("option", NAMED, ids=lambda option: option.name)
def test_hashes_are_whole_and_agree_with_the_prefix_in_the_file_name(option):
    for file in option.build().weights:
        assert len(file.digest) in (0, 64) and file.url.startswith("https://")
        prefix = Path(file.file).stem.rsplit("-", 1)[-1]
        if len(prefix) == 8 and set(prefix) <= set("0123456789abcdef"):
            assert file.digest.startswith(prefix)


def test_a_hash_that_nobody_published_must_be_given():
    assert "give the one that you trust" in DINOStructure().missing(Path("/"))
    assert "does not exist" in DINOStructure(sha256="00" * 32).missing(Path("/nowhere"))


def test_on_with_the_right_file(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pth")
    weights = published(tmp_path / "net.pth")
    assert weights.missing(tmp_path) is None
    assert weights.state(tmp_path)["w"].tolist() == [1, 1]
    (tmp_path / "net.pth").write_bytes(b"changed")
    assert "has sha256" in weights.missing(tmp_path)


def test_a_file_with_code_in_it_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"w": Code()}, tmp_path / "net.pth")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        published(tmp_path / "net.pth").state(tmp_path)


def test_lpips_of_small_images_is_that_of_enlarged_ones(surroundings):
    torch.manual_seed(0)
    network = lpips_with("alex", alexnet(weights=None).state_dict())
    a, b = images(size=16), images(size=16, seed=1)
    metric = LPIPSDistance()
    metric.network, metric.surroundings = network, surroundings
    metric.update(outputs_of(a, truths=b[:, None]))
    large = [interpolate(x, 64, mode="bilinear") for x in (a, b)]
    expected = network(*large).flatten().double()
    assert torch.allclose(metric.table()["lpips_alex"][:, 0], expected, atol=1e-6)


class TestInceptionScore:
    def test_best_every_image_sure_and_classes_equal(self):
        logits = 100 * torch.eye(4).repeat(50, 1).double().numpy()
        assert inception_scores(logits, splits=1)[0] == pytest.approx(4)

    def test_worst_and_trap_unsure_or_one_class_is_one(self):
        unsure, one_class = torch.zeros(40, 4), torch.tensor([[100.0, 0, 0, 0]]).repeat(40, 1)
        for logits in (unsure, one_class):
            assert inception_scores(logits.double().numpy()) == pytest.approx(1)


def test_dists_best_and_worst():
    torch.manual_seed(0)
    layers = make_layers(cfgs["D"], batch_norm=False).state_dict()
    network = StructureAndTexture({f"features.{name}": value for name, value in layers.items()})
    a, b = ((images(2, 32, seed) + 1) / 2 for seed in (0, 1))
    near, far = network(a, 0.95 * a + 0.05 * b), network(a, b)
    assert network(a, a).abs().max() < 1e-5 and (near < far).all()


class TestStructure:
    @pytest.fixture
    def metric(self, surroundings):
        torch.manual_seed(0)
        metric = DINOStructure()
        metric.network = VisionTransformer(8, 32, 2, 4, grid=28).eval()
        for parameter in metric.network.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        metric.surroundings = surroundings
        return metric

    def test_best_is_zero_and_more_change_is_further(self, metric):
        a, b = images(2, 32), images(2, 32, seed=1)
        values = [metric.compare(a.lerp(b, w), a) for w in (0.0, 0.1, 1.0)]
        assert values[0].abs().max() < 1e-10
        assert (values[1] < values[2]).all() and (values[1] > 0).all()

    def test_parameters_have_the_published_names(self):
        with torch.device("meta"):
            names, large = vit_b8().state_dict(), vit_l14().state_dict()
        assert len(names) == 150 and names["pos_embed"].shape == (1, 785, 768)
        assert {"cls_token", "patch_embed.proj.weight", "blocks.11.attn.qkv.bias"} <= names.keys()
        assert large["pos_embed"].shape == (1, 1370, 1024)
        assert {"blocks.23.ls1.gamma", "blocks.0.mlp.fc2.weight", "norm.bias"} <= large.keys()


COLOURS = {"red": (1.0, 0, 0), "green": (0, 1.0, 0), "red green": (1.0, 1.0, 0)}


class Words:
    """Reads an image's mean colour, and captions that name one."""

    def image(self, x):
        return normalize(x.mean((-2, -1)) + 1, dim=-1)

    def text(self, captions):
        return normalize(torch.tensor([COLOURS[c] for c in captions]), dim=-1)


def colour(r, g, b):
    return torch.tensor([r, g, b]).reshape(1, 3, 1, 1).expand(2, -1, 16, 16).contiguous()


RED, GREEN = colour(1.0, -1, -1), colour(-1, 1.0, -1)


class TestCaptions:
    def score(self, outputs, caption):
        metric = CaptionScore()
        metric.column, metric.encoder = "score", Words()
        metric.update(outputs_of(outputs, prompts=(caption,) * 2))
        return metric.compute()["score"].value

    def test_score_best_worst_and_between(self):
        assert self.score(RED, "red") == pytest.approx(100)
        assert self.score(GREEN, "red") == pytest.approx(0)
        assert self.score(RED, "red green") == pytest.approx(100 / 2**0.5, abs=1e-3)

    def test_edited_part_alone_counts_and_the_source_is_the_anchor(self):
        metric = EditedClipScore()
        metric.encoder = Words()
        masks = torch.zeros(2, 16, 16)
        masks[:, :8] = 1
        outputs = torch.where(masks[:, None] > 0, RED, GREEN)
        given = {"sources": GREEN, "masks": masks, "source_prompts": ("green",) * 2}
        metric.update(outputs_of(outputs, prompts=("red",) * 2, **given))
        found = metric.compute()
        assert found["clip_score_edit"].value == pytest.approx(100)
        assert found["clip_score_anchor"].value == pytest.approx(100)

    def direction(self, outputs, prompts):
        metric = CaptionDirection()
        metric.column, metric.encoder = "dir", Words()
        given = {"sources": GREEN, "source_prompts": ("green",) * 2, "prompts": prompts}
        metric.update(outputs_of(outputs, **given))
        return metric.compute()["dir"]

    def test_direction_best_worst(self):
        assert self.direction(RED, ("red",) * 2).value == pytest.approx(1)
        worse = direction_cosine(torch.tensor([[1.0, 0]]), torch.tensor([[-2.0, 0]]))
        assert worse.item() == pytest.approx(-1)

    def test_trap_no_change_has_no_direction(self):
        for outputs, prompts in ((GREEN, ("red",) * 2), (RED, ("green",) * 2)):
            found = self.direction(outputs, prompts)
            assert found.value is None and "no defined value" in found.note


class TestCLIP:
    def test_parameters_have_the_published_names_and_shapes(self):
        for net, embedding in (("vit_l14", 768), ("vit_b32", 512)):
            with torch.device("meta"):
                state = CLIPModel(clip.NETS[net].config()).state_dict()
            assert len(state_without_ids(state)) == {"vit_l14": 590, "vit_b32": 398}[net]
            assert state["visual_projection.weight"].shape[0] == embedding
            assert state["text_model.embeddings.token_embedding.weight"].shape[0] == 49408
            last = "text_model.encoder.layers.11.self_attn.out_proj.weight"
            assert {"vision_model.pre_layrnorm.bias", "logit_scale", last} <= state.keys()

    def test_loaded_from_files_and_padding_changes_no_caption(self, tmp_path, monkeypatch):
        torch.manual_seed(0)
        shape = (16, 1, 2, 112), (16, 2), 8
        blank = clip.Architecture(PublishedWeights("c.safetensors", "", "https://here"), *shape)
        state = state_without_ids(CLIPModel(blank.config()).state_dict())
        save_file(state, tmp_path / "c.safetensors")
        tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(tmp_path / "t.json"))
        small = clip.Architecture(published(tmp_path / "c.safetensors"), *shape)
        monkeypatch.setitem(clip.NETS, "vit_b32", small)
        monkeypatch.setattr(clip, "TOKENIZER", published(tmp_path / "t.json"))
        where = Surroundings(PlantedData(), torch.device("cpu"), Cache(None), load_judge, tmp_path)
        found = clip.load_clip("vit_b32", where)
        assert found.image(images(3, 20)).norm(dim=1).tolist() == pytest.approx([1] * 3)
        one, two = found.text(["a b"]), found.text(["a", "a b"])
        assert torch.allclose(one[0], two[1], atol=1e-6) and not torch.allclose(two[0], two[1])


def state_without_ids(state):
    return {k: v.contiguous() for k, v in state.items() if not k.endswith("position_ids")}


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
