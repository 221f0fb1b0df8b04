// Review one case after another by keyboard. The server stores the decisions; the page keeps only unsaved ones.
"use strict";

const KEYS = {
  "1 … 9": "Assign the class with this number", k: "Keep", d: "Drop", r: "Correct as it is", u: "Unsure", s: "Same leaf", a: "Not the same leaf",
  l: "Choose a class", w: "Add a reason for the next decision", z: "Undo", n: "Next (also → or J)", p: "Previous (also ←)",
  f: "Alternate between the two images", v: "Show the difference", x: "Decide on the other image of the pair", o: "Original image",
  g: "Switch between cases and all images", "?": "Show all keys",
};
const DECISIONS = { k: "keep", d: "drop", s: "group", a: "apart", r: "seen", u: "unsure" };
const reduced_motion = matchMedia("(prefers-reduced-motion: reduce)");

let now = { question: "", image: 0, other: -1, why: "" }; // the case on the page
let target = 0; // the image of the pair that a decision applies to
let reason = ""; // reason for the next decision
let large = true; // show the original images if available
let flicker;

const file_of = (image) => base_name(run.file[image]);

async function decide(decision, label = "") {
  const chosen = at("grid-view").hidden ? [] : [...picked];
  const neighbor = document.activeElement.closest?.("#neighbors") ? Number(document.activeElement.dataset.image) : -1;
  const paired = decision === "group" || decision === "apart";
  const other = neighbor >= 0 ? neighbor : now.other;
  const sent = { images: chosen.length ? chosen : [paired ? now.image : target], decision, label, question: now.question, why: reason };
  if (paired || ((decision === "seen" || decision === "unsure") && !chosen.length)) sent.other = chosen.length ? -1 : other;
  if (paired && !chosen.length && other < 0) throw new Error("This decision requires a second image. Move the focus to a similar image with Tab, then press the key again.");
  let result;
  try {
    result = await request("api/decide", sent);
  } catch (error) {
    if (error.retry) return keep(sent, error);
    if (!error.reason) throw error;
    const why = await ask_user("Reason", error.message, false);
    if (!why) return show_status("Canceled.");
    result = await request("api/decide", { ...sent, why });
  }
  push_undo({ changed: result.changed, hash: location.hash });
  reason = "";
  const what = `${sent.images.length > 1 ? `${sent.images.length} images` : file_of(sent.images[0])}: ${words(decision, label)}`;
  update(result);
  if (!at("grid-view").hidden) pick([]);
  else if (now.place >= 0 && neighbor < 0) step(1);
  show_status(`${what}. ${at("progress").textContent}. ${result.note}`.trim());
}

// Decisions that the server could not write stay in the browser and are sent again.
const pending = () => JSON.parse(localStorage.getItem("pending") || "[]");

function keep(sent, error) {
  localStorage.setItem("pending", JSON.stringify([...pending(), { run: run.run, sent }]));
  show_status(`Not saved yet, retrying: ${error.message}`, true);
}

async function retry() {
  const [first, ...rest] = pending();
  if (!first || !run) return;
  if (first.run === run.run) {
    try {
      const result = await request("api/decide", first.sent);
      push_undo({ changed: result.changed, hash: location.hash });
      update(result);
    } catch (error) {
      if (error.retry || error instanceof TypeError) return;
      show_status(error.message, true);
    }
  } else show_status("A decision on an earlier run was not saved.", true);
  localStorage.setItem("pending", JSON.stringify(rest));
  if (!rest.length) show_status(`All decisions are saved. ${at("progress").textContent}.`);
}

setInterval(() => pending().length && enqueue(retry), 2000);

async function undo() {
  const { entry, result } = await pop_undo();
  update(result);
  const place = find_case(entry.hash);
  if (place >= 0) { view("cases"); open(place); }
  show_status(`Undone. ${at("progress").textContent}.`);
}

const words = (decision, label = "") =>
  ({ keep: "keep", drop: "drop", relabel: `relabel as ${label}`, group: "same leaf", apart: "not the same leaf", seen: "correct as it is", unsure: "unsure" })[decision] || decision;

function update({ answers, summary, unused }) {
  run.answers = answers;
  cases.refresh();
  const lost = unused.length ? `; not applied, because the image or class is unknown: ${unused.length} (${unused.slice(0, 3).map(base_name).join(", ")}${unused.length > 3 ? " …" : ""})` : "";
  at("summary").textContent = `${summary}${lost}`;
  at("progress").textContent = `${answers.filter(Boolean).length} of ${answers.length} cases reviewed`;
  show_decision();
}

function show_decision() {
  at("said").textContent = decision_on(now.place) ? `Decision: ${decision_on(now.place)}` : "No decision yet";
}

// ---- the list of cases

const listed = (place) => (at("filter").value === "" || run.cases[place][0] === at("filter").value)
  && (!at("open").checked || !run.answers[place] || place === now.place);
const decision_on = (place) => (run.answers[place] ? words(...run.answers[place].split(/ (.*)/s, 2)) : "");
const find_case = (hash) => run.cases.findIndex(([question, image, other]) => hash === `#${question}-${image}-${other}`);

const cases = windowed(at("list"), 52, 0, (place) => {
  const [question, image, other] = run.cases[place];
  const name = other < 0 ? file_of(image) : `${file_of(image)}, ${file_of(other)}`;
  return make("li", { id: `c${place}`, role: "option", title: other < 0 ? run.file[image] : `${run.file[image]}, ${run.file[other]}` },
    make("img", { src: versioned(`image/${image}.png`), alt: "", width: 40, height: 40 }),
    make("span", { textContent: name }),
    make("small", { textContent: run.questions[question] }),
    make("span", { className: "answer" }));
}, (entry, place) => {
  entry.querySelector(".answer").textContent = decision_on(place);
  entry.classList.toggle("done", Boolean(run.answers[place]));
  entry.ariaSelected = String(place === now.place);
});

const apply_filter = () => cases.set([...run.cases.keys()].filter(listed));

function step(by) {
  let place = (now.place ?? -1) + by;
  while (place >= 0 && place < run.cases.length && !listed(place)) place += by;
  if (place < 0) return;
  if (place >= run.cases.length) {
    apply_filter();
    show_status(`That was the last case. ${at("summary").textContent}. Run \`dvc repro\`.`);
    return;
  }
  open(place);
}

function open(place) {
  const [question, image, other, why] = run.cases[place];
  now = { place, question, image, other, why };
  apply_filter();
  cases.show(place);
  at("list").setAttribute("aria-activedescendant", `c${place}`);
  history.replaceState(null, "", `#${question}-${image}-${other}`);
  show_case();
}

// ---- one case

function show_case() {
  target = now.image;
  at("question").textContent = run.questions[now.question] || file_of(now.image);
  at("why").textContent = now.why;
  for (const tool of document.querySelectorAll(".pair")) tool.hidden = now.other < 0;
  for (const key of ["s", "a"]) document.querySelector(`#actions [data-key=${key}]`).classList.toggle("faint", now.other < 0);
  draw("side");
  show_decision();
  at("bias").hidden = ![now.image, now.other].some((image) => run.split[image] === "test");
  at("lines").replaceChildren();
  at("neighbors").replaceChildren();
  const wanted = now;
  request(`api/image/${now.image}`).then((one) => {
    if (wanted !== now) return;
    at("lines").replaceChildren(...one.lines.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
    at("neighbors").replaceChildren(...one.neighbors.map((image) => {
      const known = caption(image);
      return make("li", {}, make("button", { type: "button", title: known, ariaLabel: `Open ${known}`, onclick: () => visit(image) },
        make("img", { src: versioned(`image/${image}.png`), alt: "", width: 96, height: 96 }), make("small", { textContent: known })));
    }));
    [...at("neighbors").querySelectorAll("button")].forEach((button, place) => { button.dataset.image = one.neighbors[place]; });
  }).catch((error) => { if (wanted === now) show_status(error.message, true); });
}

function caption(image) {
  const own = run.own[image];
  return `${file_of(image)}: ${run.classes[run.label[image]]}${own === null ? "" : ` ${own.toFixed(2)}`}${run.kept[image] ? "" : ", removed"}`;
}

function figure(image, over = -1, whole_size = large) {
  const img = make("img", { alt: caption(image), src: versioned(`image/${image}.png${over < 0 ? "" : `?over=${over}`}`) });
  if (whole_size) {
    const whole = make("img", { src: versioned(`original/${image}.jpg`) });
    whole.addEventListener("load", () => { img.src = whole.src; img.classList.add("whole"); });
    whole.addEventListener("error", () => originals(false));
  }
  const own = run.own[image];
  const bar = make("meter", { min: 0, max: 1, value: own ?? 0, low: 0.5, optimum: 1, title: "held-out probability of the label" });
  const name = make("figcaption", { title: run.file[image] },
    make("b", { textContent: file_of(image) }), ` ${run.classes[run.label[image]]} `,
    ...(own === null ? [] : [bar, ` ${own.toFixed(3)} `]),
    ...[run.split[image], run.kept[image] ? "" : "removed", `image ${image}`].filter(Boolean).map((text) => make("span", { className: "chip", textContent: text })));
  const made = make("figure", {}, img, name);
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
  at("images").dataset.mode = mode;
  at("images").replaceChildren(...both);
  for (const one of both) one.classList.toggle("target", pair && Number(one.dataset.image) === target);
  for (const [key, own] of [["f", "flicker"], ["v", "difference"]]) document.querySelector(`.tools [data-key=${key}]`).ariaPressed = String(mode === own);
  if (mode === "flicker") {
    both[1].classList.add("under");
    if (!reduced_motion.matches) flicker = setInterval(swap, 600);
  }
  if (mode === "difference") difference(...both.map((one) => one.querySelector("img")));
}

const swap = () => { for (const one of at("images").children) one.classList.toggle("under"); };

async function difference(one, other) {
  const title = "Difference between the two images, ×4";
  await Promise.all([one.decode(), other.decode()]);
  const canvas = make("canvas", { width: one.naturalWidth, height: one.naturalHeight, role: "img", ariaLabel: title });
  const context = canvas.getContext("2d");
  context.drawImage(one, 0, 0);
  context.globalCompositeOperation = "difference";
  context.drawImage(other, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter"; // adding the canvas to itself twice multiplies it by 4
  context.drawImage(canvas, 0, 0);
  context.drawImage(canvas, 0, 0);
  if (at("images").dataset.mode === "difference") at("images").replaceChildren(make("figure", {}, canvas, make("figcaption", { textContent: title })));
}

function visit(image) {
  const known = run.cases.findIndex(([, one, other]) => one === image && other < 0);
  view("cases");
  if (known >= 0) return open(known);
  now = { place: -1, question: "", image, other: -1, why: "" };
  cases.refresh();
  show_case();
}

// ---- all images of a class

let picked = new Set();
let cursor = 0;
let anchor = 0;
let order = [];

const tiles = windowed(at("grid"), 126, 108, (image) => make("li", { id: `g${image}`, role: "option", ariaLabel: caption(image), title: run.file[image] },
  make("img", { src: versioned(`image/${image}.png`), alt: "", width: 96, height: 96 }),
  make("small", { textContent: `${run.own[image] === null ? "" : run.own[image].toFixed(2)} ${run.kept[image] ? "" : "removed "}${file_of(image)}` })),
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
  at("chosen").textContent = picked.size ? `${picked.size} image${picked.size === 1 ? "" : "s"} selected` : "Space selects an image, Shift with the arrow keys selects several, Enter opens one";
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

// ---- keys and buttons

function press(key) {
  if (/^[1-9]$/.test(key)) return run.classes[key - 1] && enqueue(() => assign(run.classes[key - 1]));
  if (DECISIONS[key]) return enqueue(() => decide(DECISIONS[key]));
  const mode = at("images").dataset.mode;
  const action = {
    z: () => enqueue(undo),
    n: () => enqueue(() => step(1)),
    p: () => enqueue(() => step(-1)),
    g: () => enqueue(() => view(at("grid-view").hidden ? "grid" : "cases")),
    l: () => enqueue(async () => { const label = await ask_user("Which class?", "", true); if (label) await assign(label); }),
    w: () => enqueue(async () => { reason = (await ask_user("Reason", "The reason is saved with the next decision.", false)) || ""; if (reason) show_status(`Reason: ${reason}`); }),
    f: () => now.other >= 0 && (mode === "flicker" && reduced_motion.matches ? swap() : draw(mode === "flicker" ? "side" : "flicker")),
    v: () => now.other >= 0 && draw(mode === "difference" ? "side" : "difference"),
    x: () => { if (now.other >= 0) { target = target === now.image ? now.other : now.image; draw("side"); show_status(`Decisions apply to ${file_of(target)}.`); } },
    o: () => { originals(!large); draw(mode); },
    "?": () => at("keys").showModal(),
  }[key];
  return action && action();
}

// If the question is whether the label is correct, assigning the existing label confirms it.
function assign(label) {
  const same = !picked.size && now.question === "label" && run.classes[run.label[target]] === label;
  return decide(same ? "seen" : "relabel", same ? "" : label);
}

document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  const onGrid = !at("grid-view").hidden && document.activeElement === at("grid");
  const across = onGrid && tiles.across();
  const arrows = onGrid
    ? { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: 5 * across, PageUp: -5 * across, Home: -cursor, End: order.length }
    : { ArrowRight: 1, ArrowLeft: -1, j: 1, ...(document.activeElement === at("list") ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
  if (event.key in arrows) {
    event.preventDefault();
    if (onGrid) move(cursor + arrows[event.key], event.shiftKey);
    else enqueue(() => step(arrows[event.key]));
  } else if (onGrid && event.key === " ") { event.preventDefault(); toggle(cursor); }
  else if (onGrid && event.key === "Enter") visit(order[cursor]);
  else if (press(event.key.toLowerCase())) event.preventDefault();
});

for (const [id, name] of [["to-cases", "cases"], ["to-grid", "grid"]]) at(id).addEventListener("click", () => enqueue(() => view(name)));
at("to-keys").addEventListener("click", () => press("?"));
document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key) press(key);
  const entry = event.target.closest("#list li, #grid li");
  if (!entry) return;
  if (entry.id[0] === "c") enqueue(() => open(entry.key));
  else if (event.shiftKey) move(order.indexOf(entry.key), true);
  else toggle(order.indexOf(entry.key));
});
at("grid").addEventListener("dblclick", () => visit(order[cursor]));
at("filter").addEventListener("change", () => { apply_filter(); now = { ...now, place: -1 }; step(1); });
at("open").addEventListener("change", apply_filter);
at("class").addEventListener("change", grid);
// Another tab or a `git pull` may have changed the decisions.
document.addEventListener("visibilitychange", () => { if (!document.hidden && run) enqueue(async () => update(await request("api/answers"))); });

enqueue(async () => {
  run = await request("api/run");
  const counts = {};
  for (const [question] of run.cases) counts[question] = (counts[question] || 0) + 1;
  at("filter").append(make("option", { value: "", textContent: `All cases (${run.cases.length})` }),
    ...Object.entries(run.questions).filter(([name]) => counts[name]).map(([name, text]) => make("option", { value: name, textContent: `${text} (${counts[name]})` })));
  at("class").append(...run.classes.map((name, value) => make("option", { value, textContent: name })));
  at("ask-class").append(...run.classes.map((name) => make("option", { textContent: name })));
  at("actions").append(...run.classes.slice(0, 9).map((name, place) => key_button(String(place + 1), name)),
    ...[..."kdrusalwzpn"].filter((key) => key !== "l" || run.classes.length > 9).map((key) => key_button(key, KEYS[key].split(/[,(]/)[0].trim())));
  list_keys(KEYS);
  const wanted = find_case(location.hash);
  if (wanted >= 0) open(wanted);
  else step(1);
  update(run);
  if (!run.cases.length) show_status("No cases to review. Press G to show all images.");
  at("list").focus({ preventScroll: true });
});
