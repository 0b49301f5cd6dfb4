// Classes of the review page: a key for each of the first ten, and a box to type the name of any.

import { state } from "./review_state.js";
import { button, byId, element } from "./review_view.js";

const DIGITS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"];
const MOST_SHOWN = 12;

// Keys and classes, in the order of the classes. A class whose name is a digit has that key; the
// others have the free ones in turn.
export function classKeys() {
  const named = new Set(state.classes.filter((name) => DIGITS.includes(name)));
  const free = DIGITS.filter((digit) => !named.has(digit));
  return state.classes
    .map((name) => [named.has(name) ? name : free.shift(), name])
    .filter(([key]) => key !== undefined);
}

const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().trim();

// The classes that these letters may mean, the likeliest first.
export function matching(letters, classes) {
  const wanted = folded(letters);
  const rank = (name) => {
    const text = folded(name);
    if (text === wanted) return 0;
    if (text.startsWith(wanted)) return 1;
    if (text.split(/[^\p{L}\p{N}]+/u).some((word) => word.startsWith(wanted))) return 2;
    return text.includes(wanted) ? 3 : 4;
  };
  return classes
    .map((name) => [rank(name), name])
    .filter(([found]) => found < 4)
    .sort((a, b) => a[0] - b[0])
    .map(([, name]) => name);
}

let work = () => {};
let found = [];
let at = 0;

// Open the box; the class that is chosen goes to `then`.
export function askClass(then) {
  work = then;
  byId("letters").value = "";
  show();
  byId("class").showModal();
}

function show() {
  found = matching(byId("letters").value, state.classes);
  at = 0;
  const shown = found.slice(0, MOST_SHOWN).map((name) => {
    const made = button(name, "", "relabel");
    made.addEventListener("click", () => choose(name));
    return made;
  });
  if (!found.length) shown.push(element("p", "small", "no class has this name"));
  if (found.length > MOST_SHOWN) shown.push(element("p", "small", `${found.length - MOST_SHOWN} more`));
  byId("class-list").replaceChildren(...shown);
  showChosen();
}

function showChosen() {
  [...byId("class-list").querySelectorAll("button")].forEach((made, index) => {
    made.classList.toggle("suggested", index === at);
  });
}

function choose(name) {
  if (name === undefined) return;
  byId("class").close();
  work(name);
}

export function listenForClasses() {
  byId("letters").addEventListener("input", show);
  byId("letters").addEventListener("keydown", (event) => {
    if (event.key === "Enter") choose(found[at]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const last = Math.min(found.length, MOST_SHOWN) - 1;
      at = Math.max(0, Math.min(last, at + (event.key === "ArrowDown" ? 1 : -1)));
      showChosen();
    } else return;
    event.preventDefault();
  });
}
