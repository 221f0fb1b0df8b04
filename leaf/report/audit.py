"""The audit_summary of `leaf audit`: each question with its answer, a figure, what to do about it; no score of all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from leaf.report.charts import Interval, intervals, percent
from leaf.report.render import fill
from leaf.report.svg import Figure, both, plural

Found = Mapping[str, Any]
"""What metrics/audit.json holds."""

IN_PIXELS = {
    "border_pixels": "eight pixels of the border",
    "frame": "colours of a frame of a tenth",
    "background": "colours around the leaf",
    "colour": "mean colour",
    "sharpness": "sharpness",
}
IN_FILE = {
    "dimensions": "width and height",
    "jpeg": "compression",
    "file_size": "size of the file",
    "camera": "camera",
    "date": "date and hour",
    "order": "place by name",
    "name": "letters of the name",
}
_SHOWN = 14  # rows of a figure
MATTERS = 0.02  # a loss of accuracy that is worth doing something about


@dataclass(frozen=True)
class Answer:
    """One question: `state` is `found` (something to do), `clear` or `open` (cannot be known here)."""

    question: str
    state: str
    said: str
    do: str
    rows: list[Interval]
    note: str = ""

    @property
    def figure(self) -> Figure | None:
        if not self.rows:
            return None
        told = f"{self.question} " + "; ".join(f"{row.name}: {percent(row.value)}" for row in self.rows) + "."
        return both(lambda width: intervals(self.rows[:_SHOWN], told, width))


def audit_summary(found: Found) -> tuple[str, list[str]]:
    """The page of what an audit found, and the same as a line for each question."""
    answers = [ask(found) for ask in _QUESTIONS]
    todo = sum(answer.state == "found" for answer in answers)
    title = f"{todo} of {len(answers)} questions {'leaves' if todo == 1 else 'leave'} something to do"
    page = fill("audit.html.j2", {"title": title, "answers": answers, "found": found})
    return page, [f"{number}. {each.question} {each.said}" for number, each in enumerate(answers, 1)]


def _row(name: str, score: Found, kind: str = "first") -> Interval:
    return Interval(name, score["accuracy"], score["low"], score["high"], kind=kind)


def _span(score: Found) -> str:
    return f"{percent(score['accuracy'])} ({100 * score['low']:.1f} to {percent(score['high'])})"


def _beside(found: Found) -> list[Interval]:
    rows = [_row("the finished model", found["model"], "ink"), _row("linear head on features", found["linear"], "ink")]
    return [*rows, _row("always the largest class", found["shortcuts"]["majority"], "gone")]


def _told(found: Found, names: Mapping[str, str], what: str) -> tuple[str, str, list[Interval]]:
    """State, sentence and rows of the shortcuts `names`."""
    asked = {words: found["shortcuts"][name] for name, words in names.items() if name in found["shortcuts"]}
    asked = dict(sorted(asked.items(), key=lambda each: -each[1]["accuracy"]))
    rows = [_row(words, score, "second" if score["alarm"] else "gone") for words, score in asked.items()]
    alarms = {words: score for words, score in asked.items() if score["alarm"]}
    if not asked:
        return "open", f"Nothing is known of {what}.", []
    if not alarms:
        return "clear", f"No: {len(asked)} things were asked, none is right more often than chance allows.", rows
    (best, score), *others = alarms.items()
    more = ", ".join(f"{words} {percent(score['accuracy'])}" for words, score in others)
    said = f"Yes: by the {best} alone {_span(score)} of the labels can be told"
    return "found", f"{said}{f'; {more}' if more else ''}. {_majority(found)}", rows


def _majority(found: Found) -> str:
    return f"Always the largest class is right in {percent(found['shortcuts']['majority']['accuracy'])}."


def _pixels(found: Found) -> Answer:
    state, said, rows = _told(found, IN_PIXELS, "the pixels")
    return Answer(
        "Do pixels beside the leaf tell the label?",
        state,
        said,
        "Photograph all classes before the same background and in the same light, or cut the leaves out; then judge "
        "the model by photographs from elsewhere.",
        rows + _beside(found),
        "Colour and sharpness are the leaf's own, too, and so is the frame where leaves fill the picture.",
    )


def _file(found: Found) -> Answer:
    state, said, rows = _told(found, IN_FILE, "the files")
    return Answer(
        "Does the file tell it?",
        state,
        said,
        "The classes were collected in different ways, and the pixels may show it. Save all photographs by one program "
        "with one quality, and mix days and cameras within each class.",
        rows + _beside(found)[2:],
        "A network sees no name, date or size; they betray how the classes were collected.",
    )


_CHANGED = {
    "unchanged": "as they are",
    "frame_same": "frame of the same class",
    "frame": "frame of another class",
    "centre": "centre of another class",
    "colour": "without colour",
    "background": "background grey",
}


def _use(found: Found) -> Answer:
    scores, question = found["network"], "Does the network use what is beside the leaf?"
    if not scores:
        return Answer(question, "open", "The test images are of one class.", "Judge it on more images.", [])
    rows = [_row(words, scores[key]) for key, words in _CHANGED.items() if key in scores]
    use = scores["frame_use"]
    used = use["low"] > 0 and use["accuracy"] > MATTERS
    said = (
        f"{'Yes' if used else 'Not that it shows'}: with the frame of another image of its class it is right in "
        f"{percent(scores['frame_same']['accuracy'])}, with that of another class in "
        f"{percent(scores['frame']['accuracy'])}: {100 * use['accuracy']:.1f} points less "
        f"({100 * use['low']:.1f} to {100 * use['high']:.1f})."
    )
    share = scores["evidence"]
    note = f"Of its heat maps {percent(share['centre'])} lie in the centre, {percent(share['centre_area'])} of the area"
    if "leaf" in share:
        note += f"; {percent(share['leaf'])} on the leaf, {percent(share['leaf_area'])} of the area"
    do = "Change backgrounds in training (crops, other backgrounds), and look at the heat maps of the report."
    return Answer(question, "found" if used else "clear", said, do, rows, note + ".")


def _transport(found: Found) -> Answer:
    question = "Does it hold where it has not been?"
    asked = {(column, value): one for column, each in found["transport"].items() for value, one in each.items()}
    if not asked:
        columns = ", ".join(found["transport"]) or "no column"
        said = f"Cannot be asked by {columns}: no value has two classes that occur elsewhere, too."
        do = "Give the table a column site, camera, date or crop, or ask for classes that several of them share."
        return Answer(question, "open", said, do, [], " ".join(found["dates"]))
    rows = []
    for (_, value), one in sorted(asked.items(), key=lambda each: -each[1]["drop"]["accuracy"]):
        rows += [_row(f"{value}: inside", one["inside"]), _row(f"{value}: left out", one["outside"], "second")]
    (column, value), worst = max(asked.items(), key=lambda each: each[1]["drop"]["accuracy"])
    lost = worst["drop"]
    bad = lost["low"] > 0 and lost["accuracy"] > MATTERS
    without = value if found["guessed"] else f"{column} {value}"
    who = "the network, trained anew," if found["trained"] else "a linear head"
    said = (
        f"{'No' if bad else 'As far as was asked, yes'}: learned without {without}, {who} is right in "
        f"{percent(worst['outside']['accuracy'])} of its images, in {percent(worst['inside']['accuracy'])} when it "
        f"learned from others of them: {100 * lost['accuracy']:.1f} points lost "
        f"({100 * lost['low']:.1f} to {100 * lost['high']:.1f})."
    )
    note = "The backgrounds are a guess: clusters of the frames' colours, for no column says more. "
    note = (note if found["guessed"] else "") + _not_said(found)
    do = "Expect the lower figure at a new place, and photograph each class at several places, on several days."
    return Answer(question, "found" if bad else "clear", said, do, rows, note)


def _not_said(found: Found) -> str:
    """The columns by which it could not be asked; camera and date are sought in EXIF, too."""
    names = ", ".join(found["not_said"])
    return " ".join(
        [*found["dates"], *([f"Neither a table nor the photographs' EXIF says: {names}."] if names else [])]
    )


def _leaks(found: Found) -> Answer:
    leak, given, splits = found["leak"], found["groups_given"], found["given_splits"]
    alone = given["without"]
    torn = any(splits[key] for key in ("photographs", "crops", "groups"))
    said = f"{leak['sentence'].replace('this recipe', 'a linear head')} "
    said += f"{alone:,} of {given['of']:,} images came without a group. "
    said += f"{plural(splits['all_crops'], 'pair')} of crops of one photograph found. "
    if splits["images"]:
        said += (
            f"The splits that were given share {plural(splits['photographs'], 'photograph')}, "
            f"{plural(splits['crops'], 'pair')} of crops and {plural(splits['groups'], 'group')}."
        )
    note = "The leak is what a random split would be worth here; the pipeline keeps groups whole"
    note += ", and of what given splits share, test keeps it before validation, validation before train" if torn else ""
    return Answer(
        "Do copies or groups flatter the figure?",
        "found" if leak["low"] > 0 or torn else "open" if alone == given["of"] else "clear",
        said.strip(),
        "Name the plant or field of each photograph in a column named group: what belongs together stays in one split.",
        [],
        note + ".",
    )


def _labels(found: Found) -> Answer:
    doubtful, of, conflicts = found["labels"]["suspicious"], found["labels"]["images"], found["conflicts"]
    said = f"{doubtful:,} of {of:,} labels look wrong to a linear head; "
    said += f"{plural(conflicts, 'group')} of copies with different labels."
    return Answer(
        "Are the labels right?",
        "found" if doubtful or conflicts else "clear",
        said,
        "Look at each and rule, with leaf review.",
        [],
        f"The head itself is wrong in {percent(1 - found['linear']['accuracy'])}: not each of these labels is.",
    )


def _new(found: Found) -> Answer:
    question, asked = "Does it notice a kind that it never learned?", found["new_class"]
    if not asked:
        return Answer(question, "open", "Too few images of each class to leave one out.", "Add images.", [])
    order = sorted(asked.items(), key=lambda each: each[1]["caught"]["accuracy"])
    (worst, least), (best, most) = order[0], order[-1]
    bad = least["caught"]["accuracy"] < 0.5
    said = (
        f"{'Seldom' if bad else 'Mostly'}: at 1% false alarms the flag catches {percent(least['caught']['accuracy'])} "
        f"of {worst}, never learned, and {percent(most['caught']['accuracy'])} of {best}."
    )
    rows = [_row(name, one["auroc"]) for name, one in order]
    if bare := found.get("without_leaf"):
        said += f" Of {bare['images']:,} backgrounds, the leaf painted over, {percent(bare['caught']['accuracy'])}."
        rows = [_row("no leaf, its background", bare["auroc"], "ink"), *rows]
    do = "Do not show it other plants or diseases: it answers with one that it knows. Add a class for what may come."
    return Answer(
        question,
        "found" if bad else "clear",
        said,
        do,
        rows,
        "Shown is the area under the ROC: 50% is chance, 100% parts every new image from every known one."
        + _corners(found["network"]),
    )


def _corners(network: Found) -> str:
    if "corners_flagged" not in network:
        return ""
    corners, known = network["corners_flagged"]["accuracy"], network["flagged"]["accuracy"]
    said = f" Of the images' corners, enlarged, the model's flag catches {percent(corners)}"
    return f"{said}, of the images themselves {percent(known)}."


_QUESTIONS: list[Callable[[Found], Answer]] = [_pixels, _file, _use, _transport, _leaks, _labels, _new]
