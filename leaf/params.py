"""The schema of params.yaml: every choice, its valid values, its reason.

`read_params` checks the whole file and gives a stage the keys that dvc.yaml lists for it, no others: a key that a
stage used without telling DVC would leave stale results behind, so it is an error at once.
"""

import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticUndefined

from leaf.errors import LeafError
from leaf.store import read_yaml

PARAMS_FILE = "params.yaml"
PIPELINE_FILE = "dvc.yaml"

_SHORT = reprlib.Repr()  # a value in an error: aliases can make it endless
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 12, 6, 200, 200

Number = float
Fraction = Annotated[float, Field(ge=0, lt=1)]

_LIMITS = {"ge": "from {}", "gt": "above {}", "le": " up to {}", "lt": ", below {}"}


def _key(default: Any, valid: str, why: str, **limits: Any) -> Any:
    """A key with its default, what is valid in words (said in errors and docs; {} are its limits), and why it is."""
    told = "".join(_LIMITS[name].format(limits[name]) for name in _LIMITS if name in limits)
    return Field(default, description=why, json_schema_extra={"valid": valid.replace("{}", told)}, **limits)


def _group(kind: type[BaseModel]) -> Any:
    return Field(default_factory=kind)


class Group(BaseModel):
    """A strict mapping: no unknown key, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Drawn(Group):
    """The drawn data set (stage synthesize)."""

    images: int = _key(520, "a whole number {}", "images in all, copies included", ge=100, le=100000)
    size: int = _key(96, "pixels, {}", "height and width of a drawn image", ge=32, le=512)
    seed: int = _key(2023, "a whole number {}", "moves every drawn image", ge=0)


class Columns(Group):
    """Columns of a label table, by role."""

    file: str = _key("", "a column name, or '' to detect it", "column that names the file")
    label: str = _key("", "a column name, '' to detect it, or none", "column of the class")
    group: str = _key("", "a column name, '' to detect it, or none", "column of the group, such as the plant")
    split: str = _key("", "a column name, '' to detect it, or none", "column of the split")


class LearningRate(Group):
    """The learning rate, set anew before every update."""

    policy: Literal["triangular", "triangular2", "exp_range", "constant", "exponential", "cosine"] = _key(
        "triangular",
        "triangular, triangular2, exp_range (Smith 2015), constant, exponential, cosine",
        "shape over the updates",
    )
    base: Number = _key(1e-4, "a number {}", "lowest rate; Adam's units", ge=0, le=10)
    max: Number = _key(1e-3, "a number {}, not below base", "highest rate", gt=0, le=10)
    step_epochs: Number = _key(4, "a number {}", "half a cycle, in epochs (Smith: 2 to 8)", gt=0, le=10000)
    step_unit: Literal["epochs", "images"] = _key(
        "epochs", "epochs, images", "`images` takes step_epochs × images as iterations: the report's slip"
    )
    gamma: Number = _key(0.99994, "a number {}", "exp_range and exponential: factor per update", gt=0, le=1)
    warmup_epochs: Number = _key(0, "a number {}", "cosine: linear rise from base to max, in epochs", ge=0, le=10000)


class Augmentation(Group):
    """Random changes of the training images; 0 and none are off."""

    flip: Literal["none", "horizontal", "vertical", "both"] = _key(
        "both", "none, horizontal, vertical, both", "mirror at random"
    )
    background: Literal["keep", "swap"] = _key(
        "keep",
        "keep, swap",
        "swap: half of the images get another one's ground around the leaf; by masks, else by GrabCut (Rother 2004)",
    )
    rotation: Number = _key(0, "degrees, {}", "turn at random by up to so much, either way", ge=0, le=180)
    zoom: Fraction = _key(0, "a fraction from 0, below 1", "zoom at random in or out by up to so much")
    translation: Fraction = _key(0, "a fraction from 0, below 1", "shift at random by up to so much of the side")
    contrast: Fraction = _key(0, "a fraction from 0, below 1", "change contrast at random by up to so much")
    rand_augment: Number = _key(0, "magnitude {}, 0 is off", "RandAugment (Cubuk 2019), two operations", ge=0, le=1)
    mixup: Number = _key(0, "alpha {}, 0 is off", "MixUp (Zhang 2017)", ge=0, le=10)
    cutmix: Number = _key(0, "alpha {}, 0 is off", "CutMix (Yun 2019)", ge=0, le=10)


_SIZE = "a whole number of images, or a fraction below 1"
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=2)]
Count = Annotated[int, Field(ge=0)]


class Params(Group):
    """Everything that params.yaml holds."""

    dataset: str = _key(
        "data/raw/leaves.npz",
        "an .npz file, or a folder with a sub-folder per class",
        "where the photographs are",
        min_length=1,
    )
    labels: str = _key(
        "data/labels.csv",
        "a CSV or TSV table with a column that names the file, and any of label, group, split",
        "what is known of each photograph of a folder, where the folders do not say it; without rows it says nothing",
        min_length=1,
    )
    columns: Columns = _group(Columns)
    encoding: str = _key(
        "auto", "auto, or an encoding that Python knows, such as cp1252", "encoding of label tables", min_length=1
    )
    masks: str = _key(
        "data/masks",
        "a folder of images with the names of the photographs, white on the leaf; where it is empty nothing is known",
        "where the leaf is in each photograph, for augmentation.background and leaf audit",
        min_length=1,
    )
    group_by: Literal["none", "folder"] = _key(
        "none",
        "none, folder",
        "folder: photographs of one folder below the class show one plant, kept together",
    )
    classes: Literal["auto"] | Names | dict[Name, list[Name]] = _key(
        ["healthy", "unhealthy"],
        "auto, a list of two names or more, or a mapping of names to patterns such as {healthy: ['*healthy'], "
        "unhealthy: ['*']}; text that looks like a number in quotes",
        "which classes there are, the first is label 0; auto: as the photographs are sorted or labelled",
    )
    ignore: list[Name] = _key([], "a list of patterns", "classes to leave out, such as ['Background*']")
    seed: int = _key(42, "a whole number {}", "moves training alone", ge=0, lt=2**31)
    split_seed: int = _key(42, "a whole number {}", "moves the split and SMOTE", ge=0, lt=2**31)
    drawn: Drawn = _group(Drawn)

    links: Literal["refuse", "follow"] = _key(
        "refuse", "refuse, follow", "links to folders, and links that lead out of the data set's folder"
    )
    image_size: int = _key(96, "pixels, {}", "side of the ingested images", ge=16, le=1024)
    fit: Literal["crop", "pad", "stretch"] = _key(
        "crop",
        "crop, pad, stretch",
        "how an image becomes a square: its middle; all of it with black beside it; all of it, each side resized alone",
    )
    unreadable: Literal["skip", "refuse"] = _key(
        "skip", "skip, refuse", "a broken image file among good ones: leave it out by name, or stop"
    )

    references: Literal["auto"] | list[int | str] = _key(
        "auto",
        "auto, or a list of image numbers and of file names in data/references",
        "images whose copies are outliers",
    )
    outlier_copies: int = _key(8, "a whole number {}", "auto: a picture that stands so often is an outlier", ge=2)
    outlier_cut: Literal["jump"] | Annotated[Number, Field(ge=0, le=65025)] = _key(
        "jump",
        "jump, or a mean squared error from 0 up to 65025",
        "where the ranking by distance to a reference is cut",
    )
    duplicates: Literal["remove", "keep"] = _key(
        "remove", "remove, keep", "copies beyond the first; kept or not, they stay in one split"
    )
    near_mse: Number = _key(
        150,
        "a mean squared error {}, 0 is off",
        "below it two images are copies (0..255 squared)",
        ge=0,
        le=65025,
    )
    near_turns: bool = _key(False, "true, false", "find copies that were turned by 90° or mirrored, too")
    same_photo: bool = _key(
        True,
        "true, false",
        "keep shifted or scaled crops of one photograph in one split, none is removed; up to 1000000 images",
    )
    conflicts: Literal["report", "drop", "majority"] = _key(
        "report", "report, drop, majority", "copies that bear different labels"
    )

    validation_size: Count | Fraction = _key(0.15, _SIZE, "images held out to choose the model by")
    test_size: Count | Fraction = _key(0.2, _SIZE + ", 0 for none", "images held out to judge the model by, once")

    folds: Literal[0] | Annotated[int, Field(ge=2, le=100)] = _key(
        0, "0 for off, or 2 to 100", "cross-validation: the test split is one of so many folds, test_size is not used"
    )
    fold: Count = _key(0, "a whole number from 0, below folds", "which fold is the test split; `leaf folds` runs all")
    grouping: Literal["groups", "none"] = _key(
        "groups", "groups, none", "none tears groups apart on purpose, to measure the leak (`leaf leak`)"
    )

    balance: Literal["smote", "none", "oversample", "class_weight"] = _key(
        "smote", "smote, none, oversample, class_weight", "how the training classes are made equal"
    )
    balance_limit_gb: Number = _key(
        20, "a number {}", "GB of synthetic images on disk, more are refused before they are made", gt=0
    )
    smote_neighbors: int = _key(5, "a whole number {}", "SMOTE's k (Chawla 2002)", ge=1, le=1000)

    backbone: str = _key("convnext_atto", "a name that `leaf summary --list` prints", "the network", min_length=1)
    weights: str = _key(
        "random", "random, imagenet, timm/NAME, or a weights file", "what the backbone starts from", min_length=1
    )
    weights_sha256: str = _key(
        "",
        "64 hex digits, for a weights file",
        "so that a changed file is a changed parameter",
        pattern=r"^([0-9a-f]{64})?$",
    )
    dropout: Fraction = _key(0.1, "a fraction from 0, below 1", "share of values set to 0 in training")
    dropout_at: Literal["input", "head"] = _key(
        "head", "input, head", "of which values: the image's own, or those that the logits are made of"
    )
    freeze_depth: Literal["all"] | Count = _key(
        0, "all, or a whole number from 0", "the first so many operations of the backbone do not learn"
    )
    freeze_normalization: bool = _key(
        False, "true, false", "the backbone's BatchNormalization keeps its statistics and does not learn, at any depth"
    )
    head_initializer: Literal["glorot_uniform", "zeros"] = _key(
        "glorot_uniform",
        "glorot_uniform, zeros",
        "what the logits' weights start from; zeros suits pretrained features",
    )
    frozen_epochs: int = _key(
        0,
        "a whole number {}",
        "epochs with the whole backbone frozen, before freeze_depth holds",
        ge=0,
        le=10000,
    )
    frozen_learning_rate: Number = _key(1e-3, "a number {}", "constant rate of the frozen epochs", gt=0, le=10)
    batch_size: int = _key(32, "a whole number {}", "images per update", ge=1, le=65536)
    micro_batch: int = _key(
        0,
        "0 for off, or a divisor of batch_size",
        "images held in memory at once; gradients add up to batch_size",
        ge=0,
    )
    distribution: Literal["none", "data_parallel"] = _key(
        "none", "none, data_parallel", "data_parallel: all devices and nodes share each batch; Keras on JAX"
    )
    epochs: int = _key(32, "a whole number {}", "passes over the training images, at most", ge=1, le=100000)
    patience: int = _key(16, "a whole number {}", "epochs without a better `monitor` before training stops", ge=0)
    monitor: Literal["validation_accuracy", "validation_loss"] = _key(
        "validation_accuracy",
        "validation_accuracy, validation_loss",
        "what early stopping and the best epoch go by",
    )
    optimizer: Literal["adam", "adamw", "lbfgs"] = _key(
        "adam",
        "adam, adamw, lbfgs",
        "Kingma 2014; Loshchilov 2017; lbfgs fits the head alone, to convergence: a linear probe",
    )
    weight_decay: Number = _key(0, "a number {}", "adamw's", ge=0, le=10)
    label_smoothing: Fraction = _key(0, "a fraction from 0, below 1", "Szegedy 2015")
    weight_averaging: Fraction = _key(
        0.99, "a fraction from 0, below 1; 0 is off", "momentum of a moving average of the weights, per update"
    )
    precision: Literal["float32", "mixed_bfloat16"] = _key(
        "float32", "float32, mixed_bfloat16", "of the activations; mixed is for GPUs"
    )
    deterministic: bool = _key(
        True, "true, false", "the same bits again on one kind of device; false: XLA and its fastest kernels"
    )
    rematerialize: bool = _key(False, "true, false", "compute activations twice instead of storing them")
    learning_rate: LearningRate = _group(LearningRate)
    augmentation: Augmentation = _group(Augmentation)

    threshold: Literal["validation"] | Annotated[Number, Field(gt=0, lt=1)] = _key(
        0.5,
        "a number between 0 and 1, or validation",
        "probability of the second class from which it is predicted; validation: the best balanced accuracy there",
    )
    calibrate: Literal["none", "temperature"] = _key(
        "none", "none, temperature", "divide the logits by what fits validation best (Guo 2017)"
    )
    views: int = _key(
        1,
        "a whole number {}",
        "test-time augmentation: flips, turns and crops averaged",
        ge=1,
        le=16,
    )


def validate(values: Any, name: str = PARAMS_FILE) -> Params:
    """Check the mapping `values`, read from the file `name`. Raises LeafError with one line for the first mistake."""
    if not isinstance(values, dict):
        raise LeafError(f"{name}: not a mapping of keys to values")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise LeafError(f"{name}: {_first_mistake(error, values)}") from None
    rate = params.learning_rate
    if rate.max < rate.base:
        raise LeafError(f"{name}: learning_rate.max: {rate.max} is below learning_rate.base, {rate.base}")
    if params.micro_batch and params.batch_size % params.micro_batch:
        raise LeafError(f"{name}: micro_batch: {params.micro_batch} does not divide batch_size, {params.batch_size}")
    if params.classes != "auto" and len(set(params.classes)) < max(len(params.classes), 2):
        raise LeafError(f"{name}: classes: {_SHORT.repr(params.classes)}; valid: two different names or more")
    if params.classes != "auto":
        check_threshold(params.threshold, len(params.classes), f"{name}: ")
    probe = {"freeze_depth": "all", "dropout": 0, "distribution": "none", "augmentation": Augmentation(flip="none")}
    if params.optimizer == "lbfgs" and any(getattr(params, key) != value for key, value in probe.items()):
        raise LeafError(
            f"{name}: optimizer: lbfgs fits the head alone, to features of the images as they are; valid with it: "
            "freeze_depth: all, dropout: 0, distribution: none, augmentation.flip: none and no other augmentation"
        )
    if params.augmentation.background == "swap" and params.balance in ("smote", "oversample"):
        raise LeafError(
            f"{name}: augmentation.background: swap, and where the leaf is in an image made by balance: "
            f"{params.balance} is not known; valid with it: balance: none, class_weight"
        )
    if params.validation_size == 0:
        raise LeafError(f"{name}: validation_size: 0; valid: {_SIZE}, early stopping needs some")
    if params.fold >= max(params.folds, 1):
        valid = f"0 to {params.folds - 1}, folds is {params.folds}" if params.folds else "0, folds are off"
        raise LeafError(f"{name}: fold: {params.fold}; valid: {valid}")
    return params


def check_threshold(threshold: float | str, classes: int, where: str = "") -> None:
    """Raise LeafError for any threshold but 0.5 where there are more `classes` than two."""
    if classes > 2 and threshold != 0.5:
        raise LeafError(f"{where}threshold: {threshold}; valid for {classes} classes: 0.5, the likeliest is predicted")


def load(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check a whole params.yaml."""
    return validate(read_yaml(path) or {}, str(path))


def read_params(stage: str) -> Params:
    """The parameters of one stage: params.yaml checked whole, then only the keys that dvc.yaml lists for `stage`.

    The model that comes back has the types of `Params` and no other keys than those: any other is an AttributeError.
    """
    listed = read_yaml(PIPELINE_FILE)["stages"][stage].get("params", [])
    if {PARAMS_FILE: None} in listed:  # the stage depends on the whole file
        return load()
    keys = [key for key in listed if isinstance(key, str)]  # a mapping names keys of another file, as code.json
    return cast(Params, _only(load(), keys, stage))


def _only(group: Group, listed: Sequence[str], name: str) -> Group:
    """A model of the fields of `group` that are listed, with those of its groups as `GROUP.KEY`."""
    kept: dict[str, Any] = {}
    for key in dict.fromkeys(key.partition(".")[0] for key in listed):
        value = getattr(group, key)
        inner = [rest for first, _, rest in (key.partition(".") for key in listed) if first == key and rest]
        kept[key] = _only(value, inner, key) if inner else value
    fields: dict[str, Any] = dict.fromkeys(kept, (Any, ...))
    return create_model(name, __base__=Group, **fields).model_construct(**kept)


@cache
def keys(kind: type[BaseModel] = Params, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every leaf key by its dotted name: `default`, `valid` and `why`, for errors and the documentation."""
    table: dict[str, dict[str, Any]] = {}
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            table |= keys(annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        default = field.default if field.default is not PydanticUndefined else None
        valid = extra["valid"] if isinstance(extra, dict) else ""
        table[prefix + name] = {"default": default, "valid": valid, "why": field.description}
    return table


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys: `{"learning_rate": {"base": 1}}` becomes `{"learning_rate.base": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) and key not in keys() else {key: value}
    return flat


def _first_mistake(error: ValidationError, values: dict[str, Any]) -> str:
    first = error.errors()[0]
    table = keys()
    parts = [str(part) for part in first["loc"]]
    groups = {key.partition(".")[0] for key in table if "." in key}
    depth = 2 if parts and parts[0] in groups else 1
    key = ".".join(parts[:depth])
    if first["type"] == "extra_forbidden":
        siblings = [name for name in table if name.startswith(f"{parts[0]}.")] if depth == 2 and len(parts) > 1 else []
        near = _closest(key, siblings or list(table))
        known = f"did you mean {near}?" if near else f"valid: {', '.join(siblings or table)}"
        return f"{key}: unknown key; {known}"
    value: Any = values
    for part in parts[:depth]:
        value = value.get(part) if isinstance(value, dict) else value
    valid = (
        table[key]["valid"] if key in table else f"a group of {', '.join(n for n in table if n.startswith(key + '.'))}"
    )
    return f"{key}: {_SHORT.repr(value)}; valid: {valid}"


def _closest(name: str, names: list[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, names, 1)), None)
