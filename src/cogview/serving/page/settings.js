// The form's settings: validation, filling and links.

import { byId, element } from './dom.js';
import { number, t } from './i18n.js';

const MAX_SEED = Number.MAX_SAFE_INTEGER;
const NUMBERS = {
  guidance: [0, 100, 'guidance'],
  temperature: [0, 100, 'temperature'],
  top_p: [0, 1, 'topP'],
};
const HIDDEN = { top_k: 'topK', adapter_strength: 'strength' };
const CANDIDATES = [4, 8, 12, 16, 24, 32, 48, 64];
const DEFAULT_N = 4;
const DEFAULT_CANDIDATES = 8;

let facts = null;
let hiddenValues = {}; // settings of a reused picture without a field in the form; the summary lists them

/** Invalid value of a form `field`. */
export class WrongSetting extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** Set the model's facts and fill the lists. */
export function setFacts(modelFacts) {
  facts = modelFacts;
  fillLists();
  reset();
}

function defaults() {
  const n = Math.min(DEFAULT_N, facts.max_pictures);
  const candidates = facts.captioners.length && facts.max_candidates >= DEFAULT_CANDIDATES ? DEFAULT_CANDIDATES : 0;
  return { n: String(n), candidates: String(candidates), size: String(facts.size_pixels), adapter: '' };
}

function options(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, words]) => element('option', { value }, words)));
  if (pairs.some(([value]) => String(value) === chosen)) select.value = chosen;
}

/** Fill the lists in the page's language, and keep what is selected. */
export function fillLists() {
  if (!facts) return;
  options(byId('n'), Array.from({ length: facts.max_pictures }, (_, index) => [index + 1, String(index + 1)]));
  const counts = facts.captioners.length ? CANDIDATES.filter((count) => count <= facts.max_candidates) : [];
  options(byId('candidates'), [[0, t('noCandidates')], ...counts.map((count) => [count, t('bestOf', count)])]);
  options(byId('size'), facts.sizes.map((side) => [side, t('pixels', side)]));
  options(byId('adapter'), [['', t('noStyle')], ...facts.styles.map((name) => [name, styleName(name)])]);
  byId('guidance').placeholder = number(facts.guidance);
  byId('top_p').placeholder = number(facts.top_p);
  showSummary();
}

const styleName = (name) => name.replace(/^style-/, '');

export function reset() {
  for (const [name, value] of Object.entries(defaults())) byId(name).value = value;
  for (const name of ['seed', ...Object.keys(NUMBERS)]) byId(name).value = '';
  hiddenValues = {};
  showSummary();
}

/** Summarize the settings beside the button that opens them. */
export function showSummary() {
  if (!facts) return;
  const [n, candidates] = [Number(byId('n').value), Number(byId('candidates').value)];
  const parts = [candidates > n ? t('ofMany', n, candidates) : t('pictures', n)];
  if (Number(byId('size').value) !== facts.size_pixels) parts.push(t('pixels', byId('size').value));
  if (byId('adapter').value) parts.push(styleName(byId('adapter').value));
  if (byId('seed').value.trim()) parts.push(`${t('seed')} ${byId('seed').value.trim()}`);
  for (const [name, [, , label]] of Object.entries(NUMBERS)) {
    if (byId(name).value.trim()) parts.push(`${t(label)} ${byId(name).value}`);
  }
  for (const [name, value] of Object.entries(hiddenValues)) parts.push(`${t(HIDDEN[name])} ${value}`);
  byId('summary').textContent = parts.join(' · ');
}

/** Return the request fields of the form without the text; empty ones are left out. */
export function readForm() {
  const values = { ...hiddenValues, n: Number(byId('n').value), size: `${byId('size').value}x${byId('size').value}` };
  const candidates = Number(byId('candidates').value);
  if (candidates > values.n) values.candidates = candidates;
  if (byId('adapter').value) values.adapter = byId('adapter').value;
  const seed = byId('seed').value.trim();
  if (seed) {
    if (!/^[0-9]{1,16}$/.test(seed) || Number(seed) > MAX_SEED) throw new WrongSetting(t('seedWrong'), byId('seed'));
    values.seed = Number(seed);
  }
  for (const [name, [low, high, label]] of Object.entries(NUMBERS)) {
    const field = byId(name);
    if (!field.value.trim() && !field.validity.badInput) continue;
    const value = Number(field.value);
    const isTooSmall = name === 'top_p' ? value <= low : value < low;
    if (field.validity.badInput || !Number.isFinite(value) || isTooSmall || value > high) {
      throw new WrongSetting(t('numberWrong', t(label), low, high), field);
    }
    values[name] = value;
  }
  return values;
}

/** Return the valid settings of a picture's metadata, which came from a file or link and may hold anything. */
export function usable(source) {
  const values = {};
  const seed = Number(source.seed);
  if (source.seed !== null && source.seed !== '' && Number.isSafeInteger(seed) && seed >= 0) values.seed = seed;
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = Number(source[name]);
    if (source[name] === undefined || source[name] === null || source[name] === '') continue;
    if (Number.isFinite(value) && value >= low && value <= high && !(name === 'top_p' && value === 0)) values[name] = value;
  }
  const topK = Number(source.top_k);
  if (Number.isInteger(topK) && topK > 0) values.top_k = topK;
  if (typeof source.adapter === 'string' && facts.styles.includes(source.adapter)) values.adapter = source.adapter;
  const strength = Number(source.adapter_strength);
  if (values.adapter && source.adapter_strength !== undefined && Math.abs(strength) <= 10) values.adapter_strength = strength;
  const side = Number(source.size_pixels);
  if (facts.sizes.includes(side)) values.size_pixels = side;
  const n = Number(source.n);
  if (Number.isInteger(n) && n >= 1 && n <= facts.max_pictures) values.n = n;
  const candidates = Number(source.candidates);
  if (Number.isInteger(candidates) && candidates > 0 && candidates <= facts.max_candidates) values.candidates = candidates;
  return values;
}

/** Convert valid settings to request fields. */
export function fields(values) {
  const { size_pixels: side, n, candidates, seed, ...rest } = values;
  return { ...rest, ...(side ? { size: `${side}x${side}` } : {}) };
}

/** Put valid settings into the form. */
export function fill(values) {
  const has = (name) => values[name] !== undefined;
  byId('adapter').value = values.adapter ?? '';
  if (has('size_pixels')) byId('size').value = String(values.size_pixels);
  if (has('n')) {
    byId('n').value = String(values.n);
    byId('candidates').value = '0';
  }
  if (has('candidates')) {
    const list = byId('candidates');
    if (![...list.options].some((each) => each.value === String(values.candidates))) {
      list.append(element('option', { value: values.candidates }, t('bestOf', values.candidates)));
    }
    list.value = String(values.candidates);
  }
  hiddenValues = Object.fromEntries(Object.keys(HIDDEN).filter(has).map((name) => [name, values[name]]));
  byId('seed').value = has('seed') ? String(values.seed) : '';
  const own = { guidance: facts.guidance, temperature: 1, top_p: facts.top_p };
  for (const name of Object.keys(NUMBERS)) {
    byId(name).value = has(name) && values[name] !== own[name] ? String(values[name]) : '';
  }
  showSummary();
}

/** Return a link that fills the form with a text and settings. */
export function linkOf(text, values) {
  const parts = new URLSearchParams({ text });
  for (const [name, value] of Object.entries(values)) parts.set(name, String(value));
  return `${location.origin}/#${parts}`;
}

/** Return text and settings of the page's address, or null without a text. */
export function fromLink() {
  const parts = new URLSearchParams(location.hash.slice(1, 40_000));
  const text = parts.get('text');
  if (text === null) return null;
  return { text: text.slice(0, 32_000), values: usable(Object.fromEntries(parts)) };
}
