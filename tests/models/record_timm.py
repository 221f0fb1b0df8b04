"""Record weights and features of small timm ConvNeXts with PyTorch: `python record_timm.py tests/models/timm`."""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

DIMS, DEPTHS = (8, 16, 24, 32), (1, 1, 2, 1)
MODELS = {"patch": "convnext_atto", "overlap": "convnext_atto_ols", "v2": "convnextv2_atto", "linear": "convnext_tiny"}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=generator)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    features = {}
    for name, timm_name in MODELS.items():
        model = timm.create_model(timm_name, dims=DIMS, depths=DEPTHS, num_classes=0).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            features[name] = model((images / 255 - mean) / std).numpy()
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors"
        )
    np.savez_compressed(folder / "features.npz", images=images.permute(0, 2, 3, 1).numpy().astype(np.uint8), **features)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
