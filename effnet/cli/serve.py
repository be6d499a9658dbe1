"""``effnet serve``: models over HTTP, and a page to look at them with."""

from __future__ import annotations

from typing import Annotated

import typer

from effnet.cli.options import EngineOption, OfflineOption


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="A file of weights or an exported one, a run's folder, or a name: b0; NAME=MODEL to call it NAME.",
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="0.0.0.0 to be reached from other machines.")
    ] = "127.0.0.1",
    engine: EngineOption = "auto",
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Pictures computed at once, at the most; by default the engine's best."),
    ] = None,
    wait_ms: Annotated[
        float, typer.Option(min=0, max=10_000, metavar="MS", help="An idle network waits so long for a fuller batch.")
    ] = 0.0,
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Pictures accepted and not answered yet; more are refused.")
    ] = 64,
    max_mb: Annotated[float, typer.Option(min=0.001, metavar="MB", help="The largest picture's file.")] = 32.0,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="For a picture to arrive, and again for it to be answered."),
    ] = 30.0,
    offline: OfflineOption = False,
) -> None:
    """Serve models over HTTP, with a page.

    Stopped by Ctrl+C or SIGTERM, it answers what it has accepted, and then ends.
    """
    from effnet.cli.printing import note
    from effnet.serve.server import ServerLimits
    from effnet.serve.server import serve as run

    limits = ServerLimits(
        queue_size=queue, max_bytes=round(max_mb * 1e6), timeout_seconds=timeout, batch_wait_seconds=wait_ms / 1e3
    )
    run(models, host, port, engine, batch, limits, ready=note)
