// The panel: one cell, check, host, engine, image, or finding.
const REQUIREMENT = { must: "ordinary programs fail without it", should: "some programs fail without it, or all are slow", may: "only special programs notice" };
const CONTRACT = {
  works: "only success passes", fallback: "success passes, and so does honest absence (ENOSYS), because callers fall back on it",
  reach: "reaching the kernel passes whatever it answers, and so does honest absence (ENOSYS); a wrong refusal fails", value: "the value has to be right", record: "anything passes: a fact worth comparing",
};
const tag = (requirement) => el("span", { class: `tag ${requirement}`, title: REQUIREMENT[requirement] }, requirement);
const out = (outcome, requirement) => {
  const kind = outcome === "fail" && requirement && requirement !== "must" ? "degraded" : outcome;
  return el("span", { class: `out ${kind}` }, `${GLYPH[kind] || ""} ${outcome}`);
};
const checkLink = (at) => el("a", { class: "mono", href: link({ check: model.checks[at].id }) }, model.checks[at].id);
const cellLink = (i) => el("a", { class: "mono", href: link({ cell: model.id(i) }) }, model.id(i));
const seenText = (seen) => seen.reason || (seen.saw === "ok" ? "ok" : seen.value ? `${seen.saw} ${seen.value}` : seen.saw);

function pairs(entries, tight) {
  const list = el("dl", { class: `facts${tight ? " tight" : ""}` });
  for (const [key, value] of entries) if (value !== "" && value !== null && value !== undefined && value !== false) list.append(el("dt", {}, key), el("dd", {}, value));
  return list.children.length ? list : null;
}
function factsBlock(title, facts, open) {
  const entries = Object.entries(facts || {});
  if (!entries.length) return null;
  return el("details", { class: "item", open }, el("summary", {}, title, " ", el("small", {}, plural(entries.length, "fact"))), pairs(entries.map(([k, v]) => [mono(k), mono(v)]), true));
}
function faultBlock([phase, cause, hint]) {
  return el("p", {}, el("span", { class: "pill error" }, `! ${phase}`), " ", mono(cause), hint ? el("span", { class: "hint" }, el("br"), hint) : null);
}
function checkFacts(at, seen) {
  const check = model.checks[at];
  return pairs([
    ["Asks", check.title], ["Seen", seen ? mono(`${seen.saw}${seen.number !== null ? ` ${seen.number}` : ""}${seen.value ? ` ${seen.value}` : ""}`) : null], ["At step", seen && seen.step ? mono(seen.step) : null],
    ["Filter says", seen && seen.filter ? [mono(seen.filter), " ", el("small", {}, "asked without making the call")] : null],
    ["Breaks", check.breaks], ["Fix", check.remedy], ["Passing", CONTRACT[check.contract]], ["Since", check.since], ["Natively", check.native], ["Reference", check.reference],
  ]);
}

/** What the same check answers in cells that differ in one layer. */
function controlsOf(i, at) {
  const strip = el("div", { class: "strip" });
  const put = (word, j) => {
    if (j === undefined || j < 0 || j === i) return;
    const s = model.answer(j, at);
    if (s >= 0) strip.append(el("span", {}, el("a", { href: link({ cell: model.id(j) }) }, word), " ", out(model.seen[s].outcome, model.checks[at].requirement)));
  };
  put("native", model.nativeOf[model.host[i]]);
  for (const [word, j] of relatives(i)) put(word, j);
  return strip.children.length ? strip : null;
}
const relativesMemo = new Map();
function relatives(i) {
  if (relativesMemo.has(i)) return relativesMemo.get(i);
  const found = [], scratch = [], bare = [];
  for (let j = 0; j < model.count; j++) {
    if (model.host[j] !== model.host[i] || j === i) continue;
    if (model.engine[j] === model.engine[i] && (model.role[j] === "control-scratch" || isScratch(j))) scratch.push(j);
    if (model.image[j] === model.image[i] && model.role[j] === "control-no-policy") bare.push(j);
  }
  if (scratch.length) found.push(["empty image, this engine", scratch[0]]);
  if (bare.length) found.push(["this image, no policy", bare[0]]);
  relativesMemo.set(i, found);
  return found;
}
const isScratch = (j) => model.scratch[model.image[j]];

function checkItem(i, at, open) {
  const seen = model.seen[model.answer(i, at)], check = model.checks[at];
  const item = el("details", { class: "item", open });
  item.append(el("summary", {}, out(seen.outcome, check.requirement), " ", mono(check.id), " ", tag(check.requirement), el("span", { class: "what" }, seenText(seen))));
  const fill = () => {
    if (item.dataset.full) return;
    item.dataset.full = "1";
    const controls = controlsOf(i, at), facts = checkFacts(at, seen);
    if (controls) facts.prepend(el("dt", {}, "Elsewhere"), el("dd", {}, controls));
    item.append(facts, el("p", {}, el("a", { href: link({ check: check.id }) }, "this check in every cell")));
  };
  if (open) fill(); else item.addEventListener("toggle", fill);
  return item;
}

function cellPanel(i) {
  const verdict = model.verdict[i], extra = model.extraOf(i), host = model.hosts[model.host[i]], image = model.images[model.image[i]], pair = model.engineOf(i);
  const failing = model.failing(i), lost = model.lost(i), body = [];
  const fact = (facts, ...names) => { for (const name of names) if (facts && facts[name]) return facts[name]; return ""; };
  const about = (...parts) => parts.filter(Boolean).length ? el("small", {}, ` ${parts.filter(Boolean).join(" · ")}`) : null;
  body.push(pairs([
    ["Host", [el("a", { href: link({ host: host.id }) }, host.id), about(fact(host.facts, "kernel.release") && `Linux ${fact(host.facts, "kernel.release")}`, fact(host.facts, "cpu.model"))]],
    ["Engine", [el("a", { href: link({ pair: `${host.id}:${model.engines[model.engine[i]]}` }) }, model.engines[model.engine[i]]), about(fact(pair && pair.facts, "kind", "engine.kind"), fact(pair && pair.facts, "version", "engine.version"))]],
    ["Image", image.id === "-" ? "none: the probe ran straight on the host" : [el("a", { href: link({ image: image.id }) }, image.id), about([fact(image.facts, "libc.kind"), fact(image.facts, "libc.version")].join(" ").trim(), fact(image.facts, "os.name"))]],
    ["Why run", { cell: null, "control-native": "control: without engine and image", "control-scratch": "control: with the empty image", "control-no-policy": "control: without any engine's policy" }[model.role[i]]],
  ]));
  if (extra.skipped) body.push(el("p", {}, el("span", { class: "pill skip" }, "– skipped"), " ", extra.skipped));
  for (const fault of extra.faults || []) body.push(faultBlock(fault));
  if (verdict === "miss" && !extra.faults) body.push(el("p", {}, "It was planned and nothing is known of it: the run ended before, or it reported nothing."));
  if (failing.length) {
    const weighty = failing.filter((at) => model.checks[at].requirement !== "may"), may = failing.filter((at) => model.checks[at].requirement === "may");
    if (weighty.length) body.push(el("h3", {}, `${plural(weighty.length, "check")} fail${weighty.length === 1 ? "s" : ""}`), weighty.slice(0, 300).map((at, k) => checkItem(i, at, k < 1)));
    if (may.length) body.push(el("h3", {}, `${plural(may.length, "check")} that only special programs notice`), may.slice(0, 300).map((at) => checkItem(i, at, false)));
  } else if (model.vector[i] >= 0) body.push(el("p", {}, "No check fails."));
  if (lost) body.push(el("h3", {}, "Compared with native"), lost.length
    ? el("p", {}, `${plural(lost.length, "check")} pass${lost.length === 1 ? "es" : ""} natively on ${host.id} and fail${lost.length === 1 ? "s" : ""} here: `, lost.slice(0, 60).map((at, k) => [k ? ", " : "", checkLink(at)]), lost.length > 60 ? ` and ${number(lost.length - 60)} more` : "")
    : el("p", {}, `Everything that passes natively on ${host.id} and was asked here passes here too.`));
  if (model.vector[i] >= 0) body.push(el("h3", {}, "Every check"), groupBlocks(i));
  body.push(el("h3", {}, "What is known"));
  body.push(factsBlock("Host", host.facts), factsBlock("Engine", pair && pair.facts), factsBlock("Image", image.facts), factsBlock("Cell", extra.facts));
  if (extra.attempts) {
    body.push(el("details", { class: "item" }, el("summary", {}, "Attempts ", el("small", {}, number(extra.attempts.length))), extra.attempts.map((a) => el("div", {},
      pairs([["Attempt", a.attempt], ["Ended", a.ended], ["Took", `${number(a.ms[0])} ms to create, ${number(a.ms[1])} ms to run, ${number(a.ms[2])} ms to remove`], ["Engine said", a.notes.length ? a.notes.map((note) => el("p", {}, mono(note))) : null], ["Evidence", mono(`evidence/${a.evidence}.stdout.zst`)]], true),
      a.fault ? faultBlock(a.fault) : null))));
  } else if (!model.detailed) body.push(el("p", {}, el("small", {}, "Attempts and facts of single cells are in the run directory: this run has too many cells to carry them here.")));
  body.push(el("h3", {}, "Run it again"), el("pre", {}, `abicus run --cells '${model.id(i)}'`));
  return [model.isControl(i) ? "control cell" : "cell", model.id(i), el("span", { class: `pill ${verdict}` }, `${GLYPH[verdict]} ${verdict}`), body];
}

function groupBlocks(i) {
  const answers = model.answers(model.vector[i]), groups = new Map();
  answers.forEach((s, at) => { if (s >= 0) { const name = model.checks[at].group; if (!groups.has(name)) groups.set(name, []); groups.get(name).push(at); } });
  return [...groups].map(([name, checks]) => {
    const count = [0, 0, 0];
    for (const at of checks) count[model.kind[answers[at]]]++;
    const words = [`${number(count[PASS])} pass`, count[FAIL] ? `${number(count[FAIL])} fail` : "", count[OTHER] ? `${number(count[OTHER])} not asked or unknown` : ""].filter(Boolean).join(", ");
    const block = el("details", { class: "item" }, el("summary", {}, mono(name), " ", el("small", {}, words)));
    block.addEventListener("toggle", () => {
      if (block.dataset.full) return;
      block.dataset.full = "1";
      block.append(el("table", {}, el("tbody", {}, checks.map((at) => {
        const seen = model.seen[answers[at]];
        return el("tr", {}, el("td", {}, out(seen.outcome, model.checks[at].requirement)), el("td", {}, checkLink(at)), el("td", {}, mono(seen.outcome === "pass" && seen.saw === "ok" ? "ok" : seenText(seen))));
      }))));
    });
    return block;
  });
}

function cellList(cells) {
  return [el("ul", { class: "cells" }, cells.slice(0, 60).map((i) => el("li", {}, cellLink(i)))), cells.length > 60 ? el("p", {}, `and ${number(cells.length - 60)} more`) : null];
}

function checkPanel(at) {
  const check = model.checks[at], column = model.column(at), answers = new Map();
  for (let i = 0; i < model.count; i++) {
    const s = model.vector[i] < 0 ? -1 : column[model.vector[i]];
    if (s < 0) continue;
    const key = `${model.seen[s].outcome} ${seenText(model.seen[s])}`;
    if (!answers.has(key)) answers.set(key, { seen: model.seen[s], asked: [], controls: [] });
    answers.get(key)[model.isControl(i) ? "controls" : "asked"].push(i);
  }
  const order = { fail: 0, error: 1, miss: 2, skip: 3, pass: 4 };
  const sorted = [...answers.values()].sort((a, b) => order[a.seen.outcome] - order[b.seen.outcome] || b.asked.length - a.asked.length);
  const body = [
    pairs([["Asks", check.title], ["Requirement", [tag(check.requirement), ` ${REQUIREMENT[check.requirement]}`]], ["Passing", CONTRACT[check.contract]], ["Breaks", check.breaks], ["Fix", check.remedy], ["Since", check.since], ["Natively", check.native], ["Reference", check.reference]]),
    el("p", {}, el("button", { type: "button", class: "plain", onclick: () => go({ mode: "check", check: check.id }) }, "Show it in the matrix")),
    el("h3", {}, "Answers"),
    sorted.slice(0, 100).map((a, k) => el("details", { class: "item", open: k === 0 && sorted.length > 1 }, el("summary", {}, out(a.seen.outcome, check.requirement), " ", el("b", {}, plural(a.asked.length, "cell")), a.controls.length ? el("small", {}, ` and ${plural(a.controls.length, "control")}`) : null, el("span", { class: "what mono" }, seenText(a.seen))), cellList([...a.asked, ...a.controls]))),
  ];
  return ["check", check.id, tag(check.requirement), body];
}

function subjectPanel(word, name, facts, fault, cells) {
  const verdicts = VERDICTS.map((v) => [v, cells.filter((i) => model.verdict[i] === v)]).filter(([, list]) => list.length);
  return [word, name, null, [
    fault ? faultBlock(fault) : null,
    el("h3", {}, "Facts"), pairs(Object.entries(facts || {}).map(([k, v]) => [mono(k), mono(v)]), true) || el("p", {}, "Nothing is known of it."),
    el("h3", {}, "Cells"), verdicts.map(([v, list], k) => el("details", { class: "item", open: k === 0 }, el("summary", {}, el("span", { class: `pill ${v}` }, `${GLYPH[v]} ${v}`), " ", plural(list.length, "cell")), cellList(list))),
  ]];
}

function panelFor(params) {
  const where = (test) => { const list = []; for (let i = 0; i < model.count; i++) if (test(i)) list.push(i); return list; };
  if (params.cell !== undefined) { const i = model.cellIndex.get(params.cell); return i === undefined ? ["cell", params.cell, null, [el("p", {}, "There is no such cell in this run.")]] : cellPanel(i); }
  if (params.host !== undefined) { const h = model.hosts.findIndex((x) => x.id === params.host); return h < 0 ? null : subjectPanel("host", params.host, model.hosts[h].facts, model.hosts[h].fault, where((i) => model.host[i] === h && !model.isControl(i))); }
  if (params.image !== undefined) { const m = model.images.findIndex((x) => x.id === params.image); return m < 0 ? null : subjectPanel("image", params.image, model.images[m].facts, model.images[m].fault, where((i) => model.image[i] === m && !model.isControl(i))); }
  if (params.pair !== undefined) {
    const [hostName, engineName] = params.pair.split(":"), h = model.hosts.findIndex((x) => x.id === hostName), e = model.engines.indexOf(engineName);
    const known = model.engineFacts.get(h * model.engines.length + e);
    return h < 0 || e < 0 ? null : subjectPanel("engine on host", params.pair, known && known.facts, known && known.fault, where((i) => model.host[i] === h && model.engine[i] === e && !model.isControl(i)));
  }
  if (params.check !== undefined && params.mode !== "check") { const at = model.checkIndex.get(params.check); return at === undefined ? ["check", params.check, null, [el("p", {}, "No cell of this run answered this check.")]] : checkPanel(at); }
  return null;
}
