// Upload images and show predictions, two at a time, so that one client does not block others.
"use strict";

const AT_ONCE = 2;
const answers = document.getElementById("answers");
const summary = document.getElementById("summary");
const waiting = [];
let running = 0;
let added = 0;
let done = 0;

function add(files) {
  const cards = [];
  for (const file of files) {
    const card = document.getElementById("card").content.cloneNode(true).firstElementChild;
    card.querySelector(".name").textContent = file.name;
    card.querySelector(".name").title = file.name;
    const preview = card.querySelector(".preview");
    const address = URL.createObjectURL(file);
    preview.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    preview.addEventListener("error", () => { preview.alt = "This browser cannot display the file."; });
    preview.src = address;
    card.dataset.number = -added - cards.length;
    waiting.push({ file, card });
    cards.push(card);
  }
  answers.prepend(...cards);
  added += cards.length;
  next();
}

function next() {
  const cards = [...answers.children];
  const counts = new Map();
  for (const { dataset } of cards) {
    if (dataset.label) counts.set(dataset.label, (counts.get(dataset.label) || 0) + 1);
  }
  const broken = cards.filter(({ dataset }) => dataset.state === "broken").length;
  const parts = [...counts].sort(([one], [other]) => one.localeCompare(other)).map(([name, count]) => `${count} ${name}`);
  if (broken) parts.push(`${broken} failed`);
  const read = done - broken;
  const many = done < added ? `${read} of ${added} images predicted` : added ? `${read} image${read === 1 ? "" : "s"} predicted` : "";
  summary.textContent = parts.length ? `${many}: ${parts.join(", ")}` : many;
  document.getElementById("tools").hidden = !done;
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    const { file, card } = waiting.shift();
    predict(file, card).finally(() => { running -= 1; done += 1; next(); });
  }
}

async function ask(path, file) {
  const form = new FormData();
  form.append("image", file, file.name);
  const response = await fetch(path, { method: "POST", body: form, headers: { Accept: "application/json, image/png" } });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

async function predict(file, card) {
  try {
    show(card, await (await ask("/api/predict", file)).json());
  } catch (error) {
    card.dataset.state = "broken";
    card.querySelector(".label").textContent = "Prediction failed";
    const why = error instanceof TypeError ? "The server is not responding." : error.message;
    card.querySelector(".figures").textContent = why.replace(`${file.name}: `, "");
    return;
  }
  offerHeat(card, file);
}

function show(card, answer) {
  const { label, answer: shown, probability, threshold, probabilities } = answer;
  const names = Object.keys(probabilities);
  card.answer = answer;
  card.dataset.label = shown;
  const well = names.length === 2 ? [names[0]] : names.filter((name) => /(?<!un)healthy$/i.test(name));
  card.dataset.state = shown !== label ? "unknown" : well.includes(label) ? "first" : well.length ? "second" : "other";
  card.querySelector(".label").textContent = shown;
  card.querySelector(".filled").style.width = `${100 * probability}%`;
  card.querySelector(".threshold").hidden = threshold === null;
  if (threshold !== null) card.querySelector(".threshold").style.left = `${100 * threshold}%`;
  card.querySelector(".scale").hidden = false;
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const likeliest = Object.entries(probabilities).sort(([, one], [, other]) => other - one).slice(0, 3);
  const figures = threshold !== null
    ? `${names[1]}: ${percent(probability)} (threshold ${percent(threshold)})`
    : likeliest.map(([name, value]) => `${percent(value)} ${name}`).join("\n");
  card.querySelector(".figures").textContent = shown === label ? figures : `Most likely class: ${label}\n${figures}`;
}

function sorted(by) {
  const cards = [...answers.children];
  const keys = {
    added: (card) => card.dataset.number,
    label: (card) => card.dataset.label || "\uffff",
    probability: (card) => (card.answer ? -card.answer.probability : 2),
  };
  const compare = (one, other) => (by === "label" ? one.localeCompare(other) : Number(one) - Number(other));
  cards.sort((one, other) => compare(keys[by](one), keys[by](other)));
  answers.append(...cards);
}

// Quote a CSV cell and prevent a spreadsheet from evaluating it as a formula.
function cell(value) {
  const text = String(value ?? "");
  return `"${(/^[=+@-]/.test(text) && typeof value === "string" ? `'${text}` : text).replaceAll('"', '""')}"`;
}

function table() {
  const rows = [...answers.children].filter((card) => card.answer).map((card) => card.answer);
  const names = rows.length ? Object.keys(rows[0].probabilities) : [];
  const head = ["image", "label", "answer", "probability", "threshold", "known", ...names.map((name) => `probability of ${name}`)];
  const lines = rows.map(({ image, label, answer, probability, threshold, known, probabilities }) => [
    image, label, answer, probability, threshold, known ? 1 : 0, ...names.map((name) => probabilities[name]),
  ]);
  return [head, ...lines].map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

function offerHeat(card, file) {
  const toggle = card.querySelector(".toggle");
  const heat = card.querySelector(".heat");
  toggle.hidden = false;
  toggle.addEventListener("click", async () => {
    const wanted = toggle.getAttribute("aria-pressed") === "false";
    if (wanted && !heat.src) {
      toggle.disabled = true;
      try {
        heat.src = URL.createObjectURL(await (await ask("/api/heatmap", file)).blob());
        heat.alt = "Heatmap of the regions that support the predicted class";
      } catch (error) {
        toggle.textContent = error.message;
        return;
      } finally {
        toggle.disabled = false;
      }
    }
    heat.hidden = !wanted;
    toggle.setAttribute("aria-pressed", String(wanted));
  });
}

const drop = document.getElementById("drop");
for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
}
// Accept drops anywhere: a file dropped outside the field must not replace the page.
window.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
window.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
window.addEventListener("paste", (event) => add([...event.clipboardData.files]));
document.getElementById("sort").addEventListener("change", ({ target }) => sorted(target.value));
document.getElementById("csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
fetch("/health").then((response) => response.json()).then(({ backbone, classes, test_accuracy: accuracy }) => {
  if (classes.length > 2) document.title = document.querySelector("h1").textContent = "What does this leaf show?";
  const good = accuracy === null ? "" : `, test accuracy ${(100 * accuracy).toFixed(1)}%`;
  document.getElementById("model").textContent = `${backbone} for ${classes.length} classes${good}`;
});
