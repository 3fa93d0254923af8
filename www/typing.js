// What is typed, as far as it is text: a syllable that an input method is still composing is none.

/**
 * Calls `run` with the field's text a short pause after the last key, at once on Enter and at the
 * end of a composition. Between compositionstart and compositionend nothing is called.
 * @param {HTMLInputElement | HTMLTextAreaElement} field
 * @param {(text: string) => void} run
 * @param {number} pauseMs
 */
export function onTyped(field, run, pauseMs) {
  let composing = false;
  let timer;
  let last = field.value;
  const settle = () => {
    clearTimeout(timer);
    if (composing || field.value === last) return;
    last = field.value;
    run(last);
  };
  field.addEventListener('compositionstart', () => {
    composing = true;
    clearTimeout(timer);
  });
  field.addEventListener('compositionend', () => {
    composing = false;
    // Engines differ in whether the text is in the field before or after this event.
    clearTimeout(timer);
    timer = setTimeout(settle);
  });
  field.addEventListener('input', (event) => {
    if (composing || event.isComposing) return;
    clearTimeout(timer);
    timer = setTimeout(settle, pauseMs);
  });
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.isComposing) settle();
  });
  return {
    /** Puts a text into the field and runs it, as a click on an example does. */
    set(text) {
      clearTimeout(timer);
      field.value = text;
      last = text;
      run(text);
    },
  };
}
