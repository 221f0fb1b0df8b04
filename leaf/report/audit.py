"""Render the page that `leaf audit` writes: questions, each with an answer, a chart, a table and an action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leaf.errors import plural
from leaf.finished_run import display_names
from leaf.report.charts import Dots, Interval, scores, with_interval
from leaf.report.render import fill

Found = Mapping[str, Any]
"""The contents of metrics/audit.json."""

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
_SHOWN = 14  # maximum number of rows in a chart
MATTERS = 0.02  # minimum loss of accuracy that requires action


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        state: `found` (action required), `clear` (no problem found) or `open` (not enough data to answer).
        action: what the user can do.
        rows: scores shown in the chart.
        table: rows of cells; the first row is the header.
    """

    question: str
    state: str
    answer: str
    action: str
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
    title = f"{count} of {len(answers)} questions {'requires' if count == 1 else 'require'} action"
    page = fill("audit.html.j2", {"title": title, "answers": answers, "found": found})
    return page, [f"{number}. {each.question} {each.answer}" for number, each in enumerate(answers, 1)]


def _row(name: str, score: Found, kind: str = "first") -> Interval:
    return Interval(name, score["accuracy"], score["low"], score["high"], kind)


def _span(score: Found) -> str:
    return with_interval(score["accuracy"], score["low"], score["high"])


def _loss(score: Found) -> str:
    sign, word = (100, "loss") if score["accuracy"] >= 0 else (-100, "gain")
    low, high = sorted(sign * score[key] for key in ("low", "high"))
    return f"a {word} of {sign * score['accuracy']:.1f} points (95% CI {low:.1f} to {high:.1f})"


def _matters(score: Found) -> bool:
    return score["low"] > 0 and score["accuracy"] > MATTERS


def _shortcuts(
    found: Found, names: Mapping[str, str], models: Mapping[str, Found], question: str, action: str, note: str
) -> Answer:
    """Answer whether the shortcuts in `names` reveal the class. The chart also shows the scores of `models`."""
    references = [_row(name, score, "ink") for name, score in models.items()]
    references.append(_row("largest class", found["shortcuts"]["majority"], "gone"))
    known = [(words, found["shortcuts"][name]) for name, words in names.items() if name in found["shortcuts"]]
    tested = dict(sorted(known, key=lambda each: -each[1]["accuracy"]))
    if not tested:
        return Answer(question, "open", "There are too few images or no metadata to test.", action, references, note)
    rows = [_row(words, score, "second" if score["alarm"] else "gone") for words, score in tested.items()]
    table = [["predicted from", "images", "accuracy", "balanced accuracy", "largest class"]]
    for words, each in tested.items():
        table.append([words, f"{each['images']:,}", _span(each), f"{each['balanced']:.1%}", f"{each['majority']:.1%}"])
    alarms = [(words, score) for words, score in tested.items() if score["alarm"]]
    none = f"none of {len(tested)} features predicts" if len(tested) > 1 else "the only feature tested does not predict"
    answer = f"No: {none} better than always choosing the largest class."
    if alarms:
        (best, score), *others = alarms
        more = "".join(f"; {words} {each['accuracy']:.1%}" for words, each in others)
        answer = f"Yes: from {best} alone, {_span(score)} of the images are classified correctly{more}. "
        answer += f"Always choosing the largest class: {score['majority']:.1%}."
    return Answer(question, "found" if alarms else "clear", answer, action, rows + references, note, table)


def _pixels(found: Found) -> Answer:
    return _shortcuts(
        found,
        IN_PIXELS,
        {"finished model": found["model"], "linear head on its features": found["linear"]},
        "Do pixels outside the leaf reveal the class?",
        "Photograph all classes against the same background in the same light, or cut out the leaves. Then test the "
        "model on images from elsewhere.",
        "The frame is the outer 10% of the image on each side. Color and sharpness also depend on the leaf, and so "
        "does the frame if leaves fill the image.",
    )


def _file(found: Found) -> Answer:
    return _shortcuts(
        found,
        IN_FILE,
        {},
        "Does file metadata reveal the class?",
        "The classes were collected differently, so the pixels may reveal the class too. Save all images with the same "
        "program and quality, and use several days and cameras for each class.",
        "The network does not see file metadata, but the metadata shows whether classes were collected differently.",
    )


_ALTERED = {
    "unchanged": "unchanged",
    "frame_same": "frame from the same class",
    "frame": "frame from another class",
    "centre": "center from another class",
    "colour": "gray image",
    "background": "gray background",
}


def _use(found: Found) -> Answer:
    scores, question = found["network"], "Does the network use the background?"
    if not scores:
        return Answer(question, "open", "All test images belong to one class.", "Test on more images.")
    rows = [_row(words, scores[key]) for key, words in _ALTERED.items() if key in scores]
    used = _matters(scores["frame_use"])
    answer = (
        f"{'Yes' if used else 'Not measurably'}: the accuracy is {scores['frame_same']['accuracy']:.1%} with a frame "
        f"from another image of the same class and {scores['frame']['accuracy']:.1%} with a frame from another class, "
        f"{_loss(scores['frame_use'])}."
    )
    share = scores["evidence"]
    places = {"centre": "in the center", "leaf": "on the leaf"}
    note = "; ".join(
        f"{share[key]:.1%} of the heatmap intensity is {words}, which covers {share[f'{key}_area']:.1%} of the area"
        for key, words in places.items()
        if key in share
    )
    action = "Vary the backgrounds in training (crops, augmentation.background), and check the heatmaps in the report."
    return Answer(question, "found" if used else "clear", answer, action, rows, note + ".")


def _transport(found: Found) -> Answer:
    question = "Does the model work elsewhere?"
    tested = {(column, value): one for column, each in found["transport"].items() for value, one in each.items()}
    if not tested:
        columns = " or ".join(found["transport"]) or "any column"
        answer = f"Cannot be tested by {columns}: no value has at least two classes that also occur with other values."
        action = (
            "Add a site, camera, date or crop column to the label table, or collect several classes for each value."
        )
        return Answer(question, "open", answer, action, note=" ".join(found["dates"]))
    rows = []
    table = [["value", "images", "largest class", "included", "balanced", "left out", "balanced", "points lost"]]
    for (_, value), one in sorted(tested.items(), key=lambda each: -each[1]["drop"]["accuracy"]):
        rows += [_row(f"Included: {value}", one["inside"]), _row(f"Left out: {value}", one["outside"], "second")]
        ways = [cell for way in ("inside", "outside") for cell in (_span(one[way]), f"{one[f'balanced_{way}']:.1%}")]
        lost = "{:.1f} ({:.1f} to {:.1f})".format(*(100 * one["drop"][key] for key in ("accuracy", "low", "high")))
        table.append([value, f"{one['images']:,}", f"{one['majority']:.1%}", *ways, lost])
    (column, value), worst = max(tested.items(), key=lambda each: each[1]["drop"]["accuracy"])
    bad = _matters(worst["drop"])
    name = value if found["guessed"] else f"{column} {value}"
    who = "the retrained network" if found["trained"] else "a linear head"
    answer = (
        f"{'No' if bad else 'Yes, for the tested values'}: without {name} in training, the accuracy of {who} on {name} "
        f"is {worst['outside']['accuracy']:.1%} instead of {worst['inside']['accuracy']:.1%}, "
        f"{_loss(worst['drop'])}. The largest class makes up {worst['majority']:.1%} of these images."
    )
    guess = "No site, crop, camera or date column was found, so images are grouped by the colors of their borders."
    missing = f"Not found in tables or EXIF data: {', '.join(found['not_said'])}."
    notes = [guess] * found["guessed"] + found["dates"] + [missing] * bool(found["not_said"])
    action = "Expect the lower accuracy in new places. Photograph each class in several places and on several days."
    return Answer(question, "found" if bad else "clear", answer, action, rows, " ".join(notes), table)


def _leaks(found: Found) -> Answer:
    leak, given, splits = found["leak"], found["groups_given"], found["given_splits"]
    split = any(splits[key] for key in ("photographs", "crops", "groups"))
    answer = (
        f"{leak['sentence'].replace('this recipe', 'a linear head')} Images without a group: {given['without']:,} of "
        f"{given['of']:,}. Cleaning found {plural(splits['all_crops'], 'pair')} of crops from the same photo."
    )
    if splits["images"]:
        answer += (
            f" Your own splits share {plural(splits['photographs'], 'photo')}, "
            f"{plural(splits['crops'], 'pair')} of crops and {plural(splits['groups'], 'group')}."
        )
    note = "The effect of copies and groups is measured with random splits. The pipeline keeps groups together"
    if split:
        note += (
            ". If several splits contain copies of an image, the one in test is kept, otherwise the one in validation"
        )
    return Answer(
        "Do copies or groups inflate the accuracy?",
        "found" if leak["low"] > 0 or split else "open" if given["without"] == given["of"] else "clear",
        answer,
        "Add a group column that identifies the plant or field in each image. All images of a group stay in one split.",
        note=note + ".",
    )


def _labels(found: Found) -> Answer:
    issues, of, conflicts = found["labels"]["suspicious"], found["labels"]["images"], found["conflicts"]
    answer = f"Likely label errors, found with a linear head: {issues:,} of {of:,} labels. "
    answer += f"{plural(conflicts, 'set')} of copies {'has' if conflicts == 1 else 'have'} different labels."
    return Answer(
        "Are the labels correct?",
        "found" if issues or conflicts else "clear",
        answer,
        "Check each label with leaf review.",
        note=f"The head's error rate is {1 - found['linear']['accuracy']:.1%}, so some flagged labels may be correct.",
    )


def _new(found: Found) -> Answer:
    question, tested = "Does the model detect an unknown class?", found["new_class"]
    if not tested:
        return Answer(question, "open", "No class has enough images to be left out of training.", "Add images.")
    tested = dict(zip(display_names(list(tested)), tested.values(), strict=True))
    order = sorted(tested.items(), key=lambda each: each[1]["caught"]["accuracy"])
    (worst, least), (best, most) = order[0], order[-1]
    bad = least["caught"]["accuracy"] < 0.5
    answer = (
        f"{'Rarely' if bad else 'Mostly'}: each class was left out of training in turn. At a 1% false-alarm rate, the "
        f"detector flags {least['caught']['accuracy']:.1%} ({worst}) to {most['caught']['accuracy']:.1%} ({best}) of "
        "the images of that class."
    )
    rows = [_row(name, one["auroc"]) for name, one in order]
    if bare := found.get("without_leaf"):
        answer += (
            f" The detector flags {bare['caught']['accuracy']:.1%} of {bare['images']:,} images with the leaf removed."
        )
        rows = [_row("background only", bare["auroc"], "ink"), *rows]
    action = (
        "Add a class for other plants and diseases, or do not use the model for them: it always predicts a known class."
    )
    note = "The chart shows the AUROC of the detector: 50% is chance level, 100% is perfect."
    if "corners_flagged" in found["network"]:
        corners, known = (found["network"][key]["accuracy"] for key in ("corners_flagged", "flagged"))
        note += (
            f" The model flags {corners:.1%} of enlarged image corners and {known:.1%} of the test images as unknown."
        )
    return Answer(question, "found" if bad else "clear", answer, action, rows, note)
