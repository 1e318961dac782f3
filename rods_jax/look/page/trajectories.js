// Trajectories, turn by turn: what was said, called and answered, and how likely each token was when it was sampled.

function trajectoriesView(state) {
  let rows = [];
  const passedText = passed => passed.map(one => one ? "✓" : "✗").join("");
  const view = listView("Trajectories", "words: a task, step 11, failed, cut", (matches) => rows.filter(matches), row => [
    quiet(row.step), el("span", {class: "name"}, row.task_id), el("span", {class: "push"}), row.failure ? "broken" : row.truncated ? "cut" : "",
    el("span", {class: "marks"}, passedText(row.passed)), el("span", {class: "number"}, num(row.reward))], show);
  const note = el("div"), node = el("div", {class: "view"}, note, view.node);

  async function show(row, detail, still) {
    const one = await get(state.run, "trajectory", row.key);
    if (!still()) return;
    if (one.problem) return fill(detail, problem(one.problem));
    const byTurn = one.turns.length === one.passed.length;
    const last = Math.max(one.turns.length - 1, ...one.steps.map(step => step.turn));
    fill(detail, el("h2", {}, one.task_id),
      facts([["step", num(one.step)], ["rollout", num(one.rollout)], ["reward", num(one.reward)], ["checks", `${passedText(one.passed)} ${one.passed.filter(Boolean).length} of ${one.passed.length} passed`],
        ["task", el("button", {type: "button", class: "link", onclick: () => state.open("Pool", one.task_id)}, "in the pool")]]),
      one.failure ? problem("Failed by infrastructure: " + one.failure) : null, one.truncated ? problem("Ended early: " + one.truncated) : null,
      one.log_probs ? el("p", {class: "scale"}, quiet("A token's shade: how unlikely it was. "), [1, 0.5, 0.1, 0.01].map(p => token("p = " + p, Math.log(p)))) : quiet("No log-probabilities are recorded here."),
      Array.from({length: last + 1}, (_, n) => turn(one, n, byTurn ? one.passed[n] : null)));
  }

  function turn(one, n, passed) {
    const words = one.turns[n];
    return el("section", {class: "turn " + (passed === null ? "" : passed ? "good" : "bad")},
      el("h3", {}, `Turn ${n + 1}`, passed === null ? "" : passed ? " ✓ passed" : " ✗ not passed"),
      words ? pre(words.user, "user") : quiet("(the world's own words)"),
      words?.released_tools?.length ? quiet("released: " + words.released_tools.join(", ")) : null,
      one.steps.map((step, s) => step.turn === n ? message(step, one.tokens?.[s], one.log_probs?.[s], one.codes) : null),
      words && passed === false ? el("details", {}, el("summary", {}, "gold"), words.gold.length ? words.gold.map(gold => pre("→ " + call(gold))) : quiet("a plain answer")) : null);
  }

  // Unlikely tokens are shaded; the unlikeliest stand below in words, for whoever does not hover.  A run keeps the first
  // tokens alone: the rest of the text follows them.  A character of several tokens is in none: the text stands above.
  function message(step, tokens, logProbs, codes) {
    const paired = (tokens ?? []).map((text, i) => [text, logProbs[i]]);
    const unlikely = [...paired].sort((a, b) => a[1] - b[1]).slice(0, 3).filter(([, x]) => x < Math.log(0.5));
    const sum = paired.reduce((all, [, x]) => all + x, 0);
    const told = paired.map(([text]) => text).join(""), whole = step.text.startsWith(told);
    return el("div", {class: "message"},
      paired.length && whole ? null : pre(step.text, "said"),
      paired.length ? el("pre", {class: "said"}, paired.map(([text, x]) => token(text, x)), whole ? step.text.slice(told.length) : null) : null,
      quiet(codes[step.code] ?? step.code, paired.length ? `; ${paired.length} tokens, log-probability ${num(sum)}` : "",
        unlikely.length ? "; least likely: " + unlikely.map(([text, x]) => `${JSON.stringify(text)} ${num(x)}`).join(", ") : ""),
      step.observations.map(text => pre(text, "back")));
  }

  function token(text, logProb) {
    const node = el("span", {class: "token", title: `log-probability ${num(logProb)}, probability ${num(Math.exp(logProb))}`}, text);
    node.style.setProperty("--unlikely", Math.round(100 * (1 - Math.exp(logProb))) * 0.55 + "%");
    return node;
  }

  return {
    title: "Trajectories", node, filter: view.filter, keys: view.keys, clear: view.clear,
    pick: view.pick,
    async refresh() {
      const run = state.run, found = await get(run, "trajectories");
      if (run !== state.run) return;
      rows = (found.rows ?? []).map((row, key) => {
        const verdict = row.failure ? "broken" : row.passed.every(Boolean) ? "passed" : "failed";
        return {...row, key, text: `step ${row.step} ${row.task_id} ${verdict} ${row.truncated ? "cut" : ""}`.toLowerCase(),
          label: `step ${row.step}, ${row.task_id}, ${row.passed.filter(Boolean).length} of ${row.passed.length} checks passed, reward ${num(row.reward)}`};
      });
      fill(note, found.problem ? problem(found.problem) : quiet(rows.length ? "A few rollouts of every tenth step." : "No trajectory has been kept yet."));
      view.update();
    },
  };
}
