// The model: what the page carries, unpacked, and questions about it. Text from hosts, engines and images only ever
// becomes text nodes and attributes set by name; nothing here parses markup.
const PASS = 0, FAIL = 1, OTHER = 2;
const GLYPH = { fail: "✕", error: "!", miss: "?", degraded: "▲", pass: "✓", skip: "–" };
const VERDICTS = ["fail", "error", "miss", "degraded", "pass", "skip"];
const byId = (id) => document.getElementById(id);

/** An element; children are nodes or text, attributes are set, `on…` are listeners. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false && child !== "") node.append(child);
  return node;
}
const mono = (text) => el("span", { class: "mono" }, text);
const number = (n) => n.toLocaleString("en-US");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const hash = (key, value) => `#${key}=${encodeURIComponent(value)}`;

/** What the page carries, as an object. */
async function unpack() {
  const node = byId("data");
  if (!node.dataset.encoding) return JSON.parse(node.textContent);
  const text = atob(node.textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  node.textContent = "";
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** Compares texts with their runs of digits as numbers. */
const natural = new Intl.Collator("en", { numeric: true }).compare;

class Model {
  constructor(data) {
    const c = data.cells;
    Object.assign(this, data);
    this.count = c.host.length;
    this.host = Int32Array.from(c.host); this.engine = Int32Array.from(c.engine); this.image = Int32Array.from(c.image);
    this.vector = Int32Array.from(c.vector); this.verdict = c.verdict; this.role = c.role;
    this.checks = data.checks.map(([id, requirement, title, breaks, remedy, reference, contract, since, native]) =>
      ({ id, requirement, title, breaks, remedy, reference, contract, since, native, group: id.split(".")[0] }));
    this.seen = data.seen.map(([outcome, reason, saw, n, value, step, filter]) => ({ outcome, reason, saw, number: n, value, step, filter }));
    this.kind = Uint8Array.from(this.seen, (s) => s.outcome === "pass" ? PASS : s.outcome === "fail" ? FAIL : OTHER);
    this.checkIndex = new Map(this.checks.map((check, at) => [check.id, at]));
    this.engineFacts = new Map(data.engine_facts.map(([h, e, facts, fault]) => [h * this.engines.length + e, { facts, fault }]));
    this.base = Int32Array.from(data.vectors.base);
    this.dense = new Map(); this.columns = new Map(); this.lostPairs = new Map();
    this.cellIndex = new Map(); this.nativeOf = new Int32Array(this.hosts.length).fill(-1);
    for (let i = 0; i < this.count; i++) {
      this.cellIndex.set(this.id(i), i);
      if (this.isNative(i) && this.vector[i] >= 0) this.nativeOf[this.host[i]] = i;
    }
  }
  id(i) { return `${this.hosts[this.host[i]].id}:${this.engines[this.engine[i]]}:${this.images[this.image[i]].id}`; }
  isNative(i) { return this.images[this.image[i]].id === "-"; }
  isControl(i) { return this.role[i] !== "cell"; }
  engineOf(i) { return this.engineFacts.get(this.host[i] * this.engines.length + this.engine[i]); }
  extraOf(i) { return this.extra[i] || {}; }

  /** Answers of a vector by check; -1: the check was not in it. */
  answers(vector) {
    if (vector < 0) return null;
    let dense = this.dense.get(vector);
    if (!dense) {
      dense = this.base.slice();
      const differences = this.vectors.differences[vector];
      for (let k = 0, at = 0; k < differences.length; k += 2) dense[at += differences[k]] = differences[k + 1];
      if (this.dense.size > 3000) this.dense.clear();
      this.dense.set(vector, dense);
    }
    return dense;
  }
  answer(cell, check) { const answers = this.answers(this.vector[cell]); return answers ? answers[check] : -1; }

  /** Answers to one check by vector, without unpacking the vectors. */
  column(check) {
    let column = this.columns.get(check);
    if (!column) {
      column = new Int32Array(this.vectors.differences.length).fill(this.base[check]);
      this.vectors.differences.forEach((differences, vector) => {
        for (let k = 0, at = 0; k < differences.length && at <= check; k += 2) {
          at += differences[k];
          if (at === check) { column[vector] = differences[k + 1]; break; }
        }
      });
      if (this.columns.size > 200) this.columns.clear();
      this.columns.set(check, column);
    }
    return column;
  }

  /** Checks that pass natively on the cell's host and fail in the cell; null where one of the two is unknown. */
  lost(cell) {
    const native = this.nativeOf[this.host[cell]];
    if (native < 0 || this.vector[cell] < 0 || this.isNative(cell)) return null;
    const key = this.vector[native] * this.vectors.differences.length + this.vector[cell];
    let lost = this.lostPairs.get(key);
    if (!lost) {
      const there = this.answers(this.vector[native]), here = this.answers(this.vector[cell]);
      lost = [];
      for (let check = 0; check < here.length; check++) {
        if (here[check] >= 0 && there[check] >= 0 && this.kind[here[check]] === FAIL && this.kind[there[check]] === PASS) lost.push(check);
      }
      this.lostPairs.set(key, lost);
    }
    return lost;
  }
  /** Failing checks of a cell, the strongest first. */
  failing(cell) {
    const answers = this.answers(this.vector[cell]);
    if (!answers) return [];
    const rank = { must: 0, should: 1, may: 2 }, failing = [];
    for (let check = 0; check < answers.length; check++) if (answers[check] >= 0 && this.kind[answers[check]] === FAIL) failing.push(check);
    return failing.sort((a, b) => rank[this.checks[a].requirement] - rank[this.checks[b].requirement] || a - b);
  }
}

/** What stands behind a filter text: a predicate over cells, or what is wrong with it. */
function parseFilter(text, model) {
  const terms = [], problems = [];
  for (const token of text.match(/-?(?:[^\s"]|"[^"]*")+/g) || []) {
    const negative = token.length > 1 && token[0] === "-";
    const bare = (negative ? token.slice(1) : token).replace(/"/g, "");
    const parts = bare.match(/^([a-z][\w.]*)(>=|<=|[:=<>])(.*)$/i);
    const test = parts ? attributeTest(parts[1].toLowerCase(), parts[2], parts[3], model, problems) : wordTest(bare, model);
    if (test) terms.push((i) => test(i) !== negative);
  }
  return { matches: (i) => terms.every((term) => term(i)), problems, empty: terms.length === 0 };
}

function wordTest(word, model) {
  const lower = word.toLowerCase();
  return (i) => model.id(i).toLowerCase().includes(lower);
}

/** `*` stands for anything; without one, `:` looks inside and `=` compares the whole. */
function textTest(op, value) {
  const lower = value.toLowerCase();
  if (op === ">=") return (text) => natural(text, value) >= 0;
  if (op === "<=") return (text) => natural(text, value) <= 0;
  if (op === ">") return (text) => natural(text, value) > 0;
  if (op === "<") return (text) => natural(text, value) < 0;
  const tests = lower.split(",").map((part) => {
    if (part.includes("*")) {
      const pattern = new RegExp(`^${part.split("*").map((p) => p.replace(/[\\^$.|?+()[\]{}]/g, "\\$&")).join(".*")}$`);
      return (text) => pattern.test(text);
    }
    return op === "=" ? (text) => text === part : (text) => text.includes(part);
  });
  return (text) => { const t = text.toLowerCase(); return tests.some((test) => test(t)); };
}

function attributeTest(key, op, value, model, problems) {
  const test = textTest(op, value);
  const memo = (axis, of, ask) => {
    const known = new Map();
    return (i) => { const at = of(i); if (!known.has(at)) known.set(at, ask(at, i)); return known.get(at); };
  };
  const onHost = memo("host", (i) => model.host[i], (at) => test(model.hosts[at].id));
  const onEngine = memo("engine", (i) => model.engine[i], (at) => test(model.engines[at]));
  const onImage = memo("image", (i) => model.image[i], (at) => test(model.images[at].id));
  if (key === "host") return onHost;
  if (key === "engine") return onEngine;
  if (key === "image") return onImage;
  if (key === "cell") return (i) => test(model.id(i));
  if (key === "verdict") return (i) => test(model.verdict[i]);
  if (key === "role") return (i) => test(model.role[i]);
  if (key === "is") {
    const is = { control: (i) => model.isControl(i), native: (i) => model.isNative(i), lost: (i) => (model.lost(i) || []).length > 0, judged: (i) => model.vector[i] >= 0 };
    if (is[value]) return is[value];
    problems.push(`is:${value} is unknown: ${Object.keys(is).join(", ")}`);
    return null;
  }
  if (key === "fails" || key === "passes" || key === "asks") {
    const checks = model.checks.map((_, at) => at).filter((at) => test(model.checks[at].id));
    if (!checks.length) { problems.push(`no check matches ${value}`); return () => false; }
    const fits = key === "fails" ? (s) => s >= 0 && model.kind[s] === FAIL : key === "passes" ? (s) => s >= 0 && model.kind[s] === PASS : (s) => s >= 0 && model.kind[s] !== OTHER;
    return memo("vector", (i) => model.vector[i], (vector) => vector >= 0 && checks.some((check) => fits(model.column(check)[vector])));
  }
  return factTest(key, op, value, test, memo, model, problems);
}

function factTest(key, op, value, test, memo, model, problems) {
  const [first, ...rest] = key.split(".");
  const only = ["host", "engine", "image"].includes(first) && rest.length ? first : null;
  const name = only ? rest.join(".") : key;
  let known = false;
  const has = (facts) => {
    if (!facts) return null;
    const value = facts[name] ?? facts[key];
    if (value === undefined) return null;
    known = true;
    return test(value);
  };
  const sides = [];
  if (!only || only === "host") sides.push(memo("host", (i) => model.host[i], (at) => has(model.hosts[at].facts)));
  if (!only || only === "engine") sides.push(memo("pair", (i) => model.host[i] * model.engines.length + model.engine[i], (at) => has((model.engineFacts.get(at) || {}).facts)));
  if (!only || only === "image") sides.push(memo("image", (i) => model.image[i], (at) => has(model.images[at].facts)));
  let any = false;
  for (let i = 0; i < model.count && !any; i++) any = sides.some((side) => side(i) !== null);
  if (!any && !known) {
    // A part of a cell's name looks like a key and a value: `local:docker`.
    const named = op === ":" ? wordTest(`${key}:${value}`, model) : null;
    for (let i = 0; named && i < model.count; i++) if (named(i)) return named;
    problems.push(`nothing is known as ${key}`);
    return () => false;
  }
  return (i) => sides.some((side) => side(i) === true);
}
