"""What methods have learned: fits kept in the cache, and their exchange as plain safetensors.

A method learns once for all images, or of single subjects, such as a word for the one that some
references show; each of these is a fit. It is kept under the hash of all that it depends on, with a
card that says what that is. Exported, it is one safetensors file whose metadata hold the card.
Imported, it is what any cell takes that depends on the same; the record of such a cell names the
hash of the file.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from latentbench import store
from latentbench.annotations import fits
from latentbench.bounds import Seed, between
from latentbench.cache import CARD, COST, IMPORTED, SUBJECT_KIND, Cache
from latentbench.errors import BadInput, unknown
from latentbench.metric_state import as_json, as_tensor
from latentbench.records import in_words

log = logging.getLogger(__name__)
KIND = "fit"  # of what is learned once for all images
KINDS = (KIND, SUBJECT_KIND)
METADATA = "latentbench"  # name of the card in an exported file
COUNTS = "evaluations"  # of a card in an exported file
FIELDS = ("key", "method", "model", "dataset", "seed", "edits")  # of a card, at least


@dataclass(frozen=True)
class Fit:
    """What a method has learned.

    Args:
        card: method, model and data with their settings, seed, edits, and the key of all of it; of
            what was learned of single subjects, its kind and their ids.
        tensors: its state.
        cost: forward and backward evaluations that it took.
    """

    card: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    cost: tuple[int, int]

    @property
    def key(self) -> str:
        """The hash of all that it depends on."""
        return str(self.card["key"])

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return str(self.card.get("kind", KIND))

    @property
    def line(self) -> str:
        """What it is, in one line."""
        words = [self.card[group]["name"] for group in ("method", "model", "dataset")]
        names = self.card["edits"] if self.kind == KIND else self.card["subjects"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        what = f"{words[0]} on {words[1]}, {words[2]}, seed {self.card['seed']}"
        return f"{self.key[:12]}  {what}: {'' if self.kind == KIND else 'learned of '}{shown}"

    def document(self) -> dict[str, Any]:
        """Return it as JSON values; of the tensors their names, shapes and norms."""
        tensors = {
            name: {"shape": list(v.shape), "norm": in_words(float(v.double().norm()))}
            for name, v in self.tensors.items()
        }
        return {**self.card, COUNTS: list(self.cost), "tensors": tensors}


def every(cache: Path) -> Iterator[Fit]:
    """Yield the fits of a cache that have a card: for all images, then of subjects, by key."""
    paths = [(kind, p) for kind in KINDS for p in sorted(cache.glob(f"{kind}/*/*.sealed"))]
    for kind, path in paths:
        body = store.read_sealed(path, f"{kind}/{path.stem}")
        entry = {} if body is None else load(body)
        if CARD not in entry:
            continue
        card, (forward, backward) = as_json(entry.pop(CARD)), entry.pop(COST).tolist()
        if why := _fault(card):
            log.warning("%s is left out: %s", path, why)
        else:
            yield Fit(card, entry, (forward, backward))


def find(cache: Path, prefix: str) -> Fit:
    """Return the fit whose key begins so.

    Raises:
        BadInput: none does, or several do.
    """
    known = list(every(cache))
    found = [fit for fit in known if fit.key.startswith(prefix)]
    if len(found) > 1:
        lines = "; ".join(fit.line for fit in found)
        raise BadInput(
            f"{prefix!r} is the beginning of {len(found)} fits: {lines}; give more of it"
        )
    if not found:
        raise unknown("fit", prefix, [fit.key[:12] for fit in known])
    return found[0]


def write(fit: Fit, path: Path) -> str:
    """Write a fit as one safetensors file; return the file's sha256.

    Raises:
        OSError: it cannot be written.
    """
    card = {name: value for name, value in fit.card.items() if name != IMPORTED}
    words = {METADATA: json.dumps({**card, COUNTS: list(fit.cost)})}
    return store.write(path, save(dict(fit.tensors), words))


def take(path: Path, cache: Path) -> Fit:
    """Put an exported fit into a cache, and return it.

    Raises:
        BadInput: the file is no exported fit.
        OSError: it cannot be read, or the cache cannot be written to.
    """
    data = path.read_bytes()
    card, tensors = _read(data, path)
    forward, backward = card.pop(COUNTS, (0, 0))
    card[IMPORTED] = hashlib.sha256(data).hexdigest()
    fit = Fit(card, tensors, (forward, backward))
    Cache(cache).put(fit.kind, fit.key, {**tensors, CARD: as_tensor(card)}, fit.cost)
    return fit


def _read(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return card and tensors of an exported file."""
    hint = "give a file that `latentbench fits export` has written"
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        card = json.loads(header["__metadata__"][METADATA])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no exported fit ({type(error).__name__}); {hint}") from error
    if why := _fault(card):
        raise BadInput(f"{path} is no exported fit: {why}; {hint}")
    return card, tensors


def _are_counts(counts: Any) -> bool:
    return fits(counts, list[Annotated[int, between(0, 2**63 - 1)]]) and len(counts) == 2


def _fault(card: Any) -> str | None:
    """Return what is wrong with a card in words, or None."""
    if not isinstance(card, dict):
        return f"its card is {type(card).__name__}, not an object"
    if lacking := [name for name in FIELDS if name not in card]:
        return f"its card lacks {', '.join(lacking)}"
    if in_words(card) != card:
        return "its card holds NaN or infinity"
    if not (isinstance(card["key"], str) and re.fullmatch("[0-9a-f]{64}", card["key"])):
        return "its key is no sha256"  # it names a file of the cache
    parts = [card[group] for group in ("method", "model", "dataset")]
    if not all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in parts):
        return "its card does not name method, model and dataset"
    counts = card.get(COUNTS, [0, 0])
    if not (fits(card["edits"], list[str]) and fits(card["seed"], Seed) and _are_counts(counts)):
        return f"its card's edits, seed or {COUNTS} are of a wrong type or size"
    kind = card.get("kind", KIND)
    if kind not in KINDS:  # it names a folder of the cache
        return f"its kind is {kind!r}, not one of {', '.join(KINDS)}"
    if kind == SUBJECT_KIND and not fits(card.get("subjects"), list[str]):
        return "its card does not list the subjects that it was learned of"
    return None
