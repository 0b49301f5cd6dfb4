// Photos go to /predict one by one, a few at a time.

import { addCard, failCard, fillCard, get, listen, useTemperature } from "/cards.js";
import { words } from "/verdict.js";

const MAX_REQUESTS = 3;
const waiting = [];
let running = 0;
let model = { photo_bytes: Infinity };

function fail(entry, reason) {
  failCard(entry, reason);
  entry.card.querySelector(".explain").remove();
}

function fill(entry) {
  const { card, row } = entry;
  if (row.error) {
    fail(entry, `can't be read: ${row.error}`);
    return;
  }
  fillCard(entry, words(row), Object.entries(row.logits), row.confidence);
  const button = card.querySelector(".explain");
  button.addEventListener("click", () => explain(entry, button));
}

async function explain({ card, file, row }, button) {
  const heat = card.querySelector(".heat");
  if (heat.src) {
    heat.hidden = !heat.hidden;
  } else {
    button.disabled = true;
    button.textContent = "explaining …";
    try {
      const answer = await fetch("/explain", { method: "POST", body: file });
      if (!answer.ok) throw new Error((await answer.json()).error);
      heat.src = URL.createObjectURL(await answer.blob());
      heat.alt = `heat map: orange regions speak for ${row.label}, purple ones against it`;
      heat.hidden = false;
    } catch (error) {
      button.textContent = `failed: ${error.message}`;
      return;
    }
    button.disabled = false;
  }
  card.querySelector(".legend").hidden = heat.hidden;
  button.textContent = heat.hidden ? "explain" : "hide explanation";
}

function add(file) {
  const entry = Object.assign(addCard(file.name), { file, row: null });
  const photo = entry.card.querySelector(".photo");
  photo.src = URL.createObjectURL(file);
  photo.addEventListener("error", () => photo.remove()); // formats that browsers can't show
  if (file.size > model.photo_bytes) {
    const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
    fail(entry, `too large: ${mebibytes(file.size)} MiB; the limit is ${mebibytes(model.photo_bytes)}`);
    return;
  }
  waiting.push(entry);
  next();
}

async function next() {
  if (running >= MAX_REQUESTS || !waiting.length) return;
  running += 1;
  const entry = waiting.shift();
  try {
    const body = new FormData();
    body.append("files", entry.file, entry.file.name || "photo");
    const answer = await fetch("/predict", { method: "POST", body });
    if (answer.status === 429 || answer.status === 503) {
      waiting.unshift(entry);
      await new Promise((done) => setTimeout(done, 1000));
    } else {
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
      entry.row = found[0];
      fill(entry);
    }
  } catch (error) {
    fail(entry, `failed: ${error.message}`);
  }
  running -= 1;
  next();
}

listen(add);
fetch("/healthz")
  .then((answer) => answer.json())
  .then((found) => {
    model = found;
    useTemperature(model.temperature, model.classes);
  });
