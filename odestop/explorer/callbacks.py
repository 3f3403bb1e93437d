"""What happens when something on the page is touched: each button and field calls a function of assets/explorer.js."""

from __future__ import annotations

from dash import ALL, ClientsideFunction, Dash, Input, Output, State


def register(app: Dash) -> None:
    """Add the callbacks, all of which run in the browser."""

    def in_browser(function: str, *arguments: Input | State, initially: bool = False) -> None:
        # They set what they change themselves.
        nothing = Output("heard", "data", allow_duplicate=not initially)
        app.clientside_callback(
            ClientsideFunction("explorer", function), nothing, *arguments, prevent_initial_call=not initially
        )

    # Sliders are listened to directly, which is quicker.
    in_browser("turn", *(Input({"part": part, "name": ALL}, "value") for part in ("number", "text", "choice")))
    in_browser("begin", Input("start", "data"), initially=True)
    in_browser("chooseTheme", Input("toggle-theme", "n_clicks"))
    in_browser("pick", Input("preset", "value"), State("presets", "data"))
    in_browser("reset", Input("reset", "n_clicks"), State("preset", "value"), State("presets", "data"))
    in_browser("descend", Input("descend", "n_clicks"), State("descent-kind", "value"))
    in_browser("stopWorking", Input({"stop": ALL}, "n_clicks"))
    in_browser("save", Input({"file": ALL}, "n_clicks"))
    in_browser("copyAddress", Input("copy", "n_clicks"))
    in_browser("closeNotice", Input("close-notice", "n_clicks"))
