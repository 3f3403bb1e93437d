"""All gradient methods agree on every flow of the table, to the accuracy that the table is said to have."""

import pytest

from experiments import dissipation, gradient_methods
from figures import dissipation as dissipation_figure
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

TOLERANCES = {
    "discrete_adjoint": 2e-6,
    "unrolled": 2e-6,
    "forward_sensitivity": 2e-6,
    "continuous_adjoint": 1e-5,
    "finite_difference": 1e-4,
}
COSTLY = {
    ("learned preconditioner", "finite_difference"),
    ("Rosenbrock", "forward_sensitivity"),
    ("Rosenbrock", "finite_difference"),
    ("stiff linear, κ = 1e4", "forward_sensitivity"),
    ("stiff linear, κ = 1e4", "finite_difference"),
}


@pytest.mark.parametrize("name", gradient_methods.QUESTIONS)
def test_every_method_agrees_with_the_reference(name):
    for method, tolerance in TOLERANCES.items():
        if (name, method) not in COSTLY:
            record = gradient_methods.measure(name, method)
            assert record["error"] < tolerance, method


def test_backsolve_is_wrong_on_a_stiff_flow():
    record = gradient_methods.measure("stiff linear, κ = 1e4", "backsolve")
    assert not record["error"] < 1.0


def test_dissipation_spoils_backsolve_alone():
    table = dissipation.run("tiny", Runner())["dissipation"]
    hard = dissipation.solve(dissipation.Cell(1e-4, "backsolve"))
    assert bool((table["relative_error"] < 1e-4).all())
    assert hard["relative_error"] > 1.0
    figure = dissipation_figure.draw(table)
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 3
