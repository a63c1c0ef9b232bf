"""The checks of `lowrank_tangent.testing`, on everything of ours."""

import logging
import math

import numpy as np
import pytest
from scipy.special import xlog1py
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from test_network_contract import Antisymmetric, Bare

from conftest import random_operator
from lowrank_tangent import AdaptiveTangentRegressor, TangentFeatures
from lowrank_tangent.choice import EstimatorCandidate
from lowrank_tangent.choice.chains import Chain
from lowrank_tangent.linalg.transforms import ProductTransform
from lowrank_tangent.losses import Interpolation, Multinomial, SeparableLoss, Squared
from lowrank_tangent.networks import ACTIVATIONS, INITIALISATIONS, MLP, InfiniteMLP
from lowrank_tangent.operators import LayerFactors, Operator
from lowrank_tangent.penalties import (
    CustomPenalty,
    JointPenalty,
    KLPenalty,
    NuclearPenalty,
    PowerPenalty,
    RidgePenalty,
    SchattenPenalty,
)
from lowrank_tangent.rounds import METRICS
from lowrank_tangent.solvers import SOLVERS
from lowrank_tangent.testing import (
    check_candidate,
    check_layer,
    check_loss,
    check_metric,
    check_network,
    check_operator,
    check_penalty,
    check_solver,
)
from lowrank_tangent.testing.solver_case import Straight


def quartic(z):
    return (z - 1.0) ** 2 + (z - 1.0) ** 4


def ending(z):
    return np.where(z < 3.0, (z - 1.0) ** 2, np.inf)


def log_twice(z):
    return 2.0 * np.abs(np.log(z))


PENALTIES = [
    RidgePenalty(),
    *(PowerPenalty(p) for p in (1, 1.5, 2, 3, 4.5)),
    KLPenalty(),
    JointPenalty(),
    JointPenalty(PowerPenalty(4), PowerPenalty(4)),
    JointPenalty(KLPenalty(), KLPenalty()),
    JointPenalty(KLPenalty(), PowerPenalty(2)),
    JointPenalty(PowerPenalty(2), RidgePenalty()),
    JointPenalty(RidgePenalty(), KLPenalty()),
    NuclearPenalty(),
    SchattenPenalty(0.5),
    SchattenPenalty(1.5),
    CustomPenalty(quartic),
    CustomPenalty(ending),
    CustomPenalty(log_twice),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_penalties(penalty):
    passed = check_penalty(penalty)
    assert {"price", "slope", "effective", "stretch", "prox", "derivative", "extremes", "pickling"} <= set(passed)
    assert ("fenchel-young" in passed) == penalty.is_convex


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (2, 1, 9, 4), (1, 3, 4, 3), (2, 3, 4, 2), (3, 1, 12, 7)])
def test_layers(rng, shape):
    C, T, p, q = shape
    layer = LayerFactors(rng.standard_normal((6, T, p)), rng.standard_normal((6, C, T, q)))
    for one in (layer, layer.astype(np.float32)):
        assert ("stacked" in check_layer(one)) == (C == 1)


def test_a_layer_with_inputs_that_are_zero(rng):
    h = np.where(np.arange(12) % 3, 0.0, rng.standard_normal((5, 12)))
    check_layer(LayerFactors(h, rng.standard_normal((5, 3))))


@pytest.mark.parametrize(("outputs", "positions"), [("shared", 1), ("shared", 2), ("network", 1), ("network", 3)])
def test_operators(rng, outputs, positions):
    operator = random_operator(rng, 6, [(3, 4), (5, 2)], outputs, 2, positions)
    weights = rng.uniform(0.1, 2.0, 6)
    for one in (
        operator,
        operator.weighted(weights),
        operator.weighted(weights, centre=True),
        operator.weighted(None, centre=True),
        operator.with_precision(np.float32),
    ):
        assert ("outputs" in check_operator(one)) == (outputs == "shared")


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_streamed_operators(rng, outputs):
    X = rng.standard_normal((7, 3))
    features = TangentFeatures(MLP((4,)), outputs=outputs, random_state=0, batch_size=3).fit(X, 2)
    operator = features.operator(X)
    assert operator.is_streamed
    check_operator(operator)
    check_operator(operator.weighted(rng.uniform(0.5, 2.0, 7), centre=True))


class Dense(Operator):
    """One dense array of features: nothing but products is written."""

    def __init__(self, features):
        self.features, self.n_outputs = features, 1
        self.n_samples, self.coef_shapes = len(features), [features.shape[1:]]

    def matvec(self, coefs):
        return np.einsum("npq,pq->n", self.features, coefs[0])[:, None]

    def rmatvec(self, residual):
        return [np.einsum("npq,n->pq", self.features, residual[:, 0])]


def test_an_operator_made_of_products_alone(rng):
    operator = Dense(rng.standard_normal((6, 3, 4)))
    check_operator(operator)
    check_operator(operator.weighted(rng.uniform(0.1, 2.0, 6), centre=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_networks(activation, init):
    for bias in (True, 0.0, 0.5):
        assert {"features", "stretched"} <= set(check_network(MLP((4,), activation, init, bias)))


@pytest.mark.parametrize(
    "network", [MLP(()), MLP((5, 3), "tanh"), Antisymmetric(MLP((4,), "gelu"), MLP((4,), "gelu")), Bare()]
)
def test_other_networks_of_finite_width(network):
    assert "features" in check_network(network, n_features=4)


class WithNames(MLP):
    """Its state is something else than one array a layer."""

    def initialise(self, n_features, n_outputs=1, random_state=None):
        weights = super().initialise(n_features, n_outputs, random_state)
        return {"weights": weights, "offset": np.zeros(1)}

    def layers(self, state, X):
        return super().layers(state["weights"], X)

    def outputs(self, state, X):
        return super().outputs(state["weights"], X)

    def serves(self, state, X):
        return super().serves(state["weights"], X)

    def with_precision(self, state, dtype):
        return {**state, "weights": super().with_precision(state["weights"], dtype)}

    @property
    def movable_layers(self):
        return ()


def test_a_state_of_any_kind():
    passed = check_network(WithNames((4,)))
    assert "features" not in passed
    assert {"batches", "seed", "precision", "estimator"} <= set(passed)


@pytest.mark.parametrize(("depth", "activation", "bias"), [(1, "relu", True), (2, "relu", 0.5), (2, "erf", False)])
def test_networks_of_infinite_width(depth, activation, bias):
    passed = check_network(InfiniteMLP(depth, activation, bias))
    assert {"kernel", "slopes", "input-gradients", "rescaled", "stretched"} <= set(passed)


def test_stretched_networks(rng):
    transform = ProductTransform(np.eye(3) + 0.2 * rng.standard_normal((3, 3)))
    units = ProductTransform(np.eye(4) + 0.2 * rng.standard_normal((4, 4)))
    assert "features" in check_network(MLP((4,), "erf").stretched([transform, units], [units, None]))
    assert "kernel" in check_network(InfiniteMLP(2).stretched([transform, None, None], [None] * 3))


class LogCosh(SeparableLoss):
    name = "log-cosh"

    def values(self, y, f):
        return np.logaddexp(f - y, y - f) - math.log(2.0)

    def slopes(self, y, f):
        return np.tanh(f - y)

    def curvatures(self, y, f):
        return 1.0 / np.cosh(np.clip(f - y, -300.0, 300.0)) ** 2

    def dual_values(self, y, r):
        return r * y - 0.5 * (xlog1py(1.0 + r, r) + xlog1py(1.0 - r, -r))

    def dual_bounds(self, y):
        return -1.0, 1.0


@pytest.mark.parametrize("loss", [Squared(), Multinomial(), LogCosh()], ids=repr)
def test_losses(loss):
    assert {"residual", "weights", "hessian", "fenchel-young", "intercept"} <= set(check_loss(loss))


def test_losses_without_a_hessian_and_constraints():
    assert "hessian" not in check_loss(Straight())
    assert "fenchel-young" in check_loss(Interpolation())


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metrics(metric):
    assert {"stretch", "kernels", "coordinates", "estimator"} <= set(check_metric(metric))


@pytest.mark.parametrize(
    ("network", "move"),
    [
        (InfiniteMLP(), ("evidence", None)),
        (InfiniteMLP(2), ("coefficient", 300.0)),
        (MLP((6,), "tanh"), ("gradient", 30.0)),
    ],
    ids=repr,
)
def test_chains_of_rounds(network, move):
    template = AdaptiveTangentRegressor(alpha="loo", adaptivity=0.0, random_state=0)
    passed = check_candidate(Chain(network, move, 2, template, {"network": network}))
    assert {"outcomes", "estimator", "weights", "without-rounds"} <= set(passed)


def test_estimators_as_candidates():
    assert "weights" in check_candidate(EstimatorCandidate(KernelRidge(kernel="laplacian", alpha=0.1)))
    assert "weights" in check_candidate(EstimatorCandidate(LogisticRegression()), classes=True)
    assert "weights" not in check_candidate(EstimatorCandidate(KNeighborsClassifier()), classes=True)


@pytest.mark.parametrize("method", SOLVERS)
def test_solvers(method):
    assert {"converged", "optimum", "never-worse"} <= set(check_solver(method))


def test_checks_are_logged_on_demand(caplog):
    with caplog.at_level(logging.INFO, logger="lowrank_tangent"):
        check_penalty(KLPenalty())
        assert not caplog.messages
        passed = check_penalty(KLPenalty(), verbose=1)
    assert caplog.messages == [f"KLPenalty: {name}: passed" for name in passed]
