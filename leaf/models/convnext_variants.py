"""timm's ConvNeXt variants by name: widths, depths and stems. Does not import Keras."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """A ConvNeXt (Liu 2022, arXiv 2201.03545) or ConvNeXt V2 (Woo 2023, arXiv 2301.00808).

    Attributes:
        dims: channels of each stage.
        depths: blocks of each stage.
        stem: `patch`, one 4×4 convolution with stride 4, or `overlap`, two 3×3 convolutions with stride 2.
        stem_width: channels of the first convolution of an overlapping stem.
        v2: use global response normalization instead of layer scale.
        checkpoint: recommended timm checkpoint, used for `weights: imagenet`.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    stem: Literal["patch", "overlap"] = "patch"
    stem_width: int = 0
    v2: bool = False
    checkpoint: str = ""

    @property
    def parameters(self) -> int:
        """Number of parameters in the backbone."""
        return sum(map(math.prod, self.array_shapes().values()))

    @property
    def operations(self) -> int:
        """Number of operations in the backbone, including its input and rescaling."""
        return 12 + 7 * sum(self.depths) + (3 if self.stem == "overlap" else 0)

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight array by timm name, in Keras layout and order."""
        shapes: dict[str, tuple[int, ...]] = {}

        def add(name: str, *kernel: int, bias: int | None = None) -> None:
            shapes[f"{name}.weight"] = kernel
            shapes[f"{name}.bias"] = (kernel[-1] if bias is None else bias,)

        dims = self.dims
        if self.stem == "patch":
            add("stem.0", 4, 4, 3, dims[0])
            add("stem.1", dims[0])
        else:
            add("stem.0", 3, 3, 3, self.stem_width)
            add("stem.1", 3, 3, self.stem_width, dims[0])
            add("stem.2", dims[0])
        for stage, (dim, depth) in enumerate(zip(dims, self.depths, strict=True)):
            if stage:
                add(f"stages.{stage}.downsample.0", dims[stage - 1])
                add(f"stages.{stage}.downsample.1", 2, 2, dims[stage - 1], dim)
            for block in range(depth):
                name = f"stages.{stage}.blocks.{block}"
                add(f"{name}.conv_dw", 7, 7, dim, 1, bias=dim)
                add(f"{name}.norm", dim)
                add(f"{name}.mlp.fc1", dim, 4 * dim)
                if self.v2:
                    add(f"{name}.mlp.grn", 4 * dim)
                add(f"{name}.mlp.fc2", 4 * dim, dim)
                if not self.v2:
                    shapes[f"{name}.gamma"] = (dim,)
        add("head.norm", dims[-1])
        return shapes


_DEPTHS = {
    "atto": (2, 2, 6, 2),
    "femto": (2, 2, 6, 2),
    "pico": (2, 2, 6, 2),
    "nano": (2, 2, 8, 2),
    "tiny": (3, 3, 9, 3),
    "small": (3, 3, 27, 3),
    "base": (3, 3, 27, 3),
    "large": (3, 3, 27, 3),
    "xlarge": (3, 3, 27, 3),
    "huge": (3, 3, 27, 3),
}
_WIDTHS = {
    **{"atto": 40, "femto": 48, "pico": 64, "nano": 80, "tiny": 96, "small": 96, "base": 128, "large": 192},
    **{"xlarge": 256, "huge": 352},
}
_OVERLAP = {"atto": 24, "femto": 24, "pico": 32, "nano": 80}  # timm: `overlap_tiered`, and `overlap` for nano


def _variant(size: str, **settings: object) -> Variant:
    width = _WIDTHS[size]
    return Variant((width, 2 * width, 4 * width, 8 * width), _DEPTHS[size], **settings)  # type: ignore[arg-type]


VARIANTS = {
    # timm's convnext_atto; in leaf, `convnext_atto` is the network with a pooling stem, trained from scratch
    "convnext_atto_patch": _variant("atto", checkpoint="timm/convnext_atto.d2_in1k"),
    "convnext_femto": _variant("femto", checkpoint="timm/convnext_femto.d1_in1k"),
    "convnext_pico": _variant("pico", checkpoint="timm/convnext_pico.d1_in1k"),
    "convnext_nano": _variant("nano", checkpoint="timm/convnext_nano.in12k_ft_in1k"),
    **{
        f"convnext_{size}_ols": _variant(
            size, stem="overlap", stem_width=_OVERLAP[size], checkpoint=f"timm/convnext_{size}_ols.{tag}"
        )
        for size, tag in {"atto": "a2_in1k", "femto": "d1_in1k", "pico": "d1_in1k", "nano": "d1h_in1k"}.items()
    },
    **{
        f"convnextv2_{size}": _variant(size, v2=True, checkpoint=f"timm/convnextv2_{size}.fcmae_ft_in1k")
        for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    },
}

# Built by keras.applications, so its ImageNet weights remain available; timm checkpoints fit as well.
KERAS_VARIANTS = {f"convnext_{size}": _variant(size) for size in ("tiny", "small", "base", "large", "xlarge")}
