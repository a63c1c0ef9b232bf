"""What a user of small data would pick instead, each model tuned by cross-validation on the training part.

Every function takes a `Task` and returns a `Fitted` model, or raises `Skipped` where it would take too long. Models
without a classifier of their own regress labels −1 and 1, one column a class; the largest score decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import euclidean_distances, pairwise_distances
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, SVR

#: Of the kernel exp(−gamma D), D in units of the median distance, or of its square, of the training samples.
GAMMAS = np.logspace(-2, 1, 7)
KERNEL_RIDGE = {"kernelridge__alpha": np.logspace(-8, 1, 10)}
SVM = {"C": np.logspace(-1, 3, 5), "epsilon": [0.01, 0.1, 0.3]}
#: Steps of libsvm: a badly conditioned candidate is given up, with a warning, and not waited for.
_SVM_STEPS = 200_000
MLP = {
    "hidden_layer_sizes": [(64,), (256,), (64, 64)],
    "alpha": np.logspace(-4, 1, 6),
    "learning_rate_init": [1e-3, 1e-2],
    "solver": ["adam", "lbfgs"],
}
BOOSTING = {
    "learning_rate": [0.05, 0.1, 0.2],
    "max_iter": [50, 100, 200],
    "max_leaf_nodes": [3, 6, 12, 24],
    "min_samples_leaf": [2, 5, 10, 20],
    "l2_regularization": [0.0, 0.1, 1.0],
}
#: Candidates of a random search, and where there are more inputs than that.
_CANDIDATES, _FEWER_CANDIDATES = 12, 4
_MANY_INPUTS = 100
#: With as many inputs networks get fewer epochs; boosting costs in proportion to inputs, bins, trees and classes.
_EPOCHS, _FEWER_EPOCHS = 500, 150
_BINS, _FEWER_BINS = 255, 31
_FEWER_TREES = [50, 100]
#: Beyond these a Gaussian process with a length for every input takes minutes.
GP_LIMITS = {"inputs": 64, "classes": 3}
_GP_STEPS = 100
#: Bandwidths in units of the root of the number of inputs.
RFM = {"bandwidth": [0.5, 2.0, 8.0, 32.0], "alpha": [1e-4, 1e-2, 1e-1, 1.0], "power": [0.5, 1.0]}
RFM_ROUNDS, RFM_FEWER_ROUNDS = 10, 5
#: Beyond that, choices have fewer folds and feature machines fewer rounds: they cost n³.
MANY_SAMPLES = 1000
XRFM = {"bandwidth": [1.0, 3.0, 10.0, 30.0, 100.0], "reg": np.logspace(-5, 1, 7), "exponent": [0.7, 1.0]}
#: With the 3,072 inputs of CIFAR-10 one choice had not ended after twenty minutes.
XRFM_LIMITS = {"inputs": 1000}
_XRFM_ITERATIONS = 5


class Task(NamedTuple):
    """A training part: standardised inputs, class labels or standardised targets, the folds that all models share."""

    X: np.ndarray
    y: np.ndarray
    is_classification: bool
    folds: list
    seed: int


class Fitted(NamedTuple):
    """A tuned model: its predictions for inputs, what was chosen, and which of it lies at an end of its grid."""

    predict: Callable
    chosen: dict
    at_end: list


class Skipped(Exception):
    """Why a model was not fitted."""


def check_size(task, limits):
    """Skip a task that would take too long."""
    n_samples, n_inputs = task.X.shape
    n_classes = len(np.unique(task.y)) if task.is_classification else 1
    sizes = {"samples": n_samples, "inputs": n_inputs, "classes": n_classes}
    for name, limit in limits.items():
        if sizes[name] > limit:
            raise Skipped(f"{sizes[name]} {name} are more than {limit}")


def ends(chosen, grid):
    """Names of the chosen numbers that are the least or the largest of more than two to choose from, and not 0."""
    numbers = {name: values for name, values in grid.items() if len(values) > 2 and isinstance(values[0], Real)}
    return [name for name, values in numbers.items() if chosen[name] in {min(values), max(values)} - {0.0}]


def as_regression(task):
    """Centred targets of shape (n,) or (n, C), and the function that turns their predictions into the task's."""
    if not task.is_classification:
        return task.y, lambda values: values
    classes, codes = np.unique(task.y, return_inverse=True)
    targets = 2.0 * np.eye(len(classes))[codes] - 1.0
    mean = targets.mean(axis=0)
    return targets - mean, lambda scores: classes[np.argmax(scores + mean, axis=1)]


def search(task, estimator, grid, X=None, y=None, n_candidates=None, scoring=None):
    """A search of scikit-learn over the whole grid, or over some candidates, on the folds of the task."""
    options = {"cv": task.folds, "scoring": scoring, "error_score": "raise"}
    if n_candidates is None:
        found = GridSearchCV(estimator, grid, **options)
    else:
        found = RandomizedSearchCV(estimator, grid, n_iter=n_candidates, random_state=task.seed, **options)
    return found.fit(task.X if X is None else X, task.y if y is None else y)


def fitted(found, grid):
    """What a search found."""
    return Fitted(found.predict, found.best_params_, ends(found.best_params_, grid))


class ExponentialKernel(TransformerMixin, BaseEstimator):
    """exp(−gamma D) of distances D to the training samples."""

    def __init__(self, gamma=1.0):
        self.gamma = gamma

    def fit(self, distances, y=None):
        """Nothing is learned."""
        return self

    def transform(self, distances):
        """The kernel, of the shape of the distances."""
        return np.exp(-self.gamma * distances)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = True
        return tags


def kernel_search(task, estimator, grid, metric, y=None, scoring=None):
    """Search over gamma and the parameters of a model that takes a kernel. Distances are computed once."""
    distances = pairwise_distances(task.X, metric=metric)
    unit = np.median(distances[np.triu_indices_from(distances, 1)])
    grid = {"exponentialkernel__gamma": GAMMAS, **grid}
    found = search(task, make_pipeline(ExponentialKernel(), estimator), grid, distances / unit, y, scoring=scoring)
    return fitted(found, grid)._replace(
        predict=lambda X: found.predict(pairwise_distances(X, task.X, metric=metric) / unit)
    )


def kernel_ridge(task, metric):
    """Kernel ridge regression, chosen by the squared error."""
    targets, decide = as_regression(task)
    scoring = "neg_mean_squared_error"
    model = kernel_search(task, KernelRidge(kernel="precomputed"), KERNEL_RIDGE, metric, targets, scoring)
    return model._replace(predict=lambda X: decide(model.predict(X)))


def support_vectors(task, metric):
    """Support vector regression or classification."""
    estimator = (SVC if task.is_classification else SVR)(kernel="precomputed", max_iter=_SVM_STEPS)
    name = type(estimator).__name__.lower()
    grid = {f"{name}__{key}": values for key, values in SVM.items() if key == "C" or not task.is_classification}
    return kernel_search(task, estimator, grid, metric)


class ArdProcess(GaussianProcessRegressor):
    """Gaussian process with a length for every input, whose slopes cost n³ operations and no n × n array an input."""

    def log_marginal_likelihood(self, theta=None, eval_gradient=False, clone_kernel=True):
        """Log evidence of logarithms theta of signal, lengths and noise; the same numbers as scikit-learn's."""
        if not eval_gradient:
            return super().log_marginal_likelihood(theta, clone_kernel=clone_kernel)
        signal, *lengths, noise = np.exp(theta)
        Z, y = self.X_train_ / lengths, self.y_train_
        kernel = signal * np.exp(-0.5 * euclidean_distances(Z, squared=True))
        try:
            factor = cho_factor(kernel + (noise + self.alpha) * np.eye(len(y)), lower=True)
        except LinAlgError:
            return -np.inf, np.zeros_like(theta)
        dual = cho_solve(factor, y)
        determinant = 2.0 * np.sum(np.log(np.diagonal(factor[0])))
        value = -0.5 * (y @ dual + determinant + len(y) * np.log(2.0 * np.pi))
        weights = 0.5 * (np.outer(dual, dual) - cho_solve(factor, np.eye(len(y))))
        of_noise = noise * np.trace(weights)
        weights *= kernel
        # Weighted squared distances along every input.
        of_lengths = 2.0 * (weights.sum(axis=1) @ Z**2 - np.sum(Z * (weights @ Z), axis=0))
        return value, np.array([weights.sum(), *of_lengths, of_noise])


def gaussian_process(task):
    """Gaussian process with a length scale for every input, by the marginal likelihood from one start."""
    check_size(task, GP_LIMITS)
    n_features = task.X.shape[1]
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.full(n_features, n_features**0.5), (1e-2, 1e4))
    if task.is_classification:
        model = GaussianProcessClassifier(kernel, optimizer=_few_steps, random_state=task.seed)
    else:
        kernel += WhiteKernel(1.0, (1e-6, 10.0))
        model = ArdProcess(kernel, optimizer=_few_steps, random_state=task.seed)
    model.fit(task.X, task.y)
    return Fitted(model.predict, {"kernel": str(model.kernel_)}, [])


def _few_steps(objective, start, bounds):
    """L-BFGS with a bounded number of steps."""
    found = minimize(
        objective,
        start,
        method="L-BFGS-B",
        jac=True,
        bounds=bounds,
        options={"maxiter": _GP_STEPS, "maxfun": _GP_STEPS},
    )
    return found.x, found.fun


def perceptron(task):
    """scikit-learn's MLP."""
    epochs, n_candidates = (_FEWER_EPOCHS, _FEWER_CANDIDATES) if has_many_inputs(task) else (_EPOCHS, _CANDIDATES)
    estimator = (MLPClassifier if task.is_classification else MLPRegressor)(max_iter=epochs, random_state=task.seed)
    return fitted(search(task, estimator, MLP, n_candidates=n_candidates), MLP)


def boosting(task):
    """scikit-learn's gradient boosting on histograms."""
    grid, bins, n_candidates = BOOSTING, _BINS, _CANDIDATES
    if has_many_inputs(task):
        grid, bins, n_candidates = {**BOOSTING, "max_iter": _FEWER_TREES}, _FEWER_BINS, _FEWER_CANDIDATES
    kind = HistGradientBoostingClassifier if task.is_classification else HistGradientBoostingRegressor
    estimator = kind(early_stopping=False, max_bins=bins, random_state=task.seed)
    return fitted(search(task, estimator, grid, n_candidates=n_candidates), grid)


def has_many_inputs(task):
    """Whether the usual search would take an hour."""
    return task.X.shape[1] > _MANY_INPUTS


def feature_machines(X, targets, n_inputs, bandwidth, alpha, power):
    """Recursive feature machines (Radhakrishnan and others, arXiv 2212.13881), one a round, endlessly.

    Ridge regression with the Laplace kernel exp(−‖T(x − x')‖/L); then T Tᵀ becomes a power of the average outer product
    of the fit's input gradients, with the number of inputs for a trace.

    Parameters
    ----------
    X : ndarray of shape (n, p)
    targets : ndarray of shape (n, C)
    n_inputs : int
        p, or more where X has coordinates in place of the inputs.
    bandwidth : float
        L / √n_inputs.
    alpha, power : float

    Yields
    ------
    function from inputs of shape (n', p) to predictions of shape (n', C)
    """
    n, p = X.shape
    length = bandwidth * n_inputs**0.5
    transform = np.eye(p)
    while True:
        Z = X @ transform
        distances = euclidean_distances(Z)
        kernel = np.exp(-distances / length)
        coefs = solve(kernel + alpha * np.eye(n), targets, assume_a="pos")
        yield lambda X_new, T=transform, Z=Z, coefs=coefs: np.exp(-euclidean_distances(X_new @ T, Z) / length) @ coefs
        # The kernel has no gradient at its centre: a sample is left out of its own.
        slopes = np.divide(kernel, length * distances, out=np.zeros_like(kernel), where=distances > 0.0)
        # Gradient i of output c is Σ_j slopes_ij coefs_jc T (z_j − z_i): outer products of all outputs at once.
        pulls = slopes @ coefs
        cross = slopes * (coefs @ pulls.T)
        weights = (slopes @ slopes) * (coefs @ coefs.T) - cross - cross.T
        weights.flat[:: n + 1] += np.sum(pulls**2, axis=1)
        moment = transform @ (Z.T @ weights @ Z) @ transform.T
        squares, basis = np.linalg.eigh(moment)
        squares = np.maximum(squares, 0.0) ** power
        transform = basis * np.sqrt(squares * n_inputs / squares.sum()) @ basis.T


def recursive_feature_machine(task):
    """A plain RFM: bandwidth, alpha, power and rounds by cross-validation of the whole procedure."""
    max_rounds = RFM_FEWER_ROUNDS if len(task.X) > MANY_SAMPLES else RFM_ROUNDS
    return best_machine(task, RFM, machine_errors(task, RFM, max_rounds))


def machine_errors(task, grid, max_rounds):
    """Sums of squared errors in the folds, shape (n_candidates, 1 + max_rounds)."""
    X, targets, n_inputs, _ = _machine_data(task)
    candidates = list(itertools.product(*grid.values()))
    errors = np.zeros((len(candidates), 1 + max_rounds))
    for (train, test), (i, candidate) in itertools.product(task.folds, enumerate(candidates)):
        machines = feature_machines(X[train], targets[train], n_inputs, *candidate)
        for k, predict in enumerate(itertools.islice(machines, 1 + max_rounds)):
            errors[i, k] += np.sum((predict(X[test]) - targets[test]) ** 2)
    return errors


def best_machine(task, grid, errors):
    """The machine of the least of these errors, fitted to all samples."""
    X, targets, n_inputs, coordinates = _machine_data(task)
    candidates = list(itertools.product(*grid.values()))
    i, rounds = np.unravel_index(np.argmin(errors), errors.shape)
    predict = next(itertools.islice(feature_machines(X, targets, n_inputs, *candidates[i]), int(rounds), None))
    chosen = {**dict(zip(grid, candidates[i], strict=True)), "rounds": int(rounds)}
    _, decide = as_regression(task)

    def decided(X_new):
        values = predict(coordinates(X_new))
        return decide(values if task.is_classification else values[:, 0])

    return Fitted(decided, chosen, ends(chosen, {**grid, "rounds": range(errors.shape[1])}))


def _machine_data(task):
    """Samples in few coordinates, targets of shape (n, C), number of inputs, the map of inputs to coordinates."""
    targets, _ = as_regression(task)
    coordinates = _coordinates_in_span(task.X)
    return coordinates(task.X), targets.reshape(len(targets), -1), task.X.shape[1], coordinates


def _coordinates_in_span(X):
    """A map of inputs to fewer, where there are more inputs than samples, with the same distances to the samples X.

    n coordinates in the span of the samples and the distance from it, which is 0 for the samples.
    """
    if X.shape[1] <= len(X) + 1:
        return lambda inputs: inputs
    basis, _ = np.linalg.qr(X.T)

    def coordinates(inputs):
        inside = inputs @ basis
        squares = np.sum(inputs**2, axis=1) - np.sum(inside**2, axis=1)
        return np.column_stack([inside, np.sqrt(np.maximum(squares, 0.0))])

    return coordinates


def xrfm(task):
    """xRFM with its authors' protocol: a fifth of the samples is held out, to choose parameters and iteration."""
    check_size(task, XRFM_LIMITS)
    import torch
    from xrfm import xRFM

    codes = task.y.astype(np.int64) if task.is_classification else task.y.astype(np.float32)[:, None]
    strata = task.y if task.is_classification else None
    X, X_kept, y, y_kept = train_test_split(
        task.X.astype(np.float32), codes, test_size=0.2, stratify=strata, random_state=task.seed
    )
    best = None
    for values in itertools.product(*XRFM.values()):
        chosen = dict(zip(XRFM, values, strict=True))
        model = xRFM(
            {
                "model": {"kernel": "l2", "bandwidth": chosen["bandwidth"], "exponent": chosen["exponent"]},
                "fit": {"reg": chosen["reg"], "iters": _XRFM_ITERATIONS, "verbose": False},
            },
            device=torch.device("cpu"),
            tuning_metric="brier" if task.is_classification else "mse",
            random_state=task.seed,
            verbose=False,
        ).fit(X, y, X_kept, y_kept)
        if task.is_classification:
            shares = model.predict_proba(X_kept)
            error = np.mean((shares - np.eye(shares.shape[1])[y_kept]) ** 2)
        else:
            error = np.mean((model.predict(X_kept) - y_kept) ** 2)
        if best is None or error < best[0]:
            best = error, model, chosen
    _, model, chosen = best
    return Fitted(lambda X_new: model.predict(X_new.astype(np.float32)).ravel(), chosen, ends(chosen, XRFM))


#: Name to the function that tunes and fits it.
RIVALS = {
    "krr-rbf": lambda task: kernel_ridge(task, "sqeuclidean"),
    "krr-laplace": lambda task: kernel_ridge(task, "manhattan"),
    "svm-rbf": lambda task: support_vectors(task, "sqeuclidean"),
    "svm-laplace": lambda task: support_vectors(task, "manhattan"),
    "gp-ard": gaussian_process,
    "mlp": perceptron,
    "boosting": boosting,
    "rfm": recursive_feature_machine,
    "xrfm": xrfm,
}
