"""How the commands end: one scheme of exit statuses."""

import pytest
import typer

from export import errors
from export.errors import (
    ExportError,
    MachineError,
    ParityError,
    PlanError,
    PlanMismatchError,
    TritonError,
    told,
)
from mtcp_serve.errors import BundleError
from training.checkpoint import CheckpointError

FAULTS = [
    (ExportError("no such name"), 2),
    (BundleError("no bundle"), 2),
    (CheckpointError("no checkpoint"), 2),
    (ParityError({"depth": "is off"}, "not the same"), 1),
    (PlanError("refused"), 1),
    (TritonError("it ended"), 1),
    (PlanMismatchError("another GPU"), 3),
    (MachineError("no Triton"), 3),
]


@pytest.mark.parametrize(("fault", "status"), FAULTS, ids=[type(fault).__name__ for fault, _ in FAULTS])
def test_a_fault_is_told_and_has_its_status(
    fault: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, told(CheckpointError):
        raise fault
    assert ended.value.exit_code == status
    assert capsys.readouterr().err == f"error: {fault}\n"


def test_every_error_of_export_is_among_them() -> None:
    known = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {kind for kind in known if issubclass(kind, ExportError)} <= {type(fault) for fault, _ in FAULTS}


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), told():
        raise ZeroDivisionError
