// Label one image after another. The page shows the next image at once and saves the label in the background.
"use strict";

const KEYS = {
  Enter: "Confirm the prediction", "1 … 9": "Assign the class with this number", l: "Choose a class", x: "Exclude: none of the classes",
  g: "Similar images: label them together", s: "Same plant: label the burst as one group", n: "Skip", z: "Undo", t: "Retrain and rerank",
  o: "Original image", "?": "Show all keys",
};
const CHOSEN = {
  random: "random sample", model: "selected by the model", diverse: "selected for diversity", cluster: "similar image", conflict: "conflicting labels",
};

let waiting = []; // the next images
let done = new Set(); // labeled in this tab; the server may not have saved them yet
let burst = [];
let together = false; // label the burst together with the image
let members = []; // the open cluster
let excluded = new Set();
let cursor = 0;
let large = false;
let pending = 0; // number of images whose labels are not saved yet
let shown = -1; // image on the page

const name_of = (label) => label || "excluded";

// Load the state; the image on the page stays first, unless the images were ranked again.
async function refresh(reordered = false) {
  run = await request("api/state");
  const open_items = run.items.filter((item) => !done.has(item.image));
  const current = reordered ? [] : waiting.filter((item) => item.image === shown && !done.has(item.image));
  waiting = [...current, ...open_items.filter((item) => item.image !== current[0]?.image)];
  draw_counts();
  if (reordered || waiting[0]?.image !== shown) show_image();
}

function draw_counts() {
  at("progress").textContent = `${run.labelled + pending} labeled, ${run.waiting - pending} to go${run.conflicts ? `, ${run.conflicts} with conflicting labels` : ""}`;
  at("agreement").textContent = run.agreement;
  draw_curve();
}

function show_image() {
  const item = waiting[0];
  shown = item ? item.image : -1;
  burst = [];
  together = false;
  draw_burst();
  at("next").replaceChildren(...waiting.slice(1, 13).map(({ image }) => make("li", {}, make("img", { src: versioned(`image/${image}.png`), alt: "", width: 48, height: 48 }))));
  const confirm = document.querySelector("#actions [data-key=Enter]");
  if (confirm) confirm.disabled = !item || item.guess < 0;
  if (!item) {
    const more = run.waiting > pending;
    at("question").textContent = more ? "Ranking the images …" : "All images are labeled";
    at("why").textContent = more ? "" : "Commit data/labels.csv and run `dvc repro`.";
    if (more) setTimeout(() => enqueue(() => refresh(true)), 300);
    at("images").replaceChildren();
    return;
  }
  at("question").textContent = item.guess < 0 ? "Which class is it?" : `${run.classes[item.guess]}?`;
  at("why").textContent = item.labels.length
    ? item.labels.map(([who, label]) => `${who}: ${name_of(label)}`).join(" · ")
    : item.guess < 0 ? "" : `Predicted with a probability of ${(100 * item.confidence).toFixed(0)}%. Press Enter to confirm.`;
  const img = make("img", { alt: item.file, src: versioned(large ? `original/${item.image}.jpg` : `image/${item.image}.png`) });
  img.addEventListener("error", () => { if (large) img.src = versioned(`image/${item.image}.png`); }, { once: true });
  const chips = [CHOSEN[item.chosen], item.unlike ? "unlike the training images; press X to exclude" : ""].filter(Boolean);
  at("images").replaceChildren(make("figure", {}, img, make("figcaption", { title: item.file }, base_name(item.file),
    ...chips.map((text) => make("span", { className: "chip", textContent: text })))));
  if (item.chosen !== "conflict") request(`api/similar/${item.image}`).then(({ burst: found }) => {
    if (waiting[0] !== item) return;
    burst = found.filter((image) => !done.has(image));
    draw_burst();
  }).catch(() => {});
  const after = waiting[1];
  if (after) new Image().src = versioned(`image/${after.image}.png`); // preload
}

function draw_burst() {
  at("burst").hidden = !burst.length;
  document.querySelector("#burst [data-key=s]").ariaPressed = String(together);
  at("neighbors").replaceChildren(...burst.map((image) => make("li", {}, make("img", { src: versioned(`image/${image}.png`), alt: "", width: 72, height: 72 }))));
}

// Save `label` ("" excludes) for `images`; the next image is shown at once.
function save_label(label, images, chosen, same_plant = false) {
  const item = waiting[0];
  if (!item || !images.length) return;
  const labelled = new Set(images);
  for (const image of images) done.add(image);
  waiting = waiting.filter(({ image }) => !labelled.has(image));
  pending += images.length;
  draw_counts();
  const what = images.length > 1 ? `${images.length} images` : base_name(item.file);
  show_status(`${what}: ${name_of(label)}`);
  show_image();
  enqueue(async () => {
    try {
      const { changed } = await request("api/label", { images, label, chosen, same_plant });
      push_undo({ changed, item, images });
      run.labelled += images.length;
      run.waiting -= images.length;
    } catch (error) {
      reopen(item, images);
      throw error;
    } finally {
      pending -= images.length;
    }
    draw_counts();
    if (waiting.length < 20 && run.waiting - pending > waiting.length) await refresh();
  });
}

// Show an image again because its label was undone or not saved.
function reopen(item, images) {
  for (const image of images) done.delete(image);
  waiting = [item, ...waiting.filter(({ image }) => image !== item.image)];
  draw_counts();
  show_image();
}

function label_current(label) {
  const item = waiting[0];
  if (!item) return;
  if (!at("cluster").hidden) {
    const images = members.filter((image) => !excluded.has(image));
    close_cluster();
    save_label(label, images, images.length === 1 && images[0] === item.image ? item.chosen : "cluster");
  } else save_label(label, [item.image, ...(together ? burst : [])], item.chosen, together && burst.length > 0);
}

async function undo() {
  const { entry } = await pop_undo();
  run.labelled -= entry.images.length;
  run.waiting += entry.images.length;
  reopen(entry.item, entry.images);
  show_status(`Undone: ${base_name(entry.item.file)}`);
}

// Labeling can continue during retraining.
async function retrain() {
  const { version } = await request("api/retrain", {});
  show_status("Retraining …");
  let state = { training: true };
  while (state.training) {
    await new Promise((resume) => setTimeout(resume, 200));
    state = await request("api/state");
  }
  await enqueue(() => refresh(true));
  show_status(run.version > version ? "Retrained the model and reranked the images." : run.error, run.version <= version);
}

// ---- similar images

async function open_cluster() {
  const item = waiting[0];
  if (!item || item.chosen === "conflict") return;
  const { cluster } = await request(`api/similar/${item.image}`);
  members = [item.image, ...cluster.filter((image) => !done.has(image))];
  excluded = new Set();
  cursor = 0;
  at("cluster-title").textContent = item.guess < 0 ? `${members.length} similar image${members.length === 1 ? "" : "s"}` : `Are all of these ${run.classes[item.guess]}?`;
  at("tiles").replaceChildren(...members.map((image) => {
    const tile = make("li", { id: `t${image}`, role: "option" }, make("img", { src: versioned(`image/${image}.png`), alt: `Image ${image}`, width: 96, height: 96 }));
    tile.addEventListener("click", () => toggle(members.indexOf(image)));
    return tile;
  }));
  at("case").hidden = true;
  at("cluster").hidden = false;
  at("tiles").focus();
  draw_tiles();
}

function close_cluster() {
  at("cluster").hidden = true;
  at("case").hidden = false;
}

function toggle(place) {
  cursor = place;
  const image = members[place];
  if (!excluded.delete(image)) excluded.add(image);
  draw_tiles();
}

function draw_tiles() {
  members.forEach((image, place) => {
    const tile = at(`t${image}`);
    tile.ariaSelected = String(!excluded.has(image));
    tile.classList.toggle("cursor", place === cursor);
  });
  at("tiles").setAttribute("aria-activedescendant", `t${members[cursor]}`);
}

// ---- learning curve

function draw_curve() {
  const points = run.curve;
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  at("advice").textContent = run.advice;
  if (!points.length) {
    at("curve").replaceChildren();
    at("curve-text").textContent = "No learning curve yet. The curve requires labels of two classes, and validation images or labeled random samples.";
    return;
  }
  const [labels, accuracy, low, high] = points.at(-1);
  at("curve-text").textContent = `Validation accuracy ${percent(accuracy)} (95% CI ${(100 * low).toFixed(1)}–${percent(high)}) with ${labels} new training label${labels === 1 ? "" : "s"}.`;
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const width = 280, height = 120;
  const bottom = Math.min(...points.map((point) => point[2])), top = Math.max(...points.map((point) => point[3]));
  const x = (value) => 34 + (width - 44) * (value / Math.max(labels, 1));
  const y = (value) => 8 + (height - 30) * (1 - (value - bottom) / Math.max(top - bottom, 0.01));
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": at("curve-text").textContent });
  chart.append(svg("polyline", { points: points.map((point) => `${x(point[0])},${y(point[1])}`).join(" "), class: "line" }));
  for (const [count, value, lower, upper] of points) {
    chart.append(svg("line", { x1: x(count), x2: x(count), y1: y(lower), y2: y(upper), class: "interval" }), svg("circle", { cx: x(count), cy: y(value), r: 3 }));
  }
  const text = (content, left, line) => { const made = svg("text", { x: left, y: line }); made.textContent = content; chart.append(made); };
  text(`${(100 * top).toFixed(0)}%`, 0, 14);
  text(`${(100 * bottom).toFixed(0)}%`, 0, height - 20);
  text("0", 31, height - 4);
  text(`${labels} label${labels === 1 ? "" : "s"}`, width - 60, height - 4);
  at("curve").replaceChildren(chart);
}

// ---- keys and buttons

function press(key) {
  const inside = !at("cluster").hidden;
  const item = waiting[0];
  if (/^[1-9]$/.test(key)) return run.classes[key - 1] !== undefined && (label_current(run.classes[key - 1]), true);
  const action = {
    Enter: () => item && (item.guess >= 0 ? label_current(run.classes[item.guess]) : show_status("No prediction for this image. Press the key of its class.")),
    l: () => enqueue(async () => { const label = await ask_user("Which class?", "", true); if (label) label_current(label); }),
    x: () => label_current(""),
    g: () => (inside ? close_cluster() : enqueue(open_cluster)),
    s: () => { if (burst.length) { together = !together; draw_burst(); } },
    n: () => { if (waiting.length > 1) { waiting = [...waiting.slice(1), item]; show_image(); } },
    z: () => enqueue(undo),
    t: () => enqueue(() => {}).then(retrain).catch((error) => show_status(describe_error(error), true)),
    o: () => { large = !large; show_image(); },
    "?": () => at("keys").showModal(),
  }[key];
  if (action) action();
  return Boolean(action);
}

document.addEventListener("keydown", (event) => {
  if (typing(event) || !run) return;
  if (event.key === "Enter" && event.target.matches("button, summary")) return;
  const inside = !at("cluster").hidden;
  const across = Math.max(1, Math.floor(at("tiles").clientWidth / 108));
  const arrows = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
  if (inside && event.key in arrows) {
    cursor = Math.max(0, Math.min(members.length - 1, cursor + arrows[event.key]));
    draw_tiles();
    event.preventDefault();
  } else if (inside && event.key === " ") { toggle(cursor); event.preventDefault(); }
  else if (inside && event.key === "Escape") close_cluster();
  else if (press(event.key.length === 1 ? event.key.toLowerCase() : event.key)) event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-key]");
  if (button) { press(button.dataset.key); button.blur(); }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && run) enqueue(() => refresh()); });

enqueue(async () => {
  await refresh();
  at("ask-class").append(...run.classes.map((name) => make("option", { textContent: name })));
  at("actions").append(key_button("Enter", "Confirm the prediction"), ...run.classes.slice(0, 9).map((name, place) => key_button(String(place + 1), name)),
    ...[..."lxgsnzo"].filter((key) => key !== "l" || run.classes.length > 9).map((key) => key_button(key, KEYS[key].split(/[,:]/)[0])));
  list_keys(KEYS);
  document.querySelector("#actions [data-key=Enter]").disabled = !waiting[0] || waiting[0].guess < 0;
});
