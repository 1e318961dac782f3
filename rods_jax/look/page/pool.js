// The pool as a tree: human seeds, and below each one its variants.

function poolView(state) {
  let rows = [], band = [0, 1], below = new Map(), drawn = "";
  const open = new Set();
  const order = el("select", {"aria-label": "order", onchange: () => view.update()},
    [["", "as they came"], ["variants", "most variants"], ["mean", "latest mean"], ["variance", "latest variance"], ["measured", "most measured"]].map(([value, text]) => el("option", {value}, "order: " + text)));
  const measures = {variants: row => row.descendants, mean: row => row.means.at(-1) ?? -1, variance: row => row.variance ?? -1, measured: row => row.means.length};
  const view = listView("Pool", "words: hard, left, queue, a name", visible, drawRow, show, true);
  view.bar.append(order);
  const note = el("div");
  const node = el("div", {class: "view"}, note, view.node);

  // Rows in sight: what matches, with its ancestors; without a filter, what is open.
  function visible(matches, filtered) {
    const measure = measures[order.value], found = [], kept = new Set();
    if (filtered) for (const row of rows.filter(matches)) for (let one = row; one && !kept.has(one.id); one = one.up) kept.add(one.id);
    const walk = (some, level) => {
      for (const row of measure ? [...some].sort((a, b) => measure(b) - measure(a)) : some) {
        if (filtered && !kept.has(row.id)) continue;
        const children = below.get(row.id) ?? [], expanded = filtered ? children.some(one => kept.has(one.id)) : open.has(row.id);
        found.push({...row, level, expanded: children.length ? expanded : null});
        if (expanded) walk(children, level + 1);
      }
    };
    walk(below.get(null) ?? [], 1);
    return found;
  }

  function drawRow(row) {
    const mark = el("span", {class: "twisty", "aria-hidden": "true", onclick: event => { event.stopPropagation(); toggle(row); }}, row.expanded === null ? "" : row.expanded ? "▾" : "▸");
    mark.style.marginLeft = (row.level - 1) * 16 + "px";
    const name = row.up && row.id.startsWith(row.parent) ? "… " + row.id.slice(row.parent.length) : row.id;
    return [mark, el("span", {class: "name" + (row.state === "left" ? " gone" : "")}, name), row.descendants ? quiet(row.descendants) : null,
      el("span", {class: "push"}), quiet(row.state === "left" ? "left: " + row.left[1] : row.state === "in the queue" ? "queued" : ""), bars(row.means, band, 8)];
  }

  function toggle(row, wanted = !open.has(row.id)) {
    if (wanted) open.add(row.id);
    else open.delete(row.id);
    view.update();
  }

  async function show(row, detail, still) {
    const task = await get(state.run, "task", row.key);
    if (!still()) return;
    // A detail that has not changed stays as it is: somebody may be reading it.
    const now = JSON.stringify([task, row.descendants]);
    if (now === drawn) return;
    drawn = now;
    if (task.problem) return fill(detail, problem(task.problem));
    const jump = id => id === null ? null : el("button", {type: "button", class: "link", onclick: () => pick(id)}, id);
    const children = below.get(row.id) ?? [];
    const left = task.left && `step ${task.left[0]}: ${{mastered: "mastered, too easy by then", hard: "too hard", pruned: "no room: others were nearer to the boundary", stale: "waited too long in the queue"}[task.left[1]] ?? task.left[1]}`;
    fill(detail, el("h2", {}, task.id),
      facts([
        ["category", task.category], ["is", task.state + (task.means.length ? ", " + zoneOf(task.means.at(-1), band) : ", not measured")],
        ["parent", jump(task.parent)], ["written", task.written === null ? null : "after step " + task.written],
        ["entered", task.entered === null ? null : "before step " + task.entered], ["left", left],
        ["variants", children.length ? el("span", {class: "wrap"}, children.map(one => jump(one.id))) : null],
        ["trajectories", task.trajectories.length ? el("span", {class: "wrap"}, task.trajectories.map(([step, n]) => el("button", {type: "button", class: "link", onclick: () => state.open("Trajectories", n)}, "step " + step))) : null],
      ]),
      el("h3", {}, "How it was measured"),
      task.measured.length ? table(["step", "epoch", "mean reward", "variance", "zone", ""], task.measured.map(([step, epoch, mean, variance]) => [num(step), num(epoch), num(mean), num(variance), zoneOf(mean, band), bars([mean], band)]))
        : quiet("No step has played it yet."),
      el("h3", {}, task.parent_turns ? "What changed against its parent" : "Turns"),
      turns(task.turns, task.parent_turns),
      task.changes.length ? el("details", {}, el("summary", {}, `The world: ${task.changes.length} changes`),
        table(["part", "parent", "this variant"], task.changes.map(([part, before, after]) => [part, pre(before ?? "–"), pre(after ?? "–")]))) : null,
      task.synthesis ? [el("h3", {}, "How it was written"), facts([["attempts before", task.synthesis.rejections.length], ["sent in step", task.synthesis.dispatched], ["questions to models", task.synthesis.exchanges.length]]), rejections(task.synthesis.rejections)] : null);
  }

  const turnText = turn => turn ? [pre(turn.user, "user"), turn.gold.map(one => pre("→ " + call(one))), turn.released_tools?.length ? quiet("released: " + turn.released_tools.join(", ")) : null] : quiet("–");
  function turns(some, before) {
    if (!before) return table(["", "user, and the gold calls"], some.map((turn, n) => [n + 1, turnText(turn)]));
    const longest = Math.max(some.length, before.length);
    return table(["", "parent", "this variant"], Array.from({length: longest}, (_, n) => JSON.stringify(before[n]) === JSON.stringify(some[n]) ? [n + 1, quiet("the same"), turnText(some[n])] : [n + 1, turnText(before[n]), turnText(some[n])]));
  }

  // Opens the ancestors of a task, and chooses it.
  function pick(id) {
    const row = rows.find(one => one.id === id);
    for (let one = row?.up; one; one = one.up) open.add(one.id);
    if (row) view.pick(row.key);
  }

  return {
    title: "Pool", node, filter: view.filter, pick,
    clear() {
      open.clear();
      drawn = "";
      view.clear();
    },
    keys(key) {
      const row = view.list.chosen();
      if (view.keys(key)) return true;
      if (!row) return false;
      if (key === "Enter" || key === " ") toggle(row);
      else if (key === "ArrowRight" || key === "l") row.expanded ? view.list.move(1) : toggle(row, true);
      else if (key === "ArrowLeft" || key === "h") row.expanded ? toggle(row, false) : row.up && pick(row.parent);
      else return false;
      return true;
    },
    async refresh() {
      const run = state.run, found = await get(run, "pool");
      if (run !== state.run) return;
      rows = (found.rows ?? []).map((row, key) => ({...row, key}));
      band = found.band ?? band;
      const byId = new Map(rows.map(row => [row.id, row]));
      below = new Map();
      for (const row of rows) {
        row.up = byId.get(row.parent) ?? null;
        row.descendants = 0;
        const siblings = below.get(row.up ? row.parent : null);
        siblings ? siblings.push(row) : below.set(row.up ? row.parent : null, [row]);
      }
      for (const row of rows) for (let one = row.up; one; one = one.up) one.descendants += 1;
      for (const row of rows) {
        const zone = zoneOf(row.means.at(-1), band);
        row.text = [row.id, row.category, row.state, row.left?.[1] ?? "", zone, row.written === null ? "human" : "variant"].join(" ").toLowerCase();
        row.label = `${row.id}, ${row.state}, ${zone}${row.means.length ? ", mean " + num(row.means.at(-1)) : ""}, ${row.descendants} descendants`;
      }
      const tally = name => rows.filter(row => row.state === name).length;
      fill(note, found.problem ? problem(found.problem) : quiet(`${tally("in the pool")} in the pool, ${tally("in the queue")} in the queue, ${tally("left")} left. `,
        found.recorded || tally("in the queue") + tally("in the pool") === rows.filter(row => row.written === null).length ? "" : "This run has not recorded who entered and who left; a variant counts from its first measurement. "),
        el("span", {class: "legend"}, ZONES.map(zone => [el("i", {class: "dot " + zone, "aria-hidden": "true"}), zone + " "])));
      view.update();
      const chosen = view.list.chosen();
      if (chosen) show(chosen, view.detail, () => view.list.chosen()?.key === chosen.key);
    },
  };
}
