"""The descent that Newton's method begins with, against dense linear algebra and against certified solutions."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.solvers import spectral_point as _point
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import descent as _descent
from lowrank_tangent.solvers.newton import method as newton
from lowrank_tangent.solvers.newton import preconditioner as _preconditioner


@pytest.fixture(autouse=True)
def descents_everywhere(monkeypatch):
    """Small problems begin with a descent, too."""
    for limit in ("DESCENT_CALLS", "DESCENT_SAMPLES", "DESCENT_SAMPLES_PAIRS", "DESCENT_SHARE", "DESCENT_SHARE_PAIRS"):
        monkeypatch.setattr(_costs, limit, 0.0)
    monkeypatch.setattr(_costs, "EXACT_PRODUCTS", (0, 0, 0))


@pytest.fixture
def counted(monkeypatch):
    """What every descent returns."""
    found = []
    whole = newton.descend

    def record(*arguments):
        found.append(whole(*arguments))
        return found[-1]

    monkeypatch.setattr(newton, "descend", record)
    return found


def make_problem(rng, n=40, n_outputs=1, shapes=((5, 9), (8, 3)), noise=0.1, **settings):
    operator = random_operator(rng, n, shapes, "shared", n_outputs)
    settings = {"alpha": 0.5, "adaptivity": 20.0} | settings
    return StructuredRegression(operator, low_rank_target(rng, operator, noise), **settings)


def descend(problem, preconditioner):
    zero = _point.PrimalPoint(problem, problem.design.zeros())
    return _descent.descend(zero, problem.design.rmatvec(problem.target), preconditioner, 1e-6)


def in_double(problem):
    preconditioner = _preconditioner.Preconditioner(problem)
    preconditioner.products.use_double()
    return preconditioner


def dense_inverse_majoriser(point):
    """D⁻¹ of every layer from its SVD, averaged over the outputs where it differs from one to the next."""
    blocks = []
    for coef, penalty, layer in zip(point.coefs, point.problem.spectral, point.problem.design.layers, strict=True):
        p, q = layer.shape
        u, v, vt = np.linalg.svd(coef)
        sides, size = (u, p) if coef.shape[0] <= coef.shape[1] else (vt.T, q)
        z = np.ones(len(sides))
        z[: len(v)] = penalty.stretch(v)
        squares = (sides * z**2) @ sides.T / point.problem.alpha
        n_outputs = len(squares) // size
        mean = np.mean(
            [squares[c * size : (c + 1) * size, c * size : (c + 1) * size] for c in range(n_outputs)], axis=0
        )
        # Entries of B run along its rows, outputs within them.
        copies = coef.shape[1] // q
        blocks.append(np.kron(mean, np.eye(copies * q)) if size == p else np.kron(np.eye(p * copies), mean))
    total = np.zeros((sum(map(len, blocks)),) * 2)
    start = 0
    for block in blocks:
        total[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return total


@pytest.mark.parametrize("settings", [{}, {"sample_weight": np.linspace(0.5, 2.0, 40), "fit_intercept": True}])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_directions_are_those_of_dense_linear_algebra(rng, n_outputs, settings):
    problem = make_problem(rng, n_outputs=n_outputs, **settings)
    point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in problem.design.coef_shapes])
    gradient = [rng.standard_normal(shape) for shape in problem.design.coef_shapes]
    direction = _descent._Metric(point, in_double(problem)).downhill(gradient)
    matrix = dense_matrix(problem.design)
    hessian = np.linalg.inv(dense_inverse_majoriser(point)) + matrix.T @ matrix
    np.testing.assert_allclose(flat(direction.change), -np.linalg.solve(hessian, flat(gradient)), atol=1e-9)
    np.testing.assert_allclose(direction.prediction.ravel(), matrix @ flat(direction.change), atol=1e-9)
    np.testing.assert_allclose(flat(direction.correlation), matrix.T @ matrix @ flat(direction.change), atol=1e-9)


def test_the_first_step_is_that_of_ridge(rng):
    problem = make_problem(rng, n_outputs=2)
    zero = _point.PrimalPoint(problem, problem.design.zeros())
    gradient = [-matrix for matrix in problem.design.rmatvec(problem.target)]
    step = _descent._Metric(zero, in_double(problem)).downhill(gradient)
    matrix = dense_matrix(problem.design)
    expected = Ridge(problem.alpha, fit_intercept=False).fit(matrix, problem.target.ravel()).coef_
    np.testing.assert_allclose(flat(step.change), expected, atol=1e-9)


@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("adaptivity", [1.0, 100.0])
def test_it_leads_to_the_neighbourhood_of_the_solution(rng, counted, penalty, n_outputs, adaptivity):
    problem = make_problem(rng, n_outputs=n_outputs, penalty=penalty, adaptivity=adaptivity)
    solution = solve(problem, "newton", 1e-9)
    ((start, dual),) = counted
    lowest = solve(problem, "proximal", 1e-6).objective
    zero = 0.5 * np.sum(problem.target**2)
    assert solution.objective <= lowest
    assert start.objective == pytest.approx(problem.objective(start.coefs), rel=1e-5)
    assert start.objective <= 1.01 * lowest < 0.5 * zero
    assert solution.n_iter <= 4
    assert problem.dual_objective(dual) > 0.0


def test_directions_are_conjugate(rng):
    """For a quadratic, which the objective is with a fixed kernel, two directions and the gradients between them."""
    problem = make_problem(rng, adaptivity=0.0)
    matrix = dense_matrix(problem.design)
    hessian = matrix.T @ matrix + problem.alpha * np.eye(matrix.shape[1])
    root = rng.standard_normal(hessian.shape) + 5.0 * np.eye(len(hessian))
    metric = root @ root.T  # some preconditioner

    def unflat(vector):
        shapes = problem.design.coef_shapes
        return [
            part.reshape(s) for part, s in zip(np.split(vector, [shapes[0][0] * shapes[0][1]]), shapes, strict=True)
        ]

    def direction(vector):
        return _descent._Direction(unflat(vector), matrix @ vector, unflat(matrix.T @ matrix @ vector))

    gradient = rng.standard_normal(len(hessian))
    last = -metric @ gradient
    moved = gradient - (gradient @ last) / (last @ hessian @ last) * (hessian @ last)
    newest = direction(-metric @ moved)
    for length in (1.0, 1e-3):  # of the last direction, which does not matter
        found = _descent._conjugate(newest, unflat(moved), direction(length * last), unflat(gradient))
        size = np.sqrt((flat(found.change) @ hessian @ flat(found.change)) * (last @ hessian @ last))
        assert abs(flat(found.change) @ hessian @ last) <= 1e-9 * size
        np.testing.assert_allclose(found.prediction, matrix @ flat(found.change))
        np.testing.assert_allclose(flat(found.correlation), matrix.T @ matrix @ flat(found.change))


@pytest.mark.parametrize(
    ("gradient", "before", "newest", "last"),
    [
        ([1.0, 0.0], [0.0, -2.0], [-1.0, 0.0], [3.0, -1.0]),  # their combination climbs
        ([1.0, 0.0], [2.0, -0.5], [-1.0, 0.0], [0.0, 1.0]),  # the last one would go into it with a minus sign
        ([1.0, 1.0], [0.0, 1.0], [-1.0, 0.0], [-0.5, 1.0]),  # the gradient has not turned along the last one
    ],
)
def test_directions_that_lost_their_conjugacy_are_forgotten(gradient, before, newest, last):
    gradient, before = [np.array([gradient])], [np.array([before])]
    newest, last = (_descent._Direction([np.array([d])], np.zeros((1, 1)), gradient) for d in (newest, last))
    assert _descent._conjugate(newest, gradient, last, before) is newest


def test_the_gamma_term_is_made_up_for_once_it_would_save_its_cost(rng):
    problem = make_problem(rng)
    preconditioner = _preconditioner.Preconditioner(problem)
    point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in problem.design.coef_shapes])
    preconditioner.renew(point, pairs=False)
    needed = int(np.ceil(preconditioner.renewal_cost / preconditioner.product_cost))
    for steps, renewed in ((needed - 1, False), (1, True)):
        for _ in range(steps):
            preconditioner.spend_product()
        preconditioner.update(point)
        assert preconditioner.is_fresh is renewed


def test_metrics_serve_longer_and_longer(rng, monkeypatch):
    problem = make_problem(rng, n_outputs=2, adaptivity=3e3, alpha=0.05)
    served = []
    make, downhill = _descent._Metric.__init__, _descent._Metric.downhill

    def count_metric(self, *arguments):
        served.append(0)
        make(self, *arguments)

    def count_step(self, gradient):
        served[-1] += 1
        return downhill(self, gradient)

    monkeypatch.setattr(_descent._Metric, "__init__", count_metric)
    monkeypatch.setattr(_descent._Metric, "downhill", count_step)
    preconditioner = _preconditioner.Preconditioner(problem)
    preconditioner.metric_cost = 12.0 * preconditioner.descent_cost
    descend(problem, preconditioner)
    assert len(served) > 3
    assert served[:-1] == [1 + 6 * k for k in range(len(served) - 1)]


def count_steps(problem, monkeypatch, factor=1.0):
    """Number of directions that a descent takes, and what it returns, with products that are wrong by a factor."""
    downhill, steps = _descent._Metric.downhill, []

    def wrong(self, gradient):
        steps.append(downhill(self, gradient))
        correlation = [factor * matrix for matrix in steps[-1].correlation]
        return steps[-1]._replace(prediction=factor * steps[-1].prediction, correlation=correlation)

    with monkeypatch.context() as patched:
        patched.setattr(_descent._Metric, "downhill", wrong)
        found = descend(problem, _preconditioner.Preconditioner(problem))
    return len(steps), found


def test_a_quadratic_takes_one_step(rng, monkeypatch):
    steps, found = count_steps(make_problem(rng, adaptivity=0.0), monkeypatch)
    assert steps == 2  # that one, and the one from which it sees that it is there
    assert found is not None


def test_conjugate_directions_save_steps(rng, monkeypatch):
    problem = make_problem(rng, n_outputs=2, adaptivity=1000.0, alpha=0.05)
    steps, found = count_steps(problem, monkeypatch)
    assert found is not None
    monkeypatch.setattr(_descent, "_conjugate", lambda newest, *_: newest)
    assert steps <= 0.7 * count_steps(problem, monkeypatch)[0]


def test_the_true_objective_decides(rng, monkeypatch):
    """Products that come for free and are wrong are made anew, or found out in the end."""
    problem = make_problem(rng, n=80, shapes=((12, 30), (20, 20)), adaptivity=100.0, alpha=0.05)
    assert count_steps(problem, monkeypatch, 0.5)[1] is None
    lowest = solve(problem, "newton", 1e-6).objective
    for factor in (0.999, 1.001, 1.003):
        start, _ = count_steps(problem, monkeypatch, factor)[1]
        assert problem.objective(start.coefs) <= 1.01 * lowest


def test_a_new_metric_begins_with_the_true_gradient(rng, monkeypatch):
    """However wrong A*A z, which comes for free, has been up to there."""
    problem = make_problem(rng, adaptivity=100.0)
    begin, downhill, points = _descent._Metric.__init__, _descent._Metric.downhill, []

    def count_metric(self, point, preconditioner):
        begin(self, point, preconditioner)
        points.append(point)
        self.is_new = True

    def wrong(self, gradient):
        if self.is_new:
            self.is_new, point = False, points[-1]
            correlation = problem.design.rmatvec(problem.target - problem.design.matvec(point.coefs))
            expected = flat([layer.gradient - matrix for layer, matrix in zip(point.layers, correlation, strict=True)])
            np.testing.assert_allclose(flat(gradient), expected, atol=1e-4 * np.linalg.norm(expected))
        step = downhill(self, gradient)
        return step._replace(correlation=[0.9 * matrix for matrix in step.correlation])

    monkeypatch.setattr(_descent._Metric, "__init__", count_metric)
    monkeypatch.setattr(_descent._Metric, "downhill", wrong)
    descend(problem, _preconditioner.Preconditioner(problem))
    assert len(points) > 2


def test_where_the_objective_is_rounding_there_is_another_start(rng, counted):
    problem = make_problem(rng, noise=0.0, alpha=1e-5, adaptivity=1.0)
    solution = solve(problem, "newton", 1e-6)
    assert counted == [None]
    assert solution.converged


@pytest.mark.parametrize(("outputs", "n_outputs", "loss"), [("network", 2, "squared"), ("shared", 2, "multinomial")])
def test_only_what_is_one_metric_leads_a_descent(rng, counted, outputs, n_outputs, loss):
    operator = random_operator(rng, 30, [(5, 9)], outputs, n_outputs)
    y = np.eye(2)[rng.integers(0, 2, 30)] if loss == "multinomial" else rng.standard_normal((30, 2))
    assert solve(StructuredRegression(operator, y, alpha=0.5, loss=loss), "newton", 1e-6).converged
    assert not counted


def test_it_pays_where_not_much_adapts_alone(rng, monkeypatch, counted):
    monkeypatch.setattr(_costs, "DESCENT_SHARE", 0.001)
    monkeypatch.setattr(_costs, "DESCENT_SHARE_PAIRS", 0.02)
    for n_outputs, root in ((1, 100.0), (2, 2000.0)):
        problem = make_problem(rng, n_outputs=n_outputs, alpha=1e-3)
        largest = max(np.linalg.norm(coef, 2) for coef in solve(problem.with_strength(1e-3, 0.0)).coefs)
        for factor in (0.2, 5.0):
            counted.clear()
            assert solve(problem.with_strength(1e-3, (factor * root / largest) ** 2), "newton", 1e-6).converged
            assert bool(counted) == (factor < 1.0)


def test_small_problems_do_without(rng, monkeypatch, counted):
    monkeypatch.undo()
    assert not _preconditioner.Preconditioner(make_problem(rng)).is_metric
    # With one output 32 samples for every direction, with several 16.
    cases = (
        (1, 51, 1, True),
        (1, 201, 1, False),
        (1, 101, 1, False),
        (5, 101, 1, True),
        (5, 201, 1, False),
        (5, 101, 2, True),
    )
    for n_outputs, inputs, n_layers, is_large in cases:
        large = random_operator(rng, 2000, [*n_layers * [(inputs, 512)], (513, 1)], "shared", n_outputs)
        problem = StructuredRegression(large, np.ones((2000, n_outputs)))
        assert _preconditioner.Preconditioner(problem).is_metric == is_large


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("features", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("scale", [1e-98, 1e-40, 1e-21, 1e-10, 1e10, 1e21, 1e40, 1e98])
def test_units_do_not_matter(rng, counted, features, scale):
    """Where numbers, or their squares, leave single precision, everything is in double precision, and so silent."""
    problem = make_problem(rng, n_outputs=2, adaptivity=1.0)
    layers = [LayerFactors(features * layer.h, layer.delta) for layer in problem.operator.layers]
    scaled = StructuredRegression(
        TangentOperator(layers, "shared", n_outputs=2),
        scale * problem.y,
        alpha=features**2 * problem.alpha,
        adaptivity=(features / scale) ** 2,
    )
    solution = solve(scaled, "newton", 1e-6)
    assert counted[-1] is not None
    assert solution.converged
    assert solution.objective / scale**2 == pytest.approx(solve(problem, "newton", 1e-6).objective, rel=2e-6)
