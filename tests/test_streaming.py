"""Factors computed in batches, and factors in single precision, against factors that are kept in double precision."""

import pickle
import tracemalloc

import numpy as np
import pytest

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentRegressor,
    StructuredRegression,
    TangentFeatures,
    TangentRidge,
    adapt,
    solve,
)
from lowrank_tangent.datasets import make_product
from lowrank_tangent.networks import MLP, InfiniteMLP
from lowrank_tangent.operators import LayerFactors, LowRankTransform, StreamedOperator, TangentOperator

CASES = [("network", 1), ("network", 3), ("shared", 1), ("shared", 3)]
pytestmark = pytest.mark.filterwarnings("error")


def stream_of(operator, batch_size):
    """The same operator, whose factors come in batches."""
    return StreamedOperator(
        lambda rows: [layer.rows(rows) for layer in operator.layers],
        operator.n_samples,
        batch_size,
        operator.outputs,
        operator.n_outputs,
    )


def single(operator):
    """The same operator with factors rounded to single precision, and one with those factors in double precision."""
    rounded = [LayerFactors(layer.h.astype(np.float32), layer.delta.astype(np.float32)) for layer in operator.layers]
    exact = [LayerFactors(layer.h.astype(float), layer.delta.astype(float)) for layer in rounded]
    n_outputs = operator.n_outputs if operator.outputs == "shared" else None
    return (TangentOperator(layers, operator.outputs, n_outputs) for layers in (rounded, exact))


@pytest.mark.parametrize(("outputs", "C"), CASES)
@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_streams_agree_with_the_dense_matrix(rng, outputs, C, positions, batch_size):
    kept = random_operator(rng, 7, [(4, 5), (2, 3)], outputs, C, positions)
    weights = rng.uniform(0.2, 3.0, 7)
    A = dense_matrix(kept.weighted(weights, True))
    stream = stream_of(kept, batch_size).weighted(weights, True)
    coefs = [rng.standard_normal(shape) for shape in stream.coef_shapes]
    residual = rng.standard_normal((7, C))
    np.testing.assert_allclose(stream.matvec(coefs).ravel(), A @ flat(coefs), atol=1e-13)
    np.testing.assert_allclose(flat(stream.rmatvec(residual)), A.T @ residual.ravel(), atol=1e-13)
    np.testing.assert_allclose(stream.gram(), A @ A.T, atol=1e-13)
    np.testing.assert_allclose(stream.diagonal(), kept.diagonal(), atol=1e-13)
    np.testing.assert_allclose(stream.largest(), kept.largest())
    np.testing.assert_allclose(stream.scaled(3.0).matvec(coefs), 3.0 * kept.matvec(coefs), atol=1e-13)
    some = [5, 0, 2]
    np.testing.assert_allclose(stream.rows(some).gram(), kept.rows(some).gram(), atol=1e-13)
    np.testing.assert_allclose(
        stream.gram(stream.rows(some)), stream_of(kept, 7).weighted(weights, True).gram(kept.rows(some))
    )


@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_transforms_of_streams(rng, outputs, C):
    kept = random_operator(rng, 7, [(4, 5), (3, 2)], outputs, C)
    left = [
        LowRankTransform(np.linalg.qr(rng.standard_normal((p, 2)))[0], rng.uniform(1, 3, 2))
        for p, _ in kept.coef_shapes
    ]
    right = [
        LowRankTransform(np.linalg.qr(rng.standard_normal((q, 1)))[0], rng.uniform(1, 3, 1))
        for _, q in kept.coef_shapes
    ]
    stream = stream_of(kept, 3).transformed(left, right)
    np.testing.assert_allclose(stream.gram(), kept.transformed(left, right).gram(), atol=1e-13)
    assert stream.is_streamed


@pytest.mark.parametrize(("outputs", "C"), CASES)
@pytest.mark.parametrize("streamed", [False, True])
def test_single_precision_factors_have_products_in_double(rng, monkeypatch, outputs, C, streamed):
    monkeypatch.setattr("lowrank_tangent.operators.factored._BATCH_BYTES", 8 * 40)
    rounded, exact = single(random_operator(rng, 9, [(4, 5), (2, 3)], outputs, C))
    A = dense_matrix(exact)
    operator = stream_of(rounded, 4) if streamed else rounded
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    residual = rng.standard_normal((9, C))
    np.testing.assert_allclose(operator.matvec(coefs).ravel(), A @ flat(coefs), atol=1e-13)
    np.testing.assert_allclose(flat(operator.rmatvec(residual)), A.T @ residual.ravel(), atol=1e-13)
    np.testing.assert_allclose(operator.gram(), A @ A.T, atol=1e-13)
    quick = operator.with_precision(np.float32)
    assert quick.matvec(coefs).dtype == quick.rmatvec(residual)[0].dtype == quick.gram().dtype == np.float32
    np.testing.assert_allclose(quick.matvec(coefs).ravel(), A @ flat(coefs), atol=1e-4)


@pytest.mark.parametrize("method", ["newton", "proximal", "reweighted", "bilinear", "cvxpy"])
@pytest.mark.parametrize("kind", ["stream", "single"])
def test_every_solver_takes_streams_and_single_precision(rng, method, kind):
    rounded, exact = single(random_operator(rng, 14, [(3, 4), (2, 3)], "shared", 2))
    y = low_rank_target(rng, exact)
    settings = {"penalty": "power", "alpha": 0.1, "adaptivity": 10.0, "fit_intercept": True}
    tol = 1e-9 if method in ("newton", "reweighted") else 1e-6
    expected = solve(StructuredRegression(exact, y, **settings), "newton", tol=1e-10)
    operator = stream_of(exact, 5) if kind == "stream" else rounded
    found = solve(StructuredRegression(operator, y, **settings), method, tol=tol)
    assert found.converged
    assert found.objective == pytest.approx(expected.objective, rel=10 * tol)
    np.testing.assert_allclose(found.prediction, operator.matvec(found.coefs), atol=1e-13)


@pytest.mark.parametrize("method", ["ridge", "newton"])
@pytest.mark.parametrize("adaptivity", [0.0])
def test_ridge_of_streams(rng, method, adaptivity):
    kept = random_operator(rng, 14, [(3, 4), (2, 3)], "shared", 2)
    y = low_rank_target(rng, kept)
    expected, found = (
        solve(StructuredRegression(operator, y, alpha=0.1, adaptivity=adaptivity), method, tol=1e-10)
        for operator in (kept, stream_of(kept, 4))
    )
    assert found.converged
    np.testing.assert_allclose(flat(found.coefs), flat(expected.coefs), atol=1e-5)


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
@pytest.mark.parametrize("outputs", ["shared", "network"])
@pytest.mark.parametrize(
    "settings", [{"batch_size": 37}, {"dtype": np.float32}, {"dtype": np.float32, "batch_size": 50}]
)
def test_classifier_on_streams_and_in_single_precision(rng, loss, outputs, settings):
    X = rng.standard_normal((120, 6))
    y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 0.8)
    common = {"hidden_layer_sizes": (12, 8), "loss": loss, "outputs": outputs, "alpha": 0.1, "random_state": 0}
    expected = AdaptiveTangentClassifier(**common).fit(X, y)
    found = AdaptiveTangentClassifier(**common, **settings).fit(X, y)
    assert found.dual_gap_ <= 1e-6
    # Features that differ by rounding have another optimum, by as much.
    assert found.objective_ == pytest.approx(expected.objective_, rel=1e-5 if "dtype" in settings else 2e-6)
    np.testing.assert_allclose(found.decision_function(X), expected.decision_function(X), atol=0.02)
    np.testing.assert_allclose(found.kernel(X[:9]), expected.kernel(X[:9]), rtol=0.02, atol=0.02)
    assert found.features_.weights_[0].dtype == settings.get("dtype", float)


@pytest.mark.parametrize("metric", ["coefficient", "gradient"])
@pytest.mark.parametrize("settings", [{"batch_size": 37}, {"dtype": np.float32}])
def test_rounds_on_streams_and_in_single_precision(metric, settings):
    X, y = make_product(150, 5, random_state=0)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 150)
    common = {
        "hidden_layer_sizes": (16,),
        "n_rounds": 2,
        "metric": metric,
        "alpha": 0.1,
        "tol": 1e-9,
        "random_state": 0,
    }
    expected = AdaptiveTangentRegressor(**common).fit(X, y, weights)
    found = AdaptiveTangentRegressor(**common, **settings).fit(X, y, weights)
    np.testing.assert_allclose(found.input_metric_, expected.input_metric_, atol=5e-3)
    np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=5e-3)


def test_infinite_width_in_single_precision():
    X, _ = make_product(80, 4, random_state=0)
    exact, rounded = (
        TangentFeatures(InfiniteMLP(2), dtype=dtype).fit(X).operator(X) for dtype in (np.float64, np.float32)
    )
    assert rounded.layers[0].dtype == np.float32
    np.testing.assert_allclose(rounded.gram(), exact.gram(), atol=1e-5)


def test_streams_need_memory_for_a_batch():
    n, batch_size = 2000, 50
    X = np.random.default_rng(0).standard_normal((n, 20))
    y = X[:, 0] ** 2
    features = TangentFeatures(MLP((200, 200)), random_state=0, batch_size=batch_size).fit(X)
    operator = features.operator(X)
    coefs = [np.ones(shape) for shape in operator.coef_shapes]
    factors = 8 * n * sum(sum(layer.shape) for layer in operator.layers)

    def peak(run):
        tracemalloc.start()
        run()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    coefficients = 8 * sum(coef.size for coef in coefs)
    for run in (lambda: operator.matvec(coefs), lambda: operator.rmatvec(y[:, None])):
        assert peak(run) < 3 * coefficients + 8 * factors * batch_size / n
    kept = TangentFeatures(MLP((200, 200)), random_state=0).fit(X)
    assert peak(lambda: kept.operator(X)) >= factors


def test_what_is_not_a_precision_or_a_batch_size():
    X, y = make_product(30, 4, random_state=0)
    for dtype in (np.int64, "float16", None, "precise"):
        with pytest.raises(ValueError, match=r"dtype must be np.float32 or np.float64; got"):
            TangentRidge(dtype=dtype).fit(X, y)
    for batch_size in (0, -3):
        with pytest.raises(ValueError, match="batch_size"):
            TangentRidge(batch_size=batch_size).fit(X, y)
    with pytest.raises(TypeError, match="batch_size"):
        TangentRidge(batch_size=2.5).fit(X, y)


def test_adaptation_of_a_stream(rng):
    kept = random_operator(rng, 30, [(4, 5)], "shared", 2)
    y = low_rank_target(rng, kept)
    stream = stream_of(kept, 11)
    problem = StructuredRegression(stream, y, alpha=0.1, adaptivity=10.0)
    solution = solve(problem, tol=1e-10)
    kernel = adapt(problem, solution).kernel(stream)
    np.testing.assert_allclose(kernel @ solution.dual.ravel() / 0.1, solution.prediction.ravel(), atol=1e-4)


class Counted:
    """Layers of some samples of an operator, and how many samples have been asked for."""

    def __init__(self, operator):
        self.operator, self.samples = operator, 0

    def __call__(self, rows):
        layers = [layer.rows(rows) for layer in self.operator.layers]
        self.samples += layers[0].n_samples
        return layers


@pytest.mark.parametrize("kernel", ["gram", "mean_gram"])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_a_kernel_takes_few_passes(rng, outputs, C, kernel):
    """In proportion to the samples, as long as they are more than the features are wide: not to their square."""
    for n_batches in (8, 40):
        kept = random_operator(rng, 5 * n_batches, [(4, 5), (2, 3)], outputs, C)
        counted = Counted(kept)
        stream = StreamedOperator(counted, kept.n_samples, 5, outputs, C)
        counted.samples = 0
        found = getattr(stream, kernel)()
        assert counted.samples <= 3 * kept.n_samples
        np.testing.assert_allclose(found, getattr(kept, kernel)(), atol=1e-12)
        counted.samples = 0
        np.testing.assert_allclose(stream.gram(kept.rows([2, 0])), kept.gram(kept.rows([2, 0])), atol=1e-12)
        assert counted.samples == kept.n_samples


@pytest.mark.parametrize("share", [0.0, 0.05, 10.0])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_kernels_of_streams_whatever_the_memory(rng, monkeypatch, outputs, C, share):
    monkeypatch.setattr("lowrank_tangent.operators.factored._KEPT_SHARE", share)
    kept = random_operator(rng, 23, [(4, 5), (2, 3)], outputs, C)
    weights = rng.uniform(0.5, 2.0, 23)
    counted = Counted(kept)
    stream = StreamedOperator(counted, 23, 4, outputs, C).weighted(weights, True)
    other = StreamedOperator(Counted(kept), 23, 9, outputs, C)
    counted.samples = 0
    np.testing.assert_allclose(stream.gram(), kept.weighted(weights, True).gram(), atol=1e-12)
    if share == 10.0:
        assert counted.samples == 23
    np.testing.assert_allclose(stream.gram(other), kept.weighted(weights, True).gram(kept), atol=1e-12)


@pytest.mark.parametrize("adaptivity", [0.0, 10.0])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_no_kernel_of_a_stream_unless_asked_for(rng, monkeypatch, outputs, C, adaptivity):
    for name, value in (("LEAST_LANDMARKS", 5), ("LANDMARK_PRODUCTS", 0.0)):
        monkeypatch.setattr(f"lowrank_tangent.solvers.newton.costs.{name}", value)
    kept = random_operator(rng, 40, [(4, 5), (2, 3)], outputs, C)
    y = low_rank_target(rng, kept)
    counted = Counted(kept)
    stream = StreamedOperator(counted, 40, 6, outputs, C)
    expected = solve(StructuredRegression(kept, y, alpha=0.1, adaptivity=adaptivity), tol=1e-9)
    largest = []
    assemble = TangentOperator._assemble

    def watched(operator, other, per_output):
        kernel = assemble(operator, other, per_output)
        largest.append(kernel.size)
        return kernel

    with monkeypatch.context() as patch:
        patch.setattr(TangentOperator, "_assemble", watched)
        found = solve(StructuredRegression(stream, y, alpha=0.1, adaptivity=adaptivity), tol=1e-9)
    assert found.method == "newton"
    assert found.converged
    assert max(largest) <= 40 * 5
    assert found.objective == pytest.approx(expected.objective, rel=1e-8)
    if adaptivity == 0.0:
        assert solve(StructuredRegression(stream, y, alpha=0.1, adaptivity=0.0), "ridge").method == "ridge"


@pytest.mark.parametrize("settings", [{"batch_size": 7}, {"batch_size": 7, "dtype": np.float32}])
def test_a_problem_on_a_stream_can_be_pickled(rng, settings):
    X = rng.standard_normal((30, 4))
    features = TangentFeatures(MLP((8,)), random_state=0, **settings).fit(X)
    operator = features.operator(X)
    assert operator.is_streamed
    problem = StructuredRegression(operator, X[:, 0] * X[:, 1], alpha=0.1, fit_intercept=True)
    solution = solve(problem)
    adapted = adapt(problem, solution).transform(operator).scaled(2.0).with_precision(np.float64)
    again, adapted_again = pickle.loads(pickle.dumps((problem, adapted)))
    assert again.operator.is_streamed
    assert again.certificate(solution.coefs, solution.dual) == problem.certificate(solution.coefs, solution.dual)
    np.testing.assert_array_equal(adapted_again.matvec(solution.coefs), adapted.matvec(solution.coefs))
