"""Networks of infinite width: closed forms against integration, published recursions and wide finite networks."""

import itertools
import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer

from lowrank_tangent import AdaptiveTangentRegressor, StructuredRegression, TangentFeatures, TangentRidge, adapt, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.networks import MLP, InfiniteMLP, network_of
from lowrank_tangent.networks.moments import ERF, RELU, layer_moments

COVARIANCES = [(1.0, 1.0, 0.3), (2.0, 0.5, -0.9), (1.0, 3.0, 0.0), (0.01, 4.0, 0.15), (1.0, 1.0, -1.0), (2.0, 2.0, 2.0)]
CASES = [(activation, depth) for activation in ("relu", "erf") for depth in (1, 2, 3)]


def integrate_relu(a, b, c):
    """Both moments in polar coordinates: the radius integrates to 2 and to 1, the angle is left to quadrature."""
    root = np.array([[np.sqrt(a), 0.0], [c / np.sqrt(a), np.sqrt(max(b - c**2 / a, 0.0))]])

    def units(t):
        return root @ [np.cos(t), np.sin(t)]

    kinks = sorted((np.arctan2(-row[0], row[1]) + k * np.pi) % (2 * np.pi) for row in root for k in (0, 1))
    ends = [0.0, *kinks, 2 * np.pi]

    def integral(f):
        return sum(quad(f, low, high)[0] for low, high in itertools.pairwise(ends)) / (2 * np.pi)

    value = 2.0 * integral(lambda t: np.prod(np.maximum(units(t), 0.0)))
    return value, integral(lambda t: float((units(t) > 0.0).all()))


def integrate_erf(a, b, c):
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    first, second = np.meshgrid(nodes, nodes, indexing="ij")
    weights = np.outer(weights, weights) / (2 * np.pi)
    u = np.sqrt(a) * first
    v = c / np.sqrt(a) * first + np.sqrt(max(b - c**2 / a, 0.0)) * second
    slopes = 4 / np.pi * np.exp(-(u**2) - v**2)
    return np.sum(weights * erf(u) * erf(v)), np.sum(weights * slopes)


@pytest.mark.parametrize(("a", "b", "c"), COVARIANCES)
@pytest.mark.parametrize(
    ("activation", "root", "integrate", "tol"),
    [(RELU, np.sqrt, integrate_relu, 1e-8), (ERF, lambda variance: np.sqrt(1.0 + 2.0 * variance), integrate_erf, 1e-6)],
)
def test_moments_are_the_integrals(activation, root, integrate, tol, a, b, c):
    moments = layer_moments(activation, np.array([[c]]), root(np.array([a])), root(np.array([b])))
    np.testing.assert_allclose(np.ravel(moments), integrate(a, b, c), atol=tol)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_relu_kernel_is_the_published_recursion(rng, depth):
    # Arora et al. (arXiv 1904.11955), with the arc-cosine kernels of Cho & Saul; weights of variance 2 / fan-in there.
    X, Y = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    norms = np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(Y, axis=1)
    covariance = X @ Y.T
    tangent = covariance.copy()
    for _ in range(depth):
        angle = np.arccos(covariance / norms)
        covariance = norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
        tangent = covariance + tangent * (1.0 - angle / np.pi)
    np.testing.assert_allclose(InfiniteMLP(depth, bias=False).kernel(X, Y), tangent / (3 * 2**depth), rtol=1e-12)


def test_erf_covariance_is_the_published_one(rng):
    # Williams (1996): bias weights of the same variance as the others, inputs with a 1 in front.
    X = rng.standard_normal((6, 3))
    extended = np.hstack([np.ones((6, 1)), X])
    S = 2.0 * extended @ extended.T / 3
    norms = np.sqrt(1.0 + np.diagonal(S))
    expected = 2.0 / np.pi * np.arcsin(S / np.outer(norms, norms))
    inputs, _ = InfiniteMLP(1, "erf", bias=1.0).layer_products(X)
    np.testing.assert_allclose(inputs[1], expected, rtol=1e-12)


@pytest.mark.parametrize(("activation", "depth"), CASES)
def test_wide_networks_approach_it(rng, activation, depth):
    X = rng.standard_normal((10, 4))
    limits = [a * b for a, b in zip(*InfiniteMLP(depth, activation, 0.7).layer_products(X), strict=True)]
    errors, means = [], []
    for width in (32, 512):
        network = MLP((width,) * depth, activation, "ntk", 0.7)
        weights = [network.initialise(4, 1, seed) for seed in range(32)]
        kernels = np.array(
            [[(h @ h.T) * (delta[:, 0] @ delta[:, 0].T) for h, delta in network.factors(w, X)] for w in weights]
        )
        sizes = np.linalg.norm(limits, axis=(1, 2))
        errors.append(np.sqrt(np.mean(np.linalg.norm(kernels - limits, axis=(2, 3)) ** 2, axis=0)) / sizes)
        means.append(np.linalg.norm(kernels.mean(axis=0) - limits, axis=(1, 2)) / sizes)
    # Sixteen times the width divides the error of one network, which is random, by four.
    assert np.all(errors[1] < 0.4 * errors[0])
    # No layer is off by a factor: its mean over networks errs by what is left of the randomness.
    assert np.all(means[1] < 3.0 * errors[1] / np.sqrt(32))


@pytest.mark.parametrize(("activation", "depth"), CASES)
@pytest.mark.parametrize("bias", [0.7, False])
def test_slopes_are_those_of_the_products(rng, activation, depth, bias):
    X, step = rng.standard_normal((8, 4)), 1e-5
    network = InfiniteMLP(depth, activation, bias)

    def differences(function):
        return np.stack([(function(X + e) - function(X - e)) / (2.0 * step) for e in step * np.eye(4)], axis=-1)

    def gradients(along, radial):
        return along[..., None] * X + radial[..., None] * X[:, None]

    for side, slopes in enumerate(network.layer_slopes(X)):
        for layer, pair in enumerate(slopes):
            expected = differences(lambda Z, side=side, layer=layer: network.layer_products(Z, X)[side][layer])
            np.testing.assert_allclose(gradients(*pair), expected, atol=1e-4 if activation == "relu" else 1e-8)
    tangent = network.tangent(X)
    np.testing.assert_allclose(
        gradients(tangent.along, tangent.radial), differences(lambda Z: network.kernel(Z, X)), atol=1e-4
    )
    # One pass over all layers finds what the layers' own matrices make up.
    inputs, gates = network.layer_products(X)
    slopes = list(zip(inputs, gates, *network.layer_slopes(X), strict=True))
    np.testing.assert_allclose(tangent.kernel, sum(np.multiply(inputs, gates)), rtol=1e-13)
    np.testing.assert_allclose(tangent.gates, gates[0], rtol=1e-13)
    expected = [
        sum(first[side] * gate + product * second[side] for product, gate, first, second in slopes) for side in (0, 1)
    ]
    np.testing.assert_allclose((tangent.along, tangent.radial), expected, rtol=1e-11, atol=1e-12)


def test_slopes_on_both_sides_of_a_repeated_sample_cancel(rng):
    X = np.vstack([rng.standard_normal((5, 3)), np.zeros((1, 3))])
    X[5] = X[0]
    network, step = InfiniteMLP(2), 1e-6 * rng.standard_normal(3)
    above, here, below = (network.kernel((X[:1] + s), X)[0] for s in (step, 0.0, -step))
    # A cusp: down on both sides.
    assert above[5] < here[5] - 1e-8
    assert below[5] < here[5] - 1e-8
    tangent = network.tangent(X)
    expected = (above - below) / 2.0
    np.testing.assert_allclose(tangent.along[0] * (X @ step) + tangent.radial[0] * (X[0] @ step), expected, atol=1e-10)


def test_gradients_of_the_limit_are_those_of_wide_networks(rng):
    X = rng.standard_normal((40, 3))
    y = np.sin(2.0 * X[:, 0]) * X[:, 1]

    def gradients(model):
        steps = 1e-4 * np.eye(3)
        return np.stack([(model.predict(X + e) - model.predict(X - e)) / 2e-4 for e in steps], axis=-1)

    limit = TangentRidge((np.inf, np.inf), "erf", alpha=0.02).fit(X, y)
    of_limit = limit.features_.input_gradients(limit.coefs_)[:, :, 0]
    np.testing.assert_allclose(of_limit, gradients(limit), atol=1e-5)
    errors = [
        np.sqrt(
            np.mean(
                [
                    np.mean(
                        (gradients(TangentRidge((w, w), "erf", alpha=0.02, random_state=k).fit(X, y)) - of_limit) ** 2
                    )
                    for k in range(4)
                ]
            )
        )
        for w in (30, 1000)
    ]
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 0.2 * np.sqrt(np.mean(of_limit**2))


@pytest.mark.parametrize(("activation", "depth"), CASES)
@pytest.mark.parametrize("bias", [0.7, False])
def test_factors_have_the_products_of_the_layers(rng, activation, depth, bias):
    X, X_new = rng.standard_normal((15, 4)), rng.standard_normal((7, 4))
    network = InfiniteMLP(depth, activation, bias)
    anchors = network.anchor(X)
    assert anchors.jitter == 0.0
    train = network.factors(anchors, X)
    assert [h.shape[1] for h, _ in train] == [4 + bool(bias)] + [15] * depth
    assert [delta.shape[1] for _, delta in train] == [15] * depth + [1]
    for points in (X, X_new):
        inputs, gradients = network.layer_products(points, X)
        for (h, delta), (h0, delta0), first, second in zip(
            network.factors(anchors, points), train, inputs, gradients, strict=True
        ):
            np.testing.assert_allclose(h @ h0.T, first, atol=1e-7)
            np.testing.assert_allclose(delta @ delta0.T, second, atol=1e-7)


def test_repeated_samples_take_a_jitter_and_say_so(rng, caplog):
    X = np.repeat(rng.standard_normal((6, 3)), 2, axis=0)
    network = InfiniteMLP()
    with caplog.at_level("INFO", logger="lowrank_tangent"):
        anchors = network.anchor(X)
    assert "singular kernel of infinite width" in caplog.text
    assert 0.0 < anchors.jitter < 1e-10
    kernel = sum((h @ h.T) * (delta @ delta.T) for h, delta in network.factors(anchors, X))
    np.testing.assert_allclose(kernel, network.kernel(X), atol=1e-7)
    # Without a bias ReLU units see directions alone.
    parallel = np.vstack([X[0], 2.0 * X[0], X[2]])
    assert InfiniteMLP(bias=False).anchor(parallel).jitter > 0.0
    assert InfiniteMLP(bias=True).anchor(parallel).jitter == 0.0


@pytest.mark.parametrize("sizes", [(np.inf,), (np.inf, np.inf)])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_ridge_is_kernel_ridge_with_the_closed_form(rng, sizes, activation):
    X, X_new = rng.standard_normal((40, 5)), rng.standard_normal((15, 5))
    y = X[:, 0] * X[:, 1] + 3.0
    model = TangentRidge(sizes, activation, alpha=0.05).fit(X, y)
    network = InfiniteMLP(len(sizes), activation)
    kernel, cross = network.kernel(X), network.kernel(X_new, X)
    scale = kernel.diagonal().mean()
    np.testing.assert_allclose(model.initial_kernel(X_new, X), cross / scale, atol=1e-7)
    centre = KernelCenterer().fit(kernel / scale)
    ridge = KernelRidge(alpha=0.05, kernel="precomputed").fit(centre.transform(kernel / scale), y - y.mean())
    np.testing.assert_allclose(
        model.predict(X_new), ridge.predict(centre.transform(cross / scale)) + y.mean(), atol=1e-6
    )


def test_the_adaptive_model_is_certified_and_near_that_of_a_wide_network():
    X, y = make_product(150, 6, random_state=0)
    limit = AdaptiveTangentRegressor((np.inf,), alpha=0.1).fit(X, y)
    assert limit.dual_gap_ <= 1e-6
    objectives = np.array(
        [
            [AdaptiveTangentRegressor((width,), alpha=0.1, random_state=seed).fit(X, y).objective_ for seed in range(4)]
            for width in (50, 2000)
        ]
    )
    errors = np.sqrt(np.mean((objectives / limit.objective_ - 1.0) ** 2, axis=1))
    assert errors[1] < 0.4 * errors[0]
    assert abs(objectives[1].mean() / limit.objective_ - 1.0) < errors[1]


def test_every_layer_has_its_penalty_and_the_semidefinite_program_agrees(rng):
    X = rng.standard_normal((8, 3))
    y = X[:, 0] * X[:, 1]
    operator = TangentFeatures(InfiniteMLP(2)).fit(X).operator(X)
    problem = StructuredRegression(operator, y, ["kl", "power", "power"], 0.05, [20.0, 5.0, 0.0])
    solution = solve(problem, tol=1e-9)
    assert solution.objective == pytest.approx(solve(problem, "cvxpy").objective, rel=1e-5)
    assert [left.is_identity for left in adapt(problem, solution).left] == [False, False, True]


def test_warm_start_needs_the_same_training_points(rng):
    X = rng.standard_normal((30, 3))
    y = X[:, 0] * X[:, 1]
    model = AdaptiveTangentRegressor((np.inf,), warm_start=True).fit(X, y)
    assert model.fit(X, y).n_iter_ <= 1
    cold = AdaptiveTangentRegressor((np.inf,)).fit(X + 0.1, y)
    assert model.fit(X + 0.1, y).n_iter_ == cold.n_iter_ > 1
    np.testing.assert_allclose(model.predict(X), cold.predict(X), atol=1e-3)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e60])
def test_huge_and_tiny_features_without_bias_are_rescaled(rng, scale):
    X = rng.standard_normal((20, 3))
    y = X[:, 0] ** 2
    reference = TangentRidge((np.inf,), bias=False).fit(X, y).predict(X)
    fitted = TangentRidge((np.inf,), bias=False).fit(scale * X, y)
    np.testing.assert_allclose(fitted.predict(scale * X), reference, atol=1e-6)


def test_samples_without_a_direction_are_refused(rng):
    X = rng.standard_normal((10, 3))
    X[4] = 0.0
    with pytest.raises(ValueError, match=r"1 of 10 samples are zero \(the first is sample 4\).*bias=True"):
        TangentRidge((np.inf,), bias=0).fit(X, X[:, 0])
    model = TangentRidge((np.inf,), bias=False).fit(X[:4], X[:4, 0])
    with pytest.raises(ValueError, match="samples are zero"):
        model.predict(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in ({"bias": 0.5}, {"bias": False, "activation": "erf"}):
            assert np.isfinite(TangentRidge((np.inf,), **arguments).fit(X, X[:, 0]).predict(X)).all()


def test_overflow_is_refused():
    X = np.array([[1e200, 1.0], [1.0, 1e200], [2.0, 3.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"overflows: the values of X reach 1e\+200. Standardise"):
            TangentRidge((np.inf,)).fit(X, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth must be an integer >= 1"),
        ({"depth": 1.5}, "depth must be an integer >= 1"),
        ({"depth": True}, "depth must be an integer >= 1"),
        ({"activation": "tanh"}, r"activation must be one of \['erf', 'relu'\] at infinite width"),
        ({"bias": -1.0}, "bias must be"),
        ({"bias": np.inf}, "bias must be"),
    ],
)
def test_bad_descriptions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfiniteMLP(**arguments)


def test_sizes_describe_the_network():
    assert network_of((np.inf, float("inf")), "erf", "ntk", 0.3) == InfiniteMLP(2, "erf", 0.3)
    assert network_of(np.inf, "relu", "ntk", True) == InfiniteMLP(1)
    assert network_of((8,), "gelu", "he", True) == MLP((8,), "gelu", "he")
    with pytest.raises(ValueError, match="all finite or all infinite"):
        network_of((8, np.inf), "relu", "ntk", True)
    with pytest.raises(ValueError, match="only init='ntk' has a limit; got 'he'"):
        network_of((np.inf,), "relu", "he", True)


def test_predictions_do_not_depend_on_what_becomes_of_the_training_array(rng):
    X = rng.standard_normal((20, 3))
    X_new = rng.standard_normal((5, 3))
    model = TangentRidge((np.inf,)).fit(X, X[:, 0])
    before = model.predict(X_new)
    X[:] = 0.0
    np.testing.assert_array_equal(model.predict(X_new), before)


@pytest.mark.parametrize("repeats", [1, 2])
def test_training_points_have_the_same_factors_all_at_once_and_some_at_a_time(rng, repeats):
    X = np.repeat(rng.standard_normal((12, 3)), repeats, axis=0)
    for network in (InfiniteMLP(2, "erf", 0.7), InfiniteMLP(2, "relu", 1.0)):
        anchors = network.anchor(X)
        assert (anchors.jitter > 0.0) == (repeats > 1)
        parts = [network.factors(anchors, part) for part in (X[:5], X[5:])]
        for whole, *some in zip(network.factors(anchors, X), *parts, strict=True):
            for one, pieces in zip(whole, zip(*some, strict=True), strict=True):
                np.testing.assert_allclose(one, np.concatenate(pieces), atol=1e-8)


def test_shapes_have_to_fit(rng):
    X = rng.standard_normal((5, 3))
    for other in (X[:, :2], X[0]):
        with pytest.raises(ValueError, match=r"same number of features; got \(5, 3\) and"):
            InfiniteMLP().kernel(X, other)


def test_several_outputs_of_one_network_are_shared_ones(rng):
    X = rng.standard_normal((10, 3))
    with pytest.raises(
        ValueError, match="the 3 outputs of a network of infinite width share nothing; outputs='shared'"
    ):
        TangentRidge((np.inf,), outputs="network").fit(X, X)
    one = TangentRidge((np.inf,), outputs="network").fit(X, X[:, 0])
    np.testing.assert_allclose(one.predict(X), TangentRidge((np.inf,)).fit(X, X[:, 0]).predict(X), atol=1e-9)
