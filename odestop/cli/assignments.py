"""The option ``--set`` that several commands have."""

from __future__ import annotations


def split_assignment(assignment: str, form: str) -> tuple[str, str]:
    """Return the name and the text of ``name=text``; a ValueError says the ``form`` that was expected."""
    name, equals, text = assignment.partition("=")
    if not (name and equals):
        raise ValueError(f"--set must be of the form {form}, got {assignment!r}")
    return name, text
