import numpy as np
import pytest

from lowrank_tangent.networks import ACTIVATIONS, MLP


def jacobian_by_differences(network, weights, X, layer, step=1e-6):
    weight = weights[layer]
    jacobian = np.zeros((len(X), weights[-1].shape[1], *weight.shape))
    for index in np.ndindex(weight.shape):
        kept = weight[index]
        weight[index] = kept + step
        above = network(weights, X)
        weight[index] = kept - step
        below = network(weights, X)
        weight[index] = kept
        jacobian[:, :, index[0], index[1]] = (above - below) / (2 * step)
    return jacobian


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(
    "hidden", [(), (5,), (5, 4), (4, 5, 3), (4, 3, 5, 3, 4)], ids=["depth1", "depth2", "depth3", "depth4", "depth6"]
)
@pytest.mark.parametrize("init", ["ntk", "he"])
@pytest.mark.parametrize("bias", [0.7, False])
def test_factors_are_the_jacobian(rng, activation, hidden, init, bias):
    network = MLP(hidden, activation, init, bias)
    weights = network.initialise(3, 2, random_state=1)
    # Zero biases put no preactivation at the kink of relu, but neither do they test much.
    weights = [w + 0.1 * rng.standard_normal(w.shape) for w in weights]
    X = rng.standard_normal((4, 3))
    for layer, (h, delta) in enumerate(network.factors(weights, X)):
        expected = jacobian_by_differences(network, weights, X, layer)
        np.testing.assert_allclose(np.einsum("np,ncq->ncpq", h, delta), expected, atol=2e-8)


def test_forward_agrees_with_a_network_written_out(rng):
    network = MLP((6,), "tanh", "ntk", bias=0.5)
    (first, second), X = network.initialise(3, 2, random_state=0), rng.standard_normal((5, 3))
    hidden = np.tanh((X @ first[:3] + 0.5 * first[3]) / np.sqrt(3))
    np.testing.assert_allclose(network([first, second], X), (hidden @ second[:6] + 0.5 * second[6]) / np.sqrt(6))


@pytest.mark.parametrize(("init", "variance"), [("ntk", 1.0), ("he", 2.0 / 400), ("lecun", 1.0 / 400)])
def test_variance_of_the_weights(init, variance):
    weights = MLP((300,), init=init).initialise(400, random_state=0)[0]
    # 120,000 draws: the sample variance is within 2 % far beyond five standard errors.
    assert weights[:400].var() == pytest.approx(variance, rel=0.02)
    assert (weights[400].std() > 0.5) == (init == "ntk")


def test_initialisation_is_reproducible():
    network = MLP((4,))
    for state in (3, np.random.RandomState(3), np.random.default_rng(3)):
        assert network.initialise(2, random_state=state)[0].shape == (3, 4)
    first, again = (network.initialise(2, random_state=7) for _ in range(2))
    other = network.initialise(2, random_state=8)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_layer_sizes": (3, 0)}, "positive integers"),
        ({"hidden_layer_sizes": (2.5,)}, "positive integers"),
        ({"activation": "sigmoid"}, "activation must be one of"),
        ({"init": "glorot"}, "init must be one of"),
        ({"bias": -1.0}, "bias must be"),
        ({"bias": np.nan}, "bias must be"),
        ({"bias": "yes"}, "bias must be"),
    ],
)
def test_bad_descriptions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


def test_wrong_shapes_are_named(rng):
    network = MLP((4,))
    weights = network.initialise(3, random_state=0)
    with pytest.raises(ValueError, match=r"weights of layer 0 must have shape \(3, 4\).*got \(4, 4\)"):
        network(weights, rng.standard_normal((5, 2)))
    with pytest.raises(ValueError, match="2 layers; got 1"):
        network(weights[:1], rng.standard_normal((5, 3)))
    with pytest.raises(ValueError, match="n_features"):
        network(weights, rng.standard_normal(3))
