// The server as this page asks it: an answer, a sentence that says why there is none, or nobody there.

export class Refused extends Error {}
export class Away extends Error {}

/** JSON from `path`; throws Refused with the server's sentence, or Away. */
export const ask = async (path, options = {}) => {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away("The server does not answer. It is asked again until it does.");
  }
  const found = await answer.json().catch(() => ({ error: `the server answers with ${answer.status}` }));
  if (!answer.ok) throw new Refused(found.error ?? `the server answers with ${answer.status}`);
  return found;
};

/** A picture's answer. */
export const send = (path, picture, parameters, signal) => {
  const form = new FormData();
  form.append("file", picture, "picture");
  return ask(`${path}?${new URLSearchParams(parameters)}`, { method: "POST", body: form, signal });
};

const waited = async () => {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1000));
    try {
      await ask("/healthz");
      return;
    } catch (error) {
      if (!(error instanceof Away)) throw error;
    }
  }
};

let returning = null;

/** Ends when the server is there again; however many wait for it, it is asked once a second. */
export const back = () => (returning ??= waited().finally(() => (returning = null)));

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
