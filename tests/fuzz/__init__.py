"""Random input from fixed seeds: a valid run, or one sentence; never a traceback, never a hang."""
