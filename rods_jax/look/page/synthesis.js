// Synthesis: what became of each seed that was sent, and why attempts were refused.

const rejections = some => some.map(one => el("section", {class: "turn bad"}, el("h3", {}, `Attempt ${one.attempt + 1}: ${one.error}`), pre(one.detail),
  facts([["plan", one.plan?.length ? one.plan.map(turn => turn.join(", ")).join(" | ") : null], ["avoided after it", one.functions?.length ? one.functions.join(", ") : null],
    ["patch", one.patch && Object.keys(one.patch).length ? pre(JSON.stringify(one.patch)) : null]])));

function synthesisView(state) {
  let rows = [];
  const view = listView("Synthesis", "words: none, a reason, a seed", matches => rows.filter(matches), row => [
    quiet(row.step), el("span", {class: "name"}, row.seed), el("span", {class: "push"}), row.errors.length ? quiet(row.errors.length + " refused") : null, row.variant ? "variant" : el("b", {}, "none")], show);
  const note = el("div"), reasons = el("div", {class: "reasons"}), node = el("div", {class: "view"}, note, reasons, view.node);

  async function show(row, detail, still) {
    const one = await get(state.run, "outcome", row.key);
    if (!still()) return;
    if (one.problem) return fill(detail, problem(one.problem));
    fill(detail, el("h2", {}, one.seed),
      facts([["sent in step", num(one.dispatched)], ["came back in step", num(one.step)],
        ["variant", one.candidate ? el("button", {type: "button", class: "link", onclick: () => state.open("Pool", one.candidate)}, one.candidate) : "none: every attempt was refused"]]),
      one.rejections.length ? rejections(one.rejections) : quiet("No attempt was refused."),
      one.exchanges.length ? [el("h3", {}, "Questions to language models"), table(["attempt", "role", "prompt", "tokens asked", "tokens answered", "error"], one.exchanges.map(x => [x.attempt + 1, x.role, x.prompt, num(x.prompt_tokens), num(x.completion_tokens), x.error ?? ""]))] : null);
  }

  return {
    title: "Synthesis", node, filter: view.filter, keys: view.keys, clear: view.clear, pick: view.pick,
    async refresh() {
      const run = state.run, found = await get(run, "synthesis");
      if (run !== state.run) return;
      rows = (found.rows ?? []).map((row, key) => ({...row, key,
        text: [row.seed, row.variant ? "variant " + row.variant : "none", ...row.errors].join(" ").toLowerCase(),
        label: `step ${row.step}, ${row.seed}: ${row.variant ? "a variant" : "no variant"}, ${row.errors.length} attempts refused`}));
      const written = rows.filter(row => row.variant).length, most = found.reasons?.[0]?.[1] ?? 1;
      fill(note, found.problem ? problem(found.problem) : quiet(rows.length ? `${rows.length} seeds came back, ${written} with a variant. ${rows.reduce((n, row) => n + row.errors.length, 0)} attempts were refused, by reason:` : "No seed has come back yet."));
      fill(reasons, (found.reasons ?? []).map(([reason, count]) => {
        const bar = el("i", {class: "bar-of", "aria-hidden": "true"});
        bar.style.width = Math.max(2, 160 * count / most) + "px";
        return el("button", {type: "button", class: "reason", title: "filter by it", onclick: () => { view.filter.value = reason; view.update(); }}, el("span", {class: "name"}, reason), bar, num(count));
      }));
      view.update();
    },
  };
}
