"""The page on which new images are labelled, and its API."""

from collections.abc import Callable, Collection
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from leaf.review.app import Changed, Loaded, Number, check_image, serve_pages
from leaf.review.decision_files import change, label_keys
from leaf.review.labelling import RANDOM_SHARE, Labelling


class Label(BaseModel):
    """A label for `images`: a class name, or "" to exclude them."""

    model_config = ConfigDict(extra="forbid")
    images: list[Number] = Field(min_length=1, max_length=1000)
    label: str = Field(max_length=500)
    chosen: str = Field(pattern="^(random|model|diverse|cluster|conflict)$")
    same_plant: bool = False


def create_labelling_app(
    labelling: Labelling, token: str, hosts: Collection[str] = ("*",), reload: Callable[[], Labelling] | None = None
) -> FastAPI:
    """Create the web application under `/token/`; the arguments are those of `leaf.review.app.create_app`."""
    loaded = Loaded(labelling, reload)
    app, routes = serve_pages("leaf review --unlabelled", "label.html", token, hosts, loaded)

    @routes.get("/api/state")
    def state() -> dict[str, Any]:
        """Return the next images, the counts and the learning curve."""
        current = loaded.value
        fixed = {"run": loaded.run, "classes": list(current.classes), "who": current.who}
        return {**fixed, "share": RANDOM_SHARE, "features": current.features_from, **current.state()}

    @routes.get("/api/similar/{image}")
    def similar(image: int) -> dict[str, list[int]]:
        check_image(loaded.value.images, image)
        return loaded.value.similar(image)

    @routes.post("/api/label")
    def label(given: Label) -> dict[str, Any]:
        return {"changed": loaded.value.label(given.images, given.label, given.chosen, given.same_plant)}

    @routes.post("/api/undo")
    def undo(done: Changed) -> dict[str, Any]:
        """Undo a label and restore the rows that it replaced."""
        change(loaded.value.folder, done.file, label_keys, done.replaced, done.added)
        return {}

    @routes.post("/api/retrain")
    def retrain() -> dict[str, Any]:
        """Fit the classifier to all labels and rank the images again, in the background."""
        loaded.value.retrain()
        return {"version": loaded.value.version}

    app.include_router(routes)
    return app
