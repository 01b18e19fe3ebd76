"""Balancing methods by name; a new method is one file and one line here.

Of the methods that the paper on impartial auxiliary learning compares with, that of Miraliev et al. is left
out, and ATW and PUW: neither of the two has a public formula that could be found.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from training.balancing.aligned_mtl import AlignedMTL
from training.balancing.auto_lambda import AutoLambda
from training.balancing.base import Balancer, Observation, StepResult, TaskLosses, TaskWeights
from training.balancing.cagrad import CAGrad
from training.balancing.db_mtl import DBMTL
from training.balancing.dwa import DWA
from training.balancing.engine import Engine
from training.balancing.gcs import GCS
from training.balancing.gradient_norm_scaling import GradientNormScaling
from training.balancing.gradnorm import GradNorm
from training.balancing.ial import IAL
from training.balancing.imtl import IMTL
from training.balancing.imtl_g import IMTLG
from training.balancing.imtl_l import IMTLL
from training.balancing.lps import LPS
from training.balancing.manual import Equal, Manual
from training.balancing.meta import MetaBalancer
from training.balancing.mgda import MGDA
from training.balancing.ol_aux import OLAux
from training.balancing.pcgrad import PCGrad
from training.balancing.random import RandomWeights
from training.balancing.uncertainty import Uncertainty
from training.balancing.upgrad import UPGrad

log = logging.getLogger(__name__)

BALANCERS: dict[str, type[Balancer]] = {
    "aligned_mtl": AlignedMTL,
    "auto_lambda": AutoLambda,
    "cagrad": CAGrad,
    "db_mtl": DBMTL,
    "dwa": DWA,
    "equal": Equal,
    "gcs": GCS,
    "gradient_norm_scaling": GradientNormScaling,
    "gradnorm": GradNorm,
    "ial": IAL,
    "imtl": IMTL,
    "imtl_g": IMTLG,
    "imtl_l": IMTLL,
    "lps": LPS,
    "manual": Manual,
    "mgda": MGDA,
    "ol_aux": OLAux,
    "pcgrad": PCGrad,
    "random": RandomWeights,
    "uncertainty": Uncertainty,
    "upgrad": UPGrad,
}


RENAMED_OPTIONS = {("db_mtl", "beta"): "norm_decay"}
"""By method and old name; an old name works for one version, with a notice."""
_OPTION = ConfigDict(strict=True, allow_inf_nan=False)


def build_balancer(
    name: str, tasks: int | Sequence[str], options: Mapping[str, object], seed: int = 0
) -> Balancer:
    """The balancer called ``name`` for the ``tasks``: their names in head order, or their number.

    ``seed`` is of what a method draws at random, unless its options name another.

    Raises:
        ValueError: an unknown name, options the method does not have, or one of another type than it takes.
    """
    if name not in BALANCERS:
        raise ValueError(f"unknown balancer {name!r}; known: {', '.join(sorted(BALANCERS))}")
    options = dict(options)
    for (method, old), new in RENAMED_OPTIONS.items():
        if method == name and old in options:
            if new in options:
                raise ValueError(f"balancer {name!r}: {old} is the old name of {new}; give {new} alone")
            log.warning("balancer %s: option %s is now called %s", name, old, new)
            options[new] = options.pop(old)
    types = get_type_hints(BALANCERS[name].__init__)
    if "seed" in types:
        options.setdefault("seed", seed)
    for option, value in options.items():
        if option not in types or option == "tasks":
            known = ", ".join(key for key in types if key not in ("tasks", "return")) or "none"
            raise ValueError(f"balancer {name!r} has no option {option!r}; it has {known}")
        try:
            TypeAdapter(types[option], config=_OPTION).validate_python(value)
        except ValidationError as error:
            wrong = error.errors()[0]["msg"]
            raise ValueError(f"balancer {name!r}: {option}: {wrong}, got {value!r}") from error
    return BALANCERS[name](tasks, **options)


__all__ = [
    "BALANCERS",
    "Balancer",
    "Engine",
    "MetaBalancer",
    "Observation",
    "StepResult",
    "TaskLosses",
    "TaskWeights",
    "build_balancer",
]
