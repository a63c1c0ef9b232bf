"""Penalties as values: parameters of scikit-learn, equality, copies, files, and arguments that cannot be written."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor
from lowrank_tangent.datasets import make_product
from lowrank_tangent.penalties import (
    CustomPenalty,
    JointPenalty,
    KLPenalty,
    LayeredPenalty,
    NuclearPenalty,
    PowerPenalty,
    RidgePenalty,
    ScaledPenalty,
    SchattenPenalty,
    SpectralPenalty,
)


def square(z):
    """A price of a user's own."""
    return (z - 1.0) ** 2


class Own(SpectralPenalty):
    """A penalty of a user's own, with a parameter."""

    def __init__(self, weight=1.0):
        self.weight = weight

    def value(self, z):
        """weight · (z − 1)²."""
        return self.weight * (np.asarray(z) - 1.0) ** 2

    def slope(self, z):
        """2 weight (z − 1)."""
        return 2.0 * self.weight * (np.asarray(z) - 1.0)


MAKERS = [
    lambda: RidgePenalty(),
    lambda: PowerPenalty(1.5),
    lambda: PowerPenalty(3),
    lambda: KLPenalty(),
    lambda: SchattenPenalty(0.7),
    lambda: NuclearPenalty(),
    lambda: CustomPenalty(square),
    lambda: CustomPenalty(square, name="other"),
    lambda: CustomPenalty(square, convex=True),
    lambda: Own(2.0),
    lambda: JointPenalty(),
    lambda: JointPenalty(KLPenalty(), KLPenalty()),
    lambda: JointPenalty(KLPenalty(), PowerPenalty(2)),
    lambda: JointPenalty(PowerPenalty(2), KLPenalty()),
    lambda: JointPenalty(RidgePenalty(), KLPenalty()),
    lambda: JointPenalty(CustomPenalty(square), KLPenalty()),
    lambda: ScaledPenalty(KLPenalty(), 2.0),
    lambda: ScaledPenalty(KLPenalty(), 0.0),
    lambda: LayeredPenalty([ScaledPenalty(KLPenalty(), 2.0), ScaledPenalty(PowerPenalty(2), 1.0)]),
    lambda: LayeredPenalty([ScaledPenalty(KLPenalty(), 2.0)]),
]
ALL = [make() for make in MAKERS]
SPECTRAL = [penalty for penalty in ALL if isinstance(penalty, SpectralPenalty)]
spectral = pytest.mark.parametrize("penalty", SPECTRAL, ids=repr)


def test_penalties_are_equal_where_their_parameters_are():
    for i, make in enumerate(MAKERS):
        assert [make() == other for other in ALL] == [i == j for j in range(len(ALL))]
        assert hash(make()) == hash(ALL[i])
    assert len(set(ALL) | {make() for make in MAKERS}) == len(ALL)
    assert PowerPenalty(2) == PowerPenalty(2.0)
    assert KLPenalty() != "kl"


@spectral
def test_clones_are_equal_but_not_the_same(penalty):
    penalty.effective([0.5, 2.0])
    for other in (clone(penalty), copy.deepcopy(penalty), pickle.loads(pickle.dumps(penalty))):
        assert other is not penalty
        assert other == penalty
        np.testing.assert_array_equal(other.effective([0.5, 2.0]), penalty.effective([0.5, 2.0]))
    assert set(penalty.get_params()) >= set(penalty.get_params(deep=False))


@spectral
def test_pickles_hold_nothing_that_can_be_computed(penalty):
    before = len(pickle.dumps(penalty))
    penalty.prox([0.5, 2.0], 0.3)
    penalty.conjugate([0.1, 0.2])
    assert len(pickle.dumps(penalty)) == before < 2000


def test_parameters_can_be_set_and_are_checked():
    penalty = PowerPenalty(2)
    assert penalty.set_params(p=3) is penalty
    assert penalty == PowerPenalty(3)
    assert repr(penalty) == "PowerPenalty(p=3)"
    np.testing.assert_array_equal(penalty.effective([0.3, 4.0]), PowerPenalty(3).effective([0.3, 4.0]))
    with pytest.raises(ValueError, match=r"'q' is no parameter of PowerPenalty\(p=3\); it has \['p'\]"):
        penalty.set_params(q=1)
    with pytest.raises(ValueError, match="'p__q' is no parameter"):
        penalty.set_params(p__q=1)
    with pytest.raises(ValueError, match="finite number >= 1"):
        penalty.set_params(p=0.5)
    assert penalty == PowerPenalty(3)
    custom = CustomPenalty(square)
    assert not custom.set_params(convex=False).is_convex
    assert custom.set_params(derivative=lambda z: 2.0 * (z - 1.0)).slope(3.0) == 4.0


def test_what_was_computed_is_forgotten_with_the_parameters():
    penalty, z = Own(1.0), np.array([1.0, 5.0])
    penalty.effective(z)
    penalty.conjugate([0.2])
    penalty.set_params(weight=9.0)
    np.testing.assert_array_equal(penalty.effective(z), Own(9.0).effective(z))
    np.testing.assert_array_equal(penalty.conjugate([0.2, 3.0]), Own(9.0).conjugate([0.2, 3.0]))


def test_sides_of_a_joint_penalty_have_parameters():
    shared = PowerPenalty(2)
    penalty = JointPenalty(shared, shared)
    v = np.array([0.4, 3.0, 50.0])
    assert penalty.get_params()["first__p"] == 2
    for sides in ({"first__p": 4}, {"second__p": 4}, {"second": KLPenalty()}, {"second": RidgePenalty()}):
        penalty.set_params(**sides)
        # The formulas are those of the new prices.
        np.testing.assert_array_equal(penalty.prox(v, 0.5), JointPenalty(*penalty.sides).prox(v, 0.5))
        np.testing.assert_array_equal(penalty.split(v), JointPenalty(*penalty.sides).split(v))
    assert penalty == JointPenalty(PowerPenalty(4), RidgePenalty())
    assert shared == PowerPenalty(2)
    with pytest.raises(ValueError, match="free to adapt"):
        penalty.set_params(first=RidgePenalty())
    assert penalty == JointPenalty(PowerPenalty(4), RidgePenalty())


@pytest.mark.parametrize(
    ("penalty", "name", "values"),
    [(PowerPenalty(2), "penalty__p", [2, 3]), (JointPenalty(), "penalty__first__p", [2, 4])],
)
def test_grids_go_over_the_parameters_of_a_penalty(penalty, name, values):
    X, y = make_product(60, 4, random_state=0)
    model = AdaptiveTangentRegressor((6,), penalty=penalty, alpha=0.1, tol=1e-4, random_state=0)
    search = GridSearchCV(model, {name: values}, cv=2).fit(X, y)
    assert search.cv_results_["mean_test_score"][0] != search.cv_results_["mean_test_score"][1]
    assert model.penalty.get_params()[name.removeprefix("penalty__")] == 2
    for value in values:
        again = clone(model).set_params(**{name: value}).fit(X, y)
        if value == search.best_params_[name]:
            np.testing.assert_array_equal(again.predict(X), search.best_estimator_.predict(X))


def test_a_fitted_model_keeps_the_penalty_that_it_was_fitted_with():
    X, y = make_product(60, 4, random_state=0)
    penalty = PowerPenalty(2)
    model = AdaptiveTangentRegressor((6,), penalty=penalty, alpha=0.1, tol=1e-4, random_state=0).fit(X, y)
    before = model.predict(X), model.kernel(X), model.objective_
    model.set_params(penalty__p=3)
    assert penalty == PowerPenalty(3)
    for now, then in zip((model.predict(X), model.kernel(X), model.objective_), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert b"PowerPenalty" not in pickle.dumps(
        {name: value for name, value in vars(model).items() if name != "penalty"}
    )


@pytest.mark.parametrize(
    "penalty", [PowerPenalty(2), KLPenalty(), JointPenalty(), JointPenalty(KLPenalty(), PowerPenalty(2))], ids=repr
)
@pytest.mark.parametrize("model", [AdaptiveTangentRegressor, AdaptiveTangentClassifier])
def test_skops_writes_and_reads_models(penalty, model):
    io = pytest.importorskip("skops.io")
    X, y = make_product(30, 3, random_state=0)
    y = y if model is AdaptiveTangentRegressor else np.where(y > 0.0, "high", "low")
    fitted = model((4,), penalty=penalty, alpha=0.1, tol=1e-3, random_state=0).fit(X, y)
    written = io.dumps(fitted)
    again = io.loads(written, trusted=io.get_untrusted_types(data=written))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert again.penalty == penalty


@spectral
def test_arguments_may_be_arrays_that_cannot_be_written(penalty):
    s = np.array([0.5, 2.0])
    s.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prox = penalty.prox(s, 1.0)
        np.testing.assert_array_equal(penalty.prox(np.broadcast_to(0.5, (3,)), 1.0), np.full(3, prox[0]))
        np.testing.assert_array_equal(penalty.prox(s, np.array([1.0])), prox)
        np.testing.assert_array_equal(penalty.prox(np.array([0.5]), 1.0), prox[:1])
        np.testing.assert_array_equal(penalty.prox(s[::-1], 1.0), prox[::-1])
        np.testing.assert_array_equal(penalty.stretch(s), penalty.stretch(s.copy()))
        np.testing.assert_array_equal(penalty.value(1.0 + s), penalty.value(1.0 + s.copy()))
        np.testing.assert_array_equal(penalty.dual_stretch(s), penalty.dual_stretch(s.copy()))
    np.testing.assert_array_equal(s, [0.5, 2.0])
