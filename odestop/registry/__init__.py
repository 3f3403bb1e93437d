"""The shipped objectives, dynamics and criteria by name, with their parameters and ranges worth exploring.

This is the one list that the command line and whoever else offers a choice reads.
"""

from odestop.registry.catalogue import Catalogue, Entry, ObjectiveEntry, Parameter, Range, parse_number
from odestop.registry.criteria import CRITERIA
from odestop.registry.dynamics import DYNAMICS
from odestop.registry.files import find_entry, source_digest
from odestop.registry.objectives import OBJECTIVES

__all__ = [
    "CRITERIA",
    "DYNAMICS",
    "OBJECTIVES",
    "Catalogue",
    "Entry",
    "ObjectiveEntry",
    "Parameter",
    "Range",
    "find_entry",
    "parse_number",
    "source_digest",
]
