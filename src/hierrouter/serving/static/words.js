// Numbers and failures in words.
"use strict";

const DOLLARS = new Intl.NumberFormat("en", {
  style: "currency",
  currency: "USD",
  maximumSignificantDigits: 3,
});
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const known = Number.isFinite;

function money(dollars) {
  return known(dollars) ? DOLLARS.format(dollars) : "unknown";
}

function short(number) {
  if (!known(number)) return "unknown";
  return Math.abs(number) < 100 ? SHORT.format(number) : WHOLE.format(number);
}

function duration(ms) {
  if (!known(ms)) return "unknown";
  if (ms < 9.95) return `${SHORT.format(ms)} ms`;
  if (ms < 999.5) return `${WHOLE.format(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function share(part) {
  const percent = part * 100;
  if (percent > 0 && percent < 0.1) return "<0.1%";
  if (percent > 99 && percent < 100) return ">99%";
  return `${(percent < 10 ? SHORT : WHOLE).format(percent)}%`;
}

// How two amounts compare: "same", "65% of" or "2.1 times".
function factor(mine, other) {
  const ratio = mine / other;
  if (Math.abs(ratio - 1) < 0.005) return "same";
  if (ratio >= 1.05) return `${(ratio < 10 ? SHORT : WHOLE).format(ratio)} times`;
  return `${share(ratio)} of`;
}

function verdict(routed, alone, name) {
  let cost = `The route cost ${money(routed.cost)}, and ${name} alone is free`;
  if (alone.cost > 0) {
    const much = factor(routed.cost, alone.cost);
    cost =
      much === "same"
        ? `The route cost as much as ${name} alone`
        : `The route cost ${much} what ${name} alone cost`;
  } else if (routed.cost === 0) {
    cost = `The route and ${name} alone are free`;
  }
  const long = factor(routed.ms, alone.ms);
  if (long === "same") return `${cost}, and took as long.`;
  return `${cost}, and took ${long} ${long.endsWith("of") ? "its time" : "as long"}.`;
}
