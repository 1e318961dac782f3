// A list of which only the rows in sight exist, with a filter above it and the chosen row's detail beside it.

const ROW = 28;  // pixels of a row, as in look.css

// draw(row) -> children of its element; a row has key, text (to be filtered by) and label (to be read aloud).
// levels: rows have level and expanded, as those of a tree do.
function list(label, draw, choose, levels = false) {
  const rowsNode = el("div", {class: "rows", role: "presentation"});
  const box = el("div", {class: "list", tabindex: 0, role: levels ? "tree" : "listbox", "aria-label": label}, rowsNode);
  let rows = [], at = -1;

  function paint() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5);
    const last = Math.min(rows.length, first + Math.ceil(box.clientHeight / ROW) + 10);
    rowsNode.style.height = rows.length * ROW + "px";
    fill(rowsNode, rows.slice(first, last).map((row, offset) => {
      const index = first + offset;
      const node = el("div", {
        class: "row", id: box.id + "-" + index, "data-index": index, "aria-label": row.label, title: row.label,
        role: levels ? "treeitem" : "option", "aria-selected": index === at ? "true" : "false",
        "aria-setsize": rows.length, "aria-posinset": index + 1,
        "aria-level": levels ? row.level : null, "aria-expanded": levels && row.expanded !== null ? String(row.expanded) : null,
      }, draw(row));
      node.style.top = index * ROW + "px";
      return node;
    }));
    box.setAttribute("aria-activedescendant", at < first || at >= last ? "" : box.id + "-" + at);
  }

  function select(index) {
    if (!rows.length) return;
    at = Math.min(rows.length - 1, Math.max(0, index));
    const top = at * ROW, below = top + ROW - box.clientHeight;
    if (box.scrollTop > top) box.scrollTop = top;
    else if (box.scrollTop < below) box.scrollTop = below;
    paint();
    choose(rows[at]);
  }

  box.id = label.replace(/\W/g, "-");
  box.addEventListener("scroll", paint);
  new ResizeObserver(paint).observe(box);
  box.addEventListener("click", event => {
    const node = event.target.closest(".row");
    if (node) select(Number(node.dataset.index));
  });
  return {
    node: box,
    move: by => select(at < 0 && Number.isFinite(by) ? 0 : at + by),
    page: by => select(at + by * Math.max(1, Math.floor(box.clientHeight / ROW) - 1)),
    pick: key => select(rows.findIndex(row => row.key === key)),
    has: key => rows.some(row => row.key === key),
    chosen: () => rows[at],
    clear: () => { at = -1; },
    // The chosen row stays chosen where it is still there.
    set(next) {
      const key = rows[at]?.key;
      rows = next;
      at = rows.findIndex(row => row.key === key);
      paint();
    },
  };
}

// A view with a filter, a list and a detail; the bar holds whatever else the view wants above the list.
function listView(label, hint, rows, draw, show, levels = false) {
  const count = quiet(), detail = el("article", {class: "detail", tabindex: 0, "aria-label": label + ": detail"});
  const filter = el("input", {type: "search", class: "filter", placeholder: hint, "aria-label": "filter: " + hint, oninput: () => update()});
  let shown = null;
  const found = list(label, draw, row => {
    shown = row.key;
    show(row, detail, () => shown === row.key);
  }, levels);
  function update() {
    const some = rows(matcher(filter.value), filter.value.trim() !== "");
    found.set(some);
    fill(count, some.length.toLocaleString("en") + " rows");
  }
  const bar = el("div", {class: "bar"}, filter, count);
  const node = el("div", {class: "split"}, el("div", {class: "side"}, bar, found.node), detail);
  return {
    node, bar, filter, list: found, detail, update,
    clear() {  // of another run
      shown = null;
      found.clear();
      fill(detail);
    },
    pick(key) {
      if (!found.has(key)) filter.value = "";
      update();
      found.pick(key);
    },
    keys(key) {
      const step = {j: 1, ArrowDown: 1, k: -1, ArrowUp: -1}[key], page = {PageDown: 1, PageUp: -1}[key];
      if (step) found.move(step);
      else if (page) found.page(page);
      else if (key === "Home") found.move(-Infinity);
      else if (key === "End") found.move(Infinity);
      else return false;
      return true;
    },
  };
}
