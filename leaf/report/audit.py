"""Render the `leaf audit` page: each question with its answer, a figure, a table and an action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leaf.finished_run import display_names
from leaf.report.charts import Dots, Interval, scores
from leaf.report.render import fill
from leaf.report.svg import plural, with_interval

Found = Mapping[str, Any]
"""Contents of metrics/audit.json."""

IN_PIXELS = {
    "border_pixels": "eight border pixels",
    "frame": "frame colors",
    "background": "background colors",
    "colour": "mean color",
    "sharpness": "sharpness",
}
IN_FILE = {
    "dimensions": "width and height",
    "jpeg": "compression",
    "file_size": "file size",
    "camera": "camera",
    "date": "date and hour",
    "order": "position by name",
    "name": "file name",
}
_SHOWN = 14  # maximum rows in a figure
MATTERS = 0.02  # loss of accuracy above which an action is needed


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        state: `found` (needs an action), `clear` or `open` (cannot be answered with this data).
        table: rows of cells, starting with the header.
    """

    question: str
    state: str
    said: str
    do: str
    rows: list[Interval] = field(default_factory=list)
    note: str = ""
    table: list[list[str]] = field(default_factory=list)

    @property
    def dots(self) -> Dots | None:
        return scores(self.rows[:_SHOWN]) if self.rows else None


def audit_summary(found: Found) -> tuple[str, list[str]]:
    """Return the audit page and one line per question."""
    answers = [answer(found) for answer in (_pixels, _file, _use, _transport, _leaks, _labels, _new)]
    count = sum(answer.state == "found" for answer in answers)
    title = f"{count} of {len(answers)} questions {'needs' if count == 1 else 'need'} an action"
    page = fill("audit.html.j2", {"title": title, "answers": answers, "found": found})
    return page, [f"{number}. {each.question} {each.said}" for number, each in enumerate(answers, 1)]


def _row(name: str, score: Found, kind: str = "first") -> Interval:
    return Interval(name, score["accuracy"], score["low"], score["high"], kind)


def _span(score: Found) -> str:
    return with_interval(score["accuracy"], score["low"], score["high"])


def _loss(score: Found) -> str:
    value, low, high = (f"{100 * score[key]:.1f}" for key in ("accuracy", "low", "high"))
    return f"a loss of {value} points (95% CI {low} to {high})"


def _matters(score: Found) -> bool:
    return score["low"] > 0 and score["accuracy"] > MATTERS


def _shortcuts(
    found: Found, names: Mapping[str, str], references: list[Interval], question: str, do: str, note: str
) -> Answer:
    """Answer whether the shortcuts in `names` reveal the class."""
    known = [(words, found["shortcuts"][name]) for name, words in names.items() if name in found["shortcuts"]]
    tested = dict(sorted(known, key=lambda each: -each[1]["accuracy"]))
    if not tested:
        return Answer(question, "open", "Nothing is known about them.", do, references, note)
    rows = [_row(words, score, "second" if score["alarm"] else "gone") for words, score in tested.items()]
    table = [["predicted from", "images", "accuracy", "balanced accuracy", "largest class"]]
    for words, each in tested.items():
        table.append([words, f"{each['images']:,}", _span(each), f"{each['balanced']:.1%}", f"{each['majority']:.1%}"])
    alarms = [(words, score) for words, score in tested.items() if score["alarm"]]
    said = f"No: none of {len(tested)} features predicts better than the largest class."
    if alarms:
        (best, score), *others = alarms
        more = "".join(f"; {words} {each['accuracy']:.1%}" for words, each in others)
        said = f"Yes: {best} alone classifies {_span(score)} of the images correctly{more}. "
        said += f"Always predicting the largest class: {score['majority']:.1%}."
    return Answer(question, "found" if alarms else "clear", said, do, rows + references, note, table)


def _majority(found: Found) -> Interval:
    return _row("largest class", found["shortcuts"]["majority"], "gone")


def _pixels(found: Found) -> Answer:
    models = {"finished model": found["model"], "linear head on its features": found["linear"]}
    return _shortcuts(
        found,
        IN_PIXELS,
        [*(_row(name, score, "ink") for name, score in models.items()), _majority(found)],
        "Do pixels outside the leaf reveal the class?",
        "Photograph all classes with the same background and light, or cut out the leaves. Then test the model "
        "on images from elsewhere.",
        "Color and sharpness also describe the leaf, as does the frame if leaves fill the image.",
    )


def _file(found: Found) -> Answer:
    return _shortcuts(
        found,
        IN_FILE,
        [_majority(found)],
        "Does the file reveal the class?",
        "The classes were collected differently, and the pixels may show it. Save all images with the same program and "
        "quality, and mix days and cameras within each class.",
        "The network does not use the name, date or size, but they show how the classes were collected.",
    )


_ALTERED = {
    "unchanged": "unchanged",
    "frame_same": "frame of the same class",
    "frame": "frame of another class",
    "centre": "center of another class",
    "colour": "gray image",
    "background": "gray background",
}


def _use(found: Found) -> Answer:
    scores, question = found["network"], "Does the network use the background?"
    if not scores:
        return Answer(question, "open", "The test images have a single class.", "Test on more images.")
    rows = [_row(words, scores[key]) for key, words in _ALTERED.items() if key in scores]
    used = _matters(scores["frame_use"])
    said = (
        f"{'Yes' if used else 'Not measurably'}: accuracy is {scores['frame_same']['accuracy']:.1%} with the frame of "
        f"another image of the same class and {scores['frame']['accuracy']:.1%} with the frame of another class, "
        f"{_loss(scores['frame_use'])}."
    )
    share = scores["evidence"]
    places = {"centre": "in the center", "leaf": "on the leaf"}
    note = "; ".join(
        f"{share[key]:.1%} of the heatmap intensity lies {words}, which covers {share[f'{key}_area']:.1%} of the area"
        for key, words in places.items()
        if key in share
    )
    do = "Vary backgrounds in training (crops, augmentation.background), and check the heatmaps in the report."
    return Answer(question, "found" if used else "clear", said, do, rows, note + ".")


def _transport(found: Found) -> Answer:
    question = "Does it work elsewhere?"
    tested = {(column, value): one for column, each in found["transport"].items() for value, one in each.items()}
    if not tested:
        columns = ", ".join(found["transport"]) or "any column"
        said = f"Cannot be tested by {columns}: no value has two classes that also occur elsewhere."
        do = "Add a column site, camera, date or crop to the label table, or use classes that several values share."
        return Answer(question, "open", said, do, note=" ".join(found["dates"]))
    rows = []
    table = [["left out", "images", "largest class", "inside", "balanced", "left out", "balanced", "points lost"]]
    for (_, value), one in sorted(tested.items(), key=lambda each: -each[1]["drop"]["accuracy"]):
        rows += [_row(f"Inside: {value}", one["inside"]), _row(f"Left out: {value}", one["outside"], "second")]
        ways = [cell for way in ("inside", "outside") for cell in (_span(one[way]), f"{one[f'balanced_{way}']:.1%}")]
        lost = "{:.1f} ({:.1f} to {:.1f})".format(*(100 * one["drop"][key] for key in ("accuracy", "low", "high")))
        table.append([value, f"{one['images']:,}", f"{one['majority']:.1%}", *ways, lost])
    (column, value), worst = max(tested.items(), key=lambda each: each[1]["drop"]["accuracy"])
    bad = _matters(worst["drop"])
    name = value if found["guessed"] else f"{column} {value}"
    who = "the retrained network" if found["trained"] else "a linear head"
    said = (
        f"{'No' if bad else 'As far as tested, yes'}: without {name} in training, the accuracy of {who} on it is "
        f"{worst['outside']['accuracy']:.1%} instead of {worst['inside']['accuracy']:.1%}, "
        f"{_loss(worst['drop'])}. Its largest class makes up {worst['majority']:.1%} of it."
    )
    guess = "The backgrounds are estimated as clusters of frame colors, because no such column was found."
    missing = f"Not found in tables or EXIF: {', '.join(found['not_said'])}."
    notes = [guess] * found["guessed"] + found["dates"] + [missing] * bool(found["not_said"])
    do = "Expect the lower accuracy at a new place. Take images of each class at several places and on several days."
    return Answer(question, "found" if bad else "clear", said, do, rows, " ".join(notes), table)


def _leaks(found: Found) -> Answer:
    leak, given, splits = found["leak"], found["groups_given"], found["given_splits"]
    split = any(splits[key] for key in ("photographs", "crops", "groups"))
    said = f"{leak['sentence'].replace('this recipe', 'a linear head')} {given['without']:,} of {given['of']:,} images "
    said += f"have no group. Found {plural(splits['all_crops'], 'pair')} of crops of one photo."
    if splits["images"]:
        said += (
            f" The given splits share {plural(splits['photographs'], 'photo')}, "
            f"{plural(splits['crops'], 'pair')} of crops and {plural(splits['groups'], 'group')}."
        )
    note = "The gain applies to a random split; the pipeline keeps groups together"
    note += "; it keeps shared images in test before validation, and in validation before train" if split else ""
    return Answer(
        "Do copies or groups raise the accuracy?",
        "found" if leak["low"] > 0 or split else "open" if given["without"] == given["of"] else "clear",
        said,
        "Add a column group with the plant or field of each image, so that its images stay in one split.",
        note=note + ".",
    )


def _labels(found: Found) -> Answer:
    issues, of, conflicts = found["labels"]["suspicious"], found["labels"]["images"], found["conflicts"]
    said = f"{issues:,} of {of:,} labels look wrong to a linear head; "
    said += f"{plural(conflicts, 'set')} of copies with different labels."
    return Answer(
        "Are the labels correct?",
        "found" if issues or conflicts else "clear",
        said,
        "Check each with leaf review.",
        note=f"The head's error is {1 - found['linear']['accuracy']:.1%}, so not all of these labels are wrong.",
    )


def _new(found: Found) -> Answer:
    question, tested = "Does it detect an unknown class?", found["new_class"]
    if not tested:
        return Answer(question, "open", "Every class has too few images to be left out.", "Add images.")
    tested = dict(zip(display_names(list(tested)), tested.values(), strict=True))
    order = sorted(tested.items(), key=lambda each: each[1]["caught"]["accuracy"])
    (worst, least), (best, most) = order[0], order[-1]
    bad = least["caught"]["accuracy"] < 0.5
    said = (
        f"{'Rarely' if bad else 'Mostly'}: at a false-alarm rate of 1%, the detector flags "
        f"{least['caught']['accuracy']:.1%} of {worst} and {most['caught']['accuracy']:.1%} of {best}, each "
        "left out of training."
    )
    rows = [_row(name, one["auroc"]) for name, one in order]
    if bare := found.get("without_leaf"):
        said += f" It flags {bare['caught']['accuracy']:.1%} of {bare['images']:,} images with the leaf removed."
        rows = [_row("background only", bare["auroc"], "ink"), *rows]
    do = "Do not use it for other plants or diseases: it predicts a known class. Add a class for anything else."
    note = "The figure shows the AUROC: 50% is chance, 100% separates all unknown from all known images."
    if "corners_flagged" in found["network"]:
        corners, known = (found["network"][key]["accuracy"] for key in ("corners_flagged", "flagged"))
        note += f" The model flags {corners:.1%} of enlarged corners and {known:.1%} of the test images."
    return Answer(question, "found" if bad else "clear", said, do, rows, note)
