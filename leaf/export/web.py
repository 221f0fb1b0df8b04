"""Export a model as a static web app that works offline, as a folder or as a single HTML file."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leaf.errors import LeafError
from leaf.evaluate.out_of_distribution import Gaussian
from leaf.export import replacing_folder
from leaf.serve.classifier import Classifier, load
from leaf.store import cache_folder, read_json, replacing
from leaf.synthesize import draw_leaf

APP = Path(__file__).with_name("app")
LANGUAGES = ("en", "es", "fr", "pt", "hi", "sw")
VERSION = "1.30.0"  # version of onnxruntime-web (MIT license)
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # SHA-512
_RUNTIME = {  # name in the app: name in the package
    "onnxruntime.js": "package/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
_SCRIPTS = ("onnxruntime", "pixels", "checks", "model", "history", "main")  # in import order
_SINGLE_POLICY = (
    "default-src 'none'; script-src 'sha256-{script}' 'wasm-unsafe-eval'; style-src 'sha256-{style}'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'"
)
_LARGE = 1024  # number of values; smaller arrays stay float32
_FEWEST, _MOST = 6, 12  # bits per weight
_SAMPLE = 16  # number of synthetic leaves used to measure the effect of compressing one array


def export_web(model: Path, to: Path | None, single_file: bool, runtime: Path | None, about: str) -> str:
    """Export a model as a web app.

    Args:
        model: a `.keras` or `.onnx` file next to its run files; the ONNX file is exported.
        to: folder to write or, for a single file, the `.html` file; default: `web` or `leaf.html` next to the model.
        single_file: whether to write one HTML file that contains everything.
        runtime: the onnxruntime-web package; default: downloaded once and cached.
        about: one sentence about the training images, which the app displays.

    Returns:
        A message with the path and size of the app, and how to open the app.

    Raises:
        LeafError: if the model has no ONNX file, `to` has the wrong suffix, or the package is missing or has the wrong
            SHA-512.
    """
    onnx_file = model.with_suffix(".onnx")
    classifier = load(onnx_file)
    if not hasattr(classifier.network, "metadata"):
        raise LeafError(f"{onnx_file}: this model has no ONNX file, which the web app requires. Use another format.")
    path = to or model.with_name("leaf.html" if single_file else "web")
    if single_file != (path.suffix == ".html"):
        if single_file:
            raise LeafError(f"{path}: with --single-file, the app is written to an .html file. Change --to.")
        raise LeafError(f"{path}: the app is written to a folder. Change --to, or add --single-file.")
    content = read_runtime(runtime)
    content["model.onnx"] = web_model(onnx_file.read_bytes(), classifier.ood_detector.features)
    content["model.json"] = json.dumps(_facts(classifier, onnx_file, about), ensure_ascii=False).encode()
    if single_file:
        page = _single_page(content)
        with replacing(path) as partial:
            partial.write_text(page, encoding="utf-8")
        return f"{path}: {len(page.encode()) / 1e6:.1f} MB. Open it in a browser, or send it to a phone."
    with replacing_folder(path, "service-worker.js") as partial:
        shutil.copytree(APP, partial, dirs_exist_ok=True)
        for name, value in content.items():
            (partial / name).write_bytes(value)
        _write_service_worker(partial)
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    return f"{path}: {size / 1e6:.1f} MB. Try it: `python -m http.server --directory {path}`. Phones require HTTPS."


def read_runtime(package: Path | None) -> dict[str, bytes]:
    """Return the script and WebAssembly file from onnxruntime-web's npm package after verifying its SHA-512."""
    path = package or cache_folder("onnxruntime-web") / URL.rpartition("/")[2]
    if package is None and not (path.is_file() and _sha512(path) == INTEGRITY):
        try:
            with urllib.request.urlopen(URL, timeout=60) as answer, replacing(path) as partial:
                partial.write_bytes(answer.read())
        except OSError as error:
            raise LeafError(
                f"{URL}: the download failed ({error}). Download the file elsewhere and pass it with --runtime FILE."
            ) from None
    if not path.is_file():
        raise LeafError(f"{path}: no such file. Download {URL}.")
    if (found := _sha512(path)) != INTEGRITY:
        raise LeafError(f"{path}: SHA-512 is {found}, expected {INTEGRITY}. Download {URL}.")
    with tarfile.open(path) as archive:
        members = {name: archive.extractfile(member) for name, member in _RUNTIME.items()}
        files = {name: file.read() for name, file in members.items() if file is not None}
    files["onnxruntime.js"] = re.sub(rb"\n//# sourceMappingURL=.*", b"", files["onnxruntime.js"])
    return files


def _sha512(path: Path) -> str:
    return _base64(hashlib.sha512(path.read_bytes()).digest())


def web_model(content: bytes, features: Gaussian) -> bytes:
    """Return the ONNX model `content` with compressed weights and the additional output `distance`.

    Large arrays are stored with 6 to 12 bits per weight and converted to float32 for inference. An array gets one more
    bit for each doubling of its rounding error, measured as the change in log-odds divided by the square root of its
    size. This allocation minimizes the total error. The number of bits is increased until, on 64 synthetic leaves,
    log-odds change by at most 0.02 (0.005 in probability) and distances by at most 2% of the largest distance.
    `distance` (N,) is the Mahalanobis distance of the pooled features (`Gaussian.distance`).

    References:
        Gersho and Gray, Vector Quantization and Signal Compression, 1992, chapter 8 (bit allocation).
    """
    exact = _outputs(content, features)
    noise: dict[str, float] = {}
    for name, array in _large_arrays(content).items():
        found, _ = _outputs(_packed_model(content, features, {name: _FEWEST}), features, _SAMPLE)
        noise[name] = float(np.sqrt(np.square(found - exact[0][:_SAMPLE]).mean() / array.size))
    tiny = np.finfo(float).tiny
    order = np.log2(np.maximum(list(noise.values()), tiny)) - np.log2(max([tiny, *noise.values()]))
    order = np.maximum(np.rint(order), _FEWEST - _MOST)
    for most in range(8, 2 * _MOST - _FEWEST + 1):
        bits = dict(zip(noise, np.clip(most + order, _FEWEST, _MOST).astype(int).tolist(), strict=True))
        packed = _packed_model(content, features, bits)
        log_odds, distances = (np.abs(a - b) for a, b in zip(_outputs(packed, features), exact, strict=True))
        if log_odds.max() <= 0.02 and distances.max() <= 0.02 * exact[1].max():
            break
    return packed


def _outputs(model: bytes, gaussian: Gaussian, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Run the model on `count` synthetic leaves; return the log-odds (count, C) and distances (count,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[1]
    leaves = np.stack([draw_leaf(np.random.default_rng(number), side, number % 2 == 0) for number in range(count)])
    p, features = session.run(["probabilities", "features"], {"images": leaves.astype(np.float32)})
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p)), gaussian.distance(features)


def _large_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Return the weight arrays that are large enough to compress."""
    from onnx import ModelProto, numpy_helper

    graph = ModelProto.FromString(content).graph
    used = {name for node in graph.node for name in node.input}
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer if each.name in used}
    return {
        name: array
        for name, array in arrays.items()
        if array.dtype == np.float32 and array.ndim > 1 and array.size >= _LARGE and array.size % 2 == 0
    }


def _packed_model(content: bytes, features: Gaussian, bits: Mapping[str, int]) -> bytes:
    """Return the model with the arrays named in `bits` stored as integers, and with the additional output `distance`.

    Each output channel of an array has its own scale.
    """
    from onnx import ModelProto, helper, numpy_helper

    model = ModelProto.FromString(content)
    graph = model.graph
    users = {name: node for node in graph.node for name in node.input}
    arrays: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(value: Any, name: str) -> str:
        arrays[name] = np.asarray(value)
        return name

    def as_float(value: np.ndarray, name: str) -> str:
        return node("Cast", [constant(value, name)], f"{name}_float", to=1)

    for each in graph.initializer:
        name, array = each.name, numpy_helper.to_array(each)
        if name not in bits:
            arrays[name] = array
            continue
        axis = array.ndim - 1 if users[name].op_type == "MatMul" else 0
        scale = np.abs(array).max(axis=tuple(np.delete(np.arange(array.ndim), axis)), keepdims=True)
        scale = np.maximum(scale / (2 ** (bits[name] - 1) - 1), np.finfo(np.float32).tiny).astype(np.float32)
        values = np.rint(array / scale).astype(np.int16)
        if bits[name] <= 8:
            whole = as_float(values.astype(np.int8), f"{name}_8")
        else:  # one byte stores the lower four bits of two weights, one from each half of the array
            sixteen = constant(np.float32(16), f"{name}_sixteen")
            first, second = (values & 15).reshape(2, -1)
            both = as_float((16 * first + second).astype(np.uint8), f"{name}_low")
            first = node("Floor", [node("Div", [both, sixteen], f"{name}_a")], f"{name}_first")
            second = node("Sub", [both, node("Mul", [first, sixteen], f"{name}_b")], f"{name}_second")
            joined = node("Concat", [first, second], f"{name}_c", axis=0)
            lower = node("Reshape", [joined, constant(np.array(array.shape), f"{name}_shape")], f"{name}_lower")
            upper = node("Mul", [as_float((values >> 4).astype(np.int8), f"{name}_high"), sixteen], f"{name}_upper")
            whole = node("Add", [upper, lower], f"{name}_whole")
        node("Mul", [whole, constant(scale, f"{name}_scale")], name)
    nodes += graph.node
    tiny = np.finfo(np.float32).tiny  # scale each row, because its values may exceed the float16 range
    largest = np.maximum(np.abs(features.whitening).max(axis=1), tiny)
    whitening = as_float((features.whitening / largest[:, None]).astype(np.float16), "ood_whitening")
    difference = node("Sub", ["features", constant(features.mean, "ood_mean")], "ood_difference")
    scaled = node("Mul", [difference, constant(largest.astype(np.float32), "ood_largest")], "ood_scaled")
    whitened = node("MatMul", [scaled, whitening], "ood_whitened")
    node("ReduceL2", [whitened, constant(np.array([1]), "ood_axis")], "distance", keepdims=0)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph.node.extend(nodes)
    graph.output.append(helper.make_tensor_value_info("distance", 1, ["N"]))
    return bytes(model.SerializeToString())


def _facts(classifier: Classifier, onnx_file: Path, about: str) -> dict[str, Any]:
    """Return the contents of model.json: everything the app needs besides the network."""
    detector, head = classifier.ood_detector, classifier.network.head
    project = onnx_file.parent.parent
    test = (_optional(project / "data" / "scored" / "scores.json").get("splits") or {}).get("test") or {}
    return {
        "classes": classifier.classes,
        "threshold": classifier.threshold if len(classifier.classes) == 2 else None,
        "min_confidence": classifier.min_confidence,
        "views": classifier.views,
        "image_size": classifier.image_size,
        "fit": classifier.fit,
        "epsilon": head.epsilon,
        "map_side": head.side,
        "ood": {
            "features_limit": detector.features.limit,
            "statistics_limit": detector.statistics.limit,
            "mean": detector.statistics.mean.tolist(),
            "whitening": detector.statistics.whitening.tolist(),
            "references": [np.round(each, 1).ravel().tolist() for each in detector.references],
        },
        "backbone": classifier.backbone,
        "model_sha256": classifier.sha256,
        "test": {key: test.get(key) for key in ("accuracy", "accuracy_low", "accuracy_high", "images")}
        | {"accuracy": classifier.test_accuracy},
        "train_images": _optional(project / "metrics" / "split.json").get("train"),
        "about": about,
    }


def _optional(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _write_service_worker(folder: Path) -> None:
    """Insert the names of the files to cache, and a version that depends on their content, into the service worker."""
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    files.remove("service-worker.js")
    version = hashlib.sha256(b"".join((folder / name).read_bytes() for name in files)).hexdigest()[:16]
    worker = folder / "service-worker.js"
    text = worker.read_text(encoding="utf-8").replace('["FILES"]', json.dumps(files)).replace("VERSION", version)
    worker.write_text(text, encoding="utf-8")


def _single_page(content: Mapping[str, bytes]) -> str:
    """Return index.html with its styles, scripts and data embedded."""
    page = (APP / "index.html").read_text(encoding="utf-8")
    style = (APP / "style.css").read_text(encoding="utf-8")
    script = _one_script(content["onnxruntime.js"].decode())
    data = {name: content[name] for name in ("model.json", "model.onnx", "onnxruntime.wasm")}
    data |= {f"texts/{name}.json": (APP / "texts" / f"{name}.json").read_bytes() for name in LANGUAGES}
    packed = {name: _base64(gzip.compress(value, 9, mtime=0)) for name, value in data.items()}
    blocks = [f'<script type="text/plain" data-file="{name}">{value}</script>\n' for name, value in packed.items()]
    script_hash, style_hash = (_base64(hashlib.sha256(text.encode()).digest()) for text in (script, style))
    policy = _SINGLE_POLICY.format(script=script_hash, style=style_hash)
    icon = _base64((APP / "icon.svg").read_bytes())
    page = re.sub(r'(http-equiv="Content-Security-Policy" content=")[^"]*', lambda found: found[1] + policy, page)
    page = re.sub(r"<link rel=\"(manifest|apple-touch-icon)\"[^>]*>\n", "", page)
    page = page.replace('href="icon.svg"', f'href="data:image/svg+xml;base64,{icon}"')
    page = page.replace('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>")
    page = page.replace('<script type="module" src="main.js"></script>\n', "")
    return page.replace("</body>", f'{"".join(blocks)}<script type="module">{script}</script>\n</body>')


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _one_script(runtime: str) -> str:
    """Bundle the modules into one script, in which each module is a function that returns its exports."""
    parts = ["const modules = {};"]
    for name in _SCRIPTS:
        source = runtime if name == "onnxruntime" else (APP / f"{name}.js").read_text(encoding="utf-8")
        exported = {found[1]: found[1] for found in re.finditer(r"^export (?:async )?\w+ (\w+)", source, re.M)}
        for found in re.finditer(r"export\{([^}]*)\};?", source):  # minified: export{a as b, …}
            pairs = (each.strip().split(" as ") for each in found[1].split(","))
            exported |= {pair[-1]: pair[0] for pair in pairs}
        source = re.sub(r"export\{[^}]*\};?", "", re.sub(r"^export ", "", source, flags=re.M))
        source = re.sub(r'import \* as (\w+) from "\./(\w+)\.js"', r"const \1 = modules.\2", source)
        source = re.sub(r'import (\{[^}]*\}) from "\./(\w+)\.js"', r"const \1 = modules.\2", source)
        returned = ", ".join(f'"{key}": {value}' for key, value in exported.items())
        parts.append(f"modules.{name} = (() => {{\n{source}\nreturn {{ {returned} }};\n}})();")
    return "\n".join(parts).replace("</script", "<\\/script")
