"""An interrupt is heeded even where a library drops it."""

import signal
from contextlib import suppress
from pathlib import Path

import pytest

import export.bundle_writer
from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.errors import told
from export.interrupts import check_interrupted
from export.onnx.convert import Converted
from export.validation_images import RgbImage
from mtcp_serve.bundle.manifest import Manifest
from tests.needs import needs_posix


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bundle_does_not_take_its_place_after_an_interrupt_that_was_dropped(
    number: signal.Signals,
    graph: DeploymentGraph,
    images: dict[str, RgbImage],
    converted: Converted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dropping(_: DeploymentGraph) -> Converted:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
            pytest.fail("an interrupt is raised where it comes")
        return converted

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the commands have it
    try:
        monkeypatch.setattr(export.bundle_writer, "convert", lambda _: converted)
        with told():
            write_bundle(graph, images, tmp_path / "bundle", BundleOptions("tiny", "1"))
        monkeypatch.setattr(export.bundle_writer, "convert", dropping)
        with pytest.raises(KeyboardInterrupt), told():
            write_bundle(graph, images, tmp_path / "bundle", BundleOptions("tiny", "2"))
        assert signal.getsignal(number) is signal.default_int_handler
        check_interrupted()  # of the next work, nothing is remembered
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Manifest.load(tmp_path / "bundle").version == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@needs_posix
def test_a_block_inside_another_forgets_nothing() -> None:
    def work() -> None:
        with told():
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with told():
                pass
            check_interrupted()

    with pytest.raises(KeyboardInterrupt):
        work()
    check_interrupted()  # of the next work, nothing is remembered
