"""The schema of params.yaml: every parameter with its default, description and valid values.

`read_params` checks the whole file and returns only the keys that dvc.yaml lists for a stage. Reading any other key is
an error, because DVC would not rerun the stage when that key changes.
"""

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from leaf.errors import LeafError
from leaf.store import read_yaml

PARAMS_FILE = "params.yaml"
PIPELINE_FILE = "dvc.yaml"

_SHORT = reprlib.Repr()  # shortens values in errors, because YAML aliases can make them huge
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 12, 6, 200, 200

_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
_NUMBERS: dict[Any, str] = {int: "an integer {}", float: "a number {}"}

Fraction = Annotated[float, Field(ge=0, lt=1, json_schema_extra={"valid": "a fraction {}"})]


def _key(default: Any, why: str, valid: str = "", **limits: Any) -> Any:
    """Define a key with a default and a description, `why`.

    `valid` describes the valid values if the type does not; {} is replaced by the limits.
    """
    if valid:
        limits["json_schema_extra"] = {"valid": valid}
    return Field(default, description=why, **limits)


class Group(BaseModel):
    """A strict mapping: unknown keys are errors and values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Drawn(Group):
    """The synthetic data set (`synthesize` stage)."""

    images: int = _key(520, "number of synthetic images, including copies", ge=100, le=100000)
    size: int = _key(96, "side length of the synthetic images", "an integer {} (pixels)", ge=32, le=512)
    seed: int = _key(2023, "seed of the synthetic images", ge=0)


class Columns(Group):
    """Column names of the label table."""

    file: str = _key("", "column with the file name", "a column name, or '' to detect it")
    label: str = _key("", "column with the class", "a column name, '' to detect it, or none")
    group: str = _key("", "column with the group, such as the plant", "a column name, '' to detect it, or none")
    split: str = _key("", "column with the split", "a column name, '' to detect it, or none")


class LearningRate(Group):
    """The learning rate, set before every update."""

    policy: Literal["triangular", "triangular2", "exp_range", "constant", "exponential", "cosine"] = _key(
        "triangular", "learning-rate schedule; triangular, triangular2 and exp_range are from Smith (2015)"
    )
    base: float = _key(1e-4, "lowest learning rate; the default is for Adam", ge=0, le=10)
    max: float = _key(1e-3, "highest learning rate", "a number {}, and at least base", gt=0, le=10)
    step_epochs: float = _key(4, "length of half a cycle in epochs; Smith recommends 2 to 10", gt=0, le=10000)
    step_unit: Literal["epochs", "images"] = _key(
        "epochs",
        "images: half a cycle lasts step_epochs updates per training image, reproducing a mistake in the course report",
    )
    gamma: float = _key(0.99994, "exp_range and exponential: decay factor per update", gt=0, le=1)
    warmup_epochs: float = _key(0, "cosine: epochs of linear warm-up from base to max", ge=0, le=10000)


class Augmentation(Group):
    """Random augmentation of the training images; 0 or none turns a transformation off."""

    flip: Literal["none", "horizontal", "vertical", "both"] = _key("both", "random flips")
    background: Literal["keep", "swap"] = _key(
        "keep",
        "swap: paste about half of the leaves, segmented by mask or GrabCut (Rother 2004), onto other backgrounds",
    )
    rotation: float = _key(
        0, "random rotation by up to this angle, in either direction", "an angle {}, in degrees", ge=0, le=180
    )
    zoom: Fraction = _key(0, "random zoom in or out by up to this fraction")
    translation: Fraction = _key(0, "random shift by up to this fraction of the side")
    contrast: Fraction = _key(0, "random contrast change by up to this fraction")
    rand_augment: float = _key(0, "RandAugment, N = 2 (Cubuk 2019)", "a magnitude {}; 0 turns it off", ge=0, le=1)
    mixup: float = _key(0, "MixUp (Zhang 2017)", "a number {} (alpha); 0 turns it off", ge=0, le=10)
    cutmix: float = _key(0, "CutMix (Yun 2019)", "a number {} (alpha); 0 turns it off", ge=0, le=10)


_SIZE = "a number of images, or a fraction below 1"
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=2)]
Count = Annotated[int, Field(ge=0)]


class Params(Group):
    """The contents of params.yaml."""

    dataset: Name = _key(
        "data/raw/leaves.npz",
        "path of the data set",
        "an .npz file, or a folder of images with class folders or labels",
    )
    labels: Name = _key(
        "data/labels.csv",
        "table with labels, groups or splits; ignored if it has no rows",
        "a CSV or TSV file with a file name column and any of the columns label, group and split; a JSON export of "
        "Label Studio; or annotations.xml of CVAT",
    )
    columns: Columns = Columns()
    encoding: Name = _key("auto", "encoding of the label table", "auto, or a Python encoding such as cp1252")
    masks: Name = _key(
        "data/masks",
        "leaf masks, used by augmentation.background and `leaf audit`",
        "a folder of masks, named like their images, with white leaf pixels; may be empty",
    )
    unlabelled: Name = _key(
        "data/unlabelled",
        "unlabeled images outside the data set, for the review page",
        "a folder of images; may be empty",
    )
    group_by: Literal["none", "folder"] = _key(
        "none", "folder: each folder inside a class folder is one plant, whose images stay in one split"
    )
    classes: Literal["auto"] | Names | dict[Name, list[Name]] = _key(
        ["healthy", "unhealthy"],
        "class names, starting with label 0; auto: use the names of the folders or labels",
        "auto, a list of at least two names, or a mapping of names to patterns such as {healthy: ['*healthy'], "
        "unhealthy: ['*']}; quote names that look like numbers",
    )
    ignore: list[Name] = _key([], "classes to exclude", "a list of patterns, such as ['Background*']")
    seed: int = _key(42, "seed of training; the split and SMOTE use split_seed", ge=0, le=2**31 - 1)
    split_seed: int = _key(42, "seed of the split and SMOTE", ge=0, le=2**31 - 1)
    drawn: Drawn = Drawn()

    links: Literal["refuse", "follow"] = _key(
        "refuse", "symbolic links to folders and to files outside the data set: stop with an error, or follow them"
    )
    image_size: int = _key(96, "side length of the ingested images", "an integer {} (pixels)", ge=16, le=1024)
    fit: Literal["crop", "pad", "stretch"] = _key(
        "crop", "how to make images square: crop the center, pad with black, or resize each side independently"
    )
    unreadable: Literal["skip", "refuse"] = _key(
        "skip", "unreadable image files: skip and list them, or stop with an error"
    )

    references: Literal["auto"] | list[int | str] = _key(
        "auto", "images whose copies are outliers", "auto, or a list of image numbers and file names in data/references"
    )
    outlier_copies: int = _key(
        8, "an image that appears at least this many times is an outlier; used only if references is auto", ge=2
    )
    outlier_cut: Literal["jump"] | Annotated[float, Field(ge=0, le=65025)] = _key(
        "jump",
        "maximum distance of an outlier from its reference; jump: detect a clear jump in the sorted distances",
        "jump, or a mean squared error from 0 to 65025",
    )
    duplicates: Literal["remove", "keep"] = _key(
        "remove", "remove: keep only the first image of each set of copies; keep: keep all of them, in one split"
    )
    near_mse: Annotated[float, Field(ge=0, le=65025)] = _key(
        150,
        "two images are copies if the mean squared error between them is below this value",
        "a number from 0 to 65025 (pixel values from 0 to 255); 0 turns it off",
    )
    near_turns: bool = _key(False, "also find copies rotated by multiples of 90° or mirrored")
    same_photo: bool = _key(
        True,
        "keep shifted or scaled crops of one photo in one split, without removing them; up to 1,000,000 images",
    )
    conflicts: Literal["report", "drop", "majority"] = _key(
        "report", "copies with different labels: report them, drop them, or use the majority label"
    )

    validation_size: Count | Fraction = _key(0.15, "images held out for model selection", _SIZE)
    test_size: Count | Fraction = _key(0.2, "images held out for the final evaluation", _SIZE + "; 0 for none")

    folds: Literal[0] | Annotated[int, Field(ge=2, le=100)] = _key(
        0,
        "number of cross-validation folds; one fold is the test split, and test_size is ignored",
        "0 (off), or an integer from 2 to 100",
    )
    fold: Count = _key(
        0, "fold used as the test split; `leaf folds` runs all", "an integer ≥ 0 and < folds, or 0 if folds is 0"
    )
    grouping: Literal["groups", "none"] = _key("groups", "none: ignore groups, to measure leakage (`leaf leak`)")

    balance: Literal["smote", "none", "oversample", "class_weight"] = _key(
        "smote", "how to balance the training classes"
    )
    balance_limit_gb: float = _key(
        20, "maximum size of all synthetic images on disk, in GB; exceeding it is an error", gt=0
    )
    smote_neighbors: int = _key(5, "number of neighbors k in SMOTE (Chawla 2002)", ge=1, le=1000)

    backbone: Name = _key(
        "convnext_atto", "the network without its classification head", "a name from `leaf summary --list`"
    )
    weights: Name = _key("random", "initial weights of the backbone", "random, imagenet, timm/NAME, or a weights file")
    weights_sha256: str = _key(
        "",
        "SHA-256 hash of the weights file, so that DVC detects if the file is replaced",
        "64 lowercase hex digits, or '' without a weights file",
        pattern=r"^([0-9a-f]{64})?$",
    )
    dropout: Fraction = _key(0.1, "dropout rate: fraction of values set to 0 in training")
    dropout_at: Literal["input", "head"] = _key(
        "head", "where to apply dropout: to the image, or to the pooled features"
    )
    freeze_depth: Literal["all"] | Count = _key(
        0, "number of frozen operations at the start of the backbone", "all, or an integer ≥ 0"
    )
    freeze_normalization: bool = _key(
        False, "freeze the backbone's BatchNormalization layers and their statistics, regardless of freeze_depth"
    )
    head_initializer: Literal["glorot_uniform", "zeros"] = _key(
        "glorot_uniform", "initializer of the logits layer; zeros works well with pretrained features"
    )
    frozen_epochs: int = _key(
        0, "number of epochs with the whole backbone frozen, before freeze_depth applies", ge=0, le=10000
    )
    frozen_learning_rate: float = _key(1e-3, "constant learning rate during the frozen epochs", gt=0, le=10)
    batch_size: int = _key(32, "images per update", ge=1, le=65536)
    micro_batch: Count = _key(
        0,
        "images per forward pass; gradients are accumulated over batch_size images",
        "0 (off), or a divisor of batch_size",
    )
    distribution: Literal["none", "data_parallel"] = _key(
        "none", "data_parallel: split each batch over all devices and nodes; requires the JAX backend"
    )
    epochs: int = _key(32, "maximum number of passes over the training images", ge=1, le=100000)
    patience: int = _key(16, "number of epochs without improvement of `monitor` before training stops", ge=0)
    monitor: Literal["validation_accuracy", "validation_loss"] = _key(
        "validation_accuracy", "metric for early stopping and the best epoch"
    )
    optimizer: Literal["adam", "adamw", "lbfgs"] = _key(
        "adam", "optimizer (Kingma 2014, Loshchilov 2017); lbfgs: fit only the head, to convergence (a linear probe)"
    )
    weight_decay: float = _key(0, "weight decay of adamw", ge=0, le=10)
    label_smoothing: Fraction = _key(0, "label smoothing (Szegedy 2015)")
    weight_averaging: Fraction = _key(
        0.99, "momentum of the moving average of the weights, per update", "a fraction {}; 0 turns it off"
    )
    precision: Literal["float32", "mixed_bfloat16"] = _key(
        "float32", "precision of the activations; mixed_bfloat16 is for GPUs"
    )
    deterministic: bool = _key(
        True,
        "make reruns on the same kind of device bit-identical; false: allow XLA and faster, nondeterministic kernels",
    )
    rematerialize: bool = _key(False, "recompute activations instead of storing them")
    learning_rate: LearningRate = LearningRate()
    augmentation: Augmentation = Augmentation()

    threshold: Literal["validation"] | Annotated[float, Field(gt=0, lt=1)] = _key(
        0.5,
        "minimum probability to predict the second class; validation: the threshold with the highest balanced accuracy "
        "on the validation split",
        "a number between 0 and 1, or validation",
    )
    calibrate: Literal["none", "temperature"] = _key(
        "none", "temperature: divide the logits by a constant fitted on the validation split (Guo 2017)"
    )
    views: int = _key(1, "test-time augmentation: number of flipped, rotated and cropped views per image", ge=1, le=16)
    error_rate: Fraction = _key(
        0.05,
        "maximum expected share of images that get a wrong label; images below a confidence limit, chosen on the "
        "validation split, are left undecided",
        "a fraction {}; 0 turns it off",
    )


def validate(values: Any, name: str = PARAMS_FILE) -> Params:
    """Check `values`, the mapping read from the file `name`. Raise LeafError with one line for the first error."""
    if not isinstance(values, dict):
        raise LeafError(f"{name}: not a mapping. Use lines of the form `key: value`.")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise LeafError(f"{name}: {_first_mistake(error, values)}") from None
    for problem in _conflicts(params):
        raise LeafError(f"{name}: {problem}")
    if params.classes != "auto":
        check_threshold(params.threshold, len(params.classes), f"{name}: ")
    return params


def _conflicts(params: Params) -> Iterator[str]:
    """Yield a message for each value that conflicts with another one."""
    rate, folds = params.learning_rate, params.folds
    probe = {"freeze_depth": "all", "dropout": 0, "distribution": "none", "augmentation": Augmentation(flip="none")}
    if rate.max < rate.base:
        yield f"learning_rate.max: {rate.max} is below learning_rate.base ({rate.base}). Increase learning_rate.max."
    if params.micro_batch and params.batch_size % params.micro_batch:
        yield f"micro_batch: {params.micro_batch}; valid: 0 (off), or a divisor of batch_size ({params.batch_size})"
    if params.classes != "auto" and len(set(params.classes)) < max(len(params.classes), 2):
        yield f"classes: {_SHORT.repr(params.classes)}; valid: at least two different names"
    if params.optimizer == "lbfgs" and any(getattr(params, key) != value for key, value in probe.items()):
        yield "optimizer: lbfgs requires freeze_depth: all, dropout: 0, distribution: none and all augmentation off"
    if params.augmentation.background == "swap" and params.balance in ("smote", "oversample"):
        yield "augmentation.background: swap requires balance: none or class_weight; synthetic images have no masks"
    if params.validation_size == 0:
        yield f"validation_size: 0, but early stopping requires validation images; valid: {_SIZE}"
    if params.fold >= max(folds, 1):
        yield f"fold: {params.fold}; valid: {f'0 to {folds - 1}' if folds else 0}, because folds is {folds}"


def check_threshold(threshold: float | str, classes: int, where: str = "") -> None:
    """Raise LeafError if there are more than two `classes` and the threshold is not 0.5."""
    if classes > 2 and threshold != 0.5:
        raise LeafError(f"{where}threshold: {threshold}; valid: 0.5, because there are more than two classes")


def load(path: str | Path = PARAMS_FILE) -> Params:
    """Load and check params.yaml."""
    return validate(read_yaml(path) or {}, str(path))


def read_params(stage: str) -> Params:
    """Check params.yaml and return only the keys that dvc.yaml lists for `stage`.

    The returned model has the types of `Params`. Any other key raises AttributeError.
    """
    listed = read_yaml(PIPELINE_FILE)["stages"][stage].get("params", [])
    if {PARAMS_FILE: None} in listed:  # the stage depends on the whole file
        return load()
    keys = [key for key in listed if isinstance(key, str)]  # a mapping lists keys of another file, such as code.json
    return cast(Params, _only(load(), keys, stage))


def _only(group: Group, listed: Sequence[str], name: str) -> Group:
    """Return a model with only the listed fields of `group`; a field of a nested group is listed as `GROUP.KEY`."""
    kept: dict[str, Any] = {}
    for key in dict.fromkeys(key.partition(".")[0] for key in listed):
        value = getattr(group, key)
        inner = [rest for first, _, rest in (key.partition(".") for key in listed) if first == key and rest]
        kept[key] = _only(value, inner, key) if inner else value
    fields: dict[str, Any] = dict.fromkeys(kept, (Any, ...))
    return create_model(name, __base__=Group, **fields).model_construct(**kept)


@cache
def keys(kind: type[BaseModel] = Params, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the `default`, `valid` and `why` of every key, by dotted name, for errors and docs."""
    table: dict[str, dict[str, Any]] = {}
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            table |= keys(annotation, f"{prefix}{name}.")
            continue
        if isinstance(field.json_schema_extra, dict):
            valid = str(field.json_schema_extra["valid"])
        elif annotation is bool:
            valid = "true, false"
        else:
            valid = _NUMBERS.get(annotation) or ", ".join(map(str, get_args(annotation)))
        limits = {key: getattr(c, key) for key in _LIMITS for c in field.metadata if hasattr(c, key)}
        both = f"from {limits['ge']} to {limits['le']}" if {"ge", "le"} <= set(limits) else ""
        valid = valid.replace("{}", both or " and ".join(_LIMITS[key].format(limit) for key, limit in limits.items()))
        table[prefix + name] = {"default": field.default, "valid": valid, "why": field.description}
    return table


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: `{"learning_rate": {"base": 1}}` becomes `{"learning_rate.base": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) and key not in keys() else {key: value}
    return flat


def _first_mistake(error: ValidationError, values: dict[str, Any]) -> str:
    first, table = error.errors()[0], keys()
    parts = [str(part) for part in first["loc"]]
    groups = {key.partition(".")[0] for key in table if "." in key}
    depth = 2 if parts and parts[0] in groups else 1
    key = ".".join(parts[:depth])
    if first["type"] == "extra_forbidden":
        siblings = [name for name in table if name.startswith(f"{parts[0]}.")] if depth == 2 and len(parts) > 1 else []
        near = difflib.get_close_matches(key, siblings or table, 1)
        known = f"did you mean {near[0]}?" if near else f"valid: {', '.join(siblings or table)}"
        return f"{key}: unknown key; {known}"
    value: Any = values
    for part in parts[:depth]:
        value = value.get(part) if isinstance(value, dict) else value
    inner = ", ".join(name.removeprefix(f"{key}.") for name in table if name.startswith(f"{key}."))
    valid = table[key]["valid"] if key in table else f"a mapping with the keys {inner}"
    return f"{key}: {_SHORT.repr(value)}; valid: {valid}"
