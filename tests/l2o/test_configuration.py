"""Configurations from files and options: what is accepted, and what a mistake is answered with."""

import pytest
import torch

from odestop.l2o import L2ODM, RNNprop, TrainingConfiguration, TrainingLoss, load, save

# Wrong values of wrong types are the point here.
pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_the_defaults_are_the_papers_experiment():
    configuration = TrainingConfiguration()
    assert (configuration.batch, configuration.steps) == (64, 500)
    assert configuration.loss() == TrainingLoss(100, 20, 1.0, 1e-5, "definition3")
    problems = configuration.build_problems()
    assert (problems.dimension, problems.samples) == (512, 256)
    network = configuration.build_network()
    assert (type(network), network.lstm.hidden, network.lstm.layers) == (RNNprop, 30, 2)


def test_a_toml_file_and_options_on_top_of_it(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        'steps = 7\nthreshold = 0\n[network]\nkind = "l2o-dm"\nhidden = 5\n'
        '[problems]\nkind = "quadratic"\ndimension = 3\n'
    )
    overrides = {
        "network.hidden": "6",
        "stopping_weight": "0.5",
        "update": "unroll",
        "problems.largest_condition": "5e1",
    }
    configuration = TrainingConfiguration.from_toml(path, overrides)
    assert (configuration.steps, configuration.threshold, configuration.stopping_weight) == (7, 0, 0.5)
    network = configuration.build_network()
    assert (type(network), network.lstm.hidden) == (L2ODM, 6)
    assert configuration.build_problems().largest_condition == 50.0
    assert configuration.update == "unroll"
    assert TrainingConfiguration.from_dict(configuration.to_dict()) == configuration


def test_dtype_and_seed_reach_the_weights():
    one, other = (TrainingConfiguration(seed=seed, dtype="float64").build_network() for seed in (0, 1))
    assert one.readout.dtype == torch.float64
    assert not torch.equal(one.readout, other.readout)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"steps": "0"}, "steps must be an integer of at least 1, got 0"),
        ({"batch": "1.5"}, "batch must be an integer of at least 1, got 1.5"),
        ({"learning_rate": "-1"}, "learning_rate must be a positive finite number, got -1"),
        ({"gradient_clip": "0"}, "gradient_clip must be a positive finite number, got 0"),
        ({"update": "step"}, "update must be one of 'segment', 'unroll', got 'step'"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', got 'float16'"),
        ({"sensitivity": "hermite"}, "sensitivity must be one of 'definition3', 'interpolated', got 'hermite'"),
        ({"second_derivatives": "1"}, "second_derivatives must be true or false, got 1"),
        ({"seed": "-1"}, "seed must be an integer of at least 0, got -1"),
        ({"device": "abacus"}, "device must be a device as PyTorch names it, such as 'cpu' or 'cuda', got 'abacus'"),
        ({"lambda": "1"}, "the name of a setting must be one of 'network', 'problems', 'steps'.*got 'lambda'"),
        ({"network.kind": "mlp"}, "network.kind must be one of 'l2o-dm', 'rnnprop', got 'mlp'"),
        ({"network.width": "3"}, "the name of a setting in network must be one of 'hidden', 'layers'.*got 'width'"),
        ({"network.hidden": "0"}, "hidden must be an integer of at least 1, got 0"),
        ({"network": "3"}, "network must be a table of settings, got 3"),
        ({"problems.kind": "svm"}, "problems.kind must be one of 'logistic'.*got 'svm'"),
        ({"problems.d": "3"}, "the name of a setting in problems must be one of 'dimension'.*got 'd'"),
        ({"problems.dimension": "0"}, "dimension must be"),
        ({"horizon": "0"}, "horizon must be"),
        ({"steps.more": "1"}, "--set must name a setting, got 'steps.more'"),
        ({"network.file": "nowhere.safetensors"}, "path must be a readable file, got 'nowhere.safetensors'"),
    ],
)
def test_a_mistake_names_the_setting_the_value_and_what_is_accepted(overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        TrainingConfiguration.from_toml(None, {"steps": "1", **overrides})


@pytest.mark.parametrize("text", [None, "steps = ", b"\xff"])
def test_a_file_that_is_no_toml_is_refused(text, tmp_path):
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"the configuration must be a TOML file, got .*config\.toml"):
        TrainingConfiguration.from_toml(path)


@pytest.mark.parametrize("network_class", [L2ODM, RNNprop])
def test_a_network_comes_back_from_its_file(network_class, tmp_path):
    network = network_class(hidden=3, layers=1, output_scale=0.5, seed=7, dtype=torch.float64)
    path = tmp_path / "folder" / "network.safetensors"
    save(network, path, {"machine": "a desk"})
    again = load(path)
    assert type(again) is network_class
    assert again.options == network.options
    for one, other in zip(again.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert load(path, dtype=torch.float32).readout.dtype == torch.float32
    assert [file.name for file in path.parent.iterdir()] == ["network.safetensors"]


def test_other_files_are_refused(tmp_path):
    import safetensors.torch

    foreign, text = tmp_path / "foreign.safetensors", tmp_path / "text"
    safetensors.torch.save_file({"x": torch.ones(2)}, foreign)
    text.write_text("hello")
    for path in (foreign, text):
        with pytest.raises(ValueError, match="path must be a safetensors file written by this package"):
            load(path)
