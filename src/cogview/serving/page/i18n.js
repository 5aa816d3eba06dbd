// Translation of the page.

import { keep } from './dom.js';
import { CHINESE } from './chinese.js';
import { ENGLISH } from './english.js';

const listeners = new Set();

/** Return the language: en or zh. */
export const language = () => (document.documentElement.lang.startsWith('zh') ? 'zh' : 'en');

/** Return a text of the page; texts with values are functions of them. */
export function t(name, ...values) {
  const words = (language() === 'zh' ? CHINESE : ENGLISH)[name] ?? name;
  return typeof words === 'function' ? words(...values) : words;
}

/** Fill in all elements with `data-t` or `data-t-attr`. */
export function translate(root = document) {
  for (const each of root.querySelectorAll('[data-t]')) each.textContent = t(each.dataset.t);
  for (const each of root.querySelectorAll('[data-t-attr]')) {
    for (const pair of each.dataset.tAttr.split(';')) {
      const [attribute, name] = pair.split(':');
      each.setAttribute(attribute, t(name));
    }
  }
}

export function setLanguage(chosen) {
  document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en';
  keep('localStorage', 'cogview-language', chosen);
  translate();
  for (const listener of listeners) listener();
}

/** Call a function whenever the language changes. */
export const onLanguage = (listener) => listeners.add(listener);

const locale = () => (language() === 'zh' ? 'zh-CN' : 'en');

export const number = (value, digits = 2) => new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);

/** Format a time (seconds since 1970) relative to now, or as a date. */
export function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  const relative = new Intl.RelativeTimeFormat(locale(), { numeric: 'auto', style: 'short' });
  if (passed < 45) return t('justNow');
  if (passed < 3600) return relative.format(-Math.max(Math.round(passed / 60), 1), 'minute');
  if (passed < 86400) return relative.format(-Math.round(passed / 3600), 'hour');
  return new Intl.DateTimeFormat(locale(), { dateStyle: 'medium' }).format(new Date(seconds * 1000));
}
