"""Edge maps of images: what a sketch or a ControlNet of edges goes by."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad


def edges(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return each image's edges in [0, 1], three equal channels: 1 at its strongest edge.

    The value is the length of Sobel's gradient of the mean over the channels, divided by its
    largest value in the image; an image of one colour has no edges, and gives 0.

    Example:
        >>> halves = torch.ones(1, 3, 4, 6)
        >>> halves[..., :3] = -1
        >>> edges(halves)[0, 0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    across = torch.outer(smooth, slope)
    kernels = torch.stack([across, across.mT])[:, None].to(images)
    grey = pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    length = conv2d(grey, kernels).norm(dim=1, keepdim=True)
    largest = length.amax((1, 2, 3), keepdim=True)
    return (length / torch.where(largest > 0, largest, 1)).expand(-1, 3, -1, -1).contiguous()
