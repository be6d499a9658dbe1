// Requests to the server: JSON, an error with the server's message, or a server that does not answer.

export class RequestError extends Error {}
export class ServerUnavailable extends Error {}

/** Fetches JSON; throws RequestError with the server's message, or ServerUnavailable. */
export const fetchJson = async (path, options = {}) => {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerUnavailable("The server is not responding. Retrying …");
  }
  const fallback = `the server responded with status ${response.status}`;
  const data = await response.json().catch(() => ({ error: fallback }));
  if (!response.ok) throw new RequestError(data.error ?? fallback);
  return data;
};

/** Posts an image and fetches the JSON. */
export const postImage = (path, image, parameters, signal) => {
  const form = new FormData();
  form.append("file", image, "image");
  return fetchJson(`${path}?${new URLSearchParams(parameters)}`, { method: "POST", body: form, signal });
};

const pollServer = async () => {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      await fetchJson("/healthz");
      return;
    } catch (error) {
      if (!(error instanceof ServerUnavailable)) throw error;
    }
  }
};

let polling = null;

/** Resolves when the server is back; it is polled once per second, whatever the number of waiting callers. */
export const serverIsBack = () => (polling ??= pollServer().finally(() => (polling = null)));

/** A message as a sentence: capitalized, with a full stop. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
