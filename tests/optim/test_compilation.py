"""The optimizers under torch.compile, which cannot look through the checks of annotations."""

import pytest
import torch

from odestop.optim import AdamOLA

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
def test_compiled_steps_adapt_as_others_do():
    runs, graphs = [], []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    for compiled in (False, True):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        optimizer = AdamOLA([x], lr=0.01, adaptation_rate=1e-5)
        step = torch.compile(optimizer.step, backend=backend) if compiled else optimizer.step
        history = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = (x * x).sum()
            loss.backward()
            step(loss=loss.detach())
            history.append([loss.item(), optimizer.param_groups[0]["lr"]])
        runs.append(torch.tensor(history))
    torch.testing.assert_close(*runs, rtol=1e-5, atol=0)
    # The changing rate does not make a new graph each time.
    assert 0 < len(graphs) < 5
    assert len(runs[1][:, 1].unique()) > 5
