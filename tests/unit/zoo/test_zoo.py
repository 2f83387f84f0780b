"""The embedded models: hashes, cards, loading, judges' gates, the training loop."""

import itertools
import json
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, DDPMPipeline

from latentbench import weights
from latentbench.cells.catalogue import options
from latentbench.data import faces
from latentbench.errors import BadInput, MissingWeights
from latentbench.zoo import __main__ as command
from latentbench.zoo import measures, training
from latentbench.zoo.judges import JUDGES, ConvolutionalJudge, Judge, load_judge
from latentbench.zoo.recipes import faces_ddpm, faces_ldm, judges
from latentbench.zoo.text_image import PAIRS

MODELS = weights.names()
CPU = torch.device("cpu")
PLAN = training.Plan(name="micro", steps=2, batch=4, lr=1e-3)


@pytest.fixture(scope="module", params=JUDGES)
def judge(request):
    return load_judge(request.param)


@pytest.fixture(scope="module")
def images():
    return faces.render(faces.sample_factors("test", torch.arange(64)))


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A private copy of one judge, so that it can be damaged."""
    shutil.copytree(weights.folder("zoo1"), tmp_path / "zoo1")
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", tmp_path)
    return tmp_path / "zoo1"


# ---------------------------------------------------------------- files and cards


def test_every_embedded_model_that_a_config_names_is_there():
    named = {str(option.config.get("path")) for option in options("model").values()}
    needed = named & set(command.RECIPES) | {*JUDGES, *PAIRS}
    assert needed <= set(MODELS) <= set(command.RECIPES)


@pytest.mark.parametrize("name", MODELS)
def test_hashes_match(name):
    weights.verify(name)


@pytest.mark.parametrize("name", MODELS)
def test_cards_are_complete(name):
    card = weights.card(name)
    assert card["name"] == name
    assert card["recipe"].startswith(f"python -m latentbench.zoo train {name}")
    assert card["recipe_version"] == command.recipe(name).version
    assert card["measured"] and card["hardware"] and card["date"]
    assert card["check"]["figures"], f"latentbench zoo measure {name} --quick"
    assert set(card["sha256"]) == set(weights.hashes(weights.folder(name)))
    for run in card["training"].values():
        assert {"split", "indices", "steps", "batch", "seed", "seconds"} <= set(run)


def test_no_config_tells_where_it_was_made():
    configs = [path.read_text("utf-8") for path in weights.WEIGHTS_ROOT.rglob("*.json")]
    assert configs and not any("_name_or_path" in text for text in configs)


def test_judges_and_generators_share_no_split():
    splits = {
        name: {run["split"] for run in weights.card(name)["training"].values()} for name in MODELS
    }
    judges = {*JUDGES, "clip2"}
    for name, used in splits.items():
        assert used == ({"judge"} if name in judges else {"generator"}), name


def test_files_are_small():
    sizes = [path.stat().st_size for path in weights.WEIGHTS_ROOT.rglob("*") if path.is_file()]
    assert max(sizes) <= 16 * 2**20
    assert sum(sizes) <= 64 * 2**20


def test_a_flipped_bit_is_found(copied):
    path = copied / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        MissingWeights, match=r"model\.safetensors .* expected sha256 .* train zoo1"
    ):
        load_judge("zoo1")


def test_a_missing_file_is_found(copied):
    (copied / "config.json").unlink()
    with pytest.raises(MissingWeights, match="no file"):
        weights.verify("zoo1")


def test_unknown_names_are_answered():
    with pytest.raises(BadInput, match="zoo1"):
        load_judge("zoo9")
    with pytest.raises(BadInput, match="did you mean faces_ddpm"):
        weights.folder("faces_dpm")


def test_command_line(capsys):
    assert command.main(["list"]) == 0
    assert weights.digest("faces_ldm")[:12] in capsys.readouterr().out
    assert command.main(["show", "zoo2"]) == 0
    assert json.loads(capsys.readouterr().out) == weights.card("zoo2")
    assert command.main(["verify", "zoo2", "--hashes"]) == 0
    assert "zoo2: ok" in capsys.readouterr().out
    assert command.main(["verify", "zoo9"]) == 2
    assert "unknown embedded model 'zoo9'" in capsys.readouterr().err


def test_quick_figures_are_measured_again(copied, monkeypatch, capsys):
    quick = {"n": command.CHECK_N, "figures": {"psnr_db": 30.0, "sampler": "DDIM"}}
    figures = iter([quick["figures"], quick["figures"], {"psnr_db": 20.0, "sampler": "DDIM"}])
    made = command.Recipe(1, 1, lambda *a: {}, lambda folder, device, n: next(figures))
    monkeypatch.setitem(command.RECIPES, "zoo1", lambda name: made)
    bare = {key: value for key, value in weights.card("zoo1").items() if key != "check"}
    (copied / weights.CARD).write_text(json.dumps(bare))
    assert command.main(["verify", "zoo1"]) == 1
    assert "no quick figures; add them with" in capsys.readouterr().err
    before = weights.card("zoo1")
    assert command.main(["measure", "zoo1", "--quick"]) == 0
    assert weights.card("zoo1") == before | {"check": quick}
    assert command.main(["verify", "zoo1"]) == 0
    assert command.main(["verify"]) == 1
    assert "psnr_db 30.0 on the card, 20.0 now" in capsys.readouterr().err


def test_figures_may_differ_by_the_tolerance_and_by_one_image():
    card = {"ratio": 10.0, "share": [0.5, {"x": 0.0}], "sampler": "DDIM"}
    near = {"ratio": 10.5, "share": [0.57, {"x": 0.06}], "sampler": "DDIM"}
    assert not command.differences(card, near, n=16)
    far = {"ratio": 10.6, "share": [0.6, {}], "sampler": "Euler", "new": 1}
    wrong = command.differences(card, far, n=16)
    assert [text.split()[0] for text in wrong] == [
        "ratio", "share/0", "share/1/x", "sampler", "new"
    ]  # fmt: skip


# ---------------------------------------------------------------- loading through diffusers


@pytest.mark.slow
def test_pixel_pipeline_loads_and_samples():
    pipeline = DDPMPipeline.from_pretrained(weights.folder("faces_ddpm"))
    assert sum(p.numel() for p in pipeline.unet.parameters()) < 3.5e6
    images = faces_ddpm.sample(weights.folder("faces_ddpm"), 2, CPU, steps=4)
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()


@pytest.mark.slow
def test_latent_pipeline_loads_and_samples():
    folder = weights.folder("faces_ldm")
    pipeline = faces_ldm.load(folder)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert {p.dtype for p in pipeline.text_encoder.parameters()} == {torch.float32}
    captions = faces.caption(faces.sample_factors("test", torch.arange(2)))
    images = faces_ldm.sample(folder, captions, CPU, guidance=3.0, steps=3)
    assert images.shape == (2, 3, 64, 64) and images.isfinite().all()


def test_latents_have_unit_spread(images):
    vae = faces_ldm.load(weights.folder("faces_ldm")).vae
    with torch.no_grad():
        latents = vae.encode(images[:16]).latent_dist.mean * vae.config.scaling_factor
    assert abs(latents.std() - 1) < 0.1


def test_each_word_is_one_token():
    tokens = faces_ldm.load(weights.folder("faces_ldm")).tokenizer
    ids = faces_ldm.token_ids(tokens, faces.vocabulary())
    assert (ids[:, 2] == tokens.eos_token_id).all()
    assert len(set(ids[:, 1].tolist())) == len(faces.vocabulary())
    assert (faces_ldm.token_ids(tokens, [""])[0, 1:] == tokens.eos_token_id).all()


# ---------------------------------------------------------------- judges


@pytest.mark.slow
def test_factors_respond_monotonically(judge):
    base = faces.sample_factors("test", torch.arange(10))
    for name in faces.FACTOR_NAMES:
        column = faces.factor_index(name)
        values = (0.0, 0.5, 1.0)
        rows = [faces.render(faces.with_factor(base, name, value)) for value in values]
        read = torch.stack([judge.factors(row)[:, column].mean() for row in rows])
        assert (read.diff() > 0).all(), (name, read)


def test_distance_to_itself_is_zero(judge, images):
    assert judge.distance(images[:4], images[:4]).abs().max() < 1e-5
    features = judge.features(images)
    assert abs(measures.frechet(features, features)) < 1e-5 * features.var(0).sum()


def test_any_square_size_is_read(judge, images):
    small = torch.nn.functional.avg_pool2d(images[:8], 2)
    assert (judge.factors(small) - judge.factors(images[:8])).abs().mean() < 0.05
    assert judge.features(torch.zeros(1, 3, 96, 96)).shape == (1, 128)
    with pytest.raises(BadInput, match="square RGB"):
        judge.features(torch.zeros(1, 3, 32, 64))


# ---------------------------------------------------------------- measures


def test_verification_best_and_worst():
    perfect = measures.verification(torch.ones(50), torch.zeros(50))
    assert perfect["auc"] == 1 and perfect["eer"] == 0
    chance = measures.verification(torch.linspace(0, 1, 400), torch.linspace(0, 1, 400))
    assert abs(chance["auc"] - 0.5) < 0.01 and abs(chance["eer"] - 0.5) < 0.01


def test_frechet_of_shifted_gaussians():
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert abs(measures.frechet(x, x + 2) - 12) < 1e-6
    assert abs(measures.frechet(x, 2 * x) - 3) < 0.3


class Planted(Judge):
    """A judge that errs as it is said to, in one call after the other."""

    def __init__(self, name, errors, factors):
        super().__init__(name, 1)
        self.answers = iter([factors + error for error in errors])

    def factors(self, images):
        return next(self.answers)


def test_errors_in_common_are_found():
    """Shared errors of the same size as own ones correlate .5; planted misses are counted."""
    n, columns = 64, [faces.factor_index(name) for name in measures.PRESENT]
    truth = faces.sample_factors("test", torch.arange(n))
    generator = torch.Generator().manual_seed(0)
    shared, one, two = torch.randn(3, n, truth.shape[1], generator=generator) * 0.01
    errors = [shared + one, shared, shared]
    errors[1] = errors[1].clone()
    errors[1][:, columns] = -truth[:, columns]
    judge = Planted("a", errors, truth)
    other = Planted("b", [shared + two, shared, -shared], truth)
    found = measures.error_figures(judge, [other], n, first=0)
    assert found["clean"]["correlation"]["b"] == pytest.approx(0.5, abs=0.06)
    assert found["low_contrast"]["correlation"]["b"] == pytest.approx(-1, abs=1e-4)
    assert (
        set(found["clean"]["missed"].values()) == {0.0} == set(found["clean"]["invented"].values())
    )
    assert set(found["blurred"]["missed"].values()) == {1.0}
    assert found["rmse"]["brow"] == pytest.approx(0.0141, abs=0.003)


# ---------------------------------------------------------------- training


def _micro(root, stop_after=None):
    plan = training.Plan(name="micro", steps=6, batch=2, lr=1e-3, save_every=2)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))

    def loss(step, generator):
        images = faces.render(training.batch_factors(plan, "generator", step, CPU), 32)
        noise = torch.randn(images.shape, generator=generator)
        return (module(images + noise) - 1).square().mean()

    training.train(module, loss, plan, root=root, stop_after=stop_after, report=lambda _: None)
    return module.state_dict()


def test_a_killed_run_ends_the_same(tmp_path):
    straight = _micro(tmp_path / "a")
    _micro(tmp_path / "b", stop_after=3)
    resumed = _micro(tmp_path / "b")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_rate_warms_up_and_ends_near_zero():
    plan = training.Plan(name="x", steps=1000, batch=1, lr=1.0)
    rates = [training.learning_rate(plan, step) for step in range(1000)]
    assert rates[0] < 0.1 and max(rates) == 1 and rates[599] == 1 and rates[-1] < 0.01


def test_a_loss_that_is_not_finite_stops(tmp_path):
    plan = training.Plan(name="x", steps=2, batch=1, lr=1.0)
    module = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower lr"):
        training.train(module, lambda s, g: module.weight.sum() / 0, plan, root=tmp_path)


@pytest.mark.slow
def test_recipe_trains_saves_and_verifies(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", tmp_path / "weights")
    small = {"architecture": "ConvolutionalJudge", "name": "zoo1", "channels": [8, 8, 8, 8]}
    monkeypatch.setitem(judges.CONFIGS, "zoo1", small)
    folder = command.train("zoo1", 2, CPU, tmp_path / "checkpoints")
    weights.verify("zoo1")
    assert json.loads((folder / "card.json").read_text())["training"]["zoo1"]["steps"] == 2
    assert isinstance(load_judge("zoo1"), ConvolutionalJudge)


def test_each_judge_has_its_own_faces_and_people():
    """Also of the refinements and of the label-free trunk."""
    plans = [phase.plan for phases in judges.PHASES.values() for phase in phases]
    plans += [judges.FREE_PLAN, *(phase.plan for phase in judges.REFINEMENTS.values())]
    spans = [(plan.fresh, plan.fresh + plan.images) for plan in plans]
    spans += [(first, first + judges.PEOPLE) for first in judges.FIRST_PERSON.values()]
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert len({plan.seed for plan in plans}) == len(plans)


def _unrefine(folder):
    """Make a judge's folder one of before its refinement, with the heads of after it."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state = {key: value for key, value in state.items() if not key.startswith("reader.")}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(judges.CONFIGS[folder.name]))
    card = weights.card(folder.name)
    del card["training"][f"{folder.name}_degraded"]
    (folder / weights.CARD).write_text(json.dumps(card | {"sha256": weights.hashes(folder)}))


@pytest.mark.parametrize("name", judges.REFINEMENTS)
def test_refinement_changes_what_is_read_and_no_feature(name, tmp_path, monkeypatch, images):
    shutil.copytree(weights.folder(name), tmp_path / name)
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", tmp_path)
    _unrefine(tmp_path / name)
    monkeypatch.setattr(judges, "PEOPLE", 4)
    small = replace(judges.REFINEMENTS[name], plan=replace(PLAN, name=f"{name}_degraded"))
    monkeypatch.setitem(judges.REFINEMENTS, name, small)
    before = load_judge(name)
    started_from = weights.card(name)["sha256"]["model.safetensors"]
    assert command.refine(name, 2, CPU, tmp_path / "checkpoints") == tmp_path / name
    after, few = load_judge(name), images[:2]
    for old, new in zip(before.trunk(few), after.trunk(few), strict=True):
        torch.testing.assert_close(new, old, atol=0, rtol=0)
    assert torch.equal(before.layer_weights, after.layer_weights)
    readings = torch.stack([before.factors(few).flatten(), after.factors(few).flatten()])
    assert 0.8 < torch.corrcoef(readings)[0, 1] < 0.9999
    told = weights.card(name)["training"][f"{name}_degraded"]
    assert told["start_sha256"] == started_from and told["degraded"] == small.degraded
    assert not weights.card(name)["measured"]
    with pytest.raises(BadInput, match="refined already"):
        command.refine(name, 2, CPU, tmp_path / "checkpoints")


def test_only_judges_with_a_refinement_are_refined(capsys):
    assert command.main(["refine", "faces_ldm"]) == 2
    assert "unknown judge to refine 'faces_ldm'" in capsys.readouterr().err
