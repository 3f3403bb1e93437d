"""How the paper's figures look: functions from tidy tables to matplotlib figures. Nothing here solves anything."""
