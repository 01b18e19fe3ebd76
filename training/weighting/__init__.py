"""Balancing methods by name; a new method is one file and one line here.

Of the methods that the paper on impartial auxiliary learning compares with, that of Miraliev et al. is left
out, and ATW and PUW: neither of the two has a public formula that could be found.
"""

from collections.abc import Mapping, Sequence
from typing import get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from training.weighting.aligned_mtl import AlignedMTL
from training.weighting.auto_lambda import AutoLambda
from training.weighting.base import Balancer, Observation, TaskWeights
from training.weighting.cagrad import CAGrad
from training.weighting.db_mtl import DBMTL
from training.weighting.dwa import DWA
from training.weighting.engine import Balanced, Engine
from training.weighting.gcs import GCS
from training.weighting.gradient_norm_scaling import GradientNormScaling
from training.weighting.gradnorm import GradNorm
from training.weighting.ial import IAL
from training.weighting.imtl import IMTL
from training.weighting.imtl_g import IMTLG
from training.weighting.imtl_l import IMTLL
from training.weighting.lps import LPS
from training.weighting.manual import Manual
from training.weighting.meta import MetaBalancer
from training.weighting.mgda import MGDA
from training.weighting.ol_aux import OLAux
from training.weighting.pcgrad import PCGrad
from training.weighting.random import RandomWeights
from training.weighting.uncertainty import Uncertainty
from training.weighting.upgrad import UPGrad

BALANCERS: dict[str, type[Balancer]] = {
    "aligned_mtl": AlignedMTL,
    "auto_lambda": AutoLambda,
    "cagrad": CAGrad,
    "db_mtl": DBMTL,
    "dwa": DWA,
    "equal": Manual,
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


_OPTION = ConfigDict(strict=True, allow_inf_nan=False)


def build_balancer(name: str, tasks: int | Sequence[str], options: Mapping[str, object]) -> Balancer:
    """The balancer called ``name`` for the ``tasks``: their names in head order, or their number.

    Raises:
        ValueError: an unknown name, options the method does not have, or one of another type than it takes.
    """
    if name not in BALANCERS:
        raise ValueError(f"unknown balancer {name!r}; known: {', '.join(sorted(BALANCERS))}")
    types = get_type_hints(BALANCERS[name].__init__)
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
    "Balanced",
    "Balancer",
    "Engine",
    "MetaBalancer",
    "Observation",
    "TaskWeights",
    "build_balancer",
]
