// Photos as cards with bars, and the temperature slider: what the page of `catordog serve` and the
// one-file page have in common. Both have the elements of these names.

import { formatPercent, softmax } from "/softmax.js";

export const get = (id) => document.getElementById(id);
const cards = []; // of { card, logits, alone }
let own = 1; // the model's temperature

function temperature() {
  return own * 10 ** Number(get("temperature").value);
}

function showTemperature() {
  const chosen = temperature();
  const isOwn = Number(get("temperature").value) === 0;
  get("temperature-shown").textContent = chosen.toPrecision(3);
  get("temperature").setAttribute("aria-valuetext", chosen.toPrecision(3)); // its value is a logarithm
  get("temperature-words").textContent = isOwn
    ? "Softmax divides logits by the temperature. At this value the model is calibrated."
    : chosen > own
      ? "Higher: softer. The same logits with less confidence; the predicted class stays the same."
      : "Lower: sharper. The same logits with more confidence; the predicted class stays the same.";
  cards.forEach(showConfidences);
}

// A card for a photo that is being predicted, at the top of the results.
export function addCard(name) {
  const card = get("card").content.firstElementChild.cloneNode(true);
  card.querySelector(".name").textContent = name;
  card.querySelector("h2").textContent = "predicting …";
  const entry = { card, logits: null, alone: null };
  cards.push(entry);
  get("results").prepend(card);
  return entry;
}

export function failCard({ card }, reason) {
  card.classList.add("wrong");
  card.querySelector("h2").textContent = reason;
}

// Show a prediction: its words, pairs of a class and a logit in class order, and the confidence of the
// only class, which softmax can't tell, of a model that has one.
export function fillCard(entry, words, logits, confidence) {
  const { card } = entry;
  entry.alone = logits.length === 1 ? confidence : null;
  entry.logits = logits.map(([, logit]) => logit);
  card.querySelector("h2").textContent = words;
  card.querySelector(".photo").alt = words;
  for (const [name, logit] of logits) {
    const bar = element("div", "bar");
    const track = element("div", "track");
    track.append(element("div", "fill"));
    bar.append(element("span", "class", name), track, element("span", "value"));
    bar.append(element("span", "logit small", `logit ${logit.toFixed(3)}`));
    card.querySelector(".bars").append(bar);
  }
  showConfidences(entry);
}

function showConfidences({ card, logits, alone }) {
  if (!logits) return;
  const bars = card.querySelectorAll(".bar");
  const confidences = alone === null ? softmax(logits, temperature()) : [alone];
  confidences.forEach((confidence, index) => {
    bars[index].querySelector(".fill").style.width = `${100 * confidence}%`;
    bars[index].querySelector(".value").textContent = formatPercent(confidence);
  });
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Show a model's temperature, of which the slider is a multiple. A model of one class has a confidence
// that no softmax gives.
export function useTemperature(value, classes) {
  own = value;
  get("temperature-section").hidden = classes.length === 1;
  showTemperature();
}

// Call `add` with each photo that is dropped, pasted, chosen or taken, and with how many there are.
export function listen(add) {
  const drop = get("drop");
  const all = (files) => [...files].forEach((file) => add(file, files.length));
  for (const id of ["files", "camera"]) {
    get(id).addEventListener("change", (event) => {
      all([...event.target.files]);
      event.target.value = "";
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    all(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => all(event.clipboardData.files));
  get("temperature").addEventListener("input", showTemperature);
  get("reset").addEventListener("click", () => {
    get("temperature").value = 0;
    showTemperature();
  });
}
