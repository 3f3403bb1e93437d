"""``python -m odestop`` is the command line."""

from odestop.cli import main

main()
