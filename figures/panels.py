from odestop.plotting.step_sizes import *  # noqa: F403
