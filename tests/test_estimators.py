import pickle
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, TangentRidge, TangentRidgeClassifier
from lowrank_tangent.datasets import load, make_product
from lowrank_tangent.penalties import JointPenalty, KLPenalty, PowerPenalty, get_penalty
from lowrank_tangent.rounds import Relinearisation

ESTIMATORS = [AdaptiveTangentRegressor, AdaptiveTangentClassifier, TangentRidge, TangentRidgeClassifier]
REGRESSORS = [AdaptiveTangentRegressor, TangentRidge]
CLASSIFIERS = [AdaptiveTangentClassifier, TangentRidgeClassifier]


# A duality gap bounds the squared distance of predictions, and scikit-learn compares the predictions of equivalent
# fits to seven digits: that takes a gap of 1e-15. No check is expected to fail.
CHECKED = [estimator((16,), tol=1e-15) for estimator in ESTIMATORS]
ROUNDS = {"adaptivity": 0.0, "round_adaptivity": 10.0, "metric": "gradient", "n_rounds": 2}
CHECKED += [estimator((np.inf,), tol=1e-15, **ROUNDS) for estimator in ESTIMATORS[:2]]


@parametrize_with_checks(CHECKED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)  # raises where it fails


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 4))
    return X, X[:, 0] * X[:, 1] + 0.5 * X[:, 2]


def test_adaptive_model_finds_the_directions_that_matter():
    X, y = make_product(700, 20, noise=0.1, random_state=0)
    fixed = TangentRidge((128,), alpha=0.1, random_state=0).fit(X[:500], y[:500])
    adaptive = AdaptiveTangentRegressor((128,), alpha=0.1, adaptivity=10.0, random_state=0).fit(X[:500], y[:500])
    assert 1 - adaptive.score(X[500:], y[500:]) < 0.75 * (1 - fixed.score(X[500:], y[500:]))


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_without_adaptivity_the_models_agree(data, outputs):
    X, y = data
    common = {"hidden_layer_sizes": (32,), "outputs": outputs, "random_state": 0}
    fixed = TangentRidge(**common).fit(X, y)
    adaptive = AdaptiveTangentRegressor(**common, adaptivity=0.0).fit(X, y)
    np.testing.assert_allclose(adaptive.predict(X), fixed.predict(X), rtol=1e-10)
    np.testing.assert_allclose(fixed.kernel(X), fixed.initial_kernel(X))
    assert all(left.is_identity and right.is_identity for left, right in fixed.transforms_)


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_shapes_of_several_outputs(data, outputs):
    X, y = data
    Y = np.column_stack([y, X[:, 3]])
    model = AdaptiveTangentRegressor((16, 8), outputs=outputs, random_state=0).fit(X, Y)
    assert model.predict(X[:7]).shape == (7, 2)
    assert model.score(X, Y) > 0.5
    size = 1 if outputs == "shared" else 2
    assert model.kernel(X[:5], X[:3]).shape == (5 * size, 3 * size)
    np.testing.assert_allclose(model.initial_kernel(X).diagonal().mean(), 1.0)
    assert [len(pair) for pair in model.transforms_] == [2, 2, 2]
    one = AdaptiveTangentRegressor((16,), random_state=0).fit(X, y)
    assert one.predict(X).shape == y.shape


def test_shared_outputs_with_one_target_each_are_fitted_jointly(data):
    X, y = data
    alone = TangentRidge((16,), random_state=0).fit(X, y)
    joint = TangentRidge((16,), random_state=0).fit(X, np.column_stack([y, -2 * y]))
    np.testing.assert_allclose(joint.predict(X), np.column_stack([alone.predict(X), -2 * alone.predict(X)]), atol=1e-9)


@pytest.mark.parametrize("labels", [["no", "yes"], [3, -1, 7], [True, False], ["a", "b", "c"], [0.0, 1.0]])
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_any_labels(model, labels):
    X, y = make_classification(90, 5, n_informative=4, n_redundant=0, n_classes=len(labels), random_state=0)
    names = np.array(labels)[y]
    fitted = model((32,), random_state=0).fit(X, names)
    np.testing.assert_array_equal(fitted.classes_, np.unique(names))
    scores = fitted.decision_function(X)
    assert scores.shape == ((90,) if len(labels) == 2 else (90, 3))
    assert fitted.score(X, names) > 0.8
    winners = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[winners])


def test_digits_are_recognised():
    digits = load("digits", 300)
    model = AdaptiveTangentClassifier((64,), alpha=0.01, adaptivity=0.1, random_state=0)
    assert model.fit(digits.X_train, digits.y_train).score(digits.X_test, digits.y_test) > 0.9
    assert model.dual_gap_ <= 1e-6


def test_warm_start_continues_and_cold_start_does_not(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), adaptivity=10.0, warm_start=True).fit(X, y)
    weights, first = model.features_.weights_[0].copy(), model.predict(X)
    model.fit(X, y)
    assert model.n_iter_ <= 2
    np.testing.assert_array_equal(model.features_.weights_[0], weights)
    np.testing.assert_allclose(model.predict(X), first, atol=1e-3)
    changed = model.set_params(alpha=0.02).fit(X, y)
    assert changed.dual_gap_ <= 1e-6
    # Other data in shape: everything starts anew.
    assert model.fit(X[:30], y[:30]).solution_.dual.shape == (30, 1)
    assert model.fit(X[:, :2], y).n_features_in_ == 2


@pytest.mark.parametrize("weighted", [True, False])
def test_warm_start_arrives_where_a_cold_start_does(data, rng, weighted):
    X, y = data
    weights = rng.uniform(0.1, 2.0, len(y)) if weighted else None
    settings = {"adaptivity": 10.0, "random_state": 0, "tol": 1e-9}
    model = AdaptiveTangentRegressor((16,), **settings, warm_start=True).fit(X, y)
    kernel = model.set_params(alpha=0.1).fit(3.0 * X, y, weights).initial_kernel(3.0 * X)
    cold = AdaptiveTangentRegressor((16,), **settings, alpha=0.1).fit(3.0 * X, y, weights)
    assert np.average(kernel.diagonal(), weights=weights) == pytest.approx(1.0)
    assert model.objective_ == pytest.approx(cold.objective_, rel=1e-8)
    np.testing.assert_allclose(model.predict(X), cold.predict(X), atol=1e-3)


def test_a_fit_that_fails_leaves_the_model_as_it_was(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), random_state=0).fit(X, y)
    before = {name: id(value) for name, value in vars(model).items() if name.endswith("_")}
    with pytest.raises(ValueError, match="max_iter must be an integer"):
        model.set_params(max_iter="many", random_state=1).fit(X, y)
    assert {name: id(value) for name, value in vars(model).items() if name.endswith("_")} == before


@pytest.mark.parametrize("model", [AdaptiveTangentRegressor((8,)), TangentRidge((8,))], ids=["adaptive", "ridge"])
def test_outputs_of_unlike_scales_are_told(data, model):
    X, y = data
    with pytest.warns(UserWarning, match="standard deviations from .*adapt to the largest.*Standardise y"):
        model.fit(X, np.column_stack([y, 100.0 * X[:, 0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, np.column_stack([y, 2.0 * y, np.ones(len(y))]))


def test_adaptivity_is_in_units_of_the_target(data):
    X, y = data
    settings = {"alpha": 0.3, "random_state": 0, "tol": 1e-10}
    model = AdaptiveTangentRegressor((16,), adaptivity=2.0, **settings).fit(X, y)
    twice = AdaptiveTangentRegressor((16,), adaptivity=0.5, **settings).fit(X, 2.0 * y)
    np.testing.assert_allclose(twice.predict(X), 2.0 * model.predict(X), atol=1e-4)


def test_warm_start_with_another_network_starts_anew(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), warm_start=True, random_state=0).fit(X, y)
    model.set_params(hidden_layer_sizes=(8,), activation="tanh").fit(X, y)
    assert model.features_.network.hidden_layer_sizes == (8,)
    assert model.features_.network.activation == "tanh"
    assert model.set_params(outputs="network").fit(X, y).features_.outputs == "network"


def test_random_state_makes_fits_equal(data):
    X, y = data
    first, second, third = (AdaptiveTangentRegressor((8,), random_state=s).fit(X, y) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    assert not np.allclose(first.predict(X), third.predict(X))


def test_tools_of_scikit_learn(data):
    X, y = data
    model = make_pipeline(StandardScaler(), AdaptiveTangentRegressor((16,), random_state=0))
    assert cross_val_score(model, X, y, cv=3).shape == (3,)
    search = GridSearchCV(
        AdaptiveTangentRegressor((16,), random_state=0), {"penalty": ["kl", KLPenalty()], "alpha": [0.1]}, cv=2
    ).fit(X, y)
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(search.cv_results_["mean_test_score"][1])
    fitted = AdaptiveTangentRegressor((16,), random_state=0).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
    assert not hasattr(clone(fitted), "coefs_")


def test_the_input_transform_is_found_when_it_is_asked_for(data, monkeypatch):
    X, y = data
    found = []
    find = Relinearisation.input_transform
    monkeypatch.setattr(Relinearisation, "input_transform", lambda *args: found.append(1) or find(*args))
    settings = {"alpha": 0.1, "adaptivity": 10.0, "random_state": 0}
    for rounds in ({}, {"n_rounds": 1}, {"metric": "gradient"}, {"batch_size": 7}):
        model = AdaptiveTangentRegressor((16,), **settings, **rounds).fit(X, y)
        model.predict(X)
        assert not found
        # Other parameters, given later, are those of another fit.
        loaded = pickle.loads(pickle.dumps(model.set_params(penalty="kl", alpha=5.0)))
        assert len(found) == 1
        np.testing.assert_array_equal(loaded.input_transform_, model.input_transform_)
        assert len(found) == 1
        again = AdaptiveTangentRegressor((16,), **settings, **rounds).fit(X, y)
        np.testing.assert_array_equal(again.transform(X), model.transform(X))
        found.clear()


def test_a_pickle_holds_no_training_data(data):
    X, y = data
    model = AdaptiveTangentRegressor((4,), random_state=0).fit(np.vstack([X] * 50), np.concatenate([y] * 50))
    size = len(pickle.dumps(model))
    dual_and_prediction = 2 * 8 * 3000
    assert size < dual_and_prediction + 20_000


def test_predictions_in_batches_are_the_same(data, monkeypatch):
    X, y = data
    model = AdaptiveTangentRegressor((16,), random_state=0).fit(X, y)
    whole = model.predict(X)
    monkeypatch.setattr("lowrank_tangent.features._BATCH_BYTES", 1)
    np.testing.assert_allclose(model.predict(X), whole, atol=1e-12)
    again = AdaptiveTangentRegressor((16,), random_state=0).fit(X, y)
    np.testing.assert_allclose(again.predict(X), whole, atol=1e-10)


def test_a_fit_that_does_not_converge_warns_once_with_the_figures(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), alpha=1e-4, adaptivity=1e3, max_iter=1, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert warning.filename == __file__
    for figure in (f"{model.dual_gap_:.2e}", "tol=1.00e-06", "1 iterations", "max_iter"):
        assert figure in str(warning.message)


@pytest.mark.parametrize("model", ESTIMATORS)
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.full((4, 2), np.nan), ValueError, "contains NaN"),
        (np.full((4, 2), np.inf), ValueError, "infinity"),
        (np.ones(4), ValueError, "Expected 2D array, got 1D"),
        (np.ones((0, 2)), ValueError, "0 sample"),
        (np.ones((4, 0)), ValueError, r"0 feature\(s\)"),
        (np.ones((1, 2)), ValueError, "minimum of 2 is required"),
        (np.ones((4, 2), complex), ValueError, "Complex data not supported"),
        (np.array([["a", "b"]] * 4, object), ValueError, "could not convert string to float"),
        (np.ones((5, 2)), ValueError, "inconsistent numbers of samples"),
        (sparse.csr_matrix(np.eye(4)), TypeError, "dense data is required"),
    ],
)
def test_bad_samples_are_refused(model, X, error, message):
    y = [0, 1, 0, 1][: 1 if X.shape[0] == 1 else 4]
    with pytest.raises(error, match=message):
        model((4,)).fit(X, y if X.shape[0] else [])


@pytest.mark.parametrize("model", REGRESSORS)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.0, np.nan, 1.0, 2.0], "NaN"),
        ([0.0, np.inf, 1.0, 2.0], "infinity"),
        (["a", "b", "c", "d"], "could not convert|real numbers|dtype"),
    ],
)
def test_bad_targets_are_refused(model, y, message):
    with pytest.raises(ValueError, match=message):
        model((4,)).fit(np.eye(4), y)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_bad_classes_are_refused(model):
    with pytest.raises(ValueError, match="at least 2 classes; the data contains only one class"):
        model((4,)).fit(np.eye(4), ["same"] * 4)
    with pytest.raises(ValueError, match="Unknown label type"):
        model((4,)).fit(np.eye(4), [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number > 0"),
        ({"alpha": -1}, ValueError, "alpha must be a finite number > 0"),
        ({"adaptivity": -1.0}, ValueError, "adaptivity must be a finite number >= 0"),
        ({"tol": 0}, ValueError, "tol must be a finite number > 0"),
        ({"max_iter": -3}, ValueError, "max_iter must be an integer"),
        ({"penalty": "lasso"}, ValueError, "penalty must be one of"),
        ({"penalty": 3}, TypeError, "penalty must be one of"),
        ({"outputs": "both"}, ValueError, "outputs must be 'shared' or 'network'"),
        ({"solver": "sgd"}, ValueError, "method must be 'auto' or one of"),
        ({"hidden_layer_sizes": (0,)}, ValueError, "positive integers"),
        ({"hidden_layer_sizes": "64"}, ValueError, "positive integers"),
        ({"activation": "softmax"}, ValueError, "activation must be one of"),
        ({"init": "zeros"}, ValueError, "init must be one of"),
        ({"bias": -1}, ValueError, "bias must be"),
    ],
)
def test_bad_parameters_are_refused(data, parameters, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        AdaptiveTangentRegressor(**{"hidden_layer_sizes": (4,), **parameters}).fit(X, y)


@pytest.mark.parametrize("model", ESTIMATORS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [(-np.ones(4), "negative"), (np.zeros(4), "zero for every sample"), (np.ones(3), r"shape"), ([np.nan] * 4, "NaN")],
)
def test_bad_weights_are_refused(model, weights, message):
    with pytest.raises(ValueError, match=message):
        model((4,)).fit(np.eye(4), [0, 1, 0, 1], sample_weight=weights)


@pytest.mark.parametrize("model", ESTIMATORS)
def test_unseen_numbers_of_features_and_unfitted_models_are_refused(data, model):
    X, y = data
    with pytest.raises(NotFittedError):
        model().predict(X)
    with pytest.raises(NotFittedError):
        model().kernel(X)
    fitted = model((4,), random_state=0).fit(X, y > 0)
    for method in (fitted.predict, fitted.kernel, fitted.initial_kernel):
        with pytest.raises(ValueError, match="expecting 4 features"):
            method(X[:, :3])


@pytest.mark.parametrize("model", REGRESSORS)
def test_nothing_to_learn_is_said(data, model):
    X, y = data
    with pytest.warns(UserWarning, match="y is constant"):
        constant = model((4,), random_state=0).fit(X, np.full(60, 3.0))
    np.testing.assert_allclose(constant.predict(X), 3.0)
    with pytest.warns(UserWarning, match="every sample has the same features"):
        constant = model((4,), random_state=0).fit(np.ones((60, 2)), y)
    np.testing.assert_allclose(constant.predict(np.ones((3, 2))), y.mean(), rtol=1e-10)


def test_constant_columns_and_duplicate_rows_are_no_problem(data):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_constant = np.column_stack([X, np.full(60, 7.0)])
        model = AdaptiveTangentRegressor((16,), random_state=0).fit(
            np.vstack([with_constant] * 2), np.concatenate([y, y])
        )
    assert model.dual_gap_ <= 1e-6


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e60])
def test_huge_and_tiny_features_without_bias_are_rescaled(data, scale):
    X, y = data
    settings = {"hidden_layer_sizes": (16,), "bias": False, "random_state": 0}
    reference = AdaptiveTangentRegressor(**settings).fit(X, y).predict(X)
    # Without biases relu features are homogeneous, and their scale is divided out.
    np.testing.assert_allclose(
        AdaptiveTangentRegressor(**settings).fit(scale * X, y).predict(scale * X), reference, atol=1e-6
    )


def test_features_that_overflow_or_vanish_are_refused():
    X = np.array([[1e200, 1.0], [1.0, 1e200], [2.0, 3.0]])
    with pytest.raises(ValueError, match=r"overflow: the values of X reach 1e\+200. Standardise"):
        TangentRidge((4,)).fit(X, [0.0, 1.0, 2.0])
    with pytest.warns(UserWarning, match="same features"), pytest.raises(ValueError, match="vanish for every sample"):
        TangentRidge((4,), bias=False).fit(np.zeros((3, 2)), [0.0, 1.0, 2.0])


def test_a_kernel_beyond_memory_is_refused(data, monkeypatch):
    X, y = data
    model = TangentRidge((4,), random_state=0).fit(X, y)
    monkeypatch.setattr("lowrank_tangent.linalg.memory.physical_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"shape \(60, 60\) needs"):
        model.kernel(X)


def test_verbose_shows_a_progress_bar(data, capsys):
    X, y = data
    AdaptiveTangentRegressor((8,), verbose=1, random_state=0).fit(X, y)
    assert "gap" in capsys.readouterr().err


@pytest.mark.parametrize(
    "penalty",
    ["joint", "nuclear", "schatten", PowerPenalty(1), PowerPenalty(1.5), PowerPenalty(3), JointPenalty(KLPenalty())],
)
@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_every_penalty_by_name_or_instance(penalty, outputs):
    X, y = make_product(80, 6, random_state=0)
    targets = np.column_stack([y, y**2])
    # The proximal solver of the quasi-norm creeps.
    tol = 3e-3 if penalty == "schatten" else 1e-5
    model = AdaptiveTangentRegressor((12,), penalty=penalty, alpha=0.02, outputs=outputs, tol=tol, random_state=0)
    model.fit(X, targets)
    problem_penalty = get_penalty(penalty)
    assert np.isnan(model.dual_gap_) != problem_penalty.is_convex
    assert np.isnan(model.stationarity_) == problem_penalty.is_convex
    error = model.dual_gap_ if problem_penalty.is_convex else model.stationarity_
    assert error <= tol
    # Kernel ridge on the adapted kernel is the model, whatever the penalty, convex or not.
    kernel, prediction, centre = model.kernel(X), model.predict(X), np.eye(80) - 1.0 / 80
    # Right transforms tie the outputs together: there is one kernel for all of them then, of all outputs.
    tied = outputs == "network" or penalty == "joint" or isinstance(penalty, JointPenalty)
    assert kernel.shape == ((160, 160) if tied else (80, 80))
    if tied:
        centre, targets, prediction = np.kron(centre, np.eye(2)), targets.reshape(-1), prediction.reshape(-1)
    centred = centre @ kernel @ centre
    ridge = centred @ np.linalg.solve(centred + model.alpha * np.eye(len(kernel)), centre @ targets)
    np.testing.assert_allclose(ridge, centre @ prediction, atol=0.02 * np.abs(targets).max())


def test_joint_penalty_moves_both_sides():
    X, y = make_product(100, 6, random_state=0)
    model = AdaptiveTangentRegressor((16,), penalty="joint", alpha=0.05, random_state=0).fit(X, y)
    left, right = model.transforms_[0]
    assert left.spectrum[0] > 1.05
    assert right.spectrum[0] == pytest.approx(left.spectrum[0], rel=1e-9)


def test_several_starts_of_an_estimator():
    X, y = make_product(100, 6, random_state=0)
    one, many = (
        AdaptiveTangentRegressor((16,), penalty=PowerPenalty(1), alpha=0.02, n_init=n, random_state=0).fit(X, y)
        for n in (1, 4)
    )
    assert many.objective_ <= one.objective_


def test_not_stationary_is_a_convergence_warning():
    X, y = make_product(60, 5, random_state=0)
    model = AdaptiveTangentRegressor((8,), penalty="joint", max_iter=1, tol=1e-9, alpha=0.01, random_state=0)
    with pytest.warns(
        ConvergenceWarning, match=r"reweighted stopped after 1 iterations at a stationarity residual of .*"
    ):
        model.fit(X, y)
