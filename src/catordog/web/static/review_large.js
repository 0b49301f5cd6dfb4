// The large view of the review page: one photo, or copies side by side, and what is known of it.

import { get, photoUrl } from "./review_api.js";
import { current, decisionOf, place, state, toast } from "./review_state.js";
import { byId, element, figure, historyWords, labelWords, showModel, showNearest } from "./review_view.js";

export function showLarge() {
  const items = place();
  byId("stage").replaceChildren(
    ...items.map((item) => figure(item, decisionOf(item), items.length === 1)),
  );
  byId("stage").classList.toggle("several", items.length > 1);
  byId("stage").classList.toggle("many", items.length > 3);
  showWords();
  for (const next of state.places.slice(state.at + 1, state.at + 3).flat().slice(0, 4)) {
    new Image().src = photoUrl(next.id, "large"); // so that it is there when it is needed
  }
}

export function showWords() {
  const item = current();
  if (!item) return;
  const items = place();
  byId("place").textContent = `${byId("title").textContent}, ${state.at + 1} of ${state.total}`;
  byId("name").textContent = item.name;
  byId("reason").textContent = item.reason;
  byId("now").replaceChildren(labelWords(item, decisionOf(item)));
  for (const [index, made] of [...byId("stage").children].entries()) {
    made.classList.toggle("current", items.length > 1 && index === state.item);
    made.querySelector("figcaption span")?.replaceWith(labelWords(items[index], decisionOf(items[index])));
  }
  for (const made of byId("actions").querySelectorAll("[data-class]")) {
    made.classList.toggle("suggested", made.dataset.class === item.suggested);
  }
  showDetails(item);
}

async function showDetails(item) {
  if (byId("model").dataset.id !== String(item.id)) {
    byId("model").replaceChildren();
    byId("nearest").replaceChildren();
    byId("history").textContent = "";
    byId("legend").hidden = true;
  }
  byId("model").dataset.id = item.id;
  try {
    const found = await get(`photos/${item.id}`);
    if (current() !== item) return;
    showModel(byId("model"), found.prediction, explain);
    showNearest(byId("nearest"), found.nearest);
    byId("history").textContent = historyWords(found.history);
    if (found.error) byId("reason").textContent = `can't be read: ${found.error}`;
    item.prediction = found.prediction;
  } catch (error) {
    byId("history").textContent = error.message;
  }
}

// Show or hide the heat map over the current photo.
export function explain(name) {
  const item = current();
  const label = name ?? item?.prediction?.label;
  const picture = byId("stage").querySelector(`[data-id="${item?.id}"] .picture`);
  if (!label || !picture) return;
  const before = picture.querySelector(".heat");
  before?.remove();
  byId("legend").hidden = true;
  if (before?.dataset.class === label) return;
  const heat = element("img", "heat");
  heat.dataset.class = label;
  heat.alt = `heat map: orange regions speak for ${label}, purple ones against it`;
  heat.addEventListener("load", () => (byId("legend").hidden = false));
  heat.addEventListener("error", () => {
    heat.remove();
    toast("there is no explanation of this photo");
  });
  heat.src = `${photoUrl(item.id, "explanation")}?${new URLSearchParams({ class: label })}`;
  picture.append(heat);
  toast(`explaining ${label} …`);
}

document.addEventListener("decided", ({ detail: ids }) => {
  if (state.large && place().some((item) => ids.has(item.id))) showWords();
});
