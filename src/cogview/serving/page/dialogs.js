// Dialogs, toasts and the clipboard.

import { byId, button, element } from './dom.js';
import { t } from './i18n.js';

const TOAST_SECONDS = 8;

/** Show a dialog with two buttons; return whether the user confirmed. */
function ask(title, content, agree, kind = 'primary') {
  const dialog = byId('question');
  return new Promise((resolve) => {
    let isConfirmed = false;
    const form = element(
      'form',
      { method: 'dialog', on: { submit: (event) => {
        event.preventDefault();
        isConfirmed = true;
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
      if (dialog.open && form.isConnected) return; // the event of an earlier dialog comes a frame late
      dialog.removeEventListener('close', answer);
      resolve(isConfirmed);
    };
    dialog.addEventListener('close', answer);
    dialog.showModal();
  });
}

export const confirmAction = (title, warning, agree) => ask(title, element('p', {}, warning), agree, 'primary danger');

/** Ask for an API key; null if none is entered. */
export async function askForKey(isWrong) {
  const field = element('input', { id: 'key', type: 'password', autocomplete: 'off', required: true, autofocus: true });
  const content = element(
    'div',
    {},
    element('p', isWrong ? { class: 'wrong', role: 'alert' } : {}, isWrong ? t('keyWrong') : t('keyHint')),
    element('div', { class: 'field' }, element('label', { for: 'key' }, t('key')), field),
  );
  const isGiven = await ask(t('keyTitle'), content, t('enter'));
  // Other characters cannot be sent in a header.
  return isGiven && /^[\x21-\x7e]+$/.test(field.value.trim()) ? field.value.trim() : null;
}

/** Show a message for a while, with an optional action. */
export function toast(words, action = null) {
  const node = element('div', { class: 'toast' }, element('span', {}, words));
  const close = () => node.remove();
  if (action) {
    node.append(
      button(action.words, () => {
        action.do();
        close();
      }, { kind: 'text-button' }),
    );
  }
  // A modal dialog hides toasts outside of it.
  const open = document.querySelector('dialog[open]');
  (open?.querySelector('.viewer-toasts') ?? byId('toasts')).replaceChildren(node);
  setTimeout(close, TOAST_SECONDS * 1000 * (action ? 2 : 1));
}

/** Copy a text and show a message; if the browser forbids it, show the text to copy. */
export async function copy(words, message) {
  try {
    await navigator.clipboard.writeText(words); // missing without TLS
    toast(message);
  } catch {
    const area = element('textarea', { readonly: true, rows: 5, class: 'copied', 'aria-label': t('notCopied') });
    area.value = words;
    const shown = ask(t('notCopied'), area, t('close'));
    area.select();
    await shown;
  }
}
