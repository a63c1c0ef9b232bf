"""Rounds of adaptation and re-linearisation against finite differences, kernel algebra and identities."""

import itertools
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, TangentRidge
from lowrank_tangent.datasets import make_product, make_square
from lowrank_tangent.linalg.transforms import ProductTransform
from lowrank_tangent.networks import MLP, InfiniteMLP
from lowrank_tangent.penalties import JointPenalty


def stretches(values, adaptivity):
    """z of ω(z) = (z − 1)², from its definition z³ (z − 1) = v²."""
    scaled = adaptivity * np.asarray(values) ** 2
    return np.array([brentq(lambda z, t=t: z**3 * (z - 1) - t, 1.0, 2.0 + t, xtol=1e-15) for t in scaled])


def transform_of(outer_product, adaptivity):
    """U diag(z) Uᵀ of a second moment, with tr(M Mᵀ) = size."""
    squares, basis = np.linalg.eigh(outer_product)
    matrix = (basis * stretches(np.sqrt(np.maximum(squares, 0.0)), adaptivity)) @ basis.T
    return matrix * np.sqrt(len(matrix)) / np.linalg.norm(matrix)


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 4))
    return X, X[:, 0] * X[:, 1] + 0.5 * X[:, 2] + 1.0


@pytest.mark.parametrize("bias", [0.7, False])
def test_features_are_derivatives_with_respect_to_the_untransformed_weights(rng, bias):
    network = MLP((4, 5), "tanh", bias=bias)
    weights, X = network.initialise(3, 2, 0), rng.standard_normal((6, 3))
    left = [rng.standard_normal((3, 3)), None, rng.standard_normal((5, 5))]
    right = [rng.standard_normal((4, 4)), rng.standard_normal((5, 5)), None]

    def outputs():
        moved = []
        for weight, m1, m2 in zip(weights, left, right, strict=True):
            inputs = len(weight) - bool(bias)
            m1 = np.eye(inputs) if m1 is None else m1
            extended = np.block(
                [
                    [m1, np.zeros((inputs, len(weight) - inputs))],
                    [np.zeros((len(weight) - inputs, inputs)), np.eye(len(weight) - inputs)],
                ]
            )
            moved.append(extended @ weight @ (np.eye(weight.shape[1]) if m2 is None else m2))
        return network(moved, X)

    built_in = [[None if m is None else ProductTransform(m) for m in side] for side in (left, right)]
    for layer, weight in zip(network.stretched(*built_in).layers(weights, X), weights, strict=True):
        h, delta = layer.h[:, 0], layer.delta[:, :, 0]
        features = np.einsum("np,ncq->ncpq", h, delta)
        for index in np.ndindex(weight.shape):
            kept = weight[index]
            weight[index] = kept + 1e-6
            above = outputs()
            weight[index] = kept - 1e-6
            below = outputs()
            weight[index] = kept
            np.testing.assert_allclose(features[(slice(None), slice(None), *index)], (above - below) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("penalty", ["power", "kl", "joint"])
def test_without_gates_a_round_takes_over_the_adapted_kernel(data, penalty):
    # A linear network has no gates to move: its features after a round are those that the solution adapted.
    X, y = data
    settings = {"hidden_layer_sizes": (), "bias": False, "penalty": penalty, "adaptivity": 5.0, "tol": 1e-12}
    paper = AdaptiveTangentRegressor(**settings).fit(X, y)
    after = AdaptiveTangentRegressor(**settings, n_rounds=1).fit(X, y)
    adapted, taken_over = paper.kernel(X), after.features_.operator(X).mean_gram()
    np.testing.assert_allclose(taken_over, adapted / adapted.diagonal().mean(), atol=1e-6)
    np.testing.assert_allclose(after.initial_kernel(X), paper.initial_kernel(X))


def test_coefficient_metric_is_the_certified_left_transform(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), bias=False, adaptivity=5.0, random_state=0, tol=1e-10).fit(X, y)
    left = model.transforms_[0][0].to_dense()
    np.testing.assert_allclose(model.input_transform_, left * 2.0 / np.linalg.norm(left), atol=1e-12)
    assert model.rounds_[0].left == [None, None]
    once = AdaptiveTangentRegressor((16,), bias=False, adaptivity=5.0, random_state=0, tol=1e-10, n_rounds=1)
    np.testing.assert_allclose(once.fit(X, y).rounds_[1].left[0], model.input_transform_, atol=1e-12)
    assert [round_.dual_gap <= 1e-10 for round_ in once.rounds_] == [True, True]
    assert once.dual_gap_ == once.rounds_[-1].dual_gap


@pytest.mark.parametrize("outputs", ["shared", "network"])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradient_metric_is_that_of_the_predictions(rng, data, outputs, weighted):
    # The gates of one ReLU layer are piecewise constant: predictions have the gradient B delta.
    X, y = data
    Y = np.column_stack([y, X[:, 3] ** 2])
    weights = rng.uniform(0.1, 2.0, 60) if weighted else np.ones(60)
    model = AdaptiveTangentRegressor(
        (16,), outputs=outputs, layers=[0], adaptivity=0.0, metric="gradient", round_adaptivity=30.0, random_state=0
    ).fit(X, Y, weights)
    gradients = np.stack(
        [(model.predict(X + step) - model.predict(X - step)) / 2e-6 for step in 1e-6 * np.eye(4)], axis=-1
    )
    moment = np.einsum("n,ncp,ncq->pq", weights / weights.sum(), gradients, gradients)
    np.testing.assert_allclose(model.input_transform_, transform_of(moment, 30.0), atol=1e-5)


@pytest.mark.parametrize("settings", [{"adaptivity": 0.0}, {"adaptivity": 4.0}, {"adaptivity": 0.0, "layers": [0, 2]}])
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("weighted", [True, False])
def test_function_metric_is_that_of_the_predictions(rng, data, settings, activation, weighted):
    X, y = data
    Y = np.column_stack([y, X[:, 3] ** 2])
    weights = rng.uniform(0.1, 2.0, 60) if weighted else np.ones(60)
    settings = {**settings, "round_adaptivity": 30.0, "alpha": 0.1, "tol": 1e-9}
    for metric in ("function", "diagonal"):
        # After a round, so that the network is a stretched one.
        model = AdaptiveTangentRegressor((np.inf, np.inf), activation, **settings, metric=metric, n_rounds=1)
        model.fit(X, Y, weights)
        before = model.rounds_[1].left[0]
        steps = 1e-5 * np.linalg.inv(before)
        gradients = np.stack([(model.predict(X + e) - model.predict(X - e)) / 2e-5 for e in steps], axis=-1)
        moment = np.einsum("n,ncp,ncq->pq", weights / weights.sum(), gradients, gradients)
        moment = np.diag(np.diagonal(moment)) if metric == "diagonal" else moment
        expected = before @ transform_of(moment, 30.0)
        expected *= 2.0 / np.linalg.norm(expected)
        np.testing.assert_allclose(model.input_transform_, expected, atol=1e-4)


def test_features_that_matter_are_found_by_their_slopes(rng):
    X = rng.standard_normal((1300, 20))
    y = X[:, 0] * X[:, 1] * (X[:, 5] > 0.0)
    settings = {"alpha": "loo", "adaptivity": 0.0, "round_adaptivity": 1e4, "n_rounds": 5}
    by_features, by_directions = (
        AdaptiveTangentRegressor((np.inf, np.inf), **settings, metric=metric).fit(X[:300], y[:300])
        for metric in ("diagonal", "function")
    )
    assert set(np.argsort(by_features.feature_importances_)[-3:]) == {0, 1, 5}
    np.testing.assert_array_equal(by_features.input_metric_, np.diag(np.diagonal(by_features.input_metric_)))
    assert 1.0 - by_features.score(X[300:], y[300:]) < 0.7 * (1.0 - by_directions.score(X[300:], y[300:]))


@pytest.mark.parametrize("metric", ["function", "diagonal"])
def test_gates_of_finite_width_have_no_slope(data, metric):
    with pytest.raises(ValueError, match=rf"metric: '{metric}' is for networks of infinite width.*Take 'gradient'"):
        AdaptiveTangentRegressor((8,), metric=metric, n_rounds=1).fit(*data)


@pytest.mark.parametrize("metric", ["coefficient", "gradient"])
@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), ("relu", 2), ("erf", 2)])
def test_infinite_width_against_kernel_algebra(rng, metric, activation, depth):
    X, X_new = rng.standard_normal((50, 4)), rng.standard_normal((20, 4))
    Y = np.column_stack([X[:, 0] * X[:, 1], X[:, 2] ** 2])
    alpha, adaptivity, p = 0.02, 8.0, 4
    model = AdaptiveTangentRegressor(
        (np.inf,) * depth,
        activation,
        bias=0.5,
        alpha=alpha,
        adaptivity=0.0,
        n_rounds=2,
        metric=metric,
        round_adaptivity=adaptivity,
    ).fit(X, Y)
    network, M = InfiniteMLP(depth, activation, 0.5), np.eye(p)
    for _ in range(3):
        Z = X @ M
        K, kappa = network.kernel(Z), network.layer_products(Z)[1][0]
        t = K.diagonal().mean()
        centre = np.eye(50) - 1.0 / 50
        r = np.linalg.solve(centre @ K @ centre / t + alpha * np.eye(50), centre @ Y)
        cross = network.kernel(X_new @ M, Z)
        prediction = (cross - K.mean(axis=0)) @ r / t + Y.mean(axis=0)
        if metric == "coefficient":
            moment = Z.T @ ((r @ r.T) * kappa) @ Z / (t * p)
        else:
            slopes = [(kappa * r[:, c]) @ Z / (t * p) for c in range(2)]
            moment = sum(g.T @ g for g in slopes) / 50
        M = M @ transform_of(moment, adaptivity)
        M *= np.sqrt(p) / np.linalg.norm(M)
    np.testing.assert_allclose(model.predict(X_new), prediction, atol=1e-6)
    np.testing.assert_allclose(model.input_transform_, M, atol=1e-6)


@pytest.mark.parametrize(
    ("metric", "sizes"),
    [
        *itertools.product(("coefficient", "gradient"), [(12,), (np.inf,)]),
        *itertools.product(("function", "diagonal"), [(np.inf,)]),
    ],
)
def test_weights_are_repetitions(rng, data, metric, sizes):
    X, y = data
    counts = rng.integers(0, 3, 60)
    settings = {"activation": "erf", "adaptivity": 0.0, "metric": metric, "round_adaptivity": 5.0, "n_rounds": 2}
    weighted = AdaptiveTangentRegressor(sizes, **settings, random_state=0).fit(X, y, counts)
    repeated = AdaptiveTangentRegressor(sizes, **settings, random_state=0).fit(
        np.repeat(X, counts, axis=0), np.repeat(y, counts)
    )
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-6)
    np.testing.assert_allclose(weighted.input_transform_, repeated.input_transform_, atol=1e-6)


SETTINGS = [
    {"metric": "coefficient"},
    {"metric": "gradient", "adaptivity": 0.0, "alpha": "loo", "round_adaptivity": 100.0},
    {"metric": "coefficient", "adaptivity": 0.0, "alpha": "loo", "round_adaptivity": 10.0},
]
SMOOTH = {"metric": "function", "adaptivity": 0.0, "alpha": "loo", "round_adaptivity": 100.0}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("sizes", [(256,), (np.inf,)])
def test_rounds_fit_what_ridge_misses(settings, sizes):
    X, y = make_square(1200, 30, random_state=0)
    ridge = TangentRidge(sizes, alpha="loo", random_state=0).fit(X[:300], y[:300])
    model = AdaptiveTangentRegressor(sizes, **settings, n_rounds=5, random_state=0).fit(X[:300], y[:300])
    assert 1.0 - ridge.score(X[300:], y[300:]) > 0.6
    assert 1.0 - model.score(X[300:], y[300:]) < 0.4


@pytest.mark.parametrize("settings", [*SETTINGS, SMOOTH])
def test_the_metric_shows_the_direction_that_matters(settings):
    X, y = make_square(1200, 30, random_state=0)
    model = AdaptiveTangentRegressor((np.inf,), **settings, n_rounds=5).fit(X[:300], y[:300])
    values, vectors = np.linalg.eigh(model.input_metric_)
    assert values[-1] > 0.5 * values.sum()
    # y is a function of uᵀx alone, and u is that direction.
    assert np.corrcoef((X @ vectors[:, -1]) ** 2, y)[0, 1] > 0.8


def test_what_rounds_record(data):
    X, y = data
    model = AdaptiveTangentRegressor((12, 8), adaptivity=3.0, n_rounds=3, random_state=0).fit(X, y)
    assert len(model.rounds_) == 4
    assert model.rounds_[0].left == [None] * 3
    for round_ in model.rounds_[1:]:
        assert [len(left) for left in round_.left] == [4, 12, 8]
        # The scale of every layer is kept.
        np.testing.assert_allclose([np.sum(left**2) for left in round_.left], [4.0, 12.0, 8.0])
        assert round_.right == [None] * 3
        assert round_.dual_gap <= 1e-6
    assert model.rounds_[-1].training_error == pytest.approx(np.mean((model.predict(X) - y) ** 2))
    assert model.rounds_[-1].objective == model.objective_
    assert np.isnan(model.rounds_[-1].log_evidence)
    assert np.trace(model.input_metric_) == pytest.approx(4.0)


def test_kernel_ridge_on_the_last_features(data):
    X, y = data
    model = AdaptiveTangentRegressor((np.inf,), adaptivity=3.0, n_rounds=2, alpha=0.1, tol=1e-12).fit(X, y)
    centre = np.eye(60) - 1.0 / 60
    K = centre @ model.kernel(X) @ centre
    fit = K @ np.linalg.solve(K + 0.1 * np.eye(60), y - y.mean()) + y.mean()
    np.testing.assert_allclose(model.predict(X), fit, atol=1e-4)
    assert not np.allclose(model.initial_kernel(X), model.kernel(X), atol=0.01)
    np.testing.assert_allclose(model.initial_kernel(X), TangentRidge((np.inf,)).fit(X, y).initial_kernel(X), atol=1e-7)


def test_both_sides_move_where_they_can(data):
    X, y = data
    settings = {"penalty": JointPenalty(), "adaptivity": 2.0, "n_rounds": 1, "tol": 1e-5, "random_state": 0}
    model = AdaptiveTangentRegressor((10,), **settings).fit(X, y)
    left, right = model.rounds_[1].left[0], model.rounds_[1].right[0]
    assert left.shape == (4, 4)
    np.testing.assert_allclose([np.sum(left**2), np.sum(right**2)], [4.0, 10.0])
    two = np.column_stack([y, X[:, 3]])
    assert AdaptiveTangentRegressor((10,), outputs="network", **settings).fit(X, two).rounds_[1].right[1].shape == (
        2,
        2,
    )
    for sizes, targets in (((10,), two), ((np.inf,), y)):
        with pytest.raises(ValueError, match=r"moves both sides need units to move.*one-sided penalty"):
            AdaptiveTangentRegressor(sizes, **settings).fit(X, targets)
    AdaptiveTangentRegressor((np.inf,), **{**settings, "metric": "gradient"}).fit(X, y)


def test_a_layer_moves_as_it_is_told_to(data):
    X, y = data
    model = AdaptiveTangentRegressor((8, 6), adaptivity=0.0, round_adaptivity=[0.0, 5.0, 0.0], n_rounds=1)
    moved = [left is not None for left in model.fit(X, y).rounds_[1].left]
    assert moved == [False, True, False]
    np.testing.assert_array_equal(model.input_transform_, np.eye(4))
    still = AdaptiveTangentRegressor((8,), adaptivity=0.0, n_rounds=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(still.predict(X), TangentRidge((8,), random_state=0).fit(X, y).predict(X), rtol=1e-9)
    only_last = AdaptiveTangentRegressor((8,), layers=[1], n_rounds=1, random_state=0).fit(X, y)
    assert [left is not None for left in only_last.rounds_[1].left] == [False, True]
    with pytest.raises(
        ValueError, match=r"rounds at infinite width move the first layer, and layers=\[1\] leaves it out"
    ):
        AdaptiveTangentRegressor((np.inf,), layers=[1], n_rounds=1).fit(X, y)


@pytest.mark.parametrize("penalty", ["nuclear", "power"])
def test_constant_targets_move_nothing(data, penalty):
    X, _ = data
    with pytest.warns(UserWarning, match="y is constant"):
        model = AdaptiveTangentRegressor((8,), penalty=penalty, n_rounds=2, random_state=0).fit(X, np.full(60, 2.0))
    np.testing.assert_allclose(model.predict(X), 2.0)
    np.testing.assert_allclose(model.input_transform_, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(model.feature_importances_, 0.25)


def test_adapted_inputs(rng):
    X, y = make_product(300, 6, random_state=0)
    X = np.column_stack([X, rng.standard_normal((300, 2))])
    model = AdaptiveTangentRegressor((np.inf,), adaptivity=5.0, n_rounds=3).fit(X, y)
    np.testing.assert_allclose(model.transform(X), X @ model.input_transform_)
    assert model.feature_importances_.sum() == pytest.approx(1.0)
    assert model.feature_importances_[6:].max() < model.feature_importances_[:6].max() / 10
    assert list(model.get_feature_names_out()) == [f"adaptivetangentregressor{i}" for i in range(8)]
    after = make_pipeline(model, Ridge()).fit(X, y)
    assert after.predict(X).shape == (300,)
    with pytest.raises(ValueError, match="expecting 8 features"):
        model.transform(X[:, :3])


def test_classes():
    X, y = make_square(700, 20, random_state=0)
    labels = np.where(y > 0, "far", "near")
    plain, moved = (
        AdaptiveTangentClassifier((np.inf,), adaptivity=0.0, round_adaptivity=100.0, metric="gradient", n_rounds=n)
        .fit(X[:300], labels[:300])
        .score(X[300:], labels[300:])
        for n in (0, 6)
    )
    assert moved > plain + 0.05


def test_one_warning_for_all_rounds(data):
    X, y = data
    model = AdaptiveTangentRegressor((16,), alpha=1e-4, adaptivity=1e3, max_iter=1, n_rounds=2, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert warning.filename == __file__


def test_warm_start_after_rounds_starts_anew(data):
    X, y = data
    model = AdaptiveTangentRegressor((8,), n_rounds=1, warm_start=True, random_state=0).fit(X, y)
    first = model.predict(X)
    np.testing.assert_array_equal(model.fit(X, y).predict(X), first)
    paper = model.set_params(n_rounds=0).fit(X, y).predict(X)
    np.testing.assert_allclose(paper, AdaptiveTangentRegressor((8,), random_state=0).fit(X, y).predict(X))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_rounds": -1}, ValueError, "n_rounds == -1, must be >= 0"),
        ({"n_rounds": 1.5}, TypeError, "n_rounds must be an instance of int"),
        (
            {"metric": "euclidean"},
            ValueError,
            r"metric must be one of \['coefficient', 'diagonal', 'evidence', .*'relevance'\]; got 'euclidean'",
        ),
        ({"n_rounds": 1, "round_adaptivity": -1.0}, ValueError, "adaptivity must be a finite number >= 0"),
        ({"n_rounds": 1, "round_adaptivity": [1.0]}, ValueError, "adaptivity must be one for all layers or a sequence"),
    ],
)
def test_bad_parameters_are_refused(data, arguments, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        AdaptiveTangentRegressor((8,), **arguments).fit(X, y)


def test_stretches_of_units_multiply_from_the_left(data):
    X, y = data
    settings = {"penalty": JointPenalty(), "adaptivity": 2.0, "n_rounds": 3, "tol": 1e-5, "random_state": 0}
    rounds = AdaptiveTangentRegressor((10,), **settings).fit(X, y).rounds_
    # M1 = M1' S1 and M2 = S2 M2', where a stretch is symmetric and, from the second round on, a transform is not.
    for before, after in itertools.pairwise(rounds[1:]):
        for stretch in (
            np.linalg.solve(before.left[0], after.left[0]),
            np.linalg.solve(before.right[0].T, after.right[0].T).T,
        ):
            assert np.ptp(np.linalg.eigvalsh(stretch)) > 1e-3
            np.testing.assert_allclose(stretch, stretch.T, atol=1e-10)
        assert not np.allclose(after.right[0], after.right[0].T, atol=1e-4)


@pytest.mark.parametrize(
    ("widths", "metric", "batch_size"),
    [
        ((6,), "coefficient", None),
        ((6,), "gradient", None),
        ((6,), "coefficient", 4),
        ((np.inf,), "coefficient", None),
        ((np.inf,), "function", None),
        ((np.inf,), "diagonal", None),
        ((np.inf,), "evidence", None),
        ((np.inf,), "relevance", None),
    ],
)
def test_more_features_than_samples_are_the_same_in_a_span(rng, monkeypatch, widths, metric, batch_size):
    X, new = rng.standard_normal((2, 12, 30))
    X[5] = X[4]
    y = X[:, 0] * X[:, 1]
    settings = {
        "alpha": 0.1,
        "metric": metric,
        "n_rounds": 3,
        "batch_size": batch_size,
        "random_state": 0,
        "tol": 1e-12,  # its root bounds the coefficients
    }
    follows_evidence = metric in ("evidence", "relevance")
    settings |= {"adaptivity": 0.0} if follows_evidence else {"round_adaptivity": 100.0}
    model = AdaptiveTangentRegressor(widths, **settings).fit(X, y)
    assert model._input_transform.value.core.shape == ((30,) if metric in ("diagonal", "relevance") else (12, 12))

    def dense(transform, stretch):
        product = transform.to_dense() @ (np.diag(stretch) if isinstance(stretch, np.ndarray) else stretch.to_dense())
        return ProductTransform(product * np.sqrt(len(product)) / np.linalg.norm(product))

    monkeypatch.setattr(ProductTransform, "then", dense)
    expected = AdaptiveTangentRegressor(widths, **settings).fit(X, y)
    M = expected.input_transform_
    assert np.abs(M - np.eye(30)).max() > 0.1
    np.testing.assert_allclose(model.input_transform_, M, atol=1e-6)
    np.testing.assert_allclose(model.predict(new), expected.predict(new), atol=1e-6)
    np.testing.assert_allclose(model.transform(new), new @ M, atol=1e-6)
    np.testing.assert_allclose(model.input_metric_, M @ M.T, atol=1e-6)
    np.testing.assert_allclose(model.feature_importances_, np.diagonal(M @ M.T) / 30.0, atol=1e-6)
    for round_, other in zip(model.rounds_[1:], expected.rounds_[1:], strict=True):
        for left, matrix in zip(round_.left, other.left, strict=True):
            assert (left is None) == (matrix is None)
            if left is not None:
                np.testing.assert_allclose(left, matrix, atol=1e-6)


def test_many_features_need_no_square_matrix():
    X = np.random.default_rng(0).standard_normal((10, 100_000))
    y = X[:, 0] * X[:, 1]
    tracemalloc.start()
    for metric in ("function", "relevance"):
        model = AdaptiveTangentRegressor((np.inf,), alpha=0.1, metric=metric, n_rounds=2).fit(X, y)
        assert model.transform(X).shape == X.shape
        assert model.feature_importances_.sum() == pytest.approx(1.0)
        assert len(pickle.dumps(model)) < 30 * X.nbytes
    assert tracemalloc.get_traced_memory()[1] < 40 * X.nbytes
    tracemalloc.stop()
