"""The explorer: what the interactive page computes, as functions of what is on screen; see `odestop.explorer.scene`."""
