"""The recipe and params.yaml name the same things."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from leaf import params
from leaf.errors import LeafError
from leaf.training.recipe import Changes, Rate, Recipe

PIPELINE = Path(__file__).parents[2] / "dvc.yaml"


def test_a_recipe_takes_every_field_from_the_parameters() -> None:
    values = params.validate({"dropout": 0.2, "batch_size": 64, "learning_rate": {"base": 1e-3, "max": 1e-2}})
    recipe = Recipe.from_params(values)
    assert (recipe.batch_size, recipe.learning_rate.base, recipe.learning_rate.max) == (64, 1e-3, 1e-2)
    assert isinstance(recipe.augmentation, Changes)


def test_the_defaults_are_those_of_the_schema() -> None:
    assert Recipe.from_params(params.validate({})) == Recipe()


def test_the_pipeline_lists_every_field_for_the_stage_train() -> None:
    listed = yaml.safe_load(PIPELINE.read_text())["stages"]["train"]["params"]
    groups = {"learning_rate": Rate, "augmentation": Changes}
    names = [item.name for item in fields(Recipe) if item.name not in groups]
    names += [f"{group}.{item.name}" for group, kind in groups.items() for item in fields(kind)]
    assert set(names) <= set(listed)


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(LeafError, match="micro_batch: 5"):
        Recipe(batch_size=32, micro_batch=5)


def test_phases_part_after_the_frozen_epochs() -> None:
    recipe = Recipe(frozen_epochs=2)
    assert [recipe.phase(epoch) for epoch in (1, 2, 3)] == [1, 1, 2]
