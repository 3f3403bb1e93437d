"""The real data that scikit-learn bundles, standardised."""

import sys

import pytest
import torch

from odestop.objectives import bundled_data

pytest.importorskip("sklearn")

SHAPES = {"breast-cancer": (569, 30), "diabetes": (442, 10), "digits": (1797, 64), "wine": (178, 13)}


@pytest.mark.parametrize("name", SHAPES)
def test_columns_have_mean_zero_and_variance_one(name):
    features, targets = bundled_data(name, intercept=False, dtype=torch.float64)
    assert features.shape == SHAPES[name]
    assert targets.shape == SHAPES[name][:1]
    torch.testing.assert_close(features.mean(0), torch.zeros(SHAPES[name][1], dtype=torch.float64))
    varying = features.square().mean(0)
    constant = features.abs().amax(0) == 0
    # Three pixels at the edge of the digits are never set.
    assert int(constant.sum()) == (3 if name == "digits" else 0)
    torch.testing.assert_close(varying[~constant], torch.ones_like(varying[~constant]))


def test_targets_are_classes_or_standardised_numbers():
    for name, classes in {"breast-cancer": 2, "digits": 10, "wine": 3}.items():
        labels = bundled_data(name)[1]
        assert labels.unique().tolist() == list(range(classes))
    targets = bundled_data("diabetes")[1]
    assert targets.dtype == torch.float32
    assert float(targets.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(targets.square().mean()) == pytest.approx(1.0, rel=1e-5)


def test_the_intercept_is_a_last_column_of_ones():
    without, with_intercept = (bundled_data("wine", intercept=intercept)[0] for intercept in (False, True))
    torch.testing.assert_close(with_intercept, torch.cat([without, torch.ones(178, 1)], dim=1))


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="name must be one of 'breast-cancer', 'diabetes', 'digits', 'wine', got 'x'"):
        bundled_data("x")


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"the wine data need scikit-learn; .* 'odestop\[experiments\]'"):
        bundled_data("wine")
