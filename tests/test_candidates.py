"""Candidates of one's own in the choice, and what is kept of the chosen one."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KNeighborsRegressor

from lowrank_tangent import AdaptiveTangentClassifierCV, AdaptiveTangentRegressor, AdaptiveTangentRegressorCV
from lowrank_tangent.choice import Candidate, EstimatorCandidate, Fold, Outcome
from lowrank_tangent.choice.candidates import scores_of
from lowrank_tangent.datasets import make_square
from lowrank_tangent.networks import InfiniteMLP

SMALL = {"depths": 1, "biases": 1.0, "max_rounds": 1, "cv": 3}


class LaplaceRidge(Candidate):
    """A Laplace kernel ridge of one width, written without scikit-learn's help."""

    def outcomes(self, fold: Fold):
        def kernel(X, Z):
            return np.exp(-np.abs(X[:, None] - Z).sum(axis=2))

        dual = np.linalg.solve(kernel(fold.X, fold.X) + 0.1 * np.eye(len(fold.X)), fold.targets)
        yield Outcome(kernel(fold.X_test, fold.X) @ dual)

    def parameters(self, n_rounds):
        return {"alpha": 0.1, "gamma": 1.0}

    def estimator(self):
        return KernelRidge(kernel="laplacian")


@pytest.fixture
def steps(rng):
    """Targets that jump along both features: what a Laplace kernel is good at."""
    X = rng.uniform(-2.0, 2.0, (240, 2))
    return X, np.floor(2.0 * X[:, 0]) % 2 + np.floor(2.0 * X[:, 1]) % 2


def test_the_best_is_chosen_and_fitted_by_its_own_estimator(steps):
    X, y = steps
    model = AdaptiveTangentRegressorCV(**SMALL, candidates=[LaplaceRidge()]).fit(X[:160], y[:160])
    assert model.best_params_ == {"alpha": 0.1, "gamma": 1.0}
    assert model.best_index_ == len(model.cv_results_["params"]) - 1
    expected = KernelRidge(kernel="laplacian", alpha=0.1, gamma=1.0)
    scores = cross_val_score(expected, X[:160], y[:160], cv=KFold(3), scoring="neg_mean_squared_error")
    np.testing.assert_allclose([model.cv_results_[f"split{k}_test_score"][-1] for k in range(3)], scores)
    assert model.cv_results_["param_gamma"] == [None] * model.best_index_ + [1.0]
    assert np.isnan(model.cv_results_["mean_leave_one_out_score"][-1])
    assert isinstance(model.best_estimator_, KernelRidge)
    np.testing.assert_array_equal(model.predict(X), expected.fit(X[:160], y[:160]).predict(X))
    # What is about tangent features says so; its inputs are left alone, and its slopes are there.
    with pytest.raises(AttributeError, match=r"folds have chosen KernelRidge.* has no kernel: .* tangent features"):
        model.kernel(X)
    np.testing.assert_array_equal(model.transform(X), X)
    assert model.feature_importances_.sum() == pytest.approx(1.0)


def test_candidates_change_nothing_for_the_others(steps):
    X, y = make_square(100, 5, random_state=0)
    plain = AdaptiveTangentRegressorCV(**SMALL).fit(X, y)
    more = AdaptiveTangentRegressorCV(**SMALL, candidates=[EstimatorCandidate(Ridge())]).fit(X, y)
    assert more.best_params_ == plain.best_params_
    np.testing.assert_array_equal(more.cv_results_["mean_test_score"][:-1], plain.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(more.predict(X), plain.predict(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("estimator", [ExtraTreesClassifier(random_state=0), RidgeClassifier()])
def test_classifiers_by_probability_or_score(n_classes, estimator):
    X, y = make_classification(150, 6, n_informative=4, n_classes=n_classes, random_state=1)
    labels = np.array(["a", "b", "c"])[y]
    splitter = KFold(3, shuffle=True, random_state=0)
    candidates = [EstimatorCandidate(estimator)]
    model = AdaptiveTangentClassifierCV(**{**SMALL, "cv": splitter}, candidates=candidates, refit=False).fit(X, labels)
    accuracy = cross_val_score(estimator, X, labels, cv=splitter).mean()
    assert model.cv_results_["mean_test_accuracy"][-1] == pytest.approx(accuracy, abs=0.02)  # ties of trees


def test_a_class_that_a_fold_does_not_have(rng):
    X, y = rng.standard_normal((30, 2)), np.repeat([0, 1, 2], 10)
    model = RidgeClassifier().fit(X[:20], y[:20])
    scores = scores_of(model, X, np.arange(3))
    np.testing.assert_allclose(scores[:, 1], model.decision_function(X))
    np.testing.assert_array_equal(scores[:, 2], -1.0)


def test_weights_and_several_outputs(rng):
    X, y = make_square(90, 4, random_state=0)
    Y, weights = np.column_stack([y, X[:, 0]]), rng.uniform(0.1, 2.0, 90)
    model = AdaptiveTangentRegressorCV(**SMALL, candidates=[EstimatorCandidate(Ridge(0.3))], refit=False)
    model.fit(X, Y, weights)
    train, test = next(KFold(3).split(X))
    prediction = Ridge(0.3).fit(X[train], Y[train], weights[train]).predict(X[test])
    error = np.average(np.mean((prediction - Y[test]) ** 2, axis=1), weights=weights[test])
    assert model.cv_results_["split0_test_score"][-1] == pytest.approx(-error)
    with pytest.raises(ValueError, match=r"KNeighborsRegressor.* takes no sample_weight"):
        model.set_params(candidates=[EstimatorCandidate(KNeighborsRegressor())]).fit(X, Y, weights)


def test_what_is_no_candidate_is_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match=r"got Ridge\(\)\. An estimator becomes one as EstimatorCandidate"):
        AdaptiveTangentRegressorCV(**SMALL, candidates=[Ridge()]).fit(X, y)
    with pytest.raises(ValueError, match=r"AdaptiveTangentClassifierCV chooses among classifiers; .*Ridge\(\)"):
        AdaptiveTangentClassifierCV(**SMALL, candidates=[EstimatorCandidate(Ridge())]).fit(X, y)


class Broken(RegressorMixin, BaseEstimator):
    """Predicts NaN."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.full(len(X), np.nan)


def test_predictions_that_are_no_numbers_are_named():
    X, y = make_square(40, 3, random_state=0)
    with pytest.raises(
        ValueError, match=r"the candidate \{.*\} predicts NaN or infinity in fold 0.*leave this candidate"
    ):
        AdaptiveTangentRegressorCV(**SMALL, candidates=[EstimatorCandidate(Broken())]).fit(X, y)


def test_networks_of_ones_own_choice():
    X, y = make_square(80, 4, random_state=0)
    one, two = InfiniteMLP(1, "erf", 0.5), InfiniteMLP(2, "relu", 2.0)
    model = AdaptiveTangentRegressorCV(network=[one, two], max_rounds=1, cv=3).fit(X, y)
    short = AdaptiveTangentRegressorCV(depths=1, activations="erf", biases=0.5, max_rounds=1, cv=3).fit(X, y)
    assert [params["network"] for params in model.cv_results_["params"]] == [one] * 3 + [two] * 3
    np.testing.assert_allclose(model.cv_results_["mean_test_score"][:3], short.cv_results_["mean_test_score"])
    best = AdaptiveTangentRegressor(**model.best_params_, alpha="loo", adaptivity=0.0).fit(X, y)
    np.testing.assert_allclose(model.predict(X), best.predict(X))
    AdaptiveTangentRegressorCV(network=one, max_rounds=0, cv=3).fit(X, y)
    with pytest.raises(ValueError, match=r"network=.* says all of the network; leave out depths=3"):
        AdaptiveTangentRegressorCV(network=one, depths=3).fit(X, y)
    with pytest.raises(TypeError, match="network must be an MLP"):
        AdaptiveTangentRegressorCV(network=[one, "erf"]).fit(X, y)
