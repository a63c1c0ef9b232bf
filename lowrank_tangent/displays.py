"""Pictures, in scikit-learn's Display convention; they need matplotlib (pip install lowrank_tangent[plot])."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from ._types import Array
from .theory import alignment, label_kernel


class KernelAlignmentDisplay:
    """Initial kernel, adapted kernel and label kernel side by side, samples sorted by label.

    Parameters
    ----------
    kernels : dict of str to ndarray of shape (n, n)
        Title and kernel; the last one is the label kernel that the others are compared to.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
    """

    def __init__(self, kernels: Mapping[str, Array]) -> None:
        self.kernels = kernels

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, max_samples: int = 400) -> KernelAlignmentDisplay:
        """Compute and draw the kernels of a fitted estimator.

        Parameters
        ----------
        estimator : a fitted estimator of this package
        X : array of shape (n, n_features)
        y : array of shape (n,) or (n, C)
        max_samples : int, default=400
            Larger data are thinned out evenly; a picture has no more pixels to show them.

        Returns
        -------
        KernelAlignmentDisplay
        """
        X, y = X if hasattr(X, "iloc") else np.asarray(X), np.asarray(y)
        order = np.argsort(y, kind="stable") if y.ndim == 1 else np.arange(len(y))
        order = order[np.unique(np.linspace(0, len(y) - 1, min(len(y), max_samples)).astype(int))]
        X, y = X.iloc[order] if hasattr(X, "iloc") else X[order], y[order]  # a data frame keeps its names
        targets = LabelBinarizer(neg_label=-1).fit_transform(y) if hasattr(estimator, "classes_") else y
        targets = targets - np.mean(targets, axis=0)
        return cls(
            {
                "initial kernel": mean_over_outputs(estimator.initial_kernel(X), len(X)),
                "adapted kernel": mean_over_outputs(estimator.kernel(X), len(X)),
                "label kernel": label_kernel(targets),
            }
        ).plot()

    def plot(self, axes: Sequence[Any] | None = None) -> KernelAlignmentDisplay:
        """Draw the kernels.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            One for each kernel.

        Returns
        -------
        KernelAlignmentDisplay
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("pictures need matplotlib: pip install matplotlib.") from error
        if axes is None:
            _, axes = plt.subplots(1, len(self.kernels), figsize=(4.2 * len(self.kernels), 4.6), layout="constrained")
        labels = list(self.kernels.values())[-1]
        for ax, (title, kernel) in zip(axes, self.kernels.items(), strict=True):
            centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
            # A few extreme samples would leave the rest of the picture blank.
            limit = np.percentile(np.abs(centred), 99) or 1.0
            ax.imshow(centred, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            ax.set(title=title, xticks=[], yticks=[])
            if kernel is not labels:
                ax.set_xlabel(f"alignment with labels {alignment(kernel, labels):.3f}")
        axes[0].set_ylabel("samples, sorted by label")
        self.axes_ = axes
        self.figure_ = axes[0].figure
        return self


def mean_over_outputs(kernel: Array, n_samples: int) -> Array:
    """Kernel of the samples from one of samples × outputs: the mean over outputs of its diagonal blocks."""
    n_outputs = len(kernel) // n_samples
    return np.einsum("icjc->ij", kernel.reshape(n_samples, n_outputs, n_samples, n_outputs)) / n_outputs
