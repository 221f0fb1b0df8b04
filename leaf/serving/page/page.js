// Photographs in, answers out: at most two at once, so that a folder of them keeps nobody else waiting.
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
    const photograph = card.querySelector(".photograph");
    const address = URL.createObjectURL(file);
    photograph.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    photograph.src = address;
    waiting.push({ file, card });
    cards.push(card);
  }
  answers.prepend(...cards);
  added += cards.length;
  next();
}

function next() {
  summary.textContent = done < added ? `${done} of ${added} predicted` : added ? `${added} predicted` : "";
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    const { file, card } = waiting.shift();
    predict(file, card).finally(() => { running -= 1; done += 1; next(); });
  }
}

async function ask(path, file) {
  const form = new FormData();
  form.append("image", file, file.name);
  const answer = await fetch(path, { method: "POST", body: form, headers: { Accept: "application/json, image/png" } });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

async function predict(file, card) {
  try {
    show(card, await (await ask("/api/predict", file)).json());
  } catch (error) {
    card.dataset.state = "broken";
    card.querySelector(".label").textContent = "Not read";
    const why = error instanceof TypeError ? "The server does not answer." : error.message;
    card.querySelector(".figures").textContent = why.replace(`${file.name}: `, "");
    return;
  }
  offerHeat(card, file);
}

function show(card, { label, probability, threshold, known }) {
  const second = probability >= threshold;
  card.dataset.state = known ? (second ? "second" : "first") : "unknown";
  const scale = card.querySelector(".scale");
  if (known) {
    card.querySelector(".label").textContent = label;
    card.querySelector(".filled").style.width = `${100 * probability}%`;
    card.querySelector(".threshold").style.left = `${100 * threshold}%`;
    scale.hidden = false;
  } else {
    card.querySelector(".label").textContent = "Not a leaf that this model knows";
  }
  const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`;
  const name = card.closest("ol").dataset.second;
  card.querySelector(".figures").textContent = known
    ? `${percent(probability)} likely ${name} (limit ${percent(threshold)})`
    : `Unlike every photograph it learned from. It would say ${label}, which means nothing here.`;
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
        heat.alt = "Heat map: what glows spoke for the answer";
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
// The whole window takes a drop: a photograph that misses the field must not replace the page.
window.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
window.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
window.addEventListener("paste", (event) => add([...event.clipboardData.files]));
fetch("/health").then((answer) => answer.json()).then(({ classes }) => { answers.dataset.second = classes[1]; });
