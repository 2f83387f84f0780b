"""Small ControlNets with random weights, for tests."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel


def save_controlnet(folder: Path, unet: Any, pixels: int) -> str:
    """Write a ControlNet for a U-Net and images of this many pixels; it does change the output."""
    torch.manual_seed(0)
    halvings = (pixels // unet.config.sample_size).bit_length()
    widths = (8, 16, 32, 64)[:halvings]
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    zeros = [made.controlnet_cond_embedding.conv_out, made.controlnet_mid_block]
    for layer in (*zeros, *made.controlnet_down_blocks):
        torch.nn.init.normal_(layer.weight, std=0.1)  # an untrained one adds nothing
    made.save_pretrained(folder)
    return str(folder)
