/* What has to happen in the browser, between the person's hand and the server.
 *
 * The state is the query of the page's address.  What a hand does is an edit: the name of a control and its new value.
 * A request for the "paths" carries the state and the edits since; its answer brings the new state, and how to draw it.
 * "curves" and then "errors" are asked for after it.  A channel has one request on its way at most, and the next one
 * carries whatever came meanwhile: the last state is always drawn, and nothing piles up.  What takes long and has become
 * stale is cancelled on the server.
 *
 * Dash makes the page, its lists and its fields, and calls `window.dash_clientside.explorer` when they are used.  What
 * has to be quick goes past it: sliders, requests, and what is drawn in elements that Dash leaves empty.
 */
(function () {
    "use strict";

    const STALE_AFTER = 400; // milliseconds
    const SHOW_WORKING_AFTER = 600;
    const CURVES_AT_LEAST_EVERY = 300;
    const ADDRESS_AFTER = 250;
    const PLOTLY = { staticPlot: true, responsive: true };

    const session = Math.random().toString(36).slice(2);
    const byId = (id) => document.getElementById(id);
    const set = (id, props) => window.dash_clientside.set_props(id, props);
    const context = () => window.dash_clientside.callback_context;

    let query = "";
    let edits = [];
    let theme = "light";
    let specs = {};
    let known = {};
    let serial = 0;
    let run = null;

    /* ---- Requests ---- */

    /** Ask the server; if it has no answer, say why, and return null. */
    async function request(name, asked) {
        let response, reply;
        try {
            response = await fetch(`answer/${name}`, {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify(asked),
            });
            reply = await response.json();
        } catch {
            notice("The explorer's server does not answer: start odestop explore again, then reload this page.");
            return null;
        }
        if (!response.ok) {
            notice(reply.message);
            return null;
        }
        return reply;
    }

    const channels = {
        paths: { busy: 0, again: false },
        curves: { busy: 0, again: false },
        errors: { busy: 0, again: false },
    };

    async function ask(name) {
        const channel = channels[name];
        if (channel.busy) {
            channel.again = true;
            cancelIfStale(name);
            return;
        }
        serial += 1;
        Object.assign(channel, { busy: serial, again: false, since: performance.now(), query });
        channel.timer = window.setTimeout(() => showWorking(name, true), SHOW_WORKING_AFTER);
        const asked = { session, serial, query, theme };
        if (name === "paths") {
            channel.sent = edits.length;
            Object.assign(asked, { edits, known });
        }
        settle();
        const reply = await request(name, asked);
        if (reply) {
            draw(reply);
            whenAnswered[name](reply);
        } else {
            unanswered(name);
        }
        settle();
    }

    function unanswered(name) {
        if (name === "paths") {
            edits = edits.slice(channels.paths.sent);
        }
        if (release(name)) {
            ask(name);
        }
        if (run !== null) {
            endDescent("");
        }
    }

    function cancelIfStale(name) {
        const channel = channels[name];
        const serialThen = channel.busy;
        window.setTimeout(
            () => channel.busy === serialThen && channel.again && cancel(name),
            Math.max(0, channel.since + STALE_AFTER - performance.now())
        );
    }

    function cancel(name) {
        if (channels[name].busy) {
            request("cancel", { session, channel: name, serial: channels[name].busy });
        }
    }

    function release(name) {
        const channel = channels[name];
        window.clearTimeout(channel.timer);
        showWorking(name, false);
        channel.busy = 0;
        const again = channel.again;
        channel.again = false;
        return again;
    }

    function showWorking(name, shown) {
        const sign = byId(`working-${name}`);
        if (sign) {
            sign.classList.toggle("shown", shown);
        }
    }

    const PANELS = { paths: "results", curves: "stopping-panel", errors: "errors-panel" };

    /** Say of each panel, and of the page, whether what it shows is still on its way. */
    function settle() {
        const busy = Object.keys(channels).filter((name) => channels[name].busy);
        const say = (id, isBusy) => byId(id).setAttribute("aria-busy", String(isBusy));
        Object.entries(PANELS).forEach(([name, id]) => say(id, busy.includes(name)));
        say("page", busy.length > 0 || edits.length > 0);
    }

    /* ---- The state ---- */

    function edit(name, value) {
        if (run !== null) {
            endDescent("Stopped: the scene was changed.");
        }
        const { busy, sent } = channels.paths;
        const unsent = busy ? sent : 0;
        edits = edits.filter((other, i) => i < unsent || other[0] !== name).concat([[name, value]]);
        if (channels.errors.busy) {
            cancel("errors");
        }
        ask("paths");
    }

    function moveTo(newQuery) {
        query = newQuery;
        edits = [];
        ask("paths");
    }

    let addressTimer = 0;

    /** Browsers refuse an address that changes often; it follows when the hand rests. */
    function writeAddress(now) {
        const write = () => {
            if (window.location.search.slice(1) !== query) {
                window.history.replaceState(null, "", `?${query}`);
            }
        };
        window.clearTimeout(addressTimer);
        if (now) {
            write();
        } else {
            addressTimer = window.setTimeout(write, ADDRESS_AFTER);
        }
    }

    function pathsAnswered(reply) {
        const channel = channels.paths;
        const isCurrent = channel.query === query;
        const again = release("paths");
        known = isCurrent ? { ...known, ...reply.known } : {};
        if (isCurrent) {
            query = reply.query;
            edits = edits.slice(channel.sent);
            start = reply.start;
            showControls(reply);
            if (reply.messages.length) {
                notice(reply.messages.join(". "));
            }
            placeStart();
            writeAddress(false);
        }
        if (again || edits.length) {
            ask("paths");
            if (performance.now() - (channels.curves.since || 0) > CURVES_AT_LEAST_EVERY) {
                ask("curves");
            }
        } else {
            ask("curves");
        }
    }

    function curvesAnswered() {
        if (release("curves")) {
            ask("curves");
        } else if (run !== null) {
            nextStep();
        } else if (!channels.paths.busy) {
            ask("errors");
        }
    }

    function errorsAnswered() {
        if (release("errors")) {
            ask("errors");
        }
    }

    const whenAnswered = { paths: pathsAnswered, curves: curvesAnswered, errors: errorsAnswered };

    /* ---- Controls ---- */

    let shown = {};
    let shownProblems = {};
    let shownPreset = null;

    const rounded = (value) => Number(value.toPrecision(4));

    /** Where a slider stands for a value: sliders of ranges over decades move in the exponent. */
    function position(spec, value) {
        const inside = Math.min(Math.max(value, spec.low), spec.high);
        return spec.logarithmic ? Math.log10(inside) : inside;
    }

    function valueAt(spec, place) {
        const value = spec.logarithmic ? 10 ** place : place;
        if (spec.integer) {
            return Math.round(value);
        }
        // Steps from one end of a range over zero come to zero only nearly.
        return Math.abs(value) < 1e-9 * (spec.high - spec.low) ? 0 : rounded(value);
    }

    function showValue(name, value, except) {
        const spec = specs[name];
        shown[name] = value;
        const parts = spec.kind === "integer" ? ["number"] : [spec.kind];
        parts.filter((part) => part !== except).forEach((part) => set({ name, part }, { value }));
        if (spec.slides && value !== null && except !== "slider") {
            set({ name, part: "slider" }, { value: position(spec, value) });
        }
    }

    function showControls(reply) {
        specs = reply.specs;
        if (reply.controls) {
            set("control-list", { children: reply.controls });
            shown = Object.fromEntries(Object.entries(specs).map(([name, spec]) => [name, spec.value]));
            shownProblems = {};
        }
        const waiting = new Set(edits.map(([name]) => name));
        Object.entries(specs).forEach(([name, spec]) => {
            // What could not be used stays as it was typed, with the reason below it.
            if (!waiting.has(name) && !(name in reply.problems) && shown[name] !== spec.value) {
                showValue(name, spec.value);
            }
        });
        new Set([...Object.keys(shownProblems), ...Object.keys(reply.problems)]).forEach((name) => {
            const words = reply.problems[name] || "";
            if (words !== (shownProblems[name] || "") && name in specs) {
                set({ name, part: "problem" }, { children: words });
            }
        });
        shownProblems = reply.problems;
        if (reply.preset !== shownPreset) {
            shownPreset = reply.preset;
            set("preset", { value: reply.preset });
        }
    }

    /** Sliders are heard here, before Dash has heard of them. */
    function slide(field) {
        const { name } = JSON.parse(field.id);
        const value = valueAt(specs[name], Number(field.value));
        if (value !== shown[name]) {
            edit(name, value);
            showValue(name, value, "slider");
        }
    }

    /** Fields that no label is for get the name of the label beside them. */
    function nameFields() {
        document.querySelectorAll("#control-list .control").forEach((control) => {
            const label = control.querySelector("label");
            control.querySelectorAll("input").forEach((field) => {
                if (label && label.htmlFor !== field.id) {
                    field.setAttribute("aria-label", label.textContent.trim());
                }
            });
        });
    }

    /* ---- Drawing ---- */

    /** Show what an answer has to show; the rest stays as it is. */
    function draw({ texts = {}, legends = {}, figures = {}, tracks = {} }) {
        Object.entries(texts).forEach(([id, words]) => {
            byId(id).textContent = words;
        });
        Object.entries(legends).forEach(([id, entries]) => byId(id).replaceChildren(...entries.map(legendEntry)));
        Object.entries(figures).forEach(([id, { data, layout }]) => Plotly.react(id, data, layout, PLOTLY));
        Object.entries(tracks).forEach(([id, lines]) => {
            if (!shownTracks[id]) {
                // Also when the window gets another size.
                byId(id).on("plotly_afterplot", () => {
                    drawTracks(id);
                    placeStart();
                });
            }
            shownTracks[id] = lines;
            drawTracks(id);
        });
    }

    function legendEntry([mark, colour, words]) {
        const entry = document.createElement("span");
        entry.textContent = words;
        entry.className = mark ? "entry" : "note";
        if (mark) {
            const sign = document.createElement("i");
            sign.className = mark;
            sign.style.color = colour;
            entry.prepend(sign);
        } else {
            entry.title = words;
        }
        return entry;
    }

    const shownTracks = {};

    /** Draw what moves above a graph, on its axes: a graph of its own would take much longer at every move. */
    function drawTracks(id) {
        const axes = axesOf(id);
        if (!axes) {
            return;
        }
        const canvas = byId(`${id}-tracks`);
        const pixel = window.devicePixelRatio;
        canvas.width = canvas.clientWidth * pixel;
        canvas.height = canvas.clientHeight * pixel;
        const pen = canvas.getContext("2d");
        pen.scale(pixel, pixel);
        const isWithin = (axis, pixel) => pixel >= axis._offset && pixel <= axis._offset + axis._length;
        const isInside = (place) => axes.every((axis, i) => isWithin(axis, place[i]));
        shownTracks[id].forEach(({ x, y, mode, line, marker }) => {
            const places = x.map((u, i) => {
                const place = u === null || y[i] === null ? [NaN] : pixelsOf(axes, [u, y[i]]);
                return place.every(Number.isFinite) ? place : null;
            });
            if (mode === "lines") {
                drawLine(pen, axes, places, line);
            } else {
                places.forEach((place, i) => place && isInside(place) && drawMarker(pen, place, marker, i));
            }
        });
    }

    function drawLine(pen, [xaxis, yaxis], places, { color, width }) {
        pen.save();
        pen.beginPath();
        pen.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length);
        pen.clip();
        pen.beginPath();
        places.forEach((place, i) => place && (places[i - 1] ? pen.lineTo(...place) : pen.moveTo(...place)));
        pen.lineJoin = "round";
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.stroke();
        pen.restore();
    }

    function drawMarker(pen, [left, top], { color, size, symbol, line }, index) {
        const colour = Array.isArray(color) ? color[index] : color;
        pen.beginPath();
        pen.lineWidth = line ? line.width : 0;
        if (symbol === "square-open") {
            pen.rect(left - size / 2, top - size / 2, size, size);
            pen.strokeStyle = colour;
            pen.stroke();
            return;
        }
        pen.arc(left, top, size / 2, 0, 2 * Math.PI);
        pen.fillStyle = colour;
        pen.fill();
        if (line) {
            pen.strokeStyle = line.color;
            pen.stroke();
        }
    }

    /* ---- Pointing at the pictures ---- */

    let start = null;
    let dragging = false;

    /** The axes of a graph; null before it is drawn. */
    function axesOf(id) {
        const drawn = byId(id)._fullLayout;
        return drawn && drawn.xaxis && drawn.xaxis._length ? [drawn.xaxis, drawn.yaxis] : null;
    }

    const pixelsOf = (axes, point) => axes.map((axis, i) => axis._offset + axis.d2p(point[i]));

    function placeStart(pixels) {
        const axes = axesOf("ground");
        if (!axes || (!pixels && (!start || dragging))) {
            return;
        }
        const handle = byId("start-point");
        const [left, top] = pixels || pixelsOf(axes, start);
        handle.style.left = `${left}px`;
        handle.style.top = `${top}px`;
        handle.classList.add("placed");
    }

    /** Call `at` with the plot's coordinates and the pixels while the pointer is pressed on a surface. */
    function whileDragged(surface, at, { begin, end }) {
        const point = (event) => {
            const axes = axesOf(surface.dataset.plot);
            if (!axes) {
                return;
            }
            const box = surface.getBoundingClientRect();
            const pixels = [event.clientX - box.left, event.clientY - box.top].map((pixel, i) =>
                Math.min(Math.max(pixel - axes[i]._offset, 0), axes[i]._length)
            );
            at(
                axes.map((axis, i) => rounded(axis.p2d(pixels[i]))),
                axes.map((axis, i) => axis._offset + pixels[i])
            );
        };
        let pressed = false;
        surface.addEventListener("pointerdown", (event) => {
            if (event.button === 0) {
                pressed = true;
                surface.setPointerCapture(event.pointerId);
                event.preventDefault();
                begin();
                point(event);
            }
        });
        surface.addEventListener("pointermove", (event) => pressed && point(event));
        const release = () => {
            if (pressed) {
                pressed = false;
                end();
            }
        };
        surface.addEventListener("pointerup", release);
        surface.addEventListener("pointercancel", release);
    }

    function moveStart(point, pixels) {
        start = point;
        placeStart(pixels);
        edit("start", point);
    }

    const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

    function moveByKey(event) {
        const axes = axesOf("ground");
        const direction = ARROWS[event.key];
        if (!direction || !axes || !start) {
            return;
        }
        event.preventDefault();
        const share = event.shiftKey ? 0.05 : 0.01;
        const reach = axes.map((axis) => share * (axis.range[1] - axis.range[0]));
        moveStart(start.map((x, i) => rounded(x + direction[i] * reach[i])));
    }

    function listen() {
        const surface = byId("surface");
        surface.dataset.plot = "ground";
        whileDragged(surface, moveStart, {
            begin: () => {
                dragging = true;
                byId("start-point").focus({ preventScroll: true });
            },
            end: () => {
                dragging = false;
                placeStart();
            },
        });
        byId("start-point").addEventListener("keydown", moveByKey);
        const curves = byId("stopping-drawing");
        curves.dataset.plot = "stopping";
        whileDragged(curves, ([theta]) => edit("theta", theta), { begin: () => {}, end: () => {} });
        new MutationObserver(nameFields).observe(byId("control-list"), { childList: true, subtree: true });
        document.addEventListener("input", ({ target }) => target.type === "range" && slide(target), true);
        window.addEventListener("popstate", () => moveTo(window.location.search.slice(1)));
    }

    /* ---- Descents ---- */

    function showRunning() {
        const button = byId("descend");
        button.textContent = run === null ? "Descend" : "Stop";
        button.classList.toggle("running", run !== null);
    }

    function endDescent(message) {
        request("descent", { run, stop: true });
        run = null;
        showRunning();
        set("descent-note", { children: message, title: message });
    }

    /** Draw a step of the descent; the next one is asked for when its curves are drawn. */
    async function nextStep(beginning) {
        const asked = { run, ...beginning };
        const step = await request("descent", asked);
        if (asked.run !== run) {
            return;
        }
        if (!step || step.ended) {
            endDescent(step ? step.message : "");
        } else {
            set("descent-note", { children: step.message, title: step.message });
        }
        if (step && step.query) {
            moveTo(step.query);
        }
    }

    /* ---- Files ---- */

    async function save(kind) {
        const file = await request("file", { kind, query });
        if (file) {
            const bytes = Uint8Array.from(atob(file.content), (character) => character.charCodeAt(0));
            const link = document.createElement("a");
            link.href = URL.createObjectURL(new Blob([bytes]));
            link.download = file.name;
            link.click();
            window.setTimeout(() => URL.revokeObjectURL(link.href), 60000);
        }
    }

    /* ---- Notices ---- */

    function notice(message) {
        set("notice-text", { children: message });
        byId("notice").classList.toggle("empty", !message);
    }

    /* ---- What Dash calls ---- */

    /** Callbacks that set what they change themselves. */
    function silently(callbacks) {
        const wrap = (callback) => (...values) => {
            callback(...values);
            return window.dash_clientside.no_update;
        };
        return Object.fromEntries(Object.entries(callbacks).map(([name, callback]) => [name, wrap(callback)]));
    }

    /** The id and the value of the one thing that was touched; null if a whole list of controls is new. */
    function touched() {
        const { triggered, triggered_id } = context();
        return triggered.length === 1 && triggered_id ? { id: triggered_id, value: triggered[0].value } : null;
    }

    window.dash_clientside = window.dash_clientside || {};
    window.dash_clientside.explorer = silently({
        begin(startQuery) {
            theme = document.documentElement.dataset.theme;
            listen();
            moveTo(window.location.search.slice(1) || startQuery);
        },

        turn() {
            const touch = touched();
            const spec = touch && specs[touch.id.name];
            if (!spec) {
                return;
            }
            const { name, part } = touch.id;
            let value = touch.value;
            if (part === "number") {
                const empty = value === null || value === "" || Number.isNaN(Number(value));
                if (empty && !spec.optional) {
                    return;
                }
                value = empty ? null : Number(value);
            }
            if (value === undefined || value === shown[name]) {
                return;
            }
            showValue(name, value, part);
            edit(name, value);
        },

        pick(name, queries) {
            if (!name || name === shownPreset) {
                return;
            }
            shownPreset = name;
            restart(queries[name]);
        },

        reset(clicks, name, queries) {
            if (clicks && name) {
                restart(queries[name]);
            }
        },

        chooseTheme(clicks) {
            if (clicks) {
                theme = theme === "dark" ? "light" : "dark";
                document.documentElement.dataset.theme = theme;
                window.localStorage.setItem("odestop-theme", theme);
                ask("paths");
            }
        },

        /** Start a descent, or stop the one that runs. */
        descend(clicks, kind) {
            if (!clicks) {
                return;
            }
            if (run !== null) {
                endDescent("Stopped.");
                ask("paths");
                return;
            }
            serial += 1;
            run = `${session}-${serial}`;
            showRunning();
            set("descent-note", { children: "Descending …" });
            nextStep({ query, kind });
        },

        stopWorking() {
            const touch = touched();
            if (touch && touch.value) {
                channels[touch.id.stop].again = false;
                cancel(touch.id.stop);
            }
        },

        save() {
            const touch = touched();
            if (touch && touch.value) {
                save(touch.id.file);
            }
        },

        copyAddress(clicks) {
            if (clicks) {
                writeAddress(true);
                navigator.clipboard?.writeText(window.location.href).catch(() => {});
                set("copy", { children: "Copied" });
                window.setTimeout(() => set("copy", { children: "Copy link" }), 1500);
            }
        },

        closeNotice(clicks) {
            if (clicks) {
                notice("");
            }
        },
    });

    /** Show a scene as a new entry of the browser's history, so that "back" brings back the one before. */
    function restart(newQuery) {
        if (run !== null) {
            endDescent("");
        }
        writeAddress(true);
        notice("");
        window.history.pushState(null, "", `?${newQuery}`);
        set("descent-note", { children: "" });
        moveTo(newQuery);
    }

    /* Before the first paint, so that a dark page does not flash. */
    const prefersDark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = window.localStorage.getItem("odestop-theme") || (prefersDark ? "dark" : "light");
})();
