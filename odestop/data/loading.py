"""Data files as tensors."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_choice, check_count
from odestop.data.catalogue import CATALOGUE
from odestop.data.files import fetch, optional_module
from odestop.objectives.bundled import bundled_data

_BREAST_CANCER = "breast-cancer"
_BREAST_CANCER_CITATION = (
    "W. Wolberg, O. Mangasarian, N. Street and W. Street, Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning "
    "Repository, 1993, doi:10.24432/C5DW2B"
)


@dataclass(frozen=True)
class Dataset:
    """Features and labels of two classes.

    Attributes
    ----------
    features
        One row per example, shape (n, d): dense, or sparse in the CSR layout.
    labels
        -1 or +1, shape (n,), in the dtype of the features.
    name
        Name of the data set.
    citation
        Whom to cite; empty where it is not known.
    """

    features: Float[Tensor, "n d"]
    labels: Float[Tensor, "n"]
    name: str
    citation: str


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    dtype: torch.dtype = torch.float64,
    sparse: bool = False,
) -> Dataset:
    """Return a data set of two classes by its name.

    ``"breast-cancer"`` comes with scikit-learn and needs no file: the standardised features of
    `odestop.objectives.bundled_data`, without the constant column.  The other names are those of `CATALOGUE`, LIBSVM
    files that are downloaded, or read from a folder, as `fetch` says; their features are as in the file.

    Parameters
    ----------
    name
        ``"breast-cancer"`` or one of `CATALOGUE`, such as ``"a1a"``.
    data_dir
        Folder that may contain the file under this name; the one that ``ODESTOP_DATA`` names by default.
    download
        Whether a file that is not here may be downloaded.
    dtype
        Floating-point dtype of features and labels.
    sparse
        Whether the features are a sparse CSR tensor.

    Raises
    ------
    ValueError
        If the name is unknown, or the file is not the right one.
    OSError
        If there is no such file here and it cannot be downloaded; see `fetch`.
    ImportError
        If scikit-learn or pooch is needed and not installed.

    Examples
    --------
    >>> dataset = load("breast-cancer")
    >>> dataset.features.shape, dataset.labels.unique()
    (torch.Size([569, 30]), tensor([-1.,  1.], dtype=torch.float64))
    """
    check_choice("name", name, (_BREAST_CANCER, *CATALOGUE))
    if name == _BREAST_CANCER:
        features, classes = bundled_data(name, intercept=False, dtype=dtype)
        labels = 2 * classes.to(dtype) - 1
        if sparse:
            features = _csr(optional_module("scipy.sparse").csr_array(features.numpy()), dtype)
        return Dataset(features, labels, name, _BREAST_CANCER_CITATION)
    entry = CATALOGUE[name]
    path = fetch(name, data_dir, download=download)
    features, labels = _parsed(path, entry.features, dtype, sparse)
    if len(labels) != entry.rows:
        raise ValueError(f"{path} is not the file {name}: it must have {entry.rows} rows, got {len(labels)}")
    return Dataset(features, labels, name, entry.citation)


def read_libsvm(
    path: str | os.PathLike[str],
    features: int | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    sparse: bool = False,
) -> Dataset:
    r"""Return the data set in a LIBSVM file of the user's own, as its text says and without a check of its identity.

    Parameters
    ----------
    path
        A text file, or one compressed by gzip or bzip2 with the ending .gz or .bz2.  Lines are
        ``label index:value index:value …`` with labels -1 or +1, and indices that begin at 1 and rise.
    features
        d; the largest index in the file by default.
    dtype
        Floating-point dtype of features and labels.
    sparse
        Whether the features are a sparse CSR tensor.

    Raises
    ------
    ValueError
        If the file is not in this format, is empty, or has other labels or values that are not finite.
    OSError
        If it cannot be read.
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "mine")
    ...     _ = file.write_text("+1 1:0.5 3:2\n-1 2:1\n")
    ...     dataset = read_libsvm(file)
    >>> dataset.features.tolist(), dataset.labels.tolist()
    ([[0.5, 0.0, 2.0], [0.0, 1.0, 0.0]], [1.0, -1.0])
    """
    path = Path(path)
    if features is not None:
        check_count("features", features)
    return Dataset(*_parsed(path, features, dtype, sparse), path.name, "")


def _parsed(path: Path, count: int | None, dtype: torch.dtype, sparse: bool) -> tuple[Tensor, Tensor]:
    """Return features and labels; every failure names the file."""
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a real floating-point dtype such as torch.float64, got {dtype}")
    reader = optional_module("sklearn.datasets").load_svmlight_file
    try:
        matrix, classes = reader(str(path), n_features=count, zero_based=False)
    except ValueError as error:
        raise ValueError(
            f"{path} must have lines 'label index:value …', which scikit-learn could not read: {error}"
        ) from error
    if matrix.shape[0] == 0:
        raise ValueError(f"{path} must have at least one example, got none")
    labels = torch.as_tensor(classes)
    if not bool((labels.abs() == 1).all()):
        raise ValueError(f"labels in {path} must be -1 or +1, got {labels[labels.abs() != 1][0].item():g} among them")
    if not bool(torch.isfinite(torch.as_tensor(matrix.data)).all()):
        raise ValueError(f"values in {path} must be finite, got nan or inf among them")
    features = _csr(matrix, dtype) if sparse else torch.as_tensor(matrix.toarray())
    return features.to(dtype), labels.to(dtype)


def _csr(matrix: Any, dtype: torch.dtype) -> Tensor:
    """Return a CSR matrix of scipy's as a sparse tensor."""
    rows, columns = (torch.as_tensor(part, dtype=torch.int64) for part in (matrix.indptr, matrix.indices))
    values = torch.as_tensor(matrix.data, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, size=matrix.shape, check_invariants=True)
