// Tabs as the ARIA practices describe them: one tab stop, arrow keys move the focus, Enter, the
// space bar or a click opens. Not opened by the arrow keys alone: a panel may load megabytes.

/**
 * @param {HTMLElement} list the element with role="tablist"
 * @param {(panelId: string) => void} onOpen called each time a tab becomes the open one
 */
export function makeTabs(list, onOpen) {
  const tabs = [...list.querySelectorAll('[role=tab]')];
  const panelOf = (tab) => document.getElementById(tab.getAttribute('aria-controls'));
  const open = (chosen) => {
    const already = chosen.getAttribute('aria-selected') === 'true';
    for (const tab of tabs) {
      tab.setAttribute('aria-selected', String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      panelOf(tab).hidden = tab !== chosen;
    }
    if (!already) onOpen(panelOf(chosen).id);
  };
  list.addEventListener('click', (event) => {
    const tab = event.target.closest('[role=tab]');
    if (tab) open(tab);
  });
  list.addEventListener('keydown', (event) => {
    const at = tabs.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    tabs[(to + tabs.length) % tabs.length].focus();
  });
  return {
    /** @param {string} panelId */
    open: (panelId) => open(tabs.find((tab) => tab.getAttribute('aria-controls') === panelId)),
    get current() {
      return panelOf(tabs.find((tab) => tab.getAttribute('aria-selected') === 'true')).id;
    },
  };
}
