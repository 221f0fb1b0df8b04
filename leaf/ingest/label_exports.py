"""Read the exports of Label Studio and CVAT as rows of a label table."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from leaf.errors import LeafError
from leaf.ingest.label_tables import single


class _Value(BaseModel):
    choices: list[str] | None = None


class _Result(BaseModel):
    from_name: str = "choice"
    value: _Value = _Value()


class _Annotation(BaseModel):
    was_cancelled: bool = False
    result: list[_Result] = []


class _Task(BaseModel):
    model_config = ConfigDict(extra="allow")

    data: dict[str, Any] | None = None
    annotations: list[_Annotation] = []


def read_label_studio(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return the header and rows of a Label Studio export (JSON or JSON-MIN), or of any list of flat objects.

    Each choice control becomes a column, named `choice` if it is the only one. Skipped annotations are ignored.
    """
    try:
        tasks = TypeAdapter(list[_Task]).validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        raise LeafError(f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from None
    except RecursionError:
        raise LeafError(f"{path}: nested too deeply.") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "top level"
        raise LeafError(
            f"{path}: {where}: {error.errors()[0]['msg']}. Use a JSON export of Label Studio, or a CSV table."
        ) from None
    controls = sorted({each.from_name for task in tasks for each in _results(task) if each.value.choices})
    records = []
    for task in tasks:
        record = {key: _cell(value) for key, value in (task.data or task.model_extra or {}).items()}
        for control in controls:
            choices = [
                name for each in _results(task) if each.from_name == control for name in each.value.choices or []
            ]
            record["choice" if len(controls) == 1 else control] = single(choices)
        records.append(record)
    return _rows(records)


def _results(task: _Task) -> list[_Result]:
    return [result for each in task.annotations if not each.was_cancelled for result in each.result]


def _cell(value: Any) -> str | None:
    """Return the text of a value, or None for a structure that is not a choice."""
    if isinstance(value, dict) and set(value) == {"choices"}:
        value = value["choices"]
    if isinstance(value, list):
        return single(value) if all(isinstance(item, str) for item in value) else None
    return None if isinstance(value, dict) else "" if value is None else str(value)


def read_cvat(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return the header and rows of CVAT's annotations.xml: each image's tag, attributes and subset."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LeafError(f"{path}: XML with entities. Use annotations.xml as CVAT exports it.")
    try:
        images = list(ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text)).iter("image"))  # noqa: S314
    except ElementTree.ParseError as error:
        raise LeafError(f"{path}: line {error.position[0]}: not XML ({error})") from None
    if not any(image.find("tag") is not None for image in images):
        raise LeafError(f"{path}: no image has a tag. Label images with tags; boxes and masks are not read.")
    records = []
    for image in images:
        attributes = {each.get("name", ""): each.text or "" for each in image.iterfind("tag/attribute")}
        subset = image.get("subset", "default")
        record = attributes | {
            "file": image.get("name", ""),
            "tag": single(tag.get("label", "") for tag in image.iter("tag")),
        }
        records.append(record | ({} if subset == "default" else {"subset": subset}))
    return _rows(records)


def _rows(records: Sequence[Mapping[str, str | None]]) -> list[tuple[int, list[str]]]:
    names = list(dict.fromkeys(key for record in records for key, value in record.items() if value is not None))
    return [
        (1, names),
        *((number, [record.get(name) or "" for name in names]) for number, record in enumerate(records, 1)),
    ]
