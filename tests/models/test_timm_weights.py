"""Test that features match timm's, that downloads can be pinned, and that damaged files raise a one-line error."""

import http.server
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from leaf.errors import LeafError
from leaf.models import weights
from leaf.models.backbones import Variant
from leaf.models.convnext import convnext
from leaf.models.weights import Checkpoint, pinned, read_arrays

RECORDED = Path(__file__).parent / "timm"
PATCH = Variant((8, 16, 24, 32), (1, 1, 2, 1))
SMALL = {
    "patch": PATCH,
    "linear": PATCH,
    "overlap": replace(PATCH, stem_width=8),
    "v2": replace(PATCH, v2=True),
}


@pytest.mark.parametrize("name", SMALL)
def test_features_match_those_recorded_from_timm(name):
    recorded = np.load(RECORDED / "features.npz")
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, convnext(image, SMALL[name]))
    model.set_weights(read_arrays(RECORDED / f"{name}.safetensors", SMALL[name]))
    features = np.asarray(model(recorded["images"].astype(np.float32)))
    np.testing.assert_allclose(features, recorded[name], atol=1e-4)


def test_tensor_names_of_meta_checkpoints_are_accepted(tmp_path):
    tensors = load_file(RECORDED / "linear.safetensors")
    for stage in range(1, 4):
        for part in (0, 1):
            for kind in ("weight", "bias"):
                name = f"stages.{stage}.downsample.{part}.{kind}"
                tensors[f"downsample_layers.{stage}.{part}.{kind}"] = tensors.pop(name)
    renamed = {"stem.": "downsample_layers.0.", "head.norm.": "norm.", ".blocks.": ".", ".conv_dw.": ".dwconv."}
    renamed |= {".mlp.fc1.": ".pwconv1.", ".mlp.fc2.": ".pwconv2."}
    meta = {}
    for name, tensor in tensors.items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        meta[name] = tensor
    save_file(meta | {"head.weight": np.zeros((10, 32), np.float32)}, tmp_path / "meta.safetensors")
    expected = read_arrays(RECORDED / "linear.safetensors", PATCH)
    for found, array in zip(read_arrays(tmp_path / "meta.safetensors", PATCH), expected, strict=True):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("stem.0.weight"), "missing tensors: 1 \\(first: stem.0.weight\\)"),
        (lambda tensors: tensors.update(other=np.zeros(3, np.float32)), "unexpected tensors: 1 \\(first: other\\)"),
        (lambda tensors: tensors.update({"stem.1.bias": np.zeros(3, np.float32)}), r"stem.1.bias has shape \(3,\)"),
        (lambda tensors: tensors.update({"stem.1.bias": np.zeros(8, np.int64)}), "stem.1.bias has dtype int64"),
        (lambda tensors: tensors["stem.1.bias"].fill(np.nan), "stem.1.bias contains NaN"),
    ],
)
def test_missing_unexpected_and_invalid_tensors_are_rejected(tmp_path, change, message):
    tensors = {name: tensor.copy() for name, tensor in load_file(RECORDED / "patch.safetensors").items()}
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    with pytest.raises(LeafError, match=message):
        read_arrays(tmp_path / "changed.safetensors", PATCH)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"\xff" * 64])
def test_damaged_file_is_rejected_in_one_line(tmp_path, damage):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damage((RECORDED / "patch.safetensors").read_bytes()))
    with pytest.raises(LeafError, match=r"not a readable \.safetensors file") as caught:
        read_arrays(path, PATCH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm/../x", "timm/", "timm/a/b", "timm/a@", "timm/a b"])
def test_malformed_checkpoint_name_is_rejected(name):
    with pytest.raises(LeafError, match="not a checkpoint name"):
        weights.download(name)


def test_content_with_the_wrong_sha256_is_rejected(monkeypatch, tmp_path):
    checkpoint = Checkpoint("timm/a", tmp_path, "main", "1" * 64, "apache-2.0")
    monkeypatch.setattr(weights, "download", lambda name: checkpoint)
    assert pinned("timm/a", "1" * 64) == checkpoint
    with pytest.raises(LeafError, match=r"weights_sha256: 0+ .*timm/a.* 1+"):
        pinned("timm/a", "0" * 64)


def test_first_use_prints_the_sha256_to_pin(monkeypatch, tmp_path, capsys):
    checkpoint = Checkpoint("timm/a", tmp_path, "main", "1" * 64, "apache-2.0")
    monkeypatch.setattr(weights, "download", lambda name: checkpoint)
    pinned("timm/a", "")
    assert re.search(r"weights_sha256 .*\b1{64}\b", capsys.readouterr().err)


COMMIT = "a" * 40
FILES = {
    "model.safetensors": (RECORDED / "patch.safetensors").read_bytes(),
    "config.json": json.dumps({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}).encode(),
    "README.md": b"---\nlicense: apache-2.0\n---\n",
}
DOWNLOAD = (
    "import json, sys\n"
    "from leaf.models.weights import download, weights_record\n"
    "print(json.dumps([weights_record('', sys.argv[1]), download(sys.argv[1]).mean]))\n"
)


class Hub(http.server.BaseHTTPRequestHandler):
    """Serve `FILES` as the Hugging Face Hub does, at a single commit."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        _, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        content = FILES.get(file)
        if revision not in ("main", "v1", COMMIT) or content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if content is None else "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for name, value in {"X-Repo-Commit": COMMIT, "ETag": f'"{file}-1"', "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """Return a function that runs `download` in a new process, using a local server or, if `offline`, the cache."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(name, offline=False):
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
        environment |= {"HF_HUB_OFFLINE": "1" if offline else "0", "HF_HUB_DISABLE_XET": "1", "PATH": "/usr/bin:/bin"}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", DOWNLOAD, name]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    yield run
    server.shutdown()
    server.server_close()


def test_download_records_origin_and_works_offline_afterwards(hub):
    online = hub("timm/convnext_test.in1k@v1")
    assert online.returncode == 0, online.stderr
    record, mean = json.loads(online.stdout)
    assert record["revision"] == COMMIT
    assert record["license"] == "apache-2.0"
    assert mean == [0.5, 0.5, 0.5]
    assert hub("timm/convnext_test.in1k@v1", offline=True).stdout == online.stdout


def test_restrictive_license_is_printed_before_the_download(hub):
    assert "CC-BY-NC-4.0" in hub("timm/convnextv2_test.fcmae").stderr


def test_unknown_revision_is_rejected_by_name(hub):
    failed = hub("timm/convnext_test.in1k@other")
    assert "weights: timm/convnext_test.in1k: downloading model.safetensors failed" in failed.stderr
