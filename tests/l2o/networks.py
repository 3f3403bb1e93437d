"""Networks that descend without any training."""

import torch

from odestop.l2o import L2ODM, RNNprop


def descending(network_class, *, hidden=5, output_scale=0.1, dtype=torch.float64, seed=0):
    """A network whose first unit follows the sign of the gradient, with small random weights everywhere else."""
    network = network_class(hidden, output_scale=output_scale, dtype=dtype, seed=seed)
    along = 1.0 if network_class is L2ODM else -1.0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.2)
        if network_class is RNNprop:
            network.input_layer[0, 0] = 1.0
        for layer, weight in enumerate(network.lstm.weights):
            inputs = weight.shape[1] - hidden - 1
            # Input and output gates open, forget gates closed.
            weight[:hidden, -1], weight[hidden : 2 * hidden, -1], weight[2 * hidden : 3 * hidden, -1] = 3.0, -3.0, 3.0
            # The sign is the second feature of L2O-DM.
            column = 1 if layer == 0 and network_class is L2ODM else 0
            assert column < inputs
            weight[3 * hidden, column] = 2.0
        network.readout[0, 0] = -along
    return network


def logistic(samples=20, dimension=6, seed=0, dtype=torch.float64):
    """A regularised logistic regression of random data."""
    from odestop.objectives import LogisticRegression

    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dimension, generator=generator, dtype=dtype)
    return LogisticRegression(features, torch.tensor([0, 1] * (samples // 2)), 0.1)


NETWORK_CLASSES = [L2ODM, RNNprop]
