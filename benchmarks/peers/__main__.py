"""The gateway against other servers of the same graph, in one run: ``python -m benchmarks.peers IMAGE``.

A plain FastAPI server, LitServe and BentoML (extra ``bench``; what is not installed is left out, with the
reason) open the same bundle with the same engine and threads, and decode and encode with the same functions.
The gateway checks, bounds, describes and measures beside that. ``--against CHECKOUT`` adds the gateway of an
earlier version, with the engine that it takes by default. Closed loops of clients take turns, a round
of each server after the other, so that a change of the machine's load meets all alike.

Prints for npz at the model's size and JSON with PNGs at the image's, by number of clients, the answers a
second of each server, the gateway's over the peer's (the median of the ratios of each round), and the
milliseconds that all processes of the server computed for an answer: where other work shares the machine, a
server with more threads gets more of it, and only these compare the servers. Beneath that the largest
resident memory of all processes of each server so far, MB. ``--json FILE`` writes the same for machines.
"""

import asyncio
import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, get_args

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, processor_seconds, resident_megabytes
from benchmarks.peers.servers import OURS, PEERS, Server, ours
from benchmarks.peers.work import Format
from benchmarks.serving.loops import Outcome, closed_loop
from mtcp_serve.bundle import DEFAULT_BUNDLE

FORMATS: tuple[Format, ...] = get_args(Format)


def main(
    image: Annotated[Path, typer.Argument(help="The image to send.", exists=True, dir_okay=False)],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    engine: Annotated[str, typer.Option(help="onnxruntime, or openvino.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="CPU threads per inference.")] = 2,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,4,16",
    seconds: Annotated[float, typer.Option(help="Seconds of each loop.")] = 3.0,
    rounds: Annotated[int, typer.Option(help="Turns of each loop.")] = 3,
    peers: Annotated[
        str, typer.Option(help="Names of peers; those that are not installed are left out.")
    ] = ",".join(PEERS),
    against: Annotated[
        Path | None,
        typer.Option(
            help="A checkout of an earlier version to compare with, by its defaults.", file_okay=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the report here as JSON.")] = None,
) -> None:
    """Compare the gateway with other servers."""
    names = [name.strip() for name in peers.split(",") if name.strip()]
    if unknown := set(names) - set(PEERS):
        raise typer.BadParameter(f"there is no peer {', '.join(unknown)}; there is {', '.join(PEERS)}")
    left_out = {name: problem for name in names if (problem := PEERS[name].problem())}
    counts = [int(count) for count in clients.split(",")]
    report: dict[str, Any] = {"machine": machine(threads), "engine": engine, "left_out": left_out}
    with ExitStack() as stack:
        queue = ("--queue-size", str(max(counts)))
        servers = {OURS: stack.enter_context(ours(bundle, engine, threads, *queue))}
        if against is not None:
            before = ours(bundle, "auto", threads, *queue, checkout=against)
            servers["earlier version"] = stack.enter_context(before)
        for name in names:
            if name not in left_out:
                servers[name] = stack.enter_context(PEERS[name].start(bundle, engine, threads))
        report |= asyncio.run(compare(servers, image.read_bytes(), counts, seconds, rounds))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


async def compare(
    servers: dict[str, Server], image: bytes, counts: list[int], seconds: float, rounds: int
) -> dict[str, Any]:
    """Responses per second, ratios and memory."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    rates: dict[str, Any] = {form: {} for form in FORMATS}
    memory: dict[int, Any] = {}
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        for server in servers.values():
            for form in FORMATS:
                await closed_loop(server.call(http, image, form), 2, at_least=2)
        for count in counts:
            for form in FORMATS:
                found: dict[str, list[Outcome]] = {name: [] for name in servers}
                spent = dict.fromkeys(servers, 0.0)
                for _ in range(rounds):
                    for name, server in servers.items():
                        call = server.call(http, image, form)
                        before = processor_seconds(server.pids)
                        found[name].append(await closed_loop(call, count, seconds))
                        spent[name] += processor_seconds(server.pids) - before
                rates[form][count] = {
                    name: summary(parts, found[OURS], spent[name]) for name, parts in found.items()
                }
            memory[count] = {name: _megabytes(server) for name, server in servers.items()}
    return {"answers": rates, "resident_mb": memory}


def summary(parts: list[Outcome], reference: list[Outcome], spent: float) -> dict[str, Any]:
    """What a server answered, ``spent`` (s) on all of it, and the median of the ``reference`` over it."""
    ratios = [first.rate / part.rate for first, part in zip(reference, parts, strict=True) if part.rate]
    whole = Outcome.merge(parts)
    return whole.summary() | {
        "processor_ms": round(1000 * spent / max(len(whole.ms), 1), 1),
        "gateway_over_it": round(statistics.median(ratios), 2) if ratios else None,
    }


def _megabytes(server: Server) -> float:
    return round(sum(resident_megabytes(pid, peak=True) or 0 for pid in server.pids), 1)


def show(report: dict[str, Any]) -> None:
    """The report for people."""
    console = Console(highlight=False, width=120)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), report["engine"])
    for name, problem in report["left_out"].items():
        console.print(f"left out: {name}: {problem}", markup=False)
    for form, rows in report["answers"].items():
        table = Table(
            "clients", title=f"{form}: responses per second (gateway over it), processor ms per response"
        )
        for name in next(iter(rows.values())):
            table.add_column(name, justify="right")
        for count, row in rows.items():
            cells = [
                f"{each['per_s']} ({each['gateway_over_it']}), {each['processor_ms']}"
                for each in row.values()
            ]
            table.add_row(str(count), *cells)
        console.print(table)
    table = Table("clients", title="Peak resident memory so far, MB")
    for name in next(iter(report["resident_mb"].values())):
        table.add_column(name, justify="right")
    for count, row in report["resident_mb"].items():
        table.add_row(str(count), *(str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
