"""Components of a checkpoint: loaded whole, as their configs ask, or refused by file and tensor.

`from_pretrained` of diffusers and transformers draws a tensor that a file lacks at random, and
takes integers for weights, with a warning at most. Here both are errors, as are tensors that the
network does not have or has in another shape, NaN and infinity.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from hydra.utils import get_class
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from latentbench import weights as zoo
from latentbench.errors import MissingWeights
from latentbench.models.loading_bars import hide_loading_bars

LISTED = 4  # tensors that a message names of each kind


def resolve(path: str) -> str:
    """Return the folder of an embedded model (verified), a local folder, or the hub id as it is."""
    if path in zoo.names():
        zoo.verify(path)
        return str(zoo.folder(path))
    return path


def read_scheduler(cls: str, path: str) -> Any | None:
    """Return a checkpoint's scheduler and leave its weights alone; None where it is not on disk."""
    folder = str(zoo.folder(path)) if path in zoo.names() else path
    options = {} if Path(folder).is_dir() else {"local_files_only": True}
    try:
        return load_component(cls, folder, "scheduler", **options)
    except MissingWeights:
        return None


def load_component(cls: Any, folder: str, subfolder: str, **options: Any) -> Any:
    """Load a component without weights: a scheduler, a tokenizer, an image processor.

    Args:
        cls: its class, or the class's full name: imported now, since diffusers takes seconds.
        folder: local folder or hub id.
        subfolder: where it is in there; in old checkpoints it is the root.
        options: for `from_pretrained`.

    Raises:
        MissingWeights: it is not on disk and cannot be fetched, or is damaged; says what to do.
    """
    cls = get_class(cls) if isinstance(cls, str) else cls
    found, place = _from_pretrained(cls, folder, subfolder, options)
    betas = getattr(found, "betas", None)  # of a scheduler
    if isinstance(betas, Tensor) and not is_finite(betas):
        raise unfit(cls.__name__, _root(folder, place) or folder, ["its betas are not finite"])
    return found


def load_network(cls: Any, folder: str, subfolder: str, dtype: torch.dtype) -> Any:
    """Load a network that its file fills to the last tensor.

    Only headers are read in addition: names and dtypes of the tensors in the files.

    Args:
        cls: a class of diffusers' or transformers' networks, or its full name.
        folder: local folder or hub id.
        subfolder: where it is in there; in old checkpoints it is the root.
        dtype: what its weights are cast to.

    Raises:
        MissingWeights: it is not on disk and cannot be fetched, or does not fit its config; names
            file and tensors and says what to do.
    """
    from diffusers import ModelMixin  # late: takes a second to import

    cls = get_class(cls) if isinstance(cls, str) else cls
    options: dict[str, Any] = {
        "torch_dtype": dtype, "use_safetensors": True, "output_loading_info": True,
    }  # fmt: skip
    if not issubclass(cls, ModelMixin):
        options["ignore_mismatched_sizes"] = True  # they come back by name, and are refused
    (network, report), place = _from_pretrained(cls, folder, subfolder, options)
    root = _root(folder, place)
    stored = None if root is None else stored_tensors(root, issubclass(cls, ModelMixin))
    if root is None or stored is None:
        raise MissingWeights(
            f"{cls.__name__} was loaded from {subfolder}/ of {folder!r}, but its file is not to be "
            f"found, so it cannot be checked; fetch the checkpoint: hf download {folder}"
        )
    problems = _misfits(network, report, stored)
    if problems:
        raise unfit(cls.__name__, stored.place, problems)
    return network


def unfit(name: str, place: Path | str, problems: Iterable[str]) -> MissingWeights:
    """Return the error for a component that cannot be used as it is."""
    return MissingWeights(
        f"{name} cannot be used as it is in {place}: {'; '.join(problems)}. Restore this file, or "
        f"fetch the checkpoint again; the config.json next to it must describe the same network"
    )


def is_finite(value: Tensor) -> bool:
    """Return whether a tensor of floats has neither NaN nor infinity; reads it once."""
    return not value.numel() or all(bool(end.isfinite()) for end in torch.aminmax(value))


def listed(names: Iterable[str]) -> str:
    """Return the first names in order, and how many there are more."""
    names = sorted(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def missing_and_extra(missing: Collection[str], extra: Collection[str], who: str) -> list[str]:
    """Return in words what a file lacks, and what it holds that `who` does not know."""
    problems = [f"it lacks {listed(missing)}"] if missing else []
    return problems + ([f"{who} does not know its {listed(extra)}"] if extra else [])


class Stored(NamedTuple):
    """The tensors of a component's files.

    Args:
        place: the file, or the index of several.
        dtypes: safetensors' word for the dtype of each tensor: "F16", "I64", ...
    """

    place: Path
    dtypes: Mapping[str, str]

    def floating(self, name: str) -> bool:
        """Return whether a tensor is of floating-point numbers."""
        return self.dtypes[name].startswith(("F", "BF"))


def stored_tensors(root: Path, of_diffusers: bool) -> Stored | None:
    """Return what the headers of a component's files say, or None where there are no files.

    Args:
        root: the component's folder.
        of_diffusers: whose names the files have; diffusers prefers several files to one that is
            there as well, transformers one to several.

    Raises:
        MissingWeights: a file is damaged, or one of several does not hold what the index says.
    """
    stem = "diffusion_pytorch_model" if of_diffusers else "model"
    one, index = root / f"{stem}.safetensors", root / f"{stem}.safetensors.index.json"
    order = [index, one] if of_diffusers else [one, index]
    place = next((path for path in order if path.is_file()), None)
    if place is None:
        return None
    if place == one:
        return Stored(one, _header(one))
    parts, dtypes = _parts(index), {}
    for file, names in parts.items():
        header = _header(root / file)
        problems = missing_and_extra(names - header.keys(), header.keys() - names, index.name)
        if problems:
            raise unfit("a part of several", root / file, problems)
        dtypes |= header
    return Stored(index, dtypes)


def _header(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_slice(name).get_dtype() for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise unfit("a file of weights", file, [f"it cannot be read ({error})"]) from error


def _parts(index: Path) -> dict[str, set[str]]:
    """Return the tensors of each file that an index names."""
    try:
        pairs = json.loads(index.read_bytes())["weight_map"].items()
        parts: dict[str, set[str]] = {}
        for name, file in pairs:
            parts.setdefault(Path(file).name, set()).add(name)
        return parts
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unfit("an index of files", index, [f"it cannot be read ({error})"]) from error


def _misfits(network: nn.Module, report: Mapping[str, Any], stored: Stored) -> list[str]:
    """Return what does not fit between a network and its files, in words."""
    state, buffers = network.state_dict(), dict(network.named_buffers())
    made = [name for name in buffers if name not in state]  # by the class itself, never read
    whole = [name for name, value in buffers.items() if not value.is_floating_point()]
    extra = [name for name in report["unexpected_keys"] if not _is_one_of(name, made)]
    problems = missing_and_extra(report["missing_keys"], extra, "config.json")
    problems += [
        f"{name} is {list(found)} where config.json asks for {list(asked)}"
        for name, found, asked in sorted(report["mismatched_keys"])[:LISTED]
    ]
    integers = [
        f"{name} ({kind})" for name, kind in stored.dtypes.items()
        if not stored.floating(name) and not _is_one_of(name, whole)
    ]  # fmt: skip
    if integers:
        problems.append(f"integers where the network has floats: {listed(integers)}")
    floats = [n for n in whole if n in stored.dtypes and n in state and stored.floating(n)]
    if floats:
        problems.append(f"floats where the network has integers: {listed(floats)}")
    if not problems:
        wild = [n for n, v in state.items() if v.is_floating_point() and not is_finite(v)]
        problems += [f"NaN or infinity in {listed(wild)}"] if wild else []
    return problems


def _is_one_of(name: str, others: Iterable[str]) -> bool:
    """Return whether a file's name is a network's, whose modules may be wrapped in one more."""
    return any(f".{name}".endswith(f".{o}") or f".{o}".endswith(f".{name}") for o in others)


def _from_pretrained(
    cls: Any, folder: str, subfolder: str, options: Mapping[str, Any]
) -> tuple[Any, str]:
    """Return what a class loads, and where: the subfolder or, in old checkpoints, the root."""
    hide_loading_bars()
    local, places = Path(folder), (subfolder, "")
    if local.is_dir():
        places = (subfolder,) if (local / subfolder).is_dir() else ("",)
    errors = []
    for place in places:
        try:
            return cls.from_pretrained(folder, subfolder=place, **options), place
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # of any kind: their configs are read without checks
            errors.append(error)
    root = _root(folder, places[0])
    if root is not None and "use_safetensors" in options:
        for of_diffusers in (True, False):
            stored_tensors(root, of_diffusers)  # names the file that is damaged
    there = root is not None and any(root.glob("*.json"))
    words = (str(errors[0]).splitlines() or [type(errors[0]).__name__])[0]
    if there and not isinstance(errors[0], OSError):
        words = words.partition(" If you want to instead")[0].rstrip(".")
        raise unfit(cls.__name__, root or folder, [words]) from errors[0]
    raise MissingWeights(
        f"cannot load {cls.__name__} from {subfolder}/ of {folder!r}: "
        f"{words} Weights are read from .safetensors files only; "
        f"docs/zoo.md says how to make them of .bin files. Give a local folder "
        f"(model.path=/data/model), or fetch it on a machine with network: "
        f"hf download {folder} (a gated one after hf auth login)"
    ) from errors[0]


def _root(folder: str, place: str) -> Path | None:
    """Return the folder of a component on disk, in the hub's cache where it is of the hub."""
    if Path(folder).is_dir():
        return Path(folder) / place
    config = f"{place}/config.json" if place else "config.json"
    try:
        found = try_to_load_from_cache(folder, config)
    except HFValidationError:  # a path that is not there is no hub id
        return None
    return Path(found).parent if isinstance(found, str) else None
