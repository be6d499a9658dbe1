"""``effnet serve``: an HTTP server with a prediction API and a web page."""

from functools import partial
from typing import Annotated

from typer import Argument, Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options


@with_weights_options()
def serve(
    models: Annotated[
        list[str],
        Argument(
            metavar="MODEL",
            help="A weights file, an exported file, a run directory or a name such as b0; NAME=MODEL to rename it.",
        ),
    ],
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="0 for any free port.")] = 8000,
    host: Annotated[str, Option(metavar="ADDRESS", help="0.0.0.0 to be reachable from other machines.")] = "127.0.0.1",
    part: WeightsOptions = AS_STATED,
    allow_host: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Another name by which clients reach the server, such as that of a proxy; * for any. May be repeated.",
        ),
    ] = None,
    labels: options.LabelsOption = None,
    engine: options.EngineOption = "auto",
    batch_size: Annotated[
        int | None,
        options.number("Largest batch (default: the engine's fastest).", *options.BATCH_SIZE, max=serde.MAX_BATCH_SIZE),
    ] = None,
    wait_ms: Annotated[
        float, options.real("How long an idle network waits for a fuller batch.", max=10_000, metavar="MS")
    ] = 0.0,
    queue: Annotated[int, options.number("Images accepted and not answered yet; more are refused.")] = 64,
    max_mb: Annotated[float, options.real("Largest image file.", min=0.001, max=2_000, metavar="MB")] = 32.0,
    timeout: Annotated[
        float,
        options.real(
            "For an image to arrive, and again to be answered.", min=0.1, max=options.MAX_SECONDS, metavar="SECONDS"
        ),
    ] = 30.0,
    offline: options.OfflineOption = False,
) -> None:
    """Serve models over HTTP, with a web page.

    On Ctrl+C or SIGTERM the server answers what it has accepted and exits.
    """
    if len(models) > 1:
        part.refuse(f"applies to one model, got {len(models)}")
    from effnet.serve import server

    limits = server.ServerLimits(
        queue_size=queue, max_bytes=round(max_mb * 1e6), timeout_seconds=timeout, batch_wait_seconds=wait_ms / 1e3
    )
    names = options.read_labels(labels)
    hosts = allow_host or ()
    how = (limits, printing.note, names, partial(part.open_to_run, engine=engine), hosts)
    server.serve(models, host, port, engine, batch_size, *how)
