// The review page: queues of photos, and decisions by key, click or touch.

import { get } from "./review_api.js";
import { askClass, classKeys, listenForClasses } from "./review_classes.js";
import { add, countOf, inNextRow, loadMore, mark, startQueue, unmark } from "./review_grid.js";
import { explain } from "./review_large.js";
import {
  act, actionButton, advance, keepAll, keepThis, move, openLarge, openQueue, redo, relabel,
  relabelByName, showGrid, skip, step, undo,
} from "./review_moves.js";
import { current, decide, decideAll, decisionOf, fail, place, state, take, toast } from "./review_state.js";
import { byId, progressWords, queueButton, showEstimate, showKeys, showRounds } from "./review_view.js";

const POLL_MS = 2000;

// ---- dialogs

function askAll() {
  const marked = state.places.flat().filter((item) => state.marked.has(item.id));
  const items = marked.length ? marked : state.places.flat().filter((item) => !decisionOf(item));
  if (!items.length) return toast("no undecided photo is shown");
  const which = marked.length ? "selected" : "undecided";
  const photos = items.length === 1 ? `1 ${which} photo` : `${items.length} ${which} photos`;
  byId("all-words").textContent = `Decide about ${photos} of “${byId("title").textContent}” at once?`;
  const then = (action, label) => async () => {
    byId("all").close();
    if (await decide(items, action, label)) {
      unmark();
      await advance();
    }
  };
  const buttons = [actionButton("keep all", "k", "keep", then("keep"))];
  const suggested = items.filter((item) => item.suggested);
  if (suggested.length === items.length) {
    buttons.push(actionButton("relabel all as suggested", "t", "relabel", async () => {
      byId("all").close();
      const choices = items.map(({ id, suggested: label }) => ({ id, action: "relabel", label, queue: state.queue }));
      if (await decideAll(choices)) {
        unmark();
        await advance();
      }
    }));
  }
  const keys = classKeys();
  for (const [key, name] of keys) {
    buttons.push(actionButton(`all are ${name}`, key, "relabel", then("relabel", name)));
  }
  if (state.classes.length > keys.length) {
    buttons.push(actionButton("all are …", "c", "relabel", () => {
      byId("all").close();
      askClass((name) => then("relabel", name)());
    }));
  }
  buttons.push(actionButton("leave all out", "x", "leave_out", then("leave_out")));
  buttons.push(actionButton("cancel", "Esc", "", () => byId("all").close()));
  byId("all-buttons").replaceChildren(...buttons);
  byId("all").showModal();
}

function keyInAll(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  for (const each of byId("all-buttons").children) {
    if (each.querySelector("kbd").textContent === event.key) {
      event.preventDefault();
      each.click();
      return;
    }
  }
}

async function find(words) {
  if (!words.trim()) return;
  let found;
  try {
    found = await get("find", { words });
  } catch (error) {
    fail(error.message);
    return;
  }
  startQueue("found", "");
  add(found);
  if (found.total === 1) openLarge(0, 0);
  else move(0);
}

const actions = {
  undo,
  redo,
  find: () => byId("find").showModal(),
  help: () => byId("help").showModal(),
  all: askAll,
  select: () => {
    state.selecting = !state.selecting;
    document.querySelector("[data-do=select]").setAttribute("aria-pressed", String(state.selecting));
    if (!state.selecting) unmark();
  },
};

const KEYS = [
  [["k"], "keep the photo and its label"],
  [["Enter"], "the same; of copies, keep this one and leave out the others; without a label, take the suggested one; in the grid, open the photo"],
  [["1", "…", "9", "0"], "relabel: the first ten classes, in their order; a class whose name is a digit has that key"],
  [["c"], "relabel: type the first letters of a class, then Enter"],
  [["t"], "relabel as suggested"],
  [["x"], "leave out"],
  [["s"], "skip: undecided, but seen, which is stored"],
  [["a"], "keep all copies of a group"],
  [["←", "→", "↑", "↓"], "the previous or next photo; nothing is decided or stored"],
  [["u", "Ctrl+Z"], "undo, without limit"],
  [["U", "Ctrl+Y"], "redo"],
  [["e"], "explain: which regions decide the model's answer"],
  [["Space"], "in the grid: select the photo"],
  [["A"], "all of these: decide about the selected photos, or all undecided ones, at once"],
  [["f"], "filter by class"],
  [["/"], "find a photo by its name"],
  [["[", "]"], "the previous or next queue"],
  [["g", "Esc"], "back to the grid"],
  [["?"], "this list"],
];

// ---- keys and clicks

const KEY_WORK = {
  k: () => act("keep"),
  x: () => act("leave_out"),
  s: skip,
  a: () => state.large && place().length > 1 && keepAll(),
  c: () => current() && relabelByName(),
  t: () => current()?.suggested && act("relabel", current().suggested),
  u: undo,
  U: redo,
  e: () => state.large && explain(),
  g: () => state.large && showGrid(),
  Escape: () => (state.large ? showGrid() : unmark()),
  A: askAll,
  f: () => !state.large && byId("filter").focus(),
  "/": actions.find,
  "?": actions.help,
  "[": () => stepQueue(-1),
  "]": () => stepQueue(1),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => stepRow(-1),
  ArrowDown: () => stepRow(1),
  Enter: () => (state.large ? keepThis() : openLarge(state.at, state.item)),
  " ": () => {
    const made = byId("grid").querySelector(".current");
    if (!state.large && made) mark(made);
  },
};

function stepRow(by) {
  const next = state.large ? null : inNextRow(by);
  if (next) move(...next);
}

function stepQueue(by) {
  const names = state.queues.map((each) => each.name);
  const next = names[names.indexOf(state.queue) + by];
  if (next) openQueue(next);
}

function onKey(event) {
  if (byId("all").open) return keyInAll(event);
  if (document.querySelector("dialog[open]")) return;
  // A field of a dialog that has just closed may still have the focus.
  const typing = event.target.matches("select, input") && !event.target.closest("dialog");
  if (typing && event.key !== "Escape") return;
  const altGraph = event.getModifierState("AltGraph"); // some keyboards need it for [ and ]
  if ((event.ctrlKey || event.metaKey) && !altGraph) {
    const key = event.key.toLowerCase();
    const work = key === "y" || (key === "z" && event.shiftKey) ? redo : key === "z" && undo;
    if (work) {
      event.preventDefault();
      work();
    }
    return;
  }
  if (event.altKey && !altGraph) return;
  const label = classKeys().find(([key]) => key === event.key)?.[1];
  const work = label === undefined ? KEY_WORK[event.key] : () => relabel(label);
  if (!work) return;
  // Enter on a button of the page presses that button.
  const onButton = event.target.closest("button") && !event.target.closest(".cell");
  if (onButton && (event.key === "Enter" || event.key === " ")) return;
  event.preventDefault();
  if (event.repeat && !event.key.startsWith("Arrow") && event.key !== "u") return;
  work();
}

function listen() {
  document.addEventListener("keydown", onKey);
  listenForClasses();
  document.addEventListener("click", ({ target, detail }) => {
    // After a click with the mouse, Enter keeps the photo. It presses a button that Tab has reached.
    if (detail) target.closest("button:not(.cell)")?.blur();
    const work = target.closest("[data-do]")?.dataset.do;
    if (work) actions[work]();
    const queue = target.closest("[data-queue]")?.dataset.queue;
    if (queue) openQueue(queue);
    const made = target.closest(".cell");
    if (made) {
      if (state.selecting) mark(made);
      else openLarge(...made.at);
    }
    const shown = target.closest("#stage figure");
    if (shown && place().length > 1) move(state.at, [...byId("stage").children].indexOf(shown));
  });
  byId("grid").addEventListener("focusin", ({ target }) => {
    const made = target.closest(".cell");
    if (made && !made.classList.contains("current")) move(...made.at);
  });
  byId("filter").addEventListener("change", ({ target }) => {
    target.blur();
    openQueue(state.queue === "found" ? "all" : state.queue, target.value);
  });
  byId("find").addEventListener("close", () => {
    if (byId("find").returnValue) find(byId("words").value);
  });
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && state.places.length) loadMore();
  }, { rootMargin: "800px", scrollMargin: "800px" }).observe(byId("end"));
  showKeys(byId("keys"), KEYS);
}

// ---- changes elsewhere

const shown = {};

function isNew(part, value) {
  const text = JSON.stringify(value);
  const changed = shown[part] !== text;
  shown[part] = text;
  return changed;
}

async function poll() {
  const found = await get("state", { since: state.version });
  state.version = found.version;
  state.queues = found.queues;
  if (!state.classes.length) {
    state.classes = found.classes;
    byId("filter").append(new Option("all", ""), ...found.classes.map((name) => new Option(name, name)));
    byId("data").textContent = found.data;
    document.title = `${found.data}: review`;
  }
  take(found.changes);
  byId("progress").textContent = progressWords(found.progress);
  // What is unchanged stays, with its focus; screen readers say what is new only.
  if (isNew("queues", [found.queues, state.queue])) {
    byId("queues").replaceChildren(...found.queues.map((each) => queueButton(each, state.queue)));
  }
  if (isNew("estimate", [found.estimate, found.rounds, found.pays])) {
    showEstimate(byId("estimate"), found.estimate);
    showRounds(byId("estimate"), found.rounds, found.pays);
  }
  const idle = !state.large && !state.marked.size && !document.querySelector("dialog[open]");
  if (idle && state.queue && state.queue !== "found" && countOf(state.queue) !== state.counted) {
    openQueue(state.queue);
  }
}

async function keepPolling() {
  try {
    if (!document.hidden) {
      await poll();
      if (byId("error").textContent.startsWith("No answer")) fail("");
    }
  } catch (error) {
    fail(`No answer from catordog review: ${error.message}`);
  }
  setTimeout(keepPolling, POLL_MS);
}

listen();
try {
  await poll();
  await openQueue(state.queues[0]?.name ?? "all");
} catch (error) {
  fail(error.message);
}
keepPolling();
