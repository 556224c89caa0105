"""Search spaces, sweeps and paper experiments, as data."""
