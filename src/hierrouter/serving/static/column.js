// One answer under way: its route, hop by hop, and its text. What comes from the server is only
// ever set as text, never as markup.
"use strict";

const MOST_CHOICES = 4;
const DOES = { analyze: "analyzes", solve: "solves" };

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function bar(name, part, value, className = "") {
  const row = make("li", className);
  const track = make("span", "bar");
  track.ariaHidden = "true";
  track.append(make("i"));
  track.firstChild.style.setProperty("inline-size", `${Math.min(Math.max(part, 0), 1) * 100}%`);
  row.append(make("span", "name", name), track, make("span", "value", value));
  return row;
}

function fill(list, facts) {
  list.replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", "", value));
    list.append(pair);
  }
  list.hidden = false;
}

class Column {
  // `direct`: a single model is shown, as if it had been asked without a router.
  constructor(section, direct = false) {
    this.direct = direct;
    section.append(document.getElementById("column").content.cloneNode(true));
    const find = (selector) => section.querySelector(selector);
    this.section = section;
    this.title = find("h2");
    this.title.id = `${section.id}-title`;
    this.status = find(".status");
    this.route = find(".route");
    this.error = find(":scope > .error");
    this.answer = find(".answer");
    this.text = find(".answer .text");
    this.note = find(".answer .note");
    this.totals = find(".totals");
  }

  begin(title, unit) {
    this.end();
    this.unit = unit;
    this.hops = [];
    this.summary = null;
    this.title.textContent = title;
    this.status.textContent = "Waiting for the server";
    this.route.replaceChildren();
    this.text.replaceChildren(document.createTextNode(""));
    this.text.classList.add("growing");
    show(this.error, "");
    show(this.note, "");
    this.answer.hidden = true;
    this.totals.hidden = true;
    this.began = performance.now();
    this.timer = setInterval(() => this.tick(), 100);
  }

  end() {
    clearInterval(this.timer);
    this.text.classList.remove("growing");
    for (const hop of this.hops ?? []) hop.element.classList.remove("running");
  }

  tick() {
    const hop = this.hops.at(-1);
    if (hop && !hop.done) fill(hop.facts, { Time: duration(performance.now() - hop.began) });
  }

  // One event of the stream.
  take(event) {
    const told = event.hierrouter;
    if (told?.event === "decision") this.decide(told);
    if (told?.event === "hop") this.complete(told);
    if (told?.event === "accepted") this.accept(told);
    const said = event.choices?.[0]?.delta?.content;
    if (said) {
      this.answer.hidden = false;
      this.text.firstChild.appendData(said);
    }
    if (Array.isArray(told?.hops)) this.finish(told);
  }

  decide(told) {
    const before = this.hops[told.index];
    if (before) {
      before.element.classList.replace("running", "failed");
      show(before.note, "It failed; the router chose again.");
      before.done = true;
    }
    const element = document.getElementById("hop").content.cloneNode(true).firstElementChild;
    const find = (selector) => element.querySelector(selector);
    const hop = {
      element,
      note: find(".note"),
      facts: find("dl"),
      decided: find(".decided"),
      reply: find(".reply"),
      began: performance.now(),
      done: false,
    };
    find(".model").textContent = told.model;
    find(".role").textContent = DOES[told.role] ?? told.role;
    this.chances(find(".choices"), told.scores ?? {}, `${told.model} ${told.role}`);
    if (told.fallback) show(hop.note, "A stand-in: the model of choice fails at present.");
    this.hops[told.index] = hop;
    this.route.append(element);
    this.status.textContent = `Hop ${told.index + 1}: ${told.model} ${DOES[told.role] ?? ""}`;
    this.tick();
  }

  chances(list, scores, chosen) {
    const choices = Object.entries(scores);
    list.hidden = choices.length < 2;
    // One more row takes no more room than the line that stands for it.
    const shown = choices.length === MOST_CHOICES + 1 ? choices.length : MOST_CHOICES;
    for (const [name, chance] of choices.slice(0, shown)) {
      list.append(bar(name, chance, share(chance), name === chosen ? "chosen" : ""));
    }
    const others = choices.slice(shown);
    if (others.length) {
      const sum = others.reduce((total, [, chance]) => total + chance, 0);
      list.append(bar(`${others.length} others`, sum, share(sum)));
    }
  }

  complete(told) {
    if (!this.hops[told.index]) this.decide(told);
    const hop = this.hops[told.index];
    hop.done = true;
    hop.element.classList.remove("running");
    const deciding = this.direct ? told.decision_ms : 0;
    hop.ms = told.latency_ms - deciding;
    hop.first = told.first_token_ms - deciding;
    if (!this.direct) hop.decided.textContent = `decided in ${duration(told.decision_ms)}`;
    fill(hop.facts, {
      Tokens: `${WHOLE.format(told.tokens_in)} in, ${WHOLE.format(told.tokens_out)} out`,
      Cost: money(told.cost_usd),
      "Relative cost": short(told.cost_usd / this.unit),
      ...(known(hop.first) && { "First word": duration(hop.first) }),
      Time: duration(hop.ms),
    });
    if (told.reply) {
      hop.reply.hidden = false;
      hop.reply.querySelector(".text").textContent = told.reply;
    }
  }

  // An answer at hand is returned, of a router that may ask another model after one.
  accept(told) {
    const last = this.hops.at(-1);
    if (!last.done) {
      last.element.classList.replace("running", "failed");
      show(last.note, "It failed, or was too slow.");
      last.done = true;
      this.hops.pop();
    }
    if (this.route.children.length > 1) show(this.hops[told.hop].note, "Its answer is returned.");
  }

  finish(told) {
    for (const hop of told.hops) this.complete(hop);
    this.end();
    const ms = this.hops.reduce((total, hop) => total + hop.ms, 0);
    const last = this.hops.at(-1);
    this.summary = { cost: told.cost_usd, ms };
    this.answer.hidden = false;
    if (!this.text.textContent) show(this.note, "The answer is empty.");
    const cut = (told.hops[told.returned] ?? told.hops.at(-1))?.finish_reason === "length";
    if (cut) show(this.note, "Cut off at the token limit.");
    if (told.hops.length > 1) {
      fill(this.totals, {
        Route: told.route,
        Cost: money(told.cost_usd),
        "Relative cost": short(told.relative_cost),
        ...(known(last.first) && { "First word": duration(ms - last.ms + last.first) }),
        Time: duration(ms),
      });
    }
    const around = told.degraded ? "; a model failed, and the router went around it" : "";
    this.status.textContent = `Done in ${duration(ms)}${around}`;
  }

  fail(text) {
    this.end();
    const hop = this.hops.at(-1);
    if (hop && !hop.done) hop.element.classList.add("failed");
    this.status.textContent = "No answer";
    if (this.text.textContent) this.status.textContent = "The answer is not whole";
    show(this.error, text);
  }

  stop() {
    this.end();
    this.status.textContent = "Stopped";
  }
}
