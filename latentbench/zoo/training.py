"""One small training loop for every network of the zoo.

Everything random in a step comes from a generator seeded by (seed, step), and the data of a step
are a function of the step, so a run that was killed goes on as if it had not been.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from latentbench import store
from latentbench.data import faces

CHECKPOINTS = Path(__file__).resolve().parents[2] / ".checkpoints"

Loss = Callable[[int, torch.Generator], Float[Tensor, ""]]
Network = TypeVar("Network", bound=nn.Module)
Data = TypeVar("Data")


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        name: Folder of its checkpoints.
        steps: Optimiser steps; the learning rate is a function of step / steps.
        batch: Images per step.
        lr: Peak learning rate of AdamW.
        flat: Share of the steps before the rate falls; it ends at 0.
        decay: ``"linear"`` or ``"cosine"``.
        seed: Seed of the weights and, with the step, of everything random in training.
        ema: Decay of the exponential moving average of the weights.
        clip: Largest gradient norm.
        weight_decay: AdamW's.
        betas: AdamW's.
        save_every: Steps between checkpoints.
        fresh: First index of the generator or judge split that is trained on.
    """

    name: str
    steps: int
    batch: int
    lr: float
    flat: float = 0.6
    decay: str = "linear"
    seed: int = 0
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    save_every: int = 100
    fresh: int = 0

    @property
    def images(self) -> int:
        """Images seen in the whole run."""
        return self.steps * self.batch


def shortened(plan: Plan, share: float) -> Plan:
    """The same plan with its steps multiplied by a share, at least 2 steps."""
    return dataclasses.replace(plan, steps=max(2, round(plan.steps * share)))


def facts(plan: Plan, split: str, seconds: float, count: int | None = None) -> dict[str, object]:
    """What a card says about one training run.

    Args:
        plan: The plan that was followed.
        split: The split of the faces.
        seconds: Wall time over all calls.
        count: Number of distinct faces; None if each step had new ones.
    """
    last = plan.fresh + (plan.images if count is None else count) - 1
    return {
        "split": split, "indices": [plan.fresh, last], "steps": plan.steps, "batch": plan.batch,
        "learning_rate": plan.lr, "seed": plan.seed, "seconds": round(seconds),
    }  # fmt: skip


def learning_rate(plan: Plan, step: int) -> float:
    """Warm-up over 2 % of the steps, flat, then a fall to 0 at the last step."""
    warm = max(1, plan.steps // 50)
    if step < warm:
        return plan.lr * (step + 1) / warm
    left = (plan.steps - step) / max(1.0, plan.steps * (1 - plan.flat))
    if left >= 1:
        return plan.lr
    return plan.lr * (left if plan.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator for one step: the same whatever came before."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) & 0x7FFFFFFF)


def best_device(name: str = "auto") -> torch.device:
    """The device asked for; ``"auto"`` takes a GPU when there is one."""
    return torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    )


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware has it: 1.5 to 3 times as fast; without, ten times as slow."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


class Average:
    """Exponential moving average of a module's weights and buffers; integers are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; early steps move faster, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[key].lerp_(value, 1 - decay)
            else:
                self.weights[key].copy_(value)


def _flatten(
    module: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    tensors = {f"model/{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"ema/{k}": v for k, v in average.weights.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{k}": v for k, v in state.items()}
    return {key: value.detach().contiguous().clone() for key, value in tensors.items()}


def _unflatten(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    module.load_state_dict(under("model/"))
    for key, value in under("ema/").items():
        average.weights[key].copy_(value)
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in under("optimizer/").items():
        number, field = key.split("/")
        states.setdefault(int(number), {})[field] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _save(
    path: Path,
    step: int,
    seconds: float,
    module: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
) -> None:
    tensors = _flatten(module, average, optimizer)
    meta = {"step": str(step), "seconds": str(seconds)}
    store.write(path, safetensors.torch.save(tensors, meta))


def _load(
    path: Path, module: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    with safetensors.safe_open(path, "pt") as file:
        meta = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    _unflatten(tensors, module, average, optimizer)
    return int(meta["step"]), float(meta["seconds"])


@torch.enable_grad()
def train(
    module: nn.Module,
    loss: Loss,
    plan: Plan,
    *,
    root: Path = CHECKPOINTS,
    stop_after: int | None = None,
    report: Callable[[str], None] = print,
) -> float:
    """Train a module where it is, going on from its last checkpoint; it ends with averaged weights.

    Args:
        module: Its parameters are trained.
        loss: ``loss(step, generator)`` gives the scalar loss of one step; all randomness must come
            from the generator, all data from the step.
        plan: Steps, rate, seed.
        root: Folder of the checkpoints.
        stop_after: Stop after this many steps in this call (the schedule is not changed).
        report: Called with a progress line now and then.

    Returns:
        The seconds spent so far over all calls.

    Raises:
        FloatingPointError: The loss is not finite; the last checkpoint is kept.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), plan.lr, betas=plan.betas, weight_decay=plan.weight_decay
    )
    average, path = Average(module, plan.ema), root / plan.name / "checkpoint.safetensors"
    start, spent = _load(path, module, average, optimizer)
    end = plan.steps if stop_after is None else min(plan.steps, start + stop_after)
    begun, shown = time.perf_counter(), 0.0
    module.train()
    for step in range(start, end):
        value = _step(module, loss, plan, step, optimizer)
        average.update(module, step)
        seconds = spent + time.perf_counter() - begun
        if seconds - shown > 15 or step + 1 == end:
            shown = seconds
            report(f"{plan.name}: step {step + 1}/{plan.steps}  loss {value:.4f}  {seconds:.0f} s")
        if (step + 1) % plan.save_every == 0 or step + 1 == end:
            _save(path, step + 1, seconds, module, average, optimizer)
    module.load_state_dict(average.weights)
    return spent + time.perf_counter() - begun


def fit(
    network: Callable[[], Network],
    loss: Callable[[Network, Plan, Data], Loss],
    plan: Plan,
    data: Data,
    *,
    device: torch.device,
    root: Path,
    share: float,
    count: int | None,
) -> tuple[Network, dict[str, object]]:
    """Make a network by its plan's seed and train it, or go on training it.

    Args:
        network: Makes it.
        loss: ``loss(network, plan, data)`` gives the loss of its steps.
        plan: The whole plan.
        data: What it is trained on.
        device: Where to train.
        root: Folder of the checkpoints.
        share: Factor on the steps.
        count: Number of distinct faces; None if each step had new ones.

    Returns:
        The network with averaged weights, and the facts for the card.
    """
    plan = shortened(plan, share)
    torch.manual_seed(plan.seed)
    module = network().to(device)
    seconds = train(module, loss(module, plan, data), plan, root=root)
    return module, facts(plan, "generator", seconds, count)


def _step(
    module: nn.Module, loss: Loss, plan: Plan, step: int, optimizer: torch.optim.Optimizer
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(plan, step)
    value = loss(step, step_generator(plan.seed, step))
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"{plan.name}: loss is {value.item()} at step {step}; lower lr (now {plan.lr}) "
            "and start again from the last checkpoint"
        )
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(module.parameters(), plan.clip)
    optimizer.step()
    return value.item()


# ---------------------------------------------------------------- data


def batch_factors(plan: Plan, split: str, step: int, device: torch.device) -> Float[Tensor, "b f"]:
    """Factors of the faces of one step: each step has faces that no other step has."""
    first = plan.fresh + step * plan.batch
    return faces.sample_factors(split, torch.arange(first, first + plan.batch, device=device))


def to_uint8(images: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """[-1, 1] to 0..255, rounded."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """0..255 to [-1, 1]."""
    return images.float() / 127.5 - 1


def save_half(folder: Path, **parts: Any) -> None:
    """Write networks of diffusers or transformers in float16, each into the folder of its name."""
    for name, part in parts.items():
        part.half().save_pretrained(folder / name)


def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float16, ready to be saved."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in weights.items()
    }


def save_network(folder: Path, network: nn.Module, config: Mapping[str, object]) -> None:
    """Write config.json and float16 model.safetensors, as `latentbench.zoo.loading` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    state = half(network.state_dict())
    store.write(folder / "model.safetensors", safetensors.torch.save(state))


def stratified_uniforms(count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Uniforms in [0, 1), one per image, spread evenly over the batch (less noisy losses)."""
    order = torch.randperm(count, generator=generator)
    return (order + torch.rand(count, generator=generator)) / count


def plain_attention(module: Any) -> Any:
    """Put diffusers' plain attention processor in place: its backward is faster on a CPU."""
    for part in module.modules():
        if hasattr(part, "set_processor"):
            part.set_processor(AttnProcessor())
    return module
