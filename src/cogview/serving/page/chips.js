// Example prompts, and completions of words that the model knows.

import { button, byId, element } from './dom.js';
import { language, t } from './i18n.js';

const NUM_SENTENCES = 5;
const NUM_WORDS = 6;
const LONGEST_CHINESE = 3;

/** The row of chips below the text box. `take` is called with the new text. */
export class Chips {
  #from = 0;

  constructor(facts, text, take) {
    Object.assign(this, { facts, text, take });
    this.#from = Math.floor(Math.random() * 100);
    text.addEventListener('input', () => this.render());
  }

  render() {
    const chips = this.text.value.trim() ? this.#words() : this.#sentences();
    byId('chips').replaceChildren(...chips);
  }

  #sentences() {
    const all = this.facts.suggestions?.[language()] ?? [];
    if (!all.length) return [];
    const count = Math.min(NUM_SENTENCES, all.length);
    const chosen = Array.from({ length: count }, (_, index) => all[(this.#from + index) % all.length]);
    const others = () => {
      this.#from += count;
      this.render();
      byId('chips').lastElementChild?.focus();
    };
    return [
      ...chosen.map((sentence) => element('button', { type: 'button', class: 'chip', on: { click: () => this.take(sentence) } }, sentence)),
      ...(all.length > count ? [button(t('otherSuggestions'), others, { kind: 'quiet', icon: 'dice', isIconOnly: true })] : []),
    ];
  }

  /** Return chips that complete the last word. */
  #words() {
    const { value } = this.text;
    const last = /[\p{L}\p{N}]+$/u.exec(value)?.[0] ?? '';
    for (const start of starts(last)) {
      const found = this.facts.words.filter((word) => word.length > start.length && word.toLowerCase().startsWith(start.toLowerCase()));
      const different = [...new Map(found.map((word) => [word.toLowerCase(), word])).values()].slice(0, NUM_WORDS);
      if (!different.length) continue;
      return different.map((word) =>
        element(
          'button',
          {
            type: 'button',
            class: 'chip word',
            'aria-label': t('completion', word),
            on: { click: () => this.take(value.slice(0, value.length - start.length) + word) },
          },
          word,
        ),
      );
    }
    return [];
  }
}

/** Return the prefixes to complete: a whole word of letters, or the last characters of Chinese. */
function starts(last) {
  if (/\p{Script=Han}$/u.test(last)) {
    const characters = [...last];
    const longest = Math.min(LONGEST_CHINESE, characters.length);
    return Array.from({ length: longest }, (_, index) => characters.slice(index - longest).join(''));
  }
  return last.length >= 2 ? [last] : [];
}
