// The form's settings: what they may be, how they are filled, and links that hold them.

import { byId, element } from './dom.js';
import { number, t } from './i18n.js';

const MAX_SEED = Number.MAX_SAFE_INTEGER;
const NUMBERS = {
  guidance: [0, 100, 'guidance'],
  temperature: [0, 100, 'temperature'],
  top_p: [0, 1, 'topP'],
};
const KEPT = { top_k: 'topK', adapter_strength: 'strength' };
const CANDIDATES = [4, 8, 12, 16, 24, 32, 48, 64];
const DEFAULT_N = 4;
const DEFAULT_CANDIDATES = 8;

let facts = null;
let kept = {}; // what a recalled picture has that the form does not show: it is told in the summary

/** A setting that cannot be taken; `field` is where it stands. */
export class WrongSetting extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** Say what the model can do, and fill the lists. */
export function setFacts(told) {
  facts = told;
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

/** Fill the lists in the page's language; what is chosen stays. */
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
  kept = {};
  showSummary();
}

/** Show beside the button what the folded settings are. */
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
  for (const [name, value] of Object.entries(kept)) parts.push(`${t(KEPT[name])} ${value}`);
  byId('summary').textContent = parts.join(' · ');
}

/** Return what the form asks for beside the text; what is empty is left out. */
export function asked() {
  const found = { ...kept, n: Number(byId('n').value), size: `${byId('size').value}x${byId('size').value}` };
  const candidates = Number(byId('candidates').value);
  if (candidates > found.n) found.candidates = candidates;
  if (byId('adapter').value) found.adapter = byId('adapter').value;
  const seed = byId('seed').value.trim();
  if (seed) {
    if (!/^[0-9]{1,16}$/.test(seed) || Number(seed) > MAX_SEED) throw new WrongSetting(t('seedWrong'), byId('seed'));
    found.seed = Number(seed);
  }
  for (const [name, [low, high, label]] of Object.entries(NUMBERS)) {
    const field = byId(name);
    if (!field.value.trim() && !field.validity.badInput) continue;
    const value = Number(field.value);
    const isTooSmall = name === 'top_p' ? value <= low : value < low;
    if (field.validity.badInput || !Number.isFinite(value) || isTooSmall || value > high) {
      throw new WrongSetting(t('numberWrong', t(label), low, high), field);
    }
    found[name] = value;
  }
  return found;
}

/** Return of a picture's facts what is usable here: whatever they hold, they came from a file or a link. */
export function usable(given) {
  const found = {};
  const seed = Number(given.seed);
  if (given.seed !== null && given.seed !== '' && Number.isSafeInteger(seed) && seed >= 0) found.seed = seed;
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = Number(given[name]);
    if (given[name] === undefined || given[name] === null || given[name] === '') continue;
    if (Number.isFinite(value) && value >= low && value <= high && !(name === 'top_p' && value === 0)) found[name] = value;
  }
  const topK = Number(given.top_k);
  if (Number.isInteger(topK) && topK > 0) found.top_k = topK;
  if (typeof given.adapter === 'string' && facts.styles.includes(given.adapter)) found.adapter = given.adapter;
  const strength = Number(given.adapter_strength);
  if (found.adapter && given.adapter_strength !== undefined && Math.abs(strength) <= 10) found.adapter_strength = strength;
  const side = Number(given.size_pixels);
  if (facts.sizes.includes(side)) found.size_pixels = side;
  const n = Number(given.n);
  if (Number.isInteger(n) && n >= 1 && n <= facts.max_pictures) found.n = n;
  const candidates = Number(given.candidates);
  if (Number.isInteger(candidates) && candidates > 0 && candidates <= facts.max_candidates) found.candidates = candidates;
  return found;
}

/** Return usable facts as fields of a request. */
export function fields(found) {
  const { size_pixels: side, n, candidates, seed, ...rest } = found;
  return { ...rest, ...(side ? { size: `${side}x${side}` } : {}) };
}

/** Put usable facts into the form. */
export function fill(found) {
  const has = (name) => found[name] !== undefined;
  byId('adapter').value = found.adapter ?? '';
  if (has('size_pixels')) byId('size').value = String(found.size_pixels);
  if (has('n')) {
    byId('n').value = String(found.n);
    byId('candidates').value = '0';
  }
  if (has('candidates')) {
    const list = byId('candidates');
    if (![...list.options].some((each) => each.value === String(found.candidates))) {
      list.append(element('option', { value: found.candidates }, t('bestOf', found.candidates)));
    }
    list.value = String(found.candidates);
  }
  kept = Object.fromEntries(Object.keys(KEPT).filter(has).map((name) => [name, found[name]]));
  byId('seed').value = has('seed') ? String(found.seed) : '';
  const own = { guidance: facts.guidance, temperature: 1, top_p: facts.top_p };
  for (const name of Object.keys(NUMBERS)) {
    byId(name).value = has(name) && found[name] !== own[name] ? String(found[name]) : '';
  }
  showSummary();
}

/** Return a link that fills the form with a text and settings. */
export function linkOf(text, found) {
  const parts = new URLSearchParams({ text });
  for (const [name, value] of Object.entries(found)) parts.set(name, String(value));
  return `${location.origin}/#${parts}`;
}

/** Return text and settings of the page's address, or null if it holds none. */
export function fromLink() {
  const parts = new URLSearchParams(location.hash.slice(1, 40_000));
  const text = parts.get('text');
  if (text === null) return null;
  return { text: text.slice(0, 32_000), found: usable(Object.fromEntries(parts)) };
}
