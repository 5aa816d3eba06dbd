// What the page asks the server for, and nothing else of anybody.

import { keep } from './dom.js';
import { t } from './i18n.js';

const MAX_EVENT_CHARACTERS = 8_000_000;

/** An answer that is none of success. `status` is 0 if there was no answer at all. */
export class ApiError extends Error {
  constructor(status, message, code = '', retrySeconds = 0) {
    super(message);
    Object.assign(this, { status, code, retrySeconds });
  }

  /** Return it in the words of whoever looks at the page. */
  get told() {
    if (this.status === 0) return t('offline');
    if (this.status === 429) return t('busy', this.message, this.retrySeconds || 5);
    if (this.status === 503) return t('ending', this.retrySeconds || 5);
    if (this.status === 401) return t('needsKey');
    return t('error', this.message);
  }
}

/** Return the random name under which this browser's history is kept. */
function clientId() {
  const known = keep('localStorage', 'cogview-client');
  if (known && /^[\w-]{16,64}$/.test(known)) return known;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const made = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  keep('localStorage', 'cogview-client', made);
  return made;
}

const client = clientId();
let askForKey = async () => null;
let asking = null;

/** Set what is called when the server wants a key: it returns one, or null. */
export const onKeyNeeded = (ask) => {
  askForKey = ask;
};

async function fetched(path, options) {
  const key = keep('sessionStorage', 'cogview-key');
  const headers = { 'X-Client': client, ...(key ? { Authorization: `Bearer ${key}` } : {}), ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, String(error));
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const retry = Number(response.headers.get('Retry-After')) || 0;
  const failure = new ApiError(response.status, told?.error?.message ?? response.statusText, told?.error?.code ?? '', retry);
  if (response.status !== 401) throw failure;
  const given = await (asking ??= askForKey(Boolean(key)).finally(() => {
    asking = null;
  }));
  if (given === null) throw failure;
  keep('sessionStorage', 'cogview-key', given);
  return fetched(path, options);
}

async function asked(path, options = {}) {
  const response = await fetched(path, options);
  return response.status === 204 ? null : response.json();
}

function form(fields) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null || value === '') continue;
    if (value instanceof Blob) made.append(name, value, `${name}.png`);
    else made.append(name, String(value));
  }
  return made;
}

const posted = (path, body) => asked(path, { method: 'POST', body: form(body) });
const atJob = (id) => `/api/jobs/${encodeURIComponent(id)}`;

export const facts = () => asked('/api/facts');
export const words = () => asked('/api/words');
export const job = (id) => asked(atJob(id));
export const stop = (id) => asked(`${atJob(id)}/stop`, { method: 'POST' });
export const remove = (id) => asked(atJob(id), { method: 'DELETE' });
export const upscale = (fields) => posted('/v1/images/upscale', fields);
export const captions = (fields) => posted('/v1/images/captions', fields);
export const edit = (fields) => posted('/api/jobs', fields);

export const generate = (fields) =>
  asked('/api/jobs', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(fields) });

export async function history({ search = '', before = null, limit = 24 } = {}) {
  const query = new URLSearchParams({ search, limit: String(limit), ...(before === null ? {} : { before }) });
  return (await asked(`/api/jobs?${query}`)).data;
}

/** Return the file of a picture of the server's. */
export async function file(url) {
  return (await fetched(url, {})).blob();
}

/** Yield what is told of a job as `{id, event}`, from what follows the event `last`. */
export async function* events(jobId, last, signal) {
  const headers = { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) };
  const response = await fetched(`${atJob(jobId)}/events`, { headers, signal, cache: 'no-store' });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const whole = text.split('\n\n');
      text = whole.pop();
      if (text.length > MAX_EVENT_CHARACTERS) throw new ApiError(0, 'an event is too long');
      for (const each of whole) {
        const found = parsed(each);
        if (found) yield found;
      }
    }
  } catch (error) {
    throw error instanceof ApiError || error.name === 'AbortError' ? error : new ApiError(0, String(error));
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  let id = null;
  const data = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('id:')) id = line.slice(3).trim();
    else if (line.startsWith('data:')) data.push(line.slice(5));
  }
  if (!data.length) return null;
  return { id, event: JSON.parse(data.join('\n')) };
}

/** Return base64 as a PNG file. */
export function png(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: 'image/png' });
}
