"""``odestop explore``: the explorer, in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from odestop._validation import check_choice

EPILOG = "\n\n".join(
    (
        "[bold]Examples[/]",
        "odestop explore",
        "odestop explore --scene nesterov-ripples --port 9000 --no-browser",
        '[dim]Needs the extra explore: pip install "odestop\\[explore]". Everything is served from this machine.[/]',
    )
)


def explore(
    scene: Annotated[
        str | None,
        typer.Option(
            help="What to start with: a name such as figure-1; a wrong name lists all.", show_default="figure-1"
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen at; the next free one if it is taken.")] = 8050,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is for this machine alone.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Explore optimizer dynamics in the browser: drag the start, move a slider, watch T and N answer."""
    try:
        from odestop.explorer.app import serve
    except ModuleNotFoundError as error:
        if error.name not in ("dash", "plotly", "werkzeug"):
            raise
        raise typer.BadParameter(f'{error.name} is not installed: pip install "odestop[explore]"') from error
    from odestop.explorer.presets import PRESETS

    try:
        chosen = None if scene is None else PRESETS[check_choice("scene", scene, tuple(PRESETS))].scene
        serve(chosen, host=host, port=port, open_browser=browser, announce=typer.echo)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
