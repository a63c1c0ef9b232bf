"""Tables and the picture of the benchmark on small data."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
from scipy.stats import rankdata, wilcoxon

from _common import label_sizes, new_figure, print_header, print_row

BASELINE = "ridge-ntk"
#: Kinds of data: tables and pixels are real.
KINDS = ("table", "pixels", "synthetic")
_COLUMNS = 4


class Results:
    """Errors by data set, size and model.

    Parameters
    ----------
    rows : list of dict
        Rows of the CSV file.
    models : list of str
        The first is compared with the others.
    """

    def __init__(self, rows, models):
        self.rows, self.models = rows, models
        found = defaultdict(dict)
        for row in rows:
            found[row["data"], int(row["n"]), int(row["seed"])][row["model"]] = float(row["error"])
        self._draws = dict(sorted(found.items()))
        self.n_incomplete = sum(len(errors) < len(models) for errors in found.values())

    def errors(self, n):
        """Data set to errors of shape (n_seeds, n_models) at one size, of the seeds for which every model has a row."""
        tables = defaultdict(list)
        for (data, size, _), errors in self._draws.items():
            if size == n and len(errors) == len(self.models):
                tables[data].append([errors[model] for model in self.models])
        return {data: np.array(table) for data, table in tables.items()}

    def curve(self, data, model):
        """Sizes and mean errors of one model, over all seeds that it has, smallest size first."""
        by_size = defaultdict(list)
        for (name, size, _), errors in self._draws.items():
            if name == data and model in errors:
                by_size[size].append(errors[model])
        return list(by_size), [float(np.mean(errors)) for errors in by_size.values()]


def print_all(results, kinds, sizes, level):
    """Every table: errors and a summary for each size, sample sizes at equal errors, what failed."""
    for n in sizes:
        errors = results.errors(n)
        if errors:
            _print_errors(results.models, {name: errors[name] for name in kinds if name in errors}, n)
            _print_summary(results, errors, kinds, n)
            _print_baseline(results.models, errors)
    if BASELINE in results.models[1:]:
        _print_sample_sizes(results, kinds, level)
    notes = Counter((row["model"], row["note"]) for row in results.rows if row["note"])
    print(f"\nNot fitted: {sum(notes.values())} of {len(results.rows)} fits.")
    for (model, note), count in sorted(notes.items()):
        print(f"- {model}, {count} times, {note}")
    if results.n_incomplete:
        print(f"Left out of the tables of errors: {results.n_incomplete} draws that some model has no row for yet.")


def _print_errors(models, errors, n):
    """Means and standard deviations over the seeds; the lowest mean is bold."""
    print(f"\n### n = {n}, test errors\n")
    print_header(["data", "seeds", *models])
    for data, values in errors.items():
        means = values.mean(axis=0)
        cells = [_spread(column) for column in values.T]
        if not np.isnan(means).all():
            best = int(np.nanargmin(means))
            cells[best] = f"**{cells[best]}**"
        print_row([data, len(values), *cells])


def _spread(values):
    """Mean and standard deviation; a dash where a fit is missing."""
    if np.isnan(values).any():
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{deviation}"


def _print_summary(results, errors, kinds, n):
    """One line a model: ranks, the first model against it, seconds, ends of the grids, warnings."""
    first, models = results.models[0], results.models
    groups = {kind: [values for data, values in errors.items() if kinds[data] == kind] for kind in KINDS}
    real = groups["table"] + groups["pixels"]
    groups = {"real": real, **groups}
    print(f"\n### n = {n}, all data sets: {', '.join(f'{len(group)} {name}' for name, group in groups.items())}\n")
    against = [f"{first} wins / ties / losses, real", "p, draws", "p, data sets"]
    of = ", real" if real else ""
    costs = [f"median s{of}", f"worst s{of}", f"predict s{of}", "chosen at an end", "not converged"]
    print_header(["model", *(f"rank, {name}" for name in groups), *against, *costs])
    ranks = [
        [f"{rank:.2f}" for rank in mean_ranks(group)] if group else ["-"] * len(models) for group in groups.values()
    ]
    for column, model in enumerate(models):
        against = ["-"] * 3
        if model != first:
            pairs = [values[:, [0, column]] for values in real]
            outcome, draws, sets = versus([pair for pair in pairs if not np.isnan(pair).any()])
            against = [" / ".join(map(str, outcome)), f"{draws:.2g}", f"{sets:.2g}"]
        mine = [row for row in results.rows if row["model"] == model and int(row["n"]) == n and not row["note"]]
        timed = [row for row in mine if not real or kinds[row["data"]] != "synthetic"]
        print_row([model, *(group[column] for group in ranks), *against, *_costs(timed), *_troubles(mine)])
    print(
        "\nRanks: mean over the data sets of the rank of the mean error; a model that was not fitted comes last.\n"
        "Wins: the mean difference over the seeds exceeds its standard error. p: Wilcoxon's signed-rank test of\n"
        "(a − b) / (a + b), over all draws and over the means of data sets; draws of one data set share samples, so\n"
        "the first is too small. Neither is corrected for the number of comparisons. At an end: how often a chosen\n"
        "value was the least or the largest to choose from."
    )


def _costs(rows):
    """Seconds of the fits."""
    if not rows:
        return ["-"] * 3
    seconds = [float(row["seconds"]) for row in rows]
    predict_seconds = [float(row["predict_seconds"]) for row in rows]
    return [f"{np.median(seconds):.3g}", f"{max(seconds):.3g}", f"{np.median(predict_seconds):.2g}"]


def _troubles(rows):
    """How often a chosen value lies at the end of its grid, and fits with a warning."""
    if not rows:
        return ["-"] * 2
    ends = Counter(name.rsplit("__", 1)[-1] for row in rows for name in row["at_end"].split())
    warned = sum(int(row["not_converged"]) > 0 for row in rows)
    return [
        ", ".join(f"{name} {count}" for name, count in ends.most_common()) + f" of {len(rows)}" if ends else "never",
        f"{warned} of {len(rows)}",
    ]


def mean_ranks(errors):
    """Mean rank of every model over data sets, of their mean errors over the seeds; NaN comes last."""
    means = np.array([values.mean(axis=0) for values in errors])
    return rankdata(np.where(np.isnan(means), np.inf, means), axis=1).mean(axis=0)


def versus(pairs):
    """The first model of two against the second, over data sets.

    Parameters
    ----------
    pairs : list of ndarray of shape (n_seeds, 2)
        Errors of both on the same draws, one array a data set.

    Returns
    -------
    outcome : (wins, ties, losses)
        A tie where the mean difference is within its standard error.
    draws, sets : float
        p of Wilcoxon's signed-rank test over all draws, and over the means of data sets.
    """
    signs = [standing(pair) for pair in pairs]
    outcome = signs.count(-1), signs.count(0), signs.count(1)
    return outcome, _p_value(pairs), _p_value([pair.mean(axis=0, keepdims=True) for pair in pairs])


def standing(pair):
    """−1 where the first error is lower by more than one standard error of the difference, 1 where higher, else 0."""
    difference = pair[:, 0] - pair[:, 1]
    error = difference.std(ddof=1) / math.sqrt(len(pair)) if len(pair) > 1 else 0.0
    return int(np.sign(difference.mean())) if abs(difference.mean()) > error else 0


def _p_value(pairs):
    """Of equal errors, by relative differences; NaN where there is none."""
    first, second = np.concatenate(pairs).T if pairs else np.zeros((2, 0))
    total = first + second
    relative = np.divide(first - second, total, out=np.zeros_like(total), where=total > 0.0)
    return float(wilcoxon(relative).pvalue) if relative.any() else math.nan


def _print_baseline(models, errors):
    """Where the first model is worse than ridge NTK."""
    if BASELINE not in models[1:]:
        return
    column = models.index(BASELINE)
    pairs = {data: values[:, [0, column]] for data, values in errors.items()}
    fitted = {data: pair for data, pair in pairs.items() if not np.isnan(pair).any()}
    worse = [
        f"{data} ({pair[:, 0].mean():.3g} against {pair[:, 1].mean():.3g})"
        for data, pair in fitted.items()
        if standing(pair) > 0
    ]
    print(
        f"\n{models[0]} is worse than {BASELINE} by more than one standard error on {len(worse)} of {len(fitted)} data "
        f"sets{': ' if worse else ''}{', '.join(worse)}."
    )


def _print_sample_sizes(results, kinds, level):
    """Samples that the first model and ridge NTK need for the same errors."""
    pair = results.models[0], BASELINE
    print("\n### samples for equal errors\n")
    print_header(["data", "error", *pair, "ratio", "error", *pair, "ratio"])
    for data in kinds:
        curves = [results.curve(data, model) for model in pair]
        if comparable(curves):
            cells = [data]
            for error in (common_error(curves), level):
                needed = [samples_for(*curve, error) for curve in curves]
                cells += [f"{error:.3g}", *(f"{sign}{n:.0f}" for sign, n in needed), ratio(*needed)]
            print_row(cells)
    print(
        "\nThe first error is the one that the worse of the two has at its largest size. Between sizes the logarithm\n"
        "of the error is linear in that of the samples."
    )


def comparable(curves):
    """Whether there are two sizes of each, all fits succeeded, and both come to be better than a constant."""
    sound = all(len(sizes) > 1 and np.isfinite(errors).all() for sizes, errors in curves)
    return sound and common_error(curves) < 1.0


def common_error(curves):
    """The lowest error that all curves come down to at their largest sizes."""
    return max(errors[-1] for _, errors in curves)


def samples_for(sizes, errors, level):
    """("", n) for the size at which a curve first comes down to a level; ("≤ ", first size) or ("> ", last size)."""
    if errors[0] <= level:
        return "≤ ", sizes[0]
    for (n, error), (more, less) in itertools.pairwise(zip(sizes, errors, strict=True)):
        if less <= level:
            share = math.log(error / level) / math.log(error / less) if less > 0.0 else 1.0
            return "", n * (more / n) ** share
    return "> ", sizes[-1]


def ratio(first, second):
    """Samples of the second over those of the first, a bound, or a dash where nothing is known."""
    at_least, at_most = first[0] == "≤ " or second[0] == "> ", first[0] == "> " or second[0] == "≤ "
    if at_least and at_most:
        return "-"
    return f"{'> ' * at_least}{'< ' * at_most}{second[1] / first[1]:.1f}×"


def draw(results, options):
    """Learning curves, one panel a data set; the first model, ridge NTK and the paper's model stand out."""
    curves = {data: {model: results.curve(data, model) for model in results.models} for data in options.data}
    curves = {data: lines for data, lines in curves.items() if lines[results.models[0]][0]}
    n_columns = max(1, min(_COLUMNS, len(curves)))
    figure, axes = new_figure(max(1, -(-len(curves) // n_columns)), n_columns)
    for ax, (data, lines) in itertools.zip_longest(axes.flat, curves.items(), fillvalue=(None, {})):
        if not lines:
            ax.axis("off")
            continue
        for number, (model, (sizes, errors)) in enumerate(lines.items()):
            stands_out = model in (results.models[0], BASELINE, "adaptive")
            style = f"C{number % 10}o{'-' if stands_out else '--' if number < 10 else ':'}"
            ax.plot(sizes, errors, style, label=model, markersize=4, linewidth=2.5 if stands_out else 1.0)
        ax.set(xscale="log", yscale="log", title=data + _title(results, data), xlabel="training samples")
        label_sizes(ax, sorted(set(itertools.chain.from_iterable(sizes for sizes, _ in lines.values()))))
        low, high = ax.get_ylim()
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:.2g}" if high < 10.0 * low else "")
        ax.grid(alpha=0.3)
    for ax in axes[:, 0]:
        ax.set_ylabel("test error")
    axes.flat[0].legend(fontsize="x-small", ncols=2)
    figure.savefig(options.plot, dpi=80)


def _title(results, data):
    """How many times the samples of the first model ridge NTK needs."""
    if BASELINE not in results.models[1:]:
        return ""
    curves = [results.curve(data, model) for model in (results.models[0], BASELINE)]
    if not comparable(curves):
        return ""
    error = common_error(curves)
    return f"\n{BASELINE} needs {ratio(*(samples_for(*curve, error) for curve in curves))} the samples"
