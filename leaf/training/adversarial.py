"""One update of a GAN and of the encoder that leads an image back to the generator's code.

BigGAN's losses and pace (Brock 2018): hinge loss, Adam without momentum, the discriminator at four times the
generator's rate, and the encoder with it. f-AnoGAN (Schlegl 2019) fits its encoder after the GAN; here both learn side
by side, each update one step of either, so that the score can be judged on validation after every epoch.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from leaf.networks import gan
from leaf.training.examples import Batch
from leaf.training.schedules import LearningRate

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
