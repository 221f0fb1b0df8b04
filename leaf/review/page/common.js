// Shared by both pages: elements, requests, messages, undo.
"use strict";

const at = (id) => document.getElementById(id);
const make = (tag, given = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...inside);
  return made;
};

let run; // the state from the server
let turn = Promise.resolve(); // runs actions one at a time, in the order of key presses

// Each request names the run, because image numbers refer to different images in another run.
const versioned = (path) => `${path}${run ? `${path.includes("?") ? "&" : "?"}run=${run.run}` : ""}`;

async function request(path, body) {
  const response = await fetch(versioned(path), body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const result = await response.json().catch(() => ({ error: `The server returned status ${response.status}.`, retry: true }));
  if (result.reload) location.reload();
  if (!response.ok) throw Object.assign(new Error(result.error), { reason: result.reason, retry: result.retry });
  return result;
}

function show_status(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const describe_error = (error) => (error instanceof TypeError ? "The server is not responding. Run `leaf review` again; all saved decisions are kept." : error.message);

const enqueue = (work) => {
  turn = turn.then(work).catch((error) => show_status(describe_error(error), true));
  return turn;
};

const undo_stack = () => JSON.parse(sessionStorage.getItem("undo") || "[]");
const push_undo = (entry) => sessionStorage.setItem("undo", JSON.stringify([...undo_stack().slice(-99), entry]));

async function pop_undo() {
  const stack = undo_stack();
  if (!stack.length) throw new Error("Nothing to undo in this tab.");
  const entry = stack.at(-1);
  const result = await request("api/undo", entry.changed);
  sessionStorage.setItem("undo", JSON.stringify(stack.slice(0, -1)));
  return { entry, result };
}

// Prompt for text or, with `labels`, for a class. Resolve to "" if the dialog is canceled.
function ask_user(title, text, labels) {
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

function key_button(key, text) {
  const made = make("button", { type: "button" }, make("kbd", { textContent: key.toUpperCase() }), ` ${text}`);
  made.dataset.key = key;
  made.setAttribute("aria-keyshortcuts", key);
  return made;
}

function list_keys(keys) {
  at("keys-list").append(...Object.entries(keys).flatMap(([key, text]) =>
    [make("dt", {}, make("kbd", { textContent: key.toUpperCase() })), make("dd", { textContent: text })]));
}

const typing = (event) => document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey
  || event.target.matches("select, input:not([type=checkbox])");
const base_name = (path) => path.split("/").at(-1);
