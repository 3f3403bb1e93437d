"""Data sets to fit models to: LIBSVM files by name, downloaded on request or from a folder of the user's own."""

from odestop.data.catalogue import CATALOGUE, LibsvmFile
from odestop.data.files import fetch
from odestop.data.loading import Dataset, load, read_libsvm

__all__ = ["CATALOGUE", "Dataset", "LibsvmFile", "fetch", "load", "read_libsvm"]
