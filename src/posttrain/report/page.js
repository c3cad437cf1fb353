"use strict";
// The fragment is the view: #policy=selector/ppo-0&class=wrong_program&question=ID can be kept and shared.
// Every text of the data becomes a text node (make), never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const FILTERS = ["policy", "class", "change", "steps", "operation", "text"];
const VERDICTS = { correct: true, failures: false };
const CHANGES = { gained: [false, true], lost: [true, false], "right in both": [true, true], "wrong in both": [false, false] };
const RIGHT = data.classes.length - 1;
data.policies.forEach((policy, index) => { policy.index = index; policy.rows.forEach((row, at) => { row.question = at; }); });
let state = { question: "" }; // the filters' values and the chosen question's id
let rows = []; // of the policy, those that pass the filters
let at = 0; // place of the chosen question in `rows`

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null));
  return node;
}

function makeText(...given) { // a text of the data, which may run from right to left
  const node = make(...given);
  node.dir = "auto";
  return node;
}

const cell = (text, className) => make("td", className, text);
const words = (name) => name.replaceAll("_", " ");
const colour = (right) => (right ? "good" : "bad");
// A program can be right beside a wrong stated answer: that counts as right, and its failure is named all the same.
const verdict = (found, right) => (found === RIGHT || !right ? words(data.classes[found]) : `right (${words(data.classes[found])})`);
const mark = (found, right) => make("span", colour(right), verdict(found, right));
const keyOf = (policy) => `${policy.family}/${policy.name}`;
const questionOf = (row) => data.questions[row.question];
const current = () => data.policies.find((policy) => keyOf(policy) === state.policy) || data.policies[0];
const classOf = (row, policy) => questionOf(row).classes[policy.index];
const isRight = (row, policy) => questionOf(row).right[policy.index];
const answerOf = (row, candidate) => row.answer || questionOf(row).candidates[candidate ?? row.chosen];
const stepsOf = (question) => String(question.gold.operations.length);

// ---------------------------------------------------------------- filters and list

function passes(row, policy) {
  const question = questionOf(row);
  const found = classOf(row, policy);
  const operations = question.gold.operations;
  question.searched ??= [question.id, question.text, ...question.page.flatMap((part) => (part.line || part.table).flat(2))].join(" ").toLowerCase();
  const [before, after] = CHANGES[state.change] || [];
  return (!state.class || (state.class in VERDICTS ? isRight(row, policy) === VERDICTS[state.class] : data.classes[found] === state.class))
    && (before === undefined || (question.right[policy.against] === before && question.right[policy.index] === after))
    && (!state.steps || stepsOf(question) === state.steps)
    && (!state.operation || operations.includes(state.operation))
    && question.searched.includes(state.text.toLowerCase());
}

function fill(id, options) {
  byId(id).replaceChildren(...options.map(([value, label]) => new Option(label, value)));
  byId(id).value = state[id];
  if (byId(id).selectedIndex < 0) byId(id).selectedIndex = 0;
  state[id] = byId(id).value;
}

function fillFilters() {
  const any = ["", "any"];
  fill("policy", data.policies.map((policy) => [keyOf(policy), `${policy.family}: ${policy.name}`]));
  const policy = current();
  const total = policy.classes.reduce((sum, [, count]) => sum + count, 0);
  const right = policy.rows.filter((row) => isRight(row, policy));
  const classes = { correct: [], failures: [] };
  for (const [found, count] of policy.classes) {
    const shown = policy.rows.filter((row) => classOf(row, policy) === found);
    const name = found === RIGHT ? "no failure" : words(data.classes[found]);
    const verdicts = shown.length && shown.every((row) => isRight(row, policy)) ? classes.correct : classes.failures;
    verdicts.push([data.classes[found], `– ${name} (${shown.length} of ${count})`]);
  }
  fill("class", [any, ["failures", `wrong (${policy.rows.length - right.length} of ${total - policy.right})`], ...classes.failures,
    ["correct", `right (${right.length} of ${policy.right})`], ...classes.correct]);
  const changes = policy.against === null ? [] : Object.entries(CHANGES).map(([name, [before, after]]) => {
    const shown = data.questions.filter((question) => question.right[policy.against] === before && question.right[policy.index] === after);
    return [name, `${name} (${shown.length})`];
  });
  fill("change", [any, ...changes]);
  byId("change").disabled = !changes.length;
  const counts = [...new Set(data.questions.map(stepsOf))].sort((a, b) => a - b);
  fill("steps", [any, ...counts.map((count) => [count, count])]);
  const operations = new Set(data.questions.flatMap((question) => question.gold.operations));
  fill("operation", [any, ...[...operations].sort().map((name) => [name, name])]);
  if (byId("text").value !== state.text) byId("text").value = state.text;
}

function fillList() {
  const policy = current();
  rows = policy.rows.filter((row) => passes(row, policy)).sort((a, b) => isRight(a, policy) - isRight(b, policy));
  byId("list").replaceChildren(...rows.map((row, index) => {
    const item = make("li", "", makeText("div", "ask", questionOf(row).text), make("div", "fact",
      mark(classOf(row, policy), isRight(row, policy)),
      make("span", "dim", `reward ${answerOf(row).reward.toFixed(2)}`)));
    item.id = `item-${index}`;
    item.setAttribute("role", "option");
    item.addEventListener("click", () => { choose(index); write(); });
    return item;
  }));
  const total = policy.classes.reduce((sum, [, count]) => sum + count, 0);
  const held = policy.rows.length < total ? `${policy.rows.length} of the` : "all";
  byId("count").textContent = `${rows.length} listed, wrong ones first. This file holds ${held} ${total} test questions.`;
  choose(Math.max(0, rows.findIndex((row) => questionOf(row).id === state.question)));
}

function choose(index) {
  at = index;
  for (const item of byId("list").children) item.setAttribute("aria-selected", item.id === `item-${at}`);
  byId("detail").scrollTop = 0;
  if (!rows.length) return byId("detail").replaceChildren(make("p", "dim", "No question passes these filters."));
  byId("list").setAttribute("aria-activedescendant", `item-${at}`);
  byId(`item-${at}`).scrollIntoView({ block: "nearest" });
  state.question = questionOf(rows[at]).id;
  return show(rows[at], rows[at].chosen);
}

// ---------------------------------------------------------------- the chosen question

function show(row, candidate) {
  const question = questionOf(row);
  const answer = answerOf(row, candidate);
  const found = row.answer ? mark(classOf(row, current()), isRight(row, current())) : mark(answer.class, answer.right);
  const name = row.answer ? "written answer" : `candidate ${candidate}${candidate === row.chosen ? ", chosen" : ""}`;
  const part = (title, ...body) => make("section", "", make("h3", "", ...title), ...body);
  const head = [makeText("h2", "", question.text), make("div", "dim", question.id)];
  const last = part(["this question under every policy"], policies(question));
  if (answer.turns) return byId("detail").replaceChildren(make("div", "", ...head, part(["episode: ", found], conversation(question, answer)), last));
  byId("detail").replaceChildren(make("div", "", ...head,
    make("div", "pair",
      part(["gold program"], program(question.gold)),
      part([`${name}: `, found], program(answer))),
    part(["page as the model reads it, with what is used by ", make("mark", "gold", "gold"), " ", make("mark", "read", name)],
      page(question, new Set(question.gold.places), new Set(answer.places))),
    make("div", "pair", part(["reward"], reward(answer)), part(["text of the answer"], makeText("code", "written", answer.text))),
    row.answer ? null : part(["candidates, most probable first"], make("div", "wide", pool(row, candidate))),
    last));
}

function conversation(question, answer) {
  const said = (who, text) => make("div", `turn ${who}`, make("span", "dim", who), makeText("code", "written", text));
  const turns = answer.turns.flatMap(([text, action, valid, reward, observation]) => [
    said("policy", text),
    make("div", valid ? "fact dim" : "fact bad", action === null ? "no action in the form asked for" : valid ? "" : "not a valid action",
      reward ? make("strong", "good", `reward ${reward.toFixed(2)}`) : null),
    said("environment", observation)]);
  const count = answer.turns.length;
  const end = make("p", "", `end: ${answer.end}, after ${count} turn${count === 1 ? "" : "s"}, return ${answer.reward.toFixed(2)}`);
  return make("div", "conversation", said("environment", question.prompt), ...turns, end);
}

function page(question, gold, read) {
  const piece = (item) => {
    if (!Array.isArray(item)) return item;
    const marks = `${gold.has(item[1]) ? "gold" : ""} ${read.has(item[1]) ? "read" : ""}`.trim();
    return marks ? make("mark", marks, item[0]) : item[0];
  };
  return make("div", "page", ...question.page.map((part) => part.line
    ? makeText("p", "", ...part.line.map(piece))
    : make("div", "wide", make("table", "", ...part.table.map((cells, row) => make("tr", "", ...cells.map((item) => makeText(row ? "td" : "th", "", piece(item)))))))));
}

function program(answer) {
  if (answer.error) return make("p", "bad", answer.error);
  const steps = answer.steps.map(([text, literal, value, error], index) => make("tr", "",
    cell(`#${index}`, "dim"), cell(text), cell(literal === text ? "" : literal, "dim"),
    cell(error || (value ?? "not reached"), error ? "bad" : "number")));
  const stated = make("tr", "", cell(""), cell("stated answer", "dim"), cell(""), cell(answer.stated ?? "none", "number"));
  return make("table", "program", ...steps, stated);
}

function reward(answer) {
  const scored = data.parts.map(([name, weight], index) => [name, weight, answer.parts[index]]).filter(([, , value]) => value !== null);
  const total = scored.reduce((sum, [, weight]) => sum + weight, 0);
  const parts = scored.map(([name, given, value]) => {
    const weight = given / total;
    return make("tr", "", cell(value > 0 ? "✓" : "✗", value > 0 ? "good" : "bad"), cell(words(name)),
      cell(`${(value * weight).toFixed(2)} of ${weight.toFixed(2)}`, "number"));
  });
  return make("table", "", ...parts, make("tr", "", cell(""), cell("sum", "dim"), cell(answer.reward.toFixed(2), "number")));
}

function pool(row, shown) {
  const mass = row.logits.map((logit) => Math.exp(logit - Math.max(...row.logits)));
  const sum = mass.reduce((a, b) => a + b, 0);
  const header = ["", "probability", "logit", "kind, edit", "class", "reward", "program → stated answer"];
  const order = [...mass.keys()].sort((a, b) => mass[b] - mass[a]);
  return make("table", "pool", make("tr", "", ...header.map((name) => make("th", "", name))), ...order.map((index) => {
    const candidate = questionOf(row).candidates[index];
    const bar = make("i", "");
    bar.style.width = `${100 * mass[index] / sum}%`;
    const look = make("button", "", String(index));
    look.title = "show this candidate above";
    look.addEventListener("click", () => show(row, index));
    return make("tr", index === shown ? "shown" : "",
      make("td", "", look, make("strong", "", index === row.chosen ? " chosen" : "")),
      make("td", "", make("span", "bar", bar), (mass[index] / sum).toFixed(3)), cell(row.logits[index].toFixed(2), "number"),
      cell([...new Set([candidate.kind, words(candidate.edit)])].join(", ")), make("td", "", mark(candidate.class, candidate.right)),
      cell(candidate.reward.toFixed(2), "number"),
      make("td", "program", candidate.error ? candidate.text : `${candidate.steps.map((step) => step[0]).join(", ")} → ${candidate.stated ?? "none"}`));
  }));
}

function policies(question) {
  return make("div", "others", ...data.policies.map((policy, index) => {
    const link = make("a", "", keyOf(policy));
    link.href = `#${new URLSearchParams({ policy: keyOf(policy), question: question.id })}`;
    return make("div", "", link, " ", mark(question.classes[index], question.right[index]));
  }));
}

// ---------------------------------------------------------------- state and events

function write() {
  history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([, value]) => value))}`);
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const browsing = given.has("policy") || given.has("questions");
  for (const name of ["results", "questions"]) {
    byId(name).hidden = browsing !== (name === "questions");
    byId(`to-${name}`).toggleAttribute("aria-current", !byId(name).hidden);
  }
  if (!browsing) return;
  if (given.has("policy")) state = { question: given.get("question") || "" };
  for (const name of FILTERS) state[name] = given.get(name) ?? state[name] ?? "";
  fillFilters();
  fillList();
}

for (const name of FILTERS) {
  byId(name).addEventListener("input", () => {
    state[name] = byId(name).value;
    fillFilters();
    fillList();
    write();
  });
}
byId("filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", read);
addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const free = !byId("questions").hidden && rows.length && event.target.tagName !== "SELECT";
  if (!step || !free || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose(Math.min(Math.max(at + step, 0), rows.length - 1));
  write();
});
read();
