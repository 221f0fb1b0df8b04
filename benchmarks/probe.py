"""Time the row `probe`, from a folder of images to a scored model, and then a second run with another split.

The peer is a plain script: it reads the files with Pillow in a loop, computes features with keras.applications'
MobileNetV2, and fits and scores scikit-learn's logistic regression, with C selected in five folds. It does not search
for copies or groups and writes no report, heatmap or model. leaf runs `dvc repro` for every stage with empty caches.
Then `split_seed` changes, and only the stages that depend on it run, with cached features. The images are synthetic
and the weights are random, which does not change the times. There is no warm-up, because users wait for the first run.

On two idle cores, the first run should take less than 60 s and another split less than 10 s; both times are printed.
The recorded rows are ratios to the time of the plain script, which can be compared between machines.

Ultralytics' classification training is not included: its pretrained weights are available only from its own server,
and training from random weights is not comparable.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, in_turn, report, row
from PIL import Image
from pipeline import clone, repro

from leaf.experiments import read_experiments
from leaf.store import read_yaml, sha256
from leaf.synthesize import ImageCounts, draw_dataset

SIZES = {"tiny": (60, 32, 1), "bench": (1000, 96, 1), "full": (1000, 96, 7)}  # images, side, runs
PLAIN = """
import sys
from pathlib import Path
import keras, numpy
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder, weights, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
files = sorted(folder.glob("*/*.jpg"))
images = numpy.stack([numpy.asarray(Image.open(file).convert("RGB").resize((size, size)), "float32") for file in files])
labels = numpy.array([file.parent.name for file in files])
network = keras.applications.MobileNetV2((size, size, 3), include_top=False, weights=None, pooling="avg")
network.load_weights(weights)
features = network.predict(keras.applications.mobilenet_v2.preprocess_input(images), verbose=0)
train, test, known, asked = train_test_split(features, labels, test_size=0.2, stratify=labels, random_state=42)
head = LogisticRegressionCV(Cs=6, cv=5, scoring="neg_log_loss", max_iter=2000)
print(make_pipeline(StandardScaler(), head).fit(train, known).score(test, asked))
"""


def photographs(folder: Path, count: int, size: int) -> None:
    """Write synthetic leaves as JPEG files with sides of 2 × `size` pixels; about 3 of 5 are healthy."""
    images, labels = draw_dataset(ImageCounts(count * 3 // 5 + 2, count - count * 3 // 5 + 2, 2, 0, 0), 2 * size, 7)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / ("healthy", "unhealthy")[label] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, quality=90)


def main() -> None:
    import keras

    options = arguments(__doc__)
    count, size, runs = SIZES[options.size]
    with tempfile.TemporaryDirectory() as name:
        project, folder, weights = Path(name, "project"), Path(name, "photographs"), Path(name, "mobilenet.weights.h5")
        photographs(folder, count, size)
        keras.utils.set_random_seed(1)
        stock = keras.applications.MobileNetV2((size, size, 3), include_top=False, weights=None, pooling="avg")
        stock.save_weights(weights)
        settings = {**read_experiments()["probe"].set, "dataset": str(folder), "image_size": size}
        settings |= {"weights": str(weights), "weights_sha256": sha256(weights)}
        augmentation = read_yaml("params.yaml")["augmentation"] | {"flip": settings.pop("augmentation.flip")}
        clone(project, {**settings, "augmentation": augmentation})

        def plain() -> None:
            command = [sys.executable, "-c", PLAIN, str(folder), str(weights), str(size)]
            subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=True, capture_output=True)

        def timed(*more: str) -> None:
            spent = repro(project, *more)
            each = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in spent.items())
            print(f"probe: {sum(spent.values()):.1f} s: {each}", flush=True)

        def whole() -> None:
            for kept in (project.parent / "cache").glob("leaf/features/*/*"):
                kept.unlink()
            timed("--force")

        seeds = iter(range(100))

        def again() -> None:
            params = (project / "params.yaml").read_text(encoding="utf-8").splitlines()
            changed = [f"split_seed: {next(seeds)}" if line.startswith("split_seed:") else line for line in params]
            (project / "params.yaml").write_text("\n".join(changed), encoding="utf-8")
            timed()

        ours, later, other = in_turn((whole, again, plain), runs, warm=False)
        report(row("probe", ours, other, "<= 1.2"), options.record)
        report(row("probe_again", later, other, ">= 1.67"), options.record)


if __name__ == "__main__":
    main()
