// User interface: check the photos of a plant, combine their predictions, and save the plant in the history.

import { measure, problems } from "./checks.js";
import { archive, openHistory, table } from "./history.js";
import { decide, loadModel } from "./model.js";
import { prepare } from "./pixels.js";

const LANGUAGES = { en: "English", es: "Español", fr: "Français", pt: "Português", hi: "हिन्दी", sw: "Kiswahili" };
const element = (id) => document.getElementById(id);
let texts = {};
let facts; // model.json
let model; // a promise
let history;
let plant = null; // the current plant
let ready; // called when the facts, texts and history are loaded, to start the analysis of queued photos
let queue = new Promise((resolve) => { ready = resolve; }); // photos are analyzed in order

// Return the content of one of the app's files. The single-file app embeds the compressed files.
async function load(name) {
  const inside = document.querySelector(`script[data-file="${name}"]`);
  if (!inside) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const packed = Uint8Array.from(atob(inside.textContent), (character) => character.charCodeAt(0));
  if (!name.startsWith("texts/")) inside.remove(); // to free its memory
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const json = async (name) => JSON.parse(new TextDecoder().decode(await load(name)));

// Return the translated text for a key, with its {placeholders} replaced.
function text(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const percent = (value) =>
  new Intl.NumberFormat(document.documentElement.lang, { style: "percent", maximumFractionDigits: 1 }).format(value);

function make(tag, content = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: content }, properties);
}

async function setLanguage(language) {
  texts = await json(`texts/${language}.json`);
  document.documentElement.lang = language;
  element("language").value = language;
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = text(each.dataset.text);
  document.title = text("title");
  element("truth").replaceChildren(...["", ...facts.classes].map((name) => make("option", name || text("not_known"), { value: name })));
  showFacts();
  show();
  await showHistory();
}

function showFacts() {
  const { accuracy, accuracy_low: low, accuracy_high: high, images } = facts.test;
  const lines = [text("about_model", { backbone: facts.backbone, classes: facts.classes.join(", ") }), facts.about];
  if (facts.train_images) lines.push(text("about_trained", { count: facts.train_images }));
  if (typeof low === "number") {
    lines.push(text("about_accuracy", { accuracy: percent(accuracy), low: percent(low), high: percent(high), count: images }));
  } else if (accuracy !== null) {
    lines.push(text("about_accuracy_plain", { accuracy: percent(accuracy) }));
  }
  lines.push(text("about_new"), text("about_private"));
  element("facts").replaceChildren(...lines.filter(Boolean).map((line) => make("p", line)));
}

// Analyze photos in order and add them to the current plant.
function add(files) {
  for (const file of files) queue = queue.then(() => addOne(file));
  return queue;
}

async function addOne(file) {
  element("status").textContent = text("working");
  plant ??= { id: newId(), time: Date.now(), photos: [], failures: [], note: "", truth: "", place: null };
  const current = plant;
  try {
    const { pixels, thumbnail } = await prepare(file, facts.image_size, facts.fit);
    const predicted = await (await model).predict(pixels);
    const failed = problems(measure(pixels, facts.image_size));
    current.photos.push({ name: file.name, file, pixels, thumbnail, ...predicted, problems: failed });
  } catch (error) {
    const key = error.name === "RuntimeError" ? "failed" : /\.hei[cf]$/i.test(file.name) ? "heic" : "unreadable";
    current.failures.push(text(key, { name: file.name, reason: error.message }));
  }
  element("status").textContent = text("ready");
  show();
  await save();
}

const newId = () => `${new Date().toISOString().slice(0, 19).replaceAll(/[:T-]/g, "")}-${Math.random().toString(36).slice(2, 6)}`;

// Average the predictions for a plant over the photos that resemble the training images, or over all photos if none does.
function combine({ photos }) {
  const known = photos.filter((photo) => photo.known);
  const used = known.length ? known : photos;
  const probabilities = facts.classes.map((_, label) => used.reduce((sum, photo) => sum + photo.probabilities[label], 0) / used.length);
  const decision = decide(probabilities, known.length > 0, facts);
  const range = used.map((photo) => photo.probabilities[decision.label]);
  return { ...decision, used, probabilities, low: Math.min(...range), high: Math.max(...range) };
}

function show() {
  element("take").textContent = text(plant?.photos.length ? "add" : "take");
  element("plant").hidden = plant === null;
  const { photos, failures } = plant ?? { photos: [], failures: [] };
  showPhotos(element("photos"), photos);
  const warnings = photos.flatMap((photo, place) => photo.problems.map((name) => text(name, { number: place + 1 })));
  element("warnings").replaceChildren(...[...failures, ...warnings].map((line) => make("li", line)));
  element("result").hidden = element("heatmap").hidden = !photos.length;
  element("heat").hidden = true;
  element("heatmap").setAttribute("aria-pressed", "false");
  if (!photos.length) return;
  const { label, answer, used, probabilities, low, high } = combine(plant);
  const name = facts.classes[label];
  photos.forEach((photo, place) => element("photos").children[place].toggleAttribute("data-unused", !used.includes(photo)));
  const sure = answer === name;
  const key = answer === "undecided" ? "undecided" : "unknown";
  const healthy = facts.classes.length === 2 ? label === 0 : /(^|[^n])healthy/i.test(name);
  element("result").dataset.state = !sure ? "unsure" : healthy ? "first" : "second";
  element("answer").textContent = sure ? name : text(key);
  element("help").textContent = sure ? "" : text(`${key}_help`, { label: name });
  const order = probabilities.map((value, each) => [facts.classes[each], value]).sort(([, one], [, other]) => other - one).slice(0, 3);
  element("figures").replaceChildren(...order.map(([each, value]) => {
    const line = make("li");
    const meter = make("meter", "", { value, min: 0, max: 1 });
    meter.setAttribute("aria-hidden", "true");
    line.append(make("span", each), make("span", percent(value)), meter);
    return line;
  }));
  const spread = photos.length > 1 ? [text("spread", { count: used.length, label: name, low: percent(low), high: percent(high) })] : [];
  if (used.length < photos.length) spread.push(text("left_out", { count: photos.length - used.length }));
  element("spread").textContent = spread.join(" ");
}

function showPhotos(list, photos) {
  list.replaceChildren(...photos.map(({ thumbnail }, place) => {
    const item = make("li");
    item.append(make("img", "", { alt: text("photo", { number: place + 1 }), src: thumbnail }));
    return item;
  }));
}

async function toggleHeatmap() {
  const button = element("heatmap");
  const wanted = button.getAttribute("aria-pressed") === "false";
  const canvas = element("heat");
  if (wanted) {
    const { label, used } = combine(plant);
    button.disabled = true;
    const { rgba, side } = await (await model).heatmap(used.at(-1).pixels, label);
    button.disabled = false;
    canvas.width = canvas.height = side;
    canvas.getContext("2d").putImageData(new ImageData(rgba, side), 0, 0);
    canvas.setAttribute("aria-label", text("heatmap_alt"));
  }
  canvas.hidden = !wanted;
  button.setAttribute("aria-pressed", String(wanted));
}

// Save the current plant; called after each change.
async function save() {
  if (!plant?.photos.length) return;
  const { id, time, note, truth, place, photos } = plant;
  const { label, answer, probabilities } = combine(plant);
  const files = photos.map(({ name, file, thumbnail }) => ({ name, file, thumbnail }));
  try {
    await history.put({ id, time, note, truth, place, label, answer, probabilities, photos: files });
  } catch (error) {
    element("status").textContent = text("not_saved", { reason: error.message });
  }
  await showHistory();
  if (place === null && element("place").checked) await locate(plant);
}

async function locate(current) {
  const options = { timeout: 15000, maximumAge: 60000 };
  try {
    const { coords } = await new Promise((resolve, reject) => navigator.geolocation.getCurrentPosition(resolve, reject, options));
    current.place = { latitude: coords.latitude, longitude: coords.longitude };
    await save();
  } catch {
    current.place = {};
    element("status").textContent = text("place_failed");
  }
}

// Show the number of plants and, if the history is expanded, the list. Reuse the elements of unchanged entries, because
// reloading every photo takes seconds.
async function showHistory() {
  const count = await history.count();
  element("count").textContent = count ? `(${count})` : "";
  element("empty").hidden = count > 0;
  for (const id of ["csv", "zip", "clear"]) element(id).hidden = !count;
  if (!element("history").open) return;
  const plants = await history.all();
  const old = new Map([...element("entries").children].map((item) => [item.dataset.key, item]));
  element("entries").replaceChildren(...plants.map((each) => {
    const key = JSON.stringify([document.documentElement.lang, each.id, each.truth, each.answer, each.note]);
    return old.get(key) ?? entry(each, key);
  }));
}

function entry({ id, time, truth, answer, note, photos }, key) {
  const item = make("li");
  item.dataset.key = key;
  const words = make("div");
  const answers = { undecided: text("undecided"), "not like the training images": text("unknown") };
  const date = new Date(time).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  const remove = make("button", text("delete"), { type: "button", onclick: () => history.delete(id).then(showHistory) });
  remove.setAttribute("aria-label", `${text("delete")}: ${date}`);
  words.append(make("b", truth || answers[answer] || answer), make("span", date), make("span", note), remove);
  item.append(make("img", "", { alt: "", src: photos[0].thumbnail }), words);
  return item;
}

function download(content, name) {
  const link = make("a", "", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Save `language` if it is given, and return the saved language, or null if there is none or the browser blocks storage.
function remembered(language) {
  try {
    if (language) localStorage.setItem("leaf language", language);
    return localStorage.getItem("leaf language");
  } catch {
    return null;
  }
}

async function start() {
  for (const id of ["camera", "files"]) {
    element(id).addEventListener("change", ({ target }) => {
      add([...target.files]);
      target.value = "";
    });
  }
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });
  facts = await json("model.json");
  history = await openHistory();
  const begun = Promise.all([load("model.onnx"), load("onnxruntime.wasm")]);
  model = begun.then(([network, runtime]) => loadModel(facts, network, runtime));
  element("language").replaceChildren(...Object.entries(LANGUAGES).map(([value, name]) => make("option", name, { value })));
  const wanted = [remembered(), ...navigator.languages].map((name) => name?.split("-")[0]);
  await setLanguage(wanted.find((name) => name in LANGUAGES) ?? "en");
  element("status").textContent = text("loading");
  element("next").addEventListener("click", () => {
    plant = null;
    element("note").value = element("truth").value = "";
    show();
    element("camera").focus();
  });
  element("note").addEventListener("input", ({ target }) => { plant.note = target.value; save(); });
  element("truth").addEventListener("change", ({ target }) => { plant.truth = target.value; save(); });
  element("heatmap").addEventListener("click", toggleHeatmap);
  element("history").addEventListener("toggle", showHistory);
  element("language").addEventListener("change", ({ target }) => {
    remembered(target.value);
    setLanguage(target.value);
  });
  element("csv").addEventListener("click", async () =>
    download(new Blob([table(await history.all(), facts.classes)], { type: "text/csv" }), "plants.csv"));
  element("zip").addEventListener("click", async () => download(await archive(await history.all(), facts.classes), "plants.zip"));
  element("clear").addEventListener("click", () => confirm(text("confirm_delete")) && history.clear().then(showHistory));
  ready();
  if (location.protocol.startsWith("http")) navigator.serviceWorker?.register("service-worker.js");
  navigator.storage?.persist?.();
  await model;
  await queue;
  element("status").textContent = text(history.lasting ? "ready" : "not_lasting");
}

start().catch((error) => { element("status").textContent = text("failed", { reason: error.message }); });
