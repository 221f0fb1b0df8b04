"""What a network must beat: always the commoner class, and a logistic regression on colours alone."""

import numpy as np

from leaf.colours import channel_histograms, joint_histograms


def regression(train: np.ndarray, train_labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Probabilities of class 1, float64 (len(asked),), by logistic regression on standardised features.

    `train` (M, D) with labels 0/1 of both classes, `asked` (N, D).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(train, train_labels)
    return model.predict_proba(asked)[:, 1].astype(np.float64)


def baseline_probabilities(
    images: np.ndarray, train_rows: np.ndarray, train_labels: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Each baseline's probabilities of class 1 for `rows` of `images`, learned from the real training images alone.

    `majority` knows the classes' shares, `histogram` each channel by itself, `joint_histogram` which colours occur:
    the hardest of them to beat.
    """
    result = {"majority": np.full(len(rows), float(np.mean(train_labels)))}
    for name, describe in (("histogram", channel_histograms), ("joint_histogram", joint_histograms)):
        result[name] = regression(describe(images, train_rows), train_labels, describe(images, rows))
    return result
