"""Train an anomaly detector, an autoencoder or a GAN, on images of the first class (healthy).

After each epoch, the two constants that convert scores to logits are fitted on the labeled validation images. Early
stopping uses the resulting metrics. Test labels are never used.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.linear_model import LogisticRegression

from leaf.errors import LeafError, plural
from leaf.models import gan
from leaf.models.autoencoder import calibrate_detector
from leaf.params import Params
from leaf.train.callbacks import ProgressBar, Result, Row
from leaf.train.dataset import Batch, Dataset, batches
from leaf.train.learning_rate import Schedule, make_schedule
from leaf.train.optimizer import out_of_memory_in_one_line
from leaf.train.trainer import Training, check_finite, loss_and_accuracy, predict_logits

_SAMPLE = 256  # maximum number of real training images used to measure the training accuracy of an epoch
_SMALLEST_SCALE = 1e-3  # positive, so that the logit of "unhealthy" always increases with the score


class _AutoencoderStep:
    """Training step that minimizes the mean squared reconstruction error."""

    def __init__(self, model: keras.Model, schedule: Schedule) -> None:
        self.inner = keras.Model(model.input, model.get_layer("residual").output)
        self.inner.compile(keras.optimizers.Adam(schedule), "mse")
        self.inner.optimizer.build(self.inner.trainable_variables)

    def train_on_batch(self, batch: Batch, _seed: list[int]) -> float:
        return float(self.inner.train_on_batch(batch.images, np.zeros(batch.images.shape, np.float32)))

    def variables(self) -> list[Any]:
        return self.inner.optimizer.variables


def fit_constants(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit the logit, scale · (score − threshold), by logistic regression; return the scale (> 0) and the threshold.

    `scores` (N,) are larger for less healthy images; `labels` (N,) contain both 0 and 1.
    """
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    fitted = LogisticRegression(C=1e4).fit(((scores - middle) / spread)[:, None], labels)
    slope = max(float(fitted.coef_[0, 0]), _SMALLEST_SCALE)
    return slope / spread, middle - float(fitted.intercept_[0]) * spread / slope


class DetectorTraining(Training):
    """Training of the detector `model` on the first class of `dataset`, with Adam.

    Of the parameters, only seed, batch_size, epochs, patience, monitor, learning_rate and augmentation are used. In the
    history, `loss` is the mean squared reconstruction error on healthy training images in −1..1 (for a GAN, plus the
    mean squared difference between discriminator features), and `accuracy` is measured on a fixed sample of up to 256
    training images.
    """

    def __init__(self, model: keras.Model, dataset: Dataset, validation: Dataset, params: Params) -> None:
        super().__init__(model, _healthy(dataset), validation, params)
        real = int((dataset.rows < len(dataset.images)).sum())
        chosen = np.random.default_rng(params.seed).permutation(real)[:_SAMPLE]
        self.sample = Dataset(dataset.images, dataset.rows[chosen], dataset.labels[chosen])
        self.schedule = make_schedule(params, 2, self.steps, len(self.dataset))
        if model.name.startswith("gan"):
            self.train_step: _GanStep | _AutoencoderStep = _GanStep(model, self.schedule, params.seed)
        else:
            self.train_step = _AutoencoderStep(model, self.schedule)

    def variables(self) -> dict[str, list[Any]]:
        return {"model": self.model.variables, "train_step": self.train_step.variables()}

    def train_epoch(self, bar: ProgressBar, after_step: Callable[[], None]) -> Row:
        epoch, params, losses = self.epoch + 1, self.params, []
        size = params.batch_size
        smaller = max(1, size // 2)
        remedy = f"Use a smaller value, for example {smaller}." if size > 1 else "Reduce image_size."
        advice = f"batch_size: out of memory with {plural(size, 'image')}. {remedy}"
        for step, batch in enumerate(batches(self.dataset, params, epoch, self.augmenter)):
            with out_of_memory_in_one_line(advice):
                losses.append(self.train_step.train_on_batch(batch, [params.seed, epoch, step]))
            check_finite(losses[-1], epoch, step + 1, self.steps)
            bar.step(epoch, fmean(losses), float("nan"))
            after_step()
        calibrate_detector(self.model, 1.0, 0.0)  # with these constants, the second logit equals the score
        scores = predict_logits(self.model, self.validation, size)[:, 1]
        calibrate_detector(self.model, *fit_constants(scores, self.validation.labels))
        validated = loss_and_accuracy(self.model, self.validation, size)
        return self.finish_epoch(fmean(losses), loss_and_accuracy(self.model, self.sample, size)["accuracy"], validated)

    def result(self) -> Result:
        result = super().result()
        if isinstance(self.train_step, _GanStep):
            self.train_step.make_trainable(*self.train_step.parts)
        return result


def _healthy(dataset: Dataset) -> Dataset:
    healthy = dataset.labels == 0
    if not healthy.any():
        raise LeafError(
            "classes: no images of the first class, on which detectors are trained. List the healthy class first."
        )
    return replace(dataset, rows=dataset.rows[healthy], labels=dataset.labels[healthy])


_FASTER = 4  # learning rate of the discriminator and encoder, as a multiple of the generator's


class _GanStep:
    """Training step that updates the discriminator, generator and encoder (`leaf.models.gan`) in turn."""

    def __init__(self, model: keras.Model, schedule: Schedule, seed: int) -> None:
        self.encoder, self.generator = model.get_layer("encoder"), model.get_layer("generator")
        self.discriminator = gan.discriminator(model, seed)
        self.parts = (self.encoder, self.generator, self.discriminator)
        code = keras.Input((gan.LATENT,))
        self.adversarial = keras.Model(code, self.discriminator(self.generator(code)))
        errors = [model.get_layer(name).output for name in ("residual", "difference")]
        self.encoding = keras.Model(model.input, errors)
        faster = replace(schedule, base=schedule.base * _FASTER, max=schedule.max * _FASTER)
        self._compile(self.discriminator, self.discriminator, faster, 0.0, _hinge_loss)
        self._compile(self.adversarial, self.generator, schedule, 0.0, _generator_loss)
        self._compile(self.encoding, self.encoder, faster, 0.9, "mse")

    def train_on_batch(self, batch: Batch, seed: list[int]) -> float:
        """Update each network once and return the encoder's loss, or NaN if any loss is not finite."""
        random = np.random.default_rng(seed)
        codes = random.standard_normal((2, len(batch.images), gan.LATENT), np.float32)
        fake = np.asarray(self.generator.predict_on_batch(codes[0]), np.float32)
        real = batch.images / np.float32(127.5) - 1
        sides = np.repeat(np.array([1, -1], np.float32), len(real))
        self.make_trainable(self.discriminator)
        discriminator_loss = self.discriminator.train_on_batch(np.concatenate([real, fake]), sides)
        self.make_trainable(self.generator)
        adversarial_loss = self.adversarial.train_on_batch(codes[1], sides[: len(real)])
        self.make_trainable(self.encoder)
        zeros = [np.zeros((len(real), *output.shape[1:]), np.float32) for output in self.encoding.outputs]
        encoding_loss = self.encoding.train_on_batch(batch.images, zeros, return_dict=True)["loss"]
        finite = np.isfinite(discriminator_loss) and np.isfinite(adversarial_loss)
        return float(encoding_loss) if finite else float("nan")

    def variables(self) -> list[Any]:
        optimizers = [part.optimizer.variables for part in (self.discriminator, self.adversarial, self.encoding)]
        return [*self.discriminator.weights, *(variable for variables in optimizers for variable in variables)]

    def _compile(
        self, whole: keras.Model, learner: keras.Model, schedule: Schedule, momentum: float, loss: Any
    ) -> None:
        self.make_trainable(learner)
        whole.compile(keras.optimizers.Adam(schedule, beta_1=momentum, beta_2=0.999), loss)
        whole.optimizer.build(whole.trainable_variables)

    def make_trainable(self, *learners: keras.Model) -> None:
        """Make only `learners` trainable. Keras reads the flags when it compiles a step and, on JAX, at each step."""
        for part in self.parts:
            part.trainable = part in learners


def _hinge_loss(sides: Any, outputs: Any) -> Any:
    """Return the discriminator's hinge loss; `sides` is 1 for real and −1 for generated images."""
    return ops.mean(ops.relu(1.0 - ops.reshape(sides, (-1,)) * ops.reshape(outputs, (-1,))))


def _generator_loss(_sides: Any, outputs: Any) -> Any:
    return -ops.mean(outputs)
