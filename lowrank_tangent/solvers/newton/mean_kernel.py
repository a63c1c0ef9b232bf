"""The ridge kernel of the stretched features, n × n, averaged over outputs; for problems of medium size.

The average is exact for "shared" outputs, and the limit of wide networks for "network" ones. One output has the Γ
terms, too, and so the system itself but for terms that do not weigh.
"""

from __future__ import annotations

from . import costs
from .costs import cholesky_cost, pair_cost, skinny_cost, stretch_cost
from .kernels import is_outer, kernel_fits
from .kind import Kind, curvature_roots, shifted_factor
from .pairs import MOST_DIRECTIONS, pair_kernels


class MeanKernel(Kind):
    """Cholesky factor of the mean kernel, with the curvature of the loss.

    Parameters
    ----------
    problem : StructuredRegression
    products : SystemProducts
    """

    def __init__(self, problem, products):
        design, smaller = problem.design, [min(shape) for shape in problem.design.coef_shapes]
        n, C, sides = design.n_samples, design.n_outputs, sum(smaller)
        self.has_pairs = C == 1 and all(is_outer(layer) for layer in design.layers)
        self.solve_cost = skinny_cost(n, C)
        self.renewal_cost = self.metric_cost = stretch_cost(n, sides) + cholesky_cost(n)
        if self.has_pairs:
            self.renewal_cost += pair_cost(n, sides, sum(min(side, MOST_DIRECTIONS) for side in smaller))
        self.descent_cost = products.factor_cost + self.solve_cost + costs.CALL_OVERHEAD
        if problem.loss.is_quadratic and (C == 1 or design.outputs == "shared"):
            saved = costs.DESCENT_PRODUCTS * (products.cost + self.solve_cost + costs.CALL_OVERHEAD)
            saved = self.renewal_cost - self.metric_cost if self.has_pairs else saved
            least = costs.DESCENT_SAMPLES_PAIRS if self.has_pairs else costs.DESCENT_SAMPLES
            self.is_metric = n >= least * max(smaller) and saved >= costs.DESCENT_CALLS * len(smaller)

    @classmethod
    def of(cls, problem, products):
        """The kind for a problem; None if its kernels are too large."""
        return cls(problem, products) if kernel_fits(problem.design) else None

    def leads_descent(self, share):
        """Whether to begin with a descent pays, where the alpha of ridge is this share of that of the problem."""
        return self.is_metric and share >= (costs.DESCENT_SHARE_PAIRS if self.has_pairs else costs.DESCENT_SHARE)

    def factor(self, point, products, pairs=True):
        """Cholesky factor, in the precision of the products."""
        return shifted_factor(lambda: self._kernel(point, products, pairs), point.problem.alpha)

    def _kernel(self, point, products, pairs):
        design = products.design
        kernel = products.kernels.mean(point, pair_kernels(design, point) if self.has_pairs and pairs else ())
        if not point.problem.loss.is_quadratic:
            roots = curvature_roots(point, design.dtype)
            kernel *= roots[:, None]
            kernel *= roots
        return kernel
