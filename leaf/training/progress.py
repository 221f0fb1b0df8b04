"""A progress bar with loss, accuracy and time left."""

from types import TracebackType

from tqdm import tqdm


class Bar:
    """One bar over all updates of a training; early stopping may end it before it is full.

    Args:
        epochs, steps: epochs at most, and updates in each.
        done: epochs that were finished before.
        quiet: show nothing; None: show it on a terminal only.
    """

    def __init__(self, epochs: int, steps: int, done: int, quiet: bool | None) -> None:
        self.epochs = epochs
        self.bar = tqdm(total=epochs * steps, initial=done * steps, disable=quiet, unit="update", dynamic_ncols=True)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        """One more update is done; mean loss and accuracy of the epoch so far."""
        if not self.bar.disable:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.3f}", refresh=False)
        self.bar.update()
