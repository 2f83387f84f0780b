"""Command line of the zoo: ``python -m latentbench.zoo {list,verify,train,measure}``."""

import argparse
import datetime
import functools
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentbench.errors import BadInput, LatentbenchError, unknown
from latentbench.zoo import training, weights
from latentbench.zoo.judges import JUDGES, load_judge
from latentbench.zoo.measures import judge_figures
from latentbench.zoo.recipes import (
    faces_ddpm,
    faces_diffae,
    faces_diffusevae,
    faces_gan,
    faces_ldm,
    faces_vae,
    judges,
    pairs,
)


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
    make: Callable[[Path, torch.device, Path, float], dict[str, object]]
    measure: Callable[[Path, torch.device, int], dict[str, object]]


def _measure_judge(name: str, folder: Path, device: torch.device, n: int) -> dict[str, object]:
    return judge_figures(load_judge(name, device), n / 2000)


def _measure_pair(name: str, folder: Path, device: torch.device, n: int) -> dict[str, object]:
    return pairs.measure(name, device, n)


def _measure_generator(
    measure: Callable[..., dict[str, object]], folder: Path, device: torch.device, n: int
) -> dict[str, object]:
    return measure(folder, [load_judge(name, device) for name in JUDGES], device, n)


def _judge(name: str) -> Recipe:
    make = functools.partial(judges.make, name)
    measure = functools.partial(_measure_judge, name)
    return Recipe(judges.VERSION, judges.PHASES[name][0].plan.steps, make, measure)


def _pair(name: str) -> Recipe:
    make = functools.partial(pairs.make, name)
    measure = functools.partial(_measure_pair, name)
    return Recipe(pairs.VERSION, pairs.PLANS[name].steps, make, measure)


def _generator(module: Any) -> Recipe:
    measure = functools.partial(_measure_generator, module.measure)
    return Recipe(module.VERSION, module.PLAN.steps, module.make, measure)


RECIPES: dict[str, Recipe] = {
    "zoo1": _judge("zoo1"),
    "zoo2": _judge("zoo2"),
    "clip1": _pair("clip1"),
    "clip2": _pair("clip2"),
    faces_ddpm.NAME: _generator(faces_ddpm),
    faces_ldm.NAME: _generator(faces_ldm),
    faces_vae.NAME: _generator(faces_vae),
    faces_gan.NAME: _generator(faces_gan),
    faces_diffae.NAME: _generator(faces_diffae),
    faces_diffusevae.NAME: _generator(faces_diffusevae),
}


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def hardware(device: torch.device) -> str:
    """One line on where a model was trained."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    text = json.dumps(card, indent=2) + "\n"
    training.write_atomically(
        folder / weights.CARD, lambda path: path.write_text(text, encoding="utf-8")
    )


def train(name: str, steps: int | None, device: torch.device, checkpoints: Path) -> Path:
    """Train one model from its recipe, or go on training, and write its folder and card.

    Args:
        name: A recipe.
        steps: Steps of the main run; other stages shrink or grow with it. None for the recipe's.
        device: Where to train.
        checkpoints: Folder of the checkpoints; delete a model's to start afresh.

    Returns:
        The model's folder.
    """
    recipe, folder = _recipe(name), weights.WEIGHTS_ROOT / name
    if steps is not None and steps < 1:
        raise BadInput(f"--steps must be at least 1, got {steps}")
    share = 1.0 if steps is None else steps / recipe.steps
    folder.mkdir(parents=True, exist_ok=True)
    told = recipe.make(folder, device, checkpoints, share)
    option = "" if steps is None else f" --steps {steps}"
    card: dict[str, Any] = {
        "name": name,
        "recipe": f"python -m latentbench.zoo train {name}{option}",
        "recipe_version": recipe.version,
        "training": told,
        "hardware": hardware(device),
        "date": datetime.date.today().isoformat(),
        "precision": "float16 weights; trained in float32 with bfloat16 autocast",
        "sha256": weights.hashes(folder),
        "measured": {},
    }
    _write_card(folder, card)
    return folder


def measure(name: str, device: torch.device, n: int) -> dict[str, Any]:
    """Measure a model's quality again and put the figures on its card."""
    recipe = _recipe(name)
    weights.verify(name)
    figures = recipe.measure(weights.folder(name), device, n)
    _write_card(weights.folder(name), weights.card(name) | {"measured": figures})
    return figures


def show() -> None:
    """Print one line per embedded model."""
    for name in weights.names():
        card = weights.card(name)
        size = sum((weights.folder(name) / file).stat().st_size for file in card["sha256"])
        print(f"{name:12} {size / 2**20:6.2f} MiB  {card['date']}  {card['hardware']}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="latentbench zoo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="name the embedded models")
    check = verbs.add_parser("verify", help="compare the files with their cards")
    check.add_argument("name", nargs="?", help="one model; all of them if left out")
    make = verbs.add_parser("train", help="train a model from its recipe, or go on training")
    make.add_argument("--steps", type=int, help="steps of the main run (default: the recipe's)")
    make.add_argument("--checkpoints", type=Path, default=training.CHECKPOINTS,
                      help="folder of the checkpoints (default: .checkpoints)")  # fmt: skip
    figures = verbs.add_parser("measure", help="measure a model and put the figures on its card")
    figures.add_argument("--n", type=int, default=2000, help="number of faces (default 2000)")
    for verb in (make, figures):
        verb.add_argument("name", help=f"one of {', '.join(RECIPES)}")
        verb.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    args = _parser().parse_args(argv)
    try:
        if args.verb == "list":
            show()
        elif args.verb == "verify":
            for name in [args.name] if args.name else weights.names():
                weights.verify(name)
                print(f"{name}: ok")
        elif args.verb == "train":
            device = training.best_device(args.device)
            print(train(args.name, args.steps, device, args.checkpoints))
        else:
            device = training.best_device(args.device)
            print(json.dumps(measure(args.name, device, args.n), indent=2))
    except LatentbenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
