"""A bundle as a model repository that Triton loads, and a Triton to try it with."""

from export.triton.config import BACKENDS, Backend, Serving, model_config
from export.triton.repository import write_repository

__all__ = ["BACKENDS", "Backend", "Serving", "model_config", "write_repository"]
