"""Compare leaf's ConvNeXts with timm's: the same random weights must yield the same features.

    python benchmarks/timm_parity.py --timm-python PYTHON [--variants convnext_nano convnextv2_base …]

PYTHON is an interpreter with torch and timm. timm saves a model with random weights as safetensors, and leaf loads the
file. The table shows the largest absolute difference between the features, and whether the probabilities of a random
head are equal in ONNX Runtime and Keras.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from runs import keep_table, table_parser

COLUMNS = ["backbone", "parameters with head", "operations", "largest feature difference", "ONNX probabilities"]
SIZE = 64  # pixels
WRITE = """
import sys
import numpy, timm, torch
from safetensors.torch import save_file
name, size, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
model = timm.create_model(name, num_classes=0).eval()
images = torch.randint(0, 256, (2, 3, size, size))
mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_((0.3 if parameter.ndim == 1 else 0.02) * torch.randn(parameter.shape))
    features = model((images / 255 - mean) / std)
save_file({key: value.contiguous() for key, value in model.state_dict().items()}, f"{folder}/model.safetensors")
numpy.savez(f"{folder}/timm.npz", images=images.permute(0, 2, 3, 1).numpy(), features=features.numpy())
"""


def compare(name: str, timm_python: str, folder: Path) -> list[str]:
    """Return the table row of one backbone."""
    from leaf.models import onnx_export
    from leaf.models.backbones import BACKBONES
    from leaf.models.build import build_model
    from leaf.models.prediction import extract_features
    from leaf.store import sha256

    timm_name = name.removesuffix("_patch")
    subprocess.run([timm_python, "-c", WRITE, timm_name, str(SIZE), str(folder)], check=True)
    weights = folder / "model.safetensors"
    model = build_model(name, SIZE, weights=str(weights), weights_sha256=sha256(weights))
    expected = np.load(folder / "timm.npz")
    images = expected["images"].astype(np.float32)
    difference = np.abs(extract_features(model, images) - expected["features"]).max()
    metadata = {"classes": ["a", "b"], "threshold": None, "temperature": 1.0}
    why = onnx_export.write(model, metadata, images, folder / "model.onnx")  # compares the outputs with Keras (1e-4)
    size = [f"{model.count_params():,}", str(BACKBONES[name].operations)]
    row = [f"`{name}`", *size, f"{difference:.0e}", why or "equal within 1e-4"]
    print(*row, sep=" | ", flush=True)
    return row


def main() -> None:
    from leaf.models.backbones import KERAS_VARIANTS, VARIANTS

    parser = table_parser(__doc__)
    parser.add_argument("--timm-python", default=sys.executable)
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS, *KERAS_VARIANTS])
    options = parser.parse_args()
    rows = []
    for name in options.variants:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(name, options.timm_python, Path(folder)))
    keep_table("timm_parity", COLUMNS, rows, options.record)


if __name__ == "__main__":
    main()
