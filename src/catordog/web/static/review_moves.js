// What the keys and buttons of the review page do: decide, and move on.

import { askClass, classKeys } from "./review_classes.js";
import { loadMore, showCurrent, showViews, startQueue, unmark } from "./review_grid.js";
import { showLarge, showWords } from "./review_large.js";
import { current, decide, decideAll, decisionOf, open, place, send, state, store, toast } from "./review_state.js";
import { button, byId, element } from "./review_view.js";

// More classes stand in one row of a phone, which scrolls.
const MOST_IN_ROWS = 4;

// A photo without a label has nothing to keep: the suggested class is confirmed instead.
const toConfirm = (item) => item.label === null && item.suggested;

// What a key or a button decides about: the marked photos, or the current one.
function chosen() {
  if (state.marked.size) {
    return state.places.flat().filter((item) => state.marked.has(item.id));
  }
  return current() ? [current()] : [];
}

export async function act(action, label = null) {
  const items = chosen();
  if (action === "keep" && items.length === 1 && toConfirm(items[0])) {
    return act("relabel", items[0].suggested);
  }
  if (!items.length || !(await decide(items, action, label))) return;
  unmark();
  await advance();
}

export const relabel = (label) => act("relabel", label);
export const relabelByName = () => askClass(relabel);

// Enter in the large view: keep this one; of copies, leave out the others.
export async function keepThis() {
  const kept = current();
  if (!kept) return;
  if (toConfirm(kept)) return act("relabel", kept.suggested);
  const choices = place().map((item) => ({
    id: item.id, action: item === kept ? "keep" : "leave_out", label: null, queue: state.queue,
  }));
  if (await decideAll(choices)) await advance();
}

export async function skip() {
  if (state.marked.size || !state.large) return act("skip");
  const left = place().filter((item) => !decisionOf(item));
  if (await decide(left.length ? left : place(), "skip")) await advance();
}

export async function keepAll() {
  if (await decide(place(), "keep")) await advance();
}

export const undo = () => revert("done", "undone", "before", "undone");
export const redo = () => revert("undone", "done", "after", "redone");

// Undo and redo wait for what is under way, and for one another: they are about photos that were
// seen before, so none of them is dropped.
let reverting = Promise.resolve();

function revert(...words) {
  reverting = reverting.then(() => revertNow(...words));
  return reverting;
}

async function revertNow(from, to, side, words) {
  while (state.busy) await state.deciding;
  const last = state[from].at(-1);
  if (!last) {
    toast(`nothing can be ${words}`);
    return;
  }
  if (!(await send(last[side]))) return;
  state[from].pop();
  state[to].push(last);
  store();
  const { id } = last[side][0];
  const at = state.places.findIndex((each) => each.some((item) => item.id === id));
  if (at >= 0) move(at, state.places[at].findIndex((item) => item.id === id));
  toast(`${words}: ${last[side].length === 1 ? "1 photo" : `${last[side].length} photos`}`);
}

export async function advance() {
  if (open(place())) {
    const after = place().findIndex((item, index) => index > state.item && !decisionOf(item));
    return move(state.at, after >= 0 ? after : place().findIndex((item) => !decisionOf(item)));
  }
  let next = state.at + 1;
  while (true) {
    while (next < state.places.length && !open(state.places[next])) next += 1;
    if (next < state.places.length) return move(next);
    if (!(await loadMore())) break;
  }
  toast("the end of this queue");
  if (state.large) showGrid();
  else move(state.at, state.item);
}

export async function step(by) {
  const items = place();
  if (by > 0 && state.large && state.queue === "random" && open(items)) {
    toast("not decided: the estimate needs a sample without gaps (s skips a photo)");
  }
  if (state.large && items.length > 1 && items[state.item + by]) return move(state.at, state.item + by);
  if (!state.large && items[state.item + by]) return move(state.at, state.item + by);
  const next = state.at + by;
  if (next >= state.places.length) await loadMore();
  if (state.places[next]) move(next, by < 0 ? state.places[next].length - 1 : 0);
}

export function move(at, item = 0) {
  const moved = state.at !== at;
  state.at = at;
  state.item = item;
  if (!state.large) return showCurrent();
  if (!moved && byId("stage").hasChildNodes()) return showWords();
  showActions();
  showLarge();
  if (state.at > state.places.length - 20) loadMore();
}

export async function openQueue(name, label = state.label) {
  startQueue(name, label);
  await loadMore();
  move(Math.max(0, state.places.findIndex(open)));
}

export function openLarge(at, item) {
  if (!state.places[at]) return;
  unmark();
  state.large = true;
  state.at = -1;
  showViews();
  move(at, item);
}

export function showGrid() {
  state.large = false;
  byId("stage").replaceChildren();
  showViews();
  showCurrent();
}

function showActions() {
  const many = place().length > 1;
  const keep = toConfirm(current()) ? "as suggested" : many ? "keep only this" : "keep";
  const made = [actionButton(keep, "Enter", "keep", keepThis)];
  if (many) made.push(actionButton("keep all", "a", "", keepAll));
  const keys = classKeys();
  const classes = element("span", "classes");
  for (const [key, name] of keys) {
    const one = actionButton(name, key, "relabel", () => relabel(name));
    one.dataset.class = name;
    classes.append(one);
  }
  made.push(classes);
  if (state.classes.length > keys.length) {
    const { suggested } = current();
    if (suggested && !keys.some(([, name]) => name === suggested)) {
      const one = actionButton(suggested, "t", "relabel", () => relabel(suggested));
      one.dataset.class = suggested;
      classes.append(one);
    }
    made.push(actionButton("class …", "c", "relabel", relabelByName));
  }
  made.push(
    actionButton("leave out", "x", "leave_out", () => act("leave_out")),
    actionButton("skip", "s", "skip", skip, "seen, but undecided: this is stored"),
    element("span", "spacer"),
    actionButton("‹", "←", "", () => step(-1), "previous photo: nothing is decided"),
    actionButton("›", "→", "", () => step(1), "next photo: nothing is decided"),
    actionButton("grid", "g", "", showGrid),
  );
  byId("actions").classList.toggle("many", keys.length > MOST_IN_ROWS);
  byId("actions").replaceChildren(...made);
}

export function actionButton(text, key, name, work, title = "") {
  const made = button(text, key, name);
  made.title = title;
  made.addEventListener("click", work);
  return made;
}
