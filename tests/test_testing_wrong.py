"""Deliberately wrong classes: the check of their contract has to name what is wrong."""

import itertools

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from lowrank_tangent.choice import Candidate, Outcome
from lowrank_tangent.linalg.transforms import LowRankTransform
from lowrank_tangent.losses import Squared
from lowrank_tangent.networks import MLP
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import CustomPenalty, KLPenalty, PowerPenalty
from lowrank_tangent.rounds import Metric, Stretch
from lowrank_tangent.rounds.metrics import GradientMetric
from lowrank_tangent.solvers import Solver
from lowrank_tangent.solvers.newton import solve_newton
from lowrank_tangent.solvers.proximal import solve_proximal
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


def assert_caught(check, subject, name):
    """The line of a check, which has to be a finding of it: what was expected and what came, not an error."""
    with pytest.raises(AssertionError) as error:
        check(subject)
    title, *lines = str(error.value).splitlines()
    found = {line.split(":")[0]: line for line in lines}
    assert name in found, lines
    assert not found[name].startswith(f"{name}: raised"), lines
    assert f"{len(lines)} of " in title
    return found[name]


# -- layers and operators -------------------------------------------------------------------


class MinusAdjoint(LayerFactors):
    def adjoint(self, residual, shape):
        return -super().adjoint(residual, shape)


class RowsInAnotherOrder(LayerFactors):
    def rows(self, index):
        return super().rows(np.sort(np.arange(self.n_samples)[index]))


class TransformedOnTheWrongSide(LayerFactors):
    def transformed(self, left, right):
        return (
            LayerFactors(self.h if left is None else self.h @ left.to_dense().T, self.delta)
            if right is None
            else (super().transformed(left, right))
        )


class SinglePrecision(LayerFactors):
    def product(self, coef, n_outputs):
        return super().astype(np.float32).product(coef.astype(np.float32), n_outputs).astype(self.dtype)


class MeanOfKernels(LayerFactors):
    def kernel(self, other, per_output):
        return super().kernel(other, per_output) * (1.0 if per_output else self.n_outputs)


class ChangesItsInput(LayerFactors):
    def adjoint(self, residual, shape):
        residual *= 1.0 + 1e-3
        return super().adjoint(residual / (1.0 + 1e-3), shape)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (MinusAdjoint, "adjoint"),
        (RowsInAnotherOrder, "rows"),
        (TransformedOnTheWrongSide, "transformed"),
        (SinglePrecision, "precision"),
        (MeanOfKernels, "kernel"),
        (ChangesItsInput, "immutability"),
    ],
)
def test_layers(rng, layer, name):
    assert_caught(check_layer, layer(rng.standard_normal((6, 3)), rng.standard_normal((6, 2, 3))), name)


class AdjointOfTheWrongSign(TangentOperator):
    def rmatvec(self, residual):
        return [-coef for coef in super().rmatvec(residual)]


class GramForgetsALayer(TangentOperator):
    def gram(self, other=None):
        one, two = (TangentOperator(operator.layers[:1]) for operator in (self, other or self))
        return one.gram(two)


class TransformedTwice(TangentOperator):
    def transformed(self, left, right):
        nothing = [LowRankTransform.identity(m.shape[0]) for m in right]
        return TangentOperator.transformed(super().transformed(left, right), left, nothing)


class ReducedTooFar(TangentOperator):
    def reduce(self):
        reduced, expand, compress = super().reduce()
        return reduced, expand, lambda coefs: [0.5 * coef for coef in compress(coefs)]


class ForgetsWeights(TangentOperator):
    def weighted(self, sample_weight=None, centre=False):
        return super().weighted(None, centre=centre)


class SingleClaimsDouble(TangentOperator):
    def matvec(self, coefs):
        return super().matvec([coef.astype(np.float32) for coef in coefs]).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (AdjointOfTheWrongSign, "adjoint"),
        (GramForgetsALayer, "gram"),
        (TransformedTwice, "transformed"),
        (ReducedTooFar, "reduce"),
        (ForgetsWeights, "weighted"),
        (SingleClaimsDouble, "precision"),
    ],
)
def test_operators(rng, operator, name):
    layers = [
        LayerFactors(rng.standard_normal((6, 3)), rng.standard_normal((6, 2, 4))),
        LayerFactors(rng.standard_normal((6, 9)), rng.standard_normal((6, 2, 2))),
    ]
    assert_caught(check_operator, operator(layers), name)


# -- networks -------------------------------------------------------------------------------


class WithoutTheBias(MLP):
    """h lacks its constant."""

    def layers(self, state, X):
        return [LayerFactors(layer.h[..., :-1], layer.delta) for layer in super().layers(state, X)]


class AnotherSlope(MLP):
    """The gradient is that of another activation."""

    def layers(self, state, X):
        return MLP(self.hidden_layer_sizes, "gelu").layers(state, X)


class IgnoresSeeds(MLP):
    def initialise(self, n_features, n_outputs=1, random_state=None):
        return super().initialise(n_features, n_outputs, np.random.default_rng())


class NormalisesOverSamples(MLP):
    """Features of a sample depend on the others."""

    def outputs(self, state, X):
        return super().outputs(state, X) - super().outputs(state, X).mean(axis=0)


class StretchesNothing(MLP):
    def stretched(self, left, right):
        return self


class ClaimsAConstant(MLP):
    def input_has_constant(self, layer):
        return True


class OneLayerTooMany(MLP):
    @property
    def n_layers(self):
        return super().n_layers + 1


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (WithoutTheBias((4,), "tanh"), "features"),
        (AnotherSlope((4,), "tanh"), "features"),
        (IgnoresSeeds((4,), "tanh"), "seed"),
        (NormalisesOverSamples((4,), "tanh"), "batches"),
        (StretchesNothing((4,), "tanh"), "stretched"),
        (ClaimsAConstant((4,), "tanh", bias=False), "constant"),
        (OneLayerTooMany((4,), "tanh"), "shapes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_networks(network, name):
    assert_caught(check_network, network, name)


# -- penalties ------------------------------------------------------------------------------


class WrongSlope(KLPenalty):
    def slope(self, z):
        return 1.1 * super().slope(z)


class ConjugateOffByAFactor(KLPenalty):
    def conjugate(self, u):
        return 0.9 * super().conjugate(u)


class ShrinksTooLittle(PowerPenalty):
    def prox(self, s, tau):
        return super().prox(s, 0.9 * np.asarray(tau))


def two_valleys(z):
    """Rises fast, then hardly, then fast again: two stretches compete."""
    return np.where(z < 1.5, 8.0 * (z - 1.0), 4.0 + 0.05 * (z - 1.5) + np.maximum(z - 20.0, 0.0) ** 2)


class LocalMinimum(CustomPenalty):
    """The first valley, though the second may be deeper."""

    def stretch(self, v):
        return np.minimum(super().stretch(v), 1.5)


class ClaimsConvexity(PowerPenalty):
    is_convex = True


class DomainTooLarge(KLPenalty):
    conjugate_domain = 3.0


class FallingPrice(KLPenalty):
    def value(self, z):
        return super().value(z) * np.where(np.asarray(z) > 5.0, 0.5, 1.0)


class ForgetsItsParameters(PowerPenalty):
    def get_params(self, deep=True):
        return {}

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("penalty", "name"),
    [
        (WrongSlope(), "slope"),
        (ConjugateOffByAFactor(), "fenchel-young"),
        (ConjugateOffByAFactor(), "conjugate"),
        (ShrinksTooLittle(2), "prox"),
        (LocalMinimum(two_valleys), "stretch"),
        (LocalMinimum(two_valleys), "effective"),
        (ClaimsConvexity(1.2), "convexity"),
        (DomainTooLarge(), "domain"),
        (FallingPrice(), "price"),
        (ForgetsItsParameters(3), "parameters"),
        (CustomPenalty(lambda z: (z - 1.0) ** 2), "pickling"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_penalties(penalty, name):
    line = assert_caught(check_penalty, penalty, name)
    assert name != "pickling" or "lambda" in line


def bumpy(z):
    """Passes for convex on a coarse grid: the bump at 2.078 is 0.012 wide."""
    return (z - 1.0) ** 2 + 0.018 * np.exp(-(((z - 2.078) / 0.012) ** 2))


class ClaimsTheBumpConvex(CustomPenalty):
    is_convex = True


def test_a_narrow_bump_is_found():
    assert_caught(check_penalty, ClaimsTheBumpConvex(bumpy), "convexity")


# -- losses ---------------------------------------------------------------------------------


class Altered:
    """A loss at a prediction, of which some members are others."""

    def __init__(self, at, **members):
        self._at, self._members = at, members

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._members[name] if name in self._members else getattr(self._at, name)


class ResidualForgetsWeights(Straight):
    def at(self, target, prediction):
        at = super().at(target, prediction)
        return Altered(at, residual=-self.slopes(target, prediction + at.bias))


class SmoothStraight(Straight):
    """With the curvature that it has between its bends."""

    def curvatures(self, y, f):
        return (np.abs(y - f) <= 1.0).astype(float)


class FactorTransposed(SmoothStraight):
    """Multiplies where it should not, and does not where it should."""

    def at(self, target, prediction):
        at = super().at(target, prediction)
        mix = np.tril(np.ones((len(target), len(target))))
        return Altered(at, multiply=lambda x: mix @ at.multiply(x), adjoint=lambda x: at.adjoint(mix @ x))


class CurvatureTwice(SmoothStraight):
    def curvatures(self, y, f):
        return 2.0 * super().curvatures(y, f)


class ConjugateOfAnother(Straight):
    def dual_values(self, y, r):
        return r * y - 0.25 * r**2


class DivergenceCancels(SmoothStraight):
    def at(self, target, prediction):
        at = super().at(target, prediction)

        def divergence(other):
            return other.value - at.value + np.sum(at.residual * (other._prediction - at._prediction))

        return Altered(at, divergence=divergence)


class InterceptOfTheMean(Straight):
    """The mean of the errors is the best constant for squares alone."""

    def intercept(self, y, prediction):
        return np.mean(y - prediction, axis=0) if self.fit_intercept else np.zeros(y.shape[1])


class SquaresWithoutWeights(Squared):
    def design(self, operator):
        return operator.weighted(None, centre=self.fit_intercept)


class BoundChangesIt(Straight):
    def bound(self, sample_weight=None, fit_intercept=False):
        other = super().bound(sample_weight, fit_intercept)
        self.fit_intercept = True
        return other


class NeverOutside(Straight):
    def dual_value(self, target, dual):
        return float(self.dual_along(target, dual)(np.ones(1))[0])


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (ResidualForgetsWeights(), "residual"),
        (ResidualForgetsWeights(), "weights"),
        (SquaresWithoutWeights(), "weights"),
        (FactorTransposed(), "hessian"),
        (CurvatureTwice(), "hessian"),
        (ConjugateOfAnother(), "fenchel-young"),
        (DivergenceCancels(), "divergence"),
        (InterceptOfTheMean(), "intercept"),
        (BoundChangesIt(), "bound"),
        (NeverOutside(), "domain"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_losses(loss, name):
    assert_caught(check_loss, loss, name)


# -- solvers --------------------------------------------------------------------------------


def limited(function):
    """What is solved by Newton's method otherwise."""
    return Solver(function, 50, frozenset({"convex", "smooth", "quadratic"}))


def returns_nan(problem, monitor, max_iter, warm_start):
    coefs, dual, message = solve_newton(problem, monitor, max_iter, warm_start)
    return [np.nan * coef for coef in coefs], dual, message


def worse_than_its_start(problem, monitor, max_iter, warm_start):
    coefs, dual, message = solve_newton(problem, monitor, max_iter, None)
    return (coefs, dual, message) if max_iter > 10 else ([3.0 + coef for coef in coefs], dual, message)


def reports_what_it_does_not_return(problem, monitor, max_iter, warm_start):
    """The point that it returns is not the one that it reports."""
    coefs, dual, message = solve_newton(problem, monitor, max_iter, warm_start)
    return [0.9 * coef for coef in coefs], dual, message


def ignores_the_callback(problem, monitor, max_iter, warm_start):
    coefs, dual, message = solve_newton(problem, monitor, max_iter, warm_start)
    monitor.record(max_iter, problem.certificate(coefs, dual))
    return coefs, dual, message


def stops_too_early(problem, monitor, max_iter, warm_start):
    return solve_proximal(problem, monitor, min(max_iter, 2), warm_start)


class Restless:
    """Another point at every call."""

    def __init__(self):
        self.calls = itertools.count()

    def __call__(self, problem, monitor, max_iter, warm_start):
        coefs, dual, message = solve_newton(problem, monitor, max_iter, warm_start)
        return [coef * (1.0 + 1e-9 * next(self.calls)) for coef in coefs], dual, message


def changes_its_start(problem, monitor, max_iter, warm_start):
    problem.target[0] += 1e-9
    return solve_newton(problem, monitor, max_iter, warm_start)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (returns_nan, "finite"),
        (worse_than_its_start, "never-worse"),
        (reports_what_it_does_not_return, "history"),
        (reports_what_it_does_not_return, "converged"),
        (stops_too_early, "converged"),
        (ignores_the_callback, "callback"),
        (Restless(), "repeatable"),
        (changes_its_start, "immutability"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "Restless"),
)
def test_solvers(function, name):
    assert_caught(check_solver, limited(function), name)


# -- metrics and candidates -----------------------------------------------------------------


class SaysFeatures(GradientMetric):
    by_features = True


class KernelsSayAnother(GradientMetric):
    def from_kernels(self, view):
        stretch = super().from_kernels(view)
        return Stretch(stretch.values**2, stretch.directions, stretch.elsewhere**2)


class FavoursAnAxis(Metric):
    """What it says depends on the coordinates."""

    name = "axis"

    def from_factors(self, view):
        s, directions = view.principal(view.still_gradients())
        return Stretch(s * (1.0 + directions[0] ** 2), directions)


@pytest.mark.parametrize(
    ("metric", "name"),
    [(SaysFeatures(), "stretch"), (KernelsSayAnother(), "kernels"), (FavoursAnAxis(), "coordinates")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_metrics(metric, name):
    assert_caught(check_metric, metric, name)


class Boosting(Candidate):
    max_rounds = 2

    def outcomes(self, fold):
        for index in range(self.max_rounds + 1):
            model = self.estimator().set_params(**self.parameters(index))
            yield Outcome(model.fit(fold.X, fold.targets[:, 0], fold.sample_weight).predict(fold.X_test)[:, None])

    def parameters(self, n_rounds):
        return {"n_estimators": 5 * (n_rounds + 1)}

    def estimator(self):
        return GradientBoostingRegressor(random_state=0)


class OneRoundOff(Boosting):
    def parameters(self, n_rounds):
        return {"n_estimators": 5 * (n_rounds + 1 + (n_rounds == self.max_rounds))}

    def outcomes(self, fold):
        first, *rest = super().outcomes(fold)
        yield first
        yield from rest[::-1]


class CandidateWithoutWeights(Boosting):
    def outcomes(self, fold):
        for index in range(self.max_rounds + 1):
            model = self.estimator().set_params(**self.parameters(index))
            yield Outcome(model.fit(fold.X, fold.targets[:, 0]).predict(fold.X_test)[:, None])


class KeepsItsRounds(Boosting):
    def without_rounds(self):
        return self


class FlatPredictions(Boosting):
    def outcomes(self, fold):
        for outcome in super().outcomes(fold):
            yield Outcome(outcome.prediction[:, 0])


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        (OneRoundOff(), "estimator"),
        (CandidateWithoutWeights(), "weights"),
        (KeepsItsRounds(), "without-rounds"),
        (FlatPredictions(), "outcomes"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_candidates(candidate, name):
    assert check_candidate(Boosting())
    assert_caught(check_candidate, candidate, name)
