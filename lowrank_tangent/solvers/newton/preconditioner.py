"""Preconditioner of Newton's system I + A W A*, and when it is renewed.

W stretches the features by z, and couples pairs of directions by a Γ term (`spectral_point.py`). Without that term
A W A* is the kernel of the stretched features: ridge regression with it is what iteratively reweighted least squares
solves. There is one class for each way to approximate the inverse:

- `ExactSystem` (`exact.py`): the system itself. For small problems, where a mean kernel would miss much of it.
- `MeanKernel` (`mean_kernel.py`): the kernel of the stretched features, averaged over outputs, with the Γ term if there
  is one output. For problems of medium size.
- `Classwise` (`classwise.py`): a factor for each class, for the cross-entropy of several classes.
- `Landmarks` (`nystrom.py`): the mean kernel by some of the samples. For large problems and for streams.
- `SystemOfRows` and `Unpreconditioned`: for operators of which products alone are known, small ones and large ones.
"""

from __future__ import annotations

import numpy as np

from . import costs
from .classwise import Classwise, ConstrainedFactor
from .exact import ExactSystem, SystemOfRows
from .kind import Unpreconditioned
from .mean_kernel import MeanKernel
from .nystrom import Landmarks
from .products import SystemProducts


class Preconditioner:
    """Inverse of the system of some recent point.

    The first system after a renewal takes so many steps of conjugate gradients. Later ones take more, as their point
    moves away. Once these extra steps together have cost as much as a renewal, the next point gets one.

    Attributes
    ----------
    products : SystemProducts
        The products with the system that it is the preconditioner of.
    is_fresh : bool
        Whether it was made at the latest point.
    renewal_cost, product_cost : float
        Operations of a renewal, and of a step of conjugate gradients.
    is_metric, metric_cost, descent_cost
        See `Kind`.
    """

    def __init__(self, problem):
        self.products = SystemProducts(problem, single=False)
        self._better, self._kind = _kinds(problem, self.products)
        if not self._kind.is_exact:
            self.products.use_single()
        kind = self._kind
        self.is_metric, self.metric_cost, self.descent_cost = kind.is_metric, kind.metric_cost, kind.descent_cost
        self.renewal_cost = kind.renewal_cost + costs.CALL_OVERHEAD
        self.product_cost = self.products.cost + kind.solve_cost + costs.CALL_OVERHEAD
        self.expire()

    @property
    def is_exact(self):
        """Whether it is one of the system itself."""
        return self._kind.is_exact

    @property
    def may_be_exact(self):
        """Whether it is one of the system itself, or may become that."""
        return self.is_exact or self._better is not None

    def leads_descent(self, share):
        """Whether to begin with a descent pays, where the alpha of ridge is this share of that of the problem."""
        return self._kind.leads_descent(share)

    def update(self, point):
        """Renew at this point, if the age of the last one has cost as much."""
        if self._fresh_steps is None:
            self._fresh_steps = self._steps
        self._lost_steps += max(self._steps - self._fresh_steps, 0)
        self._steps = 0
        self.is_fresh = False
        if self._lost_steps * self.product_cost >= self.renewal_cost:
            self.renew(point)

    def renew(self, point, pairs=True):
        """Renew at this point, whatever the age; in double precision where α is lost in the rounding of single.

        Without the Γ term unless with `pairs`.
        """
        self._forget()
        self.is_fresh, self._alpha = True, point.problem.alpha
        if self._kind.has_pairs and not pairs:
            self._fresh_steps = 0  # a new one, with that term, would save all the steps of its system
        try:
            self._factor = self._constrained_at(point, pairs)
        except np.linalg.LinAlgError:
            if not self.products.is_single:
                raise
            self.products.use_double()
            self._factor = self._constrained_at(point, pairs)

    def use_double(self, point):
        """Go on in double precision, from this point."""
        self.products.use_double()
        self.renew(point)

    def improve(self, point):
        """Take the next better way: double precision, then the system itself. Whether there was one."""
        if self.products.is_single:
            self.use_double(point)
        elif self._better is not None:
            # Nothing else has helped: it is renewed as often as the kind that has failed.
            self._kind, self._better = self._better, None
            self.renew(point)
        else:
            return False
        return True

    def spend_product(self):
        """Account for one product with the system."""
        self._steps += 1

    def expire(self):
        """Renew at the next point, whatever that costs."""
        self._forget()
        self._lost_steps = np.inf

    def _forget(self):
        """Begin to count again: steps of this system, of the first one, and those lost since."""
        self._steps, self._fresh_steps, self._lost_steps = 0, None, 0

    def apply(self, residual):
        """Approximate inverse of the system times `residual` of shape (n, C)."""
        return self._alpha * self._factor.solve(residual)

    def _constrained_at(self, point, pairs):
        """Factor of the system without what a loss takes out for an intercept, which least squares has in the rows."""
        factor = self._kind.factor(point, self.products, pairs)
        directions = () if point.problem.loss.is_quadratic else point.loss.intercept_directions
        if not len(directions):
            return factor
        return ConstrainedFactor(factor, point.problem.alpha, directions.astype(self.products.design.dtype))


def _kinds(problem, products):
    """What is left to fall back on (the system itself, or None), and the kind to begin with: the one that pays."""
    design = problem.design
    if not design.layers:
        return None, SystemOfRows.of(problem) or Unpreconditioned()
    exact, mean, classwise = ExactSystem.of(problem), MeanKernel.of(problem, products), Classwise.of(problem)
    usual = Landmarks(problem, products) if mean is None else mean
    product_cost = products.cost + usual.solve_cost
    if exact is not None:
        averages = design.n_outputs > 1 and (design.outputs == "network" or not problem.loss.is_quadratic)
        saved = costs.EXACT_PRODUCTS[2 if averages else 0 if usual.has_pairs else 1]
        if exact.renewal_cost <= saved * (product_cost + costs.CALL_OVERHEAD):
            return None, exact
    if classwise is not None and classwise.renewal_cost <= costs.CLASSWISE_PRODUCTS * product_cost:
        return exact, classwise
    return exact, usual
