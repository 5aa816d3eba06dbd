// Main script: connects the parts of the page.

import * as api from './api.js';
import { Chips } from './chips.js';
import { askForKey, confirmAction, toast } from './dialogs.js';
import { announce, byId, isStill, keep, pause } from './dom.js';
import { History } from './history.js';
import { language, number, onLanguage, setLanguage, t, translate } from './i18n.js';
import { forget, jobOf } from './job.js';
import * as settings from './settings.js';
import { NoPicture, sourceOfFile, sourceOfPicture, takeFiles } from './sources.js';
import { Stage } from './stage.js';
import { Viewer } from './viewer.js';
import { Words } from './words.js';

const text = byId('text');
let facts = null;
let chips = null;
let viewer = null;
let known = null;
let isSending = false;

const stage = new Stage({ open: openPicture, again: (job) => generate(job.text, repeatFields(job)), remove: removeJob, words: () => known?.open() });
const history = new History(
  { show: (job) => showJob(job, true), remove: removeJob },
  (job) => job === stage.job,
  (error) => showError(error),
);

// Messages below the form

function showError(error, field = null) {
  const isOurs = error instanceof api.ApiError || error instanceof settings.WrongSetting || error instanceof NoPicture;
  if (!isOurs) throw error;
  notice(error.userMessage ?? error.message);
  field?.focus();
}

function notice(words) {
  byId('notice').textContent = words;
  byId('notice').hidden = !words;
}

// Drawing

async function generate(words, fields) {
  if (isSending) return;
  notice('');
  isSending = true;
  byId('generate').setAttribute('aria-busy', 'true');
  announce(t('sending'));
  try {
    startJob(await api.generate({ prompt: words, ...fields }));
  } catch (error) {
    showError(error);
  } finally {
    isSending = false;
    byId('generate').removeAttribute('aria-busy');
  }
}

/** Return the request fields to repeat a job with other seeds. */
function repeatFields(job) {
  const fields = { ...settings.fields(settings.usable(job.settings)), n: job.n };
  return job.isRanked ? { ...fields, candidates: job.candidates } : fields;
}

/** Show a job that the server has just created. */
function startJob(response) {
  const job = jobOf(response);
  job.addEventListener('change', showStop);
  history.add(job);
  showJob(job);
}

function showJob(job, moves = false) {
  stage.show(job);
  history.render();
  showStop();
  if (moves) {
    stage.title.focus({ preventScroll: true });
    byId('stage').scrollIntoView({ behavior: isStill() ? 'auto' : 'smooth', block: 'start' });
  }
}

function showStop() {
  const hadFocus = document.activeElement === byId('stop');
  byId('stop').hidden = !stage.job || stage.job.isOver;
  if (hadFocus && byId('stop').hidden) byId('generate').focus();
}

async function removeJob(job) {
  if (!(await confirmAction(t('removeQuestion'), t('removeWarning', job.text), t('remove')))) return;
  try {
    await api.remove(job.id);
  } catch (error) {
    if (error.status !== 404) {
      showError(error);
      return;
    }
  }
  forget(job);
  history.remove(job);
  if (stage.job === job) {
    stage.show(null);
    showStop();
    text.focus();
  } else if (!byId('earlier').hidden) {
    byId('search').focus({ preventScroll: true });
  }
  toast(t('removed'));
}

// Pictures

function openPicture(job, seed) {
  const pictures = [...job.pictures];
  viewer.open(pictures.map((picture) => sourceOfPicture(job, picture)), pictures.findIndex((picture) => picture.seed === seed));
}

async function openFile(file) {
  try {
    viewer?.open([await sourceOfFile(file)]);
  } catch (error) {
    if (!(error instanceof NoPicture)) throw error;
    if (document.querySelector('dialog[open]')) toast(error.message);
    else notice(error.message);
  }
}

/** Copy a picture's seed and settings to the form; its text only if there is none, or on request. */
function useSettings(source) {
  const given = source.facts;
  const found = settings.usable(given);
  settings.fill({ ...found, n: 1 });
  const own = text.value.trim();
  const takesText = () => write(source.text);
  if (!own && source.text) takesText();
  const missing = typeof given.adapter === 'string' && given.adapter && !found.adapter ? ` ${t('styleMissing', given.adapter)}` : '';
  const other = typeof given.sampler === 'string' && given.sampler !== 'gumbel' ? ` ${t('samplerMissing', given.sampler)}` : '';
  const isSame = text.value.trim() === source.text.trim();
  toast(
    (isSame ? t('allTaken') : t('settingsTaken', found.seed ?? t('seedHint'))) + missing + other,
    isSame || !source.text ? null : { words: t('takeText'), do: takesText },
  );
}

function write(words) {
  text.value = words;
  text.dispatchEvent(new Event('input'));
}

// The form

function listenToForm() {
  byId('form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (!facts) return;
    const words = text.value.trim();
    if (!words) {
      notice(t('emptyText'));
      text.focus();
      return;
    }
    try {
      generate(words, settings.readForm());
    } catch (error) {
      openSettings(true);
      showError(error, error.field);
    }
  });
  text.addEventListener('keydown', (event) => {
    // Enter that confirms a Chinese word belongs to the input method.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    byId('form').requestSubmit();
  });
  text.addEventListener('input', () => {
    notice('');
    keep('sessionStorage', 'cogview-text', text.value);
  });
  byId('settings').addEventListener('input', settings.showSummary);
  byId('settings').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.target.matches('input')) {
      event.preventDefault();
      byId('form').requestSubmit();
    }
  });
  byId('settings-button').addEventListener('click', () => openSettings(byId('settings').hidden));
  byId('reset').addEventListener('click', settings.reset);
  byId('stop').addEventListener('click', async () => {
    try {
      await api.stop(stage.job.id);
    } catch (error) {
      showError(error);
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.target.matches('input, textarea, select, dialog *')) return;
    event.preventDefault();
    text.focus();
  });
}

function openSettings(isOpen) {
  byId('settings').hidden = !isOpen;
  byId('settings-button').setAttribute('aria-expanded', String(isOpen));
}

function takeLink() {
  const link = settings.fromLink();
  if (!link) return;
  window.history.replaceState(null, '', location.pathname);
  write(link.text);
  settings.fill(link.values);
  toast(t('linkTaken'));
  text.focus();
}

// Language, theme and the model's name

function showLanguage() {
  translate();
  const other = byId('language');
  other.textContent = t('otherLanguage');
  other.setAttribute('aria-label', t('otherLanguageLabel'));
  other.lang = language() === 'zh' ? 'en' : 'zh-CN';
  if (facts) {
    byId('model').textContent = t('model', facts.name, number(facts.num_parameters / 1e6, 0), facts.device);
    settings.fillLists();
    chips.render();
  }
}

function listenToTop() {
  byId('language').addEventListener('click', () => setLanguage(language() === 'zh' ? 'en' : 'zh'));
  onLanguage(showLanguage);
  byId('theme').addEventListener('click', () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = isDark ? 'light' : 'dark';
    keep('localStorage', 'cogview-theme', root.dataset.theme);
  });
}

/** Fetch the model's facts, and retry until the server answers. */
async function waitForFacts() {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 10_000)) {
    try {
      const found = await api.facts();
      notice('');
      return found;
    } catch (error) {
      showError(error);
      await (error.status === 401 ? pressed(byId('generate')) : pause(wait));
    }
  }
}

const pressed = (button) => new Promise((resolve) => button.addEventListener('click', resolve, { once: true }));

async function start() {
  showLanguage();
  listenToTop();
  listenToForm();
  api.onKeyNeeded(askForKey);
  text.value = keep('sessionStorage', 'cogview-text') ?? '';
  facts = await waitForFacts();
  settings.setFacts(facts);
  stage.grid = facts.grid;
  chips = new Chips(facts, text, (words) => {
    write(words);
    text.focus();
  });
  known = new Words(text, showError);
  byId('known-button').addEventListener('click', () => known.open());
  byId('known-button').hidden = !facts.words.length;
  viewer = new Viewer(facts, { startJob: beginEdit, use: useSettings, write });
  showLanguage();
  takeFiles(byId('choose'), byId('file'), byId('drop'), openFile);
  takeLink();
  window.addEventListener('hashchange', takeLink);
  const jobs = await history.load();
  const going = jobs.find((job) => !job.isOver) ?? jobs[0];
  for (const job of jobs) if (!job.isOver) job.addEventListener('change', showStop);
  if (going && !stage.job) showJob(going);
  document.body.dataset.ready = 'true';
}

function beginEdit(response) {
  startJob(response);
  requestAnimationFrame(() => {
    stage.title.focus({ preventScroll: true });
    byId('stage').scrollIntoView({ behavior: isStill() ? 'auto' : 'smooth', block: 'start' });
  });
}

start();
