"""Experiments of papers as presets: found, turned into sweeps, and compared with what the papers report."""
