"""Layers with a penalty, an adaptivity and a weight of their own, and layers that are left out."""

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import AdaptiveTangentRegressor, StructuredRegression, TangentFeatures, TangentRidge, adapt, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.networks import MLP
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import JointPenalty, KLPenalty, PowerPenalty
from lowrank_tangent.theory import verify_equivalence

SHAPES = [(3, 5), (5, 2), (4, 4)]


@pytest.fixture
def operator(rng):
    return random_operator(rng, 16, SHAPES, "network", 2)


@pytest.mark.parametrize("loss", ["squared", "interpolation"])
def test_layers_of_three_kinds_against_the_semidefinite_program(rng, operator, loss):
    y = low_rank_target(rng, operator)
    problem = StructuredRegression(operator, y, ["power", KLPenalty(), "power"], 0.02, [30.0, 5.0, 0.0], loss)
    reference = solve(problem, "cvxpy")
    for method in ("newton", "reweighted") + (("proximal",) if loss == "squared" else ()):
        solution = solve(problem, method, tol=1e-8)
        assert solution.converged
        assert solution.objective == pytest.approx(reference.objective, rel=1e-6)
    adaptation = adapt(problem, solution)
    assert [left.is_identity for left in adaptation.left] == [False, False, True]


@pytest.mark.parametrize(("outputs", "C"), [("shared", 1), ("shared", 2), ("network", 2)])
@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_deep_networks_against_the_semidefinite_program(rng, outputs, C, penalty):
    X = rng.standard_normal((12, 2))
    features = TangentFeatures(MLP((3,) * 5), outputs, random_state=1).fit(X, C)
    y = rng.standard_normal((12, C)) + np.outer(X[:, 0] * X[:, 1], np.ones(C))
    problem = StructuredRegression(features.operator(X), y, penalty, 0.05, 20.0, fit_intercept=True)
    solution = solve(problem, tol=1e-9)
    assert len(solution.coefs) == 6
    assert solution.converged
    assert solution.objective == pytest.approx(solve(problem, "cvxpy").objective, rel=1e-6)
    assert all(not left.is_identity for left in adapt(problem, solution).left)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "erf"])
@pytest.mark.parametrize(("alpha", "adaptivity"), [(1e-6, 1.0), (1e-4, 1e3), (0.1, 1e6)])
def test_deep_networks_in_hard_settings(activation, alpha, adaptivity):
    X, y = make_product(60, 6, noise=0.1, random_state=0)
    features = TangentFeatures(MLP((12,) * 5, activation), random_state=0).fit(X)
    problem = StructuredRegression(features.operator(X), y, "power", alpha, adaptivity, fit_intercept=True)
    solution = solve(problem)
    assert solution.converged
    assert problem.certificate(solution.coefs, solution.dual).dual_gap <= 1e-6


def test_one_for_all_is_the_same_as_one_for_each(rng, operator):
    y = low_rank_target(rng, operator)
    one = solve(StructuredRegression(operator, y, "kl", 0.1, 4.0), tol=1e-10)
    each = solve(StructuredRegression(operator, y, ["kl"] * 3, 0.1, np.full(3, 4.0)), tol=1e-10)
    assert one.objective == each.objective


def test_joint_problem_of_layers_of_different_kinds(rng):
    operator = random_operator(rng, 10, [(3, 4), (4, 3)])
    y = low_rank_target(rng, operator)
    problem = StructuredRegression(operator, y, [JointPenalty(), PowerPenalty(3)], 0.2, [6.0, 2.0])
    report = verify_equivalence(problem)
    assert report.joint == pytest.approx(report.structured, rel=1e-7)
    assert report.kernel_identity < 1e-8


def test_stages_of_newton_leave_fixed_layers_alone(rng, operator):
    y = low_rank_target(rng, operator)
    for adaptivity in ([1e6, 1e-4, 0.0], [0.0, 1e6, 1.0]):
        solution = solve(StructuredRegression(operator, y, "kl", 1.0, adaptivity), "newton", tol=1e-8)
        assert solution.converged


def test_lengths_have_to_fit(rng, operator):
    y = np.zeros((16, 2))
    with pytest.raises(ValueError, match="penalty must be one for all layers or a sequence of 3, one a layer; got 2"):
        StructuredRegression(operator, y, ["kl", "power"])
    with pytest.raises(ValueError, match="adaptivity must be one for all layers or a sequence of 3"):
        StructuredRegression(operator, y, adaptivity=[1.0])
    with pytest.raises(ValueError, match=r"adaptivity must be a finite number >= 0; got -1\.0"):
        StructuredRegression(operator, y, adaptivity=[1.0, -1.0, 0.0])


def test_layers_left_out_and_weights(rng):
    X = rng.standard_normal((30, 4))
    network = MLP((8, 6))
    features = TangentFeatures(network, random_state=0).fit(X)
    kernels = [TangentOperator([layer]).gram() / features.scale_**2 for layer in features.operator(X).layers]
    for layers, weights in (([0, 2], None), ([1], [3.0]), ([2, 0], [0.5, 4.0]), (None, [1.0, 2.0, 3.0])):
        chosen = TangentFeatures(network, random_state=0, layers=layers, layer_weights=weights).fit(X)
        used = range(3) if layers is None else layers
        expected = sum(w * kernels[layer] for layer, w in zip(used, weights or [1.0] * 3, strict=False))
        expected /= expected.diagonal().mean()
        np.testing.assert_allclose(chosen.operator(X).gram(), expected, rtol=1e-10)


def test_a_weight_divides_alpha_and_adaptivity(rng):
    h, delta, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 4)), rng.standard_normal(12)
    weight = 5.0
    plain = StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, "kl", 0.3 / weight, 7.0 / weight)
    weighted = StructuredRegression(TangentOperator([LayerFactors(h, np.sqrt(weight) * delta)]), y, "kl", 0.3, 7.0)
    coef = rng.standard_normal((3, 4))
    assert weighted.objective([coef / np.sqrt(weight)]) == pytest.approx(plain.objective([coef]))


@pytest.mark.parametrize("estimator", [AdaptiveTangentRegressor, TangentRidge])
def test_estimators_pass_them_on(estimator):
    X, y = make_product(120, 6, random_state=0)
    model = estimator((16, 12), layers=[0, 2], layer_weights=[1.0, 0.1], random_state=0).fit(X, y)
    assert [coef.shape for coef in model.coefs_] == [(7, 16), (13, 1)]
    full = estimator((16, 12), random_state=0).fit(X, y)
    assert len(full.coefs_) == 3
    assert not np.allclose(full.predict(X), model.predict(X))


def test_an_estimator_adapts_the_layers_it_is_told_to():
    X, y = make_product(120, 6, random_state=0)
    model = AdaptiveTangentRegressor(
        (16, 12), adaptivity=[5.0, 0.0, 0.0], penalty=["joint", "kl", "kl"], random_state=0
    )
    model.fit(X, y)
    moved = [not (left.is_identity and right.is_identity) for left, right in model.transforms_]
    assert moved == [True, False, False]
    assert np.isnan(model.dual_gap_)
    model.set_params(warm_start=True, layers=[0], adaptivity=5.0, penalty="kl").fit(X, y)
    assert len(model.coefs_) == 1


@pytest.mark.parametrize("layers", [[], [3], [0, 0], [-1], [0.5], [True]])
def test_bad_layers(rng, layers):
    with pytest.raises(ValueError, match="different integers from 0 to 2"):
        TangentFeatures(MLP((8, 6)), layers=layers).fit(rng.standard_normal((5, 3)))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 0.0], [1.0, 2.0, np.nan], ["a", "b", "c"], 2.0])
def test_bad_layer_weights(rng, weights):
    with pytest.raises(ValueError, match="layer_weights must be 3 finite numbers > 0"):
        TangentFeatures(MLP((8, 6)), layer_weights=weights).fit(rng.standard_normal((5, 3)))
