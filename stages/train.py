"""Train the network and save the model of the best epoch, along with history.csv, run.json and the DVCLive curves."""

from contextlib import suppress

from leaf import store
from leaf.errors import one_line_errors
from leaf.models import backbones
from leaf.models.feature_cache import NotCachedError
from leaf.params import read_params
from leaf.train.run import train_cached_probe, train_network


def main() -> None:
    """Check the parameters, then train or resume."""
    params = read_params("train")
    classes = store.read_classes()
    backbones.check(params, len(classes))
    if params.optimizer == "lbfgs" and params.distribution == "none":
        with suppress(NotCachedError):
            return train_cached_probe(params, classes)
    return train_network(params, classes)


if __name__ == "__main__":
    with one_line_errors():
        main()
