"""What a pair of primal and dual points proves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: A lower bound cannot be above the objective. An excess up to the first share of the objective is rounding and counts
#: as 0; between the shares it counts as a gap. Beyond the second a price or its conjugate is wrong: nothing is proved.
_ROUNDING = 64 * np.finfo(float).eps
_CONTRADICTION = 1e-6


@dataclass(frozen=True)
class Certificate:
    """What a pair of primal and dual points proves.

    Attributes
    ----------
    objective : float
        Primal objective P(B).
    dual_objective : float
        Dual objective D(r), a lower bound on the optimal value; −inf if nothing is proved, NaN for a penalty that is
        not convex.
    dual_gap : float
        (P − D) / P: the relative error of the objective is at most that. 0 for P = 0, NaN for a penalty that is not
        convex. Where rounding has made D > P, by how much; +inf where no rounding explains it.
    stationarity : float
        For a penalty that is not convex, the residual of the optimality condition, see
        `StructuredRegression.optimality_residual`; else NaN.
    constraint_residual : float
        ‖y − A B‖ / ‖y‖ for ``loss="interpolation"``; else 0.
    """

    objective: float
    dual_objective: float
    dual_gap: float
    stationarity: float = math.nan
    constraint_residual: float = 0.0

    @classmethod
    def of(
        cls, objective: float, dual_objective: float, slack: float = 0.0, constraint_residual: float = 0.0
    ) -> Certificate:
        """Certificate of two objective values, which are not known better than D exceeds P.

        `slack` is what a violated constraint may have gained the objective.
        """
        excess = dual_objective - slack - objective
        gap = max(objective - dual_objective, excess if excess > _ROUNDING * abs(objective) else 0.0) + slack
        if excess > _CONTRADICTION * abs(objective):
            gap = math.inf
        if math.isnan(objective):
            gap = math.nan
        relative = 0.0 if objective == 0.0 else float(gap / abs(objective))
        return cls(float(objective), float(dual_objective), relative, constraint_residual=float(constraint_residual))

    @property
    def error(self) -> float:
        """What is compared with `tol`: the gap or else the stationarity, and no less than the constraint residual.

        NaN where one of the figures is, but for the gap or the stationarity, of which a point has one.
        """
        figures = self.objective, self.constraint_residual
        if any(map(math.isnan, figures)):
            return math.nan
        return max(self.stationarity if math.isnan(self.dual_gap) else self.dual_gap, self.constraint_residual)
