"""The recipe takes its values, and all its defaults, from the parameters."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import yaml

from leaf import params
from leaf.train.recipe import Augmentation, Recipe

PIPELINE = Path(__file__).parents[2] / "dvc.yaml"


def test_a_recipe_takes_every_field_from_the_parameters() -> None:
    values = params.validate({"dropout": 0.2, "batch_size": 64, "learning_rate": {"base": 1e-3, "max": 1e-2}})
    recipe = Recipe.from_params(values)
    assert (recipe.batch_size, recipe.learning_rate.base, recipe.learning_rate.max) == (64, 1e-3, 1e-2)
    assert isinstance(recipe.augmentation, Augmentation)


def test_the_pipeline_lists_every_field_for_the_stage_train() -> None:
    listed = yaml.safe_load(PIPELINE.read_text())["stages"]["train"]["params"]
    assert {item.name for item in fields(Recipe)} <= set(listed)


def test_phases_part_after_the_frozen_epochs(recipe: Callable[..., Recipe]) -> None:
    frozen = recipe(frozen_epochs=2)
    assert [frozen.phase(epoch) for epoch in (1, 2, 3)] == [1, 1, 2]
