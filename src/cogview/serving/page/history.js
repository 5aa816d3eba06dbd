// History: cards of earlier jobs, search and paging.

import * as api from './api.js';
import { byId, button, element } from './dom.js';
import { ago, onLanguage, t } from './i18n.js';
import { jobOf } from './job.js';
import { statusOf } from './stage.js';

const AT_ONCE = 24;
const SEARCH_PAUSE = 250; // milliseconds
const MAX_THUMBNAILS = 4;

/** The history. `actions`: show and remove a job. `isStaged(job)`: whether the stage shows it. */
export class History {
  #jobs = [];
  #search = '';
  #numLoads = 0;
  #timer = 0;
  #cards = new Map();
  #hasMore = false;

  constructor(actions, isStaged, onError) {
    Object.assign(this, { actions, isStaged, onError });
    byId('search').addEventListener('input', () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#applySearch(), SEARCH_PAUSE);
    });
    byId('more').addEventListener('click', () => this.load(true));
    onLanguage(() => {
      this.#cards.clear();
      this.render();
    });
    setInterval(() => this.#retime(), 30_000);
  }

  /** Load the newest jobs, or the next older ones. */
  async load(isMore = false) {
    const turn = (this.#numLoads += 1);
    const before = isMore && this.#jobs.length ? this.#jobs.at(-1).number : null;
    let page;
    try {
      page = await api.history({ search: this.#search, before, limit: AT_ONCE });
    } catch (error) {
      this.onError(error);
      return [];
    }
    if (turn !== this.#numLoads) return [];
    const jobs = page.map(jobOf);
    this.#jobs = isMore ? [...this.#jobs, ...jobs] : jobs;
    this.#hasMore = page.length === AT_ONCE;
    const first = jobs.find((job) => !this.isStaged(job));
    this.render();
    if (isMore && first) this.#cards.get(first.id)?.querySelector('button')?.focus();
    return jobs;
  }

  /** Add a new job. */
  add(job) {
    if (this.#search || this.#jobs.includes(job)) return;
    this.#jobs.unshift(job);
    this.render();
  }

  remove(job) {
    this.#jobs = this.#jobs.filter((each) => each !== job);
    this.render();
  }

  async #applySearch() {
    const words = byId('search').value.trim();
    if (words === this.#search) return;
    this.#search = words;
    await this.load();
  }

  render() {
    const shown = this.#jobs.filter((job) => this.#search || !this.isStaged(job));
    byId('earlier').hidden = !shown.length && !this.#search;
    byId('nothing').hidden = Boolean(shown.length);
    byId('nothing').textContent = t('nothingFound');
    byId('more').hidden = !this.#hasMore;
    for (const [id] of this.#cards) if (!shown.some((job) => job.id === id)) this.#cards.delete(id);
    for (const job of shown) if (!this.#cards.has(job.id)) this.#cards.set(job.id, this.#card(job));
    byId('cards').replaceChildren(...shown.map((job) => this.#cards.get(job.id)));
  }

  #card(job) {
    const mosaic = element('div', { class: 'mosaic' });
    const when = element('span', { class: 'card-when' });
    const opener = element(
      'button',
      { type: 'button', class: 'card-button', on: { click: () => this.actions.show(job) } },
      mosaic,
      element('span', { class: 'card-text', lang: '' }, job.text),
      when,
    );
    const remover = button(t('removeNamed', job.text), () => this.actions.remove(job), { kind: 'quiet', icon: 'trash', isIconOnly: true });
    const card = element('li', { class: 'work' }, opener, remover);
    const fill = () => {
      this.#mosaic(mosaic, job);
      when.textContent = job.state === 'done' ? ago(job.created) : statusOf(job);
      when.dataset.created = job.state === 'done' ? job.created : '';
    };
    fill();
    if (!job.isOver) {
      job.addEventListener('change', (event) => {
        if (job.isGone) this.remove(job);
        else if (event.detail !== 'preview' || job.state !== 'done') fill();
      });
    }
    return card;
  }

  #mosaic(mosaic, job) {
    const shown = job.pictures.slice(0, MAX_THUMBNAILS);
    const sources = shown.map((picture) => picture.url);
    if (!sources.length) sources.push(...[...job.previews.values()].slice(0, MAX_THUMBNAILS).map((preview) => preview.image));
    mosaic.dataset.count = sources.length;
    while (mosaic.children.length > sources.length) mosaic.lastChild.remove();
    sources.forEach((src, index) => {
      const image = mosaic.children[index] ?? element('img', { alt: '', loading: 'lazy', decoding: 'async' });
      if (image.getAttribute('src') !== src) image.src = src;
      if (!image.parentNode) mosaic.append(image);
    });
  }

  #retime() {
    for (const each of document.querySelectorAll('.card-when[data-created]')) {
      if (each.dataset.created) each.textContent = ago(Number(each.dataset.created));
    }
  }
}
