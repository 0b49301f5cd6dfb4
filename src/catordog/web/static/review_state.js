// The state of the review page, and its decisions. A decision is sent first; the page moves on when
// the server has answered that it is on the disk.

import { post } from "./review_api.js";
import { byId } from "./review_view.js";

export const state = {
  classes: [], queues: [], version: 0,
  decisions: new Map(), // by the id of a photo
  queue: "", label: "", places: [], total: 0, counted: 0,
  at: 0, item: 0, large: false, selecting: false, marked: new Set(),
  busy: false, deciding: null, loading: null,
  done: stored("done"), undone: stored("undone"),
};

// Undo survives a reload of the tab. The address has the token of this review: the ids of another
// one, on the same port, are those of other photos.
function keyOf(name) {
  return `${name} ${location.pathname}`;
}

function stored(name) {
  try {
    return JSON.parse(sessionStorage.getItem(keyOf(name))) ?? [];
  } catch {
    return [];
  }
}

export function store() {
  try {
    for (const name of ["done", "undone"]) {
      sessionStorage.setItem(keyOf(name), JSON.stringify(state[name]));
    }
  } catch {
    // A full storage only means that undo starts anew after a reload.
    for (const name of ["done", "undone"]) sessionStorage.removeItem(keyOf(name));
  }
}

export const place = () => state.places[state.at] ?? [];
export const current = () => place()[state.item];
export const decisionOf = (item) => state.decisions.get(item.id);
export const open = (each) => each.some((item) => !decisionOf(item));

let hiding;
export function toast(words) {
  byId("toast").textContent = words;
  byId("toast").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (byId("toast").hidden = true), 2500);
}

export function fail(words) {
  byId("error").textContent = words;
  byId("error").hidden = !words;
}

export function take(changes) {
  for (const [id, decision] of Object.entries(changes)) {
    if (decision) state.decisions.set(Number(id), decision);
    else state.decisions.delete(Number(id));
  }
  const ids = new Set(Object.keys(changes).map(Number));
  if (ids.size) document.dispatchEvent(new CustomEvent("decided", { detail: ids }));
}

// Store decisions. While this is under way, no other is taken: its photo is not on screen yet.
export async function send(choices) {
  if (state.busy || !choices.length) return false;
  state.busy = true;
  try {
    take((await post("decisions", { choices })).changes);
    fail("");
    return true;
  } catch (error) {
    fail(`Not stored: ${error.message}`);
    return false;
  } finally {
    state.busy = false;
  }
}

// The choice that brings back the present decision about a photo.
function asChoice(id) {
  const before = state.decisions.get(id);
  if (!before) return { id, action: "clear", queue: state.queue };
  const label = before.action === "relabel" ? before.label : null;
  return { id, action: before.action, label, queue: before.queue };
}

export async function decide(items, action, label = null) {
  const after = items.map(({ id }) => ({ id, action, label, queue: state.queue }));
  return decideAll(after);
}

// Decide, and remember it for undo. `after` has a choice for each photo.
export async function decideAll(after) {
  if (state.busy) return false;
  state.deciding = decideNow(after);
  return state.deciding;
}

async function decideNow(after) {
  const before = after.map(({ id }) => asChoice(id));
  if (!(await send(after))) return false;
  state.done.push({ before, after });
  state.undone = [];
  store();
  return true;
}
