"""What tests of every method share: which there are, what they go with, which laws they break."""

from collections.abc import Collection, Iterable
from pathlib import Path

from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.conformance.laws import LawBroken, results
from latentbench.conformance.trial import Trial
from latentbench.model import LatentModel
from latentbench.option import Option
from latentbench.types import Capability

CONF = Path(__file__).parents[1] / "conf" / "method"
METHODS = sorted(path.stem for path in CONF.glob("*.yaml"))


def first_of_its_class(name: str) -> bool:
    """Return whether the quick tests see this class by this yaml first, or it is no variant."""
    cls = option("method", name).cls
    kin = [other for other in METHODS if option("method", other).cls is cls]
    plain = [other for other in kin if "defaults:" not in (CONF / f"{other}.yaml").read_text()]
    return name == [*plain, *kin][0] or name in plain


def parts(name: str, verb: str, model: type[LatentModel]) -> Parts:
    """Return a method and a class of models as the runner compares them."""
    method = option("method", name)
    return Parts(method.cls, method.config, model, toy.ToyData(), asking(method, verb))


def asking(method: Option, verb: str, gives: Iterable[Capability] = tuple(Capability)) -> toy.Asks:
    """Return a protocol that asks for the directions that the method has, if it has any."""
    asks = toy.Asks(verb=verb, gives=gives)
    asks.directions = method.cls.directions(method.config)
    return asks


def broken_laws(trial: Trial, leaving: Collection[str] = ()) -> list[str]:
    """Return the laws that a trial breaks, each with how; raise whatever else goes wrong."""
    broken = []
    for law, _, error in results([trial], leaving):
        if error is not None and not isinstance(error, LawBroken):
            raise error
        broken += [f"{law}: {error}"] if error else []
    return broken
