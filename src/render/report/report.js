// What the reader does: the address says what is shown (`#cell=…&q=…&hide=…&mode=…`), so every view is a link.
const PANELS = ["cell", "host", "image", "pair", "check", "finding"];
let params = {}, opener = null;

function readHash() {
  const found = {};
  const text = location.hash.slice(1);
  if (!text.includes("=")) return found;
  for (const part of text.split("&")) {
    const at = part.indexOf("=");
    // A permalink somebody cut short must not break the page.
    try { if (at > 0) found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch { /* not a part of ours */ }
  }
  return found;
}
function writeHash(next) {
  const parts = Object.entries(next).filter(([, value]) => value !== null && value !== undefined && value !== "").map(([key, value]) => `${key}=${encodeURIComponent(value).replace(/%3A/g, ":").replace(/%2C/g, ",")}`);
  return parts.length ? `#${parts.join("&")}` : "#";
}
/** The address of a panel, with filter and mode as they are. */
function link(panel) {
  const kept = Object.fromEntries(Object.entries(params).filter(([key]) => !PANELS.includes(key) && !(key === "mode" && params.mode === "check")));
  return writeHash({ ...kept, ...panel });
}
function go(change, quietly) {
  const next = { ...params, ...change };
  if (Object.keys(change).some((key) => ["cell", "host", "image", "pair"].includes(key))) for (const key of PANELS) if (!(key in change) && !(key === "check" && next.mode === "check") && key !== "finding") delete next[key];
  const address = writeHash(next);
  if (quietly) { history.replaceState(null, "", address); apply(); } else if (address !== location.hash) location.hash = address; else apply();
}

function apply() {
  params = readHash();
  state.q = params.q || "";
  state.hide = new Set((params.hide || "").split(",").filter(Boolean));
  state.mode = ["lost", "check"].includes(params.mode) ? params.mode : "verdict";
  state.check = model.checkIndex.get(params.check) ?? -1;
  if (state.mode === "check" && state.check < 0) state.mode = "verdict";
  state.finding = model.findings.find((finding) => finding.id === params.finding) || null;
  state.selected = model.cellIndex.get(params.cell) ?? -1;
  filter = state.q.trim() ? parseFilter(state.q, model) : null;
  const field = byId("filter");
  if (field.value.trim() !== state.q.trim()) field.value = state.q;
  if (params.theme) document.documentElement.dataset.theme = params.theme;
  for (const button of document.querySelectorAll("#chips button")) button.setAttribute("aria-pressed", String(!state.hide.has(button.dataset.verdict)));
  for (const button of document.querySelectorAll("#modes button")) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  for (const finding of document.querySelectorAll(".finding")) finding.classList.toggle("on", finding.id === params.finding);
  paint();
  showPanel(panelFor(params));
}

function showPanel(panel) {
  const aside = byId("detail");
  if (!panel) {
    const was = !aside.hidden;
    aside.hidden = true; aside.replaceChildren();
    if (was && opener && opener.isConnected) opener.focus({ preventScroll: true });
    opener = null;
    return;
  }
  const [kicker, title, badge, body] = panel;
  if (aside.hidden) opener = document.activeElement;
  aside.replaceChildren(el("header", {}, el("div", {}, el("p", { class: "kicker" }, kicker, badge ? " " : null, badge), el("h2", { class: "mono" }, title)), el("button", { type: "button", class: "close", onclick: closePanel, "aria-label": "Close details" }, "close ✕")), ...body.flat(Infinity).filter(Boolean));
  aside.hidden = false; aside.scrollTop = 0; aside.setAttribute("aria-label", `${kicker} ${title}`);
  aside.focus({ preventScroll: true });
}
function closePanel() { go({ cell: null, host: null, image: null, pair: null, ...(params.mode === "check" ? {} : { check: null }) }); }

function buildTools() {
  const counts = {};
  for (let i = 0; i < model.count; i++) if (!model.isControl(i)) counts[model.verdict[i]] = (counts[model.verdict[i]] || 0) + 1;
  byId("chips").append(...VERDICTS.filter((v) => counts[v]).map((v) => el("button", {
    type: "button", "data-verdict": v, class: v, title: `show or hide ${v}`,
    onclick: () => { const hide = new Set(state.hide); if (hide.has(v)) hide.delete(v); else hide.add(v); go({ hide: [...hide].join(",") }, true); },
  }, el("span", { class: "dot", "aria-hidden": "true" }, GLYPH[v]), `${v} ${number(counts[v])}`)));
  const modes = [["verdict", "Verdict"], ["lost", "Lost versus native"]];
  byId("modes").append(...modes.map(([mode, text]) => el("button", { type: "button", "data-mode": mode, onclick: () => go({ mode: mode === "verdict" ? null : mode, check: null }, true) }, text)));
  let wait = 0;
  byId("filter").addEventListener("input", (event) => { clearTimeout(wait); wait = setTimeout(() => go({ q: event.target.value }, true), 120); });
  const rows = [
    ["docker", "cells whose name contains it"], ["engine:docker", "contains; also host: image: verdict: cell:"], ["engine=docker,podman", "is exactly one of these; * stands for anything"],
    ["libc.kind:musl", "a fact of host, engine or image; host.os.id: where it matters which"], ["kernel.release>=5.10", "versions compare as versions: < > <= >="],
    ["fails:syscall.clone3", "a check fails in the cell; also passes: asks:"], ["is:lost", "something that works natively is lost; also is:native is:control is:judged"], ["-image:debian", "not; \"…\" keeps spaces together"],
  ];
  byId("help").append(el("dl", {}, rows.map(([example, meaning]) => [el("dt", {}, mono(example)), el("dd", {}, meaning)])), el("p", {}, "All words have to hold. Keys: / filter, Esc close."));
  byId("tools").hidden = false;
  const theme = byId("theme");
  theme.hidden = false;
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  theme.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    if (params.theme) go({ theme: next }, true);
    // Storage may be refused for files; the choice then lasts as long as the page.
    try { localStorage.setItem("abicus-theme", next); } catch { /* refused */ }
    if (heat) heat.paint();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input, textarea, select");
    if (event.key === "Escape") { if (typing) event.target.blur(); else if (!byId("detail").hidden) closePanel(); }
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); byId("filter").focus(); }
    const table = event.target.closest && event.target.closest("td") && event.target.matches("a.tile");
    if (table && event.key.startsWith("Arrow")) moveInTable(event);
  });
}

/** Arrow keys walk the tiles of a table. */
function moveInTable(event) {
  const td = event.target.closest("td"), row = td.parentElement, table = row.closest("table");
  const rows = [...table.tBodies[0].rows].filter((r) => !r.hidden);
  const down = { ArrowUp: -1, ArrowDown: 1 }[event.key] || 0, right = { ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0;
  let r = rows.indexOf(row), c = td.cellIndex;
  for (;;) {
    r += down; c += right;
    const next = rows[r] && rows[r].cells[c];
    if (!next || next.tagName !== "TD") return;
    const tile = next.hidden ? null : next.querySelector("a.tile");
    if (tile) { event.preventDefault(); tile.focus(); return; }
  }
}

async function start() {
  try { const theme = localStorage.getItem("abicus-theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* refused */ }
  model = new Model(await unpack());
  buildTools();
  adoptTiles();
  if (byId("totals")) { heat = new Heat(byId("board")); byId("totals").hidden = true; }
  addEventListener("hashchange", apply);
  apply();
  if (params.finding) { const node = byId(params.finding); if (node) byId("matrix").scrollIntoView(); }
  document.documentElement.dataset.ready = "1";
}
start().catch((error) => {
  const note = el("p", { class: "notice" }, `The interactive part of this page could not start (${error.message}); the text and the tables beside this file are complete.`);
  byId("summary").append(note);
  console.error(error);
});
