"""Folds that leak nothing, and what is said where samples cannot be split."""

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lowrank_tangent import AdaptiveTangentClassifierCV, AdaptiveTangentRegressorCV
from lowrank_tangent.choice.splits import splits_of
from lowrank_tangent.datasets import make_square

SMALL = {"depths": 1, "biases": 1.0, "max_rounds": 1}


@pytest.fixture
def copied(rng):
    """20 samples, three copies of each, shuffled; which is a copy of which."""
    rows, order = rng.standard_normal((20, 3)), rng.permutation(60)
    return np.repeat(rows, 3, axis=0)[order], np.repeat(np.arange(20), 3)[order]


@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("cv", [None, 4, KFold(4), ShuffleSplit(3, random_state=0), StratifiedKFold(3)])
@pytest.mark.parametrize("listed", [True, False])
def test_copies_never_stand_on_both_sides(copied, classifier, cv, listed):
    X, number = copied
    y = number % 2
    if listed and hasattr(cv, "split"):
        cv = list(cv.split(X, y))
    splits = splits_of(cv, X, y, None, None, classifier)
    for train, test in splits:
        assert len(train) > 0 < len(test)
        assert not set(number[train]) & set(number[test])
    if cv is None or cv == 4:
        assert sorted(np.concatenate([test for _, test in splits])) == list(range(60))
        assert all(len(train) + len(test) == 60 for train, test in splits)
        assert all(len(test) == 60 // len(splits) for _, test in splits)
    if cv is None and classifier:
        assert all(y[test].mean() == 0.5 for _, test in splits)


def test_without_copies_splits_are_those_of_scikit_learn(rng):
    X, y = rng.standard_normal((30, 3)), np.arange(30) % 3
    for cv, classifier, expected in (
        (None, True, StratifiedKFold(5)),
        (3, False, KFold(3)),
        (KFold(2), True, KFold(2)),
    ):
        for found, pair in zip(splits_of(cv, X, y, None, None, classifier), expected.split(X, y), strict=True):
            np.testing.assert_array_equal(found[0], pair[0])
            np.testing.assert_array_equal(found[1], pair[1])


@pytest.mark.parametrize("classifier", [True, False])
def test_a_number_of_folds_keeps_groups_together(rng, classifier):
    X, y, groups = rng.standard_normal((60, 3)), np.arange(60) % 2, rng.integers(0, 12, 60)
    X[7] = X[31]
    groups[7], groups[31] = 0, 5
    for train, test in splits_of(3, X, y, groups, None, classifier):
        assert not set(groups[train]) & set(groups[test])


def test_copies_do_not_make_noise_look_like_a_law(rng):
    # Targets without any law, and the same for every copy: with leaks the training samples are found by heart.
    X, y = rng.standard_normal((40, 4)), rng.standard_normal(40)
    order = rng.permutation(120)
    X, y = np.tile(X, (3, 1))[order], np.tile(y, 3)[order]
    model = AdaptiveTangentRegressorCV(**SMALL, cv=KFold(4, shuffle=True, random_state=0), refit=False).fit(X, y)
    assert -model.best_score_ > 0.7 * y.var()
    left_out = -model.cv_results_["mean_leave_one_out_score"][0]
    assert left_out > 0.7 * y.var()
    chosen = AdaptiveTangentRegressorCV(**SMALL).fit(X, y).best_estimator_
    assert chosen.alpha_ > 1.0


def test_copies_are_told_of_once(copied, caplog):
    X, _ = copied
    with caplog.at_level("INFO", logger="lowrank_tangent"):
        AdaptiveTangentRegressorCV(**SMALL, cv=3, refit=False).fit(X, X[:, 0])
    assert caplog.text.count("40 of 60 rows of X are copies of others") == 1


def test_groups_reach_leave_one_out_of_the_chosen_model(rng):
    # Near copies: nothing but the groups says that they are.
    X, noise = np.repeat(rng.standard_normal((40, 4)), 3, axis=0), np.repeat(rng.standard_normal(40), 3)
    X, groups = X + 0.01 * rng.standard_normal(X.shape), np.repeat(np.arange(40), 3)
    plain, grouped = (AdaptiveTangentRegressorCV(**SMALL).fit(X, noise, groups=g) for g in (None, groups))
    assert plain.best_estimator_.alpha_ < 1e-3
    assert grouped.best_estimator_.alpha_ > 1.0
    assert -grouped.best_score_ > 0.7 * noise.var()


@pytest.mark.parametrize(
    ("cv", "groups", "message"),
    [
        (GroupKFold(3), None, r"'groups' parameter should not be None.* fit\(X, y, groups=labels\)"),
        (LeaveOneGroupOut(), None, r"Give the groups that it keeps together.* fit\(X, y, groups=labels\)"),
        (GroupKFold(3), np.zeros(20), r"groups must hold one label for each of the 30 samples; got shape \(20,\)"),
        (GroupKFold(5), np.arange(30) % 3, r"There are 3 groups: give as many folds, n_splits=3, or finer groups"),
        (4, np.arange(30) % 3, r"There are 3 groups: give as many folds, n_splits=3, or finer groups"),
        (LeaveOneGroupOut(), np.zeros(30), "All samples are of one group, and nothing is left to train on"),
        (40, None, r"n_splits=40 greater than the number of samples.*Give fewer folds \(cv=2\)"),
        (1, None, "Give a number of folds, as cv=5, a splitter"),
        ("five", None, "Give a number of folds, as cv=5, a splitter"),
        ([], None, "makes 0 folds"),
        ([(np.arange(10), [])], None, "no samples to train on or to predict in 1 of them"),
    ],
)
def test_every_cause_has_its_remedy(cv, groups, message):
    X, y = make_square(30, 3, random_state=0)
    with pytest.raises(ValueError, match=message) as error:
        AdaptiveTangentRegressorCV(**SMALL, cv=cv).fit(X, y, groups=groups)
    assert ("fewer folds" in str(error.value)) == (cv == 40)


def test_too_few_samples_of_a_class_and_too_few_that_differ(rng):
    X, y = rng.standard_normal((12, 2)), np.repeat(np.arange(4), 3)
    with pytest.raises(
        ValueError, match=r"Every class has fewer samples than there are folds.*does not stratify \(KFold"
    ):
        AdaptiveTangentClassifierCV(**SMALL, cv=4).fit(X, y)
    with pytest.raises(
        ValueError, match=r"cannot split these 24 samples: .* 3 of them are different. Give fewer folds"
    ):
        AdaptiveTangentRegressorCV(**SMALL).fit(np.repeat(X[:3], 8, axis=0), np.arange(24.0))


def test_splits_that_come_once_are_listed_once():
    X, y = make_square(40, 3, random_state=0)
    model = AdaptiveTangentRegressorCV(**SMALL, cv=KFold(3).split(X))
    first = model.fit(X, y).cv_results_["mean_test_score"]
    assert model.get_metadata_routing() is not None
    np.testing.assert_array_equal(model.fit(X, y).cv_results_["mean_test_score"], first)
    with pytest.raises(ValueError, match="the largest value of y"):
        model.fit(X, 1e120 * y)
    np.testing.assert_array_equal(model.fit(X, y).cv_results_["mean_test_score"], first)
    again = KFold(4).split(X)
    assert model.set_params(cv=again).fit(X, y).n_splits_ == 4


def test_a_fold_without_weight_is_left_out(rng):
    X, y = make_square(60, 4, random_state=0)
    weights = rng.uniform(0.1, 3.0, 60)
    weights[:20] = 0.0
    model = AdaptiveTangentRegressorCV(**SMALL, cv=KFold(3)).fit(X, y, weights)
    others = [(train, test) for train, test in KFold(3).split(X) if test[0] >= 20]
    expected = AdaptiveTangentRegressorCV(**SMALL, cv=others).fit(X, y, weights)
    assert model.n_splits_ == 2
    np.testing.assert_array_equal(model.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    only = np.where(np.arange(60) < 20, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"every fold has samples of weight 0 alone.*KFold\(5, shuffle=True\)"):
        AdaptiveTangentRegressorCV(**SMALL, cv=KFold(3)).fit(X, y, only)


def test_meta_estimators_hand_groups_to_the_splitter():
    X, y = make_square(60, 4, random_state=0)
    groups = np.repeat(np.arange(6), 10)
    seen = []

    class Recorded(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(set(groups))
            return super().split(X, y, groups)

    with sklearn.config_context(enable_metadata_routing=True):
        model = AdaptiveTangentRegressorCV(**SMALL, cv=Recorded(2))
        make_pipeline(StandardScaler(), model).fit(X, y, groups=groups)
        cross_validate(model, X, y, params={"groups": groups}, cv=GroupKFold(2), error_score="raise")
    assert [len(found) for found in seen] == [6, 3, 3]
    assert StratifiedGroupKFold(2).get_metadata_routing().split.requests == {"groups": True}
