"""What every solver returns, and the record it keeps on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from .._types import Array, Coefs
from ..certificate import Certificate
from ..problem import StructuredRegression


class Iteration(NamedTuple):
    """One row of a solver's history.

    Attributes
    ----------
    iteration : int
    time : float
        Seconds since the start of the solver.
    objective, dual_objective : float
    dual_gap : float
        Relative duality gap of this iterate; NaN for a penalty that is not convex.
    stationarity : float
        Residual of the optimality condition for a penalty that is not convex; else NaN.
    """

    iteration: int
    time: float
    objective: float
    dual_objective: float
    dual_gap: float
    stationarity: float


@dataclass(frozen=True, eq=False)
class Solution:
    """A point, and the certificate of this very point.

    Attributes
    ----------
    coefs : list of ndarray
        Coefficients B of each layer.
    dual : ndarray of shape (n, C)
        Dual point r; y − A B at the optimum (of the weighted and centred data, if any).
    prediction : ndarray of shape (n, C)
        A B of the training samples, without the intercept.
    intercept : ndarray of shape (C,)
    objective, dual_objective : float
        P(B) and D(r). The optimal value lies between them; for ``loss="interpolation"`` P(B) may be below it, as far
        as B violates the constraint.
    dual_gap : float
        (P − D) / P, relative, with |r·(y − A B)| added to P − D for ``loss="interpolation"``; +inf where r proves
        nothing; NaN for a penalty that is not convex, for which no lower bound is known.
    stationarity : float
        For a penalty that is not convex, the relative residual of the optimality condition: the point is stationary to
        that accuracy, and nothing is said about other stationary points. NaN for a convex penalty.
    constraint_residual : float
        ‖y − A B‖ / ‖y‖ for ``loss="interpolation"``; else 0.
    n_iter : int
        Iterations of the solver.
    converged : bool
        Whether ``dual_gap <= tol``, without a gap ``stationarity <= tol``, and ``constraint_residual <= tol``.
    message : str
        Why the solver stopped. It refers to the solver's own figures, in `history`; the figures above are those of the
        returned point, computed anew.
    method : str
    history : list of Iteration
    """

    coefs: Coefs
    dual: Array
    prediction: Array
    intercept: Array
    objective: float
    dual_objective: float
    dual_gap: float
    stationarity: float
    constraint_residual: float
    n_iter: int
    converged: bool
    message: str
    method: str
    history: list[Iteration] = field(repr=False)

    def rescaled(self, scale: float, dual_scale: float) -> Solution:
        """That of a problem whose objective is so many times as large, see `StructuredRegression.rescaled`."""
        if scale == 1.0:
            return self
        return replace(
            self,
            dual=dual_scale * self.dual,
            objective=scale * self.objective,
            dual_objective=scale * self.dual_objective,
        )


class Monitor:
    """Keeps the history of one run, shows progress, calls back and knows when to stop.

    Parameters
    ----------
    tol : float
        Relative duality gap (or stationarity) at which to stop.
    verbose : int
        0 is silent; 1 shows a progress bar with it.
    callback : callable, optional
        Called with each `Iteration`; a true return value stops the solver.
    scale : float, default=1.0
        What objectives are multiplied by in the history.
    """

    def __init__(
        self, tol: float, verbose: int = 0, callback: Callable[[Iteration], Any] | None = None, scale: float = 1.0
    ) -> None:
        self.tol = tol
        self._scale = scale
        self.history: list[Iteration] = []
        #: Whether the callback has asked to stop.
        self.is_stopped = False
        self._callback = callback
        self._start = time.perf_counter()
        self._bar = _Progress(tol) if verbose else None

    def record(self, iteration: int, certificate: Certificate) -> str:
        """Append one iteration; the reason to stop here, or an empty string."""
        row = Iteration(
            iteration,
            time.perf_counter() - self._start,
            self._scale * certificate.objective,
            self._scale * certificate.dual_objective,
            certificate.dual_gap,
            certificate.stationarity,
        )
        self.history.append(row)
        if self._bar is not None:
            self._bar.show(row, certificate.error)
        self.is_stopped |= self._callback is not None and bool(self._callback(row))
        if certificate.error <= self.tol:
            # The certificate of the point that is returned is computed anew, and rounding may lift it above tol.
            name = "gap" if math.isnan(certificate.stationarity) else "stationarity residual"
            return f"the solver's running {name} is below tol"
        return "stopped by callback" if self.is_stopped else ""

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()


#: What a solver starts from: coefficients and a dual point, if there is one.
WarmStart: TypeAlias = tuple[Coefs, Array | None] | None
#: Called with (problem, monitor, max_iter, warm_start); returns (coefs, dual, message).
SolverFunction: TypeAlias = Callable[[StructuredRegression, Monitor, int, WarmStart], tuple[Coefs, Array, str]]


class _Progress:
    """A bar over the decades that the gap (or the stationarity residual) still has to fall."""

    def __init__(self, tol: float) -> None:
        from tqdm import tqdm  # not at the top: importing the package does not wait for it

        self._bar = tqdm(
            total=round(-math.log10(tol), 2), bar_format="{desc} |{bar}| {elapsed} {postfix}", desc="gap       -"
        )

    def show(self, row: Any, error: float) -> None:
        decades = -math.log10(min(max(error, 1e-300), 1.0))
        self._bar.n = max(self._bar.n, min(decades, self._bar.total))
        name = "gap" if math.isnan(row.stationarity) else "stationarity"
        self._bar.set_description_str(f"{name} {error:.1e}", refresh=False)
        self._bar.set_postfix_str(f"objective {row.objective:.6g}, iteration {row.iteration}")

    def close(self) -> None:
        self._bar.close()
