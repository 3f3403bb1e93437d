from odestop.plotting.style import *  # noqa: F403
from odestop.plotting.style import _RC  # noqa: F401
