"""Fit a detector to the healthy images: an auto-encoder or a GAN, with the epochs, state and curves of `train`.

Only images of the first class teach it. The two constants between score and logits are fitted, after each epoch, to
the scores of the labelled validation images, and the best epoch goes by them: as a threshold or a temperature does,
they use validation labels, never test's.
"""

from collections.abc import Callable
from dataclasses import asdict
from statistics import fmean
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from sklearn.linear_model import LogisticRegression

from leaf import networks
from leaf.errors import LeafError
from leaf.networks import gan
from leaf.training import dataset as cutting
from leaf.training.augmentation import augment
from leaf.training.callbacks import Bar, Patience, ask, figures
from leaf.training.dataset import Batch, Examples
from leaf.training.optimizer import LearningRate, one_line_memory, schedule
from leaf.training.recipe import Recipe
from leaf.training.state import Keeper, State
from leaf.training.trainer import Result, Row, run_epochs

_SAMPLE = 256  # training examples on which an epoch's training accuracy is measured
_LEAST_SCALE = 1e-3  # an image never counts as healthier for being reconstructed worse


class Learner(Protocol):
    """One kind of detector under training."""

    def update(self, batch: Batch, epoch: int, step: int) -> float:
        """Learn from a batch of healthy images; the reconstruction's loss."""

    def variables(self) -> list[Any]:
        """All that changes beside the model's own variables."""

    def finish(self) -> None:
        """Leave the model as one just built."""


class Reconstructing:
    """An auto-encoder under training: mean square of what it cannot give back."""

    def __init__(self, model: keras.Model, rate: LearningRate) -> None:
        self.inner = keras.Model(model.input, model.get_layer("residual").output)
        self.inner.compile(keras.optimizers.Adam(rate), "mse")
        self.inner.optimizer.build(self.inner.trainable_variables)

    def update(self, batch: Batch, _epoch: int, _step: int) -> float:
        """Learn from a batch; its loss."""
        return float(self.inner.train_on_batch(batch.images, np.zeros_like(batch.images)))

    def variables(self) -> list[Any]:
        """The optimizer's."""
        return self.inner.optimizer.variables

    def finish(self) -> None:
        """Nothing to put back."""


def train_detector(
    model: keras.Model,
    examples: Examples,
    validation: Examples,
    recipe: Recipe,
    *,
    keeper: Keeper | None = None,
    follow: Callable[[Row], None] | None = None,
    quiet: bool | None = None,
) -> Result:
    """Fit the detector `model` to the first class of `examples`; afterwards it holds the best epoch's weights.

    Takes and gives what `fitting.train` does. Of the recipe it uses seed, batch_size, epochs, patience, monitor,
    learning_rate and augmentation; the optimizer is Adam. In the history `loss` is the reconstruction's (mean square,
    image in −1..1) on healthy training images, `accuracy` that on a fixed sample of 256 training images.

    Raises:
        LeafError: where no healthy image is there to learn from, a loss is not finite, or memory does not suffice.
        SystemExit: status 143 after SIGTERM, the last finished epoch being kept.
    """
    return run_epochs(_Run(model, examples, validation, recipe), recipe.epochs, keeper, follow, quiet)


def fit_constants(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit scale and threshold of the logits scale · (score − threshold) by logistic regression.

    Args:
        scores: (N,), the larger the less healthy.
        labels: (N,) 0 or 1, both present.

    Returns:
        Scale (above 0) and threshold, in units of the score.
    """
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    fitted = LogisticRegression(C=1e4).fit(((scores - middle) / spread)[:, None], labels)
    slope = max(float(fitted.coef_[0, 0]), _LEAST_SCALE)
    return slope / spread, middle - float(fitted.intercept_[0]) * spread / slope


class _Run:
    """A training under way: all that changes from epoch to epoch."""

    def __init__(self, model: keras.Model, examples: Examples, validation: Examples, recipe: Recipe) -> None:
        self.model, self.validation, self.recipe = model, validation, recipe
        self.healthy, self.sample = _healthy(examples), _sampled(examples, recipe.seed)
        self.steps = cutting.steps_per_epoch(len(self.healthy), recipe.batch_size)
        self.augment = augment(recipe.augmentation, recipe.seed)
        self.rate = schedule(recipe, 2, self.steps, len(self.healthy))
        self.learner = _learner(model, self.rate, recipe.seed)
        self.patience = Patience(recipe.monitor, recipe.patience)
        self.history: list[Row] = []
        self.best: list[np.ndarray] = []

    @property
    def epoch(self) -> int:
        """The last finished epoch."""
        return len(self.history)

    @property
    def over(self) -> bool:
        return self.epoch >= self.recipe.epochs or self.patience.over

    def one_epoch(self, bar: Bar, after_step: Callable[[], None]) -> Row:
        epoch, losses = self.epoch + 1, []
        recipe = self.recipe
        for step, batch in enumerate(
            cutting.batches(self.healthy, recipe.batch_size, recipe.seed, epoch, augment=self.augment)
        ):
            with one_line_memory(
                lambda: (
                    f"batch_size: memory does not hold a step of {recipe.batch_size} images; "
                    f"set batch_size to less, for example {max(1, recipe.batch_size // 2)}"
                )
            ):
                losses.append(self.learner.update(batch, epoch, step))
            if not np.isfinite(losses[-1]):
                raise LeafError(
                    f"training: a loss that is not finite in epoch {epoch}, step {step + 1} of {self.steps}; "
                    "lower learning_rate.max, or set precision to float32"
                )
            bar.step(epoch, fmean(losses), float("nan"))
            after_step()
        self._calibrate()
        row = {
            "epoch": epoch,
            "loss": fmean(losses),
            "accuracy": figures(self.model, self.sample, recipe.batch_size)["accuracy"],
            **{f"validation_{k}": v for k, v in figures(self.model, self.validation, recipe.batch_size).items()},
            "learning_rate": float(self.rate((epoch * self.steps - 1) * recipe.accumulation)),
            "phase": 2,
        }
        self.history.append(row)
        if self.patience.better(row):
            self.best = self.model.get_weights()
        return row

    def state(self) -> State:
        """Everything that `restore` needs, as arrays and plain values."""
        arrays = {"model": self.model.variables, "learner": self.learner.variables()}
        kept = {name: [keras.ops.convert_to_numpy(value) for value in values] for name, values in arrays.items()}
        return State({"history": list(self.history), "patience": asdict(self.patience)}, {**kept, "best": self.best})

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.history, self.best = state.notes["history"], state.arrays["best"]
        self.patience = Patience(**state.notes["patience"])
        for name, variables in (("model", self.model.variables), ("learner", self.learner.variables())):
            for variable, value in zip(variables, state.arrays[name], strict=True):
                variable.assign(value)

    def result(self) -> Result:
        self.model.set_weights(self.best)
        self.learner.finish()
        best = self.history[self.patience.best_epoch - 1]
        return Result(self.history, best, "early" if self.patience.over else "epochs", self.steps)

    def _calibrate(self) -> None:
        networks.calibrate(self.model, 1.0, 0.0)
        scores = ask(self.model, self.validation, self.recipe.batch_size)[:, 1]  # with these constants, the score
        networks.calibrate(self.model, *fit_constants(scores, self.validation.all_labels))


def _learner(model: keras.Model, rate: LearningRate, seed: int) -> Learner:
    return Adversarial(model, rate, seed) if model.name == "gan" else Reconstructing(model, rate)


def _healthy(examples: Examples) -> Examples:
    """The examples of the first class."""
    real = examples.labels == 0
    if not real.any():
        raise LeafError("training: no image of the first class; a detector learns from those alone")
    if examples.synthetic is None or examples.synthetic_labels is None:
        return Examples(examples.images, examples.rows[real], examples.labels[real])
    made = np.flatnonzero(examples.synthetic_labels == 0)
    return Examples(
        examples.images,
        examples.rows[real],
        examples.labels[real],
        examples.synthetic[made],
        examples.synthetic_labels[made],
    )


def _sampled(examples: Examples, seed: int) -> Examples:
    """A fixed part of the real examples."""
    chosen = np.random.default_rng(seed).permutation(len(examples.rows))[:_SAMPLE]
    return Examples(examples.images, examples.rows[chosen], examples.labels[chosen])


_FASTER = 4  # times the generator's rate


class Adversarial:
    """A GAN of `leaf.networks.gan` under training."""

    def __init__(self, model: keras.Model, rate: LearningRate, seed: int) -> None:
        self.seed = seed
        self.encoder, self.generator = model.get_layer("encoder"), model.get_layer("generator")
        self.critic = gan.discriminator(model, seed)
        code = keras.Input((gan.LATENT,))
        self.fooling = keras.Model(code, self.critic(self.generator(code)))
        left = [model.get_layer(name).output for name in ("residual", "difference")]
        self.inverting = keras.Model(model.input, left)
        faster = LearningRate(**{**rate.get_config(), "base": rate.base * _FASTER, "max": rate.max * _FASTER})
        self._compile(self.critic, self.critic, faster, 0.0, hinge)
        self._compile(self.fooling, self.generator, rate, 0.0, fooled)
        self._compile(self.inverting, self.encoder, faster, 0.9, "mse")

    def update(self, batch: Batch, epoch: int, step: int) -> float:
        """Update discriminator, generator and encoder once each; the encoder's loss, NaN if any of them has a NaN."""
        random = np.random.default_rng([self.seed, epoch, step])
        codes = random.standard_normal((2, len(batch.images), gan.LATENT), np.float32)
        drawn = np.asarray(self.generator.predict_on_batch(codes[0]), np.float32)
        true = batch.images / np.float32(127.5) - 1
        sides = np.repeat(np.array([1, -1], np.float32), len(true))
        self._teach(self.critic)
        critic_loss = self.critic.train_on_batch(np.concatenate([true, drawn]), sides)
        self._teach(self.generator)
        fooling_loss = self.fooling.train_on_batch(codes[1], sides[: len(true)])
        self._teach(self.encoder)
        nothing = [np.zeros((len(true), *output.shape[1:]), np.float32) for output in self.inverting.outputs]
        inverting_loss = self.inverting.train_on_batch(batch.images, nothing, return_dict=True)["loss"]
        finite = np.isfinite(critic_loss) and np.isfinite(fooling_loss)
        return float(inverting_loss) if finite else float("nan")

    def variables(self) -> list[Any]:
        """The discriminator's last layer and three optimizers: what is not among the model's own variables."""
        optimizers = [part.optimizer.variables for part in (self.critic, self.fooling, self.inverting)]
        return [*self.critic.weights, *(variable for variables in optimizers for variable in variables)]

    def finish(self) -> None:
        """Let every part learn again, as in a network just built."""
        for part in (self.encoder, self.generator, self.critic):
            part.trainable = True

    def _compile(
        self, whole: keras.Model, learner: keras.Model, rate: LearningRate, momentum: float, loss: Any
    ) -> None:
        self._teach(learner)
        whole.compile(keras.optimizers.Adam(rate, beta_1=momentum, beta_2=0.999), loss)
        whole.optimizer.build(whole.trainable_variables)

    def _teach(self, learner: keras.Model) -> None:
        """Let one part learn and no other; Keras reads this when it compiles a step and, on JAX, at each step."""
        for part in (self.encoder, self.generator, self.critic):
            part.trainable = part is learner


def hinge(sides: Any, said: Any) -> Any:
    """Hinge loss of the discriminator: `sides` is 1 for a true image and −1 for a drawn one."""
    return ops.mean(ops.relu(1.0 - ops.reshape(sides, (-1,)) * ops.reshape(said, (-1,))))


def fooled(_sides: Any, said: Any) -> Any:
    """Loss of the generator: the less the discriminator believes it, the larger."""
    return -ops.mean(said)
