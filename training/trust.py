"""How far the metrics of a split can be trusted, and whether another network's are better or only luckier."""

from dataclasses import dataclass, field

from training.evaluation import Validation
from training.metrics import Report
from training.metrics.resampling import RESAMPLES, ImageByImage, difference, standard_errors
from training.model import Network


@dataclass(frozen=True)
class Trust:
    """Standard errors of the metrics of a network, and what they are beside another's, if there is one."""

    errors: Report
    """The standard error of each metric."""
    other: str | None = None
    """The name of the other network."""
    differences: Report = field(default_factory=dict)
    """This one's metrics less the other's, on the same images."""
    difference_errors: Report = field(default_factory=dict)
    """The standard errors of these."""


def trusted(
    validation: Validation,
    network: Network,
    against: tuple[str, Network] | None = None,
    times: int = RESAMPLES,
) -> tuple[Report, Trust]:
    """The metrics of ``network``, and how far to trust them by ``times`` draws of the images.

    ``against`` is another network to compare with, and its name.
    """
    networks = [network] if against is None else [network, against[1]]
    this, *others = validation.evaluations(networks, ImageByImage)
    metrics = this.compute()
    if not metrics:
        return {}, Trust({})
    draws = this.draws(times)
    drawn = list(this.resampled(draws))
    errors = standard_errors(drawn)
    if against is None:
        return metrics, Trust(errors)
    (other,) = others
    apart = [difference(*pair) for pair in zip(drawn, other.resampled(draws), strict=True)]
    return metrics, Trust(errors, against[0], difference(metrics, other.compute()), standard_errors(apart))
