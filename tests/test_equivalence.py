"""Theorem 2 and its identities: the joint problem, minimised by itself, against the structured one."""

import contextlib
import re
from dataclasses import replace

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.penalties import CustomPenalty, JointPenalty, KLPenalty, NuclearPenalty, PowerPenalty, RidgePenalty
from lowrank_tangent.solvers.bilinear import JointProblem
from lowrank_tangent.theory import equivalence, verify_equivalence

PENALTIES = [
    PowerPenalty(1),
    PowerPenalty(1.5),
    PowerPenalty(2),
    PowerPenalty(3),
    KLPenalty(),
    JointPenalty(PowerPenalty(1), PowerPenalty(1)),
    JointPenalty(PowerPenalty(2), PowerPenalty(2)),
    JointPenalty(KLPenalty(), KLPenalty()),
    JointPenalty(KLPenalty(), RidgePenalty()),
    JointPenalty(RidgePenalty(), PowerPenalty(2)),
    CustomPenalty(lambda z: (z - 1) ** 2 + (z - 1) ** 4, lambda z: 2 * (z - 1) + 4 * (z - 1) ** 3, "custom"),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
@pytest.mark.parametrize("layers", [[(4, 5)], [(4, 3), (3, 5)]], ids=["one layer", "two layers"])
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("loss", ["squared", "interpolation"])
def test_both_problems_have_one_value_and_one_prediction(penalty, layers, C, loss):
    rng = np.random.default_rng(1)
    operator = random_operator(rng, 6 if C == 1 else 4, layers, "shared" if len(layers) == 1 else "network", C)
    problem = StructuredRegression(operator, low_rank_target(rng, operator), penalty, 0.3, 5.0, loss=loss)
    report = verify_equivalence(problem)
    # A price with a kink at 1 is rounded off for L-BFGS, which then gets less far.
    kinked = penalty.slope(1.0) > 0
    tol = 1e-5 if kinked else 1e-7
    assert report.joint == pytest.approx(report.structured, rel=tol)
    assert report.recovered == pytest.approx(report.structured, rel=1e-9)
    assert report.constraint_violation <= 1e-5
    assert report.prediction_difference <= (1e-2 if kinked else 1e-4)
    assert report.parameters_identity <= 1e-5
    assert report.kernel_identity <= 1e-7
    assert report.objective_identity <= 1e-9
    assert report.holds
    assert report.accuracy <= 1e-4
    assert str(report).splitlines()[-1].startswith("theory holds")
    assert np.isnan(report.alignment_identity)


@pytest.mark.parametrize("penalty", PENALTIES[:8], ids=repr)
@pytest.mark.parametrize("shape", [(12, 1), (1, 12)])
def test_one_vector_group_aligns_with_its_predictions(rng, penalty, shape):
    operator = random_operator(rng, 8, [shape])
    report = verify_equivalence(StructuredRegression(operator, rng.standard_normal(8), penalty, 0.1, 10.0))
    assert report.alignment_identity <= 1e-8


def test_starts_far_from_the_identity_are_reported(rng):
    operator = random_operator(rng, 8, [(4, 5)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), JointPenalty(), 0.05, 20.0)
    report = verify_equivalence(problem, n_starts=4, scale=5.0, random_state=0)
    assert report.joint_values.shape == (4,)
    assert report.joint == report.joint_values.min()
    assert np.all(report.joint_values >= report.structured * (1 - 1e-6))
    assert len(set(report.joint_values)) == 4
    text = str(report)
    assert "starts that end above" in text
    assert "of 4" in text
    assert "needs one vector group" in text


def test_the_witness_knows_its_own_gradient(rng):
    operator = random_operator(rng, 9, [(3, 4), (2, 5)], "network", 2)
    problem = StructuredRegression(
        operator, rng.standard_normal((9, 2)), JointPenalty(KLPenalty(), PowerPenalty(2)), 0.3
    )
    joint = JointProblem(problem)
    variables = [tuple(m + 0.3 * rng.standard_normal(m.shape) for m in triple) for triple in joint.perturbed(0.5, rng)]
    value, gradients = joint._value_and_gradient(variables, 0.0)
    assert value == pytest.approx(joint.objective(variables))
    for layer, triple in enumerate(variables):
        for k, matrix in enumerate(triple):
            direction = rng.standard_normal(matrix.shape)
            ends = []
            for sign in (1, -1):
                moved = [list(t) for t in variables]
                moved[layer][k] = matrix + sign * 1e-6 * direction
                ends.append(joint.objective([tuple(t) for t in moved]))
            slope = (ends[0] - ends[1]) / 2e-6
            assert np.vdot(gradients[layer][k], direction) == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_the_joint_objective_is_the_one_written_out(rng):
    operator = random_operator(rng, 5, [(3, 4)])
    problem = StructuredRegression(
        operator, rng.standard_normal(5), JointPenalty(KLPenalty(), PowerPenalty(1)), 0.4, 8.0
    )
    theta, m1, m2 = rng.standard_normal((3, 4)), np.eye(3) + 0.2 * rng.standard_normal((3, 3)), 1.3 * np.eye(4)
    residual = problem.y - operator.matvec([m1 @ theta @ m2])
    z = np.linalg.svd(m1, compute_uv=False)
    price = np.sum(z**2 - 1 - 2 * np.log(z)) + 4 * 0.3
    expected = 0.5 * np.sum(residual**2) + 0.2 * (np.sum(theta**2) + price / 8.0)
    assert JointProblem(problem).objective([(theta, m1, m2)]) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["newton", "bilinear"])
def test_bilinear_is_a_solver_like_any_other(rng, method):
    operator = random_operator(rng, 12, [(3, 4)], "shared", 2)
    problem = StructuredRegression(operator, rng.standard_normal((12, 2)), "kl", 0.1, 5.0, fit_intercept=True)
    solution = solve(problem, method, tol=1e-6)
    assert solution.converged
    assert solution.method == method
    warm = solve(problem, method, tol=1e-6, warm_start=solution)
    assert warm.n_iter <= solution.n_iter
    if method == "bilinear":
        few = solve(problem, method, tol=1e-9, max_iter=3)
        assert not few.converged
        assert "max_iter=3" in few.message


def test_the_nuclear_norm_gives_unused_directions_up(rng):
    from lowrank_tangent import adapt

    operator = random_operator(rng, 20, [(5, 8)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), NuclearPenalty(), 0.4)
    solution = solve(problem, tol=1e-12)
    adaptation = adapt(problem, solution)
    rank = np.linalg.matrix_rank(solution.coefs[0], tol=1e-8)
    assert 0 < rank < 5
    assert np.sum(adaptation.left[0].spectrum > 1e-6) == rank
    # Kernel ridge with the adapted kernel, as for every other penalty.
    kernel = adaptation.kernel(operator)
    ridge = kernel @ np.linalg.solve(kernel + problem.alpha * np.eye(20), problem.y)
    np.testing.assert_allclose(ridge, operator.matvec(solution.coefs), atol=1e-5)
    joint = JointProblem(problem)
    assert joint.objective(joint.factors(solution.coefs)) == pytest.approx(solution.objective, rel=1e-9)


def test_bad_input_to_the_verification(rng):
    problem = StructuredRegression(random_operator(rng, 5, [(3, 4)]), rng.standard_normal(5))
    with pytest.raises(TypeError, match="must be a StructuredRegression"):
        verify_equivalence("problem")
    with pytest.raises(ValueError, match="n_starts"):
        verify_equivalence(problem, n_starts=0)
    with pytest.raises(ValueError, match="scale"):
        verify_equivalence(problem, scale=0.0)


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    operator = random_operator(rng, 8, [(12, 1)])
    return verify_equivalence(StructuredRegression(operator, rng.standard_normal(8), "kl", 0.1, 10.0))


def test_the_verdict_is_of_the_largest_error(report):
    assert report.holds
    assert report.accuracy == max(report.errors.values()) <= 1e-6
    assert str(report).splitlines()[-1] == (
        f"theory holds, to {report.accuracy:.1e} (the largest of all errors; 1e-04 is enough)"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"joint": 2.0}, "value of the joint problem is off by .*try more starts"),
        ({"joint": 0.5}, r"value of the joint problem is off by .*asked for\)$"),
        ({"recovered": 2.0}, "joint objective of"),
        ({"parameters_identity": 0.1}, "identity 1, parameters is off by 1.0e-01"),
        ({"kernel_identity": np.nan}, "identity 1, predictions is off by nan"),
        ({"objective_identity": 2e-4}, "identity 2 is off by 2.0e-04"),
        ({"alignment_identity": 0.5}, "identity 3"),
        ({"prediction_difference": 0.1}, "predictions of both solutions, squared, is off by 1.0e-02"),
        ({"constraint_violation": 0.1}, "constraint violation is off"),
        ({"dual_gap": 0.1}, "certificate of the structured problem"),
    ],
)
def test_every_statement_can_fail(report, wrong, said):
    wrong = {
        name: value * report.structured if name in ("joint", "recovered") else value for name, value in wrong.items()
    }
    failed = replace(report, **wrong)
    assert not failed.holds
    last = str(failed).splitlines()[-1]
    assert re.match(f"theory is not confirmed: {said}", last), last


def test_without_convexity_values_may_differ(report):
    other = replace(report, dual_gap=np.nan, stationarity=1e-9, joint=2.0 * report.structured)
    assert other.holds
    assert "theory holds at a stationary point, to" in str(other)


def test_progress_is_shown_if_asked_for(rng, capsys, monkeypatch):
    operator = random_operator(rng, 6, [(3, 4)])
    problem = StructuredRegression(operator, rng.standard_normal(6), "kl", 0.3, 5.0)
    verify_equivalence(problem, n_starts=2, random_state=0)
    assert capsys.readouterr() == ("", "")
    verify_equivalence(problem, n_starts=2, random_state=0, verbose=1)
    shown = capsys.readouterr().err
    assert "verify equivalence" in shown
    assert "3/3" in shown
    # Between the starts, too.
    texts = []
    monkeypatch.setattr(
        equivalence, "progress", lambda *_: contextlib.nullcontext(lambda text, steps=1: texts.append((text, steps)))
    )
    verify_equivalence(problem, n_starts=2, random_state=0)
    assert sum(steps for _, steps in texts) == 3
    assert [text[:10] for text, steps in texts if steps] == ["structured", "start 1 of", "start 2 of"]
    assert sum(text.startswith("joint problem, iteration") for text, _ in texts) >= 2
