"""Run as a script: trainings in processes of their own, killed on the way, or several that share their batches.

One interpreter imports the package and forks the others, which saves the tests seconds for each of them.
"""

import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

from odestop.l2o import TrainingConfiguration, train

NETWORK = {"kind": "rnnprop", "hidden": 4}
PROBLEMS = {"kind": "logistic", "dimension": 6, "samples": 4}
KILLED = TrainingConfiguration(
    NETWORK, PROBLEMS, steps=9, batch=4, horizon=6, segment=4, validate_every=3, checkpoint_every=2, threshold=1e-2
)
SHARED = TrainingConfiguration(
    NETWORK, PROBLEMS, steps=1, batch=6, horizon=6, segment=4, dtype="float64", update="unroll", validation_problems=4
)


def fork(function) -> int:
    """Run a function in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def train_and_kill(output: Path, seed: int) -> None:
    """Train, killed three times: at random moments after the 2nd, the 4th and the 7th training step."""
    generator = random.Random(seed)
    history = output / "history.jsonl"
    for lines in (2, 4, 7):
        child = fork(lambda: train(KILLED, output, resume=True))
        while not history.exists() or history.read_text().count("\n") < lines:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    train(KILLED, output, resume=True)


def train_together(output: Path, processes: int) -> None:
    """Train as torchrun would: several processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}

    def one(rank: int) -> None:
        os.environ["RANK"] = str(rank)
        train(SHARED, output)

    children = [fork(lambda rank=rank: one(rank)) for rank in range(processes)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    os.environ["WORLD_SIZE"] = "1"
    assert codes == [0] * processes


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    # The trainings of this process come last: a process that computes with threads must not be forked.
    train_together(folder / "two", 2)
    train_and_kill(folder / "killed", seed=0)
    train(KILLED, folder / "uninterrupted")
    train(SHARED, folder / "one")
