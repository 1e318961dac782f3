// Settings, differences between runs, summary, files; and tables of results.

function settingsView(state) {
  const filter = el("input", {type: "search", class: "filter", placeholder: "settings by name", "aria-label": "filter: settings by name", oninput: () => draw()});
  const body = el("div"), node = el("div", {class: "settings"}, el("div", {class: "bar"}, filter), body);
  let found = {}, different = {rows: []};
  const pairs = object => Object.entries(object).map(([key, value]) => [key, num(value)]);

  function draw() {
    const matches = matcher(filter.value);
    fill(body,
      found.problem ? problem(found.problem) : null,
      different.problem ? problem(different.problem) : state.runs.length > 1 ? [el("h2", {}, "Where the runs differ"), different.rows.length ? table(["setting", ...state.runs.map(run => run.name)], different.rows.map(([key, ...values]) => [key, ...values.map(num)])) : quiet("All settings are equal.")] : null,
      el("h2", {}, "Settings of ", state.runs[state.run]?.name ?? ""), table(["setting", "value"], pairs(found.config ?? {}).filter(([key]) => matches({text: key.toLowerCase()}))),
      found.cold_start ? [el("h2", {}, "Cold start"), table(["", ""], pairs(found.cold_start))] : null,
      found.summary ? [el("h2", {}, "Summary"), table(["", ""], pairs(found.summary))] : null,
      el("h2", {}, "Files"), table(["name", "bytes"], (found.files ?? []).map(([name, folder, size]) => [name + (folder ? "/" : ""), folder ? "" : num(size)])));
  }

  return {
    title: "Settings", node, filter, keys: () => false,
    async refresh() {
      const run = state.run, both = await Promise.all([get(run, "settings"), get("differences")]);
      if (run !== state.run) return;
      [found, different] = both;
      draw();
    },
  };
}

function tablesView(state) {
  const view = listView("Tables", "words in a row", matches => rows.filter(matches), row => row.cells, (row, detail) => fill(detail, facts(columns.map((name, i) => [name, num(row.values[i])]))));
  const which = el("select", {"aria-label": "table", onchange: () => refresh()}), note = el("div"), head = el("div", {class: "head"});
  const sorted = {column: null, down: true};
  let rows = [], columns = [];
  view.bar.prepend(which);
  view.node.classList.add("wide");
  const node = el("div", {class: "view"}, note, view.node);

  function order() {
    const {column, down} = sorted;
    if (column === null) return;
    const by = (a, b) => (x => x === 0 ? a.key - b.key : x)(typeof a.values[column] === "number" && typeof b.values[column] === "number" ? a.values[column] - b.values[column] : num(a.values[column]).localeCompare(num(b.values[column])));
    rows.sort((a, b) => down ? -by(a, b) : by(a, b));
  }

  async function refresh() {
    fill(which, state.tables.map((name, i) => el("option", {value: i, selected: String(i) === which.value}, name)));
    const found = await get("table", which.value || 0);
    columns = found.columns ?? [];
    rows = (found.rows ?? []).map((values, key) => ({key, values, text: values.map(num).join(" ").toLowerCase(), label: values.map((x, i) => columns[i] + " " + num(x)).join(", "), cells: values.map(x => el("span", {class: "cell"}, num(x)))}));
    order();
    fill(head, columns.map((name, i) => el("button", {type: "button", class: "cell", title: "order by " + name, onclick: () => { sorted.down = sorted.column === i ? !sorted.down : true; sorted.column = i; order(); view.update(); }}, name)));
    if (!head.parentNode) view.list.node.prepend(head);
    fill(note, found.problem ? problem(found.problem) : quiet(found.total > rows.length ? `The first ${rows.length} of ${num(found.total)} rows.` : ""));
    view.update();
  }
  return {title: "Tables", node, filter: view.filter, keys: view.keys, refresh};
}
