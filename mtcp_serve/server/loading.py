"""Opening what the settings name: bundles in folders, or the models of Triton servers."""

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import Engine
from mtcp_serve.engines.loading import load_engine, load_triton
from mtcp_serve.inference.registry import check_names
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.memory import bound_heaps


def load_engines(settings: Settings) -> list[Engine]:
    """An engine for each bundle, in order; with Triton endpoints one for each model that Triton has.

    From then on this process keeps little of the memory that it frees.

    Raises:
        EngineUnavailableError: what the engine needs is not on this machine.
        BundleError: a bundle is missing, damaged, or cannot be run, two have one name, or no Triton answers.
    """
    bound_heaps()
    if settings.triton:
        return load_triton(settings.triton, settings.triton_ca, settings.max_batch_size)
    bundles = [Bundle.open(folder) for folder in settings.bundle]
    check_names(bundle.manifest for bundle in bundles)
    return [load_engine(bundle, settings.engine, settings.engine_options) for bundle in bundles]
