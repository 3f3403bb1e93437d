"""Where a data file lies, or its download, and that it is the right one."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from types import ModuleType

from odestop._validation import check_choice
from odestop.data.catalogue import CATALOGUE, LibsvmFile

FOLDER_VARIABLE = "ODESTOP_DATA"
"""Environment variable that names a folder of data files."""


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True) -> Path:
    """Return the path of a file of the catalogue, downloaded if it is not here yet; its checksum is right.

    Looked at in this order: ``data_dir``, or the folder that the environment variable ``ODESTOP_DATA`` names; then
    pooch's cache, ``pooch.os_cache("odestop")``, to which files are downloaded.

    Parameters
    ----------
    name
        One of `CATALOGUE`.
    data_dir
        Folder that may contain the file under this name; nothing is written to it.
    download
        Whether a file that is in neither place may be downloaded.

    Raises
    ------
    ValueError
        If the name is unknown, or the file has another checksum than the catalogue says.
    FileNotFoundError
        If the file is in neither place, and ``download`` is False or its checksum is not known.
    NotADirectoryError
        If the folder does not exist.
    OSError
        If the download fails.
    ImportError
        If pooch is not installed and the file is not in the folder.
    """
    entry = CATALOGUE[check_choice("name", name, tuple(CATALOGUE))]
    folder = _folder(data_dir)
    if folder is not None and (folder / name).is_file():
        return _checked(folder / name, entry)
    place = f"{name} is not in {folder}" if folder else f"no folder was given to look for {name} in"
    if entry.sha256 is None:
        raise FileNotFoundError(
            f"{place}, and it cannot be downloaded by name, because its checksum is not known; save {entry.url} in a "
            f"folder and name that folder by data_dir or {FOLDER_VARIABLE}"
        )
    pooch = optional_module("pooch")
    cache = Path(pooch.os_cache("odestop"))
    if not download:
        if (cache / name).is_file():
            return _checked(cache / name, entry)
        raise FileNotFoundError(f"{place}, it is not in {cache}, and download is False")
    return _downloaded(pooch, entry, cache)


def optional_module(name: str) -> ModuleType:
    """Import a module that only the data need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"LIBSVM data need {name}; install it with pip install 'odestop[data]'") from error


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    source, value = (
        ("data_dir", data_dir) if data_dir is not None else (FOLDER_VARIABLE, os.environ.get(FOLDER_VARIABLE))
    )
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise NotADirectoryError(f"{source} must name an existing folder, got {str(value)!r}")
    return folder


def _checked(path: Path, entry: LibsvmFile) -> Path:
    """Return ``path`` if the file has the checksum of the catalogue, or none is known."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if entry.sha256 is not None and found != entry.sha256:
        raise ValueError(f"{path} is not the file {entry.name}: its SHA-256 must be {entry.sha256}, got {found}")
    return path


def _downloaded(pooch: ModuleType, entry: LibsvmFile, cache: Path) -> Path:
    """Return the file in the cache; a damaged one there is downloaded again."""
    try:
        return Path(pooch.retrieve(entry.url, f"sha256:{entry.sha256}", fname=entry.name, path=cache))
    except ValueError as error:
        raise ValueError(
            f"what came from {entry.url} is not the file {entry.name}, and was deleted: {error}"
        ) from error
    except OSError as error:
        raise OSError(
            f"{entry.url} could not be downloaded: {error}; a copy in a folder of your own will do, named by data_dir "
            f"or {FOLDER_VARIABLE}"
        ) from error
