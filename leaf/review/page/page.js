// One case after another, ruled by keys. What was said is kept by the server; this page holds no decision of its own.
"use strict";

const at = (id) => document.getElementById(id);
const make = (tag, given = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...inside);
  return made;
};
const KEYS = {
  k: "Keep", d: "Drop", r: "Right as it is", u: "Unsure", s: "Same leaf", a: "Not the same", l: "Another class …",
  w: "Say why, for the next ruling", z: "Undo", n: "Next (also → or J)", p: "Before (also ← or K with Shift)", f: "Flicker",
  v: "Difference", x: "Rule on the other of the two", o: "Original, as large as it came", g: "All images, or back to the cases",
  "?": "These keys",
};
const RULED = { k: "keep", d: "drop", s: "group", a: "apart", r: "seen", u: "unsure" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let run; // what the server said of the run
let now = { question: "", image: 0, other: -1, why: "" }; // what is looked at
let target = 0; // which of its pictures a ruling is on
let reason = ""; // for the next ruling
let large = true; // originals, as far as there are any
let flicker;
let turn = Promise.resolve(); // one thing after another, however fast the keys come

// ---- the server

// Name the run in each request: image numbers of another run mean other images.
const versioned = (path) => `${path}${run ? `${path.includes("?") ? "&" : "?"}run=${run.run}` : ""}`;

async function ask(path, body) {
  const answer = await fetch(versioned(path), body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const said = await answer.json().catch(() => ({ error: `The server returned status ${answer.status}.`, retry: true }));
  if (said.reload) location.reload();
  if (!answer.ok) throw Object.assign(new Error(said.error), { reason: said.reason, retry: said.retry });
  return said;
}

function tell(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const then = (work) => {
  turn = turn.then(work).catch((error) => tell(
    error instanceof TypeError ? "The server is not responding. Run `leaf review` again; all saved decisions are kept." : error.message, true));
  return turn;
};

const undone = () => JSON.parse(sessionStorage.getItem("undo") || "[]");

async function say(ruling, label = "") {
  const chosen = at("grid-view").hidden ? [] : [...picked];
  const neighbour = document.activeElement.closest?.("#neighbours") ? Number(document.activeElement.dataset.image) : -1;
  const paired = ruling === "group" || ruling === "apart";
  const other = neighbour >= 0 ? neighbour : now.other;
  const ruled = { images: chosen.length ? chosen : [paired ? now.image : target], ruling, label, question: now.question, why: reason };
  if (paired || ((ruling === "seen" || ruling === "unsure") && !chosen.length)) ruled.other = chosen.length ? -1 : other;
  if (paired && !chosen.length && other < 0) throw new Error("Which other picture? Move to one of the most alike with Tab, then press the key.");
  let done;
  try {
    done = await ask("api/rule", ruled);
  } catch (error) {
    if (error.retry) return keep(ruled, error);
    if (!error.reason) throw error;
    const why = await ask_person("Why?", error.message, false);
    if (!why) return tell("Left as it was.");
    done = await ask("api/rule", { ...ruled, why });
  }
  sessionStorage.setItem("undo", JSON.stringify([...undone().slice(-99), done.changed]));
  reason = "";
  const what = `${ruled.images.length > 1 ? `${ruled.images.length} images` : `Image ${ruled.images[0]}`}: ${words(ruling, label)}`;
  update(done);
  if (!at("grid-view").hidden) pick([]);
  else if (now.place >= 0 && neighbour < 0) step(1);
  tell(`${what}. ${at("progress").textContent}.`);
}

// Decisions that could not be written stay in the browser and are sent again.
const pending = () => JSON.parse(localStorage.getItem("pending") || "[]");

function keep(ruled, error) {
  localStorage.setItem("pending", JSON.stringify([...pending(), { run: run.run, ruled }]));
  tell(`Not saved yet, retrying: ${error.message}`, true);
}

async function retry() {
  const [first, ...rest] = pending();
  if (!first || !run) return;
  if (first.run === run.run) {
    try {
      const done = await ask("api/rule", first.ruled);
      sessionStorage.setItem("undo", JSON.stringify([...undone().slice(-99), done.changed]));
      update(done);
    } catch (error) {
      if (error.retry || error instanceof TypeError) return;
      tell(error.message, true);
    }
  } else tell("A decision on an earlier run was not saved.", true);
  localStorage.setItem("pending", JSON.stringify(rest));
  if (!rest.length) tell(`All decisions are saved. ${at("progress").textContent}.`);
}

setInterval(() => pending().length && then(retry), 2000);

async function undo() {
  const stack = undone();
  if (!stack.length) throw new Error("Nothing to undo in this tab.");
  update(await ask("api/undo", stack.at(-1)));
  sessionStorage.setItem("undo", JSON.stringify(stack.slice(0, -1)));
  tell(`Undone. ${at("progress").textContent}.`);
}

const words = (ruling, label = "") =>
  ({ keep: "keep", drop: "drop", relabel: `is ${label}`, group: "same leaf", apart: "not the same", seen: "right as it is", unsure: "unsure" })[ruling] || ruling;

function update({ answers, summary }) {
  run.answers = answers;
  cases.refresh();
  at("summary").textContent = summary;
  at("progress").textContent = `${answers.filter(Boolean).length} of ${answers.length} looked at`;
  tell_said();
}

function tell_said() {
  at("said").textContent = said(now.place) ? `Ruled: ${said(now.place)}` : "Not ruled on yet";
}

// ---- the list of cases

const shown = (place) => (at("filter").value === "" || run.cases[place][0] === at("filter").value)
  && (!at("open").checked || !run.answers[place] || place === now.place);
const said = (place) => (run.answers[place] ? words(...run.answers[place].split(" ")) : "");

const cases = windowed(at("list"), 52, 0, (place) => {
  const [question, image, other] = run.cases[place];
  return make("li", { id: `c${place}`, role: "option" },
    make("img", { src: versioned(`picture/${image}.png`), alt: "", width: 40, height: 40 }),
    make("span", { textContent: other < 0 ? `${image}` : `${image} and ${other}` }),
    make("small", { textContent: run.questions[question] }),
    make("span", { className: "answer" }));
}, (entry, place) => {
  entry.querySelector(".answer").textContent = said(place);
  entry.classList.toggle("done", Boolean(run.answers[place]));
  entry.ariaSelected = String(place === now.place);
});

const sift = () => cases.set([...run.cases.keys()].filter(shown));

function step(by) {
  let place = (now.place ?? -1) + by;
  while (place >= 0 && place < run.cases.length && !shown(place)) place += by;
  if (place < 0) return;
  if (place >= run.cases.length) {
    sift();
    tell(`That was the last case. ${at("summary").textContent}; run \`dvc repro\`.`);
    return;
  }
  open(place);
}

function open(place) {
  const [question, image, other, why] = run.cases[place];
  now = { place, question, image, other, why };
  sift();
  cases.show(place);
  at("list").setAttribute("aria-activedescendant", `c${place}`);
  history.replaceState(null, "", `#${question}-${image}-${other}`);
  look();
}

// ---- one case

function look() {
  target = now.image;
  at("question").textContent = run.questions[now.question] || `Image ${now.image}`;
  at("why").textContent = now.why;
  for (const tool of document.querySelectorAll(".pair")) tool.hidden = now.other < 0;
  for (const key of ["s", "a"]) document.querySelector(`#actions [data-key=${key}]`).classList.toggle("faint", now.other < 0);
  draw("side");
  tell_said();
  at("bias").hidden = ![now.image, now.other].some((image) => run.split[image] === "test");
  at("lines").replaceChildren();
  at("neighbours").replaceChildren();
  const wanted = now;
  ask(`api/image/${now.image}`).then((one) => {
    if (wanted !== now) return;
    at("lines").replaceChildren(...one.lines.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
    at("neighbours").replaceChildren(...one.neighbours.map((image) => {
      const known = caption(image);
      return make("li", {}, make("button", { type: "button", title: known, ariaLabel: `Look at image ${known}`, onclick: () => visit(image) },
        make("img", { src: versioned(`picture/${image}.png`), alt: "", width: 96, height: 96 }), make("small", { textContent: known })));
    }));
    [...at("neighbours").querySelectorAll("button")].forEach((button, place) => { button.dataset.image = one.neighbours[place]; });
  }).catch((error) => { if (wanted === now) tell(error.message, true); });
}

function caption(image) {
  const own = run.own[image];
  return `${image}: ${run.classes[run.label[image]]}${own === null ? "" : ` ${own.toFixed(2)}`}${run.kept[image] ? "" : ", left out"}`;
}

function figure(image, over = -1, whole_size = large) {
  const picture = make("img", { alt: `Image ${caption(image)}`, src: versioned(`picture/${image}.png${over < 0 ? "" : `?over=${over}`}`) });
  if (whole_size) {
    const whole = make("img", { src: versioned(`original/${image}.jpg`) });
    whole.addEventListener("load", () => { picture.src = whole.src; picture.classList.add("whole"); });
    whole.addEventListener("error", () => originals(false));
  }
  const own = run.own[image];
  const bar = make("meter", { min: 0, max: 1, value: own ?? 0, low: 0.5, optimum: 1, title: "held-out probability of its label" });
  const name = make("figcaption", {},
    make("b", { textContent: `${image}` }), ` ${run.classes[run.label[image]]} `,
    ...(own === null ? [] : [bar, ` ${own.toFixed(3)} `]),
    ...[run.split[image], run.kept[image] ? "" : "left out"].filter(Boolean).map((text) => make("span", { className: "chip", textContent: text })));
  const made = make("figure", {}, picture, name);
  made.dataset.image = image;
  return made;
}

function originals(wanted) {
  large = wanted;
  document.querySelector(".tools [data-key=o]").ariaPressed = String(large);
}

function draw(mode) {
  clearInterval(flicker);
  const pair = now.other >= 0;
  const both = mode === "side" ? [now.image, ...(pair ? [now.other] : [])].map((image) => figure(image)) : [figure(now.image, -1, false), figure(now.other, now.image, false)];
  at("pictures").dataset.mode = mode;
  at("pictures").replaceChildren(...both);
  for (const one of both) one.classList.toggle("target", pair && Number(one.dataset.image) === target);
  for (const [key, own] of [["f", "flicker"], ["v", "difference"]]) document.querySelector(`.tools [data-key=${key}]`).ariaPressed = String(mode === own);
  if (mode === "flicker") {
    both[1].classList.add("under");
    if (!calm.matches) flicker = setInterval(swap, 600);
  }
  if (mode === "difference") difference(...both.map((one) => one.querySelector("img")));
}

const swap = () => { for (const one of at("pictures").children) one.classList.toggle("under"); };

async function difference(one, other) {
  await Promise.all([one.decode(), other.decode()]);
  const canvas = make("canvas", { width: one.naturalWidth, height: one.naturalHeight, role: "img", ariaLabel: "Where the two differ, four times as strong" });
  const context = canvas.getContext("2d");
  context.drawImage(one, 0, 0);
  context.globalCompositeOperation = "difference";
  context.drawImage(other, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter"; // doubles, twice
  context.drawImage(canvas, 0, 0);
  context.drawImage(canvas, 0, 0);
  if (at("pictures").dataset.mode === "difference") at("pictures").replaceChildren(make("figure", {}, canvas, make("figcaption", { textContent: "Where the two differ, four times as strong" })));
}

function visit(image) {
  const known = run.cases.findIndex(([, one, other]) => one === image && other < 0);
  view("cases");
  if (known >= 0) return open(known);
  now = { place: -1, question: "", image, other: -1, why: "" };
  cases.refresh();
  look();
}

// ---- all images of a class

let picked = new Set();
let cursor = 0;
let anchor = 0;
let order = [];

const tiles = windowed(at("grid"), 126, 108, (image) => make("li", { id: `g${image}`, role: "option", ariaLabel: `Image ${caption(image)}` },
  make("img", { src: versioned(`picture/${image}.png`), alt: "", width: 96, height: 96 }),
  make("small", { textContent: `${image} ${run.own[image] === null ? "" : run.own[image].toFixed(2)}${run.kept[image] ? "" : " out"}` })),
(entry, image) => {
  entry.ariaSelected = String(picked.has(image));
  entry.classList.toggle("cursor", image === order[cursor]);
});

function grid() {
  const wanted = Number(at("class").value);
  order = [...run.label.keys()].filter((image) => run.label[image] === wanted);
  order.sort((one, other) => (run.own[one] ?? 2) - (run.own[other] ?? 2) || one - other);
  tiles.set(order);
  pick([]);
  move(0);
}

function pick(images) {
  picked = new Set(images);
  tiles.refresh();
  at("chosen").textContent = picked.size ? `${picked.size} selected` : "Space selects, Shift with arrows selects many, Enter looks at one";
}

function move(place, extend = false) {
  cursor = Math.max(0, Math.min(order.length - 1, place));
  if (extend) pick(order.slice(Math.min(anchor, cursor), Math.max(anchor, cursor) + 1));
  else anchor = cursor;
  if (!order.length) return;
  tiles.show(order[cursor]);
  at("grid").setAttribute("aria-activedescendant", `g${order[cursor]}`);
}

function toggle(place) {
  move(place);
  const image = order[cursor];
  pick(picked.has(image) ? [...picked].filter((one) => one !== image) : [...picked, image]);
}

function view(name) {
  const all = name === "grid";
  document.body.dataset.view = name;
  at("grid-view").hidden = !all;
  at("queue").hidden = at("case").hidden = all;
  at("to-grid").ariaPressed = String(all);
  at("to-cases").ariaPressed = String(!all);
  if (all) { grid(); at("grid").focus(); } else { picked = new Set(); at("list").focus({ preventScroll: true }); }
}

// ---- what a person is asked

function ask_person(title, text, labels) {
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  at("ask-reason").hidden = labels;
  at("ask-class").hidden = !labels;
  at("ask-reason").value = "";
  at("ask").returnValue = "";
  at("ask").showModal();
  at(labels ? "ask-class" : "ask-reason").focus();
  return new Promise((resolve) => at("ask").addEventListener("close", () =>
    resolve(at("ask").returnValue && (labels ? at("ask-class").value : at("ask-reason").value.trim())), { once: true }));
}

// ---- keys and buttons

function press(key) {
  if (/^[1-9]$/.test(key)) return run.classes[key - 1] && then(() => name_it(run.classes[key - 1]));
  if (RULED[key]) return then(() => say(RULED[key]));
  const mode = at("pictures").dataset.mode;
  const does = {
    z: () => then(undo),
    n: () => then(() => step(1)),
    p: () => then(() => step(-1)),
    g: () => then(() => view(at("grid-view").hidden ? "grid" : "cases")),
    l: () => then(async () => { const label = await ask_person("Which class?", "", true); if (label) await name_it(label); }),
    w: () => then(async () => { reason = (await ask_person("Why?", "It is written beside the next ruling.", false)) || ""; if (reason) tell(`Why: ${reason}`); }),
    f: () => now.other >= 0 && (mode === "flicker" && calm.matches ? swap() : draw(mode === "flicker" ? "side" : "flicker")),
    v: () => now.other >= 0 && draw(mode === "difference" ? "side" : "difference"),
    x: () => { if (now.other >= 0) { target = target === now.image ? now.other : now.image; draw("side"); tell(`Rulings are on image ${target}.`); } },
    o: () => { originals(!large); draw(mode); },
    "?": () => at("keys").showModal(),
  }[key];
  return does && does();
}

// The label that an image has already is no ruling but a look, unless its copies disagree.
function name_it(label) {
  const same = !picked.size && now.question === "label" && run.classes[run.label[target]] === label;
  return say(same ? "seen" : "relabel", same ? "" : label);
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=checkbox])")) return;
  const onGrid = !at("grid-view").hidden && document.activeElement === at("grid");
  const across = onGrid && tiles.across();
  const arrows = onGrid
    ? { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: 5 * across, PageUp: -5 * across, Home: -cursor, End: order.length }
    : { ArrowRight: 1, ArrowLeft: -1, j: 1, ...(document.activeElement === at("list") ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
  if (event.key in arrows) {
    event.preventDefault();
    if (onGrid) move(cursor + arrows[event.key], event.shiftKey);
    else then(() => step(arrows[event.key]));
  } else if (onGrid && event.key === " ") { event.preventDefault(); toggle(cursor); }
  else if (onGrid && event.key === "Enter") visit(order[cursor]);
  else if (press(event.key.toLowerCase())) event.preventDefault();
});

for (const [id, name] of [["to-cases", "cases"], ["to-grid", "grid"]]) at(id).addEventListener("click", () => then(() => view(name)));
at("to-keys").addEventListener("click", () => press("?"));
document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key) press(key);
  const entry = event.target.closest("#list li, #grid li");
  if (!entry) return;
  if (entry.id[0] === "c") then(() => open(entry.key));
  else if (event.shiftKey) move(order.indexOf(entry.key), true);
  else toggle(order.indexOf(entry.key));
});
at("grid").addEventListener("dblclick", () => visit(order[cursor]));
at("filter").addEventListener("change", () => { sift(); now = { ...now, place: -1 }; step(1); });
at("open").addEventListener("change", sift);
at("class").addEventListener("change", grid);
// Another tab, or another person's `git pull`, may have ruled meanwhile.
document.addEventListener("visibilitychange", () => { if (!document.hidden && run) then(async () => update(await ask("api/answers"))); });

then(async () => {
  run = await ask("api/run");
  const counts = {};
  for (const [question] of run.cases) counts[question] = (counts[question] || 0) + 1;
  at("filter").append(make("option", { value: "", textContent: `All cases (${run.cases.length})` }),
    ...Object.entries(run.questions).filter(([name]) => counts[name]).map(([name, text]) => make("option", { value: name, textContent: `${text} (${counts[name]})` })));
  at("class").append(...run.classes.map((name, value) => make("option", { value, textContent: name })));
  at("ask-class").append(...run.classes.map((name) => make("option", { textContent: name })));
  const button = (key, text) => {
    const made = make("button", { type: "button" }, make("kbd", { textContent: key.toUpperCase() }), ` ${text}`);
    made.dataset.key = key;
    made.setAttribute("aria-keyshortcuts", key);
    return made;
  };
  at("actions").append(...run.classes.slice(0, 9).map((name, place) => button(String(place + 1), name)),
    ...[..."kdrusalwzpn"].filter((key) => key !== "l" || run.classes.length > 9).map((key) => button(key, KEYS[key].split(/[,(]/)[0].trim())));
  at("keys-list").append(...[["1 … 9", "It is of that class"], ...Object.entries(KEYS)].flatMap(([key, text]) =>
    [make("dt", {}, make("kbd", { textContent: key.toUpperCase() })), make("dd", { textContent: text })]));
  const wanted = run.cases.findIndex(([question, image, other]) => location.hash === `#${question}-${image}-${other}`);
  if (wanted >= 0) open(wanted);
  else step(1);
  update(run);
  if (!run.cases.length) tell("Nothing asks for a look. All images are under G.");
  at("list").focus({ preventScroll: true });
});
