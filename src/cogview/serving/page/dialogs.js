// Questions, short messages, and what is copied.

import { byId, button, element } from './dom.js';
import { t } from './i18n.js';

const TOAST_SECONDS = 8;

/** Show a dialog of a title, some content and two buttons; return whether it was agreed to. */
function asked(title, content, agree, kind = 'primary') {
  const dialog = byId('question');
  return new Promise((resolve) => {
    let isAgreed = false;
    const form = element(
      'form',
      { method: 'dialog', on: { submit: (event) => {
        event.preventDefault();
        isAgreed = true;
        dialog.close();
      } } },
      element('h2', { id: 'question-title' }, title),
      content,
      element(
        'div',
        { class: 'dialog-buttons' },
        button(t('cancel'), () => dialog.close()),
        element('button', { type: 'submit', class: kind }, element('span', {}, agree)),
      ),
    );
    dialog.replaceChildren(form);
    const answer = () => {
      if (dialog.open && form.isConnected) return; // the event of an earlier question comes a frame late
      dialog.removeEventListener('close', answer);
      resolve(isAgreed);
    };
    dialog.addEventListener('close', answer);
    dialog.showModal();
  });
}

export const confirmed = (title, warning, agree) => asked(title, element('p', {}, warning), agree, 'primary danger');

/** Ask for the server's key; null if none is given. */
export async function keyGiven(isWrong) {
  const field = element('input', { id: 'key', type: 'password', autocomplete: 'off', required: true, autofocus: true });
  const content = element(
    'div',
    {},
    element('p', isWrong ? { class: 'wrong', role: 'alert' } : {}, isWrong ? t('keyWrong') : t('keyHint')),
    element('div', { class: 'field' }, element('label', { for: 'key' }, t('key')), field),
  );
  const isGiven = await asked(t('keyTitle'), content, t('enter'));
  // What is no header's text cannot be sent as one.
  return isGiven && /^[\x21-\x7e]+$/.test(field.value.trim()) ? field.value.trim() : null;
}

/** Show a message for a while, with something to do if `action` says so. */
export function toast(words, action = null) {
  const made = element('div', { class: 'toast' }, element('span', {}, words));
  const close = () => made.remove();
  if (action) {
    made.append(
      button(action.words, () => {
        action.do();
        close();
      }, { kind: 'text-button' }),
    );
  }
  // A modal dialog hides all that is outside of it.
  const open = document.querySelector('dialog[open]');
  (open?.querySelector('.viewer-toasts') ?? byId('toasts')).replaceChildren(made);
  setTimeout(close, TOAST_SECONDS * 1000 * (action ? 2 : 1));
}

/** Copy words, and say so; where the browser forbids it they are shown. */
export async function copy(words, told) {
  try {
    await navigator.clipboard.writeText(words); // not there for pages without TLS
    toast(told);
  } catch {
    const area = element('textarea', { readonly: true, rows: 5, class: 'copied', 'aria-label': t('notCopied') });
    area.value = words;
    const shown = asked(t('notCopied'), area, t('close'));
    area.select();
    await shown;
  }
}
