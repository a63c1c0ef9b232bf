"""Problems and references that several test files share."""

import csv
import fnmatch
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lowrank_tangent.operators import LayerFactors, TangentOperator

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


#: Tests of more than some two seconds whose kind a quicker one covers too: they are marked slow. `*` is anything.
SLOW = (
    "test_benchmarks.py::test_large_problems_take_the_same_fits_in_batches*",
    "test_benchmarks.py::test_a_slower_version_is_found",
    "test_benchmarks.py::test_deep_networks_layer_by_layer",
    "test_benchmarks.py::test_error_curves_go_on_where_they_ended",
    "test_benchmarks.py::test_growth_measures_every_point_once",
    "test_benchmarks.py::test_screening_is_compared_on_the_same_samples",
    "test_benchmarks.py::test_solvers_agree_within_their_gaps[[]scs*",
    "test_benchmarks.py::test_wider_grids_offer_what_they_say",
    "test_choice.py::test_pixels_of_natural_images_do_not_fool_it",
    "test_choice.py::test_features_that_have_seen_the_targets_do_not_fool_it[[][12]*",
    "test_choice_processes.py::test_processes_end_with_their_parent",
    "test_classes.py::test_certain_classes_take_few_products",
    "test_classes.py::test_a_step_that_fails_is_tried_with_a_fresh_preconditioner[[]network-*",
    "test_custom_prices.py::test_no_bound_is_above_the_optimum_where_convexity_is_claimed_wrongly[[]price1-*",
    "test_custom_prices.py::test_no_dual_point_is_above_the_optimum_with_a_kink[[]0.1*",
    "test_equivalence.py::test_both_problems_have_one_value_and_one_prediction[[]interpolation-*-two layers-*",
    "test_equivalence.py::test_both_problems_have_one_value_and_one_prediction[[]interpolation-3-*",
    "test_equivalence.py::test_both_problems_have_one_value_and_one_prediction[[]interpolation-1-one layer-Joint*",
    "test_equivalence.py::test_the_nuclear_norm_gives_unused_directions_up",
    "test_estimators.py::test_every_penalty_by_name_or_instance[[]network-*",
    "test_estimators.py::test_every_penalty_by_name_or_instance[[]shared-schatten*",
    "test_interpolation.py::test_of_several_starts_one_that_meets_the_constraint_is_kept[[]None-*",
    "test_model_selection.py::test_every_point_of_a_path_is_the_solution_from_scratch[[]penalty2*",
    "test_jit.py::test_the_next_process_compiles_nothing",
    "test_jit.py::test_the_package_works_where_it_cannot_be_written",
    "test_multinomial.py::test_solvers_find_the_value_of_the_conic_program[[]proximal-*-network-*",
    "test_multinomial.py::test_scikit_learn_compatibility[[]*solver='proximal'*check_classifiers_train*",
    "test_multinomial.py::test_scikit_learn_compatibility[[]*solver='proximal'*check_sample_weight*",
    "test_penalties.py::test_prox_is_the_global_minimiser_of_its_definition[[]*-JointPenalty(CustomPenalty*",
    "test_penalties.py::test_the_search_for_global_minima_is_not_idle",
    "test_penalties.py::test_prox_of_a_convex_penalty_is_found_by_brute_force[[]JointPenalty*",
    "test_penalties.py::test_proposition_three[[]JointPenalty(CustomPenalty*",
    "test_reweighted.py::test_proximal_gradient_finds_the_same_kind_of_point[[]JointPenalty*",
    "test_reweighted.py::test_an_alpha_that_drowns_in_the_rounding_of_the_kernel[[]*-Joint*",
    "test_samples.py::test_ten_outputs_of_infinite_width_are_written_in_the_samples",
    "test_reweighted.py::test_reweighted_reaches_a_stationary_point[[]network-*-Custom*",
    "test_reweighted.py::test_reweighted_reaches_a_stationary_point[[]shared-3-Custom*",
    "test_small_data.py::test_models_of_small_data_learn*",
    "test_small_data.py::test_small_data_go_on_where_they_ended",
    "test_small_data.py::test_the_papers_model_is_chosen_by_halving_where_there_are_many_samples",
    "test_span.py::test_points_without_a_step_are_solutions[[]multinomial-3*",
    "test_streaming.py::test_classifier_on_streams_and_in_single_precision[[]settings0-*-multinomial*",
    "test_streaming.py::test_classifier_on_streams_and_in_single_precision[[]settings2-*",
)


def pytest_collection_modifyitems(items):
    """Mark the slow tests."""
    for item in items:
        name = item.nodeid.split("/", 1)[-1]
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in SLOW):
            item.add_marker(pytest.mark.slow)


def dense_matrix(operator):
    """The n·C × P matrix of an operator by explicit loops over its definition: the reference for all products."""
    n, C = operator.n_samples, operator.n_outputs
    rows = np.zeros((n, C, sum(p * q for p, q in operator.coef_shapes)))
    for i in range(n):
        for c in range(C):
            parts = []
            for layer, (p, width) in zip(operator.layers, operator.coef_shapes, strict=True):
                feature = np.zeros((p, width))
                q = layer.delta.shape[3]
                for t in range(layer.h.shape[1]):
                    if operator.outputs == "shared":
                        feature[:, c * q : (c + 1) * q] += np.outer(layer.h[i, t], layer.delta[i, 0, t])
                    else:
                        feature += np.outer(layer.h[i, t], layer.delta[i, c, t])
                parts.append(feature.ravel())
            rows[i, c] = np.concatenate(parts)
    if operator.row_scale is not None:
        rows *= operator.row_scale[:, None, None]
    if operator.centred:
        unit = np.ones(n) if operator.row_scale is None else operator.row_scale
        unit = unit / np.linalg.norm(unit)
        rows -= np.einsum("i,j,jcp->icp", unit, unit, rows)
    return rows.reshape(n * C, -1)


def flat(coefs):
    """Coefficients of all layers in the order of the columns of `dense_matrix`."""
    return np.concatenate([np.ravel(coef) for coef in coefs])


def random_operator(rng, n, shapes, outputs="network", n_outputs=1, positions=1):
    """Operator with Gaussian factors of unit-variance features; `shapes` lists (p, q) of each layer."""
    network_outputs = n_outputs if outputs == "network" else 1
    layers = [
        LayerFactors(
            rng.standard_normal((n, positions, p)) / np.sqrt(p * positions),
            rng.standard_normal((n, network_outputs, positions, q)) / np.sqrt(q),
        )
        for p, q in shapes
    ]
    return TangentOperator(layers, outputs, n_outputs if outputs == "shared" else None)


def low_rank_target(rng, operator, noise=0.1):
    """Targets from coefficients of rank one in every layer, plus noise."""
    coefs = [np.outer(rng.standard_normal(p), rng.standard_normal(q)) for p, q in operator.coef_shapes]
    signal = operator.matvec(coefs)
    signal /= signal.std()
    return signal + noise * rng.standard_normal(signal.shape)


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_worker():
    """Workers of pytest-xdist share the cores: threads of theirs would only wait for each other."""
    with threadpool_limits(1 if "PYTEST_XDIST_WORKER" in os.environ else None):
        yield


@pytest.fixture
def rng():
    """Seeded generator."""
    return np.random.default_rng(0)


@pytest.fixture
def load(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def rows_of(load, monkeypatch, tmp_path):
    """Run a benchmark in this process: the rows of its CSV file."""

    def rows_of(name, *arguments):
        table = tmp_path / f"{name}.csv"
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--csv", str(table)])
        load(name).main()
        with table.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return rows_of


@pytest.fixture
def run(rows_of, tmp_path):
    """Run a benchmark in this process: the rows of its CSV file and the picture it drew."""
    pytest.importorskip("matplotlib")

    def run(name, *arguments):
        picture = tmp_path / f"{name}.png"
        return rows_of(name, *arguments, "--plot", picture), picture

    return run


def tables_in(printed):
    """Cells of the lines of markdown tables, without their rules."""
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}
