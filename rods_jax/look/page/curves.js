// Curves over steps, drawn by uPlot. Runs lie over each other: a colour for each run, a dash for each metric.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];  // Okabe and Ito, for any colour vision
const ZONE_COLOURS = {zone_hard: "#0072B2", zone_boundary: "#E69F00", zone_mastered: "#009E73"};
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]], GLYPHS = ["—", "- -", "· ·", "- ·"];  // on the canvas, in the legend
const PANELS = [
  {title: "Reward", names: ["reward_mean", "progress_mean", "held_out_progress", "held_out_greedy"]},
  {title: "Zones of the pool, in tasks", names: ["zone_mastered", "zone_boundary", "zone_hard"], stacked: true},
  {title: "Variance in a group; groups without any", names: ["variance_mean", "zero_variance"]},
  {title: "Tokens of a rollout", names: ["length_mean"]},
  {title: "Rollouts that were cut off or failed", names: ["truncated_rollouts", "failed_rollouts"]},
  {title: "Loss, in nats", names: ["loss", "surrogate", "kl", "entropy"]},
  {title: "Norm of the gradient", names: ["grad_norm"]},
  {title: "Speed, in tokens a second", names: ["tokens_per_second"]},
  {title: "Seconds of a step", names: ["seconds_step", "seconds_rollout", "seconds_synthesis"]},
  {title: "Pool and queue, in tasks", names: ["pool_human", "pool_active", "pool_trial", "pool_staged"]},
  {title: "Synthesis in a step", names: ["seeds", "candidates", "rejected"]},
];

// A centred mean over `width` steps; a step without a value stays without one.
function smooth(values, width) {
  const half = Math.floor(width / 2);
  return half < 1 ? values : values.map((value, i) => {
    const near = values.slice(Math.max(0, i - half), i + half + 1).filter(one => one !== null);
    return value === null ? null : near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

// Values at all steps of all runs, null where a run has none.
function aligned(steps, run, name) {
  const at = new Map(run.steps.map((step, i) => [step, run.columns[name][i]]));
  return steps.map(step => at.get(step) ?? null);
}

function curvesView(state) {
  const chosen = new Set(), charts = new Map();  // title -> {figure, plot, shape}
  const grid = el("div", {class: "grid"}), none = el("div"), names = el("div", {class: "names"});
  const width = el("input", {type: "number", min: 1, max: 999, value: 1, "aria-label": "smooth over so many steps", onchange: () => draw()});
  const filter = el("input", {type: "search", class: "filter", placeholder: "metrics by name", "aria-label": "filter: metrics by name", oninput: () => drawNames()});
  const all = el("details", {class: "all"}, el("summary", {}, "All metrics"), el("div", {class: "bar"}, filter), names);
  const node = el("div", {class: "curves"}, el("div", {class: "bar"}, el("label", {}, "Mean over ", width, " steps"), quiet("Drag over a curve to look closer, double-click to go back.")), all, none, grid);
  let runs = [];
  new ResizeObserver(() => charts.forEach(({figure, plot}) => plot.setSize({width: figure.clientWidth, height: 230}))).observe(grid);

  function drawNames() {
    const known = [...new Set(runs.flatMap(run => Object.keys(run.columns)))].sort();
    const matches = matcher(filter.value);
    fill(names, known.filter(name => matches({text: name.toLowerCase()})).map(name => el("label", {},
      el("input", {type: "checkbox", checked: chosen.has(name), onchange: event => {
        if (event.target.checked) chosen.add(name);
        else chosen.delete(name);
        draw();
      }}), name)));
  }

  // The chart is made anew only when its curves change; otherwise it gets the new numbers and keeps its zoom.
  function drawPanel(panel) {
    const steps = [...new Set(runs.flatMap(run => run.steps))].sort((a, b) => a - b);
    const single = runs.length === 1, stacked = panel.stacked && single;
    const series = runs.flatMap((run, r) => panel.names.filter(name => run.columns[name]?.some(x => x !== null)).map((name, n) => ({
      label: single ? name : `${run.name} ${name} ${GLYPHS[n % DASHES.length]}`,
      values: smooth(aligned(steps, run, name), Number(width.value)),
      stroke: panel.stacked && single ? ZONE_COLOURS[name] : COLOURS[(single ? n : r) % COLOURS.length],
      dash: single ? [] : DASHES[n % DASHES.length],
    })));
    if (!series.length) return null;
    // Stacked: each is drawn on the sum of those that follow it.
    const heights = stacked ? series.map((_, i) => steps.map((_, s) => series.slice(i).reduce((sum, one) => sum + (one.values[s] ?? 0), 0))) : series.map(one => one.values);
    const shape = JSON.stringify([state.dark(), stacked, series.map(one => one.label)]);
    const old = charts.get(panel.title);
    const last = series.map(one => one.label + " " + num(one.values.findLast(x => x !== null))).join(", ");
    const figure = old?.figure ?? el("figure", {role: "group"}, el("figcaption", {}, panel.title), el("div", {class: "plot"}));
    figure.setAttribute("aria-label", panel.title + ": " + last);
    if (old && old.shape === shape) {
      const {min, max} = old.plot.scales.x, [first, end] = [old.plot.data[0][0], old.plot.data[0].at(-1)];
      old.raw.splice(0, Infinity, ...series);
      old.plot.setData([steps, ...heights], min === first && max === end);
      return [panel.title, old];
    }
    old?.plot.destroy();
    const ink = getComputedStyle(document.body).color, faint = getComputedStyle(grid).borderTopColor, raw = [...series];
    const axis = {stroke: ink, grid: {stroke: faint, width: 1}, ticks: {stroke: faint, width: 1}, font: "12px system-ui, sans-serif"};
    const few = steps.length < 40;
    const plot = new uPlot({
      width: figure.clientWidth || 400, height: 230, cursor: {sync: {key: "steps"}, drag: {x: true, y: false}},
      scales: {x: {time: false}, y: stacked ? {range: (_, low, high) => [0, high || 1]} : {}},
      axes: [{...axis, size: 30}, {...axis, size: 62, values: (_, ticks) => ticks.map(num)}],
      series: [{label: "step", value: (_, x) => num(x)}, ...series.map((one, i) => ({
        label: one.label, stroke: one.stroke, dash: one.dash, width: 2, spanGaps: true, points: {show: few, size: 5},
        fill: stacked ? one.stroke + "cc" : undefined,
        value: (_, x, s, at) => num(at === null || at === undefined ? raw[i].values.findLast(y => y !== null) : raw[i].values[at]),
      }))],
      bands: stacked ? series.slice(1).map((_, i) => ({series: [i + 1, i + 2]})) : [],
    }, [steps, ...heights], figure.querySelector(".plot"));
    return [panel.title, {figure, plot, shape, raw}];
  }

  function draw() {
    const panels = [...PANELS, ...[...chosen].map(name => ({title: name, names: [name]}))];
    const missing = runs.flatMap(run => run.problem ? [problem(run.problem)] : run.steps.length ? [] : [quiet(run.name + ": no step is finished yet. ")]);
    fill(none, missing);
    for (const panel of panels) {  // figures stand in the page before they are drawn: their width counts
      const made = drawPanel(panel);
      if (made === null) continue;
      charts.set(...made);
    }
    const wanted = new Set(panels.map(panel => panel.title));
    for (const [title, {plot}] of charts) if (!wanted.has(title)) { plot.destroy(); charts.delete(title); }
    const order = panels.map(panel => charts.get(panel.title)?.figure).filter(Boolean);
    if (order.some((figure, i) => grid.children[i] !== figure) || grid.children.length !== order.length) fill(grid, order);
    charts.forEach(({figure, plot}) => { if (figure.clientWidth && plot.width !== figure.clientWidth) plot.setSize({width: figure.clientWidth, height: 230}); });
  }

  return {
    title: "Curves", node, filter,
    keys: () => false,
    redraw: draw,
    async refresh() {
      const found = await Promise.all(state.runs.map((_, i) => get(i, "metrics")));
      runs = found.map((one, i) => ({steps: [], columns: {}, ...one, name: state.runs[i].name}));
      draw();
      drawNames();
    },
  };
}
