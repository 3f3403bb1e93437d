"""Data files: from a folder, by download from a local server, and the refusal of wrong ones."""

import functools
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import odestop.data.catalogue
import odestop.data.files
from odestop.data import CATALOGUE, LibsvmFile, fetch, load, read_libsvm
from odestop.objectives import bundled_data

TEXT = "+1 1:0.5 3:2 \n-1 2:1 \n-1 \n"
ROWS = [[0.5, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def entry(name: str, text: str | None, rows: int = 3) -> LibsvmFile:
    checksum = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    return LibsvmFile(name, rows=rows, features=4, sha256=checksum, citation="Somebody, 2000", licence="none")


@pytest.fixture(autouse=True)
def small_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two small files instead of the real ones, an empty cache, and no folder in the environment."""
    monkeypatch.setitem(CATALOGUE, "a1a", entry("a1a", TEXT))
    monkeypatch.setitem(CATALOGUE, "w3a", entry("w3a", None))
    monkeypatch.delenv("ODESTOP_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "a1a").write_text(TEXT)
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Serve a folder at the place of the collection; yields the folder and the list of requested paths."""
    root, requests = tmp_path / "server", []
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *arguments: object) -> None:
            requests.append(self.path)

        def log_error(self, *arguments: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=os.fspath(root)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(odestop.data.catalogue, "BASE_URL", f"http://127.0.0.1:{httpd.server_port}/")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    yield root, requests
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_in_a_folder_becomes_tensors(folder):
    dataset = load("a1a", folder)
    assert dataset.features.tolist() == ROWS  # the fourth feature is in no row
    assert dataset.labels.tolist() == [1.0, -1.0, -1.0]
    assert dataset.features.dtype == dataset.labels.dtype == torch.float64
    assert (dataset.name, dataset.citation) == ("a1a", "Somebody, 2000")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_form_is_the_same_matrix(folder, dtype):
    dense, sparse = load("a1a", folder, dtype=dtype), load("a1a", folder, dtype=dtype, sparse=True)
    assert sparse.features.layout == torch.sparse_csr
    assert sparse.features.dtype == sparse.labels.dtype == dtype
    assert torch.equal(sparse.features.to_dense(), dense.features)
    assert sparse.features.values().numel() == 3


def test_the_environment_names_a_folder_and_the_argument_goes_first(folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("ODESTOP_DATA", str(folder))
    assert fetch("a1a") == folder / "a1a"
    with pytest.raises(FileNotFoundError, match="other"):
        fetch("a1a", other, download=False)


def test_a_wrong_file_in_a_folder_is_refused_with_both_checksums(folder):
    (folder / "a1a").write_text(TEXT + "+1 1:1\n")
    found = hashlib.sha256((folder / "a1a").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"mine/a1a is not the file a1a.*{CATALOGUE['a1a'].sha256}, got {found}"):
        load("a1a", folder)


def test_a_file_without_a_checksum_comes_from_a_folder_only(folder):
    with pytest.raises(FileNotFoundError, match=r"w3a is not in .*mine, and it cannot be downloaded.*binary/w3a"):
        load("w3a", folder)
    (folder / "w3a").write_text(TEXT)
    assert load("w3a", folder).features.tolist() == ROWS
    (folder / "w3a").write_text(TEXT + "+1 1:1\n")
    with pytest.raises(ValueError, match="w3a is not the file w3a: it must have 3 rows, got 4"):
        load("w3a", folder)


def test_download_happens_once_and_the_cache_serves_afterwards(server):
    root, requests = server
    (root / "a1a").write_text(TEXT)
    with pytest.raises(FileNotFoundError, match=r"no folder was given.*cache, and download is False"):
        fetch("a1a", download=False)
    assert load("a1a").features.tolist() == ROWS
    assert fetch("a1a") == fetch("a1a", download=False)
    assert requests == ["/a1a"]
    # A damaged file in the cache is no answer, and a download repairs it.
    fetch("a1a").write_text("damaged")
    with pytest.raises(ValueError, match="cache/a1a is not the file a1a"):
        fetch("a1a", download=False)
    assert load("a1a").features.tolist() == ROWS
    assert requests == ["/a1a", "/a1a"]


def test_a_wrong_download_is_refused_and_not_kept(server, tmp_path):
    root, _ = server
    (root / "a1a").write_text("<html>moved</html>")
    found = hashlib.sha256(b"<html>moved</html>").hexdigest()
    with pytest.raises(ValueError, match=f"(?s)a1a is not the file a1a.*{CATALOGUE['a1a'].sha256}.*{found}"):
        load("a1a")
    assert not (tmp_path / "cache" / "a1a").exists()


def test_a_failed_download_says_what_to_do(server):
    with pytest.raises(OSError, match=r"127.0.0.1.*a1a could not be downloaded: 404.*data_dir or ODESTOP_DATA"):
        load("a1a")


@pytest.mark.parametrize("value", ["argument", "environment"])
def test_a_folder_must_exist(value, tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    monkeypatch.setenv("ODESTOP_DATA", str(missing))
    with pytest.raises(NotADirectoryError, match="data_dir must" if value == "argument" else "ODESTOP_DATA must"):
        fetch("a1a", missing if value == "argument" else None)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"name must be one of 'breast-cancer', 'a1a'.*got 'a10a'"):
        load("a10a")
    with pytest.raises(ValueError, match="name must be one of 'a1a'"):
        fetch("breast-cancer")


def test_missing_extras_say_how_to_install_them(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'odestop\[data\]'"):
        load("a1a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one example"),
        ("# only a comment\n", "at least one example"),
        ("+1 1:nan\n", "values in .*file must be finite"),
        ("+1 1:inf\n", "values in .*file must be finite"),
        ("+1 1:1\n2 1:1\n", "labels in .*file must be -1 or \\+1, got 2"),
        ("nan 1:1\n", "labels in .*file must be -1 or \\+1, got nan"),
        ("hello world\n", "file must have lines 'label index:value …'.*hello"),
        ("+1 1:x\n", "file must have lines.*x"),
        ("+1 0:1\n", "file must have lines.*Invalid index 0"),
        ("+1 3:1 2:1\n", "file must have lines.*sorted"),
        ("+1 5:1\n", "file must have lines.*n_features was set to 4.*5"),
    ],
)
def test_a_file_that_is_no_data_says_why(tmp_path, text, message):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_libsvm(tmp_path / "file", None if "at least" in message else 4)


def test_a_file_of_ones_own_is_read_as_it_is(tmp_path):
    generator = np.random.default_rng(0)
    matrix = scipy.sparse.random_array((20, 7), density=0.3, rng=generator).toarray()
    labels = generator.choice([-1, 1], 20)
    lines = [
        f"{label:+d} " + " ".join(f"{i + 1}:{float(value)!r}" for i, value in enumerate(row) if value != 0)
        for label, row in zip(labels, matrix, strict=True)
    ]
    (tmp_path / "own").write_text("\n".join(lines))
    dataset = read_libsvm(tmp_path / "own", features=9)
    np.testing.assert_array_equal(dataset.features[:, :7].numpy(), matrix)
    assert not dataset.features[:, 7:].any()
    np.testing.assert_array_equal(dataset.labels.numpy(), labels)
    assert (dataset.name, dataset.citation) == ("own", "")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_libsvm(tmp_path / "absent")
    with pytest.raises(ValueError, match="features must be an integer of at least 1, got 0"):
        read_libsvm(tmp_path / "own", features=0)
    with pytest.raises(ValueError, match=r"dtype must be a real floating-point dtype.*int64"):
        read_libsvm(tmp_path / "own", dtype=torch.int64)


@pytest.mark.parametrize("sparse", [False, True])
def test_bundled_data_need_no_file(sparse):
    dataset = load("breast-cancer", sparse=sparse, dtype=torch.float32)
    features, labels = bundled_data("breast-cancer", intercept=False, dtype=torch.float32)
    assert torch.equal(dataset.features.to_dense() if sparse else dataset.features, features)
    assert torch.equal(dataset.labels > 0, labels == 1)
    assert set(dataset.labels.tolist()) == {-1.0, 1.0}
    assert dataset.citation


def test_the_catalogue_is_complete():
    for name, known in CATALOGUE.items():
        assert known.name == name
        assert known.citation
        assert known.licence
        assert known.url.endswith(f"/binary/{name}")
        assert known.sha256 is None or (len(known.sha256) == 64 and int(known.sha256, 16))
    assert {"a1a", "a2a", "a3a", "w1a", "w3a", "w8a"} <= set(CATALOGUE)
