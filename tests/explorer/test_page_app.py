"""The app without a browser: its pages and files are local, and its callbacks answer, with annotations checked."""

import json
import re

import pytest

pytest.importorskip("dash")

from odestop.explorer.app import create_app
from odestop.explorer.layout import control_list, control_specs, number_in_words, structure_of, written
from odestop.explorer.presets import PRESETS
from odestop.explorer.query import to_query
from odestop.explorer.scene import Scene


@pytest.fixture(scope="module")
def app():
    return create_app()


def call(app, output, **asked):
    """Call a callback as the page does, by one of its outputs; the values of all its outputs come back."""
    client = app.server.test_client()
    (callback,) = [
        c for c in client.get("/_dash-dependencies").json if f"{output}@" not in c["output"] and output in c["output"]
    ]
    (given,) = callback["inputs"]
    parts = [part.rsplit(".", 1) for part in callback["output"].strip(".").split("...")]
    outputs = [{"id": identifier, "property": name} for identifier, name in parts]
    body = {
        "output": callback["output"],
        "outputs": outputs if len(outputs) > 1 else outputs[0],
        "inputs": [{**given, "value": asked}],
        "changedPropIds": [f"{given['id']}.{given['property']}"],
    }
    response = client.post("/_dash-update-component", data=json.dumps(body), content_type="application/json")
    assert response.status_code in (200, 204), response.text
    if response.status_code == 204:
        return {}
    failure = response.json.get("sideUpdate", {}).get("failure")
    return {"failure": failure} if failure else response.json["response"]


def ask(app, channel, scene, **more):
    asked = {"session": "s", "channel": channel, "serial": 1, "query": to_query(scene), "theme": "light", **more}
    return call(app, f"answer-{channel}.data", **asked)


def test_the_page_names_no_other_machine(app):
    client = app.server.test_client()
    page = client.get("/").text
    assert re.findall(r"""(?:src|href)=["'](?!/)""", page) == []
    assets = [path for path in re.findall(r"""(?:src|href)=["']([^"']+)""", page) if "/assets/" in path]
    assert len(assets) == 2
    for path in assets:
        with client.get(path) as response:
            text = response.text
        assert "http://" not in text
        assert "https://" not in text
        assert "@import" not in text


def test_paths_are_answered_with_the_edits_in_them(app):
    edits = [["theta", 1.5], ["step_size", -1.0]]
    response = ask(app, "paths", PRESETS["figure-1"].scene, edits=edits, structure="", ground="")
    assert "failure" not in response
    reply = response["answer-paths"]["data"]
    assert "dynamics.theta=1.5" in reply["query"]
    assert list(reply["problems"]) == ["step_size"]
    assert reply["redrawn"]
    assert response["control-list"]["children"]
    assert float(response["result-time"]["children"]) > 0
    again = ask(
        app,
        "paths",
        PRESETS["figure-1"].scene,
        edits=[["theta", 1.6]],
        structure=reply["structure"],
        ground=reply["ground"],
    )
    # What lies still is not sent again.
    assert "control-list" not in again
    assert "ground" not in again
    assert "tracks" in again


def test_curves_and_errors_are_answered(app):
    response = ask(app, "curves", PRESETS["figure-1"].scene)
    assert response["name-time-derivative"]["children"] == "dT/dθ"
    assert float(response["result-time-derivative"]["children"].replace("−", "-")) < 0
    assert len(response["stopping"]["figure"]["data"]) > 5
    response = ask(app, "errors", PRESETS["figure-1"].scene)
    assert response["errors"]["figure"]["data"]


@pytest.mark.parametrize("channel", ["paths", "curves", "errors"])
def test_what_was_cancelled_is_answered_without_a_picture(channel):
    app = create_app()
    call(app, "cancelled.data", session="s", channel=channel, serial=1)
    scene = PRESETS["figure-1"].scene.with_theta(0.777)
    response = ask(app, channel, scene, edits=[], structure="", ground="")
    assert not {"tracks", "stopping", "errors"} & set(response)
    assert response[f"answer-{channel}"]["data"]["serial"] == 1
    if channel == "curves":
        assert response["result-time-derivative"]["children"] == "…"


def test_a_descent_is_answered_step_by_step_until_it_is_stopped(app):
    query = to_query(PRESETS["figure-1"].scene)
    steps = [call(app, "answer-descent.data", run="r", query=query, kind="T-theta")]
    steps += [call(app, "answer-descent.data", run="r") for _ in range(2)]
    answers = [step["answer-descent"]["data"] for step in steps]
    assert len({answer["query"] for answer in answers}) >= 2
    assert {(answer["run"], answer["ended"]) for answer in answers} == {("r", False)}
    assert call(app, "answer-descent.data", run="r", stop=True) == {}
    assert call(app, "answer-descent.data", run="r")["answer-descent"]["data"]["ended"]


def test_an_error_that_nobody_foresaw_is_told_to_the_page(app):
    response = call(app, "answer-descent.data", run="r", query=to_query(Scene()), kind="nonsense")
    assert "nonsense" in response["failure"]["data"]["message"]
    assert response["failure"]["data"]["asked"] == "ask-descent"


@pytest.mark.parametrize("name", PRESETS)
def test_the_controls_show_the_values_of_the_scene(name):
    scene = PRESETS[name].scene
    specs = control_specs(scene)
    for key, value in scene.dynamics_values.items():
        assert specs[f"dynamics.{key}"]["value"] == value
    assert specs["x0"]["value"] == written(scene.x0)
    assert specs["thresholds.0"]["value"] == scene.threshold
    assert len(control_list(scene)) >= 4


def test_the_structure_changes_with_what_there_is_to_control_and_not_with_values():
    scene = PRESETS["figure-1"].scene
    assert structure_of(scene) == structure_of(scene.with_theta(2.0))
    assert structure_of(scene) != structure_of(PRESETS["missed-target"].scene)


@pytest.mark.parametrize(("value", "words"), [(0.0, "0"), (-2.5, "−2.5"), (float("-inf"), "−∞"), (1e-12, "1e−12")])
def test_numbers_in_words(value, words):
    assert number_in_words(value) == words
