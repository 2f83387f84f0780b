"""Command line of the zoo: ``latentbench zoo {list,show,verify,train,refine,measure}``.

Imports are late: to list the models and to compare files needs no torch.
"""

import argparse
import datetime
import functools
import importlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentbench import command, store, weights
from latentbench.annotations import fault
from latentbench.command import JSON, Answer, count, folder_to_write, told
from latentbench.config import Device as DeviceName
from latentbench.errors import BadInput, LatentbenchError, MissingWeights, unknown

Device = Any  # a torch.device
CHECK_N = 16  # images behind the figures that `verify` measures again
TOLERANCE = 0.05  # of a figure's size; and one image of those that were counted
CARD_JUDGES = ("zoo1", "zoo2")  # whose figures the cards of models hold
HEADLINE = ("psnr_db", "ratio", "mean", "recall_at_1_image_to_text")


@dataclass(frozen=True)
class Recipe:
    """How one embedded model is made and measured.

    Attributes:
        version: Raised when the recipe would give other weights.
        steps: Optimiser steps of its main training run.
        make: ``make(folder, device, checkpoints, share)`` trains, writes the folder, gives facts.
        measure: ``measure(folder, device, n)`` gives the figures of the card.
    """

    version: int
    steps: int
    make: Callable[[Path, Device, Path, float], dict[str, object]]
    measure: Callable[[Path, Device, int], dict[str, object]]


def _judge(name: str) -> Recipe:
    from latentbench.zoo.judges import JUDGES, load_judge
    from latentbench.zoo.measures import judge_figures
    from latentbench.zoo.recipes import judges

    def measure(folder: Path, device: Device, n: int) -> dict[str, object]:
        others = [load_judge(other, device) for other in JUDGES if other != name]
        return judge_figures(load_judge(name, device), others, n / 2000)

    make = functools.partial(judges.make, name)
    return Recipe(judges.VERSION, judges.PHASES[name][0].plan.steps, make, measure)


def _pair(name: str) -> Recipe:
    from latentbench.zoo.recipes import pairs

    def measure(folder: Path, device: Device, n: int) -> dict[str, object]:
        return pairs.measure(name, device, n)

    make = functools.partial(pairs.make, name)
    return Recipe(pairs.VERSION, pairs.PLANS[name].steps, make, measure)


def _classifier(name: str) -> Recipe:
    from latentbench.zoo.recipes import classifiers

    def measure(folder: Path, device: Device, n: int) -> dict[str, object]:
        return classifiers.measure(name, device, n)

    make = functools.partial(classifiers.make, name)
    return Recipe(classifiers.VERSION, classifiers.PLAN.steps, make, measure)


def _generator(name: str) -> Recipe:
    """Return the recipe of a module of the model's name: VERSION, PLAN, make and measure."""
    from latentbench.zoo.judges import load_judge

    module = importlib.import_module(f"latentbench.zoo.recipes.{name}")

    def measure(folder: Path, device: Device, n: int) -> dict[str, object]:
        return module.measure(folder, [load_judge(j, device) for j in CARD_JUDGES], device, n)

    return Recipe(module.VERSION, module.PLAN.steps, module.make, measure)


def _further_ldm(name: str) -> Recipe:
    from latentbench.zoo.recipes import further_ldms

    made = functools.partial(further_ldms.make, name)
    return replace(_generator("faces_ldm"), version=further_ldms.VERSION, make=made,
                   steps=further_ldms.DESIGNS[name].denoiser.steps)  # fmt: skip


RECIPES: dict[str, Callable[[str], Recipe]] = {  # one line per model
    "zoo1": _judge,
    "zoo2": _judge,
    "zoo3": _judge,
    "clip1": _pair,
    "clip2": _pair,
    "attr1": _classifier,
    "faces_ddpm": _generator,
    "faces_ldm": _generator,
    "faces_ldm_f8": _further_ldm,
    "faces_ldm_f4c16": _further_ldm,
    "faces_vae": _generator,
    "faces_gan": _generator,
    "faces_diffae": _generator,
    "faces_infodiffusion": _generator,
    "faces_causal": _generator,
    "faces_soda": _generator,
    "faces_diffusevae": _generator,
    "faces_dit": _generator,
    "faces_mmdit": _generator,
    "faces_lcm": _generator,
    "faces_smooth": _generator,
    "faces_lines": _generator,
    "faces_strips": _generator,
}


def recipe(name: str) -> Recipe:
    """Return the recipe of an embedded model."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name](name)


def hardware(device: Device) -> str:
    """One line on where a model was trained."""
    import torch

    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    text = json.dumps(card, indent=2) + "\n"
    store.write(folder / weights.CARD, text.encode())


def train(name: str, steps: int | None, device: Device, checkpoints: Path) -> Path:
    """Train one model from its recipe, or go on training, and write its folder and card.

    Args:
        name: A recipe.
        steps: Steps of the main run; other stages shrink or grow with it. None for the recipe's.
        device: Where to train.
        checkpoints: Folder of the checkpoints; delete a model's to start afresh.

    Returns:
        The model's folder.
    """
    made_by, folder = recipe(name), weights.WEIGHTS_ROOT / name
    share = 1.0 if steps is None else steps / made_by.steps
    folder.mkdir(parents=True, exist_ok=True)
    told = made_by.make(folder, device, checkpoints, share)
    option = "" if steps is None else f" --steps {steps}"
    card: dict[str, Any] = {
        "name": name,
        "recipe": f"python -m latentbench.zoo train {name}{option}",
        "recipe_version": made_by.version,
        "training": told,
        "hardware": hardware(device),
        "date": datetime.date.today().isoformat(),
        "precision": "float16 weights; trained in float32, with bfloat16 autocast where it is fast",
        "sha256": weights.hashes(folder),
        "measured": {},
    }
    _write_card(folder, card)
    return folder


def refine(name: str, steps: int | None, device: Device, checkpoints: Path) -> Path:
    """Train an embedded judge further on degraded images, and write its folder and card.

    The figures of the card go: all that judges read has changed.

    Args:
        name: A judge that has a refinement.
        steps: Steps; None for the recipe's.
        device: Where to train.
        checkpoints: Folder of the checkpoints; delete the refinement's to start afresh.

    Returns:
        The judge's folder.
    """
    from latentbench.zoo.recipes import judges

    if name not in judges.REFINEMENTS:
        raise unknown("judge to refine", name, judges.REFINEMENTS)
    plan, card, folder = judges.REFINEMENTS[name].plan, weights.card(name), weights.folder(name)
    if plan.name in card["training"]:
        raise BadInput(f"{name!r} was refined already ({card['date']}); to do so again, begin with "
                       f"`latentbench zoo train {name}`")  # fmt: skip
    told = judges.refine(
        name, folder, device, checkpoints, 1.0 if steps is None else steps / plan.steps
    )
    option = "" if steps is None else f" --steps {steps}"
    card |= {
        "recipe": f"{card['recipe']} && python -m latentbench.zoo refine {name}{option}",
        "training": card["training"] | told,
        "hardware": hardware(device),
        "date": datetime.date.today().isoformat(),
        "sha256": weights.hashes(folder),
        "measured": {},
    }
    card.pop("check", None)
    _write_card(folder, card)
    return folder


def measure(name: str, device: Device, n: int | None) -> dict[str, Any]:
    """Measure a model's quality again and put the figures on its card.

    Args:
        name: A model.
        device: Where to measure.
        n: Number of faces; None for the quick figures alone, which `verify` measures again.
    """
    weights.verify(name)
    own, folder = recipe(name), weights.folder(name)
    figures: dict[str, Any] = {} if n is None else {"measured": own.measure(folder, device, n)}
    figures["check"] = {"n": CHECK_N, "figures": own.measure(folder, device, CHECK_N)}
    _write_card(folder, weights.card(name) | figures)
    return figures


def leaves(figures: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every figure of a card with its path.

    Example:
        >>> list(leaves({"sets": [{"ratio": 2.0}]}))
        [('sets/0/ratio', 2.0)]
    """
    if isinstance(figures, Mapping):
        pairs = figures.items()
    elif isinstance(figures, list | tuple):
        pairs = enumerate(figures)
    else:
        yield path, figures
        return
    for key, value in pairs:
        yield from leaves(value, f"{path}/{key}" if path else str(key))


def verify(name: str, device: Device | None) -> None:
    """Compare a model's files with its card, then its quick figures, measured again.

    Args:
        name: A model.
        device: Where to measure; None to compare the files alone.

    Raises:
        MissingWeights: A file or a figure differs, or the card has no quick figures.
    """
    weights.verify(name)
    if device is None:
        return
    check = weights.card(name).get("check")
    if check is None:
        raise MissingWeights(f"the card of {name!r} has no quick figures; add them with "
                             f"`latentbench zoo measure {name} --quick`")  # fmt: skip
    found = recipe(name).measure(weights.folder(name), device, check["n"])
    wrong = differences(check["figures"], found, check["n"])
    if wrong:
        raise MissingWeights(
            f"{len(wrong)} figures of {name!r} are not those of its card: {'; '.join(wrong[:5])}; "
            f"restore the code or the weights, or measure again: latentbench zoo measure {name}"
        )


def differences(card: Any, found: Any, n: int) -> list[str]:
    """Return in words which figures differ by more than the tolerance.

    Args:
        card: the figures of the card.
        found: the same, measured now.
        n: images behind them; shares may differ by one image.
    """
    now, wrong = dict(leaves(found)), []
    for path, value in leaves(card):
        other = now.pop(path, None)
        if isinstance(value, int | float) and isinstance(other, int | float):
            near = abs(value - other) <= TOLERANCE * abs(value) + 1 / n
        else:
            near = value == other
        wrong += [] if near else [f"{path} {value} on the card, {other} now"]
    return wrong + [f"{path} is not on the card" for path in now]


def listing() -> list[dict[str, Any]]:
    """Return one row per embedded model: size, hash, date, and the card's main figures."""
    rows = []
    for name in weights.names():
        card = weights.card(name)
        size = sum((weights.folder(name) / file).stat().st_size for file in card["sha256"])
        main = {path: value for path, value in leaves(card["measured"])
                if path.split("/")[-1] in HEADLINE and "zoo2" not in path.split("/")}  # fmt: skip
        rows.append({"model": name, "bytes": size, "hash": weights.digest(name),
                     "date": card["date"], "figures": main})  # fmt: skip
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of the embedded models."""
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "MiB", "hash", "date", "figures (all: latentbench zoo show NAME)")
    for row in rows:
        figures = "\n".join(f"{path} {value}" for path, value in row["figures"].items())
        size = f"{row['bytes'] / 2**20:.2f}"
        table.add_row(row["model"], size, row["hash"][:12], row["date"], figures)
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="latentbench zoo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the embedded models: size, hash, main figures", parents=[JSON])
    card = verbs.add_parser("show", help="print a model's whole card", parents=[JSON])
    what = "compare files and figures with the cards"
    check = verbs.add_parser("verify", help=what, parents=[JSON])
    check.add_argument("name", nargs="?", help="one model; all of them if left out")
    check.add_argument("--hashes", action="store_true", help="compare the files alone")
    what = "train a model from its recipe, or go on training"
    make = verbs.add_parser("train", help=what, parents=[JSON])
    make.add_argument("--steps", type=count, help="steps of the main run (default: the recipe's)")
    what = "train a judge further, on degraded images"
    more = verbs.add_parser("refine", help=what, parents=[JSON])
    more.add_argument("--steps", type=count, help="optimiser steps (default: the recipe's)")
    what = "measure a model and put the figures on its card"
    figures = verbs.add_parser("measure", help=what, parents=[JSON])
    figures.add_argument("--n", type=count, default=2000, help="number of faces (default 2000)")
    figures.add_argument("--quick", action="store_true", help=f"only the {CHECK_N} faces of verify")
    for verb in (make, more):
        verb.add_argument(
            "--checkpoints", type=command.path, help="their folder (default: .checkpoints)"
        )
    for verb in (make, more, figures, card):
        verb.add_argument("name", help=f"one of {', '.join(RECIPES)}")
    for verb in (make, more, figures, check):
        verb.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    args = _parser().parse_args(argv)
    return told(lambda: _run(args), args.json)


def _run(args: argparse.Namespace) -> Answer:
    if args.verb == "list":
        rows = listing()
        return Answer(rows, lambda: show(rows))
    if args.verb == "show":
        return _as_json(weights.card(args.name))
    if args.verb == "verify":
        if args.name:
            weights.folder(args.name)  # refuses an unknown one
        return verify_all([args.name] if args.name else weights.names(), args)
    return _work(args)


def _as_json(document: Any) -> Answer:
    return Answer(document, lambda: print(json.dumps(document, indent=2)))


def verify_all(names: Sequence[str], args: argparse.Namespace) -> Answer:
    """Verify models one by one, saying how each went."""
    device, found = None if args.hashes else _device(args.device), {}
    for name in names:
        try:
            verify(name, device)
            found[name] = None
            print(f"{name}: ok", flush=True)
        except LatentbenchError as error:
            found[name] = str(error)
            print(error, file=sys.stderr, flush=True)
    models = [{"model": name, "wrong": wrong} for name, wrong in found.items()]
    return Answer(models, lambda: None, int(any(found.values())))


def _work(args: argparse.Namespace) -> Answer:
    from latentbench.zoo.training import CHECKPOINTS

    device = _device(args.device)
    if args.verb in ("train", "refine"):
        work = train if args.verb == "train" else refine
        checkpoints = folder_to_write(args.checkpoints or CHECKPOINTS, "--checkpoints")
        folder = work(args.name, args.steps, device, checkpoints)
        return Answer({"folder": str(folder)}, lambda: print(folder))
    return _as_json(measure(args.name, device, None if args.quick else args.n))


def _device(name: str) -> Device:
    """Return where to compute; loading draws no bars between the lines printed.

    Raises:
        BadInput: no such device.
    """
    wrong = fault("--device", name, DeviceName)
    if wrong is not None:
        raise BadInput(wrong)
    from latentbench.models.loading_bars import hide_loading_bars
    from latentbench.zoo.training import best_device

    hide_loading_bars()
    return best_device(name)


if __name__ == "__main__":
    sys.exit(main())
