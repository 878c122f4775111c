"use strict";
// Replays the sentence: at each token its spikes arrive step by step, then the next token is read off and appears.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const last = data.said.length - 1; // the last position that was computed
  const tokens = [...document.querySelectorAll(".token")];
  const zoomed = [...document.querySelectorAll("#now svg")];
  const here = [...document.querySelectorAll(".here")];
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // The position in view, the steps that have passed there, and the tokens that have appeared.
  const state = calm
    ? { at: last, t: data.steps, seen: tokens.length }
    : { at: data.prompt - 1, t: 0, seen: data.prompt };

  const element = (name, kind, text = "") => {
    const made = document.createElement(name);
    made.className = kind;
    made.textContent = text;
    return made;
  };

  /** Shows names with bars and numbers. */
  function bars(place, rows, end) {
    place.replaceChildren(...rows.map(([name, value, number, kind]) => {
      const row = element("div", `row ${kind}`);
      const bar = element("span", "bar");
      const filled = element("i", "");
      filled.style.width = `${(100 * value) / end}%`;
      bar.append(filled);
      row.append(element("span", "", name), bar, element("span", "", number));
      return row;
    }));
  }

  const most = Math.max(1e-9, ...Object.values(data.firing).flat());

  /** Shows what belongs to a position; `draw` does what changes from step to step. */
  function enter() {
    zoomed.forEach((svg) => {
      const box = svg.viewBox.baseVal;
      svg.setAttribute("viewBox", `${state.at * data.steps} 0 ${data.steps} ${box.height}`);
    });
    for (const mark of here) {
      mark.setAttribute("x", state.at * data.steps);
      mark.setAttribute("width", data.steps);
    }
    tokens.forEach((token, i) => token.setAttribute("aria-pressed", i === state.at));
    const said = data.said[state.at].map(([text, p, came]) => [text, p, p.toFixed(3), came ? "came" : ""]);
    bars(byId("guesses"), said, 1);
    bars(byId("firing"), Object.entries(data.firing).map(([name, v]) => [name, v[state.at], v[state.at].toFixed(3), ""]), most);
  }

  function draw() {
    if (state.t === data.steps) state.seen = Math.max(state.seen, state.at + 2);
    tokens.forEach((token, i) => (token.hidden = i >= state.seen));
    for (const svg of zoomed) {
      const cover = svg.querySelector(".cover");
      cover.setAttribute("x", state.at * data.steps + state.t - 0.1);
      cover.setAttribute("width", data.steps - state.t + 0.1);
    }
    const done = state.t === data.steps;
    for (const name of ["guesses", "firing"]) byId(name).className = done ? "" : "reading";
    byId("clock").textContent = `token ${state.at + 1} of ${last + 1}, step ${state.t} of ${data.steps}`;
  }

  function show(at, t) {
    const other = at !== state.at;
    Object.assign(state, { at, t });
    if (other) enter();
    draw();
  }

  let playing = 0;
  function play(on) {
    clearTimeout(playing);
    playing = 0;
    byId("play").textContent = on ? "Pause" : "Play";
    if (!on) return;
    if (state.at === last && state.t === data.steps) {
      state.seen = data.prompt;
      show(data.prompt - 1, 0);
    }
    playing = setTimeout(tick, 400);
  }

  function tick() {
    if (state.t < data.steps) show(state.at, state.t + 1);
    else show(state.at + 1, 0);
    const done = state.t === data.steps;
    if (done && state.at === last) return play(false);
    playing = setTimeout(tick, done ? 700 : Math.max(30, 700 / data.steps));
  }

  function jump(at) {
    play(false);
    show(Math.min(last, Math.max(0, at)), data.steps);
  }

  byId("play").addEventListener("click", () => play(!playing));
  byId("step").addEventListener("click", () => jump(state.t < data.steps ? state.at : state.at + 1));
  byId("back").addEventListener("click", () => jump(state.at - 1));
  for (const token of tokens)
    if (token.dataset.token) token.addEventListener("click", () => jump(Number(token.dataset.token)));
  const strip = document.querySelector(".strip");
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    jump(Math.floor(((event.clientX - box.left) / box.width) * (last + 1)));
  });

  document.documentElement.classList.add("moving");
  enter();
  draw();
  if (!calm) play(true);
})();
