"""Experiments of many runs: rows of settings by seeds, one after another, resumable, told in a table."""

from training.sweep.config import SweepConfig, load_sweep
from training.sweep.results import write_results
from training.sweep.runner import run_sweep

__all__ = ["SweepConfig", "load_sweep", "run_sweep", "write_results"]
