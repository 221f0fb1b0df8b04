"""Define leaf's ConvNeXt in plain PyTorch, for train_step.py.

The block follows the authors' reference code (facebookresearch/ConvNeXt). In channels-last memory, the permutation from
(N,C,H,W) to (N,H,W,C) is free, and layer normalization and both linear layers use the last axis.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

# dims, depths, initial layer scale, filters of the stem's first convolution (0: patches), as in
# leaf/models/convnext.py and keras.applications
KINDS = {
    "convnext_atto": ((40, 80, 160, 320), (2, 2, 6, 2), 0.1, 32),
    "convnext_tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 1e-6, 0),
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Norm(nn.LayerNorm):
    """Layer normalization over the channels of (N,C,H,W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise 7×7 convolution, normalization, two linear layers with GELU between them, layer scale and residual."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand, self.project = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(functional.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Map images (N,3,H,W) float32 0..255 to logits (N,2): backbone, pooling, BatchNorm, dropout, dense."""

    def __init__(self, dims: Sequence[int], depths: Sequence[int], scale: float, stem: int) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION).view(1, 3, 1, 1))
        stages: list[nn.Module] = [nn.Conv2d(3, dims[0], 4, 4)]
        if stem:
            widths = ((3, stem), (stem, dims[0]))
            convolutions = [(nn.Conv2d(*each, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for each in widths]
            stages = [module for each in convolutions for module in each]
        stages.append(Norm(dims[0], eps=1e-6))
        for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            if stage:
                stages += [Norm(dims[stage - 1], eps=1e-6), nn.Conv2d(dims[stage - 1], dim, 2, 2)]
            stages += [Block(dim, scale) for _ in range(depth)]
        self.backbone = nn.Sequential(*stages)
        normalization = nn.BatchNorm1d(dims[-1], eps=1e-3, momentum=0.01)
        self.head = nn.Sequential(
            nn.LayerNorm(dims[-1], eps=1e-6), normalization, nn.Dropout(0.1), nn.Linear(dims[-1], 2)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = (images - self.mean) / self.deviation
        return self.head(self.backbone(x).mean((2, 3)))


def build(name: str) -> ConvNeXt:
    """Return the named network with random weights in channels-last memory."""
    return ConvNeXt(*KINDS[name]).to(memory_format=torch.channels_last)
