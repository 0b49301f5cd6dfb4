// The grid of the review page: the photos of a queue, loaded as they are scrolled to.

import { get } from "./review_api.js";
import { decisionOf, fail, open, state } from "./review_state.js";
import { byId, cell, element, updateCell } from "./review_view.js";

export async function loadMore() {
  if (state.queue === "found" || (state.places.length && state.places.length >= state.total)) return false;
  if (state.loading) return state.loading;
  const own = load().finally(() => {
    if (state.loading === own) state.loading = null;
  });
  state.loading = own;
  return own;
}

export async function load() {
  const { queue, label, places } = state;
  const parameters = { start: state.places.length, ...(label ? { label } : {}) };
  try {
    const found = await get(`queues/${queue}`, parameters);
    if (places !== state.places) return false; // the grid has started anew
    state.counted = countOf(queue);
    add(found);
    return found.places.length > 0;
  } catch (error) {
    fail(error.message);
    return false;
  }
}

export function add({ total, places }) {
  const start = state.places.length;
  state.total = total;
  state.places.push(...places);
  const made = places.map((items, offset) => {
    const cells = items.map((item, index) => {
      if (item.decision) state.decisions.set(item.id, item.decision);
      const one = cell(item, decisionOf(item));
      Object.assign(one, { item, at: [start + offset, index] });
      return one;
    });
    if (cells.length === 1) return cells[0];
    const group = element("div", "group");
    group.append(...cells);
    return group;
  });
  byId("grid").append(...made);
  const shown = state.places.length;
  byId("end").textContent = total
    ? shown < total ? `${shown} of ${total}; more follow` : ""
    : "No photos here.";
}

export function showCurrent() {
  byId("grid").querySelector(".current")?.classList.remove("current");
  const made = [...byId("grid").querySelectorAll(".cell")].find(
    (each) => each.at[0] === state.at && each.at[1] === state.item,
  );
  if (!made) return;
  made.classList.add("current");
  made.focus({ preventScroll: true });
  made.scrollIntoView({ block: "nearest" });
}

export function unmark() {
  state.marked.clear();
  for (const made of byId("grid").querySelectorAll(".marked")) made.classList.remove("marked");
}

export function mark(made) {
  if (!state.marked.delete(made.item.id)) state.marked.add(made.item.id);
  made.classList.toggle("marked");
}

export function showHead() {
  const queue = state.queues.find((each) => each.name === state.queue);
  byId("title").textContent = queue?.title ?? "Found";
  byId("hint").textContent = queue?.hint ?? "";
  for (const each of byId("queues").children) {
    each.setAttribute("aria-current", String(each.dataset.queue === state.queue));
  }
}

export function showViews() {
  byId("list").hidden = state.large;
  byId("large").hidden = !state.large;
  document.body.classList.toggle("zoomed", state.large);
}

// Empty the grid for another queue, or for what was found.
export function startQueue(name, label) {
  const empty = { places: [], total: 0, at: 0, item: 0, large: false, loading: null };
  Object.assign(state, { queue: name, label, ...empty });
  byId("filter").value = label;
  unmark();
  byId("grid").replaceChildren();
  byId("end").textContent = "";
  showHead();
  showViews();
}

// Up and down: the place of the nearest photo in the next row; null: there is none.
export function inNextRow(by) {
  const cells = [...byId("grid").querySelectorAll(".cell")];
  const from = cells.findIndex((each) => each.classList.contains("current"));
  if (from < 0) return null;
  const box = cells[from].getBoundingClientRect();
  const rows = by > 0 ? cells.slice(from + 1) : cells.slice(0, from).reverse();
  const other = rows.find((each) => Math.abs(each.getBoundingClientRect().top - box.top) > 4);
  if (!other) return null;
  const top = other.getBoundingClientRect().top;
  const row = rows.filter((each) => Math.abs(each.getBoundingClientRect().top - top) <= 4);
  const gap = (each) => Math.abs(each.getBoundingClientRect().left - box.left);
  const best = row.reduce((a, b) => (gap(b) < gap(a) ? b : a));
  return best.at;
}

export const countOf = (name) => state.queues.find((each) => each.name === name)?.count ?? 0;

document.addEventListener("decided", ({ detail: ids }) => {
  for (const made of byId("grid").querySelectorAll(".cell")) {
    if (ids.has(made.item.id)) updateCell(made, made.item, decisionOf(made.item));
  }
});
