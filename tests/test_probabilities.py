"""Probabilities of the classifier that chooses, from the scores of samples that were left out."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.class_weight import compute_sample_weight

from lowrank_tangent import AdaptiveTangentClassifierCV
from lowrank_tangent.estimators.probabilities import Calibration

SMALL = {"depths": 1, "biases": 1.0, "max_rounds": 1, "cv": 3}


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weighted", [True, False])
def test_calibration_maximises_the_likelihood_that_shrinks(rng, n_classes, weighted):
    scores = rng.standard_normal((80, 1 if n_classes == 2 else n_classes))
    columns = np.hstack([-scores, scores]) / 2.0 if n_classes == 2 else scores
    noisy = 2.0 * columns + rng.gumbel(size=columns.shape) + np.arange(n_classes)
    classes = noisy.argmax(axis=1)
    weights = rng.uniform(0.0, 3.0, 80) * (rng.uniform(size=80) < 0.8) if weighted else np.ones(80)

    def loss(parameters):
        logits = parameters[0] * columns + parameters[1:]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        right = np.log(probabilities[np.arange(80), classes])
        return -np.average(right, weights=weights) + 0.1 * parameters @ parameters / (2 * np.count_nonzero(weights))

    expected = minimize(loss, np.zeros(n_classes + 1), method="BFGS", tol=1e-9)
    found = Calibration.fitted(scores, classes, n_classes, weights if weighted else None)
    parameters = np.concatenate([[found.scale], found.offsets])
    assert loss(parameters) <= expected.fun + 1e-9
    np.testing.assert_allclose(parameters, expected.x, atol=1e-4)
    # The scale of all weights makes no difference.
    again = Calibration.fitted(scores, classes, n_classes, 1e3 * weights)
    np.testing.assert_allclose(again.offsets, found.offsets, atol=1e-7)


def test_scores_that_make_no_mistake_have_finite_probabilities():
    calibration = Calibration.fitted(np.repeat([[-1.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50), 2)
    logs = calibration.log_probabilities(np.array([[-1.0], [0.0], [1.0], [1e4]]))
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1.0)
    assert 0.99 < np.exp(logs[2, 1]) < 0.999
    # Scores that are worse than chance say nothing.
    assert Calibration.fitted(np.repeat([[-1.0], [1.0]], 50, axis=0), np.repeat([1, 0], 50), 2).scale == 0.0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_about_right(n_classes):
    X, y = make_classification(
        700,
        6,
        n_informative=4,
        n_classes=n_classes,
        weights=[0.5, 0.3][: n_classes - 1],
        flip_y=0.2,
        class_sep=0.7,
        random_state=0,
    )
    labels = np.array(["x", "y", "z"])[y]
    model = AdaptiveTangentClassifierCV(**SMALL).fit(X[:200], labels[:200])
    probabilities = model.predict_proba(X[200:])
    assert probabilities.shape == (500, n_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_allclose(np.log(probabilities), model.predict_log_proba(X[200:]))
    shares = [np.mean(labels[200:] == label) for label in model.classes_]
    constant = log_loss(labels[200:], np.tile(shares, (500, 1)))
    logistic = LogisticRegression().fit(X[:200], labels[:200]).predict_proba(X[200:])
    assert log_loss(labels[200:], probabilities) < min(0.9 * constant, 1.02 * log_loss(labels[200:], logistic))
    np.testing.assert_allclose(probabilities.mean(axis=0), shares, atol=0.08)


def test_they_go_where_probabilities_go():
    X, y = load_iris(return_X_y=True)
    model = AdaptiveTangentClassifierCV(**{**SMALL, "max_rounds": 0})
    assert cross_val_score(model, X, y, scoring="neg_log_loss", error_score="raise").mean() > -0.3
    assert cross_val_score(model, X, y, scoring="roc_auc_ovr", error_score="raise").mean() > 0.95
    voting = VotingClassifier([("chosen", model), ("logistic", LogisticRegression(max_iter=1000))], voting="soft")
    assert voting.fit(X, y).score(X, y) > 0.9
    with pytest.raises(NotFittedError, match="refit=False"):
        model.set_params(refit=False).fit(X, y).predict_proba(X)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 12.0}])
def test_class_weights_are_weights_of_samples(class_weight):
    X, y = make_classification(300, 5, weights=[0.92], flip_y=0.05, class_sep=0.6, random_state=0)
    plain = AdaptiveTangentClassifierCV(**SMALL).fit(X[:200], y[:200])
    model = AdaptiveTangentClassifierCV(**SMALL, class_weight=class_weight).fit(X[:200], y[:200])
    weights = compute_sample_weight(class_weight, y[:200])
    expected = AdaptiveTangentClassifierCV(**SMALL).fit(X[:200], y[:200], weights)
    assert model.best_params_ == expected.best_params_
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X))
    np.testing.assert_allclose(model.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert recall_score(y[200:], model.predict(X[200:])) > recall_score(y[200:], plain.predict(X[200:]))
    # Probabilities are those of the classes as they are.
    assert (
        abs(model.predict_proba(X)[:, 1].mean() - y.mean()) < 0.06 < expected.predict_proba(X)[:, 1].mean() - y.mean()
    )
    assert roc_auc_score(y[200:], model.predict_proba(X[200:])[:, 1]) > 0.6
    both = model.fit(X, y, np.linspace(0.5, 1.5, 300)).decision_function(X)
    product = compute_sample_weight(class_weight, y) * np.linspace(0.5, 1.5, 300)
    np.testing.assert_allclose(both, expected.fit(X, y, product).decision_function(X))


def test_unknown_parameters_are_refused_by_a_public_name():
    for model in (AdaptiveTangentClassifierCV,):
        with pytest.raises(
            TypeError, match=r"^AdaptiveTangent.*CV.__init__\(\) got an unexpected keyword argument 'depth'"
        ):
            model(depth=1)
