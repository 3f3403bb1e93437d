"""What is known of each LIBSVM file: where it is, its checksum, its size, whom to cite and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

BASE_URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
"""Folder of the two-class data sets of the LIBSVM collection."""

_COLLECTION = "C.-C. Chang and C.-J. Lin, LIBSVM: a library for support vector machines, ACM TIST 2(3), 2011"
_PLATT = (
    "J. C. Platt, Fast training of support vector machines using sequential minimal optimization, in: Advances in "
    "Kernel Methods, MIT Press, 1998"
)
_ADULT = "B. Becker and R. Kohavi, Adult, UCI Machine Learning Repository, 1996, doi:10.24432/C5XW20"


@dataclass(frozen=True)
class LibsvmFile:
    """One file of the LIBSVM collection, in text form, with labels -1 and +1.

    Attributes
    ----------
    name
        Name of the data set and of the file.
    rows, features
        Its n and d, as the collection states them.  Rows need not use the last features.
    sha256
        Checksum of the file in hexadecimal digits; None where it is not known, and then the file is not downloaded.
    citation
        Whom to cite.
    licence
        The terms of use, as far as they are stated.

    Examples
    --------
    >>> CATALOGUE["a1a"].url
    'https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/a1a'
    """

    name: str
    rows: int
    features: int
    sha256: str | None
    citation: str
    licence: str

    @property
    def url(self) -> str:
        """Where the file is."""
        return BASE_URL + self.name


# Computed from copies of the files whose sizes in bytes are 114818, 162053, 227902 and 3478239.
_SHA256 = {
    "a1a": "eb54c45f1bdb51286f803dd092eb8202b44637a858fc6c4e533a2d64a0d94b4e",
    "a2a": "535782f1be62e60938d8accb1573043542b3ac11265522927574dcbb28360a2f",
    "a3a": "2d513572f103d25e84bebe4b9f2f52ee9445764b5a393caff7db9c482cfc1ee4",
    "w8a": "b464b4f6ce6a5d9e181ffc793e19a04751036273722312398ef7673705014902",
}

_ROWS = {
    **{"a1a": 1605, "a2a": 2265, "a3a": 3185, "a4a": 4781, "a5a": 6414, "a6a": 11220, "a7a": 16100, "a8a": 22696},
    **{"a9a": 32561, "w1a": 2477, "w2a": 3470, "w3a": 4912, "w4a": 7366, "w5a": 9888, "w6a": 17188, "w7a": 24692},
    "w8a": 49749,
}


def _entry(name: str) -> LibsvmFile:
    adult = name.startswith("a")
    return LibsvmFile(
        name=name,
        rows=_ROWS[name],
        features=123 if adult else 300,
        sha256=_SHA256.get(name),
        citation="; ".join([_PLATT, _COLLECTION, *([_ADULT] if adult else [])]),
        licence=(
            "none stated for the file; the Adult data behind it are CC BY 4.0"
            if adult
            else "none stated; offered for download by the collection"
        ),
    )


CATALOGUE: dict[str, LibsvmFile] = {name: _entry(name) for name in _ROWS}
"""The files that `odestop.data.load` knows by name."""
