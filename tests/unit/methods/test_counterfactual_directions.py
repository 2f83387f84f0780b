"""Global counterfactual directions: a classifier whose answer is known to depend on one number."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.counterfactual_directions import CounterfactualDirections
from methods.directions.vector_code import vector_code

DATA = toy.ToyData()
HAT = Edit("hat+", "hat", 1)
BATCH = DATA.batch("test", [0, 1])


def attached(model, fitting: Fitting | None = None, **settings) -> CounterfactualDirections:
    given = {"rounds": 3, "batch": 8, "epochs": 5, **settings}
    editor = CounterfactualDirections(**given)
    parts = {"classifier": toy.PatternClassifier()}
    editor.attach(model, Streams(0), Cache(None), parts, fitting)
    return editor


def fitted(model, **settings) -> CounterfactualDirections:
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [HAT])
    return editor


def answering(editor: CounterfactualDirections, odds) -> None:
    """Put a known function of delta in the place of render and classifier."""

    def answers(source, deltas):
        y = odds(deltas / deltas.shape[1] ** 0.5)
        rows = len(deltas)
        found = (3 + deltas[:, 1]).reshape(rows, 1, 1, 1).expand(-1, 3, 16, 16)
        return {"images": found, "logits": y[:, None].repeat(1, len(toy.FACTORS))}

    editor._answers = answers  # pyright: ignore[reportAttributeAccessIssue]


def learned(model, odds, **settings) -> torch.Tensor:
    editor = attached(model, **settings)
    answering(editor, odds)
    with torch.enable_grad():
        editor.fit(DATA, [HAT])
    return editor.learned_["hat"]


KNOWN = {"rounds": 8, "batch": 32, "epochs": 60, "learning_rate": 0.01, "reach": 1.0}


def test_g_is_the_gradient_of_what_the_classifier_answers(diffae):
    """Of an answer that is linear in one coordinate; it raises, whatever the source shows."""
    found = learned(diffae, lambda u: 3 * u[:, 0] - 1, **KNOWN)
    assert found.shape[0] == 1 and float(found.norm()) == pytest.approx(1, abs=1e-5)
    assert found[0, 0] > 0.9
    assert learned(diffae, lambda u: -3 * u[:, 0] + 1, **KNOWN)[0, 0] < -0.9


def test_h_finds_what_bends_the_answer(diffae):
    """Of a proxy whose second derivatives are known, the most bent first, up or down."""
    bends = torch.tensor([0.1, -3.0, 0.0, 2.0])

    class Parabola(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(), (bends * x.square()).sum() + x.sum()])

    g = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), Parabola()).requires_grad_(False)
    torch.nn.init.eye_(g.get_submodule("0").get_parameter("weight"))
    found = attached(diffae, variant="h", count=3)._curved(g, 1)
    torch.testing.assert_close(found.abs(), torch.eye(4)[[1, 3, 0]], atol=1e-5, rtol=0)


def test_directions_raise_whatever_the_source_is(diffae):
    """The search turns a direction to the other answer, the fit to more of the attribute."""
    editor = attached(diffae, variant="h")
    v = torch.eye(diffae.code_size)[:2]
    for sign in (1.0, -1.0):
        answering(editor, lambda u, sign=sign: sign * (20 * u[:, 1] - 5))
        source = editor.invert(BATCH)
        flips = editor._searched(source, -v, 0, sign)
        torch.testing.assert_close(flips[0], v[1])  # towards the other answer, and the first


def test_strength_moves_the_code_by_its_size_and_nothing_else(diffae):
    editor = fitted(diffae)
    code = vector_code(editor.invert(BATCH))[1]
    moved = editor.moved(code, HAT, torch.tensor([0.0, -0.5]))
    assert torch.equal(moved[0], code[0])
    step = (moved[1] - code[1]).norm() / code.shape[1] ** 0.5
    assert float(step) == pytest.approx(0.5, abs=1e-4)
    images = editor.edit(BATCH, HAT, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(images[:, 0], editor.decode(editor.invert(BATCH)))


def test_the_distance_bends_g_away_from_what_is_seen(diffae):
    """Two coordinates flip the answer alike; only one of them moves pixels."""

    def odds(u):
        return 3 * (u[:, 0] + u[:, 1]) - 1

    free, near = (learned(diffae, odds, w_distance=w, **KNOWN)[0] for w in (0.0, 30.0))
    assert float(free[1]) == pytest.approx(float(free[0]), abs=0.2)
    assert near[1] < free[1] - 0.3


def test_a_killed_fit_goes_on(diffae, tmp_path, monkeypatch):
    whole = fitted(diffae).learned_["hat"]
    folder = tmp_path / "fit"
    killed = attached(diffae, Fitting(folder, seconds=0.0))
    monkeypatch.setattr(killed, "_proxy", lambda table: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        killed.fit(DATA, [HAT])
    again = attached(diffae, Fitting(folder, seconds=0.0))
    rendered = []
    monkeypatch.setattr(again, "_answers", lambda *given: rendered.append(given))
    with torch.enable_grad():
        again.fit(DATA, [HAT])
    assert not rendered and torch.equal(again.learned_["hat"], whole)


def test_refusals_say_what_to_do(diffae):
    with pytest.raises(BadInput, match="give 0 to 5"):
        CounterfactualDirections(variant="h", index=6)
    with pytest.raises(BadInput, match="cannot be split"):
        CounterfactualDirections(rounds=1, batch=1)
    editor = fitted(diffae)
    with pytest.raises(BadInput, match="no direction was fitted"):
        editor.edit(BATCH, Edit("smile+", "smile"), torch.ones(1))
    with pytest.raises(BadInput, match=r"answers of 'hat'; raise method\.reach"):
        learned(diffae, lambda u: 0 * u[:, 0])  # pixels change, answers do not
    with pytest.raises(BadInput, match="count=65 is more than the"):
        fitted(diffae, variant="h", count=65, index=64)
