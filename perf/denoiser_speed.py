"""What one evaluation of a denoiser costs, by batch and dtype, and what the sampling loop adds.

    python -m perf.denoiser_speed [--batches 1 4 16 64 256] [--steps 5] [--seconds 400] [--small]

Two denoisers: the embedded faces_ldm, and one of Stable Diffusion 1.5's shape at 512 px, with
random weights (`--small` shrinks it, to try the script without a GPU). Each row shows the time of
one evaluation of one image by the bare network, the share of what a large matrix product reaches
on the same device in the same dtype, and the time of the suite's loop over that of a bare loop: the
network and DDIM's update, nothing else. Both loops take turns; shown are the fastest of three. A
batch that does not fit is told, and so is what `--seconds` leaves no time for.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from latentbench.command import answered, count
from latentbench.conformance import toy
from latentbench.model import Condition
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.sampling.loop import generate, plain

TURNS = 3
SIDE = 8192  # rows of the matrix product on a GPU
WIDTH = 768  # of a prompt's embedding
SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 8, 8, 8),
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}


def save_sd15(folder: Path, sizes: Mapping[str, Any]) -> str:
    """Write a pipeline of Stable Diffusion 1.5's shape; its autoencoder and text tower are tiny.

    Args:
        folder: where it is written.
        sizes: settings of the denoiser that are not SD 1.5's.
    """
    torch.manual_seed(0)
    tokenizer = toy.word_tokenizer(folder)
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    unet: dict[str, Any] = {
        "sample_size": 64,
        "cross_attention_dim": WIDTH,
        **sizes,
    }
    vae: dict[str, Any] = {
        "block_out_channels": (8,) * 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
    }
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    parts = {
        "unet": UNet2DConditionModel(**unet),
        "vae": AutoencoderKL(latent_channels=4, **vae),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "scheduler": schedule,
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return str(folder)


def bare_loop(model: LatentDiffusion, x: Tensor, condition: Condition) -> Tensor:
    """Sample by the network and DDIM's update alone."""
    grid = model.grid()
    for i in range(grid.n):
        t = torch.full((len(x),), grid.timesteps[i].item(), device=x.device)
        eps = model.network(x, t, **condition.tensors, return_dict=False)[0]
        (a, s), (b, r) = ((float(grid.alpha[k]), float(grid.sigma[k])) for k in (i, i + 1))
        x = b / a * (x - s * eps) + r * eps
    return x


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of some work, and of what it left the GPU to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations a second of a large matrix product."""
    side = SIDE if device == "cuda" else SIDE // 8
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(seconds(lambda: a @ a) for _ in range(TURNS + 1))


def measure(model: LatentDiffusion, batch: int, peak: float) -> str:
    """Return a row: milliseconds an image, share of the peak, loop over bare loop."""
    x = torch.randn(batch, *model.latent_shape, device=model.device, dtype=model.dtype)
    told = model.condition(["a face"] * batch, batch)
    condition = told.map(lambda v: v.to(model.dtype) if v.is_floating_point() else v)
    counter = FlopCounterMode(display=False)
    with counter:
        model.network(x, torch.zeros(batch, device=x.device), **condition.tensors)
    loops = (
        lambda: bare_loop(model, x, condition),
        lambda: generate(model, x, plain(condition)),
    )
    for loop in loops:
        loop()
    bare, ours = (min(times) for times in zip(*_turns(loops), strict=True))
    evaluation = bare / model.grid().n
    share = counter.get_total_flops() / evaluation / peak
    return f"{1e3 * evaluation / batch:12.3f} {share:8.1%} {ours / bare:8.3f}"


def _turns(loops: tuple[Callable[[], object], ...]) -> list[list[float]]:
    return [[seconds(loop) for loop in loops] for _ in range(TURNS)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="perf.denoiser_speed", description=__doc__)
    parser.add_argument("--batches", type=count, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--steps", type=count, default=5, help="sampling steps of a loop")
    parser.add_argument("--seconds", type=count, default=400, help="when no further row is begun")
    parser.add_argument("--small", action="store_true", help="shrink the large denoiser")
    given = parser.parse_args()
    device, begun = "cuda" if torch.cuda.is_available() else "cpu", time.monotonic()
    torch.set_grad_enabled(False)
    print(
        f"{'denoiser':10} {'dtype':9} {'batch':>6} {'ms an image':>12} {'of peak':>8} {'loop':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        sd15 = save_sd15(Path(folder), SMALL if given.small else {})
        for dtype in ("bfloat16", "float32"):
            peak = rate(device, getattr(torch, dtype))
            for name, path in (("faces_ldm", "faces_ldm"), ("sd15", sd15)):
                model = LatentDiffusion(path=path, steps=given.steps, dtype=dtype, device=device)
                for batch in given.batches:
                    if time.monotonic() - begun > given.seconds:
                        row = "no time left: raise --seconds"
                    else:
                        try:
                            row = measure(model, batch, peak)
                        except torch.cuda.OutOfMemoryError:
                            row = "does not fit"
                    print(f"{name:10} {dtype:9} {batch:6} {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(answered(main))
