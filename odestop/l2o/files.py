"""Networks in files: safetensors for the weights, with a JSON header that says how to build the network again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from odestop.l2o.networks import NETWORKS, LearnedOptimizer

_HEADER = "odestop"


def save(network: LearnedOptimizer, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a network to a safetensors file, atomically.

    Parameters
    ----------
    network
        The network.
    path
        The file; it is replaced as a whole or not at all.
    metadata
        What else to keep, in plain values that JSON can hold; `load_metadata` returns it.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    """
    header = {"network": {"kind": network.kind, **network.options}, "metadata": dict(metadata or {})}
    write_tensors(path, network.state_dict(), header)


def load(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LearnedOptimizer:
    """Read a network from a file that `save` or a training has written.

    Parameters
    ----------
    path
        The file.
    dtype
        Of the weights, and so of the points that the network moves; as in the file by default.
    device
        The CPU by default.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    ValueError
        If the file holds no network of this package.

    Examples
    --------
    >>> import odestop.l2o, tempfile
    >>> path = tempfile.mkdtemp() + "/rnnprop.safetensors"
    >>> odestop.l2o.save(odestop.l2o.RNNprop(hidden=4), path)
    >>> odestop.l2o.load(path).lstm.hidden
    4
    """
    tensors, header = read_tensors(path)
    options = dict(header.get("network", {}))
    kind = options.pop("kind", None)
    if kind not in NETWORKS:
        raise ValueError(
            f"path must be a file written by odestop.l2o.save, got {str(path)!r} with the network {kind!r}"
        )
    network = NETWORKS[kind](**options, dtype=next(iter(tensors.values())).dtype)
    network.load_state_dict(tensors)
    return network.to(dtype=dtype, device=device)


def load_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a file that `save` or a training has written.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    ValueError
        If it is another file.
    """
    return read_tensors(path)[1].get("metadata", {})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to a safetensors file: all of it or nothing, whenever the process ends."""
    path = Path(path)
    contents = _safetensors().save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {_HEADER: json.dumps(header)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as stream:
        stream.write(contents)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the header of a file that `write_tensors` has written."""
    safetensors = _safetensors()
    try:
        contents = Path(path).read_bytes()
        header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])["__metadata__"][_HEADER]
        return safetensors.load(contents), json.loads(header)
    except OSError as error:
        raise ValueError(f"path must be a readable file, got {str(path)!r}: {error.strerror}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"path must be a safetensors file written by this package, got {str(path)!r}") from error


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("networks are kept in safetensors files: pip install odestop[l2o]") from None
    return safetensors.torch
