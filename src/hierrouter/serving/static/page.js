// The page: reads the settings, asks the router and the single model, and compares them.
"use strict";

const at = (id) => document.getElementById(id);
const STORED = "hierrouter-key";
const NOBODY = "";

const routed = new Column(at("routed"));
const alone = new Column(at("alone"), true);
let key = stored();
let router = null; // of /openai/v1/models: its name and what it tells of itself
let alpha = 0;
let current = null; // the AbortController of the question under way

function stored() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return ""; // a browser may keep nothing
  }
}

function remember(given) {
  key = given;
  try {
    sessionStorage.setItem(STORED, given);
  } catch {
    // Then it is kept until the page is left.
  }
}

async function load() {
  at("trouble").hidden = true;
  try {
    const { data } = await (await request("models", key)).json();
    const found = { name: data[0].id, ...data[0].hierrouter };
    if (!router) prepare(found);
    router = found;
  } catch (error) {
    if (error.status === 401) {
      askForKey(key ? "The server does not know this key." : "");
    } else {
      if (!(error instanceof Problem)) console.error(error);
      at("trouble").firstElementChild.textContent =
        error instanceof Problem ? error.message : "The server tells nothing of a router.";
      at("trouble").hidden = false;
    }
    return;
  }
  if (!at("key-form").hidden) {
    at("key-form").hidden = true;
    at("question").focus();
  }
}

function askForKey(reason) {
  at("key-form").hidden = false;
  show(at("key-error"), reason);
  at("key").value = "";
  at("key").focus();
}

function prepare(about) {
  const { name, models, hops, moves, alpha_range: range } = about;
  const version = about.router.version;
  at("facts").textContent =
    `${name}, version ${version}: ${models.length} models, ` +
    (moves === "paper" ? `always ${hops} hops` : `at most ${hops} hops`);
  const [low, high] = range;
  const step = 10 ** Math.floor(Math.log10((high - low || 1) / 50));
  Object.assign(at("alpha"), { min: low, max: high, step, value: about.alpha });
  setAlpha(about.alpha);

  const single = moves !== "paper" || hops === 1;
  at("single").replaceChildren();
  at("single").disabled = !single;
  show(
    at("single-help"),
    single ? "" : `This router always makes ${hops} hops: no single model can be asked.`
  );
  if (single) at("single").append(...models.map((model) => new Option(model)));
  at("single").append(new Option("none", NOBODY));
  at("single").selectedIndex = single ? models.length - 1 : 0;

  at("hops-field").hidden = moves === "paper" || hops === 1;
  at("max-hops").replaceChildren(
    ...Array.from({ length: hops }, (_, index) => new Option(String(hops - index)))
  );
  at("models").replaceChildren(at("models").firstElementChild);
  for (const model of models) {
    const label = make("label", "", model);
    const box = make("input");
    Object.assign(box, { type: "checkbox", name: "model", value: model, checked: true });
    label.prepend(box);
    at("models").append(label);
  }
  at("controls").disabled = false;
}

function setAlpha(value) {
  alpha = value;
  at("alpha-value").textContent = String(value);
}

function knobs() {
  const chosen = { alpha, progress: true, replies: true };
  const cost = at("max-cost").value;
  const seconds = at("deadline").value;
  const hops = Number(at("max-hops").value);
  const boxes = [...document.querySelectorAll("input[name=model]")];
  const models = boxes.filter((box) => box.checked).map((box) => box.value);
  if (cost !== "") chosen.max_cost = Number(cost);
  if (seconds !== "") chosen.deadline_ms = Math.max(1, Math.round(Number(seconds) * 1000));
  if (hops < router.hops) chosen.max_hops = hops;
  if (models.length < boxes.length) chosen.models = models;
  return chosen;
}

async function ask() {
  const question = at("question").value;
  const single = at("single").value;
  current?.abort();
  const mine = new AbortController();
  current = mine;
  at("stop").disabled = false;
  at("results").hidden = false;
  at("alone").hidden = single === NOBODY;
  at("comparison").hidden = true;
  at("verdict").textContent = "";
  const asked = [follow(routed, `The router at alpha ${alpha}`, question, knobs(), mine)];
  if (single !== NOBODY) {
    const only = { models: [single], max_hops: 1, progress: true };
    asked.push(follow(alone, `${single} alone`, question, only, mine));
  }
  if (matchMedia("(max-width: 47.99rem)").matches) at("results").scrollIntoView();
  const [route, other] = await Promise.all(asked);
  if (mine !== current) return; // a newer question has the page
  current = null;
  if (document.activeElement === at("stop")) at("question").focus();
  at("stop").disabled = true;
  if (route && other) compare(route, other, single);
}

// Asks, and shows the answer as it comes; gives its cost and time, or nothing if there is none.
async function follow(column, title, question, hierrouter, mine) {
  const { signal } = mine;
  column.begin(title, router.cost_unit_usd);
  try {
    const response = await request("chat/completions", key, signal, {
      model: router.name,
      messages: [{ role: "user", content: question }],
      stream: true,
      stream_options: { include_usage: true },
      hierrouter,
    });
    for await (const event of events(response, signal)) column.take(event);
    if (!column.summary) throw new Problem(BROKEN_OFF);
    return column.summary;
  } catch (error) {
    if (mine !== current) return null; // the column shows a newer question
    if (signal.aborted) {
      column.stop();
    } else {
      if (!(error instanceof Problem)) console.error(error);
      column.fail(error instanceof Problem ? error.message : "The server sent no such answer.");
      if (error.status === 401) askForKey("The server does not know this key any more.");
    }
    return null;
  }
}

function compare(route, other, single) {
  at("comparison").hidden = false;
  at("verdict").textContent = verdict(route, other, single);
  at("measures").replaceChildren();
  for (const [name, what, write] of [
    ["Cost", "cost", money],
    ["Time", "ms", duration],
  ]) {
    const most = Math.max(route[what], other[what]) || 1;
    const list = make("ul", "choices");
    list.append(
      bar("the route", route[what] / most, write(route[what]), "chosen"),
      bar(`${single} alone`, other[what] / most, write(other[what]))
    );
    at("measures").append(make("h3", "", name), list);
  }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("ask").addEventListener(
  "invalid",
  (event) => {
    // A browser cannot point at a wrong value in what is folded away.
    if (at("limits").contains(event.target)) at("limits").open = true;
  },
  true
);
at("alpha").addEventListener("input", () => setAlpha(at("alpha").valueAsNumber));
at("stop").addEventListener("click", () => current?.abort());
at("trouble").querySelector("button").addEventListener("click", load);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("key").value.trim();
  if (/^[!-~]+$/.test(given)) {
    remember(given);
    load();
  } else {
    askForKey("A key has only ASCII letters, digits and signs, and no blanks.");
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") current?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    if (event.target.form === at("ask") && router) at("ask").requestSubmit();
  }
});
load();
