"use strict";
// Moves the page that inspection.py writes: one state (time step, token, population, encoder, head), drawn anew when it
// changes. The state can be given in the address, as in page.html#t=12&token=3&population=embeddings&encoder=0&head=1.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const N = data.tokens.length;
  const FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif";

  // ----- numbers -----

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  for (const population of data.populations) {
    population.spikes = bytes(population.spikes);
    population.negative = population.negative && bytes(population.negative);
    population.rates = bytes(population.rates);
  }
  const sixteen = (text) => {
    const b = bytes(text);
    return Uint16Array.from({ length: b.length / 2 }, (_, i) => b[2 * i] + 256 * b[2 * i + 1]);
  };
  data.student = data.student.map(sixteen);
  data.teacher = data.teacher.map(sixteen);
  const weight = (side, i, j) => data[side][state.encoder][(state.head * N + i) * N + j] / 65535;

  const fired = (p, t, row) => {
    const i = t * N * p.neurons + row; // row = token * neurons + neuron
    const bit = (train) => (train[i >> 3] >> (i & 7)) & 1;
    return bit(p.spikes) - (p.negative ? bit(p.negative) : 0);
  };

  // ----- state -----

  const state = { t: data.steps, token: 0, population: byId("population").selectedIndex,
    encoder: byId("encoder").selectedIndex, head: 0 };

  function readAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    const within = (name, low, high) => {
      const value = parseInt(said.get(name), 10);
      if (value >= low && value <= high) state[name] = value;
    };
    within("t", 1, data.steps);
    within("token", 0, N - 1);
    within("encoder", 0, data.student.length - 1);
    within("head", 0, data.heads - 1);
    const place = data.populations.findIndex((p) => p.name === said.get("population"));
    if (place >= 0) state.population = place;
  }

  function writeAddress() {
    const { t, token, encoder, head } = state;
    const population = data.populations[state.population].name;
    history.replaceState(null, "", "#" + new URLSearchParams({ t, token, population, encoder, head }));
  }

  function set(changes) {
    if (Object.entries(changes).every(([name, value]) => state[name] === value)) return;
    Object.assign(state, changes);
    draw(changes);
  }

  // ----- drawing -----

  /** Gives a canvas a size in CSS pixels, sharp on every screen, and its cleared context. */
  function canvas(id, height) {
    const element = byId(id);
    const width = element.parentElement.clientWidth;
    const scale = Math.max(1, window.devicePixelRatio || 1);
    element.style.height = height + "px";
    if (element.width !== Math.round(width * scale) || element.height !== Math.round(height * scale)) {
      element.width = Math.round(width * scale);
      element.height = Math.round(height * scale);
    }
    const context = element.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    return [context, width];
  }

  /** Writes text, shortened to a width. */
  function write(context, text, x, y, room) {
    let shown = text;
    while (shown.length > 1 && context.measureText(shown + (shown === text ? "" : "…")).width > room)
      shown = shown.slice(0, -1);
    context.fillText(shown === text ? text : shown + "…", x, y);
  }

  let raster = {}; // where things are, for the pointer

  function drawRaster() {
    const p = data.populations[state.population];
    const rows = N * p.neurons;
    const pitch = Math.min(6, Math.max(2, Math.floor(640 / rows)));
    const band = Math.max(15, pitch * p.neurons + 3);
    const top = 22;
    const [c, width] = canvas("spikes", top + N * band + 34);
    const narrow = width < 560;
    const left = narrow ? 62 : 104;
    const barWidth = narrow ? 56 : 130;
    const right = width - barWidth - 4;
    const step = (right - 18 - left) / data.steps;
    raster = { left, step, top, band };
    c.font = `12px ${FONT}`;
    c.textBaseline = "middle";
    const bottom = top + N * band;
    for (let k = 0; k < N; k++) {
      const y = top + k * band;
      c.fillStyle = k === state.token ? "#ffeebb" : k % 2 ? "#fdfdfb" : "#f3f3ef";
      c.fillRect(0, y, width, band);
      c.fillStyle = "#222";
      c.font = `${k === state.token ? "bold " : ""}12px ${FONT}`;
      c.textAlign = "right";
      write(c, data.tokens[k], left - 8, y + band / 2, left - 10);
    }
    const mark = Math.max(0.6, pitch - (pitch > 2 ? 1 : 0.4));
    const wide = Math.max(0.5, Math.min(step * 0.5, 4));
    for (let row = 0; row < rows; row++) {
      const k = Math.floor(row / p.neurons);
      const y = top + k * band + (band - pitch * p.neurons) / 2 + (row % p.neurons) * pitch;
      let sum = 0;
      for (let t = 0; t < data.steps; t++) {
        const s = fired(p, t, row);
        if (!s) continue;
        if (t < state.t) sum += s;
        c.fillStyle = t >= state.t ? "#cfcfc8" : s > 0 ? p.colour : data.negative;
        c.fillRect(left + t * step + (step - wide) / 2, y, wide, mark);
      }
      c.fillStyle = p.colour;
      c.fillRect(right, y, (barWidth * Math.abs(sum)) / state.t, mark);
      const tick = right + (barWidth * p.rates[row]) / 255;
      c.fillStyle = "#fdfdfb"; // a black tick stays visible on a black bar
      c.fillRect(tick - 2, y, 4, mark);
      c.fillStyle = "#000";
      c.fillRect(tick - 1, y - 0.5, 2, mark + 1);
    }
    const x = left + state.t * step;
    c.strokeStyle = "#222";
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(x, top - 4);
    c.lineTo(x, bottom + 4);
    c.moveTo(right - 0.5, top);
    c.lineTo(right - 0.5, bottom);
    c.stroke();
    c.fillStyle = "#555";
    c.font = `12px ${FONT}`;
    c.textAlign = "left";
    c.fillText(narrow ? "rate" : "rate up to the step", right, 9);
    c.fillText("spikes", left, 9);
    c.textAlign = "center";
    const room = (right - left) / (narrow ? 4 : 8);
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((e) => e * step >= room / 1.6) || 1e4;
    for (let t = every; t <= data.steps; t += every) c.fillText(t, left + (t - 0.5) * step, bottom + 12);
    c.fillText("time step", left + (data.steps * step) / 2, bottom + 27);
    c.fillText("0", right + 2, bottom + 12);
    c.fillText("1", right + barWidth - 4, bottom + 12);
    byId("settling").textContent =
      `After ${steps(state.t)}, over all neurons and tokens: rate ${p.firing[state.t - 1].toFixed(3)}, at equilibrium ` +
      `${p.settled.toFixed(3)}; mean distance ${p.distance[state.t - 1].toPrecision(2)}.`;
  }

  const steps = (t) => (t === 1 ? "1 step" : `${t} steps`);

  const stops = data.scale.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  function shade(share) {
    const x = Math.min(1, share) * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(x));
    const mixed = stops[i].map((low, k) => Math.round(low + (x - i) * (stops[i + 1][k] - low)));
    return [`rgb(${mixed.join(",")})`, mixed[0] * 0.3 + mixed[1] * 0.59 + mixed[2] * 0.11 < 140 ? "#fff" : "#222"];
  }

  const matrix = {}; // where things are, for the pointer
  const longest = Math.max(...data.tokens.map((token) => token.length));

  function drawAttention() {
    let largest = 0;
    for (const side of ["student", "teacher"])
      for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) largest = Math.max(largest, weight(side, i, j));
    for (const side of ["student", "teacher"]) {
      const room = byId("weights-" + side).parentElement.clientWidth;
      const label = Math.min(92, room * 0.24, 9 * longest + 12);
      const cell = Math.min(30, (room - label - 2) / N);
      const size = Math.min(12, Math.max(6, cell - 1));
      const every = Math.ceil(size / cell);
      const [c] = canvas("weights-" + side, label + N * cell + 2);
      matrix[side] = { label, cell };
      c.textBaseline = "middle";
      for (let i = 0; i < N; i++) {
        for (let j = 0; j < N; j++) {
          c.fillStyle = shade(weight(side, i, j) / largest)[0];
          c.fillRect(label + j * cell, label + i * cell, cell - (cell > 6 ? 1 : 0), cell - (cell > 6 ? 1 : 0));
        }
        if (i % every && i !== state.token) continue;
        c.fillStyle = "#222";
        c.textAlign = "right";
        c.font = `${i === state.token ? "bold " : ""}${size}px ${FONT}`;
        write(c, data.tokens[i], label - 5, label + (i + 0.5) * cell, label - 6);
        c.save();
        c.translate(label + (i + 0.5) * cell, label - 5);
        c.rotate(-Math.PI / 2);
        c.textAlign = "left";
        c.font = `${size}px ${FONT}`;
        write(c, data.tokens[i], 0, 0, label - 6);
        c.restore();
      }
      c.strokeStyle = "#222";
      c.lineWidth = 1.5;
      c.strokeRect(label - 0.5, label + state.token * cell - 0.5, N * cell, cell);
      byId("row-" + side).querySelectorAll("button").forEach((button, j) => {
        const [paper, ink] = shade(weight(side, state.token, j) / largest);
        button.style.background = paper;
        button.style.color = ink;
        button.lastChild.textContent = (100 * weight(side, state.token, j)).toFixed(0);
      });
    }
    const best = (side) => {
      let top = 0;
      for (let j = 1; j < N; j++) if (weight(side, state.token, j) > weight(side, state.token, top)) top = j;
      return `most at “${data.tokens[top]}” (${(100 * weight(side, state.token, top)).toFixed(0)} %)`;
    };
    byId("looks").textContent =
      `In encoder ${state.encoder + 1}, head ${state.head + 1}, “${data.tokens[state.token]}” looks ${best("student")}; ` +
      `in the teacher’s layer ${data.layers[state.encoder]} ${best("teacher")}. ` +
      `The darkest square: ${(100 * largest).toFixed(0)} %.`;
  }

  // Time lines in the figures: each has one at t = 1 and one at t = T, which tell where the logarithmic axis lies.
  const start = (element) => parseFloat(/M\s*([-\d.]+)/.exec(element.querySelector("path").getAttribute("d"))[1]);
  const lines = [...document.querySelectorAll('svg [id*="-now-"]')].map((line) => {
    const first = byId(line.id.replace("-now-", "-first-"));
    return [line, start(first) - start(line)];
  });

  function drawTime() {
    byId("time").value = state.t;
    byId("clock").textContent = `t = ${state.t} of ${data.steps}`;
    const share = data.steps > 1 ? Math.log(state.t) / Math.log(data.steps) : 1;
    for (const [line, width] of lines) line.setAttribute("transform", `translate(${(1 - share) * width} 0)`);
    const end = data.largestScore || 1;
    const part = (value) => `${100 * Math.min(1, Math.max(0, value / end))}%`;
    data.answers[state.t - 1].forEach((value, i) => {
      const [bar, limit] = gauges[i].gauge.children;
      bar.style.width = part(value);
      limit.style.left = part(data.limit[i]);
      gauges[i].number.textContent = value.toFixed(2);
    });
    const table = byId("activity");
    byId("until").textContent = state.t;
    table.querySelectorAll("tbody tr").forEach((row, i) => {
      const p = data.populations[i];
      const cells = row.querySelectorAll("td");
      cells[0].firstChild.firstChild.style.width = `${(100 * p.firing[state.t - 1]) / table.dataset.largest}%`;
      cells[0].lastChild.textContent = p.firing[state.t - 1].toFixed(3);
      cells[2].textContent = p.distance[state.t - 1].toFixed(3);
    });
  }

  /** Draws what changed; everything without an argument. */
  function draw(changes) {
    const changed = (...names) => !changes || names.some((name) => name in changes);
    if (changed("t")) drawTime();
    if (changed("t", "token", "population")) drawRaster();
    if (changed("token", "encoder", "head")) drawAttention();
    if (changed("token"))
      for (const button of document.querySelectorAll(".tokens button"))
        button.setAttribute("aria-pressed", Number(button.dataset.token) === state.token);
    byId("token").value = state.token;
    byId("population").selectedIndex = state.population;
    byId("encoder").value = state.encoder;
    byId("head").value = state.head;
  }

  // ----- what the page gets beside what was written -----

  const element = (name, text = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  document.documentElement.classList.add("moving");
  document.querySelector("main").insertBefore(document.querySelector(".controls"), document.querySelector("section"));
  data.tokens.forEach((token, i) => {
    const option = element("option", token);
    option.value = i;
    byId("token").append(option);
    for (const side of ["student", "teacher"]) {
      const button = element("button", token);
      button.type = "button";
      button.dataset.token = i;
      button.append(element("small"));
      const item = element("li");
      item.append(button);
      byId("row-" + side).append(item);
    }
  });
  const gauges = data.classes.map((name, i) => {
    const row = element("div");
    const gauge = element("span");
    gauge.className = "gauge";
    const bar = element("i");
    bar.style.background = data.colours[i];
    gauge.append(bar, element("u"));
    const number = element("span");
    row.append(element("b", name), gauge, number);
    byId("now").append(row);
    return { gauge, number };
  });

  // ----- what one can do -----

  let playing = 0;
  function play(on) {
    clearInterval(playing);
    playing = 0;
    byId("play").textContent = on ? "Pause" : "Play";
    if (!on) return writeAddress();
    if (state.t === data.steps) set({ t: 1 });
    const stride = Math.ceil(data.steps / 256);
    playing = setInterval(() => {
      set({ t: Math.min(data.steps, state.t + stride) });
      if (state.t === data.steps) play(false);
    }, Math.max(30, 8000 / data.steps));
  }
  byId("play").addEventListener("click", () => play(!playing));
  byId("time").addEventListener("input", (event) => set({ t: Number(event.target.value) }));
  for (const name of ["token", "encoder", "head"])
    byId(name).addEventListener("change", (event) => set({ [name]: Number(event.target.value) }));
  byId("population").addEventListener("change", (event) => set({ population: event.target.selectedIndex }));
  for (const name of ["time", "token", "population", "encoder", "head"]) byId(name).addEventListener("change", writeAddress);

  for (const list of document.querySelectorAll(".tokens"))
    for (const kind of ["pointerover", "focusin", "click"])
      list.addEventListener(kind, (event) => {
        const button = event.target.closest("button");
        if (button) set({ token: Number(button.dataset.token) });
        if (button && kind === "click") writeAddress();
      });

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  function pointAtRaster(event) {
    const box = byId("spikes").getBoundingClientRect();
    const t = Math.floor((event.clientX - box.left - raster.left) / raster.step) + 1;
    const token = clamp(Math.floor((event.clientY - box.top - raster.top) / raster.band), 0, N - 1);
    set(t >= 1 && t <= data.steps + 1 ? { t: Math.min(t, data.steps), token } : { token });
  }
  byId("spikes").addEventListener("pointerdown", pointAtRaster);
  byId("spikes").addEventListener("pointermove", (event) => event.buttons && pointAtRaster(event));
  byId("spikes").addEventListener("pointerup", writeAddress);
  for (const side of ["student", "teacher"])
    byId("weights-" + side).addEventListener("pointermove", (event) => {
      const row = Math.floor((event.clientY - event.target.getBoundingClientRect().top - matrix[side].label) / matrix[side].cell);
      if (row >= 0 && row < N) set({ token: row });
    });

  readAddress();
  draw();
  window.addEventListener("hashchange", () => (readAddress(), draw()));
  window.addEventListener("resize", () => draw());
})();
