// The matrix: tiles of the table the page came with, or a canvas where a table would be too large.
let model, state = { q: "", hide: new Set(), mode: "verdict", check: -1, finding: null, selected: -1 };
let filter = null, heat = null;
const tiles = new Map();

/** What a tile shows now: class, glyph, word, number, and whether it stands out. */
function look(i) {
  const verdict = model.verdict[i];
  if (state.mode === "check" && state.check >= 0) {
    const answer = model.answer(i, state.check);
    if (answer < 0) return { kind: "none", glyph: "", word: model.vector[i] < 0 ? verdict : "not asked", n: "" };
    const seen = model.seen[answer], weak = model.checks[state.check].requirement !== "must";
    const kind = { pass: "pass", fail: weak ? "degraded" : "fail", skip: "skip", error: "error", miss: "miss" }[seen.outcome];
    return { kind, glyph: GLYPH[kind], word: seen.outcome, n: seen.outcome === "fail" ? seen.value : "", detail: seen.reason || seen.value };
  }
  if (state.mode === "lost") {
    const lost = model.lost(i);
    if (!lost) return { kind: "none", glyph: model.vector[i] < 0 ? GLYPH[verdict] : "", word: model.isNative(i) ? "native" : model.vector[i] < 0 ? verdict : "no native cell", n: "" };
    const strong = lost.some((check) => model.checks[check].requirement === "must");
    const some = lost.some((check) => model.checks[check].requirement !== "may");
    return { kind: lost.length ? (strong ? "fail" : some ? "degraded" : "zero") : "zero", glyph: lost.length ? "−" : "=", word: lost.length ? "lost" : "as native", n: lost.length || "" };
  }
  return { kind: verdict, glyph: GLYPH[verdict], word: verdict, n: null };
}

const shown = (i) => !state.hide.has(model.verdict[i]) && (!filter || filter.matches(i));
const marked = (i) => {
  if (!state.finding) return true;
  return state.finding.checks.some((check) => { const s = model.vector[i] < 0 ? -1 : model.column(check)[model.vector[i]]; return s >= 0 && model.kind[s] === FAIL; });
};

function adoptTiles() {
  for (const tile of document.querySelectorAll("a.tile[href^='#cell=']")) {
    const id = decodeURIComponent(tile.getAttribute("href").slice(6)), i = model.cellIndex.get(id);
    if (i === undefined) continue;
    const count = tile.querySelector(".n"), word = tile.querySelector(".word, .vh");
    tiles.set(i, { tile, glyph: tile.querySelector(".glyph"), word, count, td: tile.parentElement, verdictText: word.textContent, verdictCount: count ? count.textContent : "", title: tile.title });
  }
}

function paintTile(i, t) {
  const l = look(i), on = shown(i);
  t.tile.className = `tile ${l.kind}${on ? "" : " off"}${on && !marked(i) ? " dim" : ""}${i === state.selected ? " on" : ""}`;
  t.glyph.textContent = l.glyph;
  const plain = l.n === null;
  t.word.textContent = plain ? t.verdictText : ` ${l.word}`;
  const n = plain ? t.verdictCount : String(l.n);
  if (n && !t.count) { t.count = el("span", { class: "n" }); t.tile.append(" ", t.count); }
  if (t.count) t.count.textContent = n.length > 9 ? `${n.slice(0, 8)}…` : n;
  t.tile.title = plain ? t.title : `${model.id(i)}: ${l.word}${l.detail ? `, ${l.detail}` : l.n ? ` ${l.n}` : ""}`;
}

/** Rows and columns in which nothing is shown disappear, so that a filter makes the table small. */
function foldTable(table) {
  const rows = [...table.tBodies[0].rows], columns = table.tHead.rows[1].cells.length, used = new Array(columns).fill(false);
  const active = state.q !== "" || state.hide.size > 0;
  for (const row of rows) {
    let any = false;
    for (let c = 0; c < columns; c++) {
      const tile = row.cells[c + 1].querySelector(".tile");
      if (tile && !tile.classList.contains("off")) { any = true; used[c] = true; }
    }
    row.hidden = active && !any;
  }
  const none = !used.some(Boolean);
  const hidden = (c) => active && !none && !used[c];
  for (const row of rows) for (let c = 0; c < columns; c++) row.cells[c + 1].hidden = hidden(c);
  let at = 0;
  for (const band of [...table.tHead.rows[0].cells].slice(1)) {
    const width = Number(band.dataset.width || (band.dataset.width = band.colSpan));
    let left = 0;
    for (let c = at; c < at + width; c++) { table.tHead.rows[1].cells[c].hidden = hidden(c); if (!hidden(c)) left++; }
    band.hidden = left === 0; band.colSpan = Math.max(left, 1); at += width;
  }
}

function paint() {
  for (const [i, t] of tiles) paintTile(i, t);
  for (const table of document.querySelectorAll("table.grid")) foldTable(table);
  if (heat) heat.paint();
  status();
}

function status() {
  let asked = 0, on = 0, hit = 0;
  const verdicts = {};
  for (let i = 0; i < model.count; i++) {
    if (model.isControl(i)) continue;
    asked++;
    if (!shown(i)) continue;
    on++; verdicts[model.verdict[i]] = (verdicts[model.verdict[i]] || 0) + 1;
    if (marked(i)) hit++;
  }
  const parts = [`${on === asked ? `all ${plural(asked, "cell")}` : `${number(on)} of ${plural(asked, "cell")}`}`];
  if (on < asked && on) parts.push(VERDICTS.filter((v) => verdicts[v]).map((v) => `${number(verdicts[v])} ${v}`).join(", "));
  const node = byId("status");
  node.replaceChildren(parts.join(": "));
  if (filter && filter.problems.length) node.append(` · ${filter.problems.join("; ")}`);
  if (state.mode === "lost") node.append(" · tiles count checks that pass natively on the same host and fail here");
  if (state.mode === "check" && state.check >= 0) node.append(" · tiles answer ", el("a", { class: "mono", href: link({ check: model.checks[state.check].id }) }, model.checks[state.check].id));
  if (state.finding) node.append(` · marked: ${plural(hit, "cell")} of “${state.finding.title}” `, el("button", { type: "button", class: "plain", onclick: () => go({ finding: null }) }, "unmark"));
  byId("filter").setAttribute("aria-invalid", String(Boolean(filter && filter.problems.length)));
}

/** The matrix of a large run: only what is visible is drawn, so the number of cells does not matter. */
class Heat {
  constructor(board) {
    const asked = [];
    for (let i = 0; i < model.count; i++) if (!model.isControl(i) && !model.isNative(i)) asked.push(i);
    // Panels by engine: what one engine does to every host is a band, what a host does is a stripe.
    const used = (pick) => [...new Set(asked.map(pick))].sort((a, b) => a - b);
    this.engines = used((i) => model.engine[i]); this.hosts = used((i) => model.host[i]); this.images = used((i) => model.image[i]);
    this.at = new Int32Array(this.engines.length * this.hosts.length * this.images.length).fill(-1);
    const place = (list) => { const m = new Map(); list.forEach((v, k) => m.set(v, k)); return m; };
    const e = place(this.engines), h = place(this.hosts), m = place(this.images);
    for (const i of asked) this.at[this.slot(e.get(model.engine[i]), h.get(model.host[i]), m.get(model.image[i]))] = i;
    this.size = 9; this.row = 20; this.head = 34; this.gap = 14; this.cursor = [0, 0];
    this.canvas = el("canvas", { tabindex: "-1" });
    this.space = el("div", {});
    this.pan = el("div", { class: "pan", tabindex: "0", role: "application", "aria-label": "Cells; arrow keys move, Enter opens", onscroll: () => this.draw(), onkeydown: (event) => this.key(event) }, this.canvas, this.space);
    this.rows = el("div", { class: "rows", "aria-hidden": "true" });
    this.heat = el("div", { class: "heat" }, this.rows, this.pan);
    board.append(this.heat);
    this.canvas.addEventListener("mousemove", (event) => { const i = this.hit(event); this.canvas.title = i < 0 ? "" : this.words(i); this.canvas.style.cursor = i < 0 ? "" : "pointer"; });
    this.canvas.addEventListener("click", (event) => { const i = this.hit(event); if (i >= 0) go({ cell: model.id(i) }); });
    new ResizeObserver(() => this.draw()).observe(this.pan);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }
  slot(e, h, m) { return (e * this.hosts.length + h) * this.images.length + m; }
  words(i) { const l = look(i); return `${model.id(i)}: ${l.word}${l.n ? ` ${l.n}` : ""}${l.detail ? `, ${l.detail}` : ""}`; }

  /** Which columns and rows have something to show; the rest is folded away. */
  paint() {
    const nh = this.hosts.length, nm = this.images.length, rowUsed = new Uint8Array(nm), active = state.q !== "" || state.hide.size > 0;
    this.state = new Uint8Array(this.at.length);
    this.columns = [];
    for (let e = 0; e < this.engines.length; e++) for (let h = 0; h < nh; h++) {
      let any = false;
      for (let m = 0; m < nm; m++) {
        const slot = this.slot(e, h, m), i = this.at[slot];
        if (i < 0) continue;
        const on = shown(i);
        this.state[slot] = on ? (marked(i) ? 2 : 1) : 0;
        if (on) { any = true; rowUsed[m] = 1; }
      }
      if (any || !active) this.columns.push([e, h]);
    }
    this.rowList = []; for (let m = 0; m < nm; m++) if (rowUsed[m] || !active) this.rowList.push(m);
    this.x = new Float64Array(this.columns.length + 1);
    let x = 0, last = -1; this.panels = [];
    this.columns.forEach(([e], c) => { if (e !== last) { if (last >= 0) x += this.gap; this.panels.push([x, e, c]); last = e; } this.x[c] = x; x += this.size; });
    this.x[this.columns.length] = x;
    this.rows.replaceChildren(el("div", { class: "rh", style: `height:${this.head}px;line-height:${this.head}px` }, "image"), ...this.rowList.map((m) => el("div", { style: `height:${this.row}px;line-height:${this.row}px` }, model.images[this.images[m]].id)));
    this.height = this.head + this.rowList.length * this.row;
    this.space.style.cssText = `width:${x}px;height:${Math.max(this.height - 1, 1)}px;margin-top:-${Math.min(this.height, 4000)}px`;
    const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue(name).trim();
    this.colours = { paper: get("--card"), ink: get("--ink"), soft: get("--soft"), line: get("--line"), zero: get("--pass"), none: get("--card"), skip: get("--card") };
    for (const v of ["pass", "degraded", "fail", "error", "miss"]) { this.colours[v] = get(`--${v}`); this.colours[`${v}-ink`] = get(`--${v}-ink`); }
    this.draw();
  }
  draw() {
    if (!this.columns) return;
    const width = this.pan.clientWidth, height = Math.min(this.height, 4000), scale = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale); this.canvas.height = Math.round(height * scale);
      this.canvas.style.width = `${width}px`; this.canvas.style.height = `${height}px`;
    }
    const g = this.canvas.getContext("2d"), left = this.pan.scrollLeft;
    g.setTransform(scale, 0, 0, scale, 0, 0); g.fillStyle = this.colours.paper; g.fillRect(0, 0, width, height);
    let c = 0, high = this.columns.length;
    while (c < high) { const mid = (c + high) >> 1; if (this.x[mid] + this.size < left) c = mid + 1; else high = mid; }
    g.font = "9px ui-sans-serif, system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
    for (; c < this.columns.length && this.x[c] - left < width; c++) {
      const [e, h] = this.columns[c], x = this.x[c] - left;
      this.rowList.forEach((m, r) => {
        const slot = this.slot(e, h, m), i = this.at[slot];
        if (i < 0) return;
        const l = look(i), y = this.head + r * this.row;
        g.globalAlpha = this.state[slot] === 2 ? 1 : this.state[slot] === 1 ? 0.3 : 0.1;
        g.fillStyle = this.colours[l.kind] || this.colours.paper; g.fillRect(x, y, this.size - 1, this.row - 1);
        // A shape as well: colour is not enough. Passing tiles stay plain.
        if (l.kind === "skip" || l.kind === "none") { g.strokeStyle = this.colours.line; g.strokeRect(x + .5, y + .5, this.size - 2, this.row - 2); }
        else if (l.kind !== "pass" && l.kind !== "zero") { g.fillStyle = this.colours[`${l.kind}-ink`] || this.colours.ink; g.fillText(l.glyph, x + (this.size - 1) / 2, y + this.row / 2); }
        if (i === state.selected) { g.globalAlpha = 1; g.strokeStyle = this.colours.ink; g.lineWidth = 2; g.strokeRect(x, y, this.size - 1, this.row - 1); g.lineWidth = 1; }
      });
    }
    g.globalAlpha = 1; g.textAlign = "left"; g.fillStyle = this.colours.paper; g.fillRect(0, 0, width, this.head);
    this.panels.forEach(([x, e], k) => {
      const end = k + 1 < this.panels.length ? this.panels[k + 1][0] - this.gap : this.x[this.columns.length];
      if (end < left || x - left > width) return;
      const from = Math.max(x - left, 0) + 3;
      g.font = "600 12px ui-sans-serif, system-ui, sans-serif"; g.fillStyle = this.colours.ink; g.fillText(model.engines[this.engines[e]], from, 11);
      const first = this.columns.findIndex(([pe]) => pe === e), hosts = this.columns.filter(([pe]) => pe === e).length;
      g.font = "10px ui-sans-serif, system-ui, sans-serif"; g.fillStyle = this.colours.soft;
      const kernel = (at) => { const host = model.hosts[this.hosts[this.columns[at][1]]]; return host.facts["kernel.release"] || host.id; };
      g.fillText(`${plural(hosts, "host")}, ${kernel(first)} → ${kernel(first + hosts - 1)}`, from, 25);
    });
    if (document.activeElement === this.pan && this.columns.length) {
      const [col, r] = this.cursor;
      g.strokeStyle = this.colours.ink; g.lineWidth = 2; g.strokeRect(this.x[col] - left - 1, this.head + r * this.row - 1, this.size + 1, this.row + 1); g.lineWidth = 1;
    }
  }
  hit(event) {
    const x = event.offsetX + this.pan.scrollLeft, r = Math.floor((event.offsetY - this.head) / this.row);
    if (r < 0 || r >= this.rowList.length) return -1;
    for (let c = 0; c < this.columns.length; c++) if (x >= this.x[c] && x < this.x[c] + this.size) return this.cell(c, r);
    return -1;
  }
  cell(c, r) { const [e, h] = this.columns[c]; return this.at[this.slot(e, h, this.rowList[r])]; }
  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [-20, 0], PageDown: [20, 0], Home: [-1e9, 0], End: [1e9, 0] }[event.key];
    const clamp = (v, max) => Math.max(0, Math.min(max, v));
    if (!this.columns.length) return;
    if (step) {
      event.preventDefault();
      this.cursor = [clamp(this.cursor[0] + step[0], this.columns.length - 1), clamp(this.cursor[1] + step[1], this.rowList.length - 1)];
      const x = this.x[this.cursor[0]], left = this.pan.scrollLeft, width = this.pan.clientWidth;
      if (x < left) this.pan.scrollLeft = x - 20; else if (x + this.size > left + width) this.pan.scrollLeft = x - width + 40;
      this.draw();
      const i = this.cell(...this.cursor);
      byId("status").textContent = i < 0 ? "no such cell" : this.words(i);
    } else if (event.key === "Enter") {
      const i = this.cell(...this.cursor);
      if (i >= 0) go({ cell: model.id(i) });
    }
  }
}
