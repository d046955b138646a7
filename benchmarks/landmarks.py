"""Where the points of a face are, read from an encoder's feature map by ridge regression."""

import numpy as np

RIDGES = (1e1, 1e2, 1e3, 1e4)  # on standardised maps


def error(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """The `normalised_error` on `test` of a ridge regression fitted on `train`; both are maps [n, D] and landmarks [n, 68, 2].

    The strength is chosen on a fifth of `train`.
    """
    known, points = train
    apart = np.random.default_rng(seed).permutation(len(known)) < len(known) // 5
    choices = ridge(known[~apart], points[~apart], known[apart])
    best = min(range(len(RIDGES)), key=lambda i: normalised_error(choices[i], points[apart]))
    return normalised_error(ridge(known, points, test[0])[best], test[1])


def ridge(known: np.ndarray, points: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
    """What each strength of RIDGES guesses for `asked`."""
    mean, std = known.mean(0), known.std(0) + 1e-6
    x, y = ((part.astype(np.float64) - mean) / std for part in (known, asked))
    centre = points.mean(0)
    gram, moments = x.T @ x, x.T @ (points - centre).reshape(len(points), -1)
    weights = (np.linalg.solve(gram + strength * np.eye(len(gram)), moments) for strength in RIDGES)
    return [(y @ weight).reshape(-1, *points.shape[1:]) + centre for weight in weights]


def normalised_error(guessed: np.ndarray, points: np.ndarray) -> float:
    """Mean distance of landmarks over the distance of the outer corners of the eyes, each face by its own."""
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    return float((np.linalg.norm(guessed - points, axis=-1).mean(1) / eyes).mean())
