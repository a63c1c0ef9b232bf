"""What an operator promises, against its dense matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from .._types import Array, Coefs
from ..linalg.transforms import LowRankTransform
from ..operators import Operator
from ..penalties import KLPenalty
from ..problem import StructuredRegression
from .findings import agree, expect, pickled, run_checks, same_dtype, skip, unchanged
from .layer import DOUBLE, SINGLE, _index_kinds


def check_operator(operator: Operator, *, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a linear operator against its matrix, column by column from `matvec`.

    Parameters
    ----------
    operator : Operator
        An instance with a few samples and small shapes: its matrix is held in memory.
    random_state : int, default=0
        Draws coefficients, residuals, weights and transforms.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "shapes", "linearity", "adjoint", "outputs", "dense", "gram", "mean-gram",
        "diagonal", "rows", "plain", "weighted", "transformed", "reduce", "precision", "layers", "certificate",
        "immutability", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.operators import LayerFactors, TangentOperator
    >>> from lowrank_tangent.testing import check_operator
    >>> rng = np.random.default_rng(0)
    >>> check_operator(TangentOperator([LayerFactors(rng.normal(size=(6, 3)), rng.normal(size=(6, 4)))]))[:3]
    ['shapes', 'linearity', 'adjoint']
    """
    return run_checks(operator, _Case(operator), _CHECKS, random_state, verbose)


class _Case:
    """An operator and its matrix."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.tol = DOUBLE if operator.dtype == np.float64 else SINGLE

    @functools.cached_property
    def dense(self) -> Array:
        """The matrix, shape (n·C, P)."""
        return dense_of(self.operator)

    @functools.cached_property
    def plain(self) -> Array:
        """The matrix without weights or centring."""
        return dense_of(self.operator.plain())

    @functools.cached_property
    def size(self) -> float:
        """Size of the kernel's entries."""
        return float(np.max(np.sum(self.plain**2, axis=1)))

    def in_rows(self, matrix: Array) -> Array:
        """Rows of samples and outputs apart: (n, C, …)."""
        return matrix.reshape(self.operator.n_samples, self.operator.n_outputs, *matrix.shape[1:])


def dense_of(operator: Operator) -> Array:
    """The matrix of an operator, one product with a unit vector a column; shape (n·C, P)."""
    return np.column_stack([np.ravel(operator.matvec(unit)) for unit in _units(operator.coef_shapes)])


def _units(shapes: list[tuple[int, int]]) -> Iterator[Coefs]:
    """Coefficients with a single 1 each, in the order of the columns."""
    for layer, (p, q) in enumerate(shapes):
        for entry in range(p * q):
            coefs = [np.zeros(shape) for shape in shapes]
            coefs[layer].flat[entry] = 1.0
            yield coefs


def _flat(coefs: Coefs) -> Array:
    return np.concatenate([np.ravel(coef) for coef in coefs])


def _coefs(operator: Operator, rng: np.random.Generator) -> Coefs:
    return [rng.standard_normal(shape) for shape in operator.coef_shapes]


def _residual(operator: Operator, rng: np.random.Generator) -> Array:
    return rng.standard_normal((operator.n_samples, operator.n_outputs))


def _shapes(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    n, C = operator.n_samples, operator.n_outputs
    expect(n >= 1 and C >= 1, f"n_samples and n_outputs must be integers >= 1; got {n!r} and {C!r}")
    expect(operator.outputs in ("network", "shared"), f"outputs is {operator.outputs!r}")
    got = np.shape(operator.matvec(_coefs(operator, rng)))
    expect(got == (n, C), f"matvec must have shape (n, C) = {(n, C)}; got {got}")
    shapes, expected = [np.shape(coef) for coef in operator.rmatvec(_residual(operator, rng))], operator.coef_shapes
    expect(shapes == [tuple(shape) for shape in expected], f"rmatvec must have shapes {expected}; got {shapes}")
    zeros = operator.zeros()
    expect([zero.shape for zero in zeros] == shapes and not any(zero.any() for zero in zeros), "zeros() is not B = 0")


def _linearity(case: _Case, rng: np.random.Generator) -> None:
    coefs = _coefs(case.operator, rng)
    expected = case.in_rows(case.dense @ _flat(coefs))
    size = float(np.linalg.norm(case.dense) * np.linalg.norm(_flat(coefs)))
    agree("matvec against the sum of its columns", case.operator.matvec(coefs), expected, case.tol, size)


def _adjoint(case: _Case, rng: np.random.Generator) -> None:
    residual = _residual(case.operator, rng)
    got = _flat(case.operator.rmatvec(residual))
    size = float(np.linalg.norm(case.dense) * np.linalg.norm(residual))
    agree("rmatvec against the transposed matrix", got, case.dense.T @ residual.ravel(), case.tol, size)


def _outputs(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    if operator.outputs != "shared":
        skip("for outputs that share nothing")
    C, start = operator.n_outputs, 0
    for p, width in operator.coef_shapes:
        block = case.in_rows(case.plain[:, start : start + p * width]).reshape(operator.n_samples, C, p, C, -1)
        start += p * width
        for c in range(C):
            for d in range(C):
                expected = block[:, 0, :, 0] if c == d else np.zeros_like(block[:, 0, :, 0])
                agree(
                    f"'shared': features of output {c} in block {d}",
                    block[:, c, :, d],
                    expected,
                    case.tol,
                    float(np.abs(block).max()),
                )


def _dense(case: _Case, rng: np.random.Generator) -> None:
    agree("to_dense against columns of matvec", case.operator.to_dense(), case.dense, case.tol)


def _gram(case: _Case, rng: np.random.Generator) -> None:
    agree("gram against A Aᵀ", case.operator.gram(), case.dense @ case.dense.T, case.tol, case.size)
    index = np.arange(case.operator.n_samples)[::2]
    other = case.in_rows(case.plain)[index].reshape(-1, case.plain.shape[1])
    got = case.operator.gram(case.operator.rows(index))
    agree("gram with some of the samples against A A'ᵀ", got, case.dense @ other.T, case.tol, case.size)


def _mean_gram(case: _Case, rng: np.random.Generator) -> None:
    rows, C = case.in_rows(case.dense), case.operator.n_outputs
    expected = np.einsum("icp,jcp->ij", rows, rows) / C
    agree("mean_gram against the mean of A Aᵀ over outputs", case.operator.mean_gram(), expected, case.tol, case.size)
    index = np.arange(case.operator.n_samples)[1:]
    expected = np.einsum("icp,jcp->ij", rows, case.in_rows(case.plain)[index]) / C
    got = case.operator.mean_gram(case.operator.rows(index))
    agree("mean_gram with some of the samples", got, expected, case.tol, case.size)


def _diagonal(case: _Case, rng: np.random.Generator) -> None:
    expected = case.in_rows(np.sum(case.plain**2, axis=1))
    agree("diagonal against squared norms of the plain rows", case.operator.diagonal(), expected, case.tol)


def _rows(case: _Case, rng: np.random.Generator) -> None:
    for kind, index in _index_kinds(case.operator.n_samples).items():
        part = case.operator.rows(index)
        expected = case.in_rows(case.plain)[index]
        expect(part.n_samples == len(expected), f"rows of {kind}: {len(expected)} samples wanted, got {part.n_samples}")
        agree(f"rows given by {kind}", dense_of(part), expected.reshape(-1, case.plain.shape[1]), case.tol)


def _weigh(case: _Case, roots: Array | None, centre: bool) -> Array:
    """The plain matrix with rows times the roots of weights, and projected onto their complement."""
    rows = case.in_rows(case.plain)
    scale = np.ones(len(rows)) if roots is None else np.asarray(roots, dtype=np.float64)
    rows = rows * scale[:, None, None]
    if centre:
        unit = scale / np.linalg.norm(scale)
        rows = rows - unit[:, None, None] * np.tensordot(unit, rows, axes=1)
    return rows.reshape(case.plain.shape)


def _plain(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    expected = _weigh(case, operator.row_scale, operator.centred)
    agree("the matrix against plain() with row_scale and centred", case.dense, expected, case.tol)


def _weighted(case: _Case, rng: np.random.Generator) -> None:
    weights = rng.uniform(0.2, 3.0, case.operator.n_samples)
    weights[0] = 0.0
    for sample_weight in (None, weights):
        for centre in (False, True):
            other = case.operator.weighted(sample_weight, centre=centre)
            expected = _weigh(case, None if sample_weight is None else np.sqrt(weights), centre)
            name = f"weighted({'None' if sample_weight is None else 'w'}, centre={centre})"
            size = float(np.abs(case.plain).max())
            agree(f"the matrix of {name}", dense_of(other), expected, case.tol, 2.0 * size)
            residual = _residual(other, rng)
            agree(
                f"rmatvec of {name}",
                _flat(other.rmatvec(residual)),
                expected.T @ residual.ravel(),
                case.tol,
                float(np.linalg.norm(expected) * np.linalg.norm(residual)),
            )
            agree(f"gram of {name}", other.gram(), expected @ expected.T, case.tol, 4.0 * case.size)


def _transformed(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    bases = [
        [np.linalg.qr(rng.standard_normal((size, min(2, size))))[0] for size in shape] for shape in operator.coef_shapes
    ]
    stretches = [[LowRankTransform(basis, rng.uniform(1.5, 3.0, basis.shape[1:])) for basis in pair] for pair in bases]
    identities = [[LowRankTransform.identity(size) for size in shape] for shape in operator.coef_shapes]
    for name, lefts, rights in (
        ("transformed(M1, I)", stretches, identities),
        ("transformed(I, M2)", identities, stretches),
        ("transformed(M1, M2)", stretches, stretches),
    ):
        left, right = [pair[0] for pair in lefts], [pair[1] for pair in rights]
        other = operator.transformed(left, right)
        columns = [
            _flat([m1.to_dense() @ coef @ m2.to_dense() for m1, coef, m2 in zip(left, unit, right, strict=True)])
            for unit in _units(operator.coef_shapes)
        ]
        expected = case.dense @ np.column_stack(columns)
        agree(f"the matrix of {name} against B ↦ A (M1 B M2)", dense_of(other), expected, case.tol)
        residual = _residual(operator, rng)
        agree(
            f"rmatvec of {name}",
            _flat(other.rmatvec(residual)),
            expected.T @ residual.ravel(),
            case.tol,
            float(np.linalg.norm(expected) * np.linalg.norm(residual)),
        )


def _reduce(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    reduced, expand, compress = operator.reduce()
    coefs, inner = _coefs(operator, rng), _coefs(reduced, rng)
    size = float(np.linalg.norm(case.dense) * np.linalg.norm(_flat(coefs)))
    expected = operator.matvec(coefs)
    agree("predictions of compressed coefficients", reduced.matvec(compress(coefs)), expected, case.tol, size)
    agree("predictions of expanded coefficients", operator.matvec(expand(inner)), reduced.matvec(inner), case.tol, size)
    agree("the kernel of the reduced operator", reduced.gram(), case.dense @ case.dense.T, case.tol, case.size)
    for before, after, back in zip(inner, expand(inner), compress(expand(inner)), strict=True):
        agree("compressed expanded coefficients", back, before, case.tol)
        spectrum = np.linalg.svd(after, compute_uv=False)[: min(before.shape)]
        agree("singular values of expanded coefficients", spectrum, np.linalg.svd(before, compute_uv=False), case.tol)


def _precision(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    coefs, residual = _coefs(operator, rng), _residual(operator, rng)
    same_dtype("matvec", operator.matvec(coefs), operator.dtype)
    expected = case.in_rows(case.dense @ _flat(coefs))
    pull = case.dense.T @ residual.ravel()
    sizes = [float(np.linalg.norm(case.dense) * np.linalg.norm(values)) for values in (_flat(coefs), residual)]
    agree("matvec, whose last digits must be right", operator.matvec(coefs), expected, case.tol, sizes[0])
    other = operator.with_precision(np.float32)
    for name, one in (
        ("with_precision(float32)", other),
        ("with_precision(float32, balance)", operator.with_precision(np.float32, [4.0] * len(operator.coef_shapes))),
    ):
        expect(
            one.dtype == np.float32 or one.dtype == operator.dtype,
            f"{name} must have that precision, or be the operator itself; it has dtype {one.dtype}",
        )
        same_dtype(f"matvec of {name}", one.matvec(coefs), one.dtype)
        agree(f"matvec of {name}", one.matvec(coefs), expected, SINGLE, sizes[0])
        agree(f"rmatvec of {name}", _flat(one.rmatvec(residual)), pull, SINGLE, sizes[1])
        agree(f"gram of {name}", one.gram(), case.dense @ case.dense.T, SINGLE, case.size)


def _layers(case: _Case, rng: np.random.Generator) -> None:
    operator, coefs = case.operator, _coefs(case.operator, rng)
    bases = operator.input_bases
    expect(len(bases) == len(operator.coef_shapes), f"input_bases must have one entry a layer; got {len(bases)}")
    for matrix, basis in zip(operator.rmatvec(_residual(operator, rng)), bases, strict=True):
        if basis is not None:
            agree("A* R projected onto input_bases", basis @ (basis.T @ matrix), matrix, max(case.tol, DOUBLE))
    if not operator.layers:
        return
    copies = operator.n_outputs if operator.outputs == "shared" else 1
    shapes = [(layer.shape[0], copies * layer.shape[1]) for layer in operator.layers]
    expect(shapes == operator.coef_shapes, f"layers have coefficients of shapes {shapes}, not {operator.coef_shapes}")
    if operator.is_streamed:
        return
    total = sum(
        layer.astype(operator.dtype).product(coef.astype(operator.dtype), operator.n_outputs)
        for layer, coef in zip(operator.layers, coefs, strict=True)
    )
    size = float(np.linalg.norm(case.plain) * np.linalg.norm(_flat(coefs)))
    agree("the sum of the layers' products", total, case.in_rows(case.plain @ _flat(coefs)), case.tol, size)


def _certificate(case: _Case, rng: np.random.Generator) -> None:
    operator, alpha, price = case.operator.plain(), 0.3, KLPenalty()
    y, coefs, dual = _residual(operator, rng), _coefs(operator, rng), _residual(operator, rng)
    problem = StructuredRegression(operator, y, penalty=price, alpha=alpha)
    residual = y.ravel() - case.plain @ _flat(coefs)
    price_of_coefs = sum(price.effective(np.linalg.svd(coef, compute_uv=False)).sum() for coef in coefs)
    objective = 0.5 * residual @ residual + 0.5 * alpha * price_of_coefs
    ends = np.cumsum([p * q for p, q in operator.coef_shapes])
    pull = [
        part.reshape(shape)
        for part, shape in zip(np.split(case.plain.T @ dual.ravel(), ends[:-1]), operator.coef_shapes, strict=True)
    ]
    spectra = [np.linalg.svd(matrix, compute_uv=False) for matrix in pull]
    # Inside the domain of the conjugate, which for this price ends at 2.
    share = 0.5 * alpha / max(values.max() for values in spectra)
    bound = share * np.vdot(dual, y) - 0.5 * share**2 * np.sum(dual**2)
    bound -= 0.5 * alpha * sum(price.conjugate(2.0 / alpha * share * values).sum() for values in spectra)
    found = problem.certificate(coefs, share * dual)
    agree("the objective of a problem on the operator", found.objective, objective, case.tol)
    agree("its dual objective", found.dual_objective, bound, case.tol, objective)


def _immutability(case: _Case, rng: np.random.Generator) -> None:
    operator = case.operator
    coefs, residual = _coefs(operator, rng), _residual(operator, rng)
    copies = [coef.copy() for coef in (*coefs, residual)]
    before = operator.matvec(coefs).copy()
    operator.matvec(coefs)[...] = np.nan
    for matrix in operator.rmatvec(residual):
        matrix[...] = np.nan
    unchanged("an array", (*coefs, residual), copies)
    operator.gram(), operator.weighted(None, centre=True), operator.rows(slice(1)), operator.with_precision(np.float32)
    agree("matvec after calls of other methods", operator.matvec(coefs), before, 0.0)


def _pickling(case: _Case, rng: np.random.Generator) -> None:
    coefs = _coefs(case.operator, rng)
    agree("matvec of the loaded operator", pickled(case.operator).matvec(coefs), case.operator.matvec(coefs), 0.0)


_CHECKS: dict[str, Callable[[_Case, np.random.Generator], None]] = {
    "shapes": _shapes,
    "linearity": _linearity,
    "adjoint": _adjoint,
    "outputs": _outputs,
    "dense": _dense,
    "gram": _gram,
    "mean-gram": _mean_gram,
    "diagonal": _diagonal,
    "rows": _rows,
    "plain": _plain,
    "weighted": _weighted,
    "transformed": _transformed,
    "reduce": _reduce,
    "precision": _precision,
    "layers": _layers,
    "certificate": _certificate,
    "immutability": _immutability,
    "pickling": _pickling,
}
