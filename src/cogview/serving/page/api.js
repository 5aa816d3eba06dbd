// Client of the server's API.

import { keep } from './dom.js';
import { t } from './i18n.js';

const MAX_EVENT_CHARACTERS = 8_000_000;

/** Failed request. `status` is 0 if there was no response. */
export class ApiError extends Error {
  constructor(status, message, code = '', retrySeconds = 0) {
    super(message);
    Object.assign(this, { status, code, retrySeconds });
  }

  /** Return the message in the page's language. */
  get userMessage() {
    if (this.status === 0) return t('offline');
    if (this.status === 429) return t('busy', this.message, this.retrySeconds || 5);
    if (this.status === 503) return t('ending', this.retrySeconds || 5);
    if (this.status === 401) return t('needsKey');
    return t('error', this.message);
  }
}

/** Return this browser's random client id, which its history belongs to. */
function clientId() {
  const known = keep('localStorage', 'cogview-client');
  if (known && /^[\w-]{16,64}$/.test(known)) return known;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const result = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  keep('localStorage', 'cogview-client', result);
  return result;
}

const client = clientId();
let askForKey = async () => null;
let keyRequest = null;

/** Set the function that asks the user for an API key; it returns the key or null. */
export const onKeyNeeded = (ask) => {
  askForKey = ask;
};

async function request(path, options) {
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
  const body = await response.json().catch(() => ({}));
  const retry = Number(response.headers.get('Retry-After')) || 0;
  const failure = new ApiError(response.status, body?.error?.message ?? response.statusText, body?.error?.code ?? '', retry);
  if (response.status !== 401) throw failure;
  const newKey = await (keyRequest ??= askForKey(Boolean(key)).finally(() => {
    keyRequest = null;
  }));
  if (newKey === null) throw failure;
  keep('sessionStorage', 'cogview-key', newKey);
  return request(path, options);
}

async function requestJson(path, options = {}) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

function form(fields) {
  const result = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null || value === '') continue;
    if (value instanceof Blob) result.append(name, value, `${name}.png`);
    else result.append(name, String(value));
  }
  return result;
}

const postForm = (path, body) => requestJson(path, { method: 'POST', body: form(body) });
const atJob = (id) => `/api/jobs/${encodeURIComponent(id)}`;

export const facts = () => requestJson('/api/facts');
export const words = () => requestJson('/api/words');
export const job = (id) => requestJson(atJob(id));
export const stop = (id) => requestJson(`${atJob(id)}/stop`, { method: 'POST' });
export const remove = (id) => requestJson(atJob(id), { method: 'DELETE' });
export const upscale = (fields) => postForm('/v1/images/upscale', fields);
export const captions = (fields) => postForm('/v1/images/captions', fields);
export const edit = (fields) => postForm('/api/jobs', fields);

export const generate = (fields) =>
  requestJson('/api/jobs', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(fields) });

export async function history({ search = '', before = null, limit = 24 } = {}) {
  const query = new URLSearchParams({ search, limit: String(limit), ...(before === null ? {} : { before }) });
  return (await requestJson(`/api/jobs?${query}`)).data;
}

/** Fetch a picture file. */
export async function file(url) {
  return (await request(url, {})).blob();
}

/** Yield a job's events as `{id, event}`, from the one after `last`. */
export async function* events(jobId, last, signal) {
  const headers = { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) };
  const response = await request(`${atJob(jobId)}/events`, { headers, signal, cache: 'no-store' });
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
        const event = parseEvent(each);
        if (event) yield event;
      }
    }
  } catch (error) {
    throw error instanceof ApiError || error.name === 'AbortError' ? error : new ApiError(0, String(error));
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(text) {
  let id = null;
  const data = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('id:')) id = line.slice(3).trim();
    else if (line.startsWith('data:')) data.push(line.slice(5));
  }
  if (!data.length) return null;
  return { id, event: JSON.parse(data.join('\n')) };
}

/** Decode base64 into a PNG file. */
export function png(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: 'image/png' });
}
