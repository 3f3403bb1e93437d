"""The experiments by name: what runs them, what is noted about them, and the figures drawn from their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments import (
    accuracy_and_cost,
    beyond_quadratics,
    bilevel,
    derivative_iterates,
    dissipation,
    dynamics_gallery,
    figure_1,
    gradient_error,
    learning_to_optimize,
    neural_network,
    online_adaptation,
    real_data,
    sensitivity_orders,
    verification,
    where_it_breaks,
)
from figures import accuracy_and_cost as accuracy_and_cost_figure
from figures import beyond_quadratics as beyond_quadratics_figure
from figures import bilevel as bilevel_figure
from figures import derivative_iterates as derivative_iterates_figure
from figures import dissipation as dissipation_figure
from figures import dynamics_gallery as dynamics_gallery_figure
from figures import figure_1a, figure_1b, figure_2a, figure_2b, figure_3, figure_5a, figure_5b
from figures import learned_flow as learned_flow_figure
from figures import neural_network as neural_network_figure
from figures import online_adaptation as online_adaptation_figure
from figures import real_data as real_data_figure
from figures import sensitivity_orders as sensitivity_orders_figure
from figures import where_it_breaks as where_it_breaks_figure
from odestop.sweeps import Runner

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Experiment:
    """What to run and what to draw.

    Attributes
    ----------
    run
        From a scale and a runner to tables by name.
    parameters
        The grids behind a scale, for the record.
    drawings
        Figures by name, each a function of the tables.
    scales
        What it can be run at.
    """

    run: Callable[[str, Runner], dict[str, pd.DataFrame]]
    parameters: Callable[[str], dict[str, Any]]
    drawings: dict[str, Callable[[Tables], Figure]] = field(default_factory=dict)
    scales: tuple[str, ...] = ("tiny", "quick", "paper")


def _draw_figure_3(tables: Tables, test_set: str) -> Figure:
    counts = tables["learning_to_optimize"]
    dimension = counts["dimension"].agg({"smaller": "min", "larger": "max"}[test_set])
    return figure_3.draw(
        tables["learning_to_optimize_curves"],
        counts,
        int(dimension),
        learning_to_optimize.THRESHOLD,
        learning_to_optimize.LEVEL_OF_F,
    )


EXPERIMENTS: dict[str, Experiment] = {
    "figure_1": Experiment(
        figure_1.run,
        lambda scale: {
            "eigenvalues": figure_1.EIGENVALUES,
            "x0": figure_1.START,
            "seed": None,
            "figure_1a": asdict(figure_1.TRAJECTORY_GRIDS[scale]),
            "figure_1b": asdict(figure_1.STOPPING_GRIDS[scale]),
        },
        {
            "figure_1a": lambda tables: figure_1a.draw(tables["figure_1a"]),
            "figure_1b": lambda tables: figure_1b.draw(tables["figure_1b"]),
        },
    ),
    "gradient_error": Experiment(
        gradient_error.run,
        lambda scale: {
            "condition_number": gradient_error.CONDITION_NUMBER,
            "largest_eigenvalue": 1.0,
            "x0": "ones",
            "stored_matrix_up_to_dimension": gradient_error.LARGEST_STORED_DIMENSION,
            **asdict(gradient_error.GRIDS[scale]),
        },
        {
            "figure_2a": lambda tables: figure_2a.draw(tables["gradient_error"], tables["gradient_error_orders"]),
            "figure_2b": lambda tables: figure_2b.draw(tables["gradient_error"]),
            "figure_5a": lambda tables: figure_5a.draw(tables["gradient_error"]),
            "figure_5b": lambda tables: figure_5b.draw(tables["gradient_error"]),
        },
    ),
    "real_data": Experiment(
        real_data.run,
        lambda scale: {
            "data": "scikit-learn breast cancer",
            "regularization": real_data.REGULARIZATION,
            "x0": "zeros",
            "seed": None,
            **asdict(real_data.GRIDS[scale]),
        },
        {
            "real_data": lambda tables: real_data_figure.draw(tables["real_data"], tables["real_data_orders"]),
        },
    ),
    "dissipation": Experiment(
        dissipation.run,
        lambda scale: {
            "dimension": dissipation.DIMENSION,
            "condition_number": dissipation.CONDITION_NUMBER,
            "x0": "ones",
            "seed": 0,
            **asdict(dissipation.GRIDS[scale]),
        },
        {
            "dissipation": lambda tables: dissipation_figure.draw(tables["dissipation"]),
        },
    ),
    "sensitivity_orders": Experiment(
        sensitivity_orders.run,
        lambda scale: {
            "threshold": sensitivity_orders.THRESHOLD,
            "theta": sensitivity_orders.THETA,
            "x0": sensitivity_orders.START,
            "seed": None,
            **asdict(sensitivity_orders.GRIDS[scale]),
        },
        {
            "sensitivity_orders": lambda tables: sensitivity_orders_figure.draw(
                tables["sensitivity_orders"], tables["sensitivity_orders_fitted"]
            ),
        },
    ),
    "dynamics_gallery": Experiment(
        dynamics_gallery.run,
        lambda scale: {
            "threshold": dynamics_gallery.THRESHOLD,
            "horizon": dynamics_gallery.HORIZON,
            "landscapes": dynamics_gallery.LANDSCAPES,
            "seed": None,
            **asdict(dynamics_gallery.GRIDS[scale]),
        },
        {
            "dynamics_times": lambda tables: dynamics_gallery_figure.draw_times(tables["dynamics_times"]),
            "dynamics_paths": lambda tables: dynamics_gallery_figure.draw_paths(
                tables["dynamics_paths"], tables["landscapes"]
            ),
            "dynamics_portraits": lambda tables: dynamics_gallery_figure.draw_portraits(
                tables["portrait_fields"], tables["portrait_paths"]
            ),
        },
    ),
    "beyond_quadratics": Experiment(
        beyond_quadratics.run,
        lambda scale: {
            "quadratic": {
                "dimension": beyond_quadratics.DIMENSION,
                "condition_number": beyond_quadratics.CONDITION_NUMBER,
            },
            "hyperparameters": "the registry's defaults",
            **asdict(beyond_quadratics.GRIDS[scale]),
        },
        {
            "beyond_quadratics": lambda tables: beyond_quadratics_figure.draw_errors(tables["beyond_quadratics"]),
            "beyond_quadratics_summary": lambda tables: beyond_quadratics_figure.draw_summary(
                tables["beyond_quadratics"], tables["beyond_quadratics_orders"]
            ),
        },
    ),
    "accuracy_and_cost": Experiment(
        accuracy_and_cost.run,
        lambda scale: {
            "largest_step": accuracy_and_cost.LARGEST_STEP,
            **asdict(accuracy_and_cost.GRIDS[scale]),
        },
        {
            "accuracy_and_cost": lambda tables: accuracy_and_cost_figure.draw(tables["accuracy_and_cost"]),
        },
    ),
    "where_it_breaks": Experiment(
        where_it_breaks.run,
        lambda scale: {
            "stability": {
                "dimension": where_it_breaks.STABILITY_DIMENSION,
                "condition_number": where_it_breaks.STABILITY_CONDITION,
                "threshold": where_it_breaks.STABILITY_THRESHOLD,
            },
            "heavy_ball": {
                "eigenvalues": where_it_breaks.EIGENVALUES,
                "friction": where_it_breaks.FRICTION,
                "frictions": where_it_breaks.JUMP_FRICTIONS,
                "threshold": where_it_breaks.JUMP_THRESHOLD,
            },
            "rounding": {"threshold": where_it_breaks.ROUNDING_THRESHOLD, "minimizer": where_it_breaks.MINIMIZER},
            "seed": None,
            **asdict(where_it_breaks.GRIDS[scale]),
        },
        {
            "where_it_breaks": lambda tables: where_it_breaks_figure.draw(
                tables["stability"], tables["tangency"], tables["jump"], tables["rounding"]
            ),
        },
    ),
    "online_adaptation": Experiment(
        online_adaptation.run,
        lambda scale: {
            "tolerance": online_adaptation.TOLERANCE,
            "x0": "normal, of length 1",
            "paper_eta_and_descent_tolerance": online_adaptation.PAPER_ADAM_OLA,
            "ranges": {name: method.ranges for name, method in online_adaptation.METHODS.items()},
            **asdict(online_adaptation.GRIDS[scale]),
        },
        {
            "online_adaptation_paper": lambda tables: online_adaptation_figure.draw(
                tables["online_adaptation_curves"], "paper"
            ),
            "online_adaptation_equal": lambda tables: online_adaptation_figure.draw(
                tables["online_adaptation_curves"], "equal"
            ),
        },
    ),
    "learning_to_optimize": Experiment(
        learning_to_optimize.run,
        lambda scale: {
            "problems": "logistic regression of odestop.l2o.problems.LogisticProblems, with its defaults",
            "test_seed": learning_to_optimize.TEST_SEED,
            "larger_test_set": f"{learning_to_optimize.LARGER} times the dimension and the samples",
            "x0": "zeros",
            **asdict(learning_to_optimize.SCALES[scale]),
        },
        {
            "figure_3a": lambda tables: _draw_figure_3(tables, "smaller"),
            "figure_3b": lambda tables: _draw_figure_3(tables, "larger"),
            "learning_to_optimize_ablation": lambda tables: figure_3.draw_ablation(
                tables["learning_to_optimize_ablation"],
                int(tables["learning_to_optimize_ablation"]["dimension"].min()),
                learning_to_optimize.LEVEL_OF_F,
                int(tables["learning_to_optimize_curves"]["iteration"].max()),
            ),
            "learned_flow": lambda tables: learned_flow_figure.draw(
                tables["learned_flow"], tables["learned_flow_coefficients"]
            ),
        },
        tuple(learning_to_optimize.SCALES),
    ),
    "neural_network": Experiment(
        neural_network.run,
        lambda scale: {
            "target": neural_network.TARGET,
            "width": neural_network.WIDTH,
            "strengths": neural_network.STRENGTHS,
            **asdict(neural_network.GRIDS[scale]),
        },
        {
            "neural_network": lambda tables: neural_network_figure.draw(tables["neural_network"]),
        },
    ),
    "derivative_iterates": Experiment(
        derivative_iterates.run,
        lambda scale: {
            "penalties": derivative_iterates.PENALTIES,
            "x0": "zeros",
            "seed": None,
            **asdict(derivative_iterates.GRIDS[scale]),
        },
        {
            "derivative_iterates": lambda tables: derivative_iterates_figure.draw(
                tables["derivative_iterates"], tables["derivative_rates"], tables["support_change"]
            ),
        },
    ),
    "bilevel": Experiment(
        bilevel.run,
        lambda scale: {
            "prices": bilevel.PRICES,
            "flipped_labels": bilevel.FLIPPED,
            "backward_steps": bilevel.BACKWARD_STEPS,
            "seed": bilevel.SEED,
            **asdict(bilevel.GRIDS[scale]),
        },
        {"bilevel": lambda tables: bilevel_figure.draw(tables["bilevel"])},
    ),
    "verification": Experiment(
        verification.run,
        lambda scale: {
            "step_size": verification.STEP_SIZE,
            "directions": verification.DIRECTIONS,
            **asdict(verification.GRIDS[scale]),
        },
    ),
}

DRAWINGS: dict[str, Callable[[Tables], Figure]] = {
    name: draw for experiment in EXPERIMENTS.values() for name, draw in experiment.drawings.items()
}
"""All figures."""

OF_THE_PAPER = ("figure_1", "gradient_error", "real_data", "dissipation", "sensitivity_orders", "verification")
"""The experiments behind the claims table: those of the target ``all``."""

TARGETS: dict[str, tuple[str, ...]] = {
    "fig1": ("figure_1a", "figure_1b"),
    "fig2": ("figure_2a", "figure_2b"),
    "fig5": ("figure_5a", "figure_5b"),
    "real-data": tuple(EXPERIMENTS["real_data"].drawings),
    "dissipation": tuple(EXPERIMENTS["dissipation"].drawings),
    "orders": tuple(EXPERIMENTS["sensitivity_orders"].drawings),
    "dynamics": tuple(EXPERIMENTS["dynamics_gallery"].drawings),
    "beyond": tuple(EXPERIMENTS["beyond_quadratics"].drawings),
    "cost": tuple(EXPERIMENTS["accuracy_and_cost"].drawings),
    "limits": tuple(EXPERIMENTS["where_it_breaks"].drawings),
    "fig3": tuple(EXPERIMENTS["learning_to_optimize"].drawings),
    "fig4": tuple(EXPERIMENTS["online_adaptation"].drawings),
    "network": tuple(EXPERIMENTS["neural_network"].drawings),
    "iterates": tuple(EXPERIMENTS["derivative_iterates"].drawings),
    "bilevel": tuple(EXPERIMENTS["bilevel"].drawings),
    "all": tuple(name for experiment in OF_THE_PAPER for name in EXPERIMENTS[experiment].drawings),
}
"""Figures by the name that the command line knows them by."""
