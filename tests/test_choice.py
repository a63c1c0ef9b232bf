"""The choice by cross-validation: what it computes, by which rule it chooses, and that it does not fool itself."""

import gzip
import itertools
import os
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentClassifierCV,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
)
from lowrank_tangent.choice.chains import Chain, outcomes_of_rounds
from lowrank_tangent.choice.rule import judge
from lowrank_tangent.choice.screening import survivors, thinned
from lowrank_tangent.datasets import DATA_VARIABLE, make_gated, make_square
from lowrank_tangent.networks import MLP, InfiniteMLP
from lowrank_tangent.rounds import METRICS

SMALL = {"depths": [1], "biases": [1.0], "max_rounds": 2, "cv": 3}


@parametrize_with_checks(
    [
        model(**{**SMALL, "max_rounds": 1, "cv": 2})
        for model in (AdaptiveTangentRegressorCV, AdaptiveTangentClassifierCV)
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "leaving one out leaves out a sample of weight 2 as a whole"
    },
)
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)  # raises where it fails


@pytest.mark.parametrize(
    ("network", "sizes"), [(InfiniteMLP(2, "erf", 0.7), (np.inf, np.inf)), (MLP((24,), "erf", bias=0.7), (24,))]
)
@pytest.mark.parametrize("n_features", [5, 80])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_candidates_are_the_estimators(rng, network, sizes, n_features, weighted, fit_intercept):
    X, X_new = rng.standard_normal((40, n_features)), rng.standard_normal((15, n_features))
    # Of more features than samples only a signal that is linear can be found at all.
    Y = np.column_stack([X[:, 0] * X[:, 1], X.sum(axis=1) / n_features**0.5]) + 1.0
    weights = rng.uniform(0.5, 2.0, 40) if weighted else None
    moves = [("gradient", 30.0), ("coefficient", 3.0)]
    if isinstance(network, InfiniteMLP):
        smooth = ("diagonal", "function", "evidence", "relevance")
        moves = [*((metric, 30.0) for metric in smooth), *moves]
    for metric, adaptivity in moves:
        chain = outcomes_of_rounds(network, (metric, adaptivity), (X, Y, weights), X_new, "kl", fit_intercept, seed=0)
        outcomes = list(itertools.islice(chain, 3))
        model = AdaptiveTangentRegressor(
            sizes,
            "erf",
            bias=0.7,
            alpha="loo",
            adaptivity=0.0,
            penalty="kl",
            n_rounds=2,
            metric=metric,
            round_adaptivity=adaptivity,
            fit_intercept=fit_intercept,
            random_state=0,
        ).fit(X, Y, weights)
        np.testing.assert_allclose(outcomes[2].prediction, model.predict(X_new), atol=1e-6)
        errors = [outcome.leave_one_out_error for outcome in outcomes]
        np.testing.assert_allclose(errors, [round_.leave_one_out_error for round_ in model.rounds_], rtol=1e-6)


def test_a_direction_that_matters_is_found_and_scores_are_those_of_scikit_learn():
    X, y = make_square(900, 20, random_state=0)
    X, y, X_new, y_new = X[:200], y[:200], X[200:], y[200:]
    splitter = KFold(3, shuffle=True, random_state=0)
    model = AdaptiveTangentRegressorCV(depths=[1], biases=[1.0, 3.0], max_rounds=4, cv=splitter).fit(X, y)
    results = model.cv_results_
    assert len(results["params"]) == 2 * (1 + 2 * 4)
    ridge = [i for i, candidate in enumerate(results["params"]) if candidate["n_rounds"] == 0]
    assert len(ridge) == 2
    assert -model.best_score_ < 0.3 * np.min(-results["mean_test_score"][ridge])
    assert model.score(X_new, y_new) > 0.8
    for index in (ridge[0], model.best_index_):
        candidate = AdaptiveTangentRegressor(**results["params"][index], alpha="loo", adaptivity=0.0)
        scores = cross_val_score(candidate, X, y, cv=splitter, scoring="neg_mean_squared_error")
        np.testing.assert_allclose([results[f"split{k}_test_score"][index] for k in range(3)], scores, rtol=1e-5)
        assert results["mean_test_score"][index] == pytest.approx(scores.mean(), rel=1e-5)
    refitted = AdaptiveTangentRegressor(**model.best_params_, alpha="loo", adaptivity=0.0).fit(X, y)
    np.testing.assert_allclose(model.predict(X_new), refitted.predict(X_new), rtol=1e-9)
    np.testing.assert_allclose(model.transform(X_new), X_new @ model.input_transform_)
    np.testing.assert_allclose(model.kernel(X), refitted.kernel(X), rtol=1e-9)
    assert results["rank_test_score"][np.argmax(results["mean_test_score"])] == 1


def is_trap(results):
    """Whether leave-one-out would have chosen rounds, much in favour of them."""
    rounds = np.array([candidate["n_rounds"] for candidate in results["params"]])
    left_out = results["mean_leave_one_out_score"]
    return rounds[np.argmax(left_out)] > 0 and left_out.max() > 0.9 * left_out[rounds == 0].max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_that_have_seen_the_targets_do_not_fool_it(seed):
    # More features than samples and as much noise as signal: rounds learn the noise by heart.
    rng = np.random.default_rng(seed)
    X, w = rng.standard_normal((1120, 200)), rng.standard_normal(200) / np.sqrt(200)
    y = np.tanh(X @ w) + rng.standard_normal(1120)
    X, y, X_new, y_new = X[:120], y[:120], X[120:], y[120:]
    model = AdaptiveTangentRegressorCV(depths=[1], biases=[1.0], max_rounds=3).fit(X, y)
    results = model.cv_results_
    errors = [
        np.mean(
            (
                AdaptiveTangentRegressor(**results["params"][i], alpha="loo", adaptivity=0.0).fit(X, y).predict(X_new)
                - y_new
            )
            ** 2
        )
        for i in (0, np.argmax(results["mean_leave_one_out_score"]))
    ]
    assert results["params"][0]["n_rounds"] == 0
    assert is_trap(results)
    assert errors[1] > 1.05 * errors[0]
    assert model.best_params_["n_rounds"] == 0


@pytest.mark.skipif(
    not (Path(os.environ.get(DATA_VARIABLE, "")) / "cifar10" / "data_batch_1.bin.gz").exists(),
    reason=f"needs {DATA_VARIABLE} with cifar10/data_batch_1.bin.gz",
)
def test_pixels_of_natural_images_do_not_fool_it():
    with gzip.open(Path(os.environ[DATA_VARIABLE]) / "cifar10" / "data_batch_1.bin.gz") as file:
        records = np.frombuffer(file.read(), dtype=np.uint8).reshape(-1, 3073)
    chosen = np.random.default_rng(0).permutation(len(records))[:2500]
    pixels, labels = records[chosen, 1:] / 255.0, records[chosen, 0]
    X = (pixels - pixels[:500].mean(axis=0)) / pixels[:500].std()
    grid = {"depths": [2], "biases": [1.0], "adaptivities": [1.0, 100.0], "max_rounds": 2, "cv": 4, "refit": False}
    metrics = ["coefficient", "function", "diagonal", "evidence", "relevance"]
    model = AdaptiveTangentClassifierCV(**grid, metrics=metrics).fit(X[:500], labels[:500])
    assert is_trap(model.cv_results_)
    # What the candidates err on images that nothing has seen.
    targets = np.where(labels[:, None] == np.arange(10), 1.0, -1.0)
    variance = targets[:500].var(axis=0).sum()
    moves = [
        *itertools.product(metrics[:3], [1.0 / variance, 100.0 / variance]),
        *((name, None) for name in metrics[3:]),
    ]
    chains = [outcomes_of_rounds(InfiniteMLP(2), move, (X[:500], targets[:500], None), X[500:]) for move in moves]
    outcomes = [outcome for i, chain in enumerate(chains) for outcome in itertools.islice(chain, min(i, 1), 3)]
    errors = np.array([np.mean((outcome.prediction - targets[500:]) ** 2) for outcome in outcomes])
    assert len(errors) == len(model.cv_results_["params"])
    by_leave_one_out = np.argmin([outcome.leave_one_out_error for outcome in outcomes])
    assert errors[by_leave_one_out] > 1.02 * errors[0]
    assert errors[model.best_index_] < 1.002 * errors[0]


def test_the_rule_of_one_standard_error():
    def chosen(*errors):
        candidates = [{"n_rounds": rounds} for rounds, _ in errors]
        table = np.array([folds for _, folds in errors], dtype=float)
        results, index = judge(candidates, table, table)
        np.testing.assert_allclose(results["mean_excess"].min(), 0.0)
        # Errors of targets of another scale, whose squares would overflow.
        with np.errstate(over="raise"):
            huge, same = judge(candidates, 1e250 * table, 1e250 * table)
        assert same == index
        for name in ("std_test_score", "standard_error_of_excess"):
            np.testing.assert_allclose(huge[name], 1e250 * results[name], atol=1e235)
        np.testing.assert_allclose(results["std_test_score"], table.std(axis=1))
        return index

    # The same mean excess, 0.3: all folds agree, or one of them alone makes it.
    assert chosen((0, [1.3, 2.3, 3.3]), (2, [1.0, 2.0, 3.0])) == 1
    assert chosen((0, [1.0, 2.0, 3.9]), (2, [1.0, 2.0, 3.0])) == 0
    # Fewest rounds first, then the lowest error among them.
    assert chosen((3, [1.0, 1.0]), (1, [1.02, 1.0]), (1, [1.01, 1.0]), (2, [1.0, 1.0])) == 2
    assert chosen((0, [9.0, 9.0]), (1, [1.1, 1.1]), (3, [1.0, 1.0])) == 2
    # One fold has no standard error: the lowest error is chosen.
    assert chosen((0, [1.1]), (1, [1.0])) == 1


def test_rounds_of_a_classifier_have_to_lower_the_share_of_wrong_classes():
    def chosen(*wrong, errors=(2.0, 2.1, 1.0, 1.0)):
        candidates = [{"n_rounds": rounds} for rounds in (0, 0, 1, 2)]
        table = np.repeat(np.array(errors)[:, None], 3, axis=1)
        results, index = judge(candidates, table, table, np.array(wrong))
        np.testing.assert_allclose(results["mean_test_accuracy"], 1.0 - np.mean(wrong, axis=1))
        return index

    best, other = [0.2, 0.3, 0.4], [0.0, 0.0, 0.0]
    # One round has the lowest squared error with the fewest rounds. All folds agree on 0.1 less, or one alone makes it.
    assert chosen(best, other, [0.1, 0.2, 0.3], other) == 2
    assert chosen(best, other, [0.2, 0.3, 0.1], other) == 0
    assert chosen(best, other, best, other) == 0
    assert chosen(best, other, [0.3, 0.4, 0.5], other) == 0
    # Without rounds nothing but the squared error counts.
    assert chosen(best, other, other, other, errors=(1.0, 1.1, 2.0, 2.0)) == 0


def test_units_of_the_targets_do_not_matter():
    X, y = make_square(150, 8, noise=0.1, random_state=0)
    model = AdaptiveTangentRegressorCV(**SMALL, metrics=["function", "evidence"], adaptivities=100.0)
    one, other = (clone(model).fit(X, targets) for targets in (y, 1000.0 * y + 7.0))
    assert one.best_index_ == other.best_index_
    np.testing.assert_allclose(other.predict(X), 1000.0 * one.predict(X) + 7.0, rtol=1e-6, atol=1e-4)
    candidates = zip(one.cv_results_["params"], other.cv_results_["params"], strict=True)
    pairs = {(a["metric"], a["round_adaptivity"], b["round_adaptivity"]) for a, b in candidates}
    ratios = {metric: None if first is None else first / second for metric, first, second in pairs}
    assert ratios == {"function": pytest.approx(1e6), "evidence": None}


def test_groups_are_kept_together(rng):
    X, y = make_square(60, 4, random_state=0)
    groups = np.repeat(np.arange(6), 10)
    model = AdaptiveTangentRegressorCV(**{**SMALL, "cv": GroupKFold(6)}).fit(X, y, groups=groups)
    assert model.n_splits_ == 6
    # The folds are the groups: leaving group 0 out by hand gives the score of its fold.
    candidate = AdaptiveTangentRegressor(**model.cv_results_["params"][0], alpha="loo", adaptivity=0.0)
    folds = [test for _, test in GroupKFold(6).split(X, y, groups)]
    train = np.setdiff1d(np.arange(60), folds[0])
    error = np.mean((candidate.fit(X[train], y[train]).predict(X[folds[0]]) - y[folds[0]]) ** 2)
    assert model.cv_results_["split0_test_score"][0] == pytest.approx(-error, rel=1e-6)
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        AdaptiveTangentRegressorCV(**{**SMALL, "cv": GroupKFold(6)}).fit(X, y)


def test_weights_count_in_fits_and_errors(rng):
    X, y = make_square(60, 4, random_state=0)
    weights = rng.uniform(0.1, 3.0, 60)
    model = AdaptiveTangentRegressorCV(**SMALL).fit(X, y, weights)
    train, test = next(KFold(3).split(X))
    candidate = AdaptiveTangentRegressor(**model.cv_results_["params"][3], alpha="loo", adaptivity=0.0)
    prediction = candidate.fit(X[train], y[train], weights[train]).predict(X[test])
    error = np.average((prediction - y[test]) ** 2, weights=weights[test])
    assert model.cv_results_["split0_test_score"][3] == pytest.approx(-error, rel=1e-6)


def test_classes_and_splitters():
    X, values = make_square(400, 8, random_state=0)
    labels = np.where(values > 0.5, "far", np.where(values > -0.7, "between", "near"))
    model = AdaptiveTangentClassifierCV(**{**SMALL, "cv": ShuffleSplit(4, random_state=0)}).fit(X[:200], labels[:200])
    assert model.n_splits_ == 4
    np.testing.assert_array_equal(model.classes_, ["between", "far", "near"])
    assert isinstance(model.best_estimator_, AdaptiveTangentClassifier)
    assert model.decision_function(X[:5]).shape == (5, 3)
    np.testing.assert_array_equal(model.predict(X), model.best_estimator_.predict(X))
    assert model.score(X[200:], labels[200:]) > 0.55
    candidate = AdaptiveTangentClassifier(**model.cv_results_["params"][-1], alpha="loo", adaptivity=0.0)
    scores = cross_val_score(candidate, X[:200], labels[:200], cv=ShuffleSplit(4, random_state=0))
    assert model.cv_results_["mean_test_accuracy"][-1] == pytest.approx(scores.mean())
    two = AdaptiveTangentClassifierCV(**SMALL).fit(X[:200], labels[:200] == "far")
    assert two.decision_function(X[:5]).shape == (5,)


def test_several_outputs_and_finite_width():
    X, y = make_square(90, 4, random_state=0)
    Y = np.column_stack([y, X[:, 0]])
    model = AdaptiveTangentRegressorCV(**{**SMALL, "widths": [16, np.inf]}, adaptivities=[100.0], random_state=0).fit(
        X, Y
    )
    sizes = {candidate["hidden_layer_sizes"] for candidate in model.cv_results_["params"]}
    assert sizes == {(16,), (np.inf,)}
    tried = {(candidate["hidden_layer_sizes"][0], candidate["metric"]) for candidate in model.cv_results_["params"]}
    finite, infinite = ("coefficient", "gradient"), ("evidence", "relevance")
    assert tried == {(16, metric) for metric in finite} | {(np.inf, metric) for metric in infinite}
    # Networks have different numbers of candidates; errors went to those they are of.
    candidate = AdaptiveTangentRegressor(**model.cv_results_["params"][-1], alpha="loo", adaptivity=0.0)
    scores = cross_val_score(candidate, X, Y, cv=3, scoring="neg_mean_squared_error")
    assert model.cv_results_["mean_test_score"][-1] == pytest.approx(scores.mean(), rel=1e-5)
    assert model.predict(X[:7]).shape == (7, 2)
    assert model.score(X, Y) > 0.5


def test_rounds_go_on_while_they_help():
    X, y = make_gated(400, 12, random_state=0)
    metrics = ["coefficient", "function", "diagonal"]
    model = AdaptiveTangentRegressorCV(depths=[2], biases=[1.0], metrics=metrics, max_rounds=14, cv=3)
    model.fit(X[:200], y[:200])
    errors = defaultdict(dict)
    for candidate, score in zip(model.cv_results_["params"], model.cv_results_["mean_test_score"], strict=True):
        errors[candidate["metric"]][candidate["n_rounds"]] = -score
    for metric in ("function", "diagonal"):
        errors[metric][0] = errors["coefficient"][0]
    ends = {metric: max(chain) for metric, chain in errors.items()}
    for metric, chain in errors.items():
        values = [chain[n_rounds] for n_rounds in range(ends[metric] + 1)]
        assert ends[metric] == 14 or min(values[-4:]) >= 0.98 * min(values[:-4])
    assert min(ends.values()) < 14 == ends["diagonal"]
    assert model.best_params_["metric"] == "diagonal"
    assert model.best_params_["n_rounds"] > 8


def chains_of(results, keys=("hidden_layer_sizes", "bias", "metric")):
    """Of every candidate its network and metric, and its number of rounds."""
    return [(tuple(candidate[key] for key in keys), candidate["n_rounds"]) for candidate in results["params"]]


def test_a_first_run_on_few_samples_leaves_the_best_quarter_of_the_chains():
    X, y = make_square(1000, 10, random_state=0)
    X, y, X_new, y_new = X[:300], y[:300], X[300:], y[300:]
    splits = list(KFold(2, shuffle=True, random_state=0).split(X))
    options = {"max_rounds": 4, "cv": splits, "refit": False}
    everything = AdaptiveTangentRegressorCV(**options, screening_samples=None).fit(X, y)
    assert everything.screening_results_ is None
    model = AdaptiveTangentRegressorCV(**{**options, "refit": True}, screening_samples=75).fit(X, y)
    first = model.screening_results_
    assert len(first["params"]) == 8
    assert list(np.flatnonzero(first["kept"])) == sorted(np.argsort(-first["mean_test_score"])[:2])
    # What is left has the errors that it has without screening; ridge NTK of every network is left.
    known = dict(zip(chains_of(everything.cv_results_), everything.cv_results_["mean_test_score"], strict=True))
    found = dict(zip(chains_of(model.cv_results_), model.cv_results_["mean_test_score"], strict=True))
    good = {chain for (chain, _), kept in zip(chains_of(first), first["kept"], strict=True) if kept}
    assert {chain for chain, n_rounds in found if n_rounds > 0} == good
    assert {chain[:2] for chain, n_rounds in found if n_rounds == 0} == {chain[:2] for chain, _ in chains_of(first)}
    for (chain, n_rounds), score in found.items():
        same = [known[c, r] for c, r in known if r == n_rounds and (c == chain or (r == 0 and c[:2] == chain[:2]))]
        assert same == pytest.approx([score], rel=1e-9)
    assert model.best_params_["n_rounds"] > 0
    assert model.score(X_new, y_new) > 0.9
    # Errors of the first run, by the estimators.
    few = thinned(splits, 75)
    index = int(np.argmax(first["mean_test_score"]))
    candidate = AdaptiveTangentRegressor(**first["params"][index], alpha="loo", adaptivity=0.0)
    scores = cross_val_score(candidate, X, y, cv=few, scoring="neg_mean_squared_error")
    assert first["mean_test_score"][index] == pytest.approx(scores.mean(), rel=1e-5)


def test_few_samples_on_which_no_rounds_gain_leave_all_chains(rng):
    X, y = rng.standard_normal((120, 8)), rng.standard_normal(120)
    model = AdaptiveTangentRegressorCV(depths=[1], max_rounds=2, cv=2, screening_samples=20, refit=False).fit(X, y)
    assert model.screening_results_["kept"].tolist() == [True] * 4
    assert len(model.cv_results_["params"]) == 2 * (1 + 2 * 2)


@pytest.mark.parametrize("samples", [None, 31, 60])
def test_no_first_run_where_it_saves_little(samples):
    X, y = make_square(90, 4, random_state=0)
    model = AdaptiveTangentRegressorCV(depths=[1], max_rounds=1, cv=3, screening_samples=samples, refit=False).fit(X, y)
    assert model.screening_results_ is None


def test_samples_of_the_first_run_are_training_samples_that_count(rng):
    weights = np.where(rng.uniform(size=100) < 0.3, 0.0, rng.uniform(size=100))
    splits = list(KFold(4, shuffle=True, random_state=0).split(np.zeros(100)))
    few = thinned(splits, 20, weights)
    for (train, test), (some, same), (again, _) in zip(splits, few, thinned(splits, 20, weights), strict=True):
        assert len(set(some)) == 20
        assert set(some) <= set(train)
        assert (weights[some] > 0.0).all()
        assert np.array_equal(test, same)
        assert np.array_equal(some, again)
    assert all(len(train) == 75 for train, _ in thinned(splits, 80))


def test_splits_may_be_lists_or_masks(rng):
    X, y = make_square(90, 4, random_state=0)
    weights = rng.uniform(size=90)
    indices = list(KFold(2, shuffle=True, random_state=0).split(X))
    masks = [tuple(np.isin(np.arange(90), part) for part in split) for split in indices]
    lists = [tuple(map(list, split)) for split in indices]
    options = {"depths": [1], "max_rounds": 1, "screening_samples": 20, "refit": False}
    found = [AdaptiveTangentRegressorCV(cv=cv, **options).fit(X, y, weights) for cv in (indices, masks, lists)]
    for other in found[1:]:
        np.testing.assert_array_equal(
            other.screening_results_["mean_test_score"], found[0].screening_results_["mean_test_score"]
        )
        np.testing.assert_array_equal(other.cv_results_["mean_test_score"], found[0].cv_results_["mean_test_score"])


def test_networks_without_a_good_chain_are_left_as_ridge_ntk():
    one, two = InfiniteMLP(1), InfiniteMLP(2)
    chains = [Chain(network, (metric, None), 24) for network in (one, two) for metric in ("evidence", "relevance")]
    errors = [np.array(values) for values in ([1.0, 0.4], [1.0, 0.9, 0.3], [1.0, 0.8], [1.0, 1.0])]
    remaining, kept = survivors(chains, errors)
    assert kept.tolist() == [True, True, False, False]
    assert remaining == [*chains[:2], chains[2].without_rounds()]
    remaining, kept = survivors(chains, [values[:1] for values in errors])
    assert (remaining, kept.tolist()) == (chains, [True] * 4)


def test_without_rounds_it_chooses_among_ridge_ntks():
    X, y = make_square(60, 4, random_state=0)
    model = AdaptiveTangentRegressorCV(depths=[1, 2], activations=["relu", "erf"], biases=[1.0], max_rounds=0).fit(X, y)
    assert [candidate["n_rounds"] for candidate in model.cv_results_["params"]] == [0] * 4
    assert model.best_index_ == np.argmax(model.cv_results_["mean_test_score"])
    assert len(model.best_estimator_.rounds_) == 1


def test_cost_is_said_up_front_and_progress_shown(caplog, capsys):
    X, y = make_square(40, 3, random_state=0)
    with caplog.at_level("INFO", logger="lowrank_tangent"):
        AdaptiveTangentRegressorCV(**SMALL, verbose=1).fit(X, y)
    assert "among up to 5 candidates: up to 18 ridge regressions in 3 folds, of up to 27 samples each" in caplog.text
    assert "2/2" in capsys.readouterr().err
    AdaptiveTangentRegressorCV(**SMALL).fit(X, y)
    assert capsys.readouterr().err == ""


def test_targets_that_no_fit_takes_are_refused_before_the_choice():
    X, y = make_square(40, 3, random_state=0)
    with pytest.raises(ValueError, match="the largest value of y is"):
        AdaptiveTangentRegressorCV(**SMALL, refit=False).fit(X, 1e120 * y)


@pytest.mark.parametrize("fitted_before", [True, False])
def test_without_refit_there_is_a_choice_but_no_model(fitted_before):
    X, y = make_square(40, 3, random_state=0)
    model = AdaptiveTangentRegressorCV(**SMALL)
    if fitted_before:
        model.fit(X, -y)
    model.set_params(refit=False).fit(X, y)
    assert set(model.best_params_) >= {"hidden_layer_sizes", "metric", "n_rounds"}
    for use in (model.predict, model.kernel, model.initial_kernel):
        with pytest.raises(NotFittedError, match="with refit=False it has no model to predict with"):
            use(X)
    for use in (lambda: model.transform(X), lambda: model.input_transform_):
        with pytest.raises(NotFittedError):
            use()
    assert not hasattr(model, "feature_importances_")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        AdaptiveTangentRegressorCV().predict(X)


def test_inputs_are_left_alone_where_the_folds_want_no_rounds(rng):
    X = rng.standard_normal((80, 4))
    model = AdaptiveTangentRegressorCV(**SMALL).fit(X, X.sum(axis=1) + 0.5 * rng.standard_normal(80))
    assert model.best_params_["n_rounds"] == 0
    np.testing.assert_array_equal(model.input_transform_, np.eye(4))
    X, y = make_square(200, 4, random_state=0)
    model.fit(X, y)
    assert model.best_params_["n_rounds"] > 0
    np.testing.assert_array_equal(model.input_transform_, model.best_estimator_.input_transform_)


def test_samples_without_weight_are_not_there(rng):
    X, y = make_square(60, 3, noise=0.3, random_state=0)
    weights = rng.uniform(0.5, 2.0, 60)
    weights[rng.permutation(60)[:15]] = 0.0
    kept = np.flatnonzero(weights)
    splits = [(kept[kept % 3 != fold], kept[kept % 3 == fold]) for fold in range(3)]
    fewer = [tuple(np.searchsorted(kept, part) for part in split) for split in splits]
    model = AdaptiveTangentRegressorCV(**{**SMALL, "cv": splits}).fit(X, y, weights)
    expected = AdaptiveTangentRegressorCV(**{**SMALL, "cv": fewer}).fit(X[kept], y[kept], weights[kept])
    assert model.best_params_ == expected.best_params_
    np.testing.assert_allclose(model.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-6)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), atol=1e-5)


def test_data_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    X, y = make_square(40, 3, random_state=0)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AdaptiveTangentRegressorCV(**SMALL).fit(frame, y)
        expected = model.predict(frame)
        np.testing.assert_allclose(model.best_estimator_.predict(frame), expected)
        np.testing.assert_allclose(model.kernel(frame), model.best_estimator_.kernel(frame))
    np.testing.assert_array_equal(model.best_estimator_.feature_names_in_, ["a", "b", "c"])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a", "c"]])


@pytest.mark.parametrize(
    ("model", "y"), [(AdaptiveTangentRegressorCV, [0.1, 0.2, 0.4]), (AdaptiveTangentClassifierCV, ["a", "b", "a"])]
)
def test_too_few_samples_for_the_folds(model, y):
    with pytest.raises(ValueError, match=r"cv=None \(5 folds\) cannot split these 3 samples.*Give fewer folds"):
        model().fit(np.eye(3), y)


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        ({"penalty": "kl"}, ["penalty"]),
        ({"adaptivities": (1e-3,)}, ["adaptivities"]),
        ({"penalty": "kl", "adaptivities": 5.0}, ["adaptivities", "penalty"]),
        ({"penalty": "kl", "metrics": ["evidence", "gradient"]}, []),
        ({"penalty": "kl", "widths": 8}, []),
        ({"adaptivities": [300.0], "penalty": "power"}, []),
        ({"max_rounds": 0, "metrics": "gradient", "adaptivities": 5.0}, ["metrics", "adaptivities"]),
    ],
)
def test_what_makes_no_difference_is_warned_of(arguments, unused):
    X, y = make_square(40, 3, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AdaptiveTangentRegressorCV(**{**SMALL, **arguments}, refit=False, random_state=0).fit(X, y)
    assert [str(one.message).split("=")[0] for one in caught] == unused
    assert all("makes no difference to any candidate" in str(one.message) for one in caught)
    assert {one.filename for one in caught} <= {__file__}


def test_one_value_is_a_choice_of_one():
    X, y = make_square(40, 3, random_state=0)
    names = {"depths": 1, "widths": np.inf, "activations": "erf", "biases": 2.0, "metrics": "function"}
    names["adaptivities"] = 50.0
    one, listed = (
        AdaptiveTangentRegressorCV(**grid, max_rounds=1, cv=2).fit(X, y)
        for grid in (names, {name: [value] for name, value in names.items()})
    )
    assert one.cv_results_["params"] == listed.cv_results_["params"]
    assert one.best_params_["metric"] == "function"
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], listed.cv_results_["mean_test_score"])
    AdaptiveTangentRegressorCV(**{**SMALL, "metrics": METRICS["gradient"], "widths": np.int64(8)}).fit(X, y)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["judge", "AdaptiveTangentClassifierCV._refit"])
def test_a_fit_that_fails_leaves_the_model_as_it_was(monkeypatch, failure, where):
    X, y = make_square(60, 4, random_state=0)
    labels = np.where(y > 0.0, "far", "near")
    model = AdaptiveTangentClassifierCV(**SMALL).fit(X, labels)
    before, proba = dict(vars(model)), model.predict_proba(X)

    def fail(*arguments):
        raise failure

    with monkeypatch.context() as patch:
        module = "choosing" if where == "judge" else "chosen"
        patch.setattr(f"lowrank_tangent.estimators.{module}.{where}", fail)
        with pytest.raises(failure):
            model.fit(X[:, :3], y > 1.0)
        first = clone(model)
        with pytest.raises(failure):
            first.fit(X, labels)
    assert vars(model) == before
    np.testing.assert_array_equal(model.predict_proba(X), proba)
    assert set(model.predict(X)) == {"far", "near"}
    with pytest.raises(NotFittedError, match="not fitted yet"):
        first.predict(X)


def test_an_error_that_is_no_number_is_named():
    table = np.ones((2, 3))
    table[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"candidate \{'n_rounds': 1\} has errors .* they have to be finite"):
        judge([{"n_rounds": 0}, {"n_rounds": 1}], table, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"depths": []}, ValueError, r"depths must be a non-empty sequence of values to choose from; got \[\]"),
        ({"metrics": ["other"]}, ValueError, r"metrics must be one of \['coefficient', 'diagonal', .*got 'other'"),
        ({"metrics": []}, ValueError, "metrics must be a non-empty sequence"),
        ({"metrics": ["diagonal"], "widths": [8]}, ValueError, "metrics: 'diagonal' is for networks of infinite width"),
        ({"depths": [0]}, ValueError, "depths == 0, must be >= 1"),
        ({"depths": [1.5]}, TypeError, "depths must be an instance of int"),
        ({"widths": [0]}, ValueError, "positive integers"),
        ({"activations": ["gelu"]}, ValueError, r"one of \['erf', 'relu'\] at infinite width"),
        ({"biases": [-1.0]}, ValueError, "bias must be"),
        ({"adaptivities": [0.0]}, ValueError, "adaptivities must be a finite number > 0"),
        ({"max_rounds": -1}, ValueError, "max_rounds == -1, must be >= 0"),
        ({"screening_samples": 1}, ValueError, "screening_samples == 1, must be >= 2"),
        ({"screening_samples": 0.5}, TypeError, "screening_samples must be an instance of int"),
        ({"penalty": "lasso"}, ValueError, "penalty must be one of"),
        ({"cv": 100}, ValueError, "Cannot have number of splits n_splits=100 greater than the number of samples"),
    ],
)
def test_bad_parameters_are_refused(arguments, error, message):
    X, y = make_square(30, 3, random_state=0)
    with pytest.raises(error, match=message):
        AdaptiveTangentRegressorCV(**{**SMALL, **arguments}).fit(X, y)
