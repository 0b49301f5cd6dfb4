// What the review page shows: pure functions of its state that make elements.

import { photoUrl } from "./review_api.js";
import { formatPercent } from "./softmax.js";

export const byId = (id) => document.getElementById(id);

export function element(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function button(text, key, name) {
  const made = element("button", name, text);
  made.type = "button";
  if (key) made.append(" ", element("kbd", "", key));
  return made;
}

const count = (n) => n.toLocaleString("en");

export function queueButton(queue, current) {
  const made = element("button", queue.judged >= queue.count ? "done" : "");
  made.type = "button";
  made.dataset.queue = queue.name;
  made.setAttribute("aria-current", String(queue.name === current));
  const words = queue.judged ? `${count(queue.judged)} / ${count(queue.count)}` : count(queue.count);
  made.append(element("span", "", queue.title), element("span", "count", words));
  return made;
}

export function progressWords({ what, done, total, notes }) {
  const step = what && (total ? `${what}: ${count(done)} of ${count(total)}` : what);
  return [step, ...notes].filter(Boolean).join(" · ");
}

export function showEstimate(into, estimate) {
  into.replaceChildren();
  if (!estimate?.judged) return;
  const { found, judged, missing, left, low, high, enough } = estimate;
  into.append(element("p", "", `${count(judged)} labels judged, ${count(found)} of them wrong.`));
  if (left === null) {
    into.append(element("p", "", `Judge ${missing} more of “Random” to learn how many are left.`));
    return;
  }
  const line = element("p");
  line.append(
    "Wrong labels left: ",
    element("b", "", `about ${count(Math.round(left))}`),
    ` (95 % interval ${count(Math.floor(low))} to ${count(Math.ceil(high))}).`,
  );
  into.append(line);
  if (enough) into.append(element("p", "keep", "Enough judged: more would find little."));
}

// What the labels have taught so far: accuracy after each round, and whether more of them pay.
export function showRounds(into, rounds, pays) {
  if (!rounds.length) return;
  const { labels, accuracy, interval } = rounds.at(-1);
  const percent = (x) => `${(100 * x).toFixed(1)} %`;
  const words = accuracy === null ? "too few to test" : `${percent(accuracy)} accuracy`;
  const line = element("p", "", `${count(labels)} labels: `);
  line.append(element("b", "", words));
  if (accuracy !== null) line.append(` (95 % interval ${percent(interval[0])} to ${percent(interval[1])})`);
  line.title = "by cross-validation; the proposed photos are the hard ones, so all photos do better";
  into.append(line);
  const known = rounds.filter((each) => each.accuracy !== null);
  if (known.length > 1) into.append(curve(known));
  if (!pays) into.append(element("p", "keep", "More labels change little: you can stop here."));
}

function curve(rounds) {
  const make = (kind, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    return made;
  };
  const svg = make("svg", { viewBox: "0 0 200 80", class: "curve", role: "img" });
  svg.setAttribute("aria-label", "accuracy against the number of labels");
  const low = Math.min(0.9, ...rounds.map((each) => each.accuracy));
  const points = rounds.map(({ accuracy }, index) => {
    const x = 5 + (190 * index) / (rounds.length - 1);
    return `${x.toFixed(1)},${(70 - (60 * (accuracy - low)) / (1 - low)).toFixed(1)}`;
  });
  svg.append(make("line", { x1: 5, x2: 195, y1: 10, y2: 10 }), make("line", { x1: 5, x2: 195, y1: 70, y2: 70 }));
  svg.append(make("polyline", { points: points.join(" ") }));
  for (const [y, value] of [[8, 1], [78, low]]) {
    const label = make("text", { x: 5, y });
    label.textContent = `${(100 * value).toFixed(0)} %`;
    svg.append(label);
  }
  return svg;
}

const WORDS = { keep: "kept", leave_out: "left out", skip: "skipped" };

// The label of a photo and what was decided about it.
export function labelWords(item, decision) {
  const made = element("span");
  const label = item.label ?? "no label";
  if (decision?.action === "relabel") {
    if (item.label) made.append(element("span", "old", label), " → ");
    made.append(element("b", "relabel", decision.label));
  } else if (decision?.action === "leave_out") {
    made.append(element("span", "old", label), " ", element("b", "leave_out", WORDS.leave_out));
  } else if (decision) {
    made.append(label, " ", element("b", decision.action, WORDS[decision.action]));
  } else {
    made.append(label);
    if (item.suggested) made.append(element("span", "small", ` → ${item.suggested}?`));
  }
  return made;
}

export function cell(item, decision) {
  const made = element("button", "cell");
  made.type = "button";
  made.dataset.id = item.id;
  made.title = [item.name, item.reason].filter(Boolean).join("\n");
  const image = element("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = item.name;
  image.src = photoUrl(item.id, "thumbnail");
  image.addEventListener("error", () => made.classList.add("broken"));
  made.append(image, element("span", "label"));
  updateCell(made, item, decision);
  return made;
}

export function updateCell(made, item, decision) {
  made.classList.toggle("decided", Boolean(decision));
  made.querySelector(".label").replaceChildren(labelWords(item, decision));
}

export function figure(item, decision, alone) {
  const made = element("figure");
  made.dataset.id = item.id;
  const picture = element("div", "picture");
  const image = element("img", "photo");
  image.alt = item.name;
  image.src = photoUrl(item.id, "large");
  image.addEventListener("error", () => {
    picture.replaceChildren(element("p", "unreadable", item.reason || "can't be read"));
  });
  picture.append(image);
  made.append(picture);
  if (!alone) {
    const caption = element("figcaption");
    caption.append(labelWords(item, decision), element("div", "small", item.name));
    made.append(caption);
  }
  return made;
}

// Bars of the model's confidences; a click on one asks for its explanation.
export function showModel(into, prediction, explain) {
  into.replaceChildren();
  if (!prediction) return;
  into.append(element("p", "words", `Model: ${prediction.words}`));
  const ranked = Object.entries(prediction.confidences).sort((a, b) => b[1] - a[1]);
  for (const [name, confidence] of ranked.slice(0, 6)) {
    const bar = button("", "", "bar");
    bar.title = `explain ${name}`;
    const fill = element("div", "fill");
    fill.style.width = `${100 * confidence}%`;
    const track = element("div", "track");
    track.append(fill);
    bar.append(element("span", "class", name), track);
    bar.append(element("span", "value", formatPercent(confidence)));
    bar.append(element("span", "logit small", `logit ${prediction.logits[name].toFixed(3)}`));
    bar.addEventListener("click", () => explain(name));
    into.append(bar);
  }
  const ask = button("explain", "e");
  ask.addEventListener("click", () => explain(prediction.label));
  const line = element("p", "buttons");
  line.append(ask);
  into.append(line);
}

// The photos that look most like a photo, with their labels.
export function showNearest(into, nearest) {
  into.replaceChildren();
  if (!nearest.length) return;
  into.append(element("p", "small", "Most alike:"));
  const row = element("div", "row");
  for (const { id, label, name } of nearest) {
    const made = element("figure");
    const image = element("img");
    image.alt = name;
    image.title = name;
    image.src = photoUrl(id, "thumbnail");
    made.append(image, element("figcaption", "small", label ?? ""));
    row.append(made);
  }
  into.append(row);
}

export function historyWords(history) {
  if (history.length < 2) return "";
  const words = history.map(({ time, action, label }) => {
    const when = new Date(time).toLocaleString();
    return `${when} ${action === "relabel" ? `relabelled ${label}` : (WORDS[action] ?? "cleared")}`;
  });
  return `History: ${words.join("; ")}`;
}

export function showKeys(into, rows) {
  into.replaceChildren();
  for (const [keys, words] of rows) {
    const term = element("dt");
    keys.forEach((key) => term.append(element("kbd", "", key), " "));
    into.append(term, element("dd", "", words));
  }
}
