// Talks to the server: requests, its events, and what can go wrong, in words.
"use strict";

const API = new URL("openai/v1/", location.href);
const UNREACHABLE = "The server cannot be reached: it may be down, or the network is.";
const BROKEN_OFF = "The connection broke off before the answer was whole.";

class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// What the server says of a failure: OpenAI's error object, or what else there is of it.
function told(body) {
  const text = body?.error?.message ?? body?.detail;
  return typeof text === "string" ? text : "";
}

async function refusal(response) {
  const { status } = response;
  const said = told(await response.json().catch(() => null)) || `status ${status}, and no reason`;
  let lead = status < 500 ? "The server refused this" : "The server could not answer";
  if (status === 401) lead = "The server wants a key";
  if (status === 429) lead = "The server is busy";
  return new Problem(`${lead}: ${said}`, status);
}

async function request(path, key, signal, body) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, API), {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    throw signal?.aborted ? error : new Problem(UNREACHABLE);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

// The data of server-sent events until [DONE].
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw signal.aborted ? error : new Problem(BROKEN_OFF);
      });
      if (done) throw new Problem(BROKEN_OFF);
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        signal.throwIfAborted();
        const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(5).trim()).join("\n");
        if (data === "[DONE]") return;
        if (data) yield parsed(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(data) {
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    throw new Problem("The server sent something that is no answer.");
  }
  if (!event.error) return event;
  const refused = event.error.type === "invalid_request_error";
  const lead = refused ? "The server refused this" : "The server could not answer";
  throw new Problem(`${lead}: ${told(event) || "it gives no reason"}`);
}
