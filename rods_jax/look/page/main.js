// The page as a whole: tabs, keys, light and dark, and a look at the files every few seconds.

const EVERY = 3000;  // milliseconds
const KEYS = [["j, ↓ / k, ↑", "next / previous row"], ["→, l, Enter / ←, h", "open / close a node of the tree"], ["Home, End, Page Up, Page Down", "far away"], ["/", "filter; Escape leaves it"],
  ["1 … 6", "views"], ["[ / ]", "previous / next run"], ["d", "light or dark"], ["Tab", "to the next control"], ["?", "these keys"]];

(async () => {
  const root = document.documentElement, stored = (() => { try { return localStorage; } catch { return null; } })();
  const state = {runs: [], tables: [], run: 0, dark: () => getComputedStyle(root).colorScheme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches), open};
  const views = [curvesView(state), poolView(state), trajectoriesView(state), synthesisView(state), settingsView(state)];
  let view = null, stamp = "", lost = null;
  const which = el("select", {id: "run", "aria-label": "run of this view", onchange: event => change(Number(event.target.value))});

  // -------------------------------------------------------------------------------- views and runs
  function show(title, focus = false) {
    view = views.find(one => one.title === title) ?? views[0];
    fill($("tabs"), views.map((one, i) => el("button", {type: "button", role: "tab", id: "tab-" + one.title, "aria-selected": String(one === view), "aria-controls": "main", tabindex: one === view ? 0 : -1, title: "key " + (i + 1), onclick: () => show(one.title)}, one.title)), which);
    which.hidden = state.runs.length < 2 || view === views[0] || view.title === "Tables";
    fill($("main"), view.node);
    $("main").setAttribute("aria-labelledby", "tab-" + view.title);
    history.replaceState(null, "", "#" + view.title);
    if (focus) $("tab-" + view.title).focus();
    return view.refresh();
  }

  function change(run) {
    state.run = (run + state.runs.length) % state.runs.length;
    which.value = state.run;
    views.forEach(one => one.clear?.());
    return view.refresh();
  }

  async function open(title, key) {
    await show(title);
    view.pick(key);
  }

  // ------------------------------------------------------------------------------------- the files
  async function look() {
    const found = await get("runs");
    lost = found.problem ?? null;
    if (!found.problem) {
      state.runs = found.runs;
      state.tables = found.tables;
      if (state.tables.length && !views.some(one => one.title === "Tables")) views.push(tablesView(state));
      fill(which, state.runs.map((run, i) => el("option", {value: i, selected: i === state.run}, run.name)));
    }
    standing();
    const now = JSON.stringify(found.problem ? stamp : [found.runs.map(run => run.stamp), found.stamp]);
    const changed = now !== stamp && !found.problem;
    stamp = found.problem ? stamp : now;
    return changed;
  }

  function standing() {
    const now = Date.now() / 1000;
    fill($("runs"), lost ? problem(lost) : null, state.runs.map((run, i) => {
      const chip = el("i", {class: "chip", "aria-hidden": "true"});
      chip.style.background = COLOURS[i % COLOURS.length];
      return el("span", {class: "run"}, state.runs.length > 1 ? chip : null, el("b", {}, run.name), " ", quiet(run.finished ? "finished" : run.written === null ? "not begun" : EMBEDDED ? "as of " + new Date(run.written * 1000).toLocaleString() : "last step written " + ago(now - run.written)),
        run.missing.length ? el("details", {class: "missing"}, el("summary", {}, run.missing.length + " missing"), run.missing.map(one => el("div", {}, one))) : null);
    }));
  }

  // -------------------------------------------------------------------------------- light and dark
  function paint(theme) {
    if (theme) root.dataset.theme = theme;
    $("theme").textContent = state.dark() ? "Light" : "Dark";
    if (view === views[0]) views[0].redraw();
  }

  function turn() {
    const theme = state.dark() ? "light" : "dark";
    stored?.setItem("rods-theme", theme);
    paint(theme);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());
  $("theme").addEventListener("click", turn);
  $("help").addEventListener("click", () => $("keys").showModal());
  fill($("keys"), el("h2", {}, "Keys"), facts(KEYS), el("form", {method: "dialog"}, el("button", {}, "Close")));

  // ------------------------------------------------------------------------------------------ keys
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const target = event.target, typing = target.matches("input, select, textarea");
    if (typing) {
      if (event.key === "Escape") target.blur();
      if (event.key === "Enter" && target.matches(".filter") && view.keys("j")) event.preventDefault();
      return;
    }
    const tab = target.matches("[role=tab]") && {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (tab) show(views[(views.indexOf(view) + tab + views.length) % views.length].title, true);
    else if (target.matches("button, summary") && (event.key === "Enter" || event.key === " ")) return;
    else if (target.matches(".detail") && /^(Arrow|Page|Home|End)/.test(event.key)) return;  // it scrolls
    else if (event.key === "/" && view.filter) view.filter.focus();
    else if (event.key === "?") $("keys").showModal();
    else if (event.key === "d") turn();
    else if (event.key === "[" || event.key === "]") change(state.run + (event.key === "]" ? 1 : -1));
    else if (/^[1-9]$/.test(event.key) && views[event.key - 1]) show(views[event.key - 1].title);
    else if (!view.keys(event.key)) return;
    event.preventDefault();
  });

  try { paint(stored?.getItem("rods-theme")); } catch { paint(); }
  await look();
  await show(decodeURIComponent(location.hash.slice(1)));
  root.dataset.ready = "yes";
  if (!EMBEDDED) setInterval(async () => {
    if (!document.hidden && await look()) await view.refresh();
  }, EVERY);
})();
