"""Laws of every metric: neither the order of rows nor how they are split changes a byte."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from latentbench.cache import Cache
from latentbench.data.faces_dataset import FacesDataset
from latentbench.metric import Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import load_judge
from metrics.codes.cka import CKA
from metrics.codes.mig import MutualInformationGap
from metrics.codes.modularity import Modularity
from metrics.codes.neighbour_spread import NeighbourSpread
from metrics.codes.noise_statistics import NoiseStatistics
from metrics.codes.relative_representation import RelativeRepresentation
from metrics.codes.sap import SeparatedAttributePredictability
from metrics.codes.spread import Spread
from metrics.codes.svcca import SVCCA
from metrics.codes.typicality import Typicality
from metrics.edits.all_asked import AllAsked
from metrics.edits.attribute_dependency import AttributeDependency
from metrics.edits.edit_error import EditError
from metrics.edits.edit_error_image import EditErrorImage
from metrics.edits.leak import Leak
from metrics.edits.monotonicity import Monotonicity
from metrics.edits.rescoring import Rescoring
from metrics.edits.target_gain import TargetGain
from metrics.pairs.background import Background
from metrics.pairs.background_perceptual import BackgroundPerceptual
from metrics.pairs.counterfactual import CounterfactualError
from metrics.pairs.identity_preservation import IdentityPreservation
from metrics.pairs.mse import MeanSquaredError
from metrics.pairs.perceptual import PerceptualDistance
from metrics.pairs.psnr import PSNR
from metrics.pairs.ssim import SSIM
from metrics.paths.factor_path import FactorPath
from metrics.paths.frechet_inner import InnerFrechetDistance
from metrics.paths.istd import ISTD
from metrics.paths.kernel_inner import InnerKernelDistance
from metrics.paths.path import PathSmoothness
from metrics.paths.path_error_image import PathErrorImage
from metrics.sets.frechet import FrechetDistance
from metrics.sets.frechet_infinity import FrechetInfinity
from metrics.sets.kernel import KernelDistance
from metrics.sets.kernel_subsets import SubsetKernelDistance
from metrics.sets.kernel_truths import TruthKernelDistance
from metrics.sets.memorisation import Memorisation
from metrics.sets.prdc import PrecisionRecall
from metrics.sets.saturation import Saturation
from metrics.sets.shifted_set import ShiftedSet
from metrics.sets.vendi import VendiScore

sys.path.append(str(Path(__file__).parents[1] / "unit" / "metrics"))
from planted import PlantedData, PlantedJudge

N = 26
MAKERS = [
    PSNR, SSIM, MeanSquaredError, PerceptualDistance, CounterfactualError, TargetGain, Leak,
    EditError, EditErrorImage, AllAsked,
    Background, BackgroundPerceptual,
    Monotonicity, IdentityPreservation, TruthKernelDistance, ISTD, PathSmoothness, FactorPath,
    PathErrorImage,
    NoiseStatistics,
    lambda: FrechetDistance(reference_n=200), lambda: KernelDistance(reference_n=200),
    lambda: InnerKernelDistance(reference_n=200), lambda: PrecisionRecall(reference_n=100),
    lambda: VendiScore(reference_n=100), lambda: Memorisation(training_n=100, reference_n=50),
    lambda: SubsetKernelDistance(reference_n=100, subsets=3, subset_size=15),
    lambda: FrechetInfinity(reference_n=100, subsets=1),
    lambda: InnerFrechetDistance(reference_n=100), lambda: ShiftedSet(reference_n=100),
    AttributeDependency, Rescoring, Typicality, Saturation, MutualInformationGap, Modularity,
    SeparatedAttributePredictability, Spread, NeighbourSpread, RelativeRepresentation, CKA, SVCCA,
]  # fmt: skip
NAMES = [type(make()).__name__ for make in MAKERS]
laws = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def toy(name, device):
    return PlantedJudge(name)


SURROUNDINGS = Surroundings(PlantedData(), torch.device("cpu"), Cache(None), judge=toy)


def samples(data=SURROUNDINGS.dataset, n=N) -> Samples:
    """Return rows that have every field: five outputs of two edits, some images in both."""
    batch = data.batch("test", range(n))
    other = data.batch("test", range(n, 6 * n)).images.unflatten(0, (n, 5))
    outputs = batch.images[:, None].lerp(other, 0.3).clamp(-1, 1)
    wanted = batch.factors[:, None].repeat(1, 5, 1)
    wanted[..., 12] = torch.where(batch.factors[:, 12] < 0.5, 1.0, 0.0)[:, None]
    strengths = torch.tensor([1.0, 2.0, 3.0, 4.0, 2.5])
    ids = tuple(batch.ids[k - k % 2] if k < 10 else batch.ids[k] for k in range(n))
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(n, 3, 8, 8, generator=random)
    codes, other_codes = (torch.randn(n, d, generator=random) for d in (5, 4))
    height, width = outputs.shape[-2:]
    masks = torch.zeros(n, height, width)
    masks[:, 3 * height // 4 :] = 1
    return Samples(
        ids, outputs, tuple(f"group{k % 2}" for k in range(n)), sources=batch.images,
        truths=other.flip(1).contiguous(), reconstructions=outputs[:, 0] * 0.9,
        strengths=strengths.repeat(n, 1), main=3, effect=4, matched=torch.arange(n) % 7 != 0,
        factors=batch.factors, wanted=wanted, noise=noise, codes=codes, other_codes=other_codes,
        masks=masks,
    )  # fmt: skip


WHOLE = samples()


def prepared(make, surroundings=SURROUNDINGS):
    metric = make()
    metric.prepare(surroundings)
    return metric


def scores(make, parts, surroundings=SURROUNDINGS):
    metric = prepared(make, surroundings)
    for part in parts:
        metric.update(part)
    return metric.compute()


def cut(whole, cuts):
    ends = [0, *sorted(cuts), len(whole)]
    return [whole.rows(range(a, b)) for a, b in itertools.pairwise(ends) if b > a]


@pytest.fixture(scope="module")
def expected():
    return {id(make): scores(make, [WHOLE]) for make in MAKERS}


def merged(make, parts):
    """Return the scores of parts, each in a metric of its own, its state through safetensors."""
    whole = prepared(make)
    for part in parts:
        shard = prepared(make)
        shard.update(part)
        whole.merge_state(load(save(shard.state())))
    return whole.compute()


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_order_and_split_of_rows_change_no_byte(make, expected):
    """All rows mixed, in updates of 1, 9, 15 and 1 rows; shards of 3, 16 and 7, the last first."""
    mixed = WHOLE.rows([7 * k % N for k in range(N)])  # 7 and 26 share no divisor
    assert scores(make, cut(mixed, [1, 10, 25])) == expected[id(make)]
    assert merged(make, reversed(cut(WHOLE, [3, 19]))) == expected[id(make)]


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
@laws
@given(order=st.permutations(range(N)), cuts=st.lists(st.integers(1, N - 1), max_size=6))
def test_any_order_in_any_split_changes_no_byte(make, expected, order, cuts):
    assert scores(make, cut(WHOLE.rows(order), cuts)) == expected[id(make)]


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
@laws
@given(cuts=st.lists(st.integers(1, N - 1), min_size=2, max_size=4), data=st.data())
def test_shards_merged_in_any_order_change_no_byte(make, expected, cuts, data):
    assert merged(make, data.draw(st.permutations(cut(WHOLE, cuts)))) == expected[id(make)]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_a_saved_state_resumes(make, expected):
    first, second = cut(WHOLE, [11])
    before = prepared(make)
    before.update(first)
    after = prepared(make)
    after.merge_state(load(save(before.state())))
    after.update(second)
    assert after.compute() == expected[id(make)]
    assert all(len(v) == N for v in after.table().values())


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_every_score_has_n_and_an_interval_or_a_reason(make, expected):
    metric = make()
    for name, score in expected[id(make)].items():
        figure = metric.figures[name.partition("/")[0]]
        assert score.n > 0 or score.value is None
        assert score.value is None or (score.low is not None) or score.note
        if score.low is not None:
            assert score.low <= score.value <= score.high
        for limit, sign in ((figure.low, 1), (figure.high, -1)):
            if limit is not None and score.value is not None:
                assert sign * (score.value - limit) >= -1e-9


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_table_has_a_row_per_sample_and_reset_forgets(make):
    metric = make()
    metric.prepare(SURROUNDINGS)
    for _ in range(2):
        metric.update(WHOLE)
        assert all(v.shape in [(N, 5), (N, 1)] for v in metric.table().values())
        assert set(metric.table()) <= set(metric.figures)
        metric.reset()


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_two_samples_never_break(make):
    found = scores(make, [samples(n=2)])
    rates = (
        "noise_shapiro",
        "authpct_zoo1",
        "all_asked_zoo1",
    )  # Wilson's interval holds at every n
    assert all(s.low is None for name, s in found.items() if name not in rates)


@pytest.mark.parametrize("name", ["zoo1", "zoo2"])
def test_real_judges_keep_the_law(name):
    real = Surroundings(FacesDataset(size=32), torch.device("cpu"), Cache(None), load_judge)
    whole = samples(real.dataset, 12)

    def make():
        return PerceptualDistance(extractor=name)

    assert scores(make, cut(whole, [1, 6]), real) == scores(make, [whole], real)
