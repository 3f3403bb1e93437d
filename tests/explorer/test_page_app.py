"""The app without a browser: its page is local, and its questions are answered, with annotations checked."""

import base64
import json
import re

import pytest

pytest.importorskip("dash")

from odestop.explorer.app import create_app
from odestop.explorer.layout import control_list, control_specs, number_in_words, structure_of, written
from odestop.explorer.presets import PRESETS
from odestop.explorer.query import to_query
from odestop.explorer.scene import Scene

# A short way: annotations are checked here, which takes long.
SHORT = Scene(dynamics_values={"theta": 0.5}, thresholds=(8.0,), step_size=0.05)


@pytest.fixture(scope="module")
def client():
    return create_app().server.test_client()


def reply(client, name, status=200, **asked):
    """Ask as the page does."""
    response = client.post(f"/answer/{name}", json=asked)
    assert response.status_code == status, response.text
    return response.json


def ask(client, channel, scene, **more):
    return reply(client, channel, **{"session": "s", "serial": 1, "query": to_query(scene), "theme": "light", **more})


def test_the_page_names_no_other_machine(client):
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
    (script,) = re.findall(r"""src=["'](/plotly.js[^"']*)""", page)
    with client.get(script) as response:
        assert response.mimetype == "text/javascript"
        assert "Plotly" in response.text


def test_paths_are_answered_with_the_edits_in_them(client):
    edits = [["theta", 1.5], ["step_size", -1.0]]
    first = ask(client, "paths", SHORT, edits=edits)
    assert "dynamics.theta=1.5" in first["query"]
    assert list(first["problems"]) == ["step_size"]
    assert first["controls"][0]["type"] == "Fieldset"
    assert set(first["figures"]) == {"ground", "trajectory"}
    assert float(first["texts"]["result-time"]) > 0
    again = ask(client, "paths", SHORT, edits=[["theta", 1.51]], known=first["known"])
    # What lies still is not sent again.
    assert not {"controls", "legends"} & set(again)
    assert again["figures"] == {}
    assert again["known"] == first["known"]
    assert set(again["tracks"]) == {"ground", "trajectory"}
    assert again["tracks"]["ground"] != first["tracks"]["ground"]


def test_curves_and_errors_are_answered(client):
    curves = ask(client, "curves", SHORT)
    assert curves["texts"]["name-time-derivative"] == "dT/dθ"
    assert float(curves["texts"]["result-time-derivative"].replace("−", "-")) < 0
    assert len(curves["figures"]["stopping"]["data"]) > 5
    errors = ask(client, "errors", SHORT)
    assert errors["figures"]["errors"]["data"]


@pytest.mark.parametrize("channel", ["paths", "curves", "errors"])
def test_what_was_cancelled_is_answered_without_a_picture(channel):
    client = create_app().server.test_client()
    assert reply(client, "cancel", session="s", channel=channel, serial=1) == {}
    answer = ask(client, channel, SHORT.with_theta(0.777), edits=[])
    assert not {"tracks", "figures", "legends"} & set(answer)
    if channel == "paths":
        assert "dynamics.theta=0.777" in answer["query"]
    if channel == "curves":
        assert answer["texts"]["result-time-derivative"] == "…"


def test_a_descent_is_answered_step_by_step_until_it_is_stopped(client):
    query = to_query(SHORT)
    steps = [reply(client, "descent", run="r", query=query, kind="T-theta")]
    steps += [reply(client, "descent", run="r") for _ in range(2)]
    assert len({step["query"] for step in steps}) >= 2
    assert [step["ended"] for step in steps] == [False] * 3
    assert reply(client, "descent", run="r", stop=True) == {}
    assert reply(client, "descent", run="r")["ended"]


def test_a_file_is_answered_with_its_name_and_content(client):
    file = reply(client, "file", query=to_query(Scene()), kind="script")
    assert file["name"] == "odestop_scene.py"
    compile(base64.b64decode(file["content"]), file["name"], "exec")


def test_an_error_that_nobody_foresaw_is_told_to_the_page(client):
    answer = reply(client, "descent", 500, run="r", query=to_query(Scene()), kind="nonsense")
    assert "nonsense" in answer["message"]


def test_only_the_page_itself_can_ask(client):
    """A browser sends JSON to another origin only after a preflight, in which that origin has to agree."""
    asked = json.dumps({"query": ""})
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.post("/answer/paths", data=asked, content_type=content_type).status_code == 415
    origin = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    preflight = client.options("/answer/paths", headers=origin)
    assert not [name for name in preflight.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118
    assert client.get("/answer/paths").status_code != 500
    assert client.post("/answer/nothing", json={}).status_code == 404


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
