"use strict";
// Elements, data, numbers. Whatever a run holds reaches the page as a text node: no string becomes HTML anywhere.

const $ = id => document.getElementById(id);

// el("button", {type: "button", onclick: f}, "text", child): attributes, handlers, and children, of which null is none.
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  return fill(node, ...children);
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat(3).filter(one => one !== null && one !== undefined && one !== false).map(one => one instanceof Node ? one : String(one)));
  return node;
}

// ------------------------------------------------------------------------------------------ data
const EMBEDDED = JSON.parse($("data").textContent);  // null where a server has the pieces

// A piece of pieces.py: from the page itself, or from its server; what cannot be had is {problem: a sentence}.
async function get(...address) {
  const name = address.join("/");
  if (EMBEDDED) return EMBEDDED[name] ?? {problem: "This file does not hold it."};
  try {
    return await (await fetch("/data/" + name)).json();
  } catch {
    return {problem: "The server does not answer: it was stopped. The page shows what it had."};
  }
}

const problem = text => el("p", {class: "problem", role: "alert"}, text);
const quiet = (...text) => el("span", {class: "quiet"}, ...text);

// --------------------------------------------------------------------------------------- numbers
function num(x) {
  if (x === null || x === undefined) return "–";
  if (typeof x !== "number") return typeof x === "string" ? x : JSON.stringify(x);
  if (Number.isInteger(x)) return x.toLocaleString("en");
  return Math.abs(x) >= 1e-4 ? String(Number(x.toPrecision(4))) : Number(x.toPrecision(3)).toExponential();
}

function ago(seconds) {
  if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s ago";
  if (seconds < 5400) return Math.round(seconds / 60) + " min ago";
  return seconds < 129600 ? Math.round(seconds / 3600) + " h ago" : Math.round(seconds / 86400) + " days ago";
}

// ----------------------------------------------------------------------------------------- zones
const ZONES = ["hard", "boundary", "mastered"];
const zoneOf = (mean, [lower, upper]) => mean === undefined || mean === null ? "unmeasured" : mean < lower ? "hard" : mean <= upper ? "boundary" : "mastered";

// A bar for each mean, as high as it is; the colour repeats the zone, which the label names.
function bars(means, band, most = 14) {
  return el("span", {class: "bars", "aria-hidden": "true"}, means.slice(-most).map(mean => {
    const bar = el("i", {class: zoneOf(mean, band)});
    bar.style.height = 3 + 15 * Math.min(1, Math.max(0, mean)) + "px";
    return bar;
  }));
}

const call = one => one.name + "(" + Object.entries(one.arguments ?? {}).map(([key, value]) => key + "=" + JSON.stringify(value)).join(", ") + ")";
const pre = (text, kind = "") => el("pre", {class: kind}, text);
const table = (head, rows) => el("div", {class: "scroll"}, el("table", {}, el("thead", {}, el("tr", {}, head.map(one => el("th", {scope: "col"}, one)))),
  el("tbody", {}, rows.map(row => el("tr", {}, row.map(one => el("td", {}, one)))))));
const facts = pairs => el("dl", {}, pairs.filter(pair => pair[1] !== null).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
// A word filter: every word must stand in the row's text.
const matcher = text => (words => row => words.every(word => row.text.includes(word)))(text.toLowerCase().split(/\s+/).filter(Boolean));
